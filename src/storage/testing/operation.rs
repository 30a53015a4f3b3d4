//! What can be done to a recorded storage, and doing it again in part.

use std::fmt;
use std::sync::Arc;

use super::power_cut::{Kept, Sectors};
use crate::storage::pages::Pages;
use crate::units::{ByteRange, SECTOR_SIZE};

/// What discarded bytes are filled with, so that nobody can come to rely on zeros or on what was there.
const GARBAGE: u8 = 0xdb;

/// Something that was done to a recorded storage and succeeded.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// A range was zeroed.
    WriteZeroes(ByteRange),
    /// A range was discarded; it was filled with garbage.
    Discard(ByteRange),
    /// The size was set.
    SetSize(u64),
    /// All before this became durable.
    Flush,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Write { offset, data } => {
                write!(f, "write {} bytes at {offset}", data.len())
            }
            Operation::WriteZeroes(range) => write!(f, "zero {range}"),
            Operation::Discard(range) => write!(f, "discard {range}"),
            Operation::SetSize(size) => write!(f, "set size {size}"),
            Operation::Flush => f.write_str("flush"),
        }
    }
}

impl Operation {
    fn range(&self) -> Option<ByteRange> {
        match self {
            Operation::Write { offset, data } => Some(ByteRange::new(*offset, data.len() as u64)),
            Operation::WriteZeroes(range) | Operation::Discard(range) => Some(*range),
            Operation::SetSize(_) | Operation::Flush => None,
        }
    }

    pub(super) fn sectors(&self) -> Sectors {
        self.range()
            .filter(|range| !range.is_empty())
            .map_or(0, |range| {
                range.end().div_ceil(SECTOR_SIZE) - range.start / SECTOR_SIZE
            })
    }
}

/// Bytes and their number.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) pages: Pages,
    pub(super) size: u64,
}

impl Contents {
    /// Does what was kept of an operation.
    pub(super) fn apply(&mut self, operation: &Operation, kept: Kept) {
        if let (Operation::SetSize(size), Kept::All) = (operation, kept) {
            if *size < self.size {
                self.pages.truncate(*size);
            }
            self.size = *size;
        }
        let Some(range) = operation.range() else {
            return;
        };
        for part in kept.parts(range) {
            match operation {
                Operation::Write { offset, data } => {
                    let from = (part.start - offset) as usize;
                    self.pages
                        .write(&data[from..][..part.len as usize], part.start);
                }
                Operation::WriteZeroes(_) => self.pages.zero(part),
                _ => self.pages.fill(part, GARBAGE),
            }
            let grows = !matches!(operation, Operation::Discard(_)) && !part.is_empty();
            self.size = if grows {
                self.size.max(part.end())
            } else {
                self.size
            };
        }
    }
}
