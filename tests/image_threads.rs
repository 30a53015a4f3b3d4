//! Threads: no lock is held while data moves, two first writes of one chunk are one exception, and what is written beside a merge or a
//! snapshot is not lost.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dmsnap::storage::SharedStorage;
use dmsnap::storage::testing::{CallKinds, CountingStorage, Fault, FaultStorage, GateStorage};
use dmsnap::{ByteRange, ErrorKind, Image, OriginChoice};
use image_common::*;

const CHUNK: u64 = 16384;
const DATA: CallKinds = CallKinds::WRITE;

fn everything() -> ByteRange {
    ByteRange::new(0, 1 << 40)
}

/// An image whose files can be held.
fn held_image(size: usize) -> (Image, Arc<GateStorage>, Arc<GateStorage>) {
    let (cow, origin) = (memory(), memory_with(&pattern(1, size)));
    create(&cow, CHUNK, size as u64);
    let cow = Arc::new(GateStorage::new(cow));
    let origin = Arc::new(GateStorage::new(origin));
    let image = open(
        &(cow.clone() as SharedStorage),
        &(origin.clone() as SharedStorage),
    );
    // So that no later write has to reserve space first.
    image.write(&[1; 512], 0).unwrap();
    image.flush().unwrap();
    (image, cow, origin)
}

