//! Sizes of an origin and a COW device, from a seed.

use crate::budget::Random;

/// In sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) chunk: u64,
    pub(super) origin: u64,
    pub(super) cow: u64,
    /// Whether the COW device is full of garbage at first.
    pub(super) garbage: bool,
}

impl Shape {
    pub(super) fn random(random: &mut Random) -> Self {
        let chunk = 1 << random.below(8);
        // Two areas and more where chunks are small; nothing that takes the emulated machine long.
        let most = match chunk {
            1..=4 => 200,
            8..=16 => 80,
            _ => 20,
        };
        let chunks = 2 + random.below(most);
        Self {
            chunk,
            origin: chunks * chunk - random.below(chunk),
            cow: cow_chunks(random, chunk, chunks) * chunk + random.below(chunk),
            garbage: random.chance(40),
        }
    }

    /// Records in an area.
    pub(super) fn per_area(&self) -> u64 {
        32 * self.chunk
    }

    /// One chunk looks free that the kernel cannot use: with it an area is full, and the next one has no room.
    pub(super) fn ends_behind_area(&self) -> bool {
        (self.cow / self.chunk - 1).is_multiple_of(self.per_area() + 1)
    }
}

/// Whole chunks of a COW device for an origin of `chunks`: often enough, often one where the end is a matter of one chunk.
fn cow_chunks(random: &mut Random, chunk: u64, chunks: u64) -> u64 {
    let per_area = 32 * chunk;
    let enough = chunks + chunks / per_area + 4;
    let areas = 1 + random.below(enough / (per_area + 1) + 1);
    let behind_area = areas * (per_area + 1) + random.below(4);
    match random.below(10) {
        0..=3 => enough,
        4..=7 if behind_area < enough => behind_area,
        _ => 3 + random.below(enough - 3),
    }
}
