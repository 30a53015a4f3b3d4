//! Merging the top layer into its origin.

use crate::sync::Arc;
use crate::sync::atomic::Ordering;

use super::Image;
use super::handle::{Inner, JobSlot};
use super::layer::Layer;
use super::node::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{LockMode, Storage};
use crate::store::{Plan, Progress, State, Step};

/// How far a merge is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeProgress {
    /// Exceptions merged so far.
    pub done: u64,
    /// Exceptions in all.
    pub total: u64,
    /// Bytes that this merge has copied into the origin.
    pub bytes_copied: u64,
}

/// A merge in steps. Reads and writes of the image go on between and during the steps. Dropping it cancels what is left;
/// a later merge takes up from there.
#[derive(Debug)]
#[must_use = "a merge that is dropped is cancelled"]
pub struct Merge {
    job: JobSlot,
    layer: Arc<Layer>,
    progress: MergeProgress,
    finished: bool,
}

impl Image {
    /// Merges the top layer into its origin, which then reads as the image does, and the layer is empty. `progress` is called between the
    /// steps; `false` from it stops the merge, and what was merged stays merged.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`]; [`ErrorKind::InvalidArgument`] if there is no origin, or it is shorter than the image and cannot grow;
    /// [`ErrorKind::OriginMismatch`] if a raw origin has not the recorded size, unless [`OpenOptions::ignore_origin_uuid`](super::OpenOptions::ignore_origin_uuid) was set;
    /// [`ErrorKind::Busy`] if somebody else uses the origin or another job is under way; or what the files report. The pair of layer and origin
    /// shows the same content after any failure, and a later merge takes up from there.
    pub fn merge(&self, progress: &mut dyn FnMut(MergeProgress) -> bool) -> Result<()> {
        let mut merge = self.start_merge()?;
        while merge.step()? {
            if !progress(merge.progress()) {
                let message = "the merge was stopped; a later one takes up from here";
                return Err(Error::new(ErrorKind::Cancelled, message));
            }
        }
        progress(merge.progress());
        Ok(())
    }

    /// Begins a merge that the caller drives in steps.
    ///
    /// # Errors
    /// As [`Image::merge`].
    pub fn start_merge(&self) -> Result<Merge> {
        let job = self.inner.begin_writing_job()?;
        let layer = Arc::clone(self.top());
        layer.flush()?;
        layer.upgrade_origin()?;
        let merge = Merge {
            job,
            layer,
            progress: MergeProgress::default(),
            finished: false,
        };
        merge.begin()?;
        Ok(merge)
    }
}

impl Merge {
    /// Merges one bounded batch. Returns whether there is more to do.
    ///
    /// # Errors
    /// As [`Image::merge`]. After [`ErrorKind::NoSpace`] the step may be tried again.
    pub fn step(&mut self) -> Result<bool> {
        if self.finished {
            return Ok(false);
        }
        // A plan that makes the origin durable is followed by the one that clears the records: a batch is done with that.
        loop {
            let done_before = self.layer.facts().progress().0;
            let seen = self.layer.changed.generation();
            match self.layer.next_plan()? {
                Progress::Plan(plan) => self.run(plan)?,
                Progress::Wait => self.layer.changed.wait(seen),
                Progress::Done => {
                    self.layer.changed.notify();
                    self.layer.reclaim();
                    self.end()?;
                    self.finished = true;
                    return Ok(false);
                }
            }
            let (done, total) = self.layer.facts().progress();
            self.progress = MergeProgress {
                done,
                total,
                ..self.progress
            };
            if done > done_before {
                self.layer.reclaim();
                return Ok(true);
            }
        }
    }

    fn run(&mut self, plan: Plan) -> Result<()> {
        let copied: u64 = plan
            .steps()
            .iter()
            .map(|step| {
                if let Step::Copy { len, .. } = step {
                    *len
                } else {
                    0
                }
            })
            .sum();
        self.layer.run(plan)?;
        self.progress.bytes_copied += copied;
        Ok(())
    }

    /// How far it is.
    pub fn progress(&self) -> MergeProgress {
        self.progress
    }

    /// First writes go to the origin from here on, so none may be under way in between.
    fn begin(&self) -> Result<()> {
        let _closed = self.job.inner().gate.close();
        self.layer.origin_written.store(true, Ordering::Release);
        let size = self.layer.origin.end();
        let mut store = self.layer.store_mut()?;
        store
            .prepare_merge(size)
            .map_err(|error| self.layer.named(error))
    }

