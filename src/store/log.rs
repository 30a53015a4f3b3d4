//! The log of exceptions on disk: where it ends, and the steps that lengthen or shorten it.
//!
//! Areas are written in blocks of at most 4096 bytes, so that a huge chunk needs no huge buffer. Two rules keep every crash state
//! readable: what lies behind the terminator of the current area is zero before a record is put there, and an area that becomes
//! reachable by a write was made durable before that write.

use crate::sync::Arc;
use std::ops::Range;

use super::plan::{Device, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Exception, Geometry};
use crate::units::{ByteRange, EXCEPTION_SIZE};

/// The largest unit in which areas are written.
const MAX_BLOCK: u64 = 4096;
/// Longer stretches of zeros are left to the host's write-zeroes.
const MAX_ZERO_WRITE: u64 = 64 << 10;

/// Where the log ends, and what is known of the areas around its end.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    geometry: Geometry,
    /// Records on disk.
    len: u64,
    /// The records that share a block with slot `len`.
    tail: Vec<Exception>,
    /// Whether something other than zeros lies behind the terminator of the current area.
    stale: bool,
    /// Areas that are known to hold only zeros.
    zeroed: Range<u64>,
}

/// What an append consists of.
pub(crate) struct Append {
    /// Areas that the log does not reach yet. They must be durable first.
    pub(crate) unreachable: Vec<Step>,
    /// Blocks of the current area.
    pub(crate) current: Vec<Step>,
    /// The log afterwards.
    pub(crate) after: Log,
}

