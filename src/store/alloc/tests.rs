//! The allocator against the plain rules of the format: which chunks there are, and which areas have to be there before them.

use std::collections::BTreeSet;

use super::*;
use crate::units::ChunkSize;

/// Chunks of 512 bytes: 32 of data behind each area.
const CHUNK: u64 = 512;
const STRIDE: u64 = 33;

fn geometry() -> Geometry {
    Geometry::new(ChunkSize::from_bytes(CHUNK).unwrap())
}

fn run_of(new: u64, count: u64, zero: bool) -> Run {
    Run { new, count, zero }
}

fn is_area(chunk: u64) -> bool {
    chunk % STRIDE == 1
}

/// An allocator, and what it was seen to do.
struct Seen {
    allocator: Allocator,
    /// Chunks in use.
    used: BTreeSet<u64>,
    /// Areas that are zero, the first one from the beginning.
    areas: BTreeSet<u64>,
    /// Length of the file as the steps change it.
    size: u64,
    /// Chunks from here on read as zeros.
    written_to: u64,
}

impl Seen {
    fn new(growable: bool, fill_holes: bool, size: u64) -> Seen {
        Seen {
            allocator: Allocator::new(geometry(), growable, fill_holes, size),
            used: BTreeSet::new(),
            areas: BTreeSet::from([1]),
            size,
            written_to: size.div_ceil(CHUNK),
        }
    }

    /// A file with a header and the first area, and so many chunks in use.
    fn file(fill_holes: bool, used: usize) -> Seen {
        let mut seen = Seen::new(true, fill_holes, 2 * CHUNK);
        while seen.used.len() < used {
            let more = used - seen.used.len();
            assert!(seen.allocate(more as u64).is_some());
        }
        seen
    }