    /// First writes go to new exceptions again. What was written to the origin is made durable before that is locked as an origin again.
    fn end(&mut self) -> Result<()> {
        // Cancelled first: writers inside the gate may be waiting for a batch that comes to nothing.
        self.layer.cancel_job();
        self.layer.leave_origin(self.job.inner())
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        if !self.finished {
            // What could not be made durable now is tried again, and reported, at the next flush.
            let _ = self.end();
        }
    }
}

impl Layer {
    /// As [`Layer::leave_origin`], if a merge that is over left something to do.
    pub(crate) fn leave_written_origin(&self, inner: &Inner) -> Result<()> {
        match self.origin_written.load(Ordering::Acquire) {
            true => self.leave_origin(inner),
            false => Ok(()),
        }
    }

    /// Makes durable what merges wrote to the origin and locks that as an origin again, unless first writes still go there. To be called by
    /// whoever has the right to run a job.
    pub(crate) fn leave_origin(&self, inner: &Inner) -> Result<()> {
        if self.facts().is_cancelling() {
            self.flush()?;
        }
        let _closed = inner.gate.close();
        let state = self.store()?.state();
        if matches!(state, State::Merging | State::MergeFailed) {
            return Ok(());
        }
        self.flush()?;
        self.origin_written.store(false, Ordering::Release);
        self.lock_origin(LockMode::Reader)
    }

    /// Makes the origin writable, finishes what was interrupted there, and makes it long enough.
    fn upgrade_origin(&self) -> Result<()> {
        if matches!(self.origin, Node::Zeros) {
            let message = "there is no origin to merge into";
            return Err(self.named(Error::new(ErrorKind::InvalidArgument, message)));
        }
        if let Some(recorded) = self.recorded_origin_size {
            let message = format!(
                "the origin {} has {} bytes, it had {recorded} when the layer was made: merging into the wrong one destroys it",
                self.origin.name(),
                self.origin.end()
            );
            return Err(self.named(Error::new(ErrorKind::OriginMismatch, message)));
        }
        self.lock_origin(LockMode::Writer)?;
        let result = self
            .origin
            .prepare_for_merge(self.virtual_size())
            .and_then(|()| self.record_growth());
        result.inspect_err(|_| {
            // After a merge that failed the origin is still written to.
            if self.facts().state() != State::MergeFailed {
                let _ = self.lock_origin(LockMode::Reader);
            }
        })
    }

    /// Refuses to be merged into if that writes what cannot be written, and finishes what was interrupted.
    fn prepare_as_target(&self) -> Result<()> {
        let wants_repair = {
            let store = self.store()?;
            if !store.is_writable() {
                let message = "was opened read-only, and merging writes to it";
                return Err(self.named(Error::new(ErrorKind::ReadOnly, message)));
            }
            store.check_writable().map_err(|error| self.named(error))?;
            store.wants_repair()
        };
        match wants_repair {
            true => self.run_job(|store| store.prepare_repair()),
            false => Ok(()),
        }
    }

    /// An origin that was made longer shall not look like another one at the next open.
    fn record_growth(&self) -> Result<()> {
        let descriptor = self.facts().descriptor().cloned();
        let size = self.origin.end();
        match descriptor {
            // 0: nobody knows.
            Some(mut descriptor) if ![0, size].contains(&descriptor.origin_size) => {
                // A size that is recorded and not there would make it look like another one, too.
                self.origin.flush()?;
                descriptor.origin_size = size;
                self.run_job(|store| store.prepare_descriptor(Some(descriptor)))
            }
            _ => Ok(()),
        }
    }
}

impl Node {
    fn prepare_for_merge(&self, size: u64) -> Result<()> {
        // One that takes no writes any more shall not cost the layer above the right to write.
        match self {
            Node::Zeros => {}
            Node::Raw(raw) => {
                raw.check()?;
                if size > raw.size() && !raw.storage.is_growable() {
                    let message = format!(
                        "has {} bytes and cannot grow to the {size} of the layer that is to be merged",
                        raw.size()
                    );
                    let error = Error::new(ErrorKind::InvalidArgument, message);
                    return Err(error.with_path(raw.storage.name()));
                }
            }
            Node::Layer(layer) => layer.prepare_as_target()?,
        }
        if size > self.end() {
            self.set_size(size)
        } else {
            Ok(())
        }
    }
}
