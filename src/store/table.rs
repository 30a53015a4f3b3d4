//! The exception table: which COW chunk holds which chunk of the origin.
//!
//! A map of nodes, each with some hundred leaves of some hundred runs. Old chunks are divided into segments of 2^32; a node belongs to
//! one, so an entry needs 32 bits for the old chunk, 48 for the new one and 16 for the length. That is 12 bytes for an exception that
//! stands alone, and next to nothing for the exceptions of a sequential write.

mod builder;
mod leaf;
mod node;
mod pieces;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::mem::size_of;

use crate::units::{CowChunk, MAX_FILE_SIZE, OriginChunk, SECTOR_SIZE};
use leaf::{ENTRY_LEN, Entry, Leaf};
use node::Node;

pub(crate) use builder::{BuildReport, Conflict, Findings, SharedChunk, TableBuilder, find_shared};

/// The highest new chunk that the table holds; callers refuse larger ones. Enough for 128 PiB of the smallest chunks.
pub(crate) const MAX_NEW_CHUNK: u64 = (1 << 48) - 1;

/// The highest old chunk that the table holds; callers refuse larger ones, which no origin can have.
pub(crate) const MAX_OLD_CHUNK: u64 = MAX_FILE_SIZE / SECTOR_SIZE;

/// Old chunks of a segment.
const SEGMENT: u64 = 1 << 32;

/// What a range of old chunks begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// `len` old chunks lie in as many COW chunks from `new`.
    Mapped {
        /// COW chunk of the first old chunk.
        new: CowChunk,
        /// Number of chunks.
        len: u64,
    },
    /// `len` old chunks have no exception.
    Unmapped {
        /// Number of chunks.
        len: u64,
    },
}

/// Exceptions whose old and new chunks both follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExceptionRun {
    /// First old chunk.
    pub(crate) old: OriginChunk,
    /// First new chunk.
    pub(crate) new: CowChunk,
    /// Number of exceptions.
    pub(crate) len: u64,
}

impl ExceptionRun {
    fn end(&self) -> u64 {
        self.old.0 + self.len
    }

    fn continues(&self, before: &ExceptionRun) -> bool {
        before.end() == self.old.0 && before.new.0 + before.len == self.new.0
    }

    /// The part from old chunk `from` on, if any.
    fn clipped(self, from: u64) -> Option<ExceptionRun> {
        let skip = from.saturating_sub(self.old.0);
        let len = self.len.checked_sub(skip).filter(|&len| len > 0)?;
        Some(ExceptionRun {
            old: OriginChunk(self.old.0 + skip),
            new: CowChunk(self.new.0 + skip),
            len,
        })
    }
}

/// Exceptions by old chunk, runs compressed.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExceptionTable {
    /// By the lowest old chunk that a node may hold. None is empty, and no leaf's runs reach into the next one's part.
    nodes: BTreeMap<u64, Node>,
    len: u64,
}

impl ExceptionTable {
    /// Number of exceptions.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds `len` exceptions. None of the old chunks may be present; old chunks are at most [`MAX_OLD_CHUNK`], new ones [`MAX_NEW_CHUNK`].
    pub(crate) fn insert_run(&mut self, old: OriginChunk, new: CowChunk, len: u64) {
        debug_assert!(
            old.0
                .checked_add(len)
                .is_some_and(|end| end <= MAX_OLD_CHUNK + 1)
        );
        debug_assert!(
            new.0
                .checked_add(len)
                .is_some_and(|end| end <= MAX_NEW_CHUNK + 1)
        );
        self.len += len;
        let (mut old, mut new, mut left) = (old.0, new.0, len);
        while left > 0 {
            let piece = left.min(self.room_at(old, left));
            self.insert_piece(old, new, piece);
            old += piece;
            new += piece;
            left -= piece;
        }
    }

