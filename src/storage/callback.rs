//! A storage that the host program supplies.
#![forbid(unsafe_code)]

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};

use super::aligned::{AlignedIo, Alignment};
use super::transfer::{self, Transport, keep_size};
use super::{LockMode, Storage, StorageExtent, Users, zeros};
use crate::error::{Error, ErrorKind, Result};
use crate::units::ByteRange;

/// Most slices that a host is given at once.
const MAX_SLICES: usize = 1024;

/// Most storages whose callbacks can be under way on one thread, each called from inside the one before.
const MAX_NESTED: usize = 32;

/// What a host asks of the transfers it is given, in bytes; powers of two up to 1 MiB, 1 where it takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAlignment {
    /// Offsets and lengths are multiples of this. The storage's size has to be one as well.
    pub request: u32,
    /// Buffers start at multiples of this.
    pub memory: u32,
}

impl Default for HostAlignment {
    fn default() -> HostAlignment {
        HostAlignment {
            request: 1,
            memory: 1,
        }
    }
}

/// I/O that a host does for a [`CallbackStorage`].
///
/// Calls come from any thread that is inside a call of this library, several at once, and never while the library holds a lock that
/// another such call would have to wait for. Only where the host asked for aligned requests, those who change the same blocks (write,
/// zero, discard) wait for each other's callbacks, and all who change anything wait for a change of size; reads and flushes never wait.
/// A callback must not wait for another change to its own storage. A callback must not use the image or the store it is called for: that
/// fails with [`ErrorKind::Deadlock`]. Buffers are lent for the call only. Dropping the value frees what belongs to it; that happens once.
///
/// Errors are taken over with their errno. An interrupted call (EINTR) is repeated.
pub trait HostCallbacks: Send + Sync {
    /// Fills a beginning of `bufs` (at most 1024) from `offset` and returns how many bytes that was; 0 only at the end.
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize>;

    /// Writes a beginning of `bufs` (at most 1024) at `offset` and returns how many bytes that was, at least 1. Past the end a
    /// growable storage grows, and one of fixed size fails with ENOSPC.
    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes durable what was written before. ENOSPC and EDQUOT promise that nothing of it is lost, and the flush is tried again on request; a
    /// host that cannot promise that reports EIO.
    fn flush(&self) -> io::Result<()>;

    /// Current size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Whether writes past the end and [`HostCallbacks::set_size`] change the size.
    fn is_growable(&self) -> bool {
        false
    }

    /// Changes the size; new bytes read as zeros. Called only if the storage is growable.
    fn set_size(&self, size: u64) -> io::Result<()> {
        let _ = size;
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    /// Makes a range read as zeros, as [`Storage::write_zeroes`] does. `None`, or EOPNOTSUPP, has zeros written instead.
    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Option<io::Result<()>> {
        let _ = (range, unmap);
        None
    }

    /// Takes note that the content of a range is not needed any more. `None` if the host has no use for that.
    fn discard(&self, range: ByteRange) -> Option<io::Result<()>> {
        let _ = range;
        None
    }

    /// The run of equally allocated bytes at `offset`, which lies inside the storage. `None`: all is allocated.
    fn extent_at(&self, offset: u64) -> Option<io::Result<StorageExtent>> {
        let _ = offset;
        None
    }

    /// What transfers have to look like. Asked once.
    fn alignment(&self) -> HostAlignment {
        HostAlignment::default()
    }
}

/// The storages whose callbacks are under way on this thread. Without `Drop`, so it works up to the thread's very end.
struct Inside {
    ids: [u64; MAX_NESTED],
    depth: usize,
}

thread_local! {
    static INSIDE: RefCell<Inside> = const { RefCell::new(Inside { ids: [0; MAX_NESTED], depth: 0 }) };
}

fn is_inside(id: u64) -> bool {
    INSIDE.with_borrow(|inside| inside.ids[..inside.depth].contains(&id))
}

/// Marks this thread as inside a callback until dropped.
struct Entered;

impl Entered {
    fn enter(id: u64) -> Result<Entered> {
        INSIDE.with_borrow_mut(|inside| {
            if inside.ids[..inside.depth].contains(&id) {
                let text = "used from inside one of its own callbacks";
                return Err(Error::new(ErrorKind::Deadlock, text));
            }
            let Some(free) = inside.ids.get_mut(inside.depth) else {
                let text =
                    format!("callbacks of {MAX_NESTED} storages are under way on this thread");
                return Err(Error::new(ErrorKind::Deadlock, text));
            };
            *free = id;
            inside.depth += 1;
            Ok(Entered)
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| inside.depth -= 1);
    }
}

/// The host's side, with every call guarded against re-entry.
struct Host {
    id: u64,
    callbacks: Box<dyn HostCallbacks>,
}

impl Host {
    fn call<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&dyn HostCallbacks) -> io::Result<T>,
    ) -> Result<T> {
        let entered = Entered::enter(self.id)?;
        let result = call(&*self.callbacks);
        drop(entered);
        result.map_err(|error| Error::io(operation, error))
    }

