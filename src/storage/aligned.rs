//! Transfers of any range and memory over a transport that moves only aligned blocks: `O_DIRECT` files, and hosts that ask for it.
//!
//! What is aligned goes straight through. The rest goes through a buffer of at most [`BOUNCE_SIZE`] bytes; a write that covers a
//! block in part reads it first. Such a write excludes every other write to its blocks, or one of the two would be lost: also a
//! write of whole blocks, which the stale rest of the read block would undo.
#![forbid(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};

use super::range_locks::{RangeGuard, RangeLocks};
use super::transfer::{self, Transport, attempt};
use crate::error::{Error, ErrorKind, Result};
use crate::units::ByteRange;

/// Most bytes that one transfer through a buffer takes at a time.
const BOUNCE_SIZE: u64 = 1 << 20;

/// What a transport asks of transfers, in bytes; powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alignment {
    memory: u64,
    block: u64,
    /// Unit in which writers exclude each other, at least `block`.
    lock_unit: u64,
}

impl Alignment {
    /// Memory and block alignment, and the least unit in which writers of parts exclude others.
    pub(super) fn new(memory: u64, block: u64, lock_unit: u64) -> Result<Alignment> {
        let legal = |value: u64| value.is_power_of_two() && value <= BOUNCE_SIZE;
        if !legal(memory) || !legal(block) || !legal(lock_unit) {
            let text = format!(
                "alignment of {memory} bytes in memory and {block} in blocks; powers of two up to {BOUNCE_SIZE} work"
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(Alignment {
            memory,
            block,
            lock_unit: lock_unit.max(block),
        })
    }

    fn down(self, offset: u64) -> u64 {
        offset & !(self.block - 1)
    }

    fn up(self, offset: u64) -> u64 {
        self.down(offset + (self.block - 1))
    }

    fn is_block_aligned(self, offset: u64) -> bool {
        offset & (self.block - 1) == 0
    }

    fn fits<'a>(self, offset: u64, mut bufs: impl Iterator<Item = &'a [u8]>) -> bool {
        self.is_block_aligned(offset)
            && bufs.all(|buf| self.fits_memory(buf) && self.is_block_aligned(buf.len() as u64))
    }

    fn fits_memory(self, buf: &[u8]) -> bool {
        (buf.as_ptr() as usize as u64) & (self.memory - 1) == 0
    }
}

/// A buffer that starts at a multiple of an alignment.
struct Bounce {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    fn new(len: u64, alignment: Alignment) -> Bounce {
        // Both are at most BOUNCE_SIZE.
        let (len, align) = (len as usize, alignment.memory as usize);
        let memory = vec![0; len + align - 1];
        let start = (memory.as_ptr() as usize).wrapping_neg() & (align - 1);
        Bounce { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// Aligned I/O with exclusion of writers.
#[derive(Debug)]
pub(super) struct AlignedIo {
    alignment: Alignment,
    writers: RangeLocks,
}

impl AlignedIo {
    pub(super) fn new(alignment: Alignment) -> AlignedIo {
        AlignedIo {
            alignment,
            writers: RangeLocks::default(),
        }
    }

    pub(super) fn block_size(&self) -> u64 {
        self.alignment.block
    }

    /// Keeps writers away from the blocks of `range` while something else than a write changes them.
    pub(super) fn exclude(&self, range: ByteRange) -> RangeGuard<'_> {
        self.guard(range.start, range.end(), true)
    }

    /// Keeps all writers away.
    pub(super) fn exclude_all(&self) -> RangeGuard<'_> {
        self.writers.acquire(0..u64::MAX, true)
    }

    fn guard(&self, start: u64, end: u64, exclusive: bool) -> RangeGuard<'_> {
        let unit = self.alignment.lock_unit;
        self.writers.acquire(
            start & !(unit - 1)..end.div_ceil(unit).saturating_mul(unit),
            exclusive,
        )
    }

