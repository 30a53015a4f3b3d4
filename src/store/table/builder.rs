//! Builds a table from a log: compresses runs on the fly, sorts what is left, and finds exceptions that contradict each other.

use std::collections::BTreeMap;

use super::leaf::{ENTRY_LEN, Entry, LEAF_ENTRIES, Leaf};
use super::node::{NODE_LEAVES, Node};
use super::pieces::{Piece, Pieces, sort_by_old};
use super::{ExceptionTable, MAX_NEW_CHUNK, MAX_OLD_CHUNK, SEGMENT, segment_start};
use crate::error::Result;
use crate::format::Exception;
use crate::store::memory;
use crate::units::{CowChunk, OriginChunk};

/// Findings of one sort that are listed; more are only counted, since a hostile log can have millions.
const LISTED: usize = 1000;

/// How many there are of something, and the first of them.
#[derive(Clone, Debug)]
pub(crate) struct Findings<T> {
    /// Number of findings.
    pub(crate) count: u64,
    /// The first 1000 of them, by old chunk or new chunk.
    pub(crate) listed: Vec<T>,
}

impl<T> Default for Findings<T> {
    fn default() -> Findings<T> {
        Findings {
            count: 0,
            listed: Vec::new(),
        }
    }
}

impl<T> Findings<T> {
    /// How many are counted only.
    pub(crate) fn unlisted(&self) -> u64 {
        self.count - self.listed.len() as u64
    }

    fn add(&mut self, finding: T) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(finding);
        }
    }
}

/// Two exceptions for one old chunk with different new chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The old chunk.
    pub(crate) old: OriginChunk,
    /// Where the first exception in the log keeps it; this one is in the table.
    pub(crate) kept: CowChunk,
    /// Where the later one keeps it.
    pub(crate) ignored: CowChunk,
}

impl Conflict {
    /// The record that is one too many.
    pub(crate) fn record(&self) -> Exception {
        Exception {
            old: self.old,
            new: self.ignored,
        }
    }
}

/// Two old chunks that are kept in one new chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedChunk {
    /// The new chunk.
    pub(crate) new: CowChunk,
    /// Both old chunks.
    pub(crate) olds: [OriginChunk; 2],
}

impl SharedChunk {
    /// The record that is one too many.
    pub(crate) fn record(&self) -> Exception {
        Exception {
            old: self.olds[1],
            new: self.new,
        }
    }
}

/// What is wrong with a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuildReport {
    /// Exceptions that are in the log once more: the trace of an interrupted drop, harmless.
    pub(crate) identical: Findings<Exception>,
    /// Old chunks with two different exceptions.
    pub(crate) conflicts: Findings<Conflict>,
    /// New chunks with two exceptions in the table.
    pub(crate) shared: Findings<SharedChunk>,
}

impl BuildReport {
    /// The log has `old` once more.
    pub(crate) fn found_again(&mut self, old: OriginChunk, kept: CowChunk, again: CowChunk) {
        if again == kept {
            self.identical.add(Exception { old, new: kept });
        } else {
            let ignored = again;
            self.conflicts.add(Conflict { old, kept, ignored });
        }
    }
}

/// Takes exceptions in the order of the log and makes an [`ExceptionTable`] of them. Needs 16 bytes a run, and some
/// megabytes to sort with.
#[derive(Debug)]
pub(crate) struct TableBuilder {
    pieces: Pieces,
    /// The run that still grows; without one the length is 0.
    old: u64,
    new: u64,
    len: u64,
    /// Old chunks have only gone up so far: nothing to sort, no duplicates.
    olds_ascend: bool,
    /// New chunks have only gone up so far: none is shared, and their order is the log's.
    news_ascend: bool,
}

impl Default for TableBuilder {
    fn default() -> TableBuilder {
        TableBuilder {
            pieces: Pieces::default(),
            old: 0,
            new: 0,
            len: 0,
            olds_ascend: true,
            news_ascend: true,
        }
    }
}

impl TableBuilder {
    /// Adds the next `len` exceptions of the log, which follow each other on both sides. The same limits hold as for
    /// [`ExceptionTable::insert_run`].
    #[inline]
    pub(crate) fn push_run(&mut self, old: OriginChunk, new: CowChunk, len: u64) {
        // An empty run is continued by nothing, since its length leaves no room.
        let joined = self.len.wrapping_sub(1).saturating_add(len);
        if joined < ENTRY_LEN && old.0 == self.old + self.len && new.0 == self.new + self.len {
            self.len += len;
        } else if len <= ENTRY_LEN {
            self.start_run(old.0, new.0, len);
        } else {
            self.start_runs(old.0, new.0, len);
        }
    }