    /// As `call`, for what a host may not have. `Ok(None)` if so.
    fn call_if_there<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&dyn HostCallbacks) -> Option<io::Result<T>>,
    ) -> Result<Option<T>> {
        let entered = Entered::enter(self.id)?;
        let result = call(&*self.callbacks);
        drop(entered);
        match result {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Some(Err(error)) => Err(Error::io(operation, error)),
        }
    }
}

impl Transport for Host {
    fn read_some(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let count = bufs.len().min(MAX_SLICES);
        let _entered = Entered::enter(self.id).map_err(deadlock)?;
        self.callbacks.preadv(&mut bufs[..count], offset)
    }

    fn write_some(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let count = bufs.len().min(MAX_SLICES);
        let _entered = Entered::enter(self.id).map_err(deadlock)?;
        self.callbacks.pwritev(&bufs[..count], offset)
    }

    fn size(&self) -> Result<u64> {
        self.call("size", |host| host.size())
    }
}

/// Transfers speak errno; the storage turns it back into the kind.
fn deadlock(_: Error) -> io::Error {
    io::Error::from_raw_os_error(libc::EDEADLK)
}

/// A storage whose I/O a host does through [`HostCallbacks`].
pub struct CallbackStorage {
    name: String,
    host: Host,
    aligned: Option<AlignedIo>,
    may_write: AtomicBool,
    users: Users,
}

impl fmt::Debug for CallbackStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackStorage")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl CallbackStorage {
    /// A storage over `callbacks`; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the alignment is not made of powers of two up to 1 MiB.
    pub fn new(
        name: impl Into<String>,
        callbacks: Box<dyn HostCallbacks>,
    ) -> Result<CallbackStorage> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let name = name.into();
        let HostAlignment { request, memory } = callbacks.alignment();
        let aligned = if (request, memory) == (1, 1) {
            None
        } else {
            let alignment = Alignment::new(memory.into(), request.into(), request.into());
            Some(AlignedIo::new(
                alignment.map_err(|error| error.with_path(&name))?,
            ))
        };
        let host = Host {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            callbacks,
        };
        Ok(CallbackStorage {
            name,
            host,
            aligned,
            may_write: AtomicBool::new(true),
            users: Users::default(),
        })
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_path(&self.name))
    }

    fn writable(&self) -> Result<&Host> {
        if self.may_write.load(Ordering::Relaxed) {
            return Ok(&self.host);
        }
        self.named(Err(Error::new(ErrorKind::ReadOnly, "not open for writing")))
    }

    /// Refused before a lock of ours is waited for, which the caller's callback may hold.
    fn refuse_reentry(&self) -> Result<()> {
        if self.aligned.is_some() && is_inside(self.host.id) {
            let text = "used from inside one of its own callbacks";
            return self.named(Err(Error::new(ErrorKind::Deadlock, text)));
        }
        Ok(())
    }

    fn checked(&self, range: ByteRange) -> Result<ByteRange> {
        let text = || format!("{} bytes from here lie beyond any file", range.len);
        let error = || Error::new(ErrorKind::OutOfBounds, text()).with_offset(range.start);
        self.named(ByteRange::checked(range.start, range.len).ok_or_else(error))
    }

    /// The part of a range that a host can be asked to zero or discard.
    fn whole_requests(&self, range: ByteRange) -> ByteRange {
        let block = self.aligned.as_ref().map_or(1, AlignedIo::block_size);
        let start = range.start.next_multiple_of(block).min(range.end());
        let end = (range.end() - range.end() % block).max(start);
        ByteRange::new(start, end - start)
    }
}

