//! One battery of behaviours for every storage that needs no privileges.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

mod storage_common;

use std::sync::Arc;

use dmsnap::storage::testing::{CountingStorage, FaultStorage, GateStorage, RecordingStorage};
use dmsnap::storage::{CallbackStorage, FileOptions, HostAlignment, MemoryStorage};
use storage_common::battery;
use storage_common::host::Host;

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

fn host_battery(name: &str, shape: impl Fn() -> Host) {
    battery::run(name, || {
        Box::new(CallbackStorage::new(name, Box::new(shape())).unwrap())
    });
}

#[test]
fn test_battery_callbacks() {
    host_battery("callbacks", || Host::new(MemoryStorage::new()));
}

#[test]
fn test_battery_callbacks_of_the_least_host() {
    host_battery("least host", || Host {
        complete: false,
        at_most: 333,
        interrupted: 3,
        ..Host::new(MemoryStorage::fixed(battery::SIZE))
    });
}

#[test]
fn test_battery_callbacks_aligned() {
    for (request, memory, at_most) in [(512, 1, 5000), (4096, 512, usize::MAX), (1, 64, 100_000)] {
        host_battery("aligned host", || Host {
            alignment: HostAlignment { request, memory },
            at_most,
            interrupted: 7,
            ..Host::new(MemoryStorage::fixed(battery::SIZE))
        });
    }
}

#[test]
fn test_battery_test_storages() {
    battery::run("recording", || {
        Box::new(RecordingStorage::new(&MemoryStorage::new()))
    });
    let memory = || Arc::new(MemoryStorage::fixed(battery::SIZE));
    battery::run("gate", || Box::new(GateStorage::new(memory())));
    battery::run("fault", || Box::new(FaultStorage::new(memory())));
    battery::run("counting", || Box::new(CountingStorage::new(memory())));
}
