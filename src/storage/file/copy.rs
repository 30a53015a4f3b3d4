//! Copies that the operating system makes: shared blocks where the file system can, else without a detour through our memory.

use std::io;

use super::{FileKind, FileStorage, sys};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Whether copying by hand may work where `copy_file_range` does not.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EXDEV
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::EBADF
                | libc::EPERM
                | libc::ETXTBSY
                | libc::EISDIR
        )
    )
}

impl FileStorage {
    pub(super) fn copy_range(
        &self,
        from: u64,
        target: &dyn Storage,
        to: u64,
        len: u64,
    ) -> Result<bool> {
        let Some(fd) = target.raw_fd() else {
            return Ok(false);
        };
        if self.direct.is_some() || self.kind != FileKind::Regular {
            return Ok(false);
        }
        let mut done = 0;
        while done < len {
            let (source, sink) = (from + done, to + done);
            match sys::copy_file_range(&self.opened.io, source, fd, sink, len - done) {
                // The end of this file: copying by hand gives the right error.
                Ok(0) => return Ok(false),
                Ok(copied) => done += copied,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_refusal(&error) => return Ok(false),
                Err(error) => {
                    return Err(Error::io("copy", error)
                        .with_path(target.name())
                        .with_offset(sink));
                }
            }
        }
        Ok(true)
    }
}