impl Storage for CallbackStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Result<u64> {
        self.named(self.host.size())
    }

    fn is_growable(&self) -> bool {
        self.host.callbacks.is_growable()
    }

    fn block_size(&self) -> u64 {
        self.aligned.as_ref().map_or(1, AlignedIo::block_size)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.refuse_reentry()?;
        self.named(match &self.aligned {
            None => transfer::read_all(&self.host, bufs, offset),
            Some(aligned) => aligned.read(&self.host, bufs, offset),
        })
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let host = self.writable()?;
        self.refuse_reentry()?;
        self.named(match &self.aligned {
            None => transfer::write_all(host, bufs, offset),
            Some(aligned) => aligned.write(host, bufs, offset),
        })
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let range = self.checked(range)?;
        let host = self.writable()?;
        self.refuse_reentry()?;
        if range.is_empty() {
            return Ok(());
        }
        let inner = self.whole_requests(range);
        let done = if inner.is_empty() {
            None
        } else {
            let _guard = self.aligned.as_ref().map(|aligned| aligned.exclude(inner));
            let zeroed = host.call_if_there("write zeroes", |host| host.write_zeroes(inner, unmap));
            self.named(zeroed.map_err(|error| error.with_offset(inner.start)))?
        };
        if done.is_none() {
            return zeros::write(self, range);
        }
        zeros::write(self, ByteRange::new(range.start, inner.start - range.start))?;
        zeros::write(self, ByteRange::new(inner.end(), range.end() - inner.end()))
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        let range = self.checked(range)?;
        let host = self.writable()?;
        self.refuse_reentry()?;
        let size = self.size()?;
        let start = range.start.min(size);
        let inner = self.whole_requests(ByteRange::new(start, range.end().min(size) - start));
        if inner.is_empty() {
            return Ok(());
        }
        let _guard = self.aligned.as_ref().map(|aligned| aligned.exclude(inner));
        let done = host.call_if_there("discard", |host| host.discard(inner));
        self.named(
            done.map(|_| ())
                .map_err(|error| error.with_offset(inner.start)),
        )
    }

    fn flush(&self) -> Result<()> {
        self.named(self.host.call("flush", |host| host.flush()))
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let host = self.writable()?;
        self.refuse_reentry()?;
        if !self.is_growable() {
            return self.named(host.size().and_then(|fixed| keep_size(fixed, size)));
        }
        let _all = self.aligned.as_ref().map(AlignedIo::exclude_all);
        self.named(host.call("resize", |host| host.set_size(size)))
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        let size = self.size()?;
        let Some(left) = size.checked_sub(offset).filter(|&left| left > 0) else {
            return Ok(StorageExtent {
                len: 0,
                allocated: false,
            });
        };
        let told = self
            .host
            .call_if_there("extent", |host| host.extent_at(offset));
        match self.named(told.map_err(|error| error.with_offset(offset)))? {
            None => Ok(StorageExtent {
                len: left,
                allocated: true,
            }),
            Some(StorageExtent { len: 0, .. }) => {
                let text = format!("the host reports an extent without bytes; the size is {size}");
                self.named(Err(Error::new(ErrorKind::Io, text).with_offset(offset)))
            }
            Some(told) => Ok(StorageExtent {
                len: told.len.min(left),
                ..told
            }),
        }
    }

    /// Locks are the host's affair; only whether this handle may write changes.
    fn lock(&self, mode: LockMode) -> Result<()> {
        self.may_write
            .store(mode == LockMode::Writer, Ordering::Relaxed);
        Ok(())
    }

    fn users(&self) -> &Users {
        &self.users
    }

    fn in_callback(&self) -> bool {
        is_inside(self.host.id)
    }
}
