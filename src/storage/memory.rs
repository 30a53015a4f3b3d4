//! A storage in memory.
#![forbid(unsafe_code)]

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::io::{IoSlice, IoSliceMut};

use super::pages::Pages;
use super::transfer::{self, keep_size};
use super::{LockMode, Storage, StorageExtent, Users};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ByteRange, MAX_FILE_SIZE};

#[derive(Clone, Debug, Default)]
struct Contents {
    pages: Pages,
    size: u64,
}

/// Bytes in memory. Only what was written occupies any, so a size of a tebibyte costs nothing.
///
/// Grows like a file up to its maximum size, or has a fixed size like a block device. Writes or growth beyond that fail with
/// [`ErrorKind::NoSpace`] and change nothing.
#[derive(Debug)]
pub struct MemoryStorage {
    name: String,
    contents: RwLock<Contents>,
    growable: bool,
    max_size: AtomicU64,
    may_write: AtomicBool,
    users: Users,
}

impl Default for MemoryStorage {
    fn default() -> MemoryStorage {
        MemoryStorage::new()
    }
}

impl MemoryStorage {
    /// An empty storage that grows.
    pub fn new() -> MemoryStorage {
        MemoryStorage::with_size(0)
    }

    /// A storage of `size` zero bytes that grows.
    pub fn with_size(size: u64) -> MemoryStorage {
        MemoryStorage::of(
            Contents {
                pages: Pages::default(),
                size,
            },
            true,
        )
    }

    /// A storage of `size` zero bytes, for ever.
    pub fn fixed(size: u64) -> MemoryStorage {
        MemoryStorage::of(
            Contents {
                pages: Pages::default(),
                size,
            },
            false,
        )
    }

    /// A storage with a copy of `bytes`, which grows.
    pub fn from_bytes(bytes: &[u8]) -> MemoryStorage {
        let mut contents = Contents {
            pages: Pages::default(),
            size: bytes.len() as u64,
        };
        contents.pages.write(bytes, 0);
        MemoryStorage::of(contents, true)
    }

    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn from_pages(pages: Pages, size: u64, growable: bool) -> MemoryStorage {
        MemoryStorage::of(Contents { pages, size }, growable)
    }

    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn share(&self) -> (Pages, u64) {
        let contents = self.contents();
        (contents.pages.clone(), contents.size)
    }

    fn of(contents: Contents, growable: bool) -> MemoryStorage {
        MemoryStorage {
            name: "memory".to_owned(),
            contents: RwLock::new(contents),
            growable,
            max_size: AtomicU64::new(MAX_FILE_SIZE),
            may_write: AtomicBool::new(true),
            users: Users::default(),
        }
    }