    /// Fills all of `bufs` from `offset`.
    pub(super) fn read<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<()> {
        let wanted = transfer::total_mut(bufs);
        let end = end_of(offset, wanted)?;
        let mut done = 0;
        if self.alignment.fits(offset, bufs.iter().map(|buf| &**buf)) {
            done = attempt("read", offset, wanted, || transport.read_some(bufs, offset))?;
        }
        if done == wanted {
            return Ok(());
        }
        let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        let mut rest = slices.as_mut_slice();
        IoSliceMut::advance_slices(&mut rest, done);
        while done < wanted {
            let at = offset + done as u64;
            let moved = if self.alignment.fits(at, rest.iter().map(|buf| &**buf)) {
                attempt("read", at, wanted - done, || transport.read_some(rest, at))?
            } else {
                self.read_bounced(transport, rest, at, end)?
            };
            if moved == 0 {
                return Err(transfer::past_end(transport, offset, wanted, done));
            }
            done += moved;
            IoSliceMut::advance_slices(&mut rest, moved);
        }
        Ok(())
    }

    /// Reads one buffer's worth from `at` on, at most up to `end`. Returns 0 at the end of the storage.
    fn read_bounced<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &mut [IoSliceMut<'_>],
        at: u64,
        end: u64,
    ) -> Result<usize> {
        let start = self.alignment.down(at);
        let len = (self.alignment.up(end) - start).min(BOUNCE_SIZE);
        let mut bounce = Bounce::new(len, self.alignment);
        let got = self.fill(transport, bounce.bytes(), start)? as u64;
        let usable = (start + got).min(end).saturating_sub(at) as usize;
        let skip = (at - start) as usize;
        if usable > 0 {
            scatter(&bounce.bytes()[skip..][..usable], bufs);
        }
        Ok(usable)
    }

    /// Reads aligned blocks until the aligned buffer is full or the storage ends; returns how many bytes there were.
    fn fill<T: Transport + ?Sized>(
        &self,
        transport: &T,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize> {
        let mut got = 0;
        while got < buf.len() {
            let at = start + got as u64;
            let rest = &mut buf[got..];
            let read = |target: &mut [u8]| {
                let wanted = target.len();
                let mut slices = [IoSliceMut::new(target)];
                attempt("read", at, wanted, || transport.read_some(&mut slices, at))
            };
            let moved = if self.alignment.fits_memory(rest) {
                read(rest)?
            } else {
                // A short read stopped where no transfer into memory may start.
                let mut spare = Bounce::new(rest.len() as u64, self.alignment);
                let moved = read(spare.bytes())?;
                rest[..moved].copy_from_slice(&spare.bytes()[..moved]);
                moved
            };
            got += moved;
            // Only the end of the storage cuts a block.
            if moved == 0 || !self.alignment.is_block_aligned(got as u64) {
                break;
            }
        }
        Ok(got)
    }

    /// Writes all of `bufs` at `offset`.
    pub(super) fn write<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<()> {
        let wanted = transfer::total(bufs);
        let end = end_of(offset, wanted)?;
        if wanted == 0 {
            return Ok(());
        }
        let whole = self.alignment.is_block_aligned(offset) && self.alignment.is_block_aligned(end);
        let _guard = self.guard(offset, end, !whole);
        if whole && self.alignment.fits(offset, bufs.iter().map(|buf| &**buf)) {
            let done = attempt("write", offset, wanted, || {
                transport.write_some(bufs, offset)
            })?;
            if done == wanted {
                return Ok(());
            }
            // The rest as below. A block that was written in part is written again from its start.
            let done = self.alignment.down(done as u64) as usize;
            return self.write_pieces(transport, bufs, offset, end, done);
        }
        self.write_pieces(transport, bufs, offset, end, 0)
    }

    /// Writes what is left after `done` bytes: a head that starts inside a block, whole blocks, a tail that ends inside one.
    fn write_pieces<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &[IoSlice<'_>],
        offset: u64,
        end: u64,
        mut done: usize,
    ) -> Result<()> {
        let mut slices = bufs.to_vec();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, done);
        while offset + (done as u64) < end {
            let at = offset + done as u64;
            let block_end = self.alignment.down(at) + self.alignment.block;
            let moved = if !self.alignment.is_block_aligned(at) || end < block_end {
                self.write_part(transport, rest, at, end.min(block_end))?
            } else {
                self.write_whole(transport, rest, at, self.alignment.down(end))?
            };
            done += moved;
            IoSlice::advance_slices(&mut rest, moved);
        }
        Ok(())
    }

