//! The golden files hold together: an independent reader finds in them what the kernel found.
//!
//! No virtual machine here; `tests/kernel` makes these files and compares them with fresh ones.

#[path = "common/golden.rs"]
mod golden;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/reference.rs"]
mod reference;

use std::collections::BTreeSet;
use std::fs;

use reference::Reference;
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn reference_reader_sees_what_the_kernel_saw() {
    for golden in golden::all() {
        let store = Reference::load(&golden.cow).expect(&golden.name);
        let view = store
            .view(&golden.origin, &golden.cow)
            .ok()
            .map(|view| sha256(&view));
        assert_eq!(view, golden.view, "{}", golden.name);
        assert_eq!(store.status(), golden.status, "{}", golden.name);
        assert_eq!(store.chunk, u64::from(golden.chunk), "{}", golden.name);
    }
}

#[test]
fn every_shape_is_there() {
    let goldens = golden::all();
    let chunks: BTreeSet<u32> = goldens.iter().map(|golden| golden.chunk).collect();
    assert!(
        BTreeSet::from([1, 2, 8, 16, 32, 128, 2048]).is_subset(&chunks),
        "{chunks:?}"
    );
    let words: BTreeSet<&str> = goldens
        .iter()
        .map(|golden| golden.live_status.as_str())
        .filter(|status| !status.contains('/'))
        .collect();
    assert_eq!(
        words,
        BTreeSet::from(["Invalid", "Merge failed", "Overflow"])
    );

    let stores = || {
        goldens
            .iter()
            .map(|golden| Reference::load(&golden.cow).expect("a store"))
    };
    let areas = |store: &Reference| store.records.len() as u64 / store.per_area();
    assert!(stores().any(|store| areas(&store) >= 3), "several areas");
    let full = |store: &Reference| {
        areas(store) > 0 && (store.records.len() as u64).is_multiple_of(store.per_area())
    };
    assert!(stores().filter(full).count() >= 3, "full areas");
    assert!(
        goldens
            .iter()
            .any(|golden| golden.origin.len() == 803 * 512),
        "an odd origin"
    );
}

#[test]
fn files_and_index_belong_together_and_stay_small() {
    let goldens = golden::all();
    let mut size = 0;
    for entry in fs::read_dir(golden::directory()).expect("the directory") {
        let entry = entry.expect("an entry");
        size += entry.metadata().expect("a file").len();
        let name = entry.file_name().into_string().expect("a plain name");
        if let Some(store) = name.strip_suffix(".cow.gz") {
            assert!(
                goldens.iter().any(|golden| golden.name == store),
                "{name} is not listed"
            );
        }
    }
    assert!(size < 300 << 10, "{size} bytes of golden files");
}
