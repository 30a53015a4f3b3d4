//! Changing the size of the disk.
//!
//! Growing: what the new end uncovers must read as zeros, whatever the origin holds there, and be durable before the new size is.
//! Shrinking: the new size first, then the exceptions past it, so that a crash between leaves only records that the next open drops.

use super::descriptor_job::DescriptorJob;
use super::drop_job::DropJob;
use super::job::Job;
use super::plan::{Device, Plan, Purpose, Step};
use super::state::{ExceptionId, NewException, Prepared, Progress};
use super::store::Store;
use super::table::Run;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ByteRange, OriginChunk, SECTOR_SIZE};

/// Chunks that are zeroed before the next commit.
const MAX_ZEROED: u64 = 1 << 16;

#[derive(Debug)]
enum Phase {
    /// Dropping what an interrupted shrink left past the old end.
    DropLeftovers(DropJob),
    /// Zeroing the rest of the last chunk.
    ZeroTail,
    /// Zeroing chunks of the origin from this one on.
    ZeroChunks {
        next: u64,
    },
    /// Zeros on their way to new chunks.
    Zeroing {
        exceptions: Vec<ExceptionId>,
        next: u64,
        steps: Vec<Step>,
    },
    Quiesce,
    Descriptor(DescriptorJob),
    /// Dropping what lies past the new end.
    DropTail(DropJob),
    Finished,
}

#[derive(Debug)]
pub(crate) struct ResizeJob {
    phase: Phase,
    size: u64,
    old_size: u64,
    origin_size: u64,
    done: u64,
}

impl Store {
    /// Begins to change the disk's size to `size` bytes, over an origin of `origin_size` bytes.
    ///
    /// When it shrinks, the new size counts at once. The host lets no I/O past the new end be under way then.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] unless `size` is a multiple of 512; [`ErrorKind::Unsupported`] for a bare store, which has no
    /// size of its own, and if no generation is left for another descriptor; [`ErrorKind::MergeFailed`] after a merge that failed;
    /// [`ErrorKind::Busy`] while another job is under way; [`ErrorKind::Corrupt`] as [`Store::prepare_repair`].
    pub fn prepare_resize(&mut self, size: u64, origin_size: u64) -> Result<()> {
        let Some(descriptor) = &self.descriptor else {
            let message = "a bare store has the size of its origin: add a descriptor first";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        self.check_end(self.virtual_size)?;
        let mut descriptor = descriptor.clone();
        descriptor.virtual_size = size;
        if !size.is_multiple_of(SECTOR_SIZE) || ByteRange::checked(0, size).is_none() {
            let message = format!("size {size} is not a multiple of 512 that a file can have");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.next_generation()?;
        let old_size = self.virtual_size;
        let phase = if size >= old_size {
            Phase::DropLeftovers(DropJob::new(self.chunk_size().count_for(old_size)))
        } else {
            Phase::Descriptor(DescriptorJob::new(Some(descriptor)))
        };
        self.begin_job(Job::Resize(ResizeJob {
            phase,
            size,
            old_size,
            origin_size,
            done: 0,
        }))?;
        self.virtual_size = self.virtual_size.min(size);
        Ok(())
    }
}

impl ResizeJob {
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.done, self.done + 1)
    }

    pub(crate) fn edits_log(&self) -> bool {
        match &self.phase {
            Phase::DropLeftovers(job) | Phase::DropTail(job) => job.edits_log(),
            _ => false,
        }
    }

    pub(crate) fn changes_metadata(&self) -> bool {
        match &self.phase {
            Phase::DropLeftovers(job) | Phase::DropTail(job) => job.changes_metadata(),
            Phase::Descriptor(_) => true,
            _ => false,
        }
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        loop {
            let progress = match &mut self.phase {
                Phase::DropLeftovers(job) | Phase::DropTail(job) => job.next(store)?,
                Phase::ZeroTail => self.zero_tail(store)?,
                Phase::ZeroChunks { next } => {
                    let next = *next;
                    self.zero_chunks(store, next)?
                }
                // There was no space for them.
                Phase::Zeroing { steps, .. } => {
                    let steps = steps.clone();
                    store.job_plan(Purpose::Grow, steps)
                }
                Phase::Quiesce => store.quiesce()?.unwrap_or(Progress::Done),
                Phase::Descriptor(job) => job.next(store)?,
                Phase::Finished => return Ok(Progress::Done),
            };
            match progress {
                Progress::Done => self.phase = self.phase_after(store),
                other => return Ok(other),
            }
        }
    }

