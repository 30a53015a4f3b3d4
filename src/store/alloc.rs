//! Which chunks of the COW file are free.
//!
//! Chunks are handed out in order from `next_free`, as the kernel does, and from holes below it, which the kernel leaves alone.
//! Nothing is handed out past `limit`: up to there the file has been extended and the metadata areas have been zeroed, so that a
//! later commit needs no new space and no data write races with a change of the file's size.

use std::ops::Range;

use super::chunk_set::{ChunkRange, ChunkSet};
use super::plan::{Device, Step};
use super::table::MAX_NEW_CHUNK;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Geometry;
use crate::units::{ByteRange, CowChunk, MAX_FILE_SIZE};

/// How far the file is extended at a time.
const SLAB_BYTES: u64 = 8 << 20;
/// The most chunks that a single request extends the file by.
const MAX_SLAB_CHUNKS: u64 = 1 << 16;
/// How many metadata areas are zeroed at a time.
const SLAB_AREAS: u64 = 16;

/// A run of chunks, and whether they read as zeros already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) new: u64,
    pub(crate) count: u64,
    pub(crate) zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocation {
    Run(Run),
    /// The limit was reached: run the steps of [`Allocator::reserve`] first.
    Reserve,
    Full,
}

/// What a reservation changes when its steps are done.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) steps: Vec<Step>,
    limit: u64,
    cow_size: u64,
    pub(crate) areas: Range<u64>,
}

/// What cutting the file changes when it is done.
#[derive(Clone, Debug)]
pub(crate) struct Reclaim {
    pub(crate) steps: Vec<Step>,
    cow_size: u64,
    punched: Vec<(u64, u64)>,
    cut: bool,
}

impl Reclaim {
    pub(crate) fn cut_to(&self) -> Option<u64> {
        self.cut.then_some(self.cow_size)
    }
}

#[derive(Debug)]
pub(crate) struct Allocator {
    geometry: Geometry,
    growable: bool,
    /// The kernel never fills holes; neither does a store in one of its modes.
    fill_holes: bool,
    cow_size: u64,
    next_free: u64,
    limit: u64,
    /// Chunks from here on have never been written.
    zero_from: u64,
    holes: ChunkSet,
    zero_holes: ChunkSet,
    /// Holes that this handle made and that may still occupy space.
    dirty: ChunkSet,
    /// The host could not make the file as short as this.
    cut_refused: Option<u64>,
    /// The last reservation found no room: the next one asks for a single chunk.
    short_of_space: bool,
}

impl Allocator {
    pub(crate) fn new(
        geometry: Geometry,
        growable: bool,
        fill_holes: bool,
        cow_size: u64,
    ) -> Allocator {
        Allocator {
            geometry,
            growable,
            fill_holes,
            cow_size,
            next_free: 2,
            limit: 2,
            zero_from: if growable {
                geometry.chunk_size().count_for(cow_size)
            } else {
                u64::MAX
            },
            holes: ChunkSet::default(),
            zero_holes: ChunkSet::default(),
            dirty: ChunkSet::default(),
            cut_refused: None,
            short_of_space: false,
        }
    }

    /// What loading found out. Holes may contain metadata areas.
    pub(crate) fn set_loaded(&mut self, next_free: u64, holes: ChunkSet) {
        self.next_free = next_free;
        self.limit = next_free;
        self.holes = holes;
    }

    pub(crate) fn next_free(&self) -> u64 {
        self.next_free
    }

    pub(crate) fn cow_size(&self) -> u64 {
        self.cow_size
    }

    pub(crate) fn set_cow_size(&mut self, size: u64) {
        self.cow_size = size;
    }

    /// Something was written that ends there: a file is as long as that at least.
    pub(crate) fn written_to(&mut self, end: u64) {
        if self.growable {
            self.cow_size = self.cow_size.max(end);
        }
    }

