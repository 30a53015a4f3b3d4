//! Where records stand that contradict each other: a second reading of the log, for those who have to tell somebody.

use std::collections::BTreeMap;

use super::areas::{AreaReader, Scan};
use super::plan::Step;
use super::records::{Closed, Records};
use crate::error::Result;
use crate::format::Exception;
use crate::units::ByteRange;

/// What comes once all records are read: they are put together, and some of them are looked for in the log.
#[derive(Default)]
pub(crate) struct SecondLook {
    closed: Option<Closed>,
    locator: Option<Locator>,
}

impl SecondLook {
    /// Whether the records are put together.
    pub(crate) fn has_begun(&self) -> bool {
        self.closed.is_some()
    }

    /// The next reads, or `None` at the end. The first call takes the records; `wanted` says which of them are looked for.
    pub(crate) fn next_steps(
        &mut self,
        records: &mut Records,
        wanted: impl FnOnce(&Closed) -> Vec<Exception>,
    ) -> Result<Option<Vec<Step>>> {
        if self.closed.is_none() {
            let records = std::mem::take(records);
            let Some(scan) = records.scan() else {
                return Ok(None);
            };
            let closed = records.close()?;
            self.locator = Locator::new(scan, &wanted(&closed));
            self.closed = Some(closed);
        }
        Ok(self.locator.as_mut().and_then(Locator::next_steps))
    }

    /// Takes in what was read. `false` if nothing is looked for, so that it was not for here.
    pub(crate) fn feed(&mut self, reads: &[(ByteRange, &[u8])]) -> Result<bool> {
        match &mut self.locator {
            Some(locator) => locator.feed(reads).map(|()| true),
            None => Ok(false),
        }
    }

    /// Byte of the last slot that holds this record, if it was looked for.
    pub(crate) fn offset(&self, record: &Exception) -> Option<u64> {
        self.locator.as_ref()?.offset(record)
    }

    /// The records put together, by now at the latest.
    pub(crate) fn take_closed(&mut self, records: Records) -> Result<Closed> {
        self.closed.take().map_or_else(|| records.close(), Ok)
    }
}

/// Looks for some records in the log.
struct Locator {
    scan: Scan,
    areas: AreaReader,
    /// The records, old chunk first, and the last slot that holds each.
    slots: BTreeMap<(u64, u64), Option<u64>>,
}

impl Locator {
    /// `None` if there is nothing to look for.
    fn new(scan: Scan, wanted: &[Exception]) -> Option<Locator> {
        let records = wanted.iter().map(|record| (key(record), None));
        let slots: BTreeMap<_, _> = records.collect();
        let areas = AreaReader::new(scan, false);
        (!slots.is_empty()).then_some(Locator { scan, areas, slots })
    }

    fn next_steps(&mut self) -> Option<Vec<Step>> {
        // What cannot be read again is not located.
        self.areas.next_steps().ok().flatten()
    }

    fn feed(&mut self, reads: &[(ByteRange, &[u8])]) -> Result<()> {
        let slots = &mut self.slots;
        self.areas.feed(reads, &mut |slot, first, len| {
            let end = first.old.0.saturating_add(len);
            for (&(old, new), found) in slots.range_mut((first.old.0, 0)..(end, 0)) {
                let index = old - first.old.0;
                if new == first.new.0 + index {
                    *found = Some(slot + index);
                }
            }
            Ok(())
        })
    }

    fn offset(&self, record: &Exception) -> Option<u64> {
        let slot = *self.slots.get(&key(record))?;
        self.scan.geometry.slot_offset(slot?)
    }
}

fn key(record: &Exception) -> (u64, u64) {
    (record.old.0, record.new.0)
}
