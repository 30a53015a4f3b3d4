//! One battery of behaviours for every storage that needs no privileges.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

mod storage_common;

use dmsnap::storage::{FileOptions, MemoryStorage};
use storage_common::battery;

fn file_battery(name: &str, options: FileOptions) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut number = 0;
    battery::run(name, || {
        number += 1;
        let path = directory.path().join(format!("file-{number}"));
        Box::new(options.clone().create_new(true).open(path).unwrap())
    });
}

#[test]
fn test_battery_file() {
    file_battery("file", FileOptions::new());
}

#[test]
fn test_battery_direct_file() {
    file_battery("direct file", FileOptions::new().direct(true));
}

#[test]
fn test_battery_memory() {
    battery::run("memory", || Box::new(MemoryStorage::new()));
}

#[test]
fn test_battery_fixed_memory() {
    battery::run("fixed memory", || {
        Box::new(MemoryStorage::fixed(battery::SIZE))
    });
}
