//! Where bytes live: files, block devices, memory, host callbacks. Knows no snapshot format.

mod aligned;
mod callback;
mod file;
mod memory;
mod pages;
mod range_locks;
mod transfer;
mod users;
mod zeros;

#[cfg(any(test, feature = "test-util"))]
pub mod testing;

use crate::sync::Arc;
use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};

use crate::error::Result;
use crate::units::ByteRange;

pub use callback::{CallbackStorage, HostAlignment, HostCallbacks};
pub(crate) use file::remove_if;
pub use file::{FileOptions, FileStorage};
pub use memory::MemoryStorage;
pub(crate) use users::Hold;
pub use users::Users;

/// A run of bytes of one kind, counted from the offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageExtent {
    /// Number of bytes, at least 1 unless the offset is at or past the end.
    pub len: u64,
    /// Whether the bytes occupy space. What occupies none reads as zeros.
    pub allocated: bool,
}

/// Which lock a handle holds on its file, in the terms of QEMU's file driver so that both exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// None: for readers that only inspect.
    None,
    /// Reads, and forbids others to write or resize: an origin, a frozen layer, a reader.
    Reader,
    /// Reads and writes, and forbids others to write.
    Writer,
}

impl LockMode {
    /// How a reader locks who may have been told not to.
    pub(crate) fn reader_if(lock: bool) -> LockMode {
        match lock {
            true => LockMode::Reader,
            false => LockMode::None,
        }
    }
}

/// Positional I/O on bytes.
///
/// Calls take `&self` and may come from any number of threads at once. A call transfers all of its bytes or fails: short transfers,
/// interruptions and alignment are dealt with inside. Errors name the file and the offset.
pub trait Storage: Send + Sync + Debug {
    /// What errors call this storage: a path, or a description.
    fn name(&self) -> &str;

    /// Current size in bytes.
    fn size(&self) -> Result<u64>;

    /// Whether [`Storage::set_size`] can make it longer. A block device cannot grow.
    fn is_growable(&self) -> bool;

    /// Smallest unit that is read and written without another read, in bytes; 1 where any transfer is as good as another.
    fn block_size(&self) -> u64 {
        1
    }

    /// Fills `bufs` from `offset`. Reading past the end is an [`ErrorKind::Io`](crate::error::ErrorKind::Io) error.
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()>;

    /// Writes `bufs` at `offset`, growing a growable storage where needed.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()>;

    /// Fills `buf` from `offset`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_vectored_at(&mut [IoSliceMut::new(buf)], offset)
    }

    /// Writes `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }

    /// Makes `range` read as zeros, growing a growable storage where needed. With `unmap` space may be given back; without it the
    /// range ends up with space of its own where the storage can promise that, so that later writes there do not run out of it.
    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()>;

    /// Gives space back where possible. What the range reads as afterwards is undefined; content must not depend on it.
    fn discard(&self, range: ByteRange) -> Result<()>;

    /// Returns once everything written before is durable.
    ///
    /// An error of [`ErrorKind::NoSpace`](crate::error::ErrorKind::NoSpace) promises that nothing written before is lost, so that the flush
    /// can be tried again; whoever cannot promise that reports another kind.
    fn flush(&self) -> Result<()>;

    /// Makes the storage `size` bytes long; new bytes read as zeros. A storage of fixed size accepts its own only: a larger one is
    /// [`ErrorKind::NoSpace`](crate::error::ErrorKind::NoSpace), a smaller one `Unsupported`.
    fn set_size(&self, size: u64) -> Result<()>;

    /// Tells that `range` will be read soon, so that the reads need not wait. A hint: by default nothing happens.
    fn prefetch(&self, range: ByteRange) {
        let _ = range;
    }

    /// The run of equally allocated bytes at `offset`. A storage that cannot tell calls everything allocated.
    fn extent_at(&self, offset: u64) -> Result<StorageExtent>;

    /// Copies `len` bytes from here to `target`, by the operating system where both allow it.
    /// Returns `false` and has done nothing it needs to undo if it cannot; the caller then copies by hand.
    fn try_copy_to(&self, from: u64, target: &dyn Storage, to: u64, len: u64) -> Result<bool> {
        let _ = (from, target, to, len);
        Ok(false)
    }

    /// Takes, changes or gives up the lock, and opens for writing if the mode is [`LockMode::Writer`] and that was not done yet.
    /// After any other mode writes fail with [`ErrorKind::ReadOnly`](crate::error::ErrorKind::ReadOnly). On failure the old mode
    /// stays; [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) means that somebody else's access contradicts this one.
    ///
    /// As long as images use the storage this is theirs to call.
    fn lock(&self, mode: LockMode) -> Result<()>;

    /// Those of this program who use it, so that an image, its origins and a check keep out of each other's way. A value that the storage
    /// keeps for nothing else, or that of the storage it wraps.
    fn users(&self) -> &Users;

    /// Identity of the underlying file (device, inode), for detecting chains that contain themselves.
    fn file_id(&self) -> Option<(u64, u64)> {
        None
    }

    /// Whether the calling thread is inside a callback of this storage's host. Whoever waits for this storage then would wait for
    /// itself.
    fn in_callback(&self) -> bool {
        false
    }

    /// The open descriptor, for copies by the operating system.
    fn raw_fd(&self) -> Option<i32> {
        None
    }
}

/// A storage that layers share.
pub type SharedStorage = Arc<dyn Storage>;
