//! Merges in a sequence: to the end, and interrupted.

use dmsnap::ByteRange;
use dmsnap::store::OverflowMode;

use super::run::{Run, indices, whole_sectors};
use super::theirs::Expected;
use crate::library::assert_same;
use crate::pattern;
use crate::reference::Reference;

const SECTOR: u64 = pattern::SECTOR as u64;

impl Run<'_> {
    /// Both merge all of it.
    pub(super) fn merge(&mut self) {
        self.log.push("merge".into());
        self.operations += 1;
        self.alike = false;
        let chunk = self.shape.chunk;
        let status = self.theirs.merge(None);
        assert_eq!(status, format!("{0}/{1} {0}", 2 * chunk, self.shape.cow));
        assert_same(&self.theirs.view("m"), &self.view, "the kernel's merge");
        self.theirs.leave_merge(None);
        self.ours.load(OverflowMode::PersistentOverflow);
        self.ours.image().merge(&mut |_| true).unwrap();
        assert_eq!(self.ours.status(), status, "status after our merge");
        self.ours.unload();
        self.origin = self.view.clone();
        self.compare_devices();
    }

    /// One side begins, and the other one goes on from there.
    pub(super) fn interrupted_merge(&mut self) {
        let store = Reference::load(&self.ours.cow()).unwrap();
        if store.records.is_empty() {
            return;
        }
        self.operations += 1;
        self.alike = false;
        let by_kernel = self.random.chance(60);
        if by_kernel {
            self.merge_of_theirs_fails(&store);
            self.origin = self.theirs.origin();
        } else {
            self.merge_of_ours_fails(&store);
            self.origin = self.ours.origin();
        }
        self.hand_over(!by_kernel);
    }

    /// The origin cannot be written in one sector: what has to be left is known to the record.
    fn merge_of_theirs_fails(&mut self, store: &Reference) {
        let count = store.records.len() as u64;
        let (old, _) = store.records[self.random.below(count) as usize];
        let (start, chunk) = (old * self.shape.chunk, self.shape.chunk);
        let bad = start + self.random.below(chunk.min(self.shape.origin - start));
        self.log
            .push(format!("merge of the kernel's, sector {bad} is bad"));
        let left = left_by_kernel(store, old);
        assert_eq!(self.theirs.merge(Some(bad)), "Merge failed");
        assert_same(
            &self.theirs.view("m"),
            &self.view,
            "the kernel's merge that failed",
        );
        for _ in 0..self.random.below(3) {
            self.write_while_merging();
        }
        assert_same(
            &self.theirs.view("m"),
            &self.view,
            "written after the merge had failed",
        );
        self.theirs.leave_merge(Some(bad));
        let records = Reference::load(&self.theirs.cow()).unwrap().records;
        assert_eq!(records, store.records[..left], "left by the kernel");
    }

    /// In place where there is an exception, to the origin elsewhere: never a new exception.
    fn write_while_merging(&mut self) {
        let sectors = 1 + self.random.below(self.shape.origin.min(20));
        let sector = self.random.below(self.shape.origin - sectors + 1);
        self.log
            .push(format!("write {sectors} sectors at {sector} while merging"));
        let range = ByteRange::new(sector * SECTOR, sectors * SECTOR);
        let bytes = pattern::sectors(0x3e6e, self.random.below(1 << 20), sectors);
        let (sector, content) = whole_sectors(&self.view, range, &bytes);
        self.theirs.write("m", sector, &content, Expected::Works);
        self.view[indices(range)].copy_from_slice(&bytes);
    }

    fn merge_of_ours_fails(&mut self, store: &Reference) {
        let (in_origin, nth) = (self.random.chance(50), 1 + self.random.below(12));
        self.log.push(format!(
            "merge of ours, call {nth} fails, of the origin: {in_origin}"
        ));
        self.ours.merge_until_fault(in_origin, nth);
        let records = Reference::load(&self.ours.cow()).unwrap().records;
        let kept = store.records.get(..records.len());
        assert_eq!(kept, Some(&records[..]), "left by us");
    }
}

/// How many records are left when the run of `bad` cannot be merged: runs go from the end of an area backwards, by one chunk in both
/// numbers.
fn left_by_kernel(store: &Reference, bad: u64) -> usize {
    let (records, per_area) = (&store.records, store.per_area() as usize);
    let mut left = records.len();
    while left > 0 {
        let area = (left - 1) / per_area * per_area;
        let follows = |at: &usize| {
            let (before, after) = (records[at - 1], records[*at]);
            before.0 + 1 == after.0 && before.1 + 1 == after.1
        };
        let first = (area + 1..left).rev().take_while(follows).last();
        let run = first.map_or(left - 1, |at| at - 1);
        if records[run..left].iter().any(|record| record.0 == bad) {
            break;
        }
        left = run;
    }
    left
}
