//! Workloads on the file itself: making an image, and repairing one.

use std::sync::Arc;

use dmsnap::storage::testing::Recorder;
use dmsnap::storage::{MemoryStorage, SharedStorage, Storage};
use dmsnap::{CheckOptions, ErrorKind, Repair, check_storage};

use crate::budget::Random;
use crate::examine::{Tally, blank_or_none, examine, unchanged};
use crate::image_common::*;
use crate::play::{Access, Name, Play, Shape, open_chain};

/// An image with that many chunks written, as far as there is room.
fn image_in(storage: MemoryStorage, shape: &Shape, chunks: u64) -> MemoryStorage {
    let storage = Arc::new(storage);
    let cow: SharedStorage = storage.clone();
    create(&cow, shape.chunk, shape.size);
    let image = open(&cow, &memory_with(&pattern(1, shape.origin)));
    for old in 0..chunks {
        let data = pattern(old + 2, shape.chunk as usize);
        match image.write(&data, old * shape.chunk % shape.size) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
        }
    }
    image.close().unwrap();
    storage.snapshot()
}

/// What lies where an image is to be made.
fn ground(random: &mut Random, shape: &Shape) -> MemoryStorage {
    let chunks = 3 + random.below(48);
    let device = MemoryStorage::fixed(chunks * shape.chunk);
    match random.below(4) {
        0 => MemoryStorage::new(),
        1 => {
            let garbage = pattern(random.next(), (chunks * shape.chunk) as usize);
            device.write_at(&garbage, 0).unwrap();
            device
        }
        2 => image_in(MemoryStorage::new(), shape, random.below(chunks)),
        _ => image_in(device, shape, random.below(chunks)),
    }
}

/// Power goes while an image is made: there is none, which is said, or there is an empty one; what was there before is still there or
/// gone, but never passes for something else.
pub(crate) fn create_image(name: Name, tally: &mut Tally) {
    let mut random = Random(name.seed);
    let chunk = [512, 4096, 8192][random.below(3) as usize];
    let shape = Shape::new(chunk, 40);
    create_over(name, &shape, &ground(&mut random, &shape), tally);
}

fn create_over(name: Name, shape: &Shape, ground: &MemoryStorage, tally: &mut Tally) {
    let origin = pattern(1, shape.origin);
    let open_in = |storage: &SharedStorage| {
        let below: SharedStorage = memory_with(&origin);
        open_chain(&[below, storage.clone()], None, Access::Read)
    };
    let before: SharedStorage = Arc::new(ground.snapshot());
    let before = open_in(&before).ok().map(|image| contents(&image));
    let recorder = Recorder::new();
    let storage: SharedStorage = Arc::new(recorder.storage(ground));
    create(&storage, shape.chunk, shape.size);
    let end = recorder.position();
    let source = (name, &recorder, end);
    examine(
        source,
        tally,
        |position| position,
        |state, _| {
            let what = format!("{name}, {:?}", state.cut);
            let storages = state.copy();
            let opened = open_in(&storages[0]);
            let finished = state.cut.position == end;
            match (&opened, &before) {
                (Ok(image), Some(before)) if !finished && contents(image) == *before => {}
                // A file that was cut short and is not gone yet.
                (Err(error), Some(_)) if !finished && error.kind() == ErrorKind::Corrupt => {}
                _ => blank_or_none(opened, &origin, finished, &what),
            }
            unchanged(state, &storages, &what);
        },
    );
}

/// Making an image where one was: its metadata was overwritten before it was durable that it is none any more, so that a power cut
/// could leave the old image with a part of its exceptions.
#[test]
fn test_a_power_cut_in_create_never_leaves_a_part_of_an_old_image() {
    let shape = Shape::new(4096, 40);
    let name = Name {
        workload: "create over an image",
        seed: 0,
    };
    for device in [MemoryStorage::new(), MemoryStorage::fixed(48 * 4096)] {
        // Records in two sectors.
        let ground = image_in(device, &shape, 40);
        create_over(name, &shape, &ground, &mut Tally::default());
    }
}

/// A store with the traces of interrupted operations, and what it shows.
fn damaged(random: &mut Random, shape: &Shape, origin: &[u8]) -> (MemoryStorage, Vec<u8>) {
    let cow = Arc::new(MemoryStorage::new());
    let shared: SharedStorage = cow.clone();
    create(&shared, shape.chunk, shape.size);
    let image = open(&shared, &memory_with(origin));
    let records = 3 + random.below(20);
    for _ in 0..records {
        let at = random.below(shape.size / shape.chunk) * shape.chunk;
        image
            .write(&pattern(random.next(), shape.chunk as usize), at)
            .unwrap();
    }
    image.flush().unwrap();
    let mut records: u64 = image.exceptions().iter().map(|run| run.2).sum();
    drop(image);
    // That one is not open for writing any more.
    let cow = cow.snapshot();
    let area = |slot: u64| shape.chunk + slot * 16;
    let record = |slot: u64| {
        let mut record = [0; 16];
        cow.read_at(&mut record, area(slot)).unwrap();
        record
    };
    if random.chance(50) && records > 2 {
        // A chunk that nothing refers to any more.
        cow.write_at(&record(records - 1), area(records - 3))
            .unwrap();
        cow.write_at(&[0; 16], area(records - 1)).unwrap();
        records -= 1;
    }
    if random.chance(60) {
        cow.write_at(&record(records - 1), area(records)).unwrap();
        records += 1;
    }
    if random.chance(70) {
        let first = records + 1 + random.below(6);
        let stale = pattern(random.next(), 16 * (1 + random.below(3) as usize));
        cow.write_at(&stale, area(first)).unwrap();
    }
    let copy: SharedStorage = Arc::new(cow.snapshot());
    let disk = contents(&open(&copy, &memory_with(origin)));
    (cow, disk)
}

/// Power goes during a repair: what the store shows stays, and a later repair finds it no worse.
pub(crate) fn check_and_repair(name: Name) -> Play {
    let mut random = Random(name.seed);
    let chunk = [1024, 4096, 8192][random.below(3) as usize];
    let shape = Shape::new(chunk, 30);
    let origin = pattern(1, shape.origin);
    let (cow, disk) = damaged(&mut random, &shape, &origin);
    let mut play = Play::of(name, &shape, &origin, &cow);
    play.shows(&disk);
    let repair = [Repair::Leaks, Repair::All][random.below(2) as usize];
    let options = CheckOptions::new().repair(repair);
    let outcome = check_storage(&play.storages[1], &options).unwrap();
    assert_eq!(outcome.remaining_corruptions, 0, "{name}: {outcome:?}");
    let whole = CheckOptions::new().repair(Repair::All);
    let outcome = check_storage(&play.storages[1], &whole).unwrap();
    // A recorded storage keeps the space of what is discarded.
    assert_eq!(outcome.remaining_repairable, 0, "{name}: {outcome:?}");
    play
}
