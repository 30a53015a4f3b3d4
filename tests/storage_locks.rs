//! The lock keeps us and QEMU apart, in both directions, and our own handles too.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

#[allow(dead_code, reason = "shared with other test programs")]
#[path = "common/holder.rs"]
mod holder;
mod storage_common;

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dmsnap::error::ErrorKind;
use dmsnap::storage::{FileOptions, FileStorage, LockMode, Storage};
use holder::Holder;
use storage_common::devices::run;
use tempfile::TempDir;

fn image() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("image.raw");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    (directory, path)
}

/// A qcow2 file. QEMU lets nobody write or resize the file of a format that it reads; of a raw image qemu-io lets others do anything.
fn qcow2() -> (TempDir, PathBuf) {
    let (directory, raw) = image();
    let path = raw.with_extension("qcow2");
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "1M"],
    );
    (directory, path)
}

fn format_of(path: &Path) -> &str {
    path.extension()
        .and_then(|extension| extension.to_str())
        .unwrap()
}

/// A qemu-io that has the image open.
fn hold(path: &Path, options: &[&str]) -> Holder {
    let mut args = options.to_vec();
    args.extend(["-f", format_of(path), path.to_str().unwrap()]);
    Holder::with(&args)
}

fn qemu_io(path: &Path, options: &[&str]) -> Output {
    let mut command = Command::new("qemu-io");
    command
        .args(options)
        .args(["-f", format_of(path)])
        .arg(path)
        .args(["-c", "read 0 512"]);
    command
        .output()
        .expect("qemu-io (Debian: qemu-utils) is needed")
}

fn qemu_succeeds(path: &Path, options: &[&str]) -> bool {
    let output = qemu_io(path, options);
    let text = String::from_utf8_lossy(&output.stderr);
    let refused = text.contains("lock");
    assert!(output.status.success() != refused, "{output:?}");
    output.status.success()
}

fn writer(path: &Path) -> Result<FileStorage, ErrorKind> {
    FileOptions::new()
        .writable(true)
        .open(path)
        .map_err(|error| error.kind())
}

fn reader(path: &Path) -> Result<FileStorage, ErrorKind> {
    FileStorage::open(path).map_err(|error| error.kind())
}

#[test]
fn test_qemu_that_writes_keeps_writers_and_readers_out() {
    let (_directory, path) = image();
    let holder = hold(&path, &[]);
    let error = FileOptions::new().writable(true).open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("open for writing"),
        "{text}"
    );
    assert_eq!(reader(&path).unwrap_err(), ErrorKind::Busy);
    let inspector = FileOptions::new().lock(LockMode::None).open(&path).unwrap();
    let mut bytes = [0; 16];
    inspector.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 16]);
    for mode in [LockMode::Reader, LockMode::Writer] {
        assert_eq!(inspector.lock(mode).unwrap_err().kind(), ErrorKind::Busy);
    }
    assert_eq!(
        inspector.write_at(&[1], 0).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    drop(holder);
    inspector.lock(LockMode::Writer).unwrap();
    inspector.write_at(&[1], 0).unwrap();
}

#[test]
fn test_qemu_that_reads_keeps_writers_out() {
    let (_directory, path) = qcow2();
    let holder = hold(&path, &["-r"]);
    assert_eq!(writer(&path).unwrap_err(), ErrorKind::Busy);
    let reader = reader(&path).unwrap();
    assert_eq!(
        reader.lock(LockMode::Writer).unwrap_err().kind(),
        ErrorKind::Busy
    );
    assert!(reader.is_locked());
    drop(holder);
    reader.lock(LockMode::Writer).unwrap();
}