    /// What `old` begins: the run of exceptions or of unmapped chunks from there, at most `max_len` chunks of it.
    #[inline]
    pub(crate) fn lookup_run(&self, old: OriginChunk, max_len: u64) -> Run {
        let old = old.0;
        let Some((_, node)) = self.node_at(old) else {
            return self.unmapped_from(old, max_len);
        };
        let within = old % SEGMENT;
        let (index, at) = node.find(within);
        let leaf = node.leaves().get(index);
        let entries = leaf.map_or([].as_slice(), Leaf::entries);
        let before = at.checked_sub(1).and_then(|index| entries.get(index));
        if let Some(entry) = before
            && within < entry.end()
        {
            let new = CowChunk(entry.new_chunk() + (within - entry.old()));
            let mut len = entry.end() - within;
            // Most questions end inside the entry; only longer ones need the neighbours.
            if len < max_len {
                len = self.joined_len(old);
            }
            let len = len.min(max_len);
            return Run::Mapped { new, len };
        }
        match entries.get(at) {
            Some(next) => Run::Unmapped {
                len: max_len.min(next.old() - within),
            },
            None => self.unmapped_from(old, max_len),
        }
    }

    /// What is asked for at the unmapped chunk `old`, where the next exception is in another leaf.
    fn unmapped_from(&self, old: u64, max_len: u64) -> Run {
        let next = if max_len > 1 {
            self.pieces_from(old).next()
        } else {
            None
        };
        let gap = next.map_or(max_len, |run| run.old.0 - old);
        Run::Unmapped {
            len: gap.min(max_len),
        }
    }

    /// Takes out the exceptions of `len` old chunks, as far as there are any; tells how many there were.
    pub(crate) fn remove(&mut self, old: OriginChunk, len: u64) -> u64 {
        let (start, end) = (old.0, old.0.saturating_add(len));
        if start >= end {
            return 0;
        }
        let first = self.node_at(start).map_or(start, |(base, _)| base);
        let mut removed = 0;
        let mut empty = Vec::new();
        let mut split = None;
        for (&base, node) in self.nodes.range_mut(first..end) {
            let segment = segment_start(base);
            let (count, part) = node.remove(start.max(base) - segment, end - segment);
            removed += count;
            split = split.or(part.map(|(first, node)| (segment + first, node)));
            if node.is_empty() {
                empty.push(base);
            }
        }
        for base in empty {
            self.nodes.remove(&base);
        }
        self.nodes.extend(split);
        self.len -= removed;
        removed
    }

    /// The highest old chunk that has an exception.
    pub(crate) fn last_old(&self) -> Option<OriginChunk> {
        let (&base, node) = self.nodes.last_key_value()?;
        let last = node.leaves().last()?.entries().last()?;
        Some(OriginChunk(segment_start(base) + last.end() - 1))
    }