    /// Sets what errors call it.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> MemoryStorage {
        self.name = name.into();
        self
    }

    /// Sets the size in bytes that it cannot grow beyond.
    #[must_use]
    pub fn with_max_size(self, bytes: u64) -> MemoryStorage {
        self.set_max_size(bytes);
        self
    }

    /// Changes the size in bytes that it cannot grow beyond, as when a full disk is given more space.
    pub fn set_max_size(&self, bytes: u64) {
        self.max_size
            .store(bytes.min(MAX_FILE_SIZE), Ordering::Relaxed);
    }

    /// A storage with the same bytes that shares memory with this one until either is written. Of the same kind, without a lock.
    #[must_use]
    pub fn snapshot(&self) -> MemoryStorage {
        let copy = MemoryStorage::of(self.contents().clone(), self.growable).named(&self.name);
        copy.set_max_size(self.max_size.load(Ordering::Relaxed));
        copy
    }

    /// All bytes, for storages known to be small.
    pub fn to_vec(&self) -> Vec<u8> {
        let contents = self.contents();
        let mut bytes = vec![0; contents.size as usize];
        contents.pages.read(&mut bytes, 0);
        bytes
    }

    /// Bytes of memory that the contents occupy.
    pub fn allocated(&self) -> u64 {
        self.contents().pages.allocated()
    }

    fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> Result<RwLockWriteGuard<'_, Contents>> {
        if !self.may_write.load(Ordering::Relaxed) {
            let error = Error::new(ErrorKind::ReadOnly, "not open for writing");
            return Err(error.with_path(&self.name));
        }
        Ok(self
            .contents
            .write()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses a write up to `end` that would need more size than there can be.
    fn reach(&self, contents: &mut Contents, start: u64, len: u64) -> Result<()> {
        let end = ByteRange::checked(start, len).map(ByteRange::end);
        let fits = |end: u64| {
            if self.growable {
                end <= self.limit()
            } else {
                end <= contents.size
            }
        };
        match end {
            Some(end) if end <= contents.size || fits(end) => {
                contents.size = contents.size.max(end);
                Ok(())
            }
            _ => {
                let most = if self.growable {
                    self.limit()
                } else {
                    contents.size
                };
                let text = format!("{len} bytes to be written, but the size is limited to {most}");
                let error = Error::new(ErrorKind::NoSpace, text).with_offset(start);
                Err(error.with_path(&self.name))
            }
        }
    }

    fn limit(&self) -> u64 {
        self.max_size.load(Ordering::Relaxed)
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Result<u64> {
        Ok(self.contents().size)
    }

    fn is_growable(&self) -> bool {
        self.growable
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let contents = self.contents();
        let wanted = transfer::total_mut(bufs);
        let end = offset.checked_add(wanted as u64);
        if wanted > 0 && end.is_none_or(|end| end > contents.size) {
            let done = contents.size.saturating_sub(offset) as usize;
            let error = transfer::past_end_of(contents.size, offset, wanted, done);
            return Err(error.with_path(&self.name));
        }
        let mut at = offset;
        for buf in bufs {
            contents.pages.read(buf, at);
            at += buf.len() as u64;
        }
        Ok(())
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let mut contents = self.change()?;
        let total = transfer::total(bufs);
        if total == 0 {
            return Ok(());
        }
        self.reach(&mut contents, offset, total as u64)?;
        let mut at = offset;
        for buf in bufs {
            contents.pages.write(buf, at);
            at += buf.len() as u64;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange, _unmap: bool) -> Result<()> {
        let mut contents = self.change()?;
        if range.is_empty() {
            return Ok(());
        }
        self.reach(&mut contents, range.start, range.len)?;
        contents.pages.zero(range);
        Ok(())
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        let mut contents = self.change()?;
        let len = range.len.min(contents.size.saturating_sub(range.start));
        if len > 0 {
            contents.pages.zero(ByteRange::new(range.start, len));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let mut contents = self.change()?;
        if !self.growable {
            return keep_size(contents.size, size).map_err(|error| error.with_path(&self.name));
        }
        if size > contents.size {
            return self.reach(&mut contents, size, 0);
        }
        contents.pages.truncate(size);
        contents.size = size;
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        let contents = self.contents();
        Ok(contents.pages.extent(offset, contents.size))
    }

    /// There is nobody to keep out; only whether this handle may write changes.
    fn lock(&self, mode: LockMode) -> Result<()> {
        self.may_write
            .store(mode == LockMode::Writer, Ordering::Relaxed);
        Ok(())
    }

    fn users(&self) -> &Users {
        &self.users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_tebibyte_costs_nothing_until_written() {
        let storage = MemoryStorage::with_size(1 << 40);
        storage.write_at(b"x", (1 << 40) - 1).unwrap();
        storage
            .write_zeroes(ByteRange::new(0, 1 << 40), false)
            .unwrap();
        assert_eq!(storage.allocated(), 0);
        storage.write_at(b"x", 1 << 39).unwrap();
        let hole = storage.extent_at(0).unwrap();
        assert_eq!(
            hole,
            StorageExtent {
                len: 1 << 39,
                allocated: false
            }
        );
        assert!(storage.allocated() < 1 << 20);
    }

    #[test]
    fn test_maximum_size_gives_no_space_until_raised() {
        let storage = MemoryStorage::new().with_max_size(1000);
        let error = storage.write_at(&[1; 600], 500).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            storage.size().unwrap(),
            0,
            "a refused write changes nothing"
        );
        assert_eq!(
            storage.set_size(1001).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        storage.set_max_size(1100);
        storage.write_at(&[1; 600], 500).unwrap();
        assert_eq!(storage.size().unwrap(), 1100);
    }

    #[test]
    fn test_snapshot_is_independent() {
        let storage = MemoryStorage::from_bytes(b"hello");
        let snapshot = storage.snapshot();
        storage.write_at(b"J", 0).unwrap();
        assert_eq!(snapshot.to_vec(), b"hello");
        assert_eq!(storage.to_vec(), b"Jello");
    }
}
