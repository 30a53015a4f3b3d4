//! Merging exceptions into the origin, from the end of the log, in batches.
//!
//! A batch is read from the log, hidden from writers, copied in the order of the origin, made durable there, and only then cleared
//! from the log. Until its records are cleared they show the same bytes as the origin, so any crash in between is harmless.

use super::drop_job::DropJob;
use super::job::Job;
use super::plan::{Device, Plan, Purpose, Step};
use super::state::{Progress, State};
use super::store::Store;
use super::table::MAX_OLD_CHUNK;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Exception;

/// Bounds of a batch: enough records to sort well, not more bytes than writers should wait for.
const MAX_BATCH_RECORDS: u64 = 1 << 16;
const MIN_BATCH_RECORDS: u64 = 4096;
const BATCH_BYTES: u64 = 256 << 20;
/// Where chunks are huge, the bound on records gives way.
const MAX_BATCH_BYTES: u64 = 1 << 30;

#[derive(Debug)]
enum Phase {
    /// Waiting for first writes from before the merge, and for their commit.
    Quiesce,
    /// Removing records that stand twice: one of a pair would outlive the chunk that the other one frees.
    Repair(DropJob),
    /// Reading the records of the next batch, from this one on.
    Read {
        from: u64,
    },
    /// Waiting until no I/O from before uses the batch.
    Drain {
        batch: Batch,
        until: u64,
    },
    Copy {
        batch: Batch,
    },
    /// Making the copies durable, and whatever first writes put into the origin.
    Flush {
        batch: Batch,
    },
    Clear {
        batch: Batch,
    },
}

/// The records at the end of the log that go next.
#[derive(Debug)]
struct Batch {
    from: u64,
    /// In the order of the origin, each chunk once.
    records: Vec<Exception>,
    /// What stays in the block of record `from`.
    tail: Vec<Exception>,
}

#[derive(Debug)]
pub(crate) struct MergeJob {
    phase: Phase,
    /// Copies end here: the origin's end or the disk's.
    limit: u64,
    total: u64,
    done: u64,
}

impl Store {
    /// Begins a merge into an origin of `origin_size` bytes (the kernel's `prepare_merge`). From now on first writes go to the origin.
    ///
    /// Unlike the kernel's merge it works in large batches, which [`Store::next_plan`] hands out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the origin is shorter than the disk: the host makes it longer first;
    /// [`ErrorKind::OriginMismatch`] if a bare store has exceptions past the end of the disk, which would be lost;
    /// [`ErrorKind::Busy`] while another job is under way; [`ErrorKind::Corrupt`] as [`Store::prepare_repair`].
    pub fn prepare_merge(&mut self, origin_size: u64) -> Result<()> {
        if origin_size < self.virtual_size {
            let message = format!(
                "the origin has {origin_size} bytes, the layer {}: make the origin longer first",
                self.virtual_size
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.check_bare_end(self.virtual_size)?;
        if self.descriptor.is_some() {
            self.check_end(self.virtual_size)?;
        }
        let total = self.log.len() + self.pending() + self.in_flight_chunks;
        let limit = self.virtual_size;
        let job = MergeJob {
            phase: Phase::Quiesce,
            limit,
            total,
            done: 0,
        };
        self.begin_job(Job::Merge(job))?;
        self.state = State::Merging;
        self.merge_failed = false;
        Ok(())
    }
}

impl MergeJob {
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.done, self.total)
    }

    pub(crate) fn edits_log(&self) -> bool {
        !matches!(self.phase, Phase::Quiesce)
    }

    pub(crate) fn changes_metadata(&self) -> bool {
        match &self.phase {
            Phase::Repair(job) => job.changes_metadata(),
            Phase::Clear { .. } => true,
            _ => false,
        }
    }

