//! Regular files and block devices.

mod copy;
mod extent;
mod lock;
mod open;
mod sys;
mod zero;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::aligned::AlignedIo;
use crate::storage::transfer::{self, Transport};
use crate::storage::{LockMode, Storage, StorageExtent, Users};
use crate::units::ByteRange;

pub use open::FileOptions;
pub(crate) use open::remove_if;

/// What the file is; nothing but these two is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    /// Grows and shrinks.
    Regular,
    /// Has the size it has, and zeroes or discards whole logical blocks of so many bytes only.
    Block { logical_block: u64 },
}

/// Descriptors of one access mode.
#[derive(Debug)]
struct Handles {
    /// Does the I/O; `O_DIRECT` if the storage is direct.
    io: File,
    /// The same file through the page cache, where `io` is direct: for the bytes of a last block that the file's end cuts.
    buffered: Option<File>,
    kind: FileKind,
}

/// What the file system or device turned out not to do; asked once, then done by hand.
#[derive(Debug, Default)]
struct Missing {
    punch_hole: AtomicBool,
    zero_range: AtomicBool,
    discard: AtomicBool,
}

/// A regular file, which grows, or a block device, whose size is fixed.
///
/// Opened by [`FileOptions`]. Durable means `fdatasync`: after a flush that failed nothing written since the last good one may be
/// taken as durable, even if a later flush succeeds.
///
/// With `O_DIRECT` any range and any memory may still be used; what is not aligned goes through a buffer of at most 1 MiB, and a
/// write of part of a block reads it first. Writers of one block wait for each other, so threads that write neighbouring parts of it
/// lose nothing. (Two handles or processes do not wait for each other; the lock keeps them apart.)
#[derive(Debug)]
pub struct FileStorage {
    name: String,
    id: (u64, u64),
    kind: FileKind,
    opened: Handles,
    /// Writable descriptors of a file that was opened for reading and upgraded since. `opened` stays for readers under way.
    reopened: OnceLock<Handles>,
    /// Holds the locks and the position that searching for holes moves. `None` where the file could not be opened once more.
    side: Option<File>,
    opened_writable: bool,
    may_write: AtomicBool,
    direct: Option<AlignedIo>,
    lock: Mutex<lock::LockState>,
    users: Users,
    missing: Missing,
}

/// What could not be written back is dropped from the page cache, for want of space as for any other reason, and the next `fdatasync` does
/// not tell. So missing space is no reason to try again here: that is for writes.
fn flush_failed(error: io::Error) -> Error {
    let error = Error::io("flush", error);
    if error.kind() != ErrorKind::NoSpace {
        return error;
    }
    error.with_kind(ErrorKind::Io)
}

impl FileStorage {
    /// Whether I/O bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether this is a block device.
    pub fn is_block_device(&self) -> bool {
        self.kind != FileKind::Regular
    }

    /// Bytes in a logical block of a block device; `None` for a regular file.
    pub fn logical_block_size(&self) -> Option<u64> {
        match self.kind {
            FileKind::Regular => None,
            FileKind::Block { logical_block } => Some(logical_block),
        }
    }

    /// The descriptors to write through.
    #[inline]
    fn writer(&self) -> Result<&Handles> {
        if !self.may_write.load(Ordering::Relaxed) {
            return Err(self.read_only());
        }
        Ok(self.newest())
    }

    /// Writable descriptors where there are any.
    #[inline]
    fn newest(&self) -> &Handles {
        if self.opened_writable {
            return &self.opened;
        }
        self.reopened.get().unwrap_or(&self.opened)
    }

    #[cold]
    fn read_only(&self) -> Error {
        Error::new(ErrorKind::ReadOnly, "not open for writing").with_path(&self.name)
    }

    #[cold]
    fn named(&self, error: Error) -> Error {
        error.with_path(&self.name)
    }

    /// Refuses what no file offset can address, so that ends may be computed without care.
    fn checked(&self, range: ByteRange) -> Result<ByteRange> {
        ByteRange::checked(range.start, range.len).ok_or_else(|| {
            let text = format!("{} bytes from here lie beyond any file", range.len);
            self.named(Error::new(ErrorKind::OutOfBounds, text).with_offset(range.start))
        })
    }
}

