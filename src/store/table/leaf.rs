//! A leaf of the exception table: some hundred runs in 12 bytes each, sorted by old chunk.
//!
//! Old chunks are counted from the start of the leaf's segment, so they fit 32 bits.

use std::mem::size_of;

/// Entries a leaf may have. More make inserts slower, fewer make the directory larger.
pub(super) const LEAF_ENTRIES: usize = 256;

/// Longest run that one entry holds.
pub(super) const ENTRY_LEN: u64 = u16::MAX as u64;

/// `len` old chunks from `old`, kept in as many new chunks. The new chunk number has 48 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    old: u32,
    new_low: u32,
    new_high: u16,
    len: u16,
}

const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    /// `len` must be at most [`ENTRY_LEN`].
    pub(super) fn new(old: u32, new: u64, len: u64) -> Entry {
        debug_assert!(new < 1 << 48 && (1..=ENTRY_LEN).contains(&len));
        Entry {
            old,
            new_low: new as u32,
            new_high: (new >> 32) as u16,
            len: len as u16,
        }
    }

    /// First old chunk in its segment.
    pub(super) fn old(self) -> u64 {
        u64::from(self.old)
    }

    pub(super) fn new_chunk(self) -> u64 {
        u64::from(self.new_high) << 32 | u64::from(self.new_low)
    }

    pub(super) fn len(self) -> u64 {
        u64::from(self.len)
    }

    /// First old chunk behind the run.
    pub(super) fn end(self) -> u64 {
        self.old() + self.len()
    }

    /// Whether `next` continues this run on both sides, and one entry can hold both.
    pub(super) fn joins(self, next: Entry) -> bool {
        self.end() == next.old()
            && self.new_chunk() + self.len() == next.new_chunk()
            && self.len() + next.len() <= ENTRY_LEN
    }

    pub(super) fn joined(self, next: Entry) -> Entry {
        Entry {
            len: self.len + next.len,
            ..self
        }
    }

    /// The part from old chunk `from`, which lies in the run, to its end.
    fn tail(self, from: u64) -> Entry {
        let skipped = from - self.old();
        Entry::new(
            from as u32,
            self.new_chunk() + skipped,
            self.len() - skipped,
        )
    }

    /// The part before old chunk `to`, which lies in the run.
    fn head(self, to: u64) -> Entry {
        Entry::new(self.old, self.new_chunk(), to - self.old())
    }
}

/// Runs of one segment, sorted, without overlaps.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    entries: Vec<Entry>,
}

impl Leaf {
    /// A leaf of one run.
    pub(super) fn new(run: Entry) -> Leaf {
        Leaf { entries: vec![run] }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Old chunk of the last entry; 0 without any.
    pub(super) fn last_old(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.old)
    }

    /// Number of entries that start at or before `old`. The leaf's old chunks lie between `low` and `high`, which serves to guess.
    #[inline]
    pub(super) fn position(&self, old: u32, low: u32, high: u32) -> usize {
        /// Evenly scattered entries are rarely further from where they are expected, in a full leaf.
        const REACH: usize = 16;
        let entries = self.entries.as_slice();
        let starts_before = |entry: &Entry| entry.old <= old;
        let distance = u64::from(old.saturating_sub(low));
        let span = u64::from(high.saturating_sub(low)).max(1);
        let guess = (distance * entries.len() as u64 / span) as usize;
        // Step by step from there: what a large table costs is the cache lines that are touched, and a neighbour is mostly in the same.
        let (before, behind) = entries.split_at(guess.min(entries.len()));
        let up = behind.iter().take(REACH).take_while(|e| starts_before(e));
        match up.count() {
            0 => {
                let down = before.iter().rev().take(REACH);
                let steps = down.take_while(|e| !starts_before(e)).count();
                if steps < REACH {
                    return before.len() - steps;
                }
            }
            steps if steps < REACH => return before.len() + steps,
            _ => {}
        }
        entries.partition_point(starts_before)
    }

    /// Adds at `at`, its [`position`](Leaf::position), a run that overlaps no other, joined to its neighbours where it continues them.
    ///
    /// If the leaf becomes too large, returns the part that is to be a leaf of its own and its first old chunk.
    pub(super) fn insert(&mut self, at: usize, run: Entry) -> Option<(u64, Leaf)> {
        let before = at
            .checked_sub(1)
            .and_then(|index| self.entries.get(index))
            .copied();
        let after = self.entries.get(at).copied();
        debug_assert!(
            before.is_none_or(|before| before.end() <= run.old()),
            "run is present"
        );
        debug_assert!(
            after.is_none_or(|after| run.end() <= after.old()),
            "run is present"
        );
        match (before, after) {
            (Some(before), _) if before.joins(run) => {
                let grown = before.joined(run);
                match after {
                    Some(after) if grown.joins(after) => {
                        self.entries[at - 1] = grown.joined(after);
                        self.entries.remove(at);
                    }
                    _ => self.entries[at - 1] = grown,
                }
                None
            }
            (_, Some(after)) if run.joins(after) => {
                self.entries[at] = run.joined(after);
                None
            }
            _ => self.insert_entry(at, run),
        }
    }

    fn insert_entry(&mut self, at: usize, run: Entry) -> Option<(u64, Leaf)> {
        if self.entries.len() >= LEAF_ENTRIES && at == self.entries.len() {
            // Ascending inserts leave full leaves behind.
            return Some((run.old(), Leaf::new(run)));
        }
        self.grow();
        self.entries.insert(at, run);
        self.split_if_large()
    }

    /// Takes out what is there of the old chunks from `start` to before `end`. Returns their number, and a part as in [`Leaf::insert`].
    pub(super) fn remove(&mut self, start: u64, end: u64) -> (u64, Option<(u64, Leaf)>) {
        let first = self.entries.partition_point(|entry| entry.end() <= start);
        let behind = self.entries.partition_point(|entry| entry.old() < end);
        let Some(touched) = self
            .entries
            .get(first..behind)
            .filter(|touched| !touched.is_empty())
        else {
            return (0, None);
        };
        let before: u64 = touched.iter().map(|entry| entry.len()).sum();
        let kept_head = touched
            .first()
            .filter(|entry| entry.old() < start)
            .map(|e| e.head(start));
        let kept_tail = touched
            .last()
            .filter(|entry| entry.end() > end)
            .map(|e| e.tail(end));
        let kept: u64 = [kept_head, kept_tail]
            .iter()
            .flatten()
            .map(|entry| entry.len())
            .sum();
        if kept_head.is_some() && kept_tail.is_some() && behind - first == 1 {
            self.grow();
        }
        self.entries
            .splice(first..behind, kept_head.into_iter().chain(kept_tail));
        self.shrink();
        (before - kept, self.split_if_large())
    }

    /// A leaf of runs that are in order.
    pub(super) fn from_entries(entries: Vec<Entry>) -> Leaf {
        Leaf { entries }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Makes room for one more entry: in small steps, since a table of random exceptions consists of such leaves.
    fn grow(&mut self) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            self.entries.reserve_exact((len / 16).max(4));
        }
    }

    fn shrink(&mut self) {
        let len = self.entries.len();
        if self.entries.capacity() > 2 * len + 8 {
            self.entries.shrink_to(len + 4);
        }
    }

    fn split_if_large(&mut self) -> Option<(u64, Leaf)> {
        if self.entries.len() <= LEAF_ENTRIES {
            return None;
        }
        let upper = self.entries.split_off(self.entries.len() / 2);
        self.entries.shrink_to_fit();
        let first = upper.first()?.old();
        Some((first, Leaf { entries: upper }))
    }
}
