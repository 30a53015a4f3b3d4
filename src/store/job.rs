//! Jobs: operations of several plans, one at a time beside ordinary I/O.

use super::descriptor_job::DescriptorJob;
use super::drop_job::DropJob;
use super::empty_job::EmptyJob;
use super::invalidate_job::InvalidateJob;
use super::merge_job::MergeJob;
use super::plan::{Plan, Purpose, Step};
use super::resize_job::ResizeJob;
use super::state::{Commit, Prepared, Progress, State};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(crate) enum Job {
    Merge(MergeJob),
    Drop(DropJob),
    Resize(ResizeJob),
    Descriptor(DescriptorJob),
    Empty(EmptyJob),
    Invalidate(InvalidateJob),
}

impl Job {
    fn next(&mut self, store: &mut Store) -> Result<Progress> {
        match self {
            Job::Merge(job) => job.next(store),
            Job::Drop(job) => job.next(store),
            Job::Resize(job) => job.next(store),
            Job::Descriptor(job) => job.next(store),
            Job::Empty(job) => job.next(store),
            Job::Invalidate(job) => job.next(store),
        }
    }

    /// The plan of the last [`Job::next`] is done.
    fn done(&mut self, store: &mut Store, plan: &Plan) -> Result<()> {
        match self {
            Job::Merge(job) => job.done(store, plan),
            Job::Drop(job) => job.done(store, plan),
            Job::Resize(job) => job.done(store, plan),
            Job::Descriptor(job) => {
                job.done(store);
                Ok(())
            }
            Job::Empty(job) => {
                job.done(store);
                Ok(())
            }
            Job::Invalidate(job) => {
                job.done(store);
                Ok(())
            }
        }
    }

    /// The plan failed for another reason than missing space. What it was about to change stays as it is.
    fn failed(self, store: &mut Store, error: &Error) {
        match self {
            Job::Merge(job) => job.failed(store, error),
            Job::Resize(job) => job.failed(store, error),
            Job::Drop(job) if !job.changes_metadata() => {}
            Job::Drop(_) | Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => {
                store.fail(error);
            }
        }
    }

    fn cancelled(self, store: &mut Store) {
        match self {
            Job::Merge(job) => job.cancelled(store),
            Job::Resize(job) => job.cancelled(store),
            Job::Drop(job) => job.cancelled(store),
            Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => {}
        }
    }

    /// What a plan has changed half-way is to be taken back, where that can be, or else to be finished.
    fn undo(&mut self, store: &mut Store) {
        match self {
            // A damaged slot is all that tells of a disk that was larger: it is replaced by the new descriptor or by none.
            Job::Descriptor(job) if store.damage.is_empty() => job.undo(),
            Job::Resize(job) => job.undo(store),
            Job::Invalidate(job) => job.undo(),
            Job::Descriptor(_) | Job::Merge(_) | Job::Drop(_) | Job::Empty(_) => {}
        }
    }

    /// The plan found no space.
    fn found_no_space(&mut self, store: &mut Store) {
        if let Job::Merge(job) = self {
            job.found_no_space(store);
        }
    }

    /// Whether first writes wait for the end of the job.
    fn holds_first_writes(&self) -> bool {
        matches!(self, Job::Empty(job) if job.holds_first_writes())
    }

    /// Whether the job goes together with a merge that failed, after which first writes go to the origin.
    fn suits_failed_merge(&self) -> bool {
        matches!(self, Job::Merge(_) | Job::Drop(_) | Job::Invalidate(_))
    }

    /// Whether a plan of the present phase, once tried, leaves it unknown what the metadata on disk says until it has succeeded.
    fn changes_metadata(&self) -> bool {
        match self {
            Job::Merge(job) => job.changes_metadata(),
            Job::Resize(job) => job.changes_metadata(),
            Job::Drop(job) => job.changes_metadata(),
            Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => true,
        }
    }

