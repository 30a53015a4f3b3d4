//! The toy host's jobs: merge, resize, make empty, and what becomes of them when they fail, are stopped, or meet first writes.

use dmsnap::store::{Plan, Progress, State, Step, Store};
use dmsnap::{Error, ErrorKind};

use super::toy_disk::{Change, SECTOR};
use super::toy_host::{Host, SectorModel, load, stamp_of};

/// How far a job came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Done,
    /// So many plans as were asked for are done.
    Stopped,
    /// On a device of fixed size.
    NoSpace,
}

impl Host {
    pub fn drive(&mut self, mut most: u64) -> bool {
        while most > 0 {
            match self.store.next_plan().unwrap() {
                Progress::Plan(plan) => self.finish_plan(plan),
                Progress::Wait if self.held.is_empty() => panic!("nothing to wait for"),
                Progress::Wait => return false,
                Progress::Done => return true,
            }
            most -= 1;
        }
        false
    }

    pub fn merge(&mut self, plans: u64) {
        self.begin_merge();
        if self.drive(plans) {
            self.merging = false;
            assert_eq!(self.store.exceptions(), 0);
            assert_eq!(self.store.state(), State::Active);
        }
    }

    fn begin_merge(&mut self) {
        if !self.merging {
            let size = self.store.virtual_size();
            if (self.origin.bytes.len() as u64) < size {
                self.origin.change(Change::SetSize(size));
            }
            self.store
                .prepare_merge(self.origin.bytes.len() as u64)
                .unwrap();
            self.merging = true;
        }
    }

    /// Runs a merge up to the plan with this number, which fails.
    pub fn fail_merge(&mut self, plans: u64) {
        self.begin_merge();
        if self.drive(plans) {
            self.merging = false;
            return;
        }
        match self.store.next_plan().unwrap() {
            Progress::Plan(plan) => self.fail_plan(plan),
            Progress::Wait => return,
            Progress::Done => {
                self.merging = false;
                return;
            }
        }
        match self.store.state() {
            // Nobody knows what is on disk.
            State::Failed => self.reopen(),
            State::MergeFailed => {
                self.merging = false;
                self.refuse_changes();
            }
            other => panic!("{other:?} after a plan that failed"),
        }
    }

