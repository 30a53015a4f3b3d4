//! Real block devices and file systems: fixed sizes, logical blocks of 512 and 4096 bytes, direct I/O, claims, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

mod storage_common;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Barrier, Mutex};
use std::thread;

use dmsnap::error::ErrorKind;
use dmsnap::storage::{FileOptions, FileStorage, LockMode, Storage};
use dmsnap::units::ByteRange;
use storage_common::devices::{self, LoopDevice, SmallFileSystem};
use storage_common::{battery, pattern};

fn device_battery(direct: bool) {
    if !devices::available() {
        return;
    }
    for logical_block in [512, 4096] {
        let device = LoopDevice::new(battery::SIZE, logical_block);
        let name = format!("device, blocks of {logical_block}, direct {direct}");
        battery::run(&name, || {
            let options = FileOptions::new().writable(true).direct(direct);
            let _no_child_has_the_last_claim = devices::no_child_starts();
            let storage = options.open(&device.path).unwrap();
            assert_eq!(storage.logical_block_size(), Some(logical_block.into()));
            assert!(storage.is_block_device() && !storage.is_growable());
            assert_eq!(
                storage.block_size(),
                if direct { logical_block.into() } else { 1 }
            );
            Box::new(storage)
        });
    }
}

#[test]
fn test_battery_buffered_block_devices() {
    device_battery(false);
}

#[test]
fn test_battery_direct_block_devices() {
    device_battery(true);
}

/// Four threads write neighbouring 512 bytes of one 4096-byte block again and again; one of them zeroes its part at times. Without
/// exclusion one of them writes back what it read of another's part before that was written.
#[test]
fn test_direct_writers_of_one_block_lose_nothing() {
    if !devices::available() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 4096);
    let storage = FileOptions::new()
        .writable(true)
        .direct(true)
        .open(&device.path)
        .unwrap();
    let zeroes = |round: u8, part: u64| part == 3 && round.is_multiple_of(3);
    let write = |round: u8, part: u64| {
        let range = ByteRange::new(part * 512, 512);
        if zeroes(round, part) {
            return storage.write_zeroes(range, false);
        }
        storage.write_at(&[round; 512], range.start)
    };
    let start = Barrier::new(4);
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for part in 0..4u64 {
            let (start, lost, storage) = (&start, &lost, &storage);
            scope.spawn(move || {
                for round in 1..=150u8 {
                    start.wait();
                    // Nobody panics between two barriers: the others would wait for ever.
                    let written = write(round, part);
                    start.wait();
                    let expected = if zeroes(round, part) { 0 } else { round };
                    let mut back = [0xee; 512];
                    let read = storage.read_at(&mut back, part * 512);
                    if written.is_err() || read.is_err() || back != [expected; 512] {
                        lost.lock()
                            .unwrap()
                            .push((round, part, back[0], written, read));
                    }
                }
            });
        }
    });
    let lost = lost.into_inner().unwrap();
    assert!(
        lost.is_empty(),
        "{} writes lost, first {:?}",
        lost.len(),
        lost.first()
    );
}

/// A write of whole blocks beside one of part of the same block: whichever comes last on the shared bytes, the others are the whole
/// write's.
#[test]
fn test_a_direct_write_of_whole_blocks_is_not_undone_by_a_part() {
    if !devices::available() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 4096);
    let storage = FileOptions::new()
        .writable(true)
        .direct(true)
        .open(&device.path)
        .unwrap();
    let start = Barrier::new(2);
    let mut lost = Vec::new();
    thread::scope(|scope| {
        let parts = scope.spawn(|| {
            let mut results = Vec::new();
            for _ in 0..300 {
                start.wait();
                results.push(storage.write_at(&[0xff; 100], 4096));
                start.wait();
            }
            results
        });
        for round in 0..300 {
            start.wait();
            let whole = [(round % 200) as u8; 8192];
            let written = storage.write_at(&whole, 4096);
            start.wait();
            let mut back = [0; 8192];
            let read = storage.read_at(&mut back, 4096);
            if written.is_err() || read.is_err() || back[100..] != whole[100..] {
                lost.push((round, back[100], written, read));
            }
        }
        assert!(parts.join().unwrap().iter().all(Result::is_ok));
    });
    assert!(
        lost.is_empty(),
        "{} writes lost, first {:?}",
        lost.len(),
        lost.first()
    );
}