    /// Runs the steps of a reservation.
    fn reserve(&mut self, count: u64) {
        let reservation = self.allocator.reserve(count).unwrap();
        let mut areas = Vec::new();
        for step in &reservation.steps {
            match step {
                Step::SetSize {
                    device: Device::Cow,
                    size,
                } => {
                    assert!(*size > self.size, "a file is not made shorter");
                    assert_eq!(size % CHUNK, 0);
                    self.size = *size;
                }
                Step::WriteZeroes {
                    device: Device::Cow,
                    range,
                    unmap: false,
                } => {
                    assert_eq!((range.start % CHUNK, range.len), (0, CHUNK));
                    assert!(range.end() <= self.size, "{range:?} of {}", self.size);
                    let chunk = range.start / CHUNK;
                    assert!(is_area(chunk), "chunk {chunk}");
                    assert!(self.areas.insert(chunk), "area {chunk} is wiped again");
                    areas.push(chunk / STRIDE);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(areas, reservation.areas.clone().collect::<Vec<_>>());
        assert!(areas.len() as u64 <= SLAB_AREAS);
        self.allocator.reserved(&reservation);
        assert_eq!(self.allocator.cow_size(), self.size);
    }

    /// Allocates, reserving as often as it takes.
    fn allocate(&mut self, count: u64) -> Option<Run> {
        for _ in 0..2 {
            match self.allocator.allocate(count, self.used.len() as u64) {
                Allocation::Run(run) => {
                    self.take(count, run);
                    return Some(run);
                }
                Allocation::Full => return None,
                Allocation::Reserve => self.reserve(count),
            }
        }
        panic!("reserved, and nothing was handed out");
    }

    fn take(&mut self, wanted: u64, run: Run) {
        assert!(1 <= run.count && run.count <= wanted, "{run:?}");
        for chunk in run.new..run.new + run.count {
            assert!(chunk >= 2 && !is_area(chunk), "{run:?}");
            assert!((chunk + 1) * CHUNK <= self.size, "{run:?} of {}", self.size);
            assert!(self.used.insert(chunk), "{chunk} is used twice");
            // The area of its record was there from the beginning or made, and so was the one behind a full one.
            for area in [chunk, chunk + 1].into_iter().filter(|&near| is_area(near)) {
                assert!(self.areas.contains(&area), "{run:?} before area {area}");
            }
            assert_eq!(run.zero, chunk >= self.written_to, "{run:?}");
        }
        self.written_to = self.written_to.max(run.new + run.count);
    }

    fn free(&mut self, new: u64, count: u64) {
        for chunk in new..new + count {
            assert!(self.used.remove(&chunk));
        }
        self.allocator.free(new, count);
    }

    /// Cuts the file. Returns to how many chunks.
    fn cut(&mut self, min_chunks: u64, keep_slab: bool, done: bool) -> Option<u64> {
        let reclaim = self.allocator.cut(min_chunks, keep_slab)?;
        let [
            Step::SetSize {
                device: Device::Cow,
                size,
            },
        ] = reclaim.steps[..]
        else {
            panic!("{:?}", reclaim.steps);
        };
        assert_eq!(reclaim.cut_to(), Some(size));
        assert!(size < self.size);
        self.allocator.reclaimed(&reclaim, done);
        // Areas behind the cut are made anew.
        let next_free = self.allocator.next_free();
        self.areas.retain(|&area| area < next_free);
        if done {
            self.size = size;
            self.written_to = self.written_to.min(size / CHUNK);
        }
        assert_eq!(self.allocator.cow_size(), self.size);
        Some(size / CHUNK)
    }
}

/// Data chunks that a device of so many chunks can use: the last one of an area only if the next area is there.
fn usable(chunks: u64) -> Vec<u64> {
    let fits = |chunk: &u64| !is_area(*chunk) && (!is_area(chunk + 1) || chunk + 1 < chunks);
    (2..chunks).filter(fits).collect()
}

#[test]
fn test_devices_of_every_size_are_filled_to_the_last_chunk() {
    for chunks in 2..120 {
        for count in [1, 2, 5, 31, 32, 33, 1000] {
            for rest in [0, 1, 511] {
                let mut seen = Seen::new(false, true, chunks * CHUNK + rest);
                // Nobody knows what a device holds.
                seen.written_to = u64::MAX;
                let mut next = 2;
                while let Some(run) = seen.allocate(count) {
                    assert_eq!(run.new, next + u64::from(is_area(next)), "not in order");
                    next = run.new + run.count;
                }
                let used: Vec<u64> = seen.used.iter().copied().collect();
                assert_eq!(used, usable(chunks), "{chunks} chunks, {count} at a time");
                assert_eq!(used.len() as u64, geometry().capacity(chunks));
            }
        }
    }
}

#[test]
fn test_files_grow_by_slabs() {
    let mut seen = Seen::file(true, 0);
    let slab = SLAB_BYTES / CHUNK;
    assert_eq!(seen.allocate(1), Some(run_of(2, 1, true)));
    // As many areas as are zeroed at a time are fewer than a slab has.
    let limit = seen.size / CHUNK;
    assert_eq!(limit, (1 + SLAB_AREAS) * STRIDE);
    assert!(limit < slab);
    // What is asked for as a whole comes in runs between areas and limits.
    let mut next = 3;
    for _ in 0..3 * SLAB_AREAS {
        let run = seen.allocate(5000).unwrap();
        assert_eq!(run.new, next);
        next = geometry().skip_area(CowChunk(run.new + run.count)).0;
    }
    assert!(next > 2 * limit);
}

#[test]
fn test_large_chunks_are_reserved_one_by_one() {
    let chunk = ChunkSize::from_bytes(64 << 20).unwrap();
    let allocator = Allocator::new(Geometry::new(chunk), true, true, 2 * chunk.bytes());
    let reservation = allocator.reserve(1).unwrap();
    assert_eq!(reservation.cow_size, 3 * chunk.bytes());
    let reservation = allocator.reserve(7).unwrap();
    assert_eq!(reservation.cow_size, 9 * chunk.bytes());
    let reservation = allocator.reserve(u64::MAX).unwrap();
    assert_eq!(reservation.cow_size, (2 + MAX_SLAB_CHUNKS) * chunk.bytes());
}

#[test]
fn test_a_slab_without_space_is_followed_by_one_chunk() {
    let mut seen = Seen::file(true, 0);
    assert!(seen.allocator.could_not_reserve());
    assert!(
        !seen.allocator.could_not_reserve(),
        "one chunk is the least"
    );
    seen.reserve(1000);
    assert_eq!(seen.size, 3 * CHUNK);
    // With space again, a slab.
    assert!(seen.allocate(1).is_some());
    seen.reserve(1);
    assert!(seen.size > 100 * CHUNK);
}

#[test]
fn test_holes_are_filled_unless_the_kernel_would_not() {
    for fill in [true, false] {
        let mut seen = Seen::file(fill, 100);
        seen.free(5, 3);
        let end = seen.allocator.next_free();
        let holes: Vec<_> = seen.allocator.holes().collect();
        assert_eq!(holes, [(CowChunk(5), 3)]);
        let run = seen.allocator.allocate(2, 97);
        let expected = if fill { 5 } else { end };
        let Allocation::Run(run) = run else {
            panic!("{run:?}")
        };
        assert_eq!(run.new, expected);
        assert!(!run.zero || !fill, "its content is not known");
    }
}

#[test]
fn test_holes_that_were_given_back_read_as_zeros() {
    let mut seen = Seen::file(true, 100);
    assert!(!seen.allocator.has_reclaimable());
    seen.free(40, 4);
    assert!(seen.allocator.has_reclaimable());
    let reclaim = seen.allocator.reclaim();
    let range = ByteRange::new(40 * CHUNK, 4 * CHUNK);
    assert!(matches!(
        reclaim.steps[..],
        [Step::WriteZeroes { device: Device::Cow, range: found, unmap: true }] if found == range
    ));
    assert_eq!(reclaim.cut_to(), None);
    // Nobody gets them while that is under way.
    assert_eq!(seen.allocator.holes().count(), 0);
    seen.allocator.reclaimed(&reclaim, true);
    assert!(!seen.allocator.has_reclaimable());
    seen.free(10, 2);
    // Zeros first, whatever lies before them.
    let first = seen.allocator.allocate(10, 94);
    assert_eq!(first, Allocation::Run(run_of(40, 4, true)));
    let second = seen.allocator.allocate(10, 98);
    assert_eq!(second, Allocation::Run(run_of(10, 2, false)));
    assert_eq!(seen.allocator.holes().count(), 0);
}

#[test]
fn test_holes_whose_space_could_not_be_given_back_stay_holes() {
    let mut seen = Seen::file(true, 40);
    seen.free(10, 2);
    let reclaim = seen.allocator.reclaim();
    seen.allocator.reclaimed(&reclaim, false);
    let again = seen.allocator.allocate(10, 38);
    assert_eq!(again, Allocation::Run(run_of(10, 2, false)));
}

#[test]
fn test_what_is_free_at_the_end_is_no_hole() {
    let mut seen = Seen::file(true, 64);
    // Two areas are full: chunks 2 to 33 and 35 to 66; the next one would be 68.
    assert_eq!(seen.allocator.next_free(), 68);
    seen.free(60, 5);
    assert_eq!(seen.allocator.next_free(), 68);
    seen.free(65, 2);
    assert_eq!(seen.allocator.next_free(), 60);
    seen.free(30, 4);
    seen.free(35, 25);
    // Across the area between them.
    assert_eq!(seen.allocator.next_free(), 30);
    assert_eq!(seen.allocator.holes().count(), 0);
    seen.free(2, 28);
    assert_eq!(seen.allocator.next_free(), 2);
    assert!(!seen.allocator.has_reclaimable());
}

#[test]
fn test_files_are_cut_behind_the_last_chunk_in_use() {
    let mut seen = Seen::file(true, 40);
    let next = seen.allocator.next_free();
    assert_eq!(seen.cut(0, true, true), None, "a slab is kept");
    // The host may refuse, and is asked again only for less.
    assert_eq!(seen.cut(0, false, false), Some(next));
    assert_eq!(seen.cut(0, false, true), None);
    seen.free(next - 1, 1);
    assert_eq!(
        seen.cut(next + 1, false, true),
        None,
        "more than was refused"
    );
    assert_eq!(seen.cut(0, false, true), Some(next - 1));
    assert_eq!(seen.cut(0, false, true), None, "there is nothing more");
    // What comes next is new, and needs space first.
    let run = seen.allocate(1).unwrap();
    assert_eq!(run, run_of(next - 1, 1, true));
    assert_eq!(seen.cut(next + 10, false, true), Some(next + 10));
    // An area where the file would end is part of what is kept.
    while !is_area(seen.allocator.next_free() - 1) {
        seen.allocate(1).unwrap();
    }
    let next = seen.allocator.next_free();
    assert_eq!(seen.cut(0, false, true), Some(next));
}

#[test]
fn test_devices_are_not_cut() {
    let mut seen = Seen::new(false, true, 100 * CHUNK);
    seen.written_to = u64::MAX;
    assert!(seen.allocate(1).is_some());
    assert_eq!(seen.cut(0, false, true), None);
    seen.free(2, 1);
    assert!(!seen.allocator.has_reclaimable());
    assert!(seen.allocator.reclaim().steps.is_empty());
}

#[test]
fn test_files_that_were_written_past_their_end_are_longer() {
    for growable in [true, false] {
        let mut seen = Seen::new(growable, true, 50 * CHUNK);
        seen.allocator.written_to(60 * CHUNK);
        let expected = if growable { 60 } else { 50 };
        assert_eq!(seen.allocator.cow_size(), expected * CHUNK);
        seen.allocator.written_to(CHUNK);
        assert_eq!(seen.allocator.cow_size(), expected * CHUNK);
    }
}
