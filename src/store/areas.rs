//! Reading the metadata areas: which bytes to ask for, where the log ends, and which new chunks are legal.

use super::plan::{Device, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Exception, Geometry};
use crate::units::{ByteRange, CowChunk, EXCEPTION_SIZE};

use super::table::MAX_NEW_CHUNK;

/// The largest single read.
const MAX_READ: u64 = 1 << 20;
/// How much may be asked for at once.
const MAX_BATCH_BYTES: u64 = 4 << 20;
const MAX_BATCH_READS: u64 = 64;
/// How many times what is asked for at once a host may read ahead, and the most bytes of it.
const BATCHES_AHEAD: u64 = 4;
const MAX_AHEAD_BYTES: u64 = 4 << 20;
/// The block in which areas are written; see `log.rs`.
const BLOCK: u64 = 4096;

/// What bounds a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    pub(crate) geometry: Geometry,
    pub(crate) cow_size: u64,
}

/// Where the log ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogEnd {
    pub(crate) len: u64,
    /// Records in the block of the terminator.
    pub(crate) tail: Vec<Exception>,
    /// Whether bytes behind the terminator are not zero. Only known if the reader was asked to look.
    pub(crate) stale: bool,
}

impl Scan {
    /// The data chunks around the new chunk of record `index`, or why it is not legal.
    pub(crate) fn data_window(&self, index: u64, record: Exception) -> Result<(u64, u64)> {
        let new = record.new;
        let whole = self.geometry.whole_chunks(self.cow_size);
        let last = whole.min(MAX_NEW_CHUNK + 1);
        let reason = if self.is_cut(new) {
            format!("COW chunk {new}, but the file ends inside that chunk")
        } else if new.0 >= whole {
            format!("COW chunk {new}, but the file has only {whole} whole chunks")
        } else if new.0 > MAX_NEW_CHUNK {
            format!("COW chunk {new}, more than the {MAX_NEW_CHUNK} this library can address")
        } else if !self.geometry.is_data_chunk(new) {
            format!("COW chunk {new}, which holds metadata")
        } else {
            let stride = self.geometry.stride();
            let area = (new.0 - 1) / stride;
            let first = 2 + area * stride;
            return Ok((first, (first + stride - 1).min(last)));
        };
        let message = format!("record {index} maps chunk {} to {reason}", record.old);
        let error = Error::new(ErrorKind::Corrupt, message);
        Err(error.with_offset(self.geometry.slot_offset(index).unwrap_or(u64::MAX)))
    }

    /// Whether the file ends inside `new`.
    pub(crate) fn is_cut(&self, new: CowChunk) -> bool {
        let chunk = self.geometry.chunk_size();
        new.0 == chunk.index_of(self.cow_size) && chunk.offset_in_chunk(self.cow_size) > 0
    }

    /// Whether area `area` lies wholly inside the file.
    fn area_start(&self, area: u64) -> Option<u64> {
        let start = self.geometry.byte_offset(self.geometry.area_chunk(area)?)?;
        let end = start.checked_add(self.geometry.chunk_size().bytes())?;
        (end <= self.cow_size).then_some(start)
    }
}

/// Walks the areas from the first one to the terminator.
pub(crate) struct AreaReader {
    scan: Scan,
    /// Whether to read on behind the terminator, to its area's end.
    look_behind: bool,
    /// Record at which the next read starts.
    next: u64,
    batch: u64,
    /// Record up to which [`AreaReader::read_ahead`] has named what will be read.
    named: u64,
    end: Option<LogEnd>,
    /// Whether the area of the terminator has been read to its end.
    finished: bool,
}

impl AreaReader {
    pub(crate) fn new(scan: Scan, look_behind: bool) -> AreaReader {
        AreaReader {
            scan,
            look_behind,
            next: 0,
            batch: 1,
            named: 0,
            end: None,
            finished: false,
        }
    }

    /// Where the log ends, once known.
    pub(crate) fn end(&self) -> Option<LogEnd> {
        self.finished.then(|| self.end.clone()).flatten()
    }

    fn piece_records(&self) -> u64 {
        MAX_READ.min(self.scan.geometry.chunk_size().bytes()) / EXCEPTION_SIZE
    }

    /// The next reads, or `None` at the end.
    pub(crate) fn next_steps(&mut self) -> Result<Option<Vec<Step>>> {
        if self.finished {
            return Ok(None);
        }
        let piece = self.piece_records();
        let mut steps = Vec::new();
        let mut at = self.next;
        for _ in 0..self.batch {
            let Some(range) = self.piece_at(at) else {
                if steps.is_empty() {
                    let (area, _) = self.scan.geometry.area_and_slot(at);
                    return Err(self.missing_area(area));
                }
                break;
            };
            steps.push(Step::Read {
                device: Device::Cow,
                range,
            });
            at += piece;
        }
        let most = (MAX_BATCH_BYTES / (piece * EXCEPTION_SIZE)).clamp(1, MAX_BATCH_READS);
        self.batch = (self.batch * 2).min(most);
        Ok(Some(steps))
    }