    #[cold]
    fn start_runs(&mut self, old: u64, new: u64, len: u64) {
        for start in (0..len).step_by(ENTRY_LEN as usize) {
            self.start_run(old + start, new + start, ENTRY_LEN.min(len - start));
        }
    }

    /// The table of all exceptions and what is wrong with them. Where an old chunk has several, the first in the log counts.
    pub(crate) fn finish(mut self) -> Result<(ExceptionTable, BuildReport)> {
        self.end_run();
        let mut report = BuildReport::default();
        let mut assembly = Assembly::default();
        let (olds_ascend, news_ascend) = (self.olds_ascend, self.news_ascend);
        let (mut spare, mut placed) = (Vec::new(), Vec::new());
        // The order of equal old chunks does not matter here: those are sorted out below, by their places in the log.
        self.pieces.for_each_part(|part| {
            if olds_ascend {
                part.iter().try_for_each(|piece| assembly.append(*piece))
            } else if news_ascend {
                sort_by_old(part, &mut spare)?;
                let placed = part.iter().map(|piece| (*piece, piece.new_chunk()));
                resolve(placed, &mut assembly, &mut report)
            } else {
                placed.clear();
                memory::reserve(&mut placed, part.len())?;
                placed.extend(part.iter().copied().zip(0u64..));
                placed.sort_unstable_by_key(|(piece, _): &(Piece, u64)| piece.old);
                resolve(placed.iter().copied(), &mut assembly, &mut report)
            }
        })?;
        // They may be larger than the table that is left.
        drop((spare, placed));
        let table = assembly.finish()?;
        if !news_ascend && may_share(&table)? {
            let runs = table.iter().map(|run| (run.new.0, run.old.0, run.len));
            find_shared(memory::collect(runs)?, &mut report.shared);
        }
        Ok((table, report))
    }

    #[inline]
    fn start_run(&mut self, old: u64, new: u64, len: u64) {
        debug_assert!(old + len <= MAX_OLD_CHUNK + 1 && new + len <= MAX_NEW_CHUNK + 1);
        self.olds_ascend &= old >= self.old + self.len;
        self.news_ascend &= new >= self.new + self.len;
        self.end_run();
        (self.old, self.new, self.len) = (old, new, len);
    }

    fn end_run(&mut self) {
        if self.len > 0 {
            self.pieces.push(Piece::new(self.old, self.new, self.len));
        }
    }
}

/// Passes pieces on that come sorted by old chunk, with their place in the log; of exceptions for the same old chunk only the first.
fn resolve(
    placed: impl Iterator<Item = (Piece, u64)>,
    assembly: &mut Assembly,
    report: &mut BuildReport,
) -> Result<()> {
    let mut placed = placed.peekable();
    while let Some((piece, place)) = placed.next() {
        let mut end = piece.end();
        if placed.peek().is_none_or(|(next, _)| next.old >= end) {
            assembly.append(piece)?;
            continue;
        }
        // One by one: as much work as there are exceptions, however their runs overlap.
        let mut singles: Vec<(u64, u64, u64)> = memory::collect(piece.singles(place))?;
        while let Some((next, place)) = placed.next_if(|(next, _)| next.old < end) {
            memory::reserve(&mut singles, next.len() as usize)?;
            singles.extend(next.singles(place));
            end = end.max(next.end());
        }
        // Places are pieces' or new chunks', so those of equal old chunks differ.
        singles.sort_unstable();
        for group in singles.chunk_by(|one, other| one.0 == other.0) {
            settle(group, assembly, report)?;
        }
    }
    Ok(())
}

/// All exceptions of one old chunk in the order of the log, as old chunk, place, new chunk.
fn settle(
    group: &[(u64, u64, u64)],
    assembly: &mut Assembly,
    report: &mut BuildReport,
) -> Result<()> {
    let Some((&(old, _, kept), others)) = group.split_first() else {
        return Ok(());
    };
    assembly.append(Piece::new(old, kept, 1))?;
    let (old, kept) = (OriginChunk(old), CowChunk(kept));
    for &(.., new) in others {
        report.found_again(old, kept, CowChunk(new));
    }
    Ok(())
}