    /// The batch is begun anew: what a failed flush was to make durable may be gone, and until then its chunks may be written to.
    pub(crate) fn found_no_space(&mut self, store: &mut Store) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Quiesce) {
            Phase::Copy { batch } | Phase::Flush { batch } => {
                store.merging = Vec::new();
                Phase::Read { from: batch.from }
            }
            other => other,
        };
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        if store.state != State::Merging {
            store.check_writable()?;
        }
        match &mut self.phase {
            Phase::Quiesce => self.begin(store),
            Phase::Repair(job) => match job.next(store)? {
                Progress::Done => self.next_batch(store),
                other => Ok(other),
            },
            Phase::Read { from } => {
                let reads = store.log.tail_reads(*from)?;
                Ok(store.job_plan(Purpose::Merge, reads))
            }
            Phase::Drain { until, .. } => {
                let until = *until;
                Ok(self.drain(store, until))
            }
            Phase::Copy { batch } => {
                let steps = copy_steps(store, batch, self.limit);
                Ok(store.job_plan(Purpose::Merge, steps))
            }
            Phase::Flush { .. } => {
                let flush = Step::Flush {
                    device: Device::Origin,
                };
                Ok(store.job_plan(Purpose::Merge, vec![flush]))
            }
            Phase::Clear { batch } => {
                let (mut steps, _) = store.log.truncate(batch.from, &batch.tail)?;
                steps.push(Step::Flush {
                    device: Device::Cow,
                });
                Ok(store.job_plan(Purpose::Merge, steps))
            }
        }
    }

    fn begin(&mut self, store: &mut Store) -> Result<Progress> {
        if !store.in_flight.is_empty() {
            return Ok(Progress::Wait);
        }
        if let Some(progress) = store.quiesce()? {
            return Ok(progress);
        }
        if store.repeated > 0 {
            self.phase = Phase::Repair(DropJob::repair(store));
            return self.next(store);
        }
        self.next_batch(store)
    }

    fn next_batch(&mut self, store: &mut Store) -> Result<Progress> {
        if store.log.len() == 0 {
            store.end_merge();
            return Ok(Progress::Done);
        }
        let chunk = store.chunk_size().bytes();
        let records = (BATCH_BYTES / chunk)
            .clamp(MIN_BATCH_RECORDS, MAX_BATCH_RECORDS)
            .min((MAX_BATCH_BYTES / chunk).max(1));
        self.phase = Phase::Read {
            from: store.log.len().saturating_sub(records),
        };
        self.next(store)
    }

    /// Nothing that was looked up before the batch was hidden is in use after two flips of the pins' phase.
    fn drain(&mut self, store: &mut Store, until: u64) -> Progress {
        store.pins.set_awaited(true);
        while store.epoch < until {
            if !store.advance_epoch() {
                return Progress::Wait;
            }
        }
        store.await_pins_no_more();
        let phase = std::mem::replace(&mut self.phase, Phase::Quiesce);
        if let Phase::Drain { batch, .. } = phase {
            let steps = copy_steps(store, &batch, self.limit);
            self.phase = Phase::Copy { batch };
            return store.job_plan(Purpose::Merge, steps);
        }
        Progress::Wait
    }

    pub(crate) fn done(&mut self, store: &mut Store, plan: &Plan) -> Result<()> {
        match std::mem::replace(&mut self.phase, Phase::Quiesce) {
            Phase::Read { from } => {
                let batch = read_batch(store, from, plan)?;
                store.merging = batch.records.iter().map(|record| record.old.0).collect();
                self.phase = Phase::Drain {
                    batch,
                    until: store.epoch + 2,
                };
            }
            Phase::Repair(mut job) => {
                let result = job.done(store, plan);
                self.phase = Phase::Repair(job);
                return result;
            }
            Phase::Copy { batch } => self.phase = Phase::Flush { batch },
            Phase::Flush { batch } => self.phase = Phase::Clear { batch },
            Phase::Clear { batch } => self.cleared(store, &batch)?,
            other => self.phase = other,
        }
        Ok(())
    }

    /// The batch is in the origin and gone from the log.
    fn cleared(&mut self, store: &mut Store, batch: &Batch) -> Result<()> {
        self.done += store.log.len() - batch.from;
        // From the log as it is now: the file may have been cut meanwhile, and areas be gone that were zeroed.
        let (_, after) = store.log.truncate(batch.from, &batch.tail)?;
        store.log = after;
        store.merging = Vec::new();
        for record in &batch.records {
            store.forget(record);
        }
        store.release_unpinned();
        self.phase = Phase::Quiesce;
        Ok(())
    }

    /// A copy that failed leaves the pair whole; a record that could not be changed leaves it unknown what is on disk.
    pub(crate) fn failed(self, store: &mut Store, error: &Error) {
        store.merging = Vec::new();
        store.state = State::MergeFailed;
        store.merge_failed = true;
        if self.changes_metadata() {
            store.fail(error);
        }
    }

    pub(crate) fn cancelled(self, store: &mut Store) {
        store.merging = Vec::new();
        if let Phase::Repair(job) = self.phase {
            job.cancelled(store);
        }
        if store.state == State::Merging {
            store.end_merge();
        }
    }
}

fn read_batch(store: &Store, from: u64, plan: &Plan) -> Result<Batch> {
    let mut records = store.log.parse_tail(from, &plan.reads()?);
    let kept = usize::try_from(from - store.log.block_start(from)).unwrap_or(usize::MAX);
    let mut batch = records.split_off(kept.min(records.len()));
    let changed = batch.iter().any(|record| !store.has(record));
    if changed || batch.len() as u64 != store.log.len() - from {
        let message =
            "the records on disk are not those that were loaded: somebody else writes to the file";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    batch.sort_unstable_by_key(|record| record.old);
    // A record that stands twice is copied once.
    batch.dedup();
    Ok(Batch {
        from,
        records: batch,
        tail: records,
    })
}

/// Copies of the batch, runs joined.
fn copy_steps(store: &Store, batch: &Batch, limit: u64) -> Vec<Step> {
    let chunk = store.chunk_size();
    let mut steps: Vec<Step> = Vec::new();
    let mut run: Option<(Exception, u64)> = None;
    let mut emit = |first: Exception, count: u64| {
        let to_offset = first.old.0.saturating_mul(chunk.bytes());
        let len = (count * chunk.bytes()).min(limit.saturating_sub(to_offset));
        let from_offset = first.new.0 << chunk.shift();
        if len > 0 {
            let (from, to) = (Device::Cow, Device::Origin);
            steps.push(Step::Copy {
                from,
                from_offset,
                to,
                to_offset,
                len,
            });
        }
    };
    let on_disk = batch.records.iter();
    for record in on_disk.filter(|record| record.old.0 <= MAX_OLD_CHUNK) {
        run = match run {
            Some((first, count))
                if first.old.0 + count == record.old.0 && first.new.0 + count == record.new.0 =>
            {
                Some((first, count + 1))
            }
            Some((first, count)) => {
                emit(first, count);
                Some((*record, 1))
            }
            None => Some((*record, 1)),
        };
    }
    if let Some((first, count)) = run {
        emit(first, count);
    }
    steps
}