    /// Writes part of one block, from `at` to `end`, keeping its other bytes.
    fn write_part<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &[IoSlice<'_>],
        at: u64,
        end: u64,
    ) -> Result<usize> {
        let start = self.alignment.down(at);
        let len = (end - at) as usize;
        let skip = (at - start) as usize;
        let mut bounce = Bounce::new(self.alignment.block, self.alignment);
        // Writing the whole block would move the end of a file that ends inside it.
        if start + self.alignment.block > transport.size()? {
            let part = &mut bounce.bytes()[..len];
            gather(bufs, part);
            if let Some(written) = transport.write_exactly(part, at) {
                return written.map(|()| len);
            }
        }
        let got = self.fill(transport, bounce.bytes(), start)?;
        bounce.bytes()[got..].fill(0);
        gather(bufs, &mut bounce.bytes()[skip..][..len]);
        self.write_blocks(transport, bounce.bytes(), start)?;
        Ok(len)
    }

    /// Writes whole blocks from `at` on, at most up to `end`.
    fn write_whole<T: Transport + ?Sized>(
        &self,
        transport: &T,
        bufs: &[IoSlice<'_>],
        at: u64,
        end: u64,
    ) -> Result<usize> {
        // Nothing is copied while the first buffers have the right shape.
        let mut direct = 0;
        for buf in bufs {
            let next = direct + buf.len() as u64;
            if at + next > end || !self.alignment.fits(at + direct, std::iter::once(&**buf)) {
                break;
            }
            direct = next;
        }
        if direct > 0 {
            let mut left = direct as usize;
            let count = bufs.iter().take_while(|buf| {
                let inside = left > 0;
                left = left.saturating_sub(buf.len());
                inside
            });
            let count = count.count();
            let moved = attempt("write", at, direct as usize, || {
                transport.write_some(&bufs[..count], at)
            })?;
            let moved = self.alignment.down(moved as u64) as usize;
            return if moved == 0 {
                Err(transfer::no_progress(at))
            } else {
                Ok(moved)
            };
        }
        let len = (end - at).min(BOUNCE_SIZE);
        let mut bounce = Bounce::new(len, self.alignment);
        gather(bufs, bounce.bytes());
        self.write_blocks(transport, bounce.bytes(), at)?;
        Ok(len as usize)
    }

    /// Writes an aligned buffer of whole blocks, and may move its content about.
    fn write_blocks<T: Transport + ?Sized>(
        &self,
        transport: &T,
        mut buf: &mut [u8],
        mut at: u64,
    ) -> Result<()> {
        while !buf.is_empty() {
            let moved = attempt("write", at, buf.len(), || {
                transport.write_some(&[IoSlice::new(buf)], at)
            })?;
            let moved = self.alignment.down(moved as u64) as usize;
            if moved == 0 {
                return Err(transfer::no_progress(at));
            }
            at += moved as u64;
            if self.alignment.fits_memory(&buf[moved..]) {
                buf = &mut buf[moved..];
            } else {
                let left = buf.len() - moved;
                buf.copy_within(moved.., 0);
                buf = &mut buf[..left];
            }
        }
        Ok(())
    }
}

fn end_of(offset: u64, len: usize) -> Result<u64> {
    ByteRange::checked(offset, len as u64)
        .map(ByteRange::end)
        .ok_or_else(|| {
            let text = format!("{len} bytes from here lie beyond any file");
            Error::new(ErrorKind::OutOfBounds, text).with_offset(offset)
        })
}

/// Copies `bytes` into the beginning of `bufs`.
fn scatter(mut bytes: &[u8], bufs: &mut [IoSliceMut<'_>]) {
    for buf in bufs {
        let (now, later) = bytes.split_at(buf.len().min(bytes.len()));
        buf[..now.len()].copy_from_slice(now);
        bytes = later;
    }
}

/// Fills `out` from the beginning of `bufs`.
fn gather(bufs: &[IoSlice<'_>], mut out: &mut [u8]) {
    for buf in bufs {
        let (now, later) = out.split_at_mut(buf.len().min(out.len()));
        now.copy_from_slice(&buf[..now.len()]);
        out = later;
    }
}
