//! Removing records from the middle of the log.
//!
//! The slot of a dropped record takes the record at the end of the log; when that is durable, the end is cleared. In between a record
//! stands twice, which shows the same bytes. Many are dropped in rounds, from the end of the log on.

use std::collections::BTreeMap;

use super::areas::{AreaReader, Scan};
use super::job::Job;
use super::log::{Log, write};
use super::plan::{Device, Plan, Purpose, Step};
use super::state::Progress;
use super::store::Store;
use crate::error::Result;
use crate::format::Exception;
use crate::units::EXCEPTION_SIZE;

/// Records dropped in a round, each of which may read and write one block.
const ROUND: usize = 4096;

enum Phase {
    Quiesce,
    Scan(AreaReader),
    /// Reading the blocks of this round.
    Read,
    /// Writing the records that move.
    Move(Round),
    Clear(Round),
    Finished,
}

impl std::fmt::Debug for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Quiesce => "Quiesce",
            Phase::Scan(_) => "Scan",
            Phase::Read => "Read",
            Phase::Move(_) => "Move",
            Phase::Clear(_) => "Clear",
            Phase::Finished => "Finished",
        })
    }
}

/// What one round changes.
struct Round {
    new_len: u64,
    /// Blocks with moved records, by their first record.
    blocks: BTreeMap<u64, Vec<Exception>>,
    tail: Vec<Exception>,
    /// Records in slots that take others.
    replaced: Vec<Dropped>,
    /// Records in slots that are cleared.
    cleared: Vec<Dropped>,
    /// What shares a block with the old end, after the moves.
    moved_tail: Option<Vec<Exception>>,
}

struct Dropped {
    record: Exception,
    /// Whether the same record stands in front of it, too.
    repeats: bool,
}

/// A record found by the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    old: u64,
    new: u64,
    slot: u64,
}

#[derive(Debug)]
pub(crate) struct DropJob {
    phase: Phase,
    /// Records of this and later old chunks go, and those that repeat an earlier one.
    end: u64,
    found: Vec<Found>,
    /// Slots to drop, ascending.
    slots: Vec<u64>,
    /// Those of them that hold what an earlier one holds.
    repeats: Vec<u64>,
    done: u64,
}

impl Store {
    /// Begins to finish what an interrupted operation left: stale slots, records that stand twice, exceptions past the disk's end.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) while another job is under way;
    /// [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) if there are exceptions past the end and a descriptor slot is damaged: the disk
    /// may have been larger.
    pub fn prepare_repair(&mut self) -> Result<()> {
        if self.descriptor.is_some() {
            self.check_end(self.virtual_size)?;
        }
        self.begin_job(Job::Drop(DropJob::repair(self)))
    }
}

impl DropJob {
    /// Drops what an interrupted operation left. The end of a bare store is not its own.
    pub(crate) fn repair(store: &Store) -> DropJob {
        DropJob::new(match store.descriptor {
            Some(_) => store.chunk_size().count_for(store.virtual_size),
            None => u64::MAX,
        })
    }

