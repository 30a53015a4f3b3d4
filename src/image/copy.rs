//! Copies between storages in bounded pieces, keeping holes.

use crate::error::Result;
use crate::storage::Storage;
use crate::units::ByteRange;

/// Bytes copied through memory at a time.
pub(crate) const PIECE: u64 = 1 << 20;

/// From this length on it pays to ask for holes and to let the operating system copy.
pub(crate) const LONG_RUN: u64 = 64 << 10;

/// Copies `len` bytes. What is a hole in the source is not written if the target reads as zeros there, else zeroed.
pub(crate) fn copy(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Storage, u64),
    len: u64,
    target_is_zero: bool,
) -> Result<()> {
    if len < LONG_RUN {
        return copy_by_hand((source, from), (target, to), len);
    }
    let mut done = 0;
    while done < len {
        let extent = source.extent_at(from + done)?;
        // A storage that grew since says 0 at its old end.
        let part = extent.len.clamp(1, len - done);
        if extent.allocated || extent.len == 0 {
            copy_data((source, from + done), (target, to + done), part)?;
        } else if !target_is_zero {
            target.write_zeroes(ByteRange::new(to + done, part), true)?;
        }
        done += part;
    }
    Ok(())
}

fn copy_data(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Storage, u64),
    len: u64,
) -> Result<()> {
    if len >= LONG_RUN && source.try_copy_to(from, target, to, len)? {
        return Ok(());
    }
    copy_by_hand((source, from), (target, to), len)
}

fn copy_by_hand(
    (source, from): (&dyn Storage, u64),
    (target, to): (&dyn Storage, u64),
    len: u64,
) -> Result<()> {
    let mut buf = vec![0; len.min(PIECE) as usize];
    let mut done = 0;
    while done < len {
        let piece = &mut buf[..(len - done).min(PIECE) as usize];
        source.read_at(piece, from + done)?;
        target.write_at(piece, to + done)?;
        done += piece.len() as u64;
    }
    Ok(())
}
