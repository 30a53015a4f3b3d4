//! The toy host's power cuts, and what it finds afterwards.

use dmsnap::ByteRange;
use dmsnap::store::{Commit, Target};

use super::toy_disk::{Rng, SECTOR};
use super::toy_host::{Host, load, stamp_of};

impl Host {
    /// As if the process had ended: nothing is lost but what was never written.
    pub fn reopen(&mut self) {
        self.load_again();
    }

    pub fn crash(&mut self, rng: &mut Rng) {
        self.power_cuts += 1;
        self.cow.fuse.set(None);
        self.cow.lose_power(rng);
        self.origin.lose_power(rng);
        self.load_again();
    }

    pub fn crash_in_commit(&mut self, steps: u64, rng: &mut Rng) {
        if let Commit::Plan(mut plan) = self.store.commit_exceptions().unwrap() {
            self.run(&mut plan, steps);
        }
        self.crash(rng);
    }

    fn load_again(&mut self) {
        self.held.clear();
        self.merging = false;
        self.store = load(&self.cow, &self.origin, self.overflow);
        if let Some(resized) = self.other_size.take()
            && self.store.virtual_size() == resized.len() as u64 * SECTOR
        {
            self.model = resized;
        }
        if self.store.wants_repair() {
            self.store.prepare_repair().unwrap();
            assert!(self.drive(u64::MAX));
            assert!(!self.store.wants_repair());
        }
        let seen = self.view();
        for (index, (model, sector)) in self
            .model
            .iter_mut()
            .zip(seen.chunks(SECTOR as usize))
            .enumerate()
        {
            let stamp = stamp_of(sector);
            let allowed = &model.allowed;
            assert!(
                allowed.contains(&stamp),
                "sector {index} shows {stamp:#x}, not of {allowed:x?}"
            );
            model.now = stamp;
        }
    }

    pub fn view(&self) -> Vec<u8> {
        let mut view = Vec::new();
        let size = self.store.virtual_size();
        while (view.len() as u64) < size {
            let at = view.len() as u64;
            let extent = self.store.map(ByteRange::new(at, size - at)).unwrap();
            assert!(extent.len > 0);
            view.extend(match extent.target {
                Target::Cow { offset } => self.cow.read(offset, extent.len),
                Target::Origin => self.below(at, extent.len),
            });
        }
        view
    }

    /// Every sector shows its last write, and the figures add up.
    pub fn verify(&self) {
        let size = self.store.virtual_size();
        assert_eq!(size, self.model.len() as u64 * SECTOR);
        for (index, (model, sector)) in self
            .model
            .iter()
            .zip(self.view().chunks(SECTOR as usize))
            .enumerate()
        {
            assert_eq!(stamp_of(sector), model.now, "sector {index}");
        }
        assert!(self.cow.growable || self.store.cow_size() == self.cow.bytes.len() as u64);
    }

    /// Flush, reopen, merge to the end: the view stays, the file is as small as a new one and the origin holds all.
    pub fn finish(&mut self) {
        while !self.held.is_empty() {
            self.release(true);
        }
        if self.merging {
            self.merge(u64::MAX);
        }
        self.flush();
        self.verify();
        self.crash(&mut Rng::new(7));
        self.verify();
        self.merge(u64::MAX);
        self.trim();
        self.verify();
        let whole = self.view();
        assert_eq!(
            whole,
            self.below(0, whole.len() as u64),
            "the origin shows the disk"
        );
        let growable = self.cow.growable;
        let size = self.cow.bytes.len() as u64;
        assert!(
            !growable || size <= 2 * self.chunk,
            "{size} bytes are left after a merge"
        );
        self.crash(&mut Rng::new(8));
        self.verify();
    }
}
