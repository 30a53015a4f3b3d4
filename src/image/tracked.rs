//! A storage that knows whether there is anything to flush.

use crate::sync::atomic::{AtomicBool, Ordering};
use std::io::{IoSlice, IoSliceMut};

use super::flush::FlushRounds;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{LockMode, SharedStorage, Storage, StorageExtent, Users};
use crate::units::ByteRange;

/// Passes everything on, except for flushes that would make nothing durable that is not: a merge, a snapshot and closing flush to be sure, and
/// each flush costs what a disk takes to write.
///
/// Who flushes while another flush is under way waits for a later one, since that one may have begun too early.
#[derive(Debug)]
pub(crate) struct Tracked {
    inner: SharedStorage,
    /// Something may have been changed since the last good flush began. Also at first: what was written before counts, too.
    changed: AtomicBool,
    rounds: FlushRounds,
    /// A flush failed. A later one that succeeds would not tell that something is lost.
    failed: AtomicBool,
}

impl Tracked {
    pub(crate) fn new(inner: SharedStorage) -> Tracked {
        Tracked {
            inner,
            changed: AtomicBool::new(true),
            rounds: FlushRounds::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// To be called after a change, and before whoever made it is told.
    #[inline]
    fn note(&self) {
        // Mostly it is set already, and then its cache line stays shared.
        if !self.changed.load(Ordering::SeqCst) {
            self.changed.store(true, Ordering::SeqCst);
        }
    }

    /// What a change that failed half-way has changed counts, too.
    #[inline]
    fn noted<T>(&self, result: T) -> T {
        self.note();
        result
    }

    /// As [`Storage::try_copy_to`], from `source` to here.
    pub(crate) fn try_copy_from(
        &self,
        source: &dyn Storage,
        from: u64,
        to: u64,
        len: u64,
    ) -> Result<bool> {
        self.noted(source.try_copy_to(from, &*self.inner, to, len))
    }

    fn flush_round(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            let message = "a flush failed before: open the image again to write";
            return Err(Error::new(ErrorKind::PreviousIo, message).with_path(self.name()));
        }
        // What is changed from here on may or may not be covered.
        if !self.changed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.flush().inspect_err(|error| {
            self.note();
            if error.kind() != ErrorKind::NoSpace {
                self.failed.store(true, Ordering::Release);
            }
        })
    }
}

impl Storage for Tracked {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn size(&self) -> Result<u64> {
        self.inner.size()
    }

    fn is_growable(&self) -> bool {
        self.inner.is_growable()
    }

    fn block_size(&self) -> u64 {
        self.inner.block_size()
    }

    #[inline]
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.inner.read_vectored_at(bufs, offset)
    }

    #[inline]
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.noted(self.inner.write_vectored_at(bufs, offset))
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        self.noted(self.inner.write_zeroes(range, unmap))
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        self.noted(self.inner.discard(range))
    }

    fn flush(&self) -> Result<()> {
        self.rounds.join(|| self.flush_round())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.noted(self.inner.set_size(size))
    }

    fn prefetch(&self, range: ByteRange) {
        self.inner.prefetch(range);
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        self.inner.extent_at(offset)
    }

    fn try_copy_to(&self, from: u64, target: &dyn Storage, to: u64, len: u64) -> Result<bool> {
        self.inner.try_copy_to(from, target, to, len)
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.inner.lock(mode)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::testing::{CallKinds, CountingStorage};

    #[test]
    fn test_only_changes_are_flushed() {
        let counting = Arc::new(CountingStorage::new(Arc::new(MemoryStorage::new())));
        let tracked = Tracked::new(counting.clone());
        let flushes = || {
            counting.reset();
            tracked.flush().unwrap();
            counting.calls(CallKinds::FLUSH)
        };
        assert_eq!(flushes(), 1, "changes from before are unknown");
        assert_eq!(flushes(), 0);
        let changes: [&dyn Fn() -> Result<()>; 4] = [
            &|| tracked.write_at(b"x", 5),
            &|| tracked.write_zeroes(ByteRange::new(0, 5), true),
            &|| tracked.discard(ByteRange::new(0, 5)),
            &|| tracked.set_size(9),
        ];
        for change in changes {
            change().unwrap();
            assert_eq!((flushes(), flushes()), (1, 0));
        }
        tracked.read_at(&mut [0; 4], 0).unwrap();
        assert_eq!(flushes(), 0);
        let other = MemoryStorage::from_bytes(b"four");
        tracked.try_copy_from(&other, 0, 0, 4).unwrap();
        assert_eq!(flushes(), 1);
    }
}
