//! Zeroing and giving back space.

use crate::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io;

use super::{FileKind, FileStorage, Handles, sys};
use crate::error::{Error, Result};
use crate::storage::transfer::{Transport, keep_size};
use crate::storage::{Storage, zeros};
use crate::units::ByteRange;

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Up to so many bytes the page cache takes zeros as it takes data: a call costs more, and where it allocates space of its own for a metadata
/// area, the file system can no more keep the data on both sides of it together.
const WRITTEN: u64 = 64 << 10;

/// Whether a refusal means "not here" rather than "it went wrong".
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY)
    )
}

/// Runs a call that zeroes or discards. `Ok(false)` if this file system or device does not have it, which `missing` remembers.
fn try_call(missing: &AtomicBool, mut call: impl FnMut() -> io::Result<()>) -> io::Result<bool> {
    if missing.load(Ordering::Relaxed) {
        return Ok(false);
    }
    loop {
        match call() {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_missing(&error) => {
                missing.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            // The arguments do not suit this device, others may.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

impl FileStorage {
    pub(super) fn zero(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let handles = self.writer()?;
        if range.is_empty() {
            return Ok(());
        }
        match self.kind {
            FileKind::Regular => self.zero_file(handles, range, unmap),
            FileKind::Block { logical_block } => {
                self.zero_device(handles, range, unmap, logical_block)
            }
        }
    }

    fn zero_file(&self, handles: &Handles, range: ByteRange, unmap: bool) -> Result<()> {
        if !unmap && self.direct.is_none() && range.len <= WRITTEN {
            return zeros::write(self, range);
        }
        if unmap && !self.missing.punch_hole.load(Ordering::Relaxed) {
            // A byte at the end grows the file. Setting a size could cut what another thread has appended meanwhile.
            if range.end() > self.size()? {
                self.write_at(&[0], range.end() - 1)?;
            }
        }
        if !self.zero_by_call(handles, range, unmap)? {
            zeros::write(self, range)?;
        }
        Ok(())
    }

    fn zero_device(
        &self,
        handles: &Handles,
        range: ByteRange,
        unmap: bool,
        block: u64,
    ) -> Result<()> {
        let size = self.size()?;
        if range.end() > size {
            let error = keep_size(size, range.end()).err();
            return error.map_or(Ok(()), |error| {
                Err(self.named(error.with_offset(range.start)))
            });
        }
        let Some(inner) = whole_blocks(range, block) else {
            return zeros::write(self, range);
        };
        if !self.zero_by_call(handles, inner, unmap)? {
            return zeros::write(self, range);
        }
        zeros::write(self, ByteRange::new(range.start, inner.start - range.start))?;
        zeros::write(self, ByteRange::new(inner.end(), range.end() - inner.end()))
    }

    fn zero_by_call(&self, handles: &Handles, range: ByteRange, unmap: bool) -> Result<bool> {
        let _guard = self.direct.as_ref().map(|direct| direct.exclude(range));
        let call = |missing, mode| {
            try_call(missing, || {
                sys::fallocate(&handles.io, mode, range.start, range.len)
            })
            .map_err(|error| self.named(Error::io("write zeroes", error).with_offset(range.start)))
        };
        Ok((unmap && call(&self.missing.punch_hole, PUNCH)?)
            || call(&self.missing.zero_range, libc::FALLOC_FL_ZERO_RANGE)?)
    }

    pub(super) fn give_back(&self, range: ByteRange) -> Result<()> {
        let handles = self.writer()?;
        let size = handles.size()?;
        if range.start >= size {
            return Ok(());
        }
        let range = ByteRange::new(range.start, range.len.min(size - range.start));
        let (range, call): (_, fn(&File, ByteRange) -> io::Result<()>) = match self.kind {
            FileKind::Regular => (Some(range), |file, range| {
                sys::fallocate(file, PUNCH, range.start, range.len)
            }),
            FileKind::Block { logical_block } => {
                (whole_blocks(range, logical_block), |file, range| {
                    sys::device_discard(file, range.start, range.len)
                })
            }
        };
        let Some(range) = range.filter(|range| !range.is_empty()) else {
            return Ok(());
        };
        let _guard = self.direct.as_ref().map(|direct| direct.exclude(range));
        let missing = &self.missing.discard;
        try_call(missing, || call(&handles.io, range))
            .map_err(|error| Error::io("discard", error))?;
        Ok(())
    }
}

/// The whole blocks inside a range.
fn whole_blocks(range: ByteRange, block: u64) -> Option<ByteRange> {
    let start = range.start.checked_next_multiple_of(block)?;
    let end = range.end() - range.end() % block;
    (start < end).then(|| ByteRange::new(start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_whole_blocks_rounds_inwards() {
        let of = |start, len| whole_blocks(ByteRange::new(start, len), 4096);
        assert_eq!(of(0, 4096), Some(ByteRange::new(0, 4096)));
        assert_eq!(of(1, 4096), None);
        assert_eq!(of(512, 8192), Some(ByteRange::new(4096, 4096)));
        assert_eq!(of(512, 100), None);
    }
}
