//! The exception table: which COW chunk holds which chunk of the origin.
//!
//! A map from leaves' first old chunks to leaves of at most 256 runs each. Old chunks are divided into segments of 2^32; a leaf belongs
//! to one, so its entries need 32 bits for the old chunk, 48 for the new one and 16 for the length. That is 12 bytes for an
//! exception that stands alone, and next to nothing for the exceptions of a sequential write.

mod builder;
mod leaf;

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::units::{CowChunk, MAX_FILE_SIZE, OriginChunk, SECTOR_SIZE};
use leaf::{ENTRY_LEN, Entry, Leaf};

pub(crate) use builder::{BuildReport, Conflict, SharedChunk, TableBuilder};

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
    /// By the lowest old chunk that a leaf may hold. No leaf is empty, and none reaches into the next one's part.
    leaves: BTreeMap<u64, Leaf>,
    len: u64,
}

impl ExceptionTable {
    /// Number of exceptions.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no exception.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all exceptions.
    pub(crate) fn clear(&mut self) {
        *self = ExceptionTable::default();
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
    pub(crate) fn lookup_run(&self, old: OriginChunk, max_len: u64) -> Run {
        let old = old.0;
        if let Some((_, leaf)) = self.leaf_at(old) {
            let entries = leaf.entries();
            let within = old % SEGMENT;
            let at = leaf.position(within as u32);
            let before = at.checked_sub(1).and_then(|index| entries.get(index));
            if let Some(entry) = before.filter(|entry| within < entry.end()) {
                let new = CowChunk(entry.new_chunk() + (within - entry.old()));
                let len = entry.end() - within;
                // Most questions end inside the entry; only longer ones need the neighbours.
                let len = if len < max_len {
                    self.joined_len(old)
                } else {
                    len
                };
                return Run::Mapped {
                    new,
                    len: len.min(max_len),
                };
            }
            if let Some(next) = entries.get(at) {
                return Run::Unmapped {
                    len: max_len.min(next.old() - within),
                };
            }
        }
        if max_len <= 1 {
            return Run::Unmapped { len: max_len };
        }
        let next = self.pieces_from(old).next();
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
        let first = self.leaf_at(start).map_or(start, |(base, _)| base);
        let mut removed = 0;
        let mut empty = Vec::new();
        let mut split = None;
        for (&base, leaf) in self.leaves.range_mut(first..end) {
            let segment = segment_start(base);
            let from = start.max(segment) - segment;
            let (count, part) = leaf.remove(from, end - segment);
            removed += count;
            // Only a hole inside one run makes a leaf larger, so at most one leaf is split.
            split = split.or(part.map(|(first, leaf)| (segment + first, leaf)));
            if leaf.is_empty() {
                empty.push(base);
            }
        }
        for base in empty {
            self.leaves.remove(&base);
        }
        self.leaves.extend(split);
        self.len -= removed;
        removed
    }

    /// The highest old chunk that has an exception.
    pub(crate) fn last_old(&self) -> Option<OriginChunk> {
        let (&base, leaf) = self.leaves.last_key_value()?;
        let last = leaf.entries().last()?;
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
        // A node of the map has places for 11 leaves, is seven tenths full after random inserts and half full after ascending ones;
        // one in seven or so has pointers to 12 children besides.
        const BYTES_PER_LEAF: usize = 60;
        self.leaves
            .values()
            .map(|leaf| leaf.heap_bytes() + BYTES_PER_LEAF)
            .sum()
    }

    /// The leaf that holds `old` if any does.
    #[inline]
    fn leaf_at(&self, old: u64) -> Option<(u64, &Leaf)> {
        let (&base, leaf) = self.leaves.range(..=old).next_back()?;
        (segment_start(base) == segment_start(old)).then_some((base, leaf))
    }

    /// How many of `wanted` old chunks from `old` one entry of one leaf can take.
    fn room_at(&self, old: u64, wanted: u64) -> u64 {
        if wanted == 1 {
            return 1;
        }
        let in_segment = SEGMENT - old % SEGMENT;
        let next = self.leaves.range(old + 1..).next();
        let in_leaf = next.map_or(u64::MAX, |(&base, _)| base - old);
        in_segment.min(in_leaf).min(ENTRY_LEN)
    }

    fn insert_piece(&mut self, old: u64, new: u64, len: u64) {
        let segment = segment_start(old);
        let entry = Entry::new((old - segment) as u32, new, len);
        let found = self.leaves.range_mut(..=old).next_back();
        let split = match found.filter(|(base, _)| segment_start(**base) == segment) {
            Some((_, leaf)) => leaf.insert(entry),
            // The lowest leaf of a segment takes all from its start, so that descending inserts fill it.
            None => self.leaves.entry(segment).or_default().insert(entry),
        };
        self.leaves
            .extend(split.map(|(first, leaf)| (segment + first, leaf)));
    }

    /// Number of exceptions from `old` on that follow each other on both sides.
    fn joined_len(&self, old: u64) -> u64 {
        self.iter_from(OriginChunk(old))
            .next()
            .map_or(0, |run| run.len)
    }

    fn pieces_from(&self, old: u64) -> Pieces<'_> {
        let first = self.leaf_at(old).map_or(old, |(base, _)| base);
        let mut leaves = self.leaves.range(first..);
        let (segment, entries) = leaves.next().map_or((0, [].as_slice()), leaf_parts);
        let skip = entries.partition_point(|entry| segment + entry.end() <= old);
        let entries = entries.get(skip..).unwrap_or_default().iter();
        Pieces {
            leaves,
            segment,
            entries,
            from: old,
        }
    }
}

/// Entry by entry, as stored.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    leaves: btree_map::Range<'a, u64, Leaf>,
    segment: u64,
    entries: std::slice::Iter<'a, Entry>,
    from: u64,
}

impl Iterator for Pieces<'_> {
    type Item = ExceptionRun;

    fn next(&mut self) -> Option<ExceptionRun> {
        let entry = loop {
            if let Some(entry) = self.entries.next() {
                break entry;
            }
            let (segment, entries) = leaf_parts(self.leaves.next()?);
            self.segment = segment;
            self.entries = entries.iter();
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

fn leaf_parts<'a>((&base, leaf): (&'a u64, &'a Leaf)) -> (u64, &'a [Entry]) {
    (segment_start(base), leaf.entries())
}

#[cfg(test)]
mod tests;
