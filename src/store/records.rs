//! Records on their way into the table: checked one by one, then put together.

use std::collections::BTreeMap;

use super::areas::Scan;
use super::chunk_set::ChunkSet;
use super::locate::SecondLook;
use super::memory;
use super::table::{
    BuildReport, Conflict, ExceptionTable, Findings, MAX_OLD_CHUNK, SharedChunk, TableBuilder,
    find_shared,
};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Exception;
use crate::units::{CowChunk, OriginChunk};

/// Checks records as they come and collects them.
#[derive(Default)]
pub(crate) struct Records {
    scan: Option<Scan>,
    builder: TableBuilder,
    /// The data chunks around the last new chunk, all of them legal.
    window: (u64, u64),
    /// The data chunk behind the last new chunk.
    expected: u64,
    highest_end: u64,
    holes: ChunkSet,
    ascending: bool,
    /// Exceptions for old chunks that no disk can have, as old and new chunk.
    strays: Vec<(u64, u64)>,
    /// Pieces for which memory was looked for.
    room: u64,
}

/// Pieces for which memory is looked for at once.
const ROOM: u64 = 1 << 15;
/// What one takes at most: in the builder, twice while that sorts them into buckets, and as a hole.
const PIECE_BYTES: u64 = 128;
/// What the builder's buckets take at their beginning.
const BUCKETS_BYTES: u64 = 4 << 20;
/// Exceptions that one piece holds at least, if so many follow each other.
const LONGEST_PIECE: u64 = 1 << 15;
/// What one exception takes in a map, of which half may be empty.
const MAPPED_BYTES: usize = 64;

impl Records {
    pub(crate) fn new(scan: Scan) -> Records {
        Records {
            scan: Some(scan),
            expected: 2,
            ascending: true,
            // So little is there.
            room: ROOM / 8,
            ..Records::default()
        }
    }

    pub(crate) fn scan(&self) -> Option<Scan> {
        self.scan
    }

    /// Takes `len` records, from number `index` on, that go up by one on both sides.
    #[inline]
    pub(crate) fn push(&mut self, mut index: u64, first: Exception, len: u64) -> Result<()> {
        let (mut old, mut new, mut left) = (first.old, first.new, len);
        loop {
            if new.0 < self.window.0 || new.0 >= self.window.1 {
                let Some(scan) = self.scan else { return Ok(()) };
                self.window = scan.data_window(index, Exception { old, new })?;
            }
            let here = left.min(self.window.1 - new.0);
            match self.room.checked_sub(1 + here / LONGEST_PIECE) {
                Some(room) => self.room = room,
                None => self.look_for_room(here)?,
            }
            self.push_legal(old, new, here)?;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            index += here;
            (old, new) = (OriginChunk(old.0 + here), CowChunk(new.0 + here));
        }
    }

    #[cold]
    fn look_for_room(&mut self, len: u64) -> Result<()> {
        let pieces = ROOM + 1 + len / LONGEST_PIECE;
        memory::look_for((pieces * PIECE_BYTES + BUCKETS_BYTES) as usize)?;
        self.room = ROOM;
        Ok(())
    }

    /// The new chunks lie in the window.
    #[inline]
    fn push_legal(&mut self, old: OriginChunk, new: CowChunk, len: u64) -> Result<()> {
        if new.0 != self.expected {
            self.out_of_order(new.0);
        }
        let end = new.0 + len;
        self.expected = end;
        if end == self.window.1 {
            self.expected += 1;
        }
        self.highest_end = self.highest_end.max(end);
        let strays = (old.0 + (len - 1)).saturating_sub(MAX_OLD_CHUNK).min(len);
        if strays < len {
            self.builder.push_run(old, new, len - strays);
        }
        if strays > 0 {
            memory::reserve(&mut self.strays, strays as usize)?;
            let (first_old, first_new) = (old.0 + (len - strays), end - strays);
            self.strays.extend(
                (0..strays).map(|index| (first_old.wrapping_add(index), first_new + index)),
            );
        }
        Ok(())
    }

    #[cold]
    fn out_of_order(&mut self, new: u64) {
        if new < self.expected {
            self.ascending = false;
        } else if self.ascending {
            self.holes
                .insert(CowChunk(self.expected), new - self.expected);
        }
    }

    pub(crate) fn close(self) -> Result<Closed> {
        let (table, mut report) = self.builder.finish()?;
        let strays = compare_strays(&table, self.strays, &mut report)?;
        let next_free = match self.scan {
            Some(scan) => scan.geometry.skip_area(CowChunk(self.highest_end.max(2))).0,
            None => 2,
        };
        let holes = match self.ascending {
            true => self.holes,
            false => holes_below(&table, &strays, next_free)?,
        };
        Ok(Closed {
            table,
            report,
            next_free,
            holes,
            strays,
        })
    }
}

