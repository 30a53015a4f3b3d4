//! Which parts of a file occupy space.

use super::{FileKind, FileStorage, sys};
use crate::error::{Error, Result};
use crate::storage::StorageExtent;
use crate::storage::transfer::Transport;

impl FileStorage {
    /// By `SEEK_DATA` and `SEEK_HOLE`. Space that was only reserved (fallocate) counts as a hole on most file systems: it reads as
    /// zeros. Block devices, and file systems that cannot tell, are allocated throughout.
    pub(super) fn find_extent(&self, offset: u64) -> Result<StorageExtent> {
        let size = self.opened.size()?;
        if offset >= size {
            return Ok(StorageExtent {
                len: 0,
                allocated: false,
            });
        }
        let all = StorageExtent {
            len: size - offset,
            allocated: true,
        };
        if self.kind != FileKind::Regular {
            return Ok(all);
        }
        let file = self.side.as_ref().unwrap_or(&self.opened.io);
        let run = |end: u64, allocated| {
            // The file may have been cut since its size was asked for.
            StorageExtent {
                len: end.min(size).saturating_sub(offset).max(1),
                allocated,
            }
        };
        match sys::seek(file, offset, libc::SEEK_DATA) {
            Ok(data) if data > offset => return Ok(run(data, false)),
            Ok(_) => {}
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENXIO) => Ok(run(size, false)),
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ESPIPE) => Ok(all),
                    _ => Err(Error::io("seek", error)),
                };
            }
        }
        match sys::seek(file, offset, libc::SEEK_HOLE) {
            Ok(hole) => Ok(run(hole, true)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(run(size, true)),
            Err(error) => Err(Error::io("seek", error)),
        }
    }
}
