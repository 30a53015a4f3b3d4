//! Look-ups: where bytes are read from, and where they are written to.

use super::state::{Extent, State, Target, WriteExtent, WriteTarget};
use super::store::Store;
use super::table::Run;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ByteRange, OriginChunk};

impl Store {
    /// Finds where the bytes at the start of `range` are read from, and how many of them lie there in one run.
    ///
    /// # Errors
    /// [`ErrorKind::SnapshotInvalid`], or [`ErrorKind::OutOfBounds`] if `range` is empty or ends past the virtual size.
    #[inline]
    pub fn map(&self, range: ByteRange) -> Result<Extent> {
        if self.state == State::Invalid {
            return Err(self.invalid_error());
        }
        self.check_bounds(range)?;
        let (run, skipped) = self.lookup(range);
        let (target, chunks) = match run {
            Run::Mapped { new, len } => (
                Target::Cow {
                    offset: self.cow_offset(new.0) + skipped,
                },
                len,
            ),
            Run::Unmapped { len } => (Target::Origin, len),
        };
        Ok(Extent {
            target,
            len: self.bytes_of_run(range, skipped, chunks),
        })
    }

    /// Finds where the bytes at the start of `range` are written to, and how many of them go there in one run.
    ///
    /// # Errors
    /// As [`Store::map`], and whatever forbids writing: [`ErrorKind::ReadOnly`], [`ErrorKind::Overflow`], [`ErrorKind::PreviousIo`].
    #[inline]
    pub fn map_write(&self, range: ByteRange) -> Result<WriteExtent> {
        self.check_writable()?;
        self.check_bounds(range)?;
        let first = self.chunk_size().index_of(range.start);
        let (run, skipped) = self.lookup(range);
        let (target, chunks) = match run {
            Run::Mapped { new, len } => match self.unmerged_run(first, len) {
                0 => (WriteTarget::Wait, 1),
                len => (
                    WriteTarget::Cow {
                        offset: self.cow_offset(new.0) + skipped,
                    },
                    len,
                ),
            },
            Run::Unmapped { len } => match (self.idle_run(first, len), self.state) {
                (0, _) => (WriteTarget::Wait, 1),
                (len, State::Merging | State::MergeFailed) => (WriteTarget::Origin, len),
                (len, _) => (WriteTarget::Unmapped, len),
            },
        };
        Ok(WriteExtent {
            target,
            len: self.bytes_of_run(range, skipped, chunks),
        })
    }

    /// The run at the start of `range`, and how many bytes of its first chunk lie before `range`.
    #[inline]
    fn lookup(&self, range: ByteRange) -> (Run, u64) {
        let chunk = self.chunk_size();
        let first = chunk.index_of(range.start);
        let chunks = chunk.index_of(range.end() - 1) - first + 1;
        let run = self.table.lookup_run(OriginChunk(first), chunks);
        (run, chunk.offset_in_chunk(range.start))
    }

    #[inline]
    fn bytes_of_run(&self, range: ByteRange, skipped: u64, chunks: u64) -> u64 {
        let bytes = chunks.saturating_mul(self.chunk_size().bytes());
        bytes.saturating_sub(skipped).min(range.len)
    }

    /// Mapped chunks were checked to lie inside the file when they were loaded or allocated.
    #[inline]
    fn cow_offset(&self, new: u64) -> u64 {
        new << self.chunk_size().shift()
    }

    /// How many of `len` unmapped chunks from `first` on are not in flight.
    pub(crate) fn idle_run(&self, first: u64, len: u64) -> u64 {
        if let Some((_, run)) = self.in_flight.range(..=first).next_back()
            && run.old + run.count > first
        {
            return 0;
        }
        match self.in_flight.range(first..).next() {
            Some((&old, _)) => len.min(old - first),
            None => len,
        }
    }

    /// How many of `len` mapped chunks from `first` on no job has hidden from writers.
    #[inline]
    fn unmerged_run(&self, first: u64, len: u64) -> u64 {
        if self.merging.is_empty() {
            return if self.may_be_empty() { 0 } else { len };
        }
        let index = self.merging.partition_point(|&old| old < first);
        match self.merging.get(index) {
            Some(&old) => len.min(old - first),
            None => len,
        }
    }

    #[inline]
    pub(crate) fn check_bounds(&self, range: ByteRange) -> Result<()> {
        match range.start.checked_add(range.len) {
            Some(end) if end <= self.virtual_size && range.len > 0 => Ok(()),
            _ => Err(self.out_of_bounds(range)),
        }
    }

    #[cold]
    fn out_of_bounds(&self, range: ByteRange) -> Error {
        let size = self.virtual_size;
        let message = format!("{range} are not inside a disk of {size} bytes");
        Error::new(ErrorKind::OutOfBounds, message)
    }
}
