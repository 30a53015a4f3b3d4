//! Undamaged stores whose content is known.

use dmsnap::format::Descriptor;
use dmsnap::{ChunkSize, RecoverOptions};

use crate::budget::Random;
use crate::image_common::pattern;
use crate::raw_store::{RawStore, descriptor};

/// A store, and what was put into it.
pub(crate) struct World {
    pub(crate) chunk: u64,
    pub(crate) bytes: Vec<u8>,
    /// Old and new chunks in the order of the log.
    pub(crate) records: Vec<(u64, u64)>,
    pub(crate) disk_chunks: u64,
    /// Whether the new chunks have no holes between them.
    pub(crate) is_compact: bool,
}

impl World {
    pub(crate) fn random(random: &mut Random) -> World {
        let chunk = [512, 512, 512, 4096][random.below(4) as usize];
        let has_descriptor = chunk == 4096 && random.chance(70);
        let per_area = chunk / 16;
        let most = if chunk == 512 {
            3 * per_area + 5
        } else {
            per_area + 20
        };
        let count = match random.below(5) {
            // Nothing, or the borders of areas.
            0 => [0, 1, per_area - 1, per_area, per_area + 1][random.below(5) as usize],
            _ => random.below(most),
        };
        let disk_chunks = count + 1 + random.below(60);
        let is_compact = random.chance(60);
        let records = records(count, disk_chunks, per_area, is_compact, random);
        let bytes = store(
            chunk,
            has_descriptor.then(|| descriptor(disk_chunks * chunk)),
            &records,
            random,
        );
        World {
            chunk,
            bytes,
            records,
            disk_chunks,
            is_compact,
        }
    }

    pub(crate) fn disk_size(&self) -> u64 {
        self.disk_chunks * self.chunk
    }

    pub(crate) fn chunk_size(&self) -> ChunkSize {
        ChunkSize::from_bytes(self.chunk).unwrap()
    }

    pub(crate) fn per_area(&self) -> u64 {
        self.chunk / 16
    }

    /// Byte at which an area begins.
    pub(crate) fn area(&self, number: u64) -> u64 {
        (1 + number * (self.per_area() + 1)) * self.chunk
    }

    /// Byte of a record of the log.
    pub(crate) fn slot(&self, index: u64) -> u64 {
        self.area(index / self.per_area()) + index % self.per_area() * 16
    }

    /// Areas of the log, with the one that ends it.
    pub(crate) fn areas(&self) -> u64 {
        self.records.len() as u64 / self.per_area() + 1
    }

    /// What a user knows who wants it back.
    pub(crate) fn knowledge(&self) -> RecoverOptions {
        RecoverOptions::new()
            .size(self.disk_size())
            .chunk_size(self.chunk_size())
    }

    pub(crate) fn slots(&self) -> Vec<u64> {
        Descriptor::slot_offsets(self.chunk_size())
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Distinct old chunks in any order; new chunks in order, or with holes and in any order.
fn records(
    count: u64,
    disk_chunks: u64,
    per_area: u64,
    is_compact: bool,
    random: &mut Random,
) -> Vec<(u64, u64)> {
    let mut olds: Vec<u64> = (0..disk_chunks).collect();
    if random.chance(60) {
        shuffle(&mut olds, random);
    }
    let mut next = 1;
    let mut news: Vec<u64> = (0..count)
        .map(|_| {
            next += 1 + if is_compact { 0 } else { random.below(2) };
            while next % (per_area + 1) == 1 {
                next += 1;
            }
            next
        })
        .collect();
    if !is_compact && random.chance(50) {
        shuffle(&mut news, random);
    }
    olds.into_iter().zip(news).collect()
}

fn shuffle(numbers: &mut [u64], random: &mut Random) {
    for last in (1..numbers.len()).rev() {
        numbers.swap(last, random.below(last as u64 + 1) as usize);
    }
}

fn store(
    chunk: u64,
    descriptor: Option<Descriptor>,
    records: &[(u64, u64)],
    random: &mut Random,
) -> Vec<u8> {
    let per_area = chunk / 16;
    let last_area = 1 + records.len() as u64 / per_area * (per_area + 1);
    let highest = records.iter().map(|record| record.1).max().unwrap_or(1);
    // A file may be longer than what is used of it.
    let chunks = last_area.max(highest) + 1 + random.below(3);
    let mut store = RawStore::new(chunk, chunks, descriptor).with_records(records);
    for &(old, new) in records {
        let data = pattern(old << 20 | new, chunk as usize);
        store.bytes[(new * chunk) as usize..][..chunk as usize].copy_from_slice(&data);
    }
    store.bytes
}