fn read(image: &Image, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    image.read(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn test_a_held_first_write_holds_nobody_else() {
    let (image, cow, _) = held_image(20 * CHUNK as usize);
    let before = read(&image, 5 * CHUNK, CHUNK as usize);
    thread::scope(|scope| {
        let gate = cow.hold(DATA, everything());
        let held = scope.spawn(|| image.write(&[2; 100], 5 * CHUNK + 10).unwrap());
        gate.wait_for(1);
        assert_same(
            &read(&image, 5 * CHUNK, CHUNK as usize),
            &before,
            "in flight: the origin",
        );
        assert_same(&read(&image, 0, 512), &[1; 512], "another chunk");
        // The gate is for all writes, so the others only have to come as far as that.
        let others: Vec<_> = [7_u64, 9, 0]
            .map(|chunk| {
                let image = &image;
                scope.spawn(move || image.write(&[3; 50], chunk * CHUNK + 600).unwrap())
            })
            .into();
        gate.wait_for(4);
        gate.release();
        others.into_iter().for_each(|other| other.join().unwrap());
        held.join().unwrap();
    });
    assert_same(&read(&image, 5 * CHUNK + 10, 100), &[2; 100], "written");
    assert_same(&read(&image, 5 * CHUNK, 10), &before[..10], "copied");
}

/// The size is asked of a storage that may be a host's.
#[test]
fn test_info_asks_for_sizes_without_a_lock() {
    let (image, cow, _) = held_image(20 * CHUNK as usize);
    thread::scope(|scope| {
        let gate = cow.hold(CallKinds::SIZE, everything());
        let info = scope.spawn(|| image.info().unwrap());
        gate.wait_for(1);
        image.write(&[2; 100], 5 * CHUNK).unwrap();
        assert!(!info.is_finished());
        gate.release();
        assert_eq!(info.join().unwrap().exceptions, 2);
    });
}

#[test]
fn test_reads_and_first_writes_of_other_chunks_finish_beside_a_held_write() {
    let (image, cow, _) = held_image(20 * CHUNK as usize);
    let next = image.usage().sectors_allocated * 512;
    thread::scope(|scope| {
        // The chunk that the first write will get.
        let gate = cow.hold(DATA, ByteRange::new(next, CHUNK));
        let held = scope.spawn(|| image.write(&[2; CHUNK as usize], 5 * CHUNK).unwrap());
        gate.wait_for(1);
        image.write(&[3; CHUNK as usize], 7 * CHUNK).unwrap();
        image.write(&[4; 10], 9 * CHUNK + 1).unwrap();
        image.write(&[5; 10], 0).unwrap();
        image
            .write_zeroes(ByteRange::new(11 * CHUNK, CHUNK), true)
            .unwrap();
        image.discard(ByteRange::new(7 * CHUNK, CHUNK)).unwrap();
        image.flush().unwrap();
        assert_same(&read(&image, 9 * CHUNK + 1, 10), &[4; 10], "read");
        assert_same(
            &read(&image, 11 * CHUNK, CHUNK as usize),
            &[0; CHUNK as usize],
            "zeroed",
        );
        assert!(!held.is_finished());
        gate.release();
        held.join().unwrap();
    });
    assert_same(
        &read(&image, 5 * CHUNK, CHUNK as usize),
        &[2; CHUNK as usize],
        "the held write",
    );
}

#[test]
fn test_first_writes_of_one_chunk_are_one_exception() {
    let (image, cow, _) = held_image(20 * CHUNK as usize);
    let before = read(&image, 5 * CHUNK, CHUNK as usize);
    thread::scope(|scope| {
        let gate = cow.hold(DATA, everything());
        let writers: Vec<_> = (0..4_u64)
            .map(|i| {
                let image = &image;
                scope.spawn(move || {
                    image
                        .write(&[10 + i as u8; 100], 5 * CHUNK + i * 1000)
                        .unwrap();
                })
            })
            .collect();
        gate.wait_for(1);
        assert_eq!(
            gate.arrived(),
            1,
            "the others wait for the exception, not for the file"
        );
        gate.release();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
    });
    let mut expected = before;
    for i in 0..4 {
        expected[i * 1000..i * 1000 + 100].fill(10 + i as u8);
    }
    assert_same(
        &read(&image, 5 * CHUNK, CHUNK as usize),
        &expected,
        "all four",
    );
    let chunks: u64 = image.exceptions().iter().map(|run| run.2).sum();
    assert_eq!(chunks, 2, "{:?}", image.exceptions());
}

#[test]
fn test_a_failed_first_write_lets_those_who_wait_try() {
    let (inner, origin) = (memory(), memory_with(&pattern(1, 10 * CHUNK as usize)));
    create(&inner, CHUNK, 10 * CHUNK);
    let faulty = Arc::new(FaultStorage::new(inner));
    let cow = Arc::new(GateStorage::new(faulty.clone()));
    let image = open(&(cow.clone() as SharedStorage), &origin);
    image.write(&[1; 512], 0).unwrap();
    thread::scope(|scope| {
        let gate = cow.hold(DATA, everything());
        let first = scope.spawn(|| image.write(&[2; 100], 5 * CHUNK));
        gate.wait_for(1);
        faulty.arm(Fault::on(DATA));
        let second = scope.spawn(|| image.write(&[3; 100], 5 * CHUNK + 200));
        gate.release();
        assert_eq!(first.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        second.join().unwrap().unwrap();
    });
    let mut expected = pattern(1, 10 * CHUNK as usize)[5 * CHUNK as usize..][..300].to_vec();
    expected[200..].fill(3);
    assert_same(&read(&image, 5 * CHUNK, 300), &expected, "only the second");
}

#[test]
fn test_flushes_at_one_time_share_their_work() {
    let (inner, origin) = (memory(), memory());
    create(&inner, CHUNK, 100 * CHUNK);
    let counted = Arc::new(CountingStorage::new(inner));
    let cow = Arc::new(GateStorage::new(counted.clone()));
    let image = open(&(cow.clone() as SharedStorage), &origin);
    image.write(&[1; 100], 0).unwrap();
    counted.reset();
    let waiting = AtomicU64::new(0);
    thread::scope(|scope| {
        let gate = cow.hold(CallKinds::FLUSH, everything());
        let first = scope.spawn(|| image.flush().unwrap());
        gate.wait_for(1);
        let others: Vec<_> = (1..9_u64)
            .map(|i| {
                let (image, waiting) = (&image, &waiting);
                scope.spawn(move || {
                    image.write(&[1; 100], i * CHUNK).unwrap();
                    waiting.fetch_add(1, Ordering::SeqCst);
                    image.flush().unwrap();
                })
            })
            .collect();
        while waiting.load(Ordering::SeqCst) < 8 {
            thread::yield_now();
        }
        gate.release();
        first.join().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
    });
    let flushes = counted.calls(CallKinds::FLUSH);
    // Two for the first, of which the second covers the others' data; one for the records of all that came in time; whoever came late
    // makes a round more.
    assert!(
        (3..=10).contains(&flushes),
        "{flushes} flushes for 9 callers"
    );
}

#[test]
fn test_a_merge_ends_under_constant_writes_and_loses_none() {
    let size = 200 * CHUNK as usize;
    for raw in [true, false] {
        let (image, origin) = merge_image(size, raw);
        for chunk in 0..200 {
            image
                .write(&[chunk as u8; 1000], chunk * CHUNK + 100)
                .unwrap();
        }
        let stop = AtomicBool::new(false);
        let mut expected = contents(&image);
        let written = thread::scope(|scope| {
            let writers: Vec<_> = (0..3_u64)
                .map(|writer| {
                    let (image, stop) = (&image, &stop);
                    scope.spawn(move || write_until(image, stop, writer, size as u64))
                })
                .collect();
            let reader = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let bytes = read(&image, 7 * CHUNK + 100, 1000);
                    // No writer touches the middle of a chunk.
                    assert_same(&bytes, &[7; 1000], "reads beside a merge");
                }
            });
            image.merge(&mut |_| true).unwrap();
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect::<Vec<_>>()
        });
        for log in &written {
            for &(offset, byte) in log {
                expected[offset as usize..offset as usize + 16].fill(byte);
            }
        }
        assert_same(&contents(&image), &expected, "the image");
        image.flush().unwrap();
        image.merge(&mut |_| true).unwrap();
        if let Some(origin) = origin {
            assert_same(&bytes_of(&origin), &expected, "the origin");
        }
    }
}