    fn phase_after(&mut self, store: &mut Store) -> Phase {
        let grows = self.size >= self.old_size;
        match &self.phase {
            Phase::DropLeftovers(_) => Phase::ZeroTail,
            Phase::ZeroTail => Phase::ZeroChunks {
                next: store.chunk_size().count_for(self.old_size),
            },
            Phase::ZeroChunks { .. } => Phase::Quiesce,
            Phase::Quiesce => {
                let mut descriptor = store.descriptor.clone();
                if let Some(descriptor) = &mut descriptor {
                    descriptor.virtual_size = self.size;
                }
                Phase::Descriptor(DescriptorJob::new(descriptor))
            }
            Phase::Descriptor(_) if !grows => {
                let end = store.chunk_size().count_for(self.size);
                Phase::DropTail(DropJob::new(end))
            }
            _ => Phase::Finished,
        }
    }

    /// The bytes behind the old end in its chunk: zeroed in place, or in a new exception if the origin has data there.
    fn zero_tail(&mut self, store: &mut Store) -> Result<Progress> {
        let chunk = store.chunk_size();
        let inside = chunk.offset_in_chunk(self.old_size);
        if inside == 0 || self.size == self.old_size {
            return Ok(Progress::Done);
        }
        let last = chunk.index_of(self.old_size);
        match store.table.lookup_run(OriginChunk(last), 1) {
            Run::Mapped { new, .. } => {
                let start = (new.0 << chunk.shift()) + inside;
                // No commit with its flush need follow: nothing is appended to the log.
                let steps = vec![
                    zeroes(start, chunk.bytes() - inside),
                    Step::Flush {
                        device: Device::Cow,
                    },
                ];
                Ok(self.write_zeros(store, Vec::new(), last + 1, steps))
            }
            Run::Unmapped { .. } if store.idle_run(last, 1) == 0 => Ok(Progress::Wait),
            Run::Unmapped { .. } if self.origin_size <= self.old_size => Ok(Progress::Done),
            Run::Unmapped { .. } => match store.prepare_run(OriginChunk(last), 1)? {
                Some(Prepared::Exception(new)) => {
                    let start = new.cow_offset;
                    let (from, to) = (Device::Origin, Device::Cow);
                    let from_offset = last << chunk.shift();
                    let steps = vec![
                        Step::Copy {
                            from,
                            from_offset,
                            to,
                            to_offset: start,
                            len: inside,
                        },
                        zeroes(start + inside, chunk.bytes() - inside),
                    ];
                    Ok(self.write_zeros(store, vec![new.id], last + 1, steps))
                }
                Some(Prepared::Reserve(plan)) => Ok(Progress::Plan(plan)),
                Some(Prepared::Wait | Prepared::Retry) => Ok(Progress::Wait),
                None => Err(store.full_error()),
            },
        }
    }

