//! Reads.

use std::io::IoSliceMut;

use super::bufs::{total_mut, with_part_mut};
use super::copy::{self, Scratch};
use super::layer::{Layer, PinGuard};
use super::tracked::Tracked;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::store::{Extent, Target};
use crate::units::ByteRange;

impl Layer {
    /// Where the first bytes of `range` are, and a pin on them.
    #[inline]
    pub(crate) fn look_up(&self, range: ByteRange) -> Result<(Extent, PinGuard<'_>)> {
        let store = self.store()?;
        let extent = store.map(range).map_err(|error| self.named(error))?;
        Ok((extent, self.pin()))
    }

    /// Fills `bufs` from `offset`.
    pub(crate) fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let total = total_mut(bufs);
        let range = self.checked_range(offset, total)?;
        let mut done = 0;
        while done < total {
            let rest = ByteRange::new(range.start + done, total - done);
            let (extent, _pin) = self.look_up(rest)?;
            if extent.len == total {
                // The usual case, with no buffers to cut.
                return self.read_extent(bufs, extent, offset);
            }
            with_part_mut(bufs, done, extent.len, |bufs| {
                self.read_extent(bufs, extent, rest.start)
            })?;
            done += extent.len;
        }
        Ok(())
    }

    #[inline]
    fn read_extent(&self, bufs: &mut [IoSliceMut<'_>], extent: Extent, start: u64) -> Result<()> {
        match extent.target {
            Target::Cow { offset } => self.cow.read_vectored_at(bufs, offset),
            Target::Origin => self.origin.read(bufs, start),
        }
    }

    /// The range, if it fits a file at all. The store checks it against the size, except for an empty one, which it never sees.
    #[inline]
    pub(crate) fn checked_range(&self, start: u64, len: u64) -> Result<ByteRange> {
        match ByteRange::checked(start, len) {
            Some(range) if len > 0 || start <= self.virtual_size() => Ok(range),
            _ => Err(self.out_of_bounds(start, len)),
        }
    }

    #[cold]
    fn out_of_bounds(&self, start: u64, len: u64) -> Error {
        let size = self.virtual_size();
        let message =
            format!("{len} bytes at offset {start} are not inside a disk of {size} bytes");
        self.named(Error::new(ErrorKind::OutOfBounds, message))
    }

    /// Puts the bytes of `range`, which lies inside, at `to` in `target`.
    pub(crate) fn copy_out(
        &self,
        range: ByteRange,
        (target, to): (&Tracked, u64),
        target_is_zero: bool,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let mut done = 0;
        while done < range.len {
            let rest = ByteRange::new(range.start + done, range.len - done);
            let (extent, _pin) = self.look_up(rest)?;
            let to = to + done;
            match extent.target {
                Target::Cow { offset } => {
                    copy::copy(
                        (&self.cow, offset),
                        (target, to),
                        extent.len,
                        target_is_zero,
                        scratch,
                    )?;
                }
                Target::Origin => {
                    let part = ByteRange::new(rest.start, extent.len);
                    self.origin
                        .copy_out(part, (target, to), target_is_zero, scratch)?;
                }
            }
            done += extent.len;
        }
        Ok(())
    }
}