/// The file system zeroes part of a block while a write of another part of it reads, changes and writes it back.
#[test]
fn test_zeroes_beside_a_direct_write_of_the_same_block_stay() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("file");
    let storage = FileOptions::new()
        .create_new(true)
        .direct(true)
        .open(&path)
        .unwrap();
    storage.write_at(&[1; 8192], 0).unwrap();
    let start = Barrier::new(2);
    let mut lost = 0;
    thread::scope(|scope| {
        let parts = scope.spawn(|| {
            let mut results = Vec::new();
            for round in 0..200 {
                start.wait();
                results.push(storage.write_at(&[round; 100], 0));
                start.wait();
            }
            results
        });
        for round in 0..200 {
            let filled = storage.write_at(&[0xff; 100], 200);
            start.wait();
            let zeroed = storage.write_zeroes(ByteRange::new(200, 100), round % 2 == 0);
            start.wait();
            let mut back = [0xee; 300];
            let read = storage.read_at(&mut back, 0);
            let fine = filled.is_ok() && zeroed.is_ok() && read.is_ok();
            lost += u32::from(!fine || back[200..] != [0; 100] || back[..100] != [round; 100]);
        }
        assert!(parts.join().unwrap().iter().all(Result::is_ok));
    });
    assert_eq!(lost, 0);
}

#[test]
fn test_a_direct_file_ends_inside_a_block() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("file");
    let storage = FileOptions::new()
        .create_new(true)
        .direct(true)
        .open(&path)
        .unwrap();
    assert!(storage.is_direct());
    let data = pattern(1, 10_001);
    for (start, end) in [(0, 3), (3, 700), (700, 8192), (8192, 10_001)] {
        storage.write_at(&data[start..end], start as u64).unwrap();
        assert_eq!(storage.size().unwrap(), end as u64);
    }
    storage.write_at(&data[9000..], 9000).unwrap();
    storage.flush().unwrap();
    assert!(fs::read(&path).unwrap() == data);
    let mut back = vec![0; data.len()];
    storage.read_at(&mut back, 0).unwrap();
    assert!(back == data);
    storage.set_size(4097).unwrap();
    storage.write_at(&[5; 10], 4090).unwrap();
    assert_eq!(storage.size().unwrap(), 4100);
}

#[test]
fn test_appending_threads_of_a_direct_file_keep_each_others_end() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("file");
    let storage = FileOptions::new()
        .create_new(true)
        .direct(true)
        .open(&path)
        .unwrap();
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let storage = &storage;
            scope.spawn(move || {
                for round in 0..40 {
                    let slot = round * 4 + thread;
                    storage.write_at(&[slot as u8; 300], slot * 300).unwrap();
                }
            });
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 160 * 300);
    for (slot, piece) in bytes.chunks(300).enumerate() {
        assert!(piece == [slot as u8; 300], "slot {slot}");
    }
}