    /// Zeroed exceptions for the chunks of the origin between the old end and the new one.
    fn zero_chunks(&mut self, store: &mut Store, next: u64) -> Result<Progress> {
        let end = store
            .chunk_size()
            .count_for(self.size.min(self.origin_size));
        if next >= end {
            return Ok(Progress::Done);
        }
        if store.completed_chunks >= MAX_ZEROED
            && let Some(progress) = store.quiesce()?
        {
            return Ok(progress);
        }
        let mut taken: Vec<NewException> = Vec::new();
        let mut at = next;
        while at < end && at - next < MAX_ZEROED {
            let wanted = (end - at).min(MAX_ZEROED);
            let prepared = match store.prepare_run(OriginChunk(at), wanted) {
                Ok(prepared) => prepared,
                Err(error) if taken.is_empty() => return Err(error),
                Err(_) => break,
            };
            match prepared {
                Some(Prepared::Exception(new)) => {
                    at += new.count;
                    taken.push(new);
                }
                Some(Prepared::Reserve(plan)) if taken.is_empty() => {
                    return Ok(Progress::Plan(plan));
                }
                Some(Prepared::Reserve(_)) => {
                    // Not now: what was taken so far goes first.
                    store.drop_reserve();
                    break;
                }
                // Zeroed before space went out.
                Some(Prepared::Retry) if store.is_mapped(OriginChunk(at)) => at += 1,
                Some(Prepared::Retry) => {
                    let message = "a chunk that a resize uncovers could not be zeroed";
                    return Err(Error::new(ErrorKind::Internal, message));
                }
                Some(Prepared::Wait) if taken.is_empty() && at == next => {
                    return Ok(Progress::Wait);
                }
                None if taken.is_empty() => return Err(store.full_error()),
                Some(Prepared::Wait) | None => break,
            }
        }
        let chunk = store.chunk_size();
        let dirty = taken.iter().filter(|new| !new.reads_zero);
        let steps = dirty
            .map(|new| zeroes(new.cow_offset, new.count << chunk.shift()))
            .collect();
        let exceptions = taken.iter().map(|new| new.id).collect();
        Ok(self.write_zeros(store, exceptions, at, steps))
    }

    /// Hands the steps out that fill chunks with zeros; `next` is the chunk to go on with.
    fn write_zeros(
        &mut self,
        store: &mut Store,
        exceptions: Vec<ExceptionId>,
        next: u64,
        steps: Vec<Step>,
    ) -> Progress {
        self.phase = Phase::Zeroing {
            exceptions,
            next,
            steps: steps.clone(),
        };
        store.job_plan(Purpose::Grow, steps)
    }

    pub(crate) fn done(&mut self, store: &mut Store, plan: &Plan) -> Result<()> {
        match &mut self.phase {
            Phase::DropLeftovers(job) | Phase::DropTail(job) => job.done(store, plan),
            Phase::Descriptor(job) => {
                job.done(store);
                if !job.is_undone() {
                    store.virtual_size = self.size;
                }
                Ok(())
            }
            Phase::Zeroing {
                exceptions, next, ..
            } => {
                let next = *next;
                // One that is refused is aborted; so shall be the others.
                let mut result = Ok(());
                for id in std::mem::take(exceptions) {
                    result = result.and(store.complete_exception(id));
                    self.done += 1;
                }
                self.phase = Phase::ZeroChunks { next };
                result
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn failed(mut self, store: &mut Store, error: &Error) {
        self.abort(store);
        restore_size(store);
        if self.changes_metadata() {
            store.fail(error);
        }
    }

    /// The plan that found no space is not to count.
    pub(crate) fn undo(&mut self, store: &mut Store) {
        if let Phase::Descriptor(job) = &mut self.phase {
            job.undo();
            restore_size(store);
        }
    }

    pub(crate) fn cancelled(mut self, store: &mut Store) {
        self.abort(store);
        restore_size(store);
        if let Phase::DropLeftovers(job) | Phase::DropTail(job) = self.phase {
            job.cancelled(store);
        }
    }

    /// Gives back chunks that were being zeroed.
    fn abort(&mut self, store: &mut Store) {
        if let Phase::Zeroing { exceptions, .. } = &mut self.phase {
            for id in std::mem::take(exceptions) {
                // They are in flight: this job put them there.
                let _ = store.abort_exception(id);
            }
        }
    }
}

/// The old size, unless the plan that writes the new one is done.
fn restore_size(store: &mut Store) {
    if let Some(descriptor) = &store.descriptor {
        store.virtual_size = descriptor.virtual_size;
    }
}

fn zeroes(start: u64, len: u64) -> Step {
    Step::WriteZeroes {
        device: Device::Cow,
        range: ByteRange::new(start, len),
        unmap: true,
    }
}
