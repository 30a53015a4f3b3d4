//! New exceptions, from asking the store for chunks to making them visible.

use super::layer::Layer;
use super::run;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::store::{ExceptionId, NewException, Prepared};
use crate::units::{ByteRange, ChunkSize, OriginChunk};

/// New chunks and the bytes of them that somebody wants to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The chunks, as bytes of the disk.
    pub(crate) chunks: ByteRange,
    /// What is written of them.
    pub(crate) data: ByteRange,
    /// Where `chunks` starts in the COW file.
    pub(crate) cow_offset: u64,
    /// Whether the COW file reads as zeros there already.
    pub(crate) reads_zero: bool,
}

impl Span {
    fn new(chunk: ChunkSize, new: &NewException, wanted: ByteRange) -> Span {
        let start = new.old.0 << chunk.shift();
        let chunks = ByteRange::new(start, new.count << chunk.shift());
        let data_start = wanted.start.max(chunks.start);
        let data_end = wanted.end().min(chunks.end()).max(data_start);
        Span {
            chunks,
            data: ByteRange::new(data_start, data_end - data_start),
            cow_offset: new.cow_offset,
            reads_zero: new.reads_zero,
        }
    }

    /// What of the chunks lies before the data.
    pub(crate) fn head(&self) -> ByteRange {
        ByteRange::new(self.chunks.start, self.data.start - self.chunks.start)
    }

    /// What of the chunks lies behind the data.
    pub(crate) fn tail(&self) -> ByteRange {
        ByteRange::new(self.data.end(), self.chunks.end() - self.data.end())
    }

    /// Where a byte of the disk lies in the COW file.
    pub(crate) fn cow_of(&self, offset: u64) -> u64 {
        self.cow_offset + (offset - self.chunks.start)
    }
}

/// An exception in flight. Unless completed it is aborted, so that those who wait for it can try themselves.
struct InFlight<'a> {
    layer: &'a Layer,
    id: Option<ExceptionId>,
}

impl InFlight<'_> {
    /// Makes it visible.
    fn complete(mut self) -> Result<()> {
        let Some(id) = self.id.take() else {
            return Ok(());
        };
        let result = self.layer.store_mut()?.complete_exception(id);
        self.layer.changed.notify();
        result.map_err(|error| self.layer.named(error))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            if let Ok(mut store) = self.layer.store_mut() {
                let _ = store.abort_exception(id);
            }
            self.layer.changed.notify();
        }
    }
}

impl Layer {
    /// Makes exceptions for the first unmapped chunks of `range`; `fill` gives them their whole content. Returns how many bytes of `range` are
    /// done, which may be none: then it has to be looked up again.
    pub(crate) fn first_write(
        &self,
        range: ByteRange,
        fill: impl FnOnce(&Span) -> Result<()>,
    ) -> Result<u64> {
        let first = self.chunk.index_of(range.start);
        let count = self.chunk.index_of(range.end() - 1) - first + 1;
        let Some(new) = self.prepare(OriginChunk(first), count)? else {
            return Ok(0);
        };
        let in_flight = InFlight {
            layer: self,
            id: Some(new.id),
        };
        let span = Span::new(self.chunk, &new, range);
        fill(&span)?;
        in_flight.complete()?;
        Ok(span.data.len)
    }

    /// Chunks for the exceptions, or `None` if the first one needs none any more.
    fn prepare(&self, first: OriginChunk, count: u64) -> Result<Option<NewException>> {
        let (mut retried, mut committed) = (false, false);
        if self.full_is_final {
            self.look_for_space()?;
        }
        loop {
            let seen = self.changed.generation();
            let mut store = self.store_mut()?;
            // Before anything is done for this write: if it fails, so does the write, and nothing of it is there.
            if store.should_commit() && !committed {
                drop(store);
                committed = true;
                self.flush()?;
                continue;
            }
            let prepared = store.prepare_exception(first, count);
            drop(store);
            match prepared {
                Ok(Prepared::Exception(new)) => return Ok(Some(new)),
                Ok(Prepared::Reserve(plan)) => self.run(plan)?,
                Ok(Prepared::Wait) => self.wait(seen)?,
                Ok(Prepared::Retry) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NoSpace && !retried => {
                    retried = true;
                    if !self.look_for_space()? {
                        return Err(self.named(error));
                    }
                }
                Err(error) => return Err(self.overflowed(error)),
            }
        }
    }

    /// A device may have grown since it was last asked. Returns whether it did.
    fn look_for_space(&self) -> Result<bool> {
        if self.cow.is_growable() {
            return Ok(false);
        }
        let size = self.cow.size()?;
        let known = self.store()?.cow_size();
        if size > known {
            self.store_mut()?.set_cow_size(size);
        }
        Ok(size > known)
    }

    /// In the kernel's mode P a full device invalidates the snapshot, on disk too.
    #[cold]
    fn overflowed(&self, error: Error) -> Error {
        let plan = self
            .store_mut()
            .ok()
            .and_then(|mut store| store.take_invalidation());
        if let Some(mut plan) = plan {
            let outcome = run::run(&mut plan, &self.cow, &self.origin);
            if let Ok(mut store) = self.store_mut() {
                let _ = store.finish_plan(plan, outcome);
            }
        }
        self.changed.notify();
        self.named(error)
    }
}
