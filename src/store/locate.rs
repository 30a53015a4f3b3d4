//! Where records stand that contradict each other: a second reading of the log, for those who have to tell somebody.

use std::collections::BTreeMap;

use super::areas::{AreaReader, Scan};
use super::plan::Step;
use super::records::Closed;
use crate::error::Result;
use crate::units::{ByteRange, CowChunk, OriginChunk};

/// Looks for some records in the log.
pub(crate) struct Locator {
    scan: Scan,
    areas: AreaReader,
    /// The records, old chunk first, and the slots that hold them.
    slots: BTreeMap<(u64, u64), Vec<u64>>,
}

impl Locator {
    /// For the records that are too many in a log, at most so many of each kind. `None` if there are none.
    pub(crate) fn new(scan: Scan, closed: &Closed, most: usize) -> Option<Locator> {
        let report = &closed.report;
        let conflicts = report.conflicts.listed.iter().take(most);
        let shared = report.shared.listed.iter().take(most);
        let identical = report.identical.listed.iter().take(most);
        let records = conflicts
            .map(|conflict| (conflict.old.0, conflict.ignored.0))
            .chain(shared.map(|shared| (shared.olds[1].0, shared.new.0)))
            .chain(identical.map(|repeated| (repeated.old.0, repeated.new.0)));
        let slots: BTreeMap<_, _> = records.map(|record| (record, Vec::new())).collect();
        let areas = AreaReader::new(scan, false);
        (!slots.is_empty()).then_some(Locator { scan, areas, slots })
    }

    /// The next reads, or `None` at the end.
    pub(crate) fn next_steps(&mut self) -> Option<Vec<Step>> {
        // What cannot be read again is not located.
        self.areas.next_steps().ok().flatten()
    }

    pub(crate) fn feed(&mut self, reads: &[(ByteRange, &[u8])]) -> Result<()> {
        let slots = &mut self.slots;
        self.areas.feed(reads, &mut |slot, first, len| {
            let end = first.old.0.saturating_add(len);
            for (&(old, new), found) in slots.range_mut((first.old.0, 0)..(end, 0)) {
                let index = old - first.old.0;
                if new == first.new.0 + index {
                    found.push(slot + index);
                }
            }
            Ok(())
        })
    }

    /// Byte of the last slot that holds this record.
    pub(crate) fn offset(&self, old: OriginChunk, new: CowChunk) -> Option<u64> {
        let slot = self.slots.get(&(old.0, new.0))?.last()?;
        self.scan.geometry.slot_offset(*slot)
    }
}
