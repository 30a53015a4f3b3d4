//! New exceptions: prepared (a chunk is allocated), then completed (its data is in place) or aborted.

use super::alloc::Allocation;
use super::plan::{Plan, Purpose};
use super::state::{ExceptionId, NewException, OverflowMode, Prepared, State};
use super::store::{RunInFlight, Store};
use super::table::{MAX_OLD_CHUNK, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Exception;
use crate::units::{ByteRange, CowChunk, OriginChunk};

impl Store {
    /// Allocates COW chunks for up to `count` chunks from `first` on, which must be unmapped (the kernel's `prepare_exception`).
    ///
    /// Until it is completed, reads see the origin and other writers of these chunks wait. The host must give the new chunks their
    /// whole content: what is written, the origin's bytes around it, zeros past the end of the origin and of the disk. Unlike in the
    /// kernel one call covers a run of chunks. Where records stand twice, the first call begins to remove them: its plans come as
    /// [`Prepared::Reserve`] too.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] if a device of fixed size is full, in mode `PO` [`ErrorKind::Overflow`], in mode `P` too; in mode `P` the
    /// snapshot is then invalid, and [`Store::take_invalidation`] has the plan for the header.
    pub fn prepare_exception(&mut self, first: OriginChunk, count: u64) -> Result<Prepared> {
        self.check_writable()?;
        let start = self.chunk_size().start_of(first.0).unwrap_or(u64::MAX);
        self.check_bounds(ByteRange::new(start, 1))?;
        let end = self.chunk_size().count_for(self.virtual_size);
        match self.prepare_run(first, count.min(end - first.0))? {
            Some(prepared) => Ok(prepared),
            None => Err(self.overflowed()),
        }
    }

    /// As [`Store::prepare_exception`], for chunks that may lie past the end: what growing will uncover. `None` if there is no room, which
    /// changes nothing.
    pub(crate) fn prepare_run(
        &mut self,
        first: OriginChunk,
        count: u64,
    ) -> Result<Option<Prepared>> {
        let count = match self.table.lookup_run(first, count.max(1)) {
            Run::Mapped { .. } => return Ok(Some(Prepared::Retry)),
            Run::Unmapped { len } => self.idle_run(first.0, len),
        };
        if count == 0 {
            return Ok(Some(Prepared::Wait));
        }
        if matches!(self.state, State::Merging | State::MergeFailed) {
            return Ok(Some(Prepared::Retry));
        }
        if !self.settle() {
            return Ok(Some(Prepared::Wait));
        }
        if let Some(first) = self.before_first_write()? {
            return Ok(Some(first));
        }
        self.release_unpinned();
        let records = self.log.len() + self.pending() + self.in_flight_chunks;
        let mut allocation = self.alloc.allocate(count, records);
        if allocation == Allocation::Full && self.waits_for_chunks() {
            // What was unpinned before the store said that it waits has woken nobody.
            self.release_unpinned();
            allocation = self.alloc.allocate(count, records);
        }
        Ok(match allocation {
            Allocation::Run(run) => {
                let run_in_flight = RunInFlight {
                    old: first.0,
                    new: run.new,
                    count: run.count,
                };
                self.in_flight.insert(first.0, run_in_flight);
                self.in_flight_chunks += run.count;
                Some(Prepared::Exception(NewException {
                    id: ExceptionId(first.0),
                    old: first,
                    new: CowChunk(run.new),
                    count: run.count,
                    cow_offset: run.new << self.chunk_size().shift(),
                    reads_zero: run.zero,
                }))
            }
            Allocation::Reserve => Some(self.begin_reserve(count)?),
            Allocation::Full if self.waits_for_chunks() => Some(Prepared::Wait),
            Allocation::Full => None,
        })
    }

    fn begin_reserve(&mut self, count: u64) -> Result<Prepared> {
        if self.reserve.is_some() || self.reclaim.is_some() {
            return Ok(Prepared::Wait);
        }
        let reservation = self.alloc.reserve(count)?;
        let plan = self.plan(Purpose::Reserve, reservation.steps.clone());
        self.reserve = Some((plan.id, reservation));
        Ok(Prepared::Reserve(plan))
    }

    pub(crate) fn is_mapped(&self, old: OriginChunk) -> bool {
        matches!(self.table.lookup_run(old, 1), Run::Mapped { .. })
    }

    /// Takes back a reservation that will not be run.
    pub(crate) fn drop_reserve(&mut self) {
        self.reserve = None;
    }

    /// Whether freed chunks only wait for pins to be released.
    fn waits_for_chunks(&self) -> bool {
        let waits = !self.freed.is_empty() || !self.draining.is_empty() || self.reclaim.is_some();
        if waits {
            self.pins.set_awaited(true);
        }
        waits
    }

    pub(crate) fn full_error(&self) -> Error {
        let message = format!(
            "no free chunk is left in the {} bytes of the COW device",
            self.cow_size()
        );
        Error::new(ErrorKind::NoSpace, message)
    }

    fn overflowed(&mut self) -> Error {
        let full = self.full_error();
        let message = full.message();
        match self.overflow {
            OverflowMode::NoSpace => full,
            OverflowMode::PersistentOverflow => {
                self.state = State::Overflow;
                Error::new(ErrorKind::Overflow, message)
            }
            OverflowMode::Persistent => {
                self.state = State::Invalid;
                self.invalidation_due = true;
                Error::new(
                    ErrorKind::Overflow,
                    format!("{message}: the snapshot is now invalid"),
                )
            }
        }
    }

    /// The plan that writes the invalid header, if running full in mode `P` made one due. Give it to [`Store::finish_plan`] as any other.
    pub fn take_invalidation(&mut self) -> Option<Plan> {
        if !std::mem::take(&mut self.invalidation_due) {
            return None;
        }
        let steps = self.invalid_header_steps();
        Some(self.plan(Purpose::Invalidate, steps))
    }

    /// Makes exceptions visible to reads. Their data must be in place, though not yet durable.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such exception in flight. [`ErrorKind::PreviousIo`] or another state's error if
    /// the store cannot take them any more; they are aborted then.
    pub fn complete_exception(&mut self, id: ExceptionId) -> Result<()> {
        let run = self.take_in_flight(id)?;
        // In mode PO what was allocated before the overflow is kept, as the kernel keeps it.
        if matches!(self.state, State::Invalid | State::Failed) {
            self.alloc.free(run.new, run.count);
            return self.check_writable();
        }
        self.table
            .insert_run(OriginChunk(run.old), CowChunk(run.new), run.count);
        self.completed_chunks += run.count;
        match self.completed.last_mut() {
            Some(last) if last.old + last.count == run.old && last.new + last.count == run.new => {
                last.count += run.count;
            }
            _ => self.completed.push(run),
        }
        Ok(())
    }

    /// Forgets exceptions whose data could not be written. Their chunks are used again; writers that waited try again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such exception in flight.
    pub fn abort_exception(&mut self, id: ExceptionId) -> Result<()> {
        let run = self.take_in_flight(id)?;
        self.alloc.free(run.new, run.count);
        Ok(())
    }

    fn take_in_flight(&mut self, id: ExceptionId) -> Result<RunInFlight> {
        let run = self.in_flight.remove(&id.0).ok_or_else(|| {
            let message = format!("no exception {} is in flight", id.0);
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        self.in_flight_chunks -= run.count;
        Ok(run)
    }

    /// Whether the exception is one that was loaded or made.
    pub(crate) fn has(&self, record: &Exception) -> bool {
        if record.old.0 > MAX_OLD_CHUNK {
            return self.strays.get(&record.old.0) == Some(&record.new.0);
        }
        let run = self.table.lookup_run(record.old, 1);
        matches!(run, Run::Mapped { new, .. } if new == record.new)
    }

    /// The exception is in no record any more. One that is not known frees nothing: its chunk may be another one's by now.
    pub(crate) fn forget(&mut self, record: &Exception) {
        if !self.has(record) {
            return;
        }
        if record.old.0 > MAX_OLD_CHUNK {
            self.strays.remove(&record.old.0);
        } else {
            self.table.remove(record.old, 1);
        }
        self.free_when_unpinned(record.new, 1);
    }

    /// Frees chunks once nothing that was looked up before can still use them.
    pub(crate) fn free_when_unpinned(&mut self, new: CowChunk, count: u64) {
        self.freed.insert(new, count);
    }

    /// Moves freed chunks on as far as the pins allow.
    pub(crate) fn release_unpinned(&mut self) {
        while (!self.freed.is_empty() || !self.draining.is_empty()) && self.advance_epoch() {}
    }

    /// No more writes go to the origin from now on; those under way are waited for.
    pub(crate) fn end_merge(&mut self) {
        self.state = State::Active;
        self.settled_at = self.epoch + 2;
        self.pins.set_awaited(true);
    }

    /// Whether every write that a merge sent to the origin has ended.
    pub(crate) fn settle(&mut self) -> bool {
        while self.epoch < self.settled_at {
            if !self.advance_epoch() {
                return false;
            }
        }
        if self.settled_at > 0 {
            self.settled_at = 0;
            self.await_pins_no_more();
        }
        true
    }

    /// Who waited for pins has what it waited for. Freed chunks may be waited for by others.
    pub(crate) fn await_pins_no_more(&self) {
        if self.freed.is_empty() && self.draining.is_empty() {
            self.pins.set_awaited(false);
        }
    }

    /// Flips the pins' phase if the older one has drained. Two flips after a moment nothing looked up before it is in use.
    pub(crate) fn advance_epoch(&mut self) -> bool {
        if !self.pins.older_is_drained() {
            return false;
        }
        self.pins.flip();
        self.epoch += 1;
        let drained = std::mem::replace(&mut self.draining, std::mem::take(&mut self.freed));
        for range in drained.iter() {
            self.alloc.free(range.start.0, range.len);
        }
        true
    }
}
