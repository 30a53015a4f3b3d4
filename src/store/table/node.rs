//! A node of the exception table: some hundred leaves of one segment.
//!
//! The leaves' first old chunks lie apart, so that a search touches few cache lines; between two of them, the position of an old chunk
//! in its leaf can be guessed, which saves a large table most of its cache misses.

use std::mem::size_of;

use super::leaf::{Entry, Leaf};

/// Leaves a node may have.
pub(super) const NODE_LEAVES: usize = 512;

/// Leaves sorted by old chunk. Never empty in the table.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Lowest old chunk that each leaf may hold, counted from the segment's start.
    keys: Vec<u32>,
    leaves: Vec<Leaf>,
}

impl Node {
    /// A node of one leaf.
    pub(super) fn new(key: u64, leaf: Leaf) -> Node {
        Node {
            keys: vec![key as u32],
            leaves: vec![leaf],
        }
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.leaves.len() >= NODE_LEAVES
    }

    /// Adds a leaf behind all others.
    pub(super) fn push(&mut self, key: u64, leaf: Leaf) {
        self.keys.push(key as u32);
        self.leaves.push(leaf);
    }

    /// The leaf that `old` belongs to, and the position in it behind all entries that start at or before `old`.
    ///
    /// The node's own part begins at or before `old`.
    #[inline]
    pub(super) fn find(&self, old: u64) -> (usize, usize) {
        let old = old as u32;
        let index = self.index(old);
        let (Some(&key), Some(leaf)) = (self.keys.get(index), self.leaves.get(index)) else {
            return (index, 0);
        };
        let next = self
            .keys
            .get(index + 1)
            .copied()
            .unwrap_or_else(|| leaf.last_old());
        (index, leaf.position(old, key, next))
    }

    /// The entries of the leaf of `old` that do not end before it, and the leaves behind.
    pub(super) fn from(&self, old: u64) -> (&[Entry], &[Leaf]) {
        let (index, at) = self.find(old);
        let rest = self.leaves.get(index..).unwrap_or_default();
        let Some((leaf, behind)) = rest.split_first() else {
            return (&[], &[]);
        };
        let (before, after) = leaf.entries().split_at(at);
        match before.last() {
            Some(entry) if entry.end() > old => (&leaf.entries()[at - 1..], behind),
            _ => (after, behind),
        }
    }

    /// First old chunk behind `old` that another leaf of this node may hold.
    pub(super) fn next_key(&self, old: u64) -> Option<u64> {
        self.keys
            .get(self.index(old as u32) + 1)
            .map(|&key| u64::from(key))
    }

    /// Adds a run, which lies in one leaf's part, and returns what is to be a node of its own, with its first old chunk.
    pub(super) fn insert(&mut self, run: Entry) -> Option<(u64, Node)> {
        let (index, at) = self.find(run.old());
        let split = self.leaves.get_mut(index)?.insert(at, run);
        split.and_then(|(key, leaf)| self.insert_leaf(index + 1, key, leaf))
    }

    /// Takes out the old chunks from `start` to before `end`. Returns how many there were, and a part as in [`Node::insert`].
    pub(super) fn remove(&mut self, start: u64, end: u64) -> (u64, Option<(u64, Node)>) {
        let first = self.index(start as u32);
        let mut removed = 0;
        let mut split = None;
        let mut emptied = false;
        for index in (first..self.leaves.len()).take_while(|&i| u64::from(self.keys[i]) < end) {
            let leaf = &mut self.leaves[index];
            let (count, part) = leaf.remove(start, end);
            removed += count;
            emptied |= leaf.is_empty();
            // Only a hole inside one run makes a leaf larger, so at most one leaf is split.
            split = split.or(part.map(|(key, leaf)| (index + 1, key, leaf)));
        }
        if emptied {
            self.drop_empty_leaves();
        }
        // A hole leaves both its sides, so no leaf in front of the split one was dropped.
        (
            removed,
            split.and_then(|(at, key, leaf)| self.insert_leaf(at, key, leaf)),
        )
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(Leaf::heap_bytes).sum();
        leaves
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.keys.capacity() * size_of::<u32>()
    }

    #[inline]
    fn index(&self, old: u32) -> usize {
        // What lies below the first key belongs to the first leaf, too.
        self.keys_up_to(old).saturating_sub(1)
    }

    /// Number of keys up to `old`. Guessed first, since each key that is looked at may be another miss of the cache.
    #[inline]
    fn keys_up_to(&self, old: u32) -> usize {
        /// Evenly scattered keys are rarely further from where they are expected.
        const REACH: usize = 8;
        let keys = self.keys.as_slice();
        let (Some(&first), Some(&last)) = (keys.first(), keys.last()) else {
            return 0;
        };
        let distance = u64::from(old.saturating_sub(first));
        let span = u64::from(last - first).max(1);
        let guess = (distance * keys.len() as u64 / span) as usize;
        let from = guess.saturating_sub(REACH);
        let window: Option<&[u32; 2 * REACH]> = keys.get(from..).and_then(<[u32]>::first_chunk);
        match window {
            Some(window) if window[0] <= old && old < window[2 * REACH - 1] => {
                from + window.iter().filter(|&&key| key <= old).count()
            }
            _ => keys.partition_point(|&key| key <= old),
        }
    }

    fn insert_leaf(&mut self, at: usize, key: u64, leaf: Leaf) -> Option<(u64, Node)> {
        if self.is_full() && at == self.leaves.len() {
            // Ascending inserts leave full nodes behind.
            return Some((key, Node::new(key, leaf)));
        }
        self.keys.insert(at, key as u32);
        self.leaves.insert(at, leaf);
        if self.leaves.len() <= NODE_LEAVES {
            return None;
        }
        let middle = self.leaves.len() / 2;
        let upper = Node {
            keys: self.keys.split_off(middle),
            leaves: self.leaves.split_off(middle),
        };
        let first = upper.keys.first().copied()?;
        Some((u64::from(first), upper))
    }

    /// The part of an empty leaf goes to the one before, that of the first to the one behind.
    fn drop_empty_leaves(&mut self) {
        let mut leaves = self.leaves.iter();
        self.keys
            .retain(|_| leaves.next().is_some_and(|leaf| !leaf.is_empty()));
        self.leaves.retain(|leaf| !leaf.is_empty());
    }
}