    /// The bytes of the piece that begins with record `at`, if its area lies inside the file.
    fn piece_at(&self, at: u64) -> Option<ByteRange> {
        let (area, slot) = self.scan.geometry.area_and_slot(at);
        let start = self.scan.area_start(area)? + slot * EXCEPTION_SIZE;
        Some(ByteRange::new(start, self.piece_records() * EXCEPTION_SIZE))
    }

    /// What the steps handed out last and the ones behind them read, as far as that was not named before and the log goes on.
    pub(crate) fn read_ahead(&mut self) -> Vec<ByteRange> {
        let piece = self.piece_records();
        let most = MAX_AHEAD_BYTES / (piece * EXCEPTION_SIZE);
        let pieces = (BATCHES_AHEAD * self.batch).min(most);
        let first = self.named.max(self.next);
        self.named = first.max(self.next + pieces * piece);
        (first..self.named)
            .step_by(piece as usize)
            .map_while(|at| self.piece_at(at))
            .collect()
    }

    fn missing_area(&self, area: u64) -> Error {
        let file = format!("the file of {} bytes", self.scan.cow_size);
        let message = if area == 0 {
            format!("the first metadata area lies outside {file}")
        } else {
            format!(
                "metadata area {area} lies outside {file}, although area {} is full",
                area - 1
            )
        };
        let error = Error::new(ErrorKind::Corrupt, message);
        let chunk = self.scan.geometry.area_chunk(area);
        let offset = chunk.and_then(|chunk| self.scan.geometry.byte_offset(chunk));
        error.with_offset(offset.unwrap_or(u64::MAX))
    }

    /// Takes in what was read and hands the records to `take` in runs that go up by one on both sides: place of the first in the log, the first
    /// itself, how many there are.
    pub(crate) fn feed(
        &mut self,
        reads: &[(ByteRange, &[u8])],
        take: &mut impl FnMut(u64, Exception, u64) -> Result<()>,
    ) -> Result<()> {
        for (_, bytes) in reads {
            if self.finished {
                break;
            }
            if self.end.is_some() {
                self.look_behind_terminator(bytes, 0);
                continue;
            }
            let mut slot = 0;
            let mut records = Exception::decode_slice(bytes).peekable();
            while let Some(first) = records.next_if(|record| !record.is_end()) {
                let mut len = 1;
                while records.next_if(|next| follows(*next, first, len)).is_some() {
                    len += 1;
                }
                take(self.next + slot, first, len)?;
                slot += len;
            }
            if records.peek().is_some() {
                self.found_end(bytes, slot);
            } else {
                self.next += slot;
            }
        }
        Ok(())
    }

    /// The terminator is record `slot` of this piece.
    fn found_end(&mut self, bytes: &[u8], slot: u64) {
        let records_per_block = BLOCK.min(bytes.len() as u64) / EXCEPTION_SIZE;
        let block_start = slot - slot % records_per_block;
        let tail = Exception::decode_slice(bytes)
            .skip(block_start as usize)
            .take((slot - block_start) as usize)
            .collect();
        self.end = Some(LogEnd {
            len: self.next + slot,
            tail,
            stale: false,
        });
        self.look_behind_terminator(bytes, (slot * EXCEPTION_SIZE) as usize);
    }

    /// Looks for other bytes than zeros from byte `from` of this piece on.
    fn look_behind_terminator(&mut self, bytes: &[u8], from: usize) {
        let behind = bytes.get(from..).unwrap_or(&[]);
        if let Some(end) = &mut self.end {
            end.stale |= behind.iter().any(|&byte| byte != 0);
        }
        self.next += self.piece_records();
        let at_area_end = self
            .next
            .is_multiple_of(self.scan.geometry.exceptions_per_area());
        if at_area_end || !self.look_behind {
            self.finished = true;
        }
    }
}

/// Whether `next` is `len` behind `first` on both sides.
#[inline]
fn follows(next: Exception, first: Exception, len: u64) -> bool {
    // A sum that wraps would be less than `first`, and new chunk 0 ends the log.
    next.old.0.wrapping_sub(first.old.0) == len
        && next.new.0.wrapping_sub(first.new.0) == len
        && next.old > first.old
        && next.new > first.new
}

#[cfg(test)]
mod tests;