    pub(crate) fn holes(&self) -> impl Iterator<Item = (CowChunk, u64)> + '_ {
        self.holes
            .iter()
            .chain(self.zero_holes.iter())
            .map(|range| (range.start, range.len))
    }

    /// Whole chunks of a device that cannot grow; a file can grow to the longest offset.
    fn whole_chunks(&self) -> u64 {
        let size = if self.growable {
            MAX_FILE_SIZE
        } else {
            self.cow_size
        };
        self.geometry.whole_chunks(size).min(MAX_NEW_CHUNK + 1)
    }

    /// How many records the log can take: the area behind the last full one must exist.
    fn record_capacity(&self) -> u64 {
        let areas = self
            .whole_chunks()
            .saturating_sub(1)
            .div_ceil(self.geometry.stride());
        (areas.saturating_mul(self.geometry.exceptions_per_area())).saturating_sub(1)
    }

    /// Takes up to `count` consecutive chunks; `records` are all records there will be without them.
    pub(crate) fn allocate(&mut self, count: u64, records: u64) -> Allocation {
        let count = count.min(self.record_capacity().saturating_sub(records));
        if count == 0 {
            return Allocation::Full;
        }
        if self.fill_holes
            && let Some(run) = self.take_hole(count)
        {
            return Allocation::Run(run);
        }
        self.bump(count)
    }

    fn take_hole(&mut self, count: u64) -> Option<Run> {
        for zero in [true, false] {
            let set = if zero {
                &mut self.zero_holes
            } else {
                &mut self.holes
            };
            while let Some(range) = set.first_range() {
                let ChunkRange { start: first, len } = range;
                if self.geometry.is_area_chunk(first) {
                    set.remove(first, 1);
                    continue;
                }
                let count = count.min(len).min(data_run(self.geometry, first.0));
                set.remove(first, count);
                self.dirty.remove(first, count);
                return Some(Run {
                    new: first.0,
                    count,
                    zero,
                });
            }
        }
        None
    }

    fn bump(&mut self, count: u64) -> Allocation {
        let new = self.next_free;
        if !self.fits(new) {
            return Allocation::Full;
        }
        if new >= self.limit {
            return Allocation::Reserve;
        }
        let mut count = count
            .min(data_run(self.geometry, new))
            .min(self.limit - new);
        while !self.fits(new + count - 1) {
            count -= 1;
        }
        let zero = new >= self.zero_from;
        if !zero && new + count > self.zero_from {
            count = self.zero_from - new;
        }
        self.next_free = self.geometry.skip_area(CowChunk(new + count)).0;
        self.zero_from = self.zero_from.max(new + count);
        Allocation::Run(Run { new, count, zero })
    }

    /// Whether chunk `new` can be used: it lies inside, and so does the area behind it if it is the last of its own.
    fn fits(&self, new: u64) -> bool {
        let whole = self.whole_chunks();
        new < whole && (!self.geometry.is_area_chunk(CowChunk(new + 1)) || new + 1 < whole)
    }

    /// The steps that raise the limit by at least one chunk, and as far as `count` chunks want within a bound.
    pub(crate) fn reserve(&self, count: u64) -> Result<Reservation> {
        let geometry = self.geometry;
        let chunk = geometry.chunk_size();
        let slab = self.slab(count);
        let mut limit = self.next_free.saturating_add(slab).min(self.whole_chunks());
        // Area `a` is chunk 1 + a * stride; this is the first one at or behind next free.
        let first_area = (self.next_free - 1).div_ceil(geometry.stride());
        let mut areas = first_area..first_area;
        let mut steps = Vec::new();
        while let Some(area_chunk) = geometry.area_chunk(areas.end) {
            if area_chunk.0 > limit || area_chunk.0 >= self.whole_chunks() {
                break;
            }
            if areas.end - areas.start == SLAB_AREAS {
                limit = area_chunk.0 - 1;
                break;
            }
            let start = geometry.byte_offset(area_chunk).ok_or_else(too_far)?;
            let range = ByteRange::new(start, chunk.bytes());
            steps.push(Step::WriteZeroes {
                device: Device::Cow,
                range,
                unmap: false,
            });
            limit = limit.max(area_chunk.0 + 1);
            areas.end += 1;
        }
        let cow_size = self
            .cow_size
            .max(chunk.start_of(limit).ok_or_else(too_far)?);
        let cow_size = if self.growable {
            cow_size
        } else {
            self.cow_size
        };
        if cow_size > self.cow_size {
            steps.insert(
                0,
                Step::SetSize {
                    device: Device::Cow,
                    size: cow_size,
                },
            );
        }
        Ok(Reservation {
            steps,
            limit,
            cow_size,
            areas,
        })
    }

    /// Chunks to reserve where `count` are asked for.
    fn slab(&self, count: u64) -> u64 {
        if self.short_of_space {
            return 1;
        }
        let slab = (SLAB_BYTES / self.geometry.chunk_size().bytes()).max(1);
        slab.max(count.min(MAX_SLAB_CHUNKS))
    }

    pub(crate) fn reserved(&mut self, reservation: &Reservation) {
        self.limit = self.limit.max(reservation.limit);
        // A device of fixed size may have another size by now.
        if self.growable {
            self.cow_size = self.cow_size.max(reservation.cow_size);
        }
        self.short_of_space = false;
    }

    /// There was no room for a reservation. Returns whether a smaller one is worth a try.
    pub(crate) fn could_not_reserve(&mut self) -> bool {
        !std::mem::replace(&mut self.short_of_space, true)
    }

    /// Gives back chunks that no record and no I/O refers to any more. Their content is not known.
    pub(crate) fn free(&mut self, new: u64, count: u64) {
        self.holes.insert(CowChunk(new), count);
        self.dirty.insert(CowChunk(new), count);
        self.settle();
    }

    /// Lowers next free over what is free at the end.
    fn settle(&mut self) {
        while self.next_free > 2 {
            // The chunk before next free is data, or an area that was skipped.
            let mut last = self.next_free - 1;
            if self.geometry.is_area_chunk(CowChunk(last)) {
                last -= 1;
            }
            let Some((start, count)) = self.hole_ending_at(last) else {
                break;
            };
            self.next_free = self.geometry.skip_area(CowChunk(start.max(2))).0;
            for set in [&mut self.holes, &mut self.zero_holes, &mut self.dirty] {
                set.remove(CowChunk(start), count);
            }
        }
    }

    /// The hole whose last chunk is `last`, or `last` itself if it lies inside one.
    fn hole_ending_at(&self, last: u64) -> Option<(u64, u64)> {
        [&self.holes, &self.zero_holes].into_iter().find_map(|set| {
            let range = set.last_range()?;
            let inside = range.start.0 <= last && last < range.end().0;
            inside.then_some((range.start.0, range.len))
        })
    }

    /// Whether [`Allocator::reclaim`] has something to do.
    pub(crate) fn has_reclaimable(&self) -> bool {
        self.growable && !self.dirty.is_empty()
    }

    /// Takes the holes that this handle made out of circulation and gives the steps that give their space back.
    pub(crate) fn reclaim(&mut self) -> Reclaim {
        let mut steps = Vec::new();
        let mut punched = Vec::new();
        let dirty = std::mem::take(&mut self.dirty);
        for ChunkRange {
            start: first,
            len: count,
        } in dirty.iter()
        {
            let bytes = self.geometry.chunk_size().bytes();
            let range = ByteRange::new(first.0 * bytes, count * bytes);
            steps.push(Step::WriteZeroes {
                device: Device::Cow,
                range,
                unmap: true,
            });
            self.holes.remove(first, count);
            punched.push((first.0, count));
        }
        Reclaim {
            steps,
            cow_size: self.cow_size,
            punched,
            cut: false,
        }
    }

    /// Cuts a growable file behind its last chunk in use, but keeps `min_chunks`, and room for what is reserved at a time if `keep_slab`
    /// says so. Until the steps are done nothing is handed out behind the cut.
    pub(crate) fn cut(&mut self, min_chunks: u64, keep_slab: bool) -> Option<Reclaim> {
        let chunk = self.geometry.chunk_size();
        let keep = match keep_slab {
            true => self.next_free.saturating_add(self.slab(1)),
            false => self.next_free,
        };
        // An area that begins there is written before a chunk behind it is asked for: it belongs to what is kept.
        let keep = self.geometry.skip_area(CowChunk(keep)).0;
        let size = chunk.start_of(keep.max(min_chunks))?;
        let refused = self.cut_refused.is_some_and(|refused| size >= refused);
        if !self.growable || size >= self.cow_size || refused {
            return None;
        }
        self.limit = self.limit.min(keep);
        let steps = vec![Step::SetSize {
            device: Device::Cow,
            size,
        }];
        Some(Reclaim {
            steps,
            cow_size: size,
            punched: Vec::new(),
            cut: true,
        })
    }

    pub(crate) fn reclaimed(&mut self, reclaim: &Reclaim, done: bool) {
        for &(new, count) in &reclaim.punched {
            let set = if done {
                &mut self.zero_holes
            } else {
                &mut self.holes
            };
            set.insert(CowChunk(new), count);
        }
        if reclaim.cut && done {
            self.cow_size = reclaim.cow_size;
            let end = self.geometry.chunk_size().count_for(reclaim.cow_size);
            self.zero_from = self.zero_from.min(end);
        }
        if reclaim.cut {
            self.cut_refused = (!done).then_some(reclaim.cow_size);
        }
        self.settle();
    }
}

/// Data chunks from `new` up to the next metadata area.
fn data_run(geometry: Geometry, new: u64) -> u64 {
    let stride = geometry.stride();
    let in_stride = (new + stride - 1) % stride;
    stride - in_stride
}

fn too_far() -> Error {
    Error::new(
        ErrorKind::NoSpace,
        "the COW file has reached the longest file there can be",
    )
}

#[cfg(test)]
mod tests;
