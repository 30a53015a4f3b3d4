//! Workloads on the file itself: making an image, and repairing one.

use std::sync::Arc;

use dmsnap::storage::testing::Recorder;
use dmsnap::storage::{MemoryStorage, SharedStorage, Storage};
use dmsnap::{CheckOptions, CreateOptions, Image, Repair, check_storage};

use crate::budget::Random;
use crate::examine::{Tally, blank_or_none, examine, unchanged};
use crate::image_common::*;
use crate::play::{Access, Name, Play, Shape, open_chain};

/// What lies where an image is to be made.
fn ground(random: &mut Random, shape: &Shape) -> MemoryStorage {
    let bytes = (3 + random.below(48)) * shape.chunk;
    match random.below(4) {
        0 => MemoryStorage::new(),
        1 => {
            let device = MemoryStorage::fixed(bytes);
            device
                .write_at(&pattern(random.next(), bytes as usize), 0)
                .unwrap();
            device
        }
        // An image, of a file or a device.
        kind => {
            let old = match kind {
                2 => MemoryStorage::new(),
                _ => MemoryStorage::fixed(bytes),
            };
            let old = Arc::new(old);
            let cow: SharedStorage = old.clone();
            create(&cow, shape.chunk, shape.size);
            let image = open(&cow, &memory_with(&pattern(1, shape.origin)));
            for old in 0..random.below(bytes / shape.chunk) {
                let data = pattern(random.next(), shape.chunk as usize);
                // A device may be full already.
                let _ = image.write(&data, old * shape.chunk % shape.size);
            }
            image.close().unwrap();
            old.snapshot()
        }
    }
}

/// Power goes while an image is made: there is none, which is said, or there is an empty one; what was there before is still there or
/// gone, but never passes for something else.
pub(crate) fn create_image(name: Name, tally: &mut Tally) {
    let mut random = Random(name.seed);
    let chunk = [512, 4096, 8192][random.below(3) as usize];
    let shape = Shape::new(chunk, 40);
    let ground = ground(&mut random, &shape);
    let origin = pattern(1, shape.origin);
    let open_at = |storages: &[SharedStorage]| {
        let below: SharedStorage = memory_with(&origin);
        open_chain(&[below, storages[0].clone()], None, Access::Read)
    };
    let before = [Arc::new(ground.snapshot()) as SharedStorage];
    let before = open_at(&before).ok().map(|image| contents(&image));
    let recorder = Recorder::new();
    let storage: SharedStorage = Arc::new(recorder.storage(&ground));
    let options = CreateOptions::new()
        .chunk_size(self::chunk(chunk))
        .size(shape.size);
    Image::create_on(&storage, &options.bare(chunk < 4096)).unwrap();
    let end = recorder.position();
    examine(
        (name, &recorder, end),
        tally,
        |position| position as u64,
        |state, _| {
            let what = format!("{name}, {:?}", state.cut);
            let storages = state.copy();
            let opened = open_at(&storages);
            let finished = state.cut.position == end;
            match (&opened, &before) {
                (Ok(image), Some(before)) if !finished && contents(image) == *before => {}
                // A file that was cut short and is not durably gone.
                (Err(error), Some(_))
                    if !finished && error.kind() == dmsnap::ErrorKind::Corrupt => {}
                _ => blank_or_none(opened, &origin, finished, &what),
            }
            unchanged(state, &storages, &what);
        },
    );
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