impl Storage for FileStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Result<u64> {
        self.opened.size().map_err(|error| self.named(error))
    }

    fn is_growable(&self) -> bool {
        self.kind == FileKind::Regular
    }

    fn block_size(&self) -> u64 {
        self.direct.as_ref().map_or(1, AlignedIo::block_size)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        match &self.direct {
            None => transfer::read_all(&self.opened, bufs, offset),
            Some(direct) => direct.read(&self.opened, bufs, offset),
        }
        .map_err(|error| self.named(error))
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let handles = self.writer()?;
        match &self.direct {
            None => transfer::write_all(handles, bufs, offset),
            Some(direct) => direct.write(handles, bufs, offset),
        }
        .map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let range = self.checked(range)?;
        self.zero(range, unmap)
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        let range = self.checked(range)?;
        self.give_back(range)
            .map_err(|error| self.named(error).with_offset(range.start))
    }

    fn flush(&self) -> Result<()> {
        // A failure is reported once per descriptor, so the one that writes is the one to ask.
        self.newest()
            .io
            .sync_data()
            .map_err(|error| self.named(flush_failed(error)))
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let handles = self.writer()?;
        match self.kind {
            FileKind::Regular => {
                // The read-modify-write of a block at the old or new end must not undo the cut.
                let _all = self.direct.as_ref().map(|direct| direct.exclude_all());
                handles
                    .io
                    .set_len(size)
                    .map_err(|error| Error::io("resize", error))
            }
            FileKind::Block { .. } => handles
                .size()
                .and_then(|fixed| transfer::keep_size(fixed, size)),
        }
        .map_err(|error| self.named(error))
    }

    fn prefetch(&self, range: ByteRange) {
        if self.direct.is_none() {
            sys::will_need(&self.opened.io, range.start, range.len);
        }
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        self.find_extent(offset)
            .map_err(|error| self.named(error).with_offset(offset))
    }

    fn try_copy_to(&self, from: u64, target: &dyn Storage, to: u64, len: u64) -> Result<bool> {
        self.copy_range(from, target, to, len)
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        let mut state = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.change_lock(&mut state, mode)
            .map_err(|error| self.named(error))
    }

    fn users(&self) -> &Users {
        &self.users
    }

    fn file_id(&self) -> Option<(u64, u64)> {
        Some(self.id)
    }

    /// `None` unless a copy by the operating system may write there: the descriptor is writable, and not direct.
    fn raw_fd(&self) -> Option<i32> {
        let usable = self.direct.is_none() && self.may_write.load(Ordering::Relaxed);
        usable.then(|| self.newest().io.as_raw_fd())
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Closing is not enough while a copy of the descriptor exists: the caller's, or that of a child process that another thread
        // has forked and that has yet to execute its program.
        let mut state = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.change_lock(&mut state, LockMode::None);
    }
}

impl Transport for Handles {
    #[inline]
    fn read_some(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        match bufs {
            [one] => self.io.read_at(one, offset),
            many => sys::preadv(&self.io, many, offset),
        }
    }

    #[inline]
    fn write_some(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match bufs {
            [one] => self.io.write_at(one, offset),
            many => sys::pwritev(&self.io, many, offset),
        }
    }

    fn size(&self) -> Result<u64> {
        match self.kind {
            FileKind::Regular => self.io.metadata().map(|metadata| metadata.len()),
            FileKind::Block { .. } => sys::device_size(&self.io),
        }
        .map_err(|error| Error::io("size", error))
    }

    fn write_exactly(&self, buf: &[u8], offset: u64) -> Option<Result<()>> {
        if self.kind != FileKind::Regular {
            return None;
        }
        let Some(file) = &self.buffered else {
            let text = "the end of a file that is open with O_DIRECT lies inside a block, and it cannot be opened without";
            return Some(Err(
                Error::new(ErrorKind::Unsupported, text).with_offset(offset)
            ));
        };
        let written = file.write_all_at(buf, offset);
        Some(written.map_err(|error| Error::io("write", error).with_offset(offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ENOSPC promises that trying again helps.
    #[test]
    fn test_a_flush_without_space_has_lost_data() {
        for (errno, kind, told) in [
            (libc::ENOSPC, ErrorKind::Io, libc::EIO),
            (libc::EDQUOT, ErrorKind::Io, libc::EIO),
            (libc::EIO, ErrorKind::Io, libc::EIO),
            (libc::ENOMEM, ErrorKind::NoMemory, libc::ENOMEM),
        ] {
            let error = flush_failed(io::Error::from_raw_os_error(errno));
            assert_eq!((error.kind(), error.errno()), (kind, told), "{error}");
        }
    }
}