    /// Whether the log must not grow at the moment.
    fn edits_log(&self) -> bool {
        match self {
            Job::Merge(job) => job.edits_log(),
            Job::Drop(job) => job.edits_log(),
            Job::Resize(job) => job.edits_log(),
            Job::Empty(job) => job.edits_log(),
            Job::Descriptor(_) | Job::Invalidate(_) => false,
        }
    }

    fn progress(&self) -> (u64, u64) {
        match self {
            Job::Merge(job) => job.progress(),
            Job::Drop(job) => job.progress(),
            Job::Resize(job) => job.progress(),
            Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => (0, 1),
        }
    }
}

impl Store {
    /// The next plan of the job that was prepared. After `Done` the job is over.
    ///
    /// # Errors
    /// Whatever keeps the job from going on; the job then waits for another call or for [`Store::cancel`].
    pub fn next_plan(&mut self) -> Result<Progress> {
        if self.job_plan.is_some() {
            return Ok(Progress::Wait);
        }
        // What a flush elsewhere lost may be what the next plan builds on.
        if self.job.is_some() && self.state == State::Failed {
            self.check_writable()?;
        }
        if let Some(mut job) = self.job.take() {
            let progress = job.next(self);
            if !matches!(progress, Ok(Progress::Done)) {
                self.job = Some(job);
                return progress;
            }
        }
        Ok(if self.settle() {
            Progress::Done
        } else {
            Progress::Wait
        })
    }

    /// Ends the job where it stands; what it has made durable stays. Between two plans only. Before the host lets go of an origin that was
    /// merged into, [`Store::next_plan`] must have returned `Done`: writes may still be on their way there.
    ///
    /// A plan that was changing metadata when space ran out may have changed it in part. It is tried again by the next commit, or one that
    /// brings the old descriptor back, and the job is over once that has succeeded: see [`Store::is_cancelling`].
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while a plan of the job is outstanding.
    pub fn cancel(&mut self) -> Result<()> {
        if self.job_plan.is_some() {
            return Err(Error::new(
                ErrorKind::Busy,
                "a plan of the job is outstanding",
            ));
        }
        if self.job_unsure && !matches!(self.state, State::Failed | State::Invalid) {
            self.cancel_due = true;
            if let Some(mut job) = self.job.take() {
                job.undo(self);
                self.job = Some(job);
            }
        } else {
            self.end_job();
        }
        Ok(())
    }

    fn end_job(&mut self) {
        (self.cancel_due, self.job_unsure) = (false, false);
        if let Some(job) = self.job.take() {
            job.cancelled(self);
        }
    }

    /// Whether a plan of the job under way found no space half-way through a change of the metadata, and has not been tried again yet.
    pub fn is_out_of_space(&self) -> bool {
        self.job_unsure && self.job_plan.is_none()
    }

    /// Whether what has an exception must not be written: an emptying that was given up has to be finished, and what it drops would be lost.
    #[inline]
    pub(crate) fn may_be_empty(&self) -> bool {
        self.cancel_due && matches!(self.job, Some(Job::Empty(_)))
    }

    /// Whether a job was cancelled of which a plan found no space half-way, so that another one has to succeed first.
    /// [`Store::commit_exceptions`] gives it out; other jobs have to wait for it, and so do writes to what it is about.
    pub fn is_cancelling(&self) -> bool {
        self.cancel_due
    }

    /// How far the job has come and how far it has to go, in exceptions.
    pub fn progress(&self) -> (u64, u64) {
        self.job.as_ref().map_or((0, 0), Job::progress)
    }

    pub(crate) fn begin_job(&mut self, job: Job) -> Result<()> {
        self.check_writable()?;
        if self.state == State::MergeFailed && !job.suits_failed_merge() {
            let message = "an earlier merge failed: merge again first, or load the store again";
            return Err(Error::new(ErrorKind::MergeFailed, message));
        }
        self.end_idle_repair()?;
        if self.job.is_some() {
            let message = match self.cancel_due {
                true => "a job that ran out of space half-way has to be ended first, by a commit",
                false => "a merge, a resize or another job is under way on this image",
            };
            return Err(Error::new(ErrorKind::Busy, message));
        }
        self.repairs_for_writes = false;
        self.job = Some(job);
        Ok(())
    }