    pub(crate) fn new(end: u64) -> DropJob {
        let phase = Phase::Quiesce;
        DropJob {
            phase,
            end,
            found: Vec::new(),
            slots: Vec::new(),
            repeats: Vec::new(),
            done: 0,
        }
    }

    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.done, self.done + self.slots.len() as u64)
    }

    pub(crate) fn edits_log(&self) -> bool {
        !matches!(self.phase, Phase::Quiesce | Phase::Finished)
    }

    pub(crate) fn changes_metadata(&self) -> bool {
        matches!(self.phase, Phase::Move(_) | Phase::Clear(_))
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        match &mut self.phase {
            Phase::Quiesce => self.begin(store),
            Phase::Scan(areas) => match areas.next_steps()? {
                Some(steps) => Ok(store.job_plan(Purpose::Drop, steps)),
                None => self.begin_rounds(store),
            },
            Phase::Read => {
                let steps = self.round_reads(&store.log)?;
                Ok(store.job_plan(Purpose::Drop, steps))
            }
            Phase::Move(round) => {
                let mut steps = Vec::new();
                for (&first, records) in &round.blocks {
                    let range = store.log.block_range(first)?;
                    steps.push(write(range.start, store.log.encode_block(records)));
                }
                steps.push(Step::Flush {
                    device: Device::Cow,
                });
                Ok(store.job_plan(Purpose::Drop, steps))
            }
            Phase::Clear(round) => {
                let (mut steps, _) = store.log.truncate(round.new_len, &round.tail)?;
                steps.push(Step::Flush {
                    device: Device::Cow,
                });
                Ok(store.job_plan(Purpose::Drop, steps))
            }
            Phase::Finished => Ok(Progress::Done),
        }
    }

    fn begin(&mut self, store: &mut Store) -> Result<Progress> {
        // A run may begin in front of the end and reach past it.
        let last = store.in_flight.last_key_value();
        if last.is_some_and(|(_, run)| run.old + run.count > self.end) {
            return Ok(Progress::Wait);
        }
        if let Some(progress) = store.quiesce()? {
            return Ok(progress);
        }
        let past_end = store.table.last_old().is_some_and(|old| old.0 >= self.end)
            || (!store.strays.is_empty() && self.end < u64::MAX);
        if !past_end && store.repeated == 0 {
            self.phase = Phase::Finished;
            return Ok(Progress::Done);
        }
        let scan = Scan {
            geometry: store.geometry,
            cow_size: store.cow_size(),
        };
        self.phase = Phase::Scan(AreaReader::new(scan, false));
        self.next(store)
    }

    /// The scan is over: the slots to drop follow from what it found.
    fn begin_rounds(&mut self, store: &mut Store) -> Result<Progress> {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable();
        let mut previous = None;
        for record in found {
            let repeats = previous == Some((record.old, record.new));
            if record.old >= self.end || repeats {
                self.slots.push(record.slot);
            }
            if repeats {
                self.repeats.push(record.slot);
            }
            previous = Some((record.old, record.new));
        }
        self.slots.sort_unstable();
        self.repeats.sort_unstable();
        self.next_round(store)
    }

    fn next_round(&mut self, store: &mut Store) -> Result<Progress> {
        if self.slots.is_empty() {
            store.repeated = 0;
            self.phase = Phase::Finished;
            return Ok(Progress::Done);
        }
        self.phase = Phase::Read;
        self.next(store)
    }

    /// The slots of this round: the last ones.
    fn round_slots(&self) -> &[u64] {
        &self.slots[self.slots.len().saturating_sub(ROUND)..]
    }

    fn round_reads(&self, log: &Log) -> Result<Vec<Step>> {
        let slots = self.round_slots();
        let new_len = log.len() - slots.len() as u64;
        let mut steps = Vec::new();
        for block in hole_blocks(log, slots, new_len) {
            steps.push(Step::Read {
                device: Device::Cow,
                range: log.block_range(block)?,
            });
        }
        steps.extend(log.tail_reads(new_len)?);
        Ok(steps)
    }

    pub(crate) fn done(&mut self, store: &mut Store, plan: &Plan) -> Result<()> {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Scan(mut areas) => {
                let found = &mut self.found;
                let (end, repeated) = (self.end, store.repeated > 0);
                areas.feed(&plan.reads()?, &mut |slot, first, len| {
                    let all = (slot..).zip(first.run(len));
                    let chosen = all.filter(|(_, record)| repeated || record.old.0 >= end);
                    found.extend(chosen.map(|(slot, record)| Found {
                        old: record.old.0,
                        new: record.new.0,
                        slot,
                    }));
                    Ok(())
                })?;
                self.phase = Phase::Scan(areas);
            }
            Phase::Read => {
                let round = self.plan_round(&store.log, plan)?;
                let moves = !round.blocks.is_empty();
                self.phase = if moves {
                    Phase::Move(round)
                } else {
                    Phase::Clear(round)
                };
            }
            Phase::Move(round) => self.phase = Phase::Clear(round),
            Phase::Clear(round) => self.cleared(store, &round)?,
            other => self.phase = other,
        }
        Ok(())
    }

    fn plan_round(&self, log: &Log, plan: &Plan) -> Result<Round> {
        let slots = self.round_slots();
        let new_len = log.len() - slots.len() as u64;
        let reads = plan.reads()?;
        let holes = hole_blocks(log, slots, new_len);
        let (hole_reads, tail_reads) = reads.split_at(holes.len().min(reads.len()));
        let mut blocks: BTreeMap<u64, Vec<Exception>> = holes
            .iter()
            .zip(hole_reads)
            .map(|(&first, (_, bytes))| (first, Exception::decode_slice(bytes).collect()))
            .collect();
        let tail_start = log.block_start(new_len);
        let mut tail = log.parse_tail(new_len, tail_reads);
        let kept = usize::try_from(new_len - tail_start)
            .unwrap_or(usize::MAX)
            .min(tail.len());
        let is_dropped = |slot: u64| slots.binary_search(&slot).is_ok();
        let mut movers = (new_len..log.len())
            .filter(|&slot| !is_dropped(slot))
            .filter_map(|slot| tail.get(usize::try_from(slot - tail_start).ok()?).copied())
            .collect::<Vec<_>>()
            .into_iter();
        let (mut replaced, mut cleared) = (Vec::new(), Vec::new());
        let mut tail_changed = false;
        for &slot in slots {
            let block = log.block_start(slot);
            let in_tail = block >= tail_start;
            let records = if in_tail {
                Some(&mut tail)
            } else {
                blocks.get_mut(&block)
            };
            let index = slot - if in_tail { tail_start } else { block };
            let place = records.and_then(|all| all.get_mut(usize::try_from(index).ok()?));
            let Some(place) = place else { continue };
            let dropped = Dropped {
                record: *place,
                repeats: self.repeats.binary_search(&slot).is_ok(),
            };
            if slot < new_len
                && let Some(mover) = movers.next()
            {
                replaced.push(dropped);
                *place = mover;
                tail_changed |= in_tail;
            } else {
                cleared.push(dropped);
            }
        }
        let shares_end = tail_changed && log.block_start(log.len()) == tail_start;
        let moved_tail = shares_end.then(|| tail.clone());
        if tail_changed {
            // The block of the new end keeps its old records behind it until the moves are durable.
            let per_block = usize::try_from(log.block() / EXCEPTION_SIZE).unwrap_or(usize::MAX);
            blocks.insert(tail_start, tail.iter().take(per_block).copied().collect());
        }
        tail.truncate(kept);
        Ok(Round {
            new_len,
            blocks,
            tail,
            replaced,
            cleared,
            moved_tail,
        })
    }

    fn cleared(&mut self, store: &mut Store, round: &Round) -> Result<()> {
        let (_, after) = store.log.truncate(round.new_len, &round.tail)?;
        store.log = after;
        self.forget(store, round.replaced.iter().chain(&round.cleared));
        store.release_unpinned();
        self.done += (round.replaced.len() + round.cleared.len()) as u64;
        self.slots.truncate(self.slots.len().saturating_sub(ROUND));
        self.phase = if self.slots.is_empty() {
            Phase::Finished
        } else {
            Phase::Read
        };
        if self.slots.is_empty() {
            store.repeated = 0;
        }
        Ok(())
    }

    /// These records are gone from the disk.
    fn forget<'a>(&self, store: &mut Store, dropped: impl Iterator<Item = &'a Dropped>) {
        for Dropped { record, repeats } in dropped {
            if *repeats {
                store.repeated = store.repeated.saturating_sub(1);
            } else if record.old.0 >= self.end {
                store.forget(record);
            }
        }
    }

    /// What has moved stands twice until the end of the log is cleared, and what it replaced is gone.
    pub(crate) fn cancelled(self, store: &mut Store) {
        let Phase::Clear(round) = &self.phase else {
            return;
        };
        self.forget(store, round.replaced.iter());
        store.repeated += round.replaced.len() as u64;
        if let Some(tail) = &round.moved_tail {
            store.log.set_tail(tail.clone());
        }
        store.release_unpinned();
    }
}

/// The blocks in front of the block of `new_len` in which slots become free, by their first record.
fn hole_blocks(log: &Log, slots: &[u64], new_len: u64) -> Vec<u64> {
    let tail_start = log.block_start(new_len);
    let mut blocks: Vec<u64> = slots.iter().map(|&slot| log.block_start(slot)).collect();
    blocks.retain(|&block| block < tail_start);
    blocks.dedup();
    blocks
}