#[test]
fn test_a_full_file_system_gives_no_space_and_goes_on_after_space_was_added() {
    if !devices::available() {
        return;
    }
    let file_system = SmallFileSystem::new(4 << 20);
    let ballast = file_system.root.join("ballast");
    File::create_new(&ballast)
        .unwrap()
        .write_all_at(&vec![1; 1 << 20], 0)
        .unwrap();
    let path = file_system.root.join("file");
    let storage = FileOptions::new().create_new(true).open(&path).unwrap();
    let piece = pattern(9, 64 << 10);
    let mut pieces = 0;
    let error = loop {
        match storage.write_at(&piece, pieces * piece.len() as u64) {
            Ok(()) => pieces += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(error.errno(), libc::ENOSPC);
    assert_eq!(error.path(), path.to_str());
    let at = pieces * piece.len() as u64;
    assert!(
        error
            .offset()
            .is_some_and(|offset| offset >= at && offset < at + piece.len() as u64)
    );
    let reserve = ByteRange::new(at, 1 << 20);
    assert_eq!(
        storage.write_zeroes(reserve, false).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    storage.flush().unwrap();

    fs::remove_file(&ballast).unwrap();
    storage.write_at(&piece, at).unwrap();
    storage.flush().unwrap();
    let mut back = vec![0; piece.len()];
    for index in 0..=pieces {
        storage
            .read_at(&mut back, index * piece.len() as u64)
            .unwrap();
        assert!(back == piece, "piece {index}");
    }
    storage.write_zeroes(ByteRange::new(0, at), true).unwrap();
    assert!(
        !storage.extent_at(0).unwrap().allocated,
        "zeroing with unmap gives space back"
    );
    assert!(storage.extent_at(at).unwrap().allocated);
}

#[test]
fn test_a_file_system_without_direct_io_says_so_and_keeps_no_new_file() {
    if !devices::available() {
        return;
    }
    let file_system = SmallFileSystem::without_direct_io();
    let path = file_system.root.join("file");
    let options = FileOptions::new().direct(true).create_new(true);
    let error = options.open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(!path.exists());
    fs::write(&path, b"kept").unwrap();
    let error = FileOptions::new().direct(true).open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn test_a_block_device_in_use_is_busy_for_writers_only() {
    if !devices::available() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 512);
    let claim = FileOptions::new()
        .writable(true)
        .lock(LockMode::None)
        .open(&device.path)
        .unwrap();
    let error = FileOptions::new()
        .writable(true)
        .open(&device.path)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("device-mapper"), "{error}");
    let reader = FileOptions::new()
        .lock(LockMode::None)
        .open(&device.path)
        .unwrap();
    assert_eq!(
        reader.lock(LockMode::Writer).unwrap_err().kind(),
        ErrorKind::Busy
    );
    let no_child = devices::no_child_starts();
    drop(claim);
    reader.lock(LockMode::Writer).unwrap();
    drop(no_child);
    reader.write_at(&[1; 100], 5).unwrap();
    assert_eq!(
        FileStorage::open(&device.path).unwrap_err().kind(),
        ErrorKind::Busy
    );
    reader.lock(LockMode::Reader).unwrap();
    let other = FileStorage::open(&device.path).unwrap();
    assert_eq!(other.file_id(), reader.file_id());
}

#[test]
fn test_a_file_under_a_loop_device_is_busy_for_writers() {
    if !devices::available() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 512);
    let error = FileOptions::new()
        .writable(true)
        .open(&device.file)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(
        error.to_string().contains(device.path.to_str().unwrap()),
        "{error}"
    );
    let reader = FileStorage::open(&device.file).unwrap();
    assert_eq!(
        reader.lock(LockMode::Writer).unwrap_err().kind(),
        ErrorKind::Busy
    );
    assert!(reader.is_locked(), "the old lock stays");
    let descriptor = File::open(&device.file).unwrap();
    let options = FileOptions::new().writable(true);
    let error = options
        .open_borrowed_fd(descriptor.as_fd(), "descriptor")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}

#[test]
fn test_zeroes_on_a_device_give_space_back_only_if_asked() {
    if !devices::available() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let device = LoopDevice::new(4 << 20, 512);
    let storage = FileOptions::new()
        .writable(true)
        .open(&device.path)
        .unwrap();
    let occupied = || fs::metadata(&device.file).unwrap().blocks() * 512;
    storage.write_at(&pattern(3, 4 << 20), 0).unwrap();
    storage.flush().unwrap();
    let before = occupied();
    storage
        .write_zeroes(ByteRange::new(0, 1 << 20), false)
        .unwrap();
    storage.flush().unwrap();
    assert_eq!(occupied(), before);
    storage
        .write_zeroes(ByteRange::new(100, 1 << 20), true)
        .unwrap();
    storage.flush().unwrap();
    assert!(
        occupied() <= before - (1 << 20) + 8192,
        "{} of {before}",
        occupied()
    );
    storage.discard(ByteRange::new(2 << 20, 1 << 20)).unwrap();
    assert!(
        occupied() <= before - (2 << 20) + 8192,
        "{} of {before}",
        occupied()
    );
}
