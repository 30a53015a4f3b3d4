//! Jobs: operations of several plans, one at a time beside ordinary I/O.

use super::descriptor_job::DescriptorJob;
use super::drop_job::DropJob;
use super::empty_job::EmptyJob;
use super::invalidate_job::InvalidateJob;
use super::merge_job::MergeJob;
use super::plan::{Plan, Purpose, Step};
use super::resize_job::ResizeJob;
use super::state::{Commit, Progress, State};
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
            Job::Drop(_) | Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => {
                store.fail(error);
            }
        }
    }

    fn cancelled(self, store: &mut Store) {
        match self {
            Job::Merge(job) => job.cancelled(store),
            Job::Resize(job) => job.cancelled(store),
            Job::Drop(_) | Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => {}
        }
    }

    /// Whether a plan of the present phase, once tried, leaves it unknown what the metadata on disk says until it has succeeded.
    fn changes_metadata(&self) -> bool {
        match self {
            Job::Merge(job) => job.changes_metadata(),
            Job::Resize(job) => job.changes_metadata(),
            Job::Drop(_) | Job::Descriptor(_) | Job::Empty(_) | Job::Invalidate(_) => true,
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
    /// # Errors
    /// [`ErrorKind::Busy`] while a plan of the job is outstanding.
    pub fn cancel(&mut self) -> Result<()> {
        if self.job_plan.is_some() {
            return Err(Error::new(
                ErrorKind::Busy,
                "a plan of the job is outstanding",
            ));
        }
        if let Some(job) = self.job.take() {
            job.cancelled(self);
            if std::mem::take(&mut self.job_unsure) && self.state != State::Invalid {
                self.state = State::Failed;
            }
        }
        Ok(())
    }

    /// How far the job has come and how far it has to go, in exceptions.
    pub fn progress(&self) -> (u64, u64) {
        self.job.as_ref().map_or((0, 0), Job::progress)
    }

    pub(crate) fn begin_job(&mut self, job: Job) -> Result<()> {
        self.check_writable()?;
        if self.job.is_some() {
            let message = "a merge, a resize or another job is under way on this image";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        self.job = Some(job);
        Ok(())
    }

    pub(crate) fn job_edits_log(&self) -> bool {
        self.job.as_ref().is_some_and(Job::edits_log)
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
                result
            }
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.job_unsure = job.changes_metadata();
                self.job = Some(job);
                Err(error)
            }
            Err(error) => {
                self.job_unsure = false;
                job.failed(self, &error);
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
