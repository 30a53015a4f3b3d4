//! A storage that asks a hook before and after each call.

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};

use bitflags::bitflags;

use crate::error::{Error, Result};
use crate::storage::{LockMode, SharedStorage, Storage, StorageExtent, Users, transfer};
use crate::units::ByteRange;

bitflags! {
    /// Kinds of calls on a storage.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct CallKinds: u32 {
        /// Reads.
        const READ = 1;
        /// Writes.
        const WRITE = 1 << 1;
        /// Writes of zeroes.
        const WRITE_ZEROES = 1 << 2;
        /// Discards.
        const DISCARD = 1 << 3;
        /// Flushes.
        const FLUSH = 1 << 4;
        /// Changes of size.
        const SET_SIZE = 1 << 5;
        /// Questions for extents.
        const EXTENT = 1 << 6;
        /// Questions for the size.
        const SIZE = 1 << 7;
        /// Changes of the lock.
        const LOCK = 1 << 8;
        /// All that change bytes or size, or make them durable.
        const MUTATING = 0b11_1110;
        /// All but questions for the size and changes of the lock.
        const IO = 0b111_1111;
    }
}

impl CallKinds {
    fn operation(self) -> &'static str {
        match self {
            CallKinds::READ => "read",
            CallKinds::WRITE => "write",
            CallKinds::WRITE_ZEROES => "write zeroes",
            CallKinds::DISCARD => "discard",
            CallKinds::FLUSH => "flush",
            CallKinds::SET_SIZE => "resize",
            CallKinds::EXTENT => "extent",
            CallKinds::SIZE => "size",
            _ => "lock",
        }
    }
}

/// One call on a storage.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Exactly one kind.
    pub kind: CallKinds,
    /// What it is about; for a change of size, nothing at the new end; for what has no place, nothing at 0.
    pub range: ByteRange,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on.
    Proceed,
    /// It fails.
    Fail {
        /// The error that it reports.
        errno: i32,
        /// Of a write or a write of zeroes: how many bytes reach the storage nevertheless.
        after: u64,
    },
}

/// Decides about calls and learns of their end.
pub trait Hook: Send + Sync + Debug {
    /// Called before the storage sees the call; may take its time.
    fn before(&self, call: &Call) -> Verdict;

    /// Called after the storage has dealt with a call that was passed on.
    fn after(&self, call: &Call) {
        let _ = call;
    }
}

/// A storage with a hook in front of it. Offers no descriptor and no copies by the operating system, so the hook sees all.
#[derive(Debug)]
pub struct Hooked<H> {
    inner: SharedStorage,
    pub(super) hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Puts `hook` in front of `inner`.
    pub fn with_hook(inner: SharedStorage, hook: H) -> Hooked<H> {
        Hooked { inner, hook }
    }

    fn around<T>(
        &self,
        kind: CallKinds,
        range: ByteRange,
        part: impl FnOnce(u64) -> Result<()>,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let call = Call { kind, range };
        match self.hook.before(&call) {
            Verdict::Proceed => {
                let result = run();
                self.hook.after(&call);
                result
            }
            Verdict::Fail { errno, after } => {
                if after > 0 {
                    part(after.min(range.len))?;
                }
                let source = io::Error::from_raw_os_error(errno);
                let error = Error::io(kind.operation(), source).with_path(self.inner.name());
                Err(if range.is_empty() {
                    error
                } else {
                    error.with_offset(range.start)
                })
            }
        }
    }

    fn simply<T>(
        &self,
        kind: CallKinds,
        range: ByteRange,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.around(kind, range, |_| Ok(()), run)
    }
}

/// The first `len` bytes of `bufs`, in one piece.
fn beginning(bufs: &[IoSlice<'_>], len: u64) -> Vec<u8> {
    let bytes = bufs.iter().flat_map(|buf| buf.iter().copied());
    bytes
        .take(usize::try_from(len).unwrap_or(usize::MAX))
        .collect()
}

const NOWHERE: ByteRange = ByteRange::new(0, 0);

impl<H: Hook> Storage for Hooked<H> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn size(&self) -> Result<u64> {
        self.simply(CallKinds::SIZE, NOWHERE, || self.inner.size())
    }

    fn is_growable(&self) -> bool {
        self.inner.is_growable()
    }

    fn block_size(&self) -> u64 {
        self.inner.block_size()
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let range = ByteRange::new(offset, transfer::total_mut(bufs) as u64);
        self.simply(CallKinds::READ, range, || {
            self.inner.read_vectored_at(bufs, offset)
        })
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let range = ByteRange::new(offset, transfer::total(bufs) as u64);
        let part = |len| self.inner.write_at(&beginning(bufs, len), offset);
        let whole = || self.inner.write_vectored_at(bufs, offset);
        self.around(CallKinds::WRITE, range, part, whole)
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let part = |len| {
            self.inner
                .write_zeroes(ByteRange::new(range.start, len), unmap)
        };
        let whole = || self.inner.write_zeroes(range, unmap);
        self.around(CallKinds::WRITE_ZEROES, range, part, whole)
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        self.simply(CallKinds::DISCARD, range, || self.inner.discard(range))
    }

    fn flush(&self) -> Result<()> {
        self.simply(CallKinds::FLUSH, NOWHERE, || self.inner.flush())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let range = ByteRange::new(size, 0);
        self.simply(CallKinds::SET_SIZE, range, || self.inner.set_size(size))
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        let range = ByteRange::new(offset, 0);
        self.simply(CallKinds::EXTENT, range, || self.inner.extent_at(offset))
    }

    fn prefetch(&self, range: ByteRange) {
        self.inner.prefetch(range);
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.simply(CallKinds::LOCK, NOWHERE, || self.inner.lock(mode))
    }

    fn users(&self) -> &Users {
        self.inner.users()
    }

    fn file_id(&self) -> Option<(u64, u64)> {
        self.inner.file_id()
    }

    fn in_callback(&self) -> bool {
        self.inner.in_callback()
    }
}