/// All records, put together.
pub(crate) struct Closed {
    pub(crate) table: ExceptionTable,
    pub(crate) report: BuildReport,
    pub(crate) next_free: u64,
    pub(crate) holes: ChunkSet,
    pub(crate) strays: BTreeMap<u64, u64>,
}

impl Closed {
    /// Refuses exceptions that contradict each other, and says where the first of them stands if that was looked for.
    pub(crate) fn check(&self, places: &SecondLook) -> Result<()> {
        let Some((record, message)) = self.contradiction() else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::Corrupt, message);
        match places.offset(&record) {
            Some(offset) => Err(error.with_offset(offset)),
            None => Err(error),
        }
    }

    /// The first record that contradicts another one, and what is wrong with it.
    pub(crate) fn contradiction(&self) -> Option<(Exception, String)> {
        let (conflicts, shared) = (&self.report.conflicts, &self.report.shared);
        let (record, text, count) = match (conflicts.listed.first(), shared.listed.first()) {
            (Some(found), _) => (found.record(), conflict_text(found), conflicts.count),
            (None, Some(found)) => (found.record(), shared_text(found), shared.count),
            (None, None) => return None,
        };
        Some((record, format!("{text} ({count} in all)")))
    }

    /// All records that are listed as findings.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Exception> + '_ {
        let report = &self.report;
        let conflicts = report.conflicts.listed.iter().map(Conflict::record);
        let shared = report.shared.listed.iter().map(SharedChunk::record);
        conflicts
            .chain(shared)
            .chain(report.identical.listed.iter().copied())
    }
}

pub(crate) fn conflict_text(conflict: &Conflict) -> String {
    let Conflict { old, kept, ignored } = conflict;
    format!(
        "chunk {old} has two exceptions, to COW chunks {kept} and {ignored}, where one is expected"
    )
}

pub(crate) fn shared_text(shared: &SharedChunk) -> String {
    let [first, second] = shared.olds;
    format!(
        "COW chunk {} belongs to two exceptions, of chunks {first} and {second}, where one is expected",
        shared.new
    )
}

/// Finds what contradicts among exceptions that are in no table, and between them and the table; returns one for each of their old chunks.
fn compare_strays(
    table: &ExceptionTable,
    mut strays: Vec<(u64, u64)>,
    report: &mut BuildReport,
) -> Result<BTreeMap<u64, u64>> {
    if strays.is_empty() {
        return Ok(BTreeMap::new());
    }
    // For sorting them, and for the map.
    memory::look_for(strays.len() * MAPPED_BYTES)?;
    // Stable: of those for one old chunk the first in the log counts.
    strays.sort_by_key(|&(old, _)| old);
    strays.dedup_by(|later, kept| {
        let old = OriginChunk(kept.0);
        if later.0 == kept.0 {
            report.found_again(old, CowChunk(kept.1), CowChunk(later.1));
        }
        later.0 == kept.0
    });
    let alone = strays.iter().map(|&(old, new)| (new, old, 1));
    let of_table = table.iter().map(|run| (run.new.0, run.old.0, run.len));
    let by_new = memory::collect(alone.chain(of_table))?;
    // What the table shares within itself is found once more.
    report.shared = Findings::default();
    find_shared(by_new, &mut report.shared);
    memory::look_for(strays.len() * MAPPED_BYTES)?;
    Ok(strays.into_iter().collect())
}

/// What no exception uses below `next_free`. Metadata areas may be among it.
fn holes_below(
    table: &ExceptionTable,
    strays: &BTreeMap<u64, u64>,
    next_free: u64,
) -> Result<ChunkSet> {
    let of_table = table.iter().map(|run| (run.new.0, run.len));
    let alone = strays.values().map(|&new| (new, 1));
    let mut used: Vec<(u64, u64)> = memory::collect(of_table.chain(alone))?;
    used.sort_unstable();
    let gaps = used
        .windows(2)
        .filter(|pair| pair[0].0 + pair[0].1 < pair[1].0);
    memory::look_for((gaps.count() + 2) * MAPPED_BYTES)?;
    let mut holes = ChunkSet::default();
    let mut at = 2;
    for (new, len) in used {
        if new > at {
            holes.insert(CowChunk(at), new - at);
        }
        at = at.max(new + len);
    }
    if next_free > at {
        holes.insert(CowChunk(at), next_free - at);
    }
    Ok(holes)
}
