//! Making completed exceptions durable, and taking plans back.

use super::alloc::Reclaim;
use super::log::Log;
use super::plan::{Device, Plan, Purpose, Step};
use super::state::{Commit, Progress, State};
use super::store::{RunInFlight, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Exception;
use crate::units::{CowChunk, OriginChunk};

/// Exceptions that may wait for a commit before the host is asked to make one.
pub(crate) const MAX_PENDING: u64 = 1 << 18;

/// The one commit that may be outstanding. It is kept until it succeeded, so that it can run again as it is.
#[derive(Debug)]
pub(crate) struct PendingCommit {
    id: u64,
    steps: Vec<Step>,
    after: Log,
    count: u64,
    /// Whether the host has the plan at the moment.
    running: bool,
}

impl PendingCommit {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

impl Store {
    /// What has to be written so that every exception completed by now survives a crash (the kernel's `commit_exception`, for many at
    /// once). Exceptions in flight are not waited for.
    ///
    /// The plan flushes the data, writes areas that the log will reach before the one that makes it reach them, and flushes again.
    ///
    /// # Errors
    /// [`ErrorKind::PreviousIo`] after a failed commit or flush, [`ErrorKind::NoSpace`] if the areas would lie past the longest file.
    pub fn commit_exceptions(&mut self) -> Result<Commit> {
        if self.state == State::Failed {
            self.check_writable()?;
        }
        if self.cancel_due {
            match self.next_plan()? {
                Progress::Plan(plan) => return Ok(Commit::Plan(plan)),
                Progress::Wait => return Ok(Commit::Wait),
                Progress::Done => {}
            }
        }
        if let Some(pending) = &mut self.commit {
            if pending.running {
                return Ok(Commit::Wait);
            }
            pending.running = true;
            let steps = pending.steps.clone();
            let plan = self.plan(Purpose::Commit, steps);
            if let Some(pending) = &mut self.commit {
                pending.id = plan.id;
            }
            return Ok(Commit::Plan(plan));
        }
        if self.completed.is_empty() {
            return Ok(Commit::Clean);
        }
        if self.state == State::Invalid {
            return Err(self.invalid_error());
        }
        if self.log_is_held()? {
            return Ok(Commit::Wait);
        }
        self.begin_commit().map(Commit::Plan)
    }

    /// A plan for what is completed, or, if nothing is, for clearing what lies behind the terminator.
    pub(crate) fn begin_commit(&mut self) -> Result<Plan> {
        let mut runs = self.completed.clone();
        runs.sort_unstable_by_key(|run| run.new);
        let records: Vec<Exception> = runs.iter().flat_map(records_of).collect();
        let mut steps = self.log.clear_stale_steps()?;
        let append = self.log.append(&records)?;
        steps.extend(append.unreachable);
        steps.push(Step::Flush {
            device: Device::Cow,
        });
        steps.extend(append.current);
        steps.push(Step::Flush {
            device: Device::Cow,
        });
        let plan = self.plan(Purpose::Commit, steps.clone());
        let mut after = append.after;
        after.stale_cleared();
        let count = records.len() as u64;
        self.commit = Some(PendingCommit {
            id: plan.id,
            steps,
            after,
            count,
            running: true,
        });
        self.completed = Vec::new();
        self.completed_chunks = 0;
        Ok(plan)
    }

    /// Takes a plan back with its outcome and passes the error on.
    ///
    /// [`ErrorKind::NoSpace`] leaves everything as it was: the same plan is handed out again on request, and a reservation that found no room
    /// is no error before a small one found none either. Any other error of a plan that
    /// writes metadata or flushes makes the store read-only until it is opened again.
    ///
    /// # Errors
    /// The outcome's own, or [`ErrorKind::InvalidArgument`] if the plan is not one that is outstanding.
    pub fn finish_plan(&mut self, plan: Plan, outcome: Result<()>) -> Result<()> {
        let id = plan.id;
        if self
            .reserve
            .as_ref()
            .is_some_and(|(reserve, _)| *reserve == id)
        {
            return self.finish_reserve(outcome);
        }
        if self
            .commit
            .as_ref()
            .is_some_and(|commit| commit.id == id && commit.running)
        {
            return self.finish_commit(outcome);
        }
        if self
            .reclaim
            .as_ref()
            .is_some_and(|(reclaim, _)| *reclaim == id)
        {
            return self.finish_reclaim(outcome);
        }
        if plan.purpose() == Purpose::Invalidate && self.state == State::Invalid {
            return outcome.inspect(|()| self.header.valid = 0);
        }
        self.finish_job_plan(&plan, outcome)
    }

    fn finish_reserve(&mut self, outcome: Result<()>) -> Result<()> {
        let Some((_, reservation)) = self.reserve.take() else {
            return outcome;
        };
        if outcome.is_ok() {
            self.alloc.reserved(&reservation);
            if !reservation.areas.is_empty() {
                self.log.add_zeroed(reservation.areas.clone());
                if let Some(commit) = &mut self.commit {
                    commit.after.add_zeroed(reservation.areas);
                }
            }
        }
        match outcome {
            // The host asks again, and for less.
            Err(error) if error.kind() == ErrorKind::NoSpace && self.alloc.could_not_reserve() => {
                Ok(())
            }
            other => other,
        }
    }

    fn finish_commit(&mut self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                if let Some(commit) = self.commit.take() {
                    self.log = commit.after;
                    let ends = commit.steps.iter().filter_map(Step::cow_end);
                    self.alloc.written_to(ends.max().unwrap_or(0));
                }
                Ok(())
            }
            Err(error) => {
                if let Some(commit) = &mut self.commit {
                    commit.running = false;
                }
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Tells that a flush which the host made by itself failed. Unless space was missing, nothing can be taken for durable any more.
    pub fn fail(&mut self, error: &Error) {
        if error.kind() != ErrorKind::NoSpace && self.state != State::Invalid {
            self.state = State::Failed;
        }
    }

    /// Steps that give back the space of chunks that were freed and that nothing uses. `None` if there are none at the moment. What was
    /// reserved for first writes to come is kept.
    pub fn reclaim(&mut self) -> Option<Plan> {
        self.release_unpinned();
        if self.reserve.is_some() || self.reclaim.is_some() || self.state == State::Failed {
            return None;
        }
        let reclaim = match self.cut(true) {
            Some(cut) => cut,
            None if self.alloc.has_reclaimable() => self.alloc.reclaim(),
            None => return None,
        };
        Some(self.reclaim_plan(reclaim))
    }

    /// Steps that cut the file behind the last chunk in use and the next metadata area, so that reserved space is given up too. `None` if
    /// there is nothing to cut at the moment. For closing, after [`Store::reclaim`] had nothing more to do.
    pub fn trim(&mut self) -> Option<Plan> {
        self.release_unpinned();
        if self.reserve.is_some() || self.reclaim.is_some() || self.state == State::Failed {
            return None;
        }
        let cut = self.cut(false)?;
        Some(self.reclaim_plan(cut))
    }

    fn reclaim_plan(&mut self, reclaim: Reclaim) -> Plan {
        let plan = self.plan(Purpose::Reclaim, reclaim.steps.clone());
        self.reclaim = Some((plan.id, reclaim));
        plan
    }

    fn cut(&mut self, keep_slab: bool) -> Option<Reclaim> {
        let records = self.log.len() + self.pending() + self.in_flight_chunks;
        let (area, _) = self.geometry.area_and_slot(records);
        let chunk = self.geometry.area_chunk(area)?;
        self.alloc.cut(chunk.0 + 1, keep_slab)
    }

    fn finish_reclaim(&mut self, outcome: Result<()>) -> Result<()> {
        if let Some((_, reclaim)) = self.reclaim.take() {
            if let Some(size) = reclaim.cut_to() {
                let chunks = self.chunk_size().count_for(size);
                let areas = chunks.saturating_sub(1).div_ceil(self.geometry.stride());
                self.log.forget_areas_from(areas);
                if let Some(commit) = &mut self.commit {
                    commit.after.forget_areas_from(areas);
                }
            }
            self.alloc.reclaimed(&reclaim, outcome.is_ok());
        }
        outcome
    }
}

fn records_of(run: &RunInFlight) -> impl Iterator<Item = Exception> + use<> {
    let first = Exception {
        old: OriginChunk(run.old),
        new: CowChunk(run.new),
    };
    first.run(run.count)
}
