//! What is particular to files: copies by the operating system, holes, file systems that lack something.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

mod storage_common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dmsnap::error::ErrorKind;
use dmsnap::storage::testing::{CallKinds, CountingStorage};
use dmsnap::storage::{FileOptions, FileStorage, LockMode, MemoryStorage, Storage};
use dmsnap::units::ByteRange;
use storage_common::{battery, pattern};
use tempfile::TempDir;

fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn create(directory: &Path, name: &str) -> FileStorage {
    FileOptions::new()
        .create_new(true)
        .open(directory.join(name))
        .unwrap()
}

/// A file system in memory: no zeroing of ranges by call, no direct I/O worth the name.
fn tmpfs() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn test_battery_tmpfs() {
    let directory = tmpfs();
    let mut number = 0;
    battery::run("tmpfs", || {
        number += 1;
        Box::new(create(directory.path(), &number.to_string()))
    });
}

#[test]
fn test_copies_by_the_operating_system_are_exact() {
    let directory = scratch();
    let (source, target) = (
        create(directory.path(), "source"),
        create(directory.path(), "target"),
    );
    let data = pattern(1, 300_000);
    source.write_at(&data, 0).unwrap();
    target.write_at(&[9; 1000], 0).unwrap();
    assert!(source.try_copy_to(4097, &target, 500, 200_001).unwrap());
    assert_eq!(target.size().unwrap(), 200_501);
    let bytes = fs::read(target.name()).unwrap();
    assert!(bytes[..500] == [9; 500]);
    assert!(bytes[500..] == data[4097..204_098]);
}

#[test]
fn test_copies_that_the_operating_system_cannot_make_are_left_to_the_caller() {
    let (directory, memory) = (scratch(), tmpfs());
    let source = create(directory.path(), "source");
    source.write_at(&pattern(2, 100_000), 0).unwrap();
    let target = create(directory.path(), "target");
    assert!(
        !source.try_copy_to(50_000, &target, 0, 50_001).unwrap(),
        "past the source's end"
    );
    assert!(
        !source.try_copy_to(0, &source, 100, 1000).unwrap(),
        "onto itself, overlapping"
    );
    assert!(
        !source
            .try_copy_to(0, &MemoryStorage::new(), 0, 1000)
            .unwrap(),
        "into memory"
    );
    let counted = CountingStorage::new(Arc::new(create(directory.path(), "counted")));
    assert!(
        !source.try_copy_to(0, &counted, 0, 1000).unwrap(),
        "past a counter"
    );
    assert_eq!(counted.calls(CallKinds::all()), 0);
    let direct = FileOptions::new().create_new(true).direct(true);
    let direct = direct.open(directory.path().join("direct")).unwrap();
    assert!(
        !source.try_copy_to(0, &direct, 0, 512).unwrap(),
        "past the exclusion of writers"
    );
    let elsewhere = create(memory.path(), "elsewhere");
    // Kernels differ in whether they copy between file systems; what counts is the content, or nothing said.
    if source.try_copy_to(0, &elsewhere, 0, 100_000).unwrap() {
        assert!(fs::read(elsewhere.name()).unwrap() == pattern(2, 100_000));
    }
    target.lock(LockMode::Reader).unwrap();
    let before = fs::read(target.name()).unwrap();
    assert!(
        !source.try_copy_to(0, &target, 0, 512).unwrap(),
        "into what must not be written"
    );
    assert!(fs::read(target.name()).unwrap() == before);
}

#[test]
fn test_extents_follow_the_holes() {
    let directory = scratch();
    let storage = create(directory.path(), "sparse");
    storage.set_size(8 << 20).unwrap();
    storage.write_at(&pattern(3, 1 << 20), 2 << 20).unwrap();
    storage.write_at(&[1], (8 << 20) - 1).unwrap();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < 8 << 20 {
        let extent = storage.extent_at(at).unwrap();
        runs.push((at >> 20, extent.allocated));
        at += extent.len;
    }
    assert_eq!(runs, [(0, false), (2, true), (3, false), (7, true)]);
    let inside = storage.extent_at((2 << 20) + 5000).unwrap();
    assert_eq!((inside.len, inside.allocated), ((1 << 20) - 5000, true));
    storage
        .write_zeroes(ByteRange::new(2 << 20, 1 << 20), true)
        .unwrap();
    assert!(!storage.extent_at(2 << 20).unwrap().allocated);
}

#[test]
fn test_searching_for_holes_leaves_the_callers_position_alone() {
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;
    let directory = scratch();
    let path = directory.path().join("file");
    fs::write(&path, vec![1; 10_000]).unwrap();
    let mut file = fs::File::open(&path).unwrap();
    file.seek(SeekFrom::Start(77)).unwrap();
    let storage = FileOptions::new()
        .open_borrowed_fd(file.as_fd(), "lent")
        .unwrap();
    assert_eq!(storage.extent_at(0).unwrap().len, 10_000);
    storage.read_at(&mut [0; 100], 50).unwrap();
    assert_eq!(file.stream_position().unwrap(), 77);
}

#[test]
fn test_a_refused_open_creates_nothing() {
    let directory = scratch();
    let path = directory.path().join("proc-like");
    // A directory that does not take new files at all.
    let error = FileOptions::new()
        .create_new(true)
        .open("/proc/self/new-file")
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permission),
        "{error}"
    );
    let error = FileOptions::new().writable(true).open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!path.exists());
}

#[test]
fn test_a_read_only_handle_is_upgraded_in_place() {
    let directory = scratch();
    let path = directory.path().join("file");
    fs::write(&path, [1; 4096]).unwrap();
    for direct in [false, true] {
        let storage = FileOptions::new().direct(direct).open(&path).unwrap();
        assert_eq!(
            storage.write_at(&[2; 512], 0).unwrap_err().kind(),
            ErrorKind::ReadOnly
        );
        // The very file is upgraded, not what its name means by now.
        let moved = directory.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::write(&path, [7; 10]).unwrap();
        storage.lock(LockMode::Writer).unwrap();
        storage.write_at(&[3; 100], 1).unwrap();
        storage.flush().unwrap();
        let mut back = [0; 3];
        storage.read_at(&mut back, 0).unwrap();
        assert_eq!(back, [1, 3, 3]);
        assert_eq!(fs::read(&path).unwrap(), [7; 10]);
        drop(storage);
        fs::write(&path, [1; 4096]).unwrap();
    }
}

#[test]
fn test_the_same_file_has_one_identity() {
    let directory = scratch();
    let first = create(directory.path(), "first");
    let other = create(directory.path(), "other");
    let link = directory.path().join("link");
    fs::hard_link(first.name(), &link).unwrap();
    let again = FileOptions::new().lock(LockMode::None).open(&link).unwrap();
    assert!(again.file_id().is_some());
    assert_eq!(first.file_id(), again.file_id());
    assert_ne!(first.file_id(), other.file_id());
}
