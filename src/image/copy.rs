//! Copies between storages in bounded pieces, keeping holes.

use std::cell::Cell;

use std::io::IoSlice;

use super::node::Node;
use super::tracked::Tracked;
use crate::error::Result;
use crate::storage::Storage;
use crate::units::ByteRange;

/// Bytes copied through memory at a time.
pub(crate) const PIECE: u64 = 1 << 20;

/// From this length on it pays to ask for holes and to let the operating system copy.
pub(crate) const LONG_RUN: u64 = 64 << 10;

/// Memory for copies, kept from one to the next: a merge makes thousands of short ones.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

thread_local! {
    static OF_THREAD: Cell<Scratch> = Cell::default();
}

impl Scratch {
    /// Runs `work` with the memory that this thread keeps, for copies that are too small to get some each. Use little of it.
    pub(crate) fn of_thread<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
        // Taken out meanwhile: a host's callback may come back to another image.
        let mut scratch = OF_THREAD.take();
        let result = work(&mut scratch);
        OF_THREAD.set(scratch);
        result
    }

    /// A buffer of `len` bytes, at most [`PIECE`], with anything in it.
    pub(crate) fn piece(&mut self, len: u64) -> &mut [u8] {
        let len = len.min(PIECE) as usize;
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        &mut self.0[..len]
    }
}

/// What bytes are copied to.
pub(crate) trait Target {
    fn put(&self, bytes: &[u8], offset: u64) -> Result<()>;

    fn put_zeros(&self, range: ByteRange) -> Result<()>;

    /// Has the operating system copy, if it can. `false`: nothing was done.
    fn try_copy_from(&self, source: &dyn Storage, from: u64, to: u64, len: u64) -> Result<bool>;
}

impl Target for Tracked {
    fn put(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_at(bytes, offset)
    }

    fn put_zeros(&self, range: ByteRange) -> Result<()> {
        self.write_zeroes(range, true)
    }

    fn try_copy_from(&self, source: &dyn Storage, from: u64, to: u64, len: u64) -> Result<bool> {
        Tracked::try_copy_from(self, source, from, to, len)
    }
}

/// A layer is written through its own way of writing.
impl Target for Node {
    fn put(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write(&[IoSlice::new(bytes)], offset)
    }

    fn put_zeros(&self, range: ByteRange) -> Result<()> {
        self.write_zeroes(range, true)
    }

    fn try_copy_from(&self, source: &dyn Storage, from: u64, to: u64, len: u64) -> Result<bool> {
        match self {
            Node::Raw(raw) => raw.try_copy_from(source, from, to, len),
            _ => Ok(false),
        }
    }
}

/// Copies `len` bytes. What is a hole in the source is not written if the target reads as zeros there, else zeroed.
pub(crate) fn copy(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Target, u64),
    len: u64,
    target_is_zero: bool,
    scratch: &mut Scratch,
) -> Result<()> {
    if len < LONG_RUN {
        return copy_by_hand((source, from), (target, to), len, scratch);
    }
    let mut done = 0;
    while done < len {
        let extent = source.extent_at(from + done)?;
        // A storage that grew since says 0 at its old end.
        let part = extent.len.clamp(1, len - done);
        if extent.allocated || extent.len == 0 {
            copy_data((source, from + done), (target, to + done), part, scratch)?;
        } else if !target_is_zero {
            target.put_zeros(ByteRange::new(to + done, part))?;
        }
        done += part;
    }
    Ok(())
}

fn copy_data(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Target, u64),
    len: u64,
    scratch: &mut Scratch,
) -> Result<()> {
    if len >= LONG_RUN && target.try_copy_from(source, from, to, len)? {
        return Ok(());
    }
    copy_by_hand((source, from), (target, to), len, scratch)
}

fn copy_by_hand(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Target, u64),
    len: u64,
    scratch: &mut Scratch,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let piece = scratch.piece(len - done);
        source.read_at(piece, from + done)?;
        target.put(piece, to + done)?;
        done += piece.len() as u64;
    }
    Ok(())
}