impl Log {
    pub(crate) fn new(geometry: Geometry, len: u64, tail: Vec<Exception>, stale: bool) -> Log {
        let (area, slot) = geometry.area_and_slot(len);
        let zeroed = if slot == 0 && !stale {
            area..area + 1
        } else {
            0..0
        };
        Log {
            geometry,
            len,
            tail,
            stale,
            zeroed,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Number of the area that holds the terminator.
    pub(crate) fn current_area(&self) -> u64 {
        self.geometry.area_and_slot(self.len).0
    }

    /// Bytes of a block, and so the alignment of all writes to areas.
    pub(crate) fn block(&self) -> u64 {
        self.geometry.chunk_size().bytes().min(MAX_BLOCK)
    }

    fn records_per_block(&self) -> u64 {
        self.block() / EXCEPTION_SIZE
    }

    /// First record of the block that holds record `index`.
    pub(crate) fn block_start(&self, index: u64) -> u64 {
        index - index % self.records_per_block()
    }

    /// The areas in `range` have been zeroed by a plan that is done.
    pub(crate) fn add_zeroed(&mut self, range: Range<u64>) {
        if self.zeroed.is_empty() || self.zeroed.end < range.start {
            self.zeroed = range;
        } else {
            self.zeroed.end = self.zeroed.end.max(range.end);
        }
    }

    /// The file was cut: areas from `area` on are gone.
    pub(crate) fn forget_areas_from(&mut self, area: u64) {
        self.zeroed.end = self.zeroed.end.min(area);
    }

    /// Steps that clear what lies behind the terminator, with their own flush. None if there is nothing.
    pub(crate) fn clear_stale_steps(&self) -> Result<Vec<Step>> {
        if !self.stale {
            return Ok(Vec::new());
        }
        let block_start = self.block_start(self.len);
        let offset = self.slot_offset(block_start)?;
        let mut steps = vec![write(offset, self.encode_block(&self.tail))];
        let rest = ByteRange::new(offset + self.block(), 0);
        let end = self.area_end(self.current_area())?;
        steps.extend(zero_steps(ByteRange::new(rest.start, end - rest.start)));
        steps.push(Step::Flush {
            device: Device::Cow,
        });
        Ok(steps)
    }

    /// Nobody has looked behind the terminator.
    pub(crate) fn assume_stale(&mut self) {
        self.stale = true;
        self.zeroed = 0..0;
    }

    /// Records in the block of the terminator were replaced on disk.
    pub(crate) fn set_tail(&mut self, tail: Vec<Exception>) {
        self.tail = tail;
    }

    pub(crate) fn stale_cleared(&mut self) {
        self.stale = false;
    }

    /// Steps that put `records` at the end.
    pub(crate) fn append(&self, records: &[Exception]) -> Result<Append> {
        let per_area = self.geometry.exceptions_per_area();
        let end = self.len + records.len() as u64;
        let mut append = Append {
            unreachable: Vec::new(),
            current: Vec::new(),
            after: self.clone(),
        };
        let mut at = self.len;
        let mut rest = records;
        while !rest.is_empty() {
            let (area, slot) = self.geometry.area_and_slot(at);
            let here = rest
                .len()
                .min(usize::try_from(per_area - slot).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at(here);
            if at == self.len {
                append.current = self.append_in_area(at, &self.tail, now)?;
            } else {
                append
                    .unreachable
                    .extend(self.append_in_area(at, &[], now)?);
            }
            let fresh = slot == 0 && !self.zeroed.contains(&area);
            if fresh {
                // Nothing is known of this area: its other blocks are zeroed with it.
                let used = (here as u64 * EXCEPTION_SIZE).next_multiple_of(self.block());
                let start = self.area_start(area)? + used;
                let zeros = zero_steps(ByteRange::new(start, self.area_end(area)? - start));
                append.unreachable.extend(zeros);
            }
            at += here as u64;
            rest = later;
        }
        self.terminate(end, &mut append)?;
        append.after.len = end;
        append.after.tail = self.tail_behind(records);
        Ok(append)
    }

    /// A log that fills its area to the last slot needs the next one, which ends it.
    fn terminate(&self, end: u64, append: &mut Append) -> Result<()> {
        let (area, slot) = self.geometry.area_and_slot(end);
        if slot != 0 || end == self.len {
            return Ok(());
        }
        if !self.zeroed.contains(&area) {
            let start = self.area_start(area)?;
            let whole = ByteRange::new(start, self.area_end(area)? - start);
            append.unreachable.extend(zero_steps(whole));
            append.after.zeroed = area..area + 1;
        }
        Ok(())
    }

    /// One write of the blocks of one area that `records`, from record `at` on, touch. `before` are those in the same block.
    fn append_in_area(
        &self,
        at: u64,
        before: &[Exception],
        records: &[Exception],
    ) -> Result<Vec<Step>> {
        let offset = self.slot_offset(self.block_start(at))?;
        let all: Vec<Exception> = before.iter().chain(records).copied().collect();
        Ok(vec![write(offset, self.encode_block(&all))])
    }

    /// The records that share a block with the new end.
    fn tail_behind(&self, records: &[Exception]) -> Vec<Exception> {
        let end = self.len + records.len() as u64;
        let wanted = usize::try_from(end - self.block_start(end)).unwrap_or(0);
        let mut tail: Vec<Exception> = if wanted > records.len() {
            self.tail.iter().chain(records).copied().collect()
        } else {
            records.to_vec()
        };
        tail.drain(..tail.len().saturating_sub(wanted));
        tail.shrink_to_fit();
        tail
    }

    /// Reads of records `from` to the end, whole blocks, one per area.
    pub(crate) fn tail_reads(&self, from: u64) -> Result<Vec<Step>> {
        let mut reads = Vec::new();
        let mut at = self.block_start(from);
        while at < self.len {
            let end = self.end_in_area(at);
            let offset = self.slot_offset(at)?;
            let len = ((end - at) * EXCEPTION_SIZE).next_multiple_of(self.block());
            reads.push(Step::Read {
                device: Device::Cow,
                range: ByteRange::new(offset, len),
            });
            at = end;
        }
        Ok(reads)
    }

    /// The end of the log, or of the area of record `at` if that comes first.
    pub(crate) fn end_in_area(&self, at: u64) -> u64 {
        let (area, _) = self.geometry.area_and_slot(at);
        ((area + 1) * self.geometry.exceptions_per_area()).min(self.len)
    }

    /// What [`Log::tail_reads`] brought, cut to the records of the log.
    pub(crate) fn parse_tail(&self, from: u64, reads: &[(ByteRange, &[u8])]) -> Vec<Exception> {
        let start = self.block_start(from);
        let wanted = usize::try_from(self.len - start).unwrap_or(usize::MAX);
        let mut records = Vec::new();
        let mut at = start;
        for (_, bytes) in reads {
            let here = usize::try_from(self.end_in_area(at) - at).unwrap_or(usize::MAX);
            records.extend(Exception::decode_slice(bytes).take(here));
            at += here as u64;
        }
        records.truncate(wanted);
        records
    }

    /// Steps that clear all records from `new_len` on, where `tail` are those that stay in the block of `new_len`, and the log
    /// afterwards. The cleared records must not be needed for the view any more: a crash may leave any of them.
    pub(crate) fn truncate(&self, new_len: u64, tail: &[Exception]) -> Result<(Vec<Step>, Log)> {
        let mut steps = Vec::new();
        let mut at = self.block_start(new_len);
        if at < new_len {
            steps.push(write(self.slot_offset(at)?, self.encode_block(tail)));
            at += self.records_per_block();
        }
        while at < self.len {
            let end = self.end_in_area(at);
            let len = ((end - at) * EXCEPTION_SIZE).next_multiple_of(self.block());
            steps.extend(zero_steps(ByteRange::new(self.slot_offset(at)?, len)));
            at = end;
        }
        let mut after = self.clone();
        after.len = new_len;
        after.tail = tail.to_vec();
        let (area, slot) = self.geometry.area_and_slot(new_len);
        let cleared = if slot == 0 { area } else { area + 1 };
        let emptied = self.current_area() + 1;
        let joins = after.zeroed.start <= emptied;
        let known = if joins {
            after.zeroed.end.max(emptied)
        } else {
            emptied
        };
        after.zeroed = cleared..known.max(cleared);
        Ok((steps, after))
    }

    /// The block that holds `index`, as a read.
    pub(crate) fn block_range(&self, index: u64) -> Result<ByteRange> {
        Ok(ByteRange::new(
            self.slot_offset(self.block_start(index))?,
            self.block(),
        ))
    }

    fn slot_offset(&self, index: u64) -> Result<u64> {
        self.geometry
            .slot_offset(index)
            .ok_or_else(|| too_long(index))
    }

    fn area_start(&self, area: u64) -> Result<u64> {
        let chunk = self.geometry.area_chunk(area);
        let start = chunk.and_then(|chunk| self.geometry.byte_offset(chunk));
        start.ok_or_else(|| too_long(area))
    }

    fn area_end(&self, area: u64) -> Result<u64> {
        Ok(self.area_start(area)? + self.geometry.chunk_size().bytes())
    }

    /// The records' bytes, with zeros up to the end of the last block.
    pub(crate) fn encode_block(&self, records: &[Exception]) -> Vec<u8> {
        let len = (records.len() as u64 * EXCEPTION_SIZE).next_multiple_of(self.block());
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        for record in records {
            bytes.extend_from_slice(&record.encode());
        }
        bytes.resize(usize::try_from(len.max(self.block())).unwrap_or(0), 0);
        bytes
    }
}

pub(crate) fn write(offset: u64, data: Vec<u8>) -> Step {
    Step::Write {
        device: Device::Cow,
        offset,
        data: Arc::from(data),
    }
}

/// Zeros in the COW file that keep their space: written where short, left to the host where long.
pub(crate) fn zero_steps(range: ByteRange) -> Option<Step> {
    match range.len {
        0 => None,
        1..=MAX_ZERO_WRITE => Some(write(range.start, vec![0; range.len as usize])),
        _ => Some(Step::WriteZeroes {
            device: Device::Cow,
            range,
            unmap: false,
        }),
    }
}

fn too_long(index: u64) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!("metadata for record {index} lies past the longest file"),
    )
}