    /// All exceptions in the order of old chunks, in runs as long as possible.
    pub(crate) fn iter(&self) -> Runs<'_> {
        self.iter_from(OriginChunk(0))
    }

    /// The exceptions of `old` and higher old chunks, in runs as long as possible.
    pub(crate) fn iter_from(&self, old: OriginChunk) -> Runs<'_> {
        let mut pieces = self.pieces_from(old.0);
        Runs {
            next: pieces.next(),
            pieces,
        }
    }

    /// Bytes on the heap, the map's own nodes estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        // A node of the map has places for 11 keys and values, and is at least half full; it may have pointers to 12 children.
        const PLACE: usize = size_of::<(u64, Node)>() + size_of::<usize>();
        self.nodes
            .values()
            .map(|node| node.heap_bytes() + 2 * PLACE)
            .sum()
    }

    /// The node that holds `old` if any does.
    #[inline]
    fn node_at(&self, old: u64) -> Option<(u64, &Node)> {
        let (&base, node) = self.nodes.range(..=old).next_back()?;
        (segment_start(base) == segment_start(old)).then_some((base, node))
    }

    /// How many of `wanted` old chunks from `old` one entry of one leaf can take.
    fn room_at(&self, old: u64, wanted: u64) -> u64 {
        if wanted == 1 {
            return 1;
        }
        let within = old % SEGMENT;
        let in_node = self
            .nodes
            .range(old + 1..)
            .next()
            .map_or(u64::MAX, |(&base, _)| base - old);
        let next_leaf = self
            .node_at(old)
            .and_then(|(_, node)| node.next_key(within));
        let in_leaf = next_leaf.unwrap_or(SEGMENT) - within;
        in_leaf.min(in_node).min(ENTRY_LEN)
    }

    fn insert_piece(&mut self, old: u64, new: u64, len: u64) {
        let segment = segment_start(old);
        let entry = Entry::new((old - segment) as u32, new, len);
        let found = self.nodes.range_mut(..=old).next_back();
        let split = match found.filter(|(base, _)| segment_start(**base) == segment) {
            Some((_, node)) => node
                .insert(entry)
                .map(|(first, node)| (segment + first, node)),
            // The lowest node of a segment takes all from its start, so that descending inserts fill it.
            None => Some((segment, Node::new(0, Leaf::new(entry)))),
        };
        self.nodes.extend(split);
    }

    /// Number of exceptions from `old` on that follow each other on both sides.
    #[inline(never)]
    fn joined_len(&self, old: u64) -> u64 {
        self.iter_from(OriginChunk(old))
            .next()
            .map_or(0, |run| run.len)
    }

    fn pieces_from(&self, old: u64) -> Pieces<'_> {
        let first = self.node_at(old).map_or(old, |(base, _)| base);
        let mut nodes = self.nodes.range(first..);
        let (segment, (entries, leaves)) = match nodes.next() {
            Some((&base, node)) => {
                let segment = segment_start(base);
                (segment, node.from(old.saturating_sub(segment)))
            }
            None => (0, Default::default()),
        };
        let (entries, leaves) = (entries.iter(), leaves.iter());
        Pieces {
            nodes,
            segment,
            leaves,
            entries,
            from: old,
        }
    }
}

/// Entry by entry, as stored.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    nodes: btree_map::Range<'a, u64, Node>,
    segment: u64,
    leaves: std::slice::Iter<'a, Leaf>,
    entries: std::slice::Iter<'a, Entry>,
    from: u64,
}

impl Iterator for Pieces<'_> {
    type Item = ExceptionRun;

    #[inline]
    fn next(&mut self) -> Option<ExceptionRun> {
        let entry = loop {
            if let Some(entry) = self.entries.next() {
                break entry;
            }
            if let Some(leaf) = self.leaves.next() {
                self.entries = leaf.entries().iter();
            } else {
                let (&base, node) = self.nodes.next()?;
                self.segment = segment_start(base);
                self.leaves = node.leaves().iter();
            }
        };
        let run = ExceptionRun {
            old: OriginChunk(self.segment + entry.old()),
            new: CowChunk(entry.new_chunk()),
            len: entry.len(),
        };
        run.clipped(self.from)
    }
}

/// Runs of exceptions in the order of old chunks; see [`ExceptionTable::iter`].
#[derive(Clone, Debug)]
pub(crate) struct Runs<'a> {
    pieces: Pieces<'a>,
    next: Option<ExceptionRun>,
}

impl Iterator for Runs<'_> {
    type Item = ExceptionRun;

    fn next(&mut self) -> Option<ExceptionRun> {
        let mut run = self.next.take()?;
        for piece in self.pieces.by_ref() {
            if !piece.continues(&run) {
                self.next = Some(piece);
                break;
            }
            run.len += piece.len;
        }
        Some(run)
    }
}

/// First old chunk of the segment of `old`.
const fn segment_start(old: u64) -> u64 {
    old - old % SEGMENT
}

#[cfg(test)]
mod tests;