    /// Runs no step of a plan and reports an error.
    fn fail_plan(&mut self, plan: Plan) {
        let flushes = |step: &Step| matches!(step, Step::Flush { .. });
        let flushes = plan.steps().iter().any(flushes);
        let error = Error::new(ErrorKind::Io, "test");
        let error = self.store.finish_plan(plan, Err(error)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(flushes, self.store.state() == State::Failed);
    }

    /// First writes go to the origin after a merge that failed; what relies on the store alone has to wait.
    fn refuse_changes(&mut self) {
        let size = self.store.virtual_size();
        let descriptor = self.store.descriptor().cloned();
        let mut refused = vec![self.store.make_empty()];
        if self.described {
            refused.push(self.store.prepare_resize(size + SECTOR, u64::MAX / 2));
            refused.push(self.store.prepare_descriptor(descriptor));
        }
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::MergeFailed);
        }
    }

    fn needs_merge(&self) -> bool {
        self.merging || self.store.state() == State::MergeFailed
    }

    /// Runs the job that was prepared to its end.
    pub fn merge_on(&mut self) {
        assert!(self.drive(u64::MAX));
        self.merging = false;
    }

    /// What another process would load now.
    pub fn load(&self) -> Store {
        load(&self.cow, &self.origin, self.overflow)
    }

    pub fn cancel_merge(&mut self) {
        self.store.cancel().unwrap();
        self.merging = false;
    }

    /// What the disk shows if its size becomes `sectors`.
    fn resized(&self, sectors: u64) -> Vec<SectorModel> {
        let mut resized = self.model.clone();
        let zero = SectorModel {
            now: 0,
            allowed: vec![0],
        };
        resized.resize(sectors as usize, zero);
        resized
    }

    fn begin_resize(&mut self, sectors: u64) -> bool {
        if !self.described || self.needs_merge() || !self.held.is_empty() {
            return false;
        }
        let origin_size = self.origin.bytes.len() as u64;
        self.store
            .prepare_resize(sectors * SECTOR, origin_size)
            .unwrap();
        true
    }

    pub fn resize(&mut self, sectors: u64, plans: u64) {
        self.resize_in_need(sectors, plans, u64::MAX);
    }

    /// A resize of which one plan, counted from 0, finds no space the first time.
    pub fn resize_in_need(&mut self, sectors: u64, plans: u64, short: u64) {
        let resized = self.resized(sectors);
        if !self.begin_resize(sectors) {
            return;
        }
        match self.try_drive(plans, short) {
            Ended::Done if !self.has_power() => self.other_size = Some(resized),
            Ended::Done => {
                self.model = resized;
                assert_eq!(self.store.virtual_size(), sectors * SECTOR);
            }
            Ended::Stopped => self.other_size = Some(resized),
            Ended::NoSpace => {
                // No room for zeros: the size stays.
                assert!(!self.cow.growable);
                self.store.cancel().unwrap();
                assert_eq!(self.store.virtual_size(), self.model.len() as u64 * SECTOR);
            }
        }
    }

    /// A resize that is given up between two plans. The handle goes on, with the old size or the new one.
    pub fn stop_resize(&mut self, sectors: u64, plans: u64) {
        let resized = self.resized(sectors);
        if !self.begin_resize(sectors) {
            return;
        }
        self.try_drive(plans, u64::MAX);
        self.store.cancel().unwrap();
        if !self.has_power() {
            self.other_size = Some(resized);
            return;
        }
        assert_eq!(self.store.state(), State::Active);
        if self.store.virtual_size() == sectors * SECTOR {
            self.model = resized;
        }
    }

    fn try_drive(&mut self, most: u64, short: u64) -> Ended {
        let mut short = Some(short);
        for number in 0..most {
            match self.store.next_plan() {
                Ok(Progress::Plan(plan)) if short == Some(number) => {
                    short = None;
                    self.run_short(plan);
                }
                Ok(Progress::Plan(plan)) => self.finish_plan(plan),
                Ok(Progress::Wait) => panic!("nothing to wait for"),
                Ok(Progress::Done) => return Ended::Done,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace);
                    return Ended::NoSpace;
                }
            }
        }
        Ended::Stopped
    }

    /// Runs the first step of a plan, then there is no space.
    fn run_short(&mut self, mut plan: Plan) {
        self.run(&mut plan, 1);
        let reserve = matches!(plan.purpose(), dmsnap::store::Purpose::Reserve);
        let error = Error::new(ErrorKind::NoSpace, "test");
        let result = self.store.finish_plan(plan, Err(error));
        // A reservation is tried again for less before that counts as an error.
        assert!(reserve || result.unwrap_err().kind() == ErrorKind::NoSpace);
    }

    /// Empties the layer; a write of a range is tried beside each plan, and counts as one from before.
    pub fn make_empty(&mut self, at: u64, len: u64) {
        if self.needs_merge() {
            return;
        }
        // What will show through is durable first; a merge that was stopped may have copied there.
        self.origin.flush();
        self.store.make_empty().unwrap();
        let held = !self.held.is_empty();
        loop {
            match self.store.next_plan().unwrap() {
                Progress::Plan(plan) => {
                    self.write(at, len);
                    self.finish_plan(plan);
                }
                Progress::Wait => {
                    assert!(!self.held.is_empty(), "nothing to wait for");
                    self.write(at, len);
                    self.release(at.is_multiple_of(2));
                }
                Progress::Done => break,
            }
        }
        assert!(held || self.store.pending() == 0);
        assert_eq!(self.store.exceptions(), 0);
        let origin = self.below(0, self.model.len() as u64 * SECTOR);
        for (model, sector) in self.model.iter_mut().zip(origin.chunks(SECTOR as usize)) {
            model.now = stamp_of(sector);
            model.allowed.push(model.now);
        }
        self.origin.flush();
        self.flushed();
    }

    /// Gives back the space of what was freed.
    pub fn reclaim(&mut self) {
        while let Some(plan) = self.store.reclaim() {
            self.finish_plan(plan);
        }
    }

    /// Gives back what was reserved, too.
    pub fn trim(&mut self) {
        self.reclaim();
        while let Some(plan) = self.store.trim() {
            self.finish_plan(plan);
        }
    }
}
