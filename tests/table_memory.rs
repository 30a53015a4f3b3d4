//! Memory of the exception table, counted by the allocator itself.
//!
//! All exceptions of an open image are in memory, so a table that wastes some bytes for each of them wastes gigabytes on a large
//! layer. The aim is 16 bytes an exception for first writes at random, and next to nothing for sequential ones. What the table says of
//! itself must be true as well: tools print it.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dmsnap::testing::ExceptionTable;

/// Counts bytes as requested, now and at most.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments as they came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        PEAK.fetch_max(live, SeqCst);
        // SAFETY: the caller keeps alloc's contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: `block` came from `alloc` above, that is from the system's allocator, with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COUNT: u64 = 1_000_000;

/// All numbers below [`COUNT`], each once, scattered by a xorshift generator from a fixed seed.
fn shuffled() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..COUNT as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..numbers.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(last, (state % (last as u64 + 1)) as usize);
    }
    numbers
}

/// The `index`-th data chunk of a compact log with chunks of 16 KiB, which have a metadata area after each 1024.
fn data_chunk(index: u64) -> u64 {
    2 + index + index / 1024
}

/// Makes a table; returns it with the bytes that it holds and the most that were held while it was made.
fn measured(make: impl FnOnce() -> ExceptionTable) -> (ExceptionTable, usize, usize) {
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let table = make();
    assert_eq!(table.exceptions(), COUNT);
    (
        table,
        LIVE.load(SeqCst) - before,
        PEAK.load(SeqCst) - before,
    )
}

fn assert_honest(table: &ExceptionTable, held: usize) {
    let said = table.heap_bytes();
    let off = said.abs_diff(held);
    assert!(off < held / 200 + 1024, "says {said} bytes, holds {held}");
}

// One test, since the counters are the process's.
#[test]
fn test_bytes_for_an_exception() {
    let order = shuffled();
    let count = COUNT as usize;

    let (mut table, held, _) = measured(|| {
        let mut table = ExceptionTable::default();
        for (index, &old) in (0..).zip(&order) {
            table.insert(u64::from(old) * 3, data_chunk(index));
        }
        table
    });
    assert!(held <= 14 * count, "random inserts: {held} bytes");
    assert_honest(&table, held);
    let before = LIVE.load(SeqCst);
    for &old in &order {
        table.remove(u64::from(old) * 3);
    }
    let freed = before - LIVE.load(SeqCst);
    // A map keeps its root.
    assert!(
        held - freed <= 1024,
        "an empty table holds {} bytes",
        held - freed
    );

    let (table, held, _) = measured(|| {
        let mut table = ExceptionTable::default();
        (0..COUNT).for_each(|index| table.insert(index, data_chunk(index)));
        table
    });
    assert!(held <= count / 20, "sequential inserts: {held} bytes");
    assert_honest(&table, held);

    let random = || {
        (0..)
            .zip(&order)
            .map(|(index, &old)| (u64::from(old) * 3, index))
    };
    let (table, held, peak) =
        measured(|| ExceptionTable::from_log(random().map(|(old, i)| (old, data_chunk(i)))));
    assert!(held <= 13 * count, "loading random ones: {held} bytes");
    assert!(
        peak <= 20 * count,
        "loading random ones: {peak} bytes for a while"
    );
    assert_honest(&table, held);

    // A log whose new chunks go down: holes that were filled, say.
    let (table, held, peak) =
        measured(|| ExceptionTable::from_log(random().map(|(old, i)| (old, 2 + COUNT - i))));
    assert!(held <= 13 * count, "loading descending ones: {held} bytes");
    assert!(
        peak <= 20 * count,
        "loading descending ones: {peak} bytes for a while"
    );
    assert_honest(&table, held);

    let (table, held, peak) =
        measured(|| ExceptionTable::from_log((0..COUNT).map(|i| (i, data_chunk(i)))));
    assert!(
        held.max(peak) <= count / 10,
        "loading sequential ones: {held} bytes, {peak}"
    );
    assert_honest(&table, held);
}
