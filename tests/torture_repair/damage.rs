//! Ways in which a store gets damaged.

use crate::budget::Random;
use crate::world::World;

/// What is shorter is no disk.
const LEAST: u64 = 512;

/// The store after something happened to it, perhaps several things.
pub(crate) fn spoil(world: &World, random: &mut Random) -> Vec<u8> {
    let mut bytes = world.bytes.clone();
    for _ in 0..1 + random.below(3) {
        spoil_once(world, &mut bytes, random);
    }
    bytes
}

fn spoil_once(world: &World, bytes: &mut Vec<u8>, random: &mut Random) {
    let records = world.records.len() as u64;
    let any_record = random.below(records.max(1));
    match random.below(14) {
        0 | 1 => flip_bit(bytes, world.slot(any_record) + random.below(16), random),
        2 => record(world, bytes, any_record, (random.next(), random.next())),
        // One that is plausible.
        3 => {
            let near = (
                random.below(world.disk_chunks + 5),
                random.below(bytes.len() as u64 / world.chunk + 3),
            );
            record(world, bytes, any_record, near);
        }
        4 => repeat(world, bytes, any_record, random),
        5 => bytes.truncate((LEAST + random.below(bytes.len() as u64 + 1 - LEAST)) as usize),
        // In the last chunks, where little is lost.
        6 => {
            let most = (bytes.len() as u64 + 1 - LEAST).min(3 * world.chunk);
            bytes.truncate(bytes.len() - random.below(most) as usize);
        }
        7 => torn_area(world, bytes, random),
        8 => wipe(bytes, 0, 16),
        // As a kernel invalidates: the whole chunk is written.
        9 => {
            wipe(bytes, 4, world.chunk - 4);
            write(bytes, 8, &[1, 0, 0, 0]);
            write(bytes, 12, &((world.chunk / 512) as u32).to_le_bytes());
        }
        10 => write(bytes, 4, &[0; 4]),
        11 | 12 => garbage_behind(world, bytes, random),
        _ => descriptor(world, bytes, random),
    }
}

fn write(bytes: &mut [u8], at: u64, new: &[u8]) {
    if let Some(place) = bytes.get_mut(at as usize..at as usize + new.len()) {
        place.copy_from_slice(new);
    }
}

fn wipe(bytes: &mut [u8], at: u64, len: u64) {
    let end = (at + len).min(bytes.len() as u64);
    bytes[at as usize..end as usize].fill(0);
}

fn flip_bit(bytes: &mut [u8], at: u64, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at as usize) {
        *byte ^= 1 << random.below(8);
    }
}

fn record(world: &World, bytes: &mut [u8], index: u64, (old, new): (u64, u64)) {
    let record = [old.to_le_bytes(), new.to_le_bytes()].concat();
    write(bytes, world.slot(index), &record);
}

/// A record once more: as the last one, or with one side of its own.
fn repeat(world: &World, bytes: &mut [u8], index: u64, random: &mut Random) {
    let Some(&(old, new)) = world.records.get(index as usize) else {
        return;
    };
    let again = match random.below(3) {
        0 => (old, new),
        1 => (old, random.below(bytes.len() as u64 / world.chunk + 1)),
        _ => (random.below(world.disk_chunks), new),
    };
    record(world, bytes, world.records.len() as u64, again);
}

/// A sector of an area was not written, or another one in its place.
fn torn_area(world: &World, bytes: &mut [u8], random: &mut Random) {
    let sector = world.area(random.below(world.areas())) + random.below(world.chunk / 512) * 512;
    if random.chance(50) {
        wipe(bytes, sector.min(bytes.len() as u64), 512);
    } else {
        let from = random.below(bytes.len() as u64 / 512) * 512;
        let other: Vec<u8> = bytes
            .iter()
            .skip(from as usize)
            .take(512)
            .copied()
            .collect();
        write(bytes, sector, &other);
    }
}

/// Behind the end of the log.
fn garbage_behind(world: &World, bytes: &mut [u8], random: &mut Random) {
    let count = world.records.len() as u64;
    let free = world.per_area() - count % world.per_area();
    for _ in 0..1 + random.below(4) {
        // Seldom right behind the last one, where it is a record.
        let index = count + random.below(free);
        let garbage = (
            random.below(world.disk_chunks),
            random.below(bytes.len() as u64 / world.chunk + 1),
        );
        record(world, bytes, index, garbage);
    }
}

fn descriptor(world: &World, bytes: &mut [u8], random: &mut Random) {
    let slots = world.slots();
    if slots.is_empty() {
        return;
    }
    let at = slots[random.below(2) as usize];
    match random.below(3) {
        0 => flip_bit(bytes, at + random.below(96), random),
        1 => wipe(bytes, at + 512, 512),
        _ => write(bytes, at, b"DMSNAPim rubbish"),
    }
}