/// Makes leaves and nodes of pieces that come in the order of old chunks and do not overlap.
#[derive(Debug, Default)]
struct Assembly {
    nodes: Vec<(u64, Node)>,
    /// The leaf that is being filled, and its first old chunk.
    entries: Vec<Entry>,
    base: u64,
    len: u64,
}

impl Assembly {
    fn append(&mut self, piece: Piece) -> Result<()> {
        self.len += piece.len();
        let in_segment = SEGMENT - piece.old % SEGMENT;
        let here = piece.len().min(in_segment);
        self.append_entry(piece.old, piece.new_chunk(), here)?;
        if here < piece.len() {
            self.append_entry(
                piece.old + here,
                piece.new_chunk() + here,
                piece.len() - here,
            )?;
        }
        Ok(())
    }

    fn append_entry(&mut self, old: u64, new: u64, len: u64) -> Result<()> {
        let segment = segment_start(old);
        if segment != segment_start(self.base) || self.entries.len() == LEAF_ENTRIES {
            self.end_leaf()?;
        }
        let entry = Entry::new((old - segment) as u32, new, len);
        match self.entries.last_mut() {
            Some(last) if last.joins(entry) => *last = last.joined(entry),
            Some(_) => self.entries.push(entry),
            None => {
                self.base = old;
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        // For the leaf, and for what its node grows by.
        memory::look_for(LEAF_ENTRIES * size_of::<Entry>() + NODE_LEAVES * 2 * size_of::<Leaf>())?;
        memory::reserve(&mut self.nodes, 1)?;
        let leaf = Leaf::from_entries(self.entries.as_slice().to_vec());
        self.entries.clear();
        let segment = segment_start(self.base);
        match self.nodes.last_mut() {
            Some((base, node)) if segment_start(*base) == segment => {
                if node.is_full() {
                    self.nodes
                        .push((self.base, Node::new(self.base - segment, leaf)));
                } else {
                    node.push(self.base - segment, leaf);
                }
            }
            // As in single inserts, the first node of a segment starts with it.
            _ => self.nodes.push((segment, Node::new(0, leaf))),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ExceptionTable> {
        self.end_leaf()?;
        // A map takes up to twice what its elements need.
        memory::look_for(self.nodes.len() * 2 * size_of::<(u64, Node)>())?;
        Ok(ExceptionTable {
            nodes: BTreeMap::from_iter(self.nodes),
            len: self.len,
        })
    }
}

/// Lists the new chunks that more than one exception has. Runs are given as new chunk, old chunk, length.
pub(crate) fn find_shared(mut runs: Vec<(u64, u64, u64)>, shared: &mut Findings<SharedChunk>) {
    runs.sort_unstable();
    // The run that reaches furthest, with its end: it covers all before its end that later runs can meet.
    let mut furthest = (0, 0, 0);
    for (new, old, len) in runs {
        let (far_new, far_old, far_end) = furthest;
        let end = new + len;
        for chunk in new..end.min(far_end) {
            let olds = [far_old + (chunk - far_new), old + (chunk - new)].map(OriginChunk);
            shared.add(SharedChunk {
                new: CowChunk(chunk),
                olds,
            });
        }
        if end > far_end {
            furthest = (new, old, end);
        }
    }
}

/// Whether it is worth sorting by new chunks: false if a bitmap, where one is not too large, shows that all differ.
fn may_share(table: &ExceptionTable) -> Result<bool> {
    let highest = table
        .iter()
        .map(|run| run.new.0 + run.len)
        .max()
        .unwrap_or(0);
    // At most 16 bytes of bitmap for an exception.
    let words = highest / 64 + 1;
    if words > 2 * table.len() {
        return Ok(true);
    }
    memory::look_for(words as usize * size_of::<u64>())?;
    let mut seen = vec![0u64; words as usize];
    let shares = table.iter().any(|run| {
        (run.new.0..run.new.0 + run.len).any(|chunk| {
            let (word, bit) = (&mut seen[(chunk / 64) as usize], 1 << (chunk % 64));
            let again = *word & bit != 0;
            *word |= bit;
            again
        })
    });
    Ok(shares)
}