#[test]
fn test_our_writer_keeps_qemu_out() {
    let (_directory, path) = qcow2();
    let storage = writer(&path).unwrap();
    assert!(!qemu_succeeds(&path, &[]));
    assert!(!qemu_succeeds(&path, &["-r"]));
    assert!(
        qemu_succeeds(&path, &["-r", "-U"]),
        "a reader that takes no lock always gets in"
    );
    storage.lock(LockMode::Reader).unwrap();
    assert!(!qemu_succeeds(&path, &[]));
    assert!(qemu_succeeds(&path, &["-r"]), "readers share");
    storage.lock(LockMode::None).unwrap();
    assert!(qemu_succeeds(&path, &[]));
    storage.lock(LockMode::Writer).unwrap();
    assert!(!qemu_succeeds(&path, &["-r"]));
    drop(storage);
    assert!(qemu_succeeds(&path, &[]));
}

#[test]
fn test_our_locks_keep_qemus_writers_of_a_raw_image_out() {
    let (_directory, path) = image();
    for open in [reader, writer] {
        let storage = open(&path).unwrap();
        assert!(!qemu_succeeds(&path, &[]));
        drop(storage);
        assert!(qemu_succeeds(&path, &[]));
    }
}

#[test]
fn test_our_handles_keep_each_other_out() {
    let (_directory, path) = image();
    let first = reader(&path).unwrap();
    let second = reader(&path).unwrap();
    assert_eq!(writer(&path).unwrap_err(), ErrorKind::Busy);
    assert_eq!(
        first.lock(LockMode::Writer).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(second);
    first.lock(LockMode::Writer).unwrap();
    first.write_at(&[9; 3], 1).unwrap();
    assert_eq!(reader(&path).unwrap_err(), ErrorKind::Busy);
    first.lock(LockMode::Reader).unwrap();
    assert_eq!(
        first.write_at(&[1], 0).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    let mut bytes = [0; 5];
    reader(&path).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7, 9, 9, 9, 7]);
}

#[test]
fn test_a_failed_change_leaves_the_old_lock() {
    let (_directory, path) = image();
    let first = reader(&path).unwrap();
    let second = reader(&path).unwrap();
    assert!(first.lock(LockMode::Writer).is_err());
    assert!(first.is_locked());
    // Were a byte of the refused writer left behind, this reader would not get in, and nobody could ever write.
    let third = reader(&path).unwrap();
    drop((second, third));
    assert_eq!(
        writer(&path).unwrap_err(),
        ErrorKind::Busy,
        "the first still holds its lock"
    );
    drop(first);
    writer(&path).unwrap();
}

#[test]
fn test_descriptors_of_the_caller() {
    let (_directory, path) = image();
    let file = File::open(&path).unwrap();
    let storage = FileOptions::new()
        .open_borrowed_fd(file.as_fd(), "lent")
        .unwrap();
    assert_eq!(storage.name(), "lent");
    assert_eq!(writer(&path).unwrap_err(), ErrorKind::Busy);
    storage.lock(LockMode::Writer).unwrap();
    storage.write_at(&[3], 0).unwrap();
    drop(storage);
    writer(&path).unwrap();
    assert!(
        file.metadata().is_ok(),
        "the caller's descriptor stays open"
    );

    let options = FileOptions::new().writable(true);
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let storage = options.open_fd(both.into(), "given").unwrap();
    storage.write_at(&[4], 1).unwrap();
    drop(storage);
    assert_eq!(fs::read(&path).unwrap()[..3], [3, 4, 7]);

    let appending = OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)
        .unwrap();
    let blind: OwnedFd = OpenOptions::new().write(true).open(&path).unwrap().into();
    for fd in [appending.into(), blind] {
        let error = options.open_fd(fd, "odd").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(error.path(), Some("odd"));
    }
}

#[test]
fn test_what_cannot_be_opened_says_why() {
    let (directory, path) = image();
    let kind = |path: &Path| FileStorage::open(path).unwrap_err().kind();
    assert_eq!(kind(&directory.path().join("missing")), ErrorKind::NotFound);
    assert_eq!(kind(directory.path()), ErrorKind::InvalidArgument);
    assert_eq!(kind(Path::new("/dev/null")), ErrorKind::InvalidArgument);
    let fifo = directory.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    assert_eq!(kind(&fifo), ErrorKind::InvalidArgument);
    let error = FileOptions::new().create_new(true).open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
}