    /// Ends a repair that first writes began and that nobody drives at the moment: what needs one begins with it.
    fn end_idle_repair(&mut self) -> Result<()> {
        if self.repairs_for_writes && self.job_plan.is_none() && !self.job_unsure {
            self.cancel()?;
        }
        Ok(())
    }

    /// Whether a job keeps the log from growing.
    pub(crate) fn log_is_held(&mut self) -> Result<bool> {
        self.end_idle_repair()?;
        Ok(self.job.as_ref().is_some_and(Job::edits_log))
    }

    /// What has to be done before a first write. Records that stand twice make the log longer than the chunks in use are many, so that
    /// areas at its end could be taken for free ones: they are removed first. `None` if there is nothing to do or to wait for.
    pub(crate) fn before_first_write(&mut self) -> Result<Option<Prepared>> {
        if self.job.as_ref().is_some_and(Job::holds_first_writes) {
            return match self.cancel_due {
                true => self.next_before_first_write(),
                false => Ok(Some(Prepared::Wait)),
            };
        }
        if self.repeated == 0 {
            return Ok(None);
        }
        if self.job.is_none() {
            self.prepare_repair()?;
            self.repairs_for_writes = true;
        }
        if !self.repairs_for_writes {
            return Ok(Some(Prepared::Wait));
        }
        self.next_before_first_write()
    }

    fn next_before_first_write(&mut self) -> Result<Option<Prepared>> {
        Ok(match self.next_plan()? {
            Progress::Plan(plan) => Some(Prepared::Reserve(plan)),
            Progress::Wait => Some(Prepared::Wait),
            Progress::Done => None,
        })
    }

    /// Hands a plan of the job to the host.
    pub(crate) fn job_plan(&mut self, purpose: Purpose, steps: Vec<Step>) -> Progress {
        let plan = self.plan(purpose, steps);
        self.job_plan = Some(plan.id);
        Progress::Plan(plan)
    }

    pub(crate) fn finish_job_plan(&mut self, plan: &Plan, outcome: Result<()>) -> Result<()> {
        if self.job_plan != Some(plan.id) {
            let message = "this plan is not outstanding";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.job_plan = None;
        let Some(mut job) = self.job.take() else {
            return outcome;
        };
        match outcome {
            Ok(()) => {
                self.job_unsure = false;
                let result = job.done(self, plan);
                self.job = Some(job);
                if self.cancel_due {
                    self.end_job();
                }
                result
            }
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.job_unsure = job.changes_metadata();
                // Nobody drives that one.
                self.cancel_due |= self.repairs_for_writes && self.job_unsure;
                job.found_no_space(self);
                self.job = Some(job);
                Err(error)
            }
            Err(error) => {
                (self.cancel_due, self.job_unsure) = (false, false);
                job.failed(self, &error);
                // Nobody knows what of the earlier writes is durable, and the next flush that succeeds would not tell.
                let flushes = |step: &Step| matches!(step, Step::Flush { .. });
                if plan.steps().iter().any(flushes) {
                    self.fail(&error);
                }
                Err(error)
            }
        }
    }

    /// What must happen before the log can be edited: everything completed is committed, nothing stale is left.
    /// `None` when that is so.
    pub(crate) fn quiesce(&mut self) -> Result<Option<Progress>> {
        if self.commit.is_none() && self.completed.is_empty() && !self.log.is_stale() {
            return Ok(None);
        }
        if self.commit.is_none() && self.state != State::Failed {
            return Ok(Some(Progress::Plan(self.begin_commit()?)));
        }
        Ok(Some(match self.commit_exceptions()? {
            Commit::Plan(plan) => Progress::Plan(plan),
            Commit::Wait | Commit::Clean => Progress::Wait,
        }))
    }
}