/// An image over a raw origin, or over a layer.
fn merge_image(size: usize, raw: bool) -> (Image, Option<SharedStorage>) {
    let (image, _, origin) = image_over(&pattern(1, size), CHUNK);
    if raw {
        return (image, Some(origin));
    }
    image
        .write(&pattern(2, 3 * CHUNK as usize), 40 * CHUNK + 5)
        .unwrap();
    image
        .snapshot_to(memory(), None, Some(chunk(4096)))
        .unwrap();
    (image, None)
}

/// Writes 16 bytes at places of its own in chunk after chunk; returns the last byte for each place.
fn write_until(image: &Image, stop: &AtomicBool, writer: u64, size: u64) -> Vec<(u64, u8)> {
    let mut log = std::collections::BTreeMap::new();
    let mut state = writer + 1;
    let mut rounds = 0_u32;
    while !stop.load(Ordering::Relaxed) || rounds < 100 {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let chunk = (state >> 33) % (size / CHUNK);
        let offset = chunk * CHUNK + 8192 + writer * 16;
        let byte = (state >> 20) as u8;
        image.write(&[byte; 16], offset).unwrap();
        log.insert(offset, byte);
        rounds += 1;
    }
    log.into_iter().collect()
}

#[test]
fn test_snapshots_beside_writes_split_them_cleanly() {
    let size = 64 * CHUNK as usize;
    let (image, first, origin) = image_over(&pattern(1, size), CHUNK);
    let stop = AtomicBool::new(false);
    let second = memory();
    let written = thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let (image, stop) = (&image, &stop);
                scope.spawn(move || write_until(image, stop, writer, size as u64))
            })
            .collect();
        image
            .snapshot_to(second.clone(), None, Some(chunk(4096)))
            .unwrap();
        image.snapshot_to(memory(), None, None).unwrap();
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut expected = pattern(1, size);
    for log in &written {
        for &(offset, byte) in log {
            expected[offset as usize..offset as usize + 16].fill(byte);
        }
    }
    assert_same(&contents(&image), &expected, "the image");
    let frozen = bytes_of(&first);
    image.write(&[9; 1000], 0).unwrap();
    image.close().unwrap();
    assert_same(&bytes_of(&first), &frozen, "a frozen layer");
    let _ = open(&first, &origin);
}

#[test]
fn test_two_jobs_exclude_each_other() {
    let (image, _, _) = image_over(&pattern(1, 10 * CHUNK as usize), CHUNK);
    image.write(&[1; 10], 0).unwrap();
    let merge = image.start_merge().unwrap();
    for error in [
        image.resize(CHUNK, true).unwrap_err(),
        image.snapshot_to(memory(), None, None).unwrap_err(),
        image.merge(&mut |_| true).unwrap_err(),
        image.make_empty().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    drop(merge);
    image.merge(&mut |_| true).unwrap();
}

#[test]
fn test_an_image_taken_as_origin_is_frozen() {
    let (below, ..) = image_over(&pattern(1, 10 * CHUNK as usize), CHUNK);
    below.write(&[1; 5], 0).unwrap();
    let below = Arc::new(below);
    let cow = memory();
    let error = Image::open_storage(cow.clone(), &over(OriginChoice::Image(below.clone())));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidFormat);
    below.write(&[1; 10], 0).unwrap();
    create(&cow, CHUNK, 10 * CHUNK);
    let image = Image::open_storage(cow, &over(OriginChoice::Image(below.clone()))).unwrap();
    assert_eq!(
        below.write(&[2; 10], 0).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    image.write(&[3; 10], 5).unwrap();
    assert_same(
        &read(&image, 0, 15),
        &[[1; 5].as_slice(), &[3; 10]].concat(),
        "the top",
    );
    assert_same(&read(&below, 0, 10), &[1; 10], "the origin");
}

#[test]
fn test_giving_up_a_merge_that_found_no_space_lets_waiting_writers_go() {
    let (cow, inner) = (memory(), memory_with(&pattern(1, 10 * CHUNK as usize)));
    create(&cow, CHUNK, 10 * CHUNK);
    let faulty = Arc::new(FaultStorage::new(inner));
    let image = open(&cow, &(faulty.clone() as SharedStorage));
    for round in 1..20_u8 {
        image.write(&[round; 100], 5 * CHUNK).unwrap();
        let mut merge = image.start_merge().unwrap();
        faulty.arm(Fault::on(DATA).errno(28));
        assert_eq!(merge.step().unwrap_err().kind(), ErrorKind::NoSpace);
        thread::scope(|scope| {
            // Its chunk belongs to the batch that failed.
            let writer = scope.spawn(|| image.write(&[round + 100; 50], 5 * CHUNK).unwrap());
            for _ in 0..1000 {
                thread::yield_now();
            }
            drop(merge);
            writer.join().unwrap();
        });
        let expected = [[round + 100; 50], [round; 50]].concat();
        assert_same(&read(&image, 5 * CHUNK, 100), &expected, "both writes");
    }
}
