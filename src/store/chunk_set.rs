//! A set of COW chunks, kept as ranges.

use std::collections::BTreeMap;

use crate::units::CowChunk;

/// `len` chunks of the COW file from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRange {
    /// First chunk.
    pub(crate) start: CowChunk,
    /// Number of chunks.
    pub(crate) len: u64,
}

impl ChunkRange {
    /// First chunk behind the range.
    pub(crate) const fn end(self) -> CowChunk {
        CowChunk(self.start.0 + self.len)
    }
}

/// Chunks of the COW file in ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkSet {
    /// First chunk to end.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl ChunkSet {
    /// Number of chunks.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `chunk` is in the set.
    #[cfg(test)]
    pub(crate) fn contains(&self, chunk: CowChunk) -> bool {
        self.ranges
            .range(..=chunk.0)
            .next_back()
            .is_some_and(|(_, &end)| chunk.0 < end)
    }

    /// Adds `len` chunks from `start`; some may be there already.
    pub(crate) fn insert(&mut self, start: CowChunk, len: u64) {
        if len == 0 {
            return;
        }
        let mut start = start.0;
        let mut end = start.saturating_add(len);
        // From the end backwards: every range that overlaps the new one or touches it becomes part of it.
        while let Some((&found_start, &found_end)) = self.ranges.range(..=end).next_back() {
            if found_end < start {
                break;
            }
            self.ranges.remove(&found_start);
            self.len -= found_end - found_start;
            start = start.min(found_start);
            end = end.max(found_end);
        }
        self.put(start, end);
    }

    /// Takes out what is there of `len` chunks from `start`; tells how many that were.
    pub(crate) fn remove(&mut self, start: CowChunk, len: u64) -> u64 {
        let before = self.len;
        let start = start.0;
        let end = start.saturating_add(len);
        while let Some((&found_start, &found_end)) = self.ranges.range(..end).next_back() {
            if len == 0 || found_end <= start {
                break;
            }
            self.ranges.remove(&found_start);
            self.len -= found_end - found_start;
            // At most one range is cut at each side.
            self.put(found_start, start);
            self.put(end, found_end);
        }
        before - self.len
    }

    /// The lowest range.
    pub(crate) fn first_range(&self) -> Option<ChunkRange> {
        self.iter().next()
    }

    /// The highest range.
    pub(crate) fn last_range(&self) -> Option<ChunkRange> {
        self.ranges.last_key_value().map(range)
    }

    /// All ranges, ascending.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = ChunkRange> {
        self.ranges.iter().map(range)
    }

    fn put(&mut self, start: u64, end: u64) {
        if start < end {
            self.ranges.insert(start, end);
            self.len += end - start;
        }
    }
}

fn range((&start, &end): (&u64, &u64)) -> ChunkRange {
    ChunkRange {
        start: CowChunk(start),
        len: end - start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ranges(set: &ChunkSet) -> Vec<(u64, u64)> {
        set.iter()
            .map(|range| (range.start.0, range.end().0))
            .collect()
    }

    #[test]
    fn test_insert_joins_what_touches() {
        let mut set = ChunkSet::default();
        for start in [2, 8, 5] {
            set.insert(CowChunk(start), 2);
        }
        assert_eq!(ranges(&set), [(2, 4), (5, 7), (8, 10)]);
        set.insert(CowChunk(4), 1);
        assert_eq!(ranges(&set), [(2, 7), (8, 10)]);
        set.insert(CowChunk(0), 20);
        assert_eq!((ranges(&set), set.len()), (vec![(0, 20)], 20));
    }

    proptest! {
        #[test]
        fn test_chunk_set_against_a_model(
            steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..60),
        ) {
            let mut set = ChunkSet::default();
            let mut model = BTreeSet::new();
            for (insert, start, len) in steps {
                if insert {
                    set.insert(CowChunk(start), len);
                    model.extend(start..start + len);
                } else {
                    let before = model.len();
                    model.retain(|chunk| !(start..start + len).contains(chunk));
                    prop_assert_eq!(set.remove(CowChunk(start), len), (before - model.len()) as u64);
                }
                let found = ranges(&set);
                prop_assert!(found.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", found);
                prop_assert_eq!(set.len(), model.len() as u64);
                for chunk in 0..80 {
                    prop_assert_eq!(set.contains(CowChunk(chunk)), model.contains(&chunk));
                }
            }
        }
    }
}
