//! An unmodified distribution kernel is the judge of the on-disk format.
//!
//! The tests boot it under software emulation, with the real dm-snapshot module, and run `dmsetup`
//! on disks that we or the kernel made. `setup.sh` fetches what is needed, once; a machine on which
//! the kernel cannot boot fails these tests, it never skips them.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../common/budget.rs"]
mod budget;
mod changes;
mod crashes;
mod foreign;
#[path = "../common/golden.rs"]
mod golden;
mod guest;
mod initrd;
mod layers;
#[path = "../common/library.rs"]
mod library;
mod limits;
mod merges;
mod pair;
#[path = "../common/pattern.rs"]
mod pattern;
mod random;
#[path = "../common/reference.rs"]
mod reference;
mod regenerate;
mod report;
mod scenario;
mod shapes;
mod stores;
mod together;
mod tool;
mod turns;
#[path = "../common/twins.rs"]
mod twins;
mod verdict;
mod vm;

use std::fs;
use std::path::Path;

use guest::Guest;
use library::sha256;
use reference::Reference;
use scenario::{Disk, Scenario};
use vm::PATTERN_SEED;

/// An origin of 128 sectors and an empty COW file in `directory`.
fn small_pair(directory: &Path, name: &str) -> Scenario {
    let (origin, cow) = (directory.join("origin, raw"), directory.join("cow"));
    fs::write(&origin, pattern::sectors(1, 0, 128)).unwrap();
    fs::write(&cow, vec![0; 40960]).unwrap();
    Scenario::new(name)
        .with_disk(Disk::new("origin", &origin).read_only())
        .disk("cow", &cow)
}

#[test]
fn writes_to_a_snapshot_are_seen_and_stored() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = small_pair(directory.path(), "writes").script(
        "snapshot s $origin $cow P 8
         put s 41 2 100
         fill s 72 8 171
         field hash $(hash s)
         field status \"$(status s)\"
         field table \"$(table s)\"",
    );
    let outcome = &vm::run(&[scenario])[0];

    let mut expected = pattern::sectors(1, 0, 128);
    expected[41 * 512..43 * 512].copy_from_slice(&pattern::sectors(PATTERN_SEED, 100, 2));
    expected[72 * 512..80 * 512].fill(0o171);
    assert_eq!(outcome.field("hash"), sha256(&expected));
    assert_eq!(outcome.field("status"), "32/80 16");
    assert!(outcome.field("table").ends_with(" P 8"), "{outcome:?}");
    let cow = fs::read(directory.path().join("cow")).unwrap();
    let store = Reference::load(&cow).unwrap();
    assert_eq!(store.records, [(5, 2), (9, 3)]);
    assert_eq!(store.status(), "32/80 16");
    assert_eq!(
        store.view(&pattern::sectors(1, 0, 128), &cow).unwrap(),
        expected
    );
}

#[test]
fn a_disk_with_large_blocks_refuses_small_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let (origin, cow) = (
        directory.path().join("origin"),
        directory.path().join("cow"),
    );
    fs::write(&origin, vec![1; 65536]).unwrap();
    fs::write(&cow, vec![0; 65536]).unwrap();
    let scenario = Scenario::new("large blocks")
        .with_disk(Disk::new("origin", &origin).block_size(4096))
        .with_disk(Disk::new("cow", &cow).block_size(4096))
        .script(
            "field block $(blockdev --getss $cow)
             fails snapshot s $origin $cow P 4
             snapshot s $origin $cow PO 8
             field status \"$(status s)\"",
        );
    let outcome = &vm::run(&[scenario])[0];
    assert_eq!(outcome.field("block"), "4096");
    assert_eq!(outcome.field("status"), "16/128 16");
}

/// The harness itself: nothing that goes wrong in the guest may pass for a verdict.
#[test]
fn failed_commands_and_crashes_are_reported_with_their_logs() {
    let directory = tempfile::tempdir().unwrap();
    let bad = Scenario::new("bad mode")
        .disk("cow", &small_pair(directory.path(), "").disks[1].path)
        .script("snapshot s $pattern $cow X 8");
    let unexpected = Scenario::new("unexpected success").script("fails true");
    let crash = Scenario::new("crash").script("echo c > /proc/sysrq-trigger");
    let failure = vm::try_run(&[bad, unexpected, crash])
        .unwrap_err()
        .to_string();
    for part in [
        "not all scenarios ran",
        "scenario bad mode failed",
        "Couldn't create exception store",
        "scenario unexpected success failed",
        "worked, but must fail: true",
        "scenario crash did not end",
        "Kernel panic",
    ] {
        assert!(failure.contains(part), "{part:?} is missing in:\n{failure}");
    }
}

#[test]
fn the_reference_reader_agrees_with_the_kernel() {
    for store in stores::kernel_made() {
        let (origin, cow) = (
            fs::read(&store.origin).unwrap(),
            fs::read(&store.cow).unwrap(),
        );
        let reference = Reference::load(&cow).unwrap();
        let view = reference.view(&origin, &cow).ok().map(|view| sha256(&view));
        assert_eq!(view, store.view, "{}", store.name);
        assert_eq!(reference.status(), store.status, "{}", store.name);
        assert_eq!(reference.chunk, u64::from(store.chunk), "{}", store.name);
    }
}

/// What we write the kernel reads, and the other way round, in turns.
#[test]
fn we_and_the_kernel_take_turns() {
    let mut cases = turns::all();
    cases.extend(changes::all());
    cases.extend(limits::all());
    cases.extend(merges::all());
    cases.extend(layers::all());
    cases.extend(crashes::all());
    cases.extend(foreign::continued());
    together::run(cases);
}

/// As they lie, many in one boot.
#[test]
fn the_kernel_judges_golden_stores_and_damaged_twins() {
    foreign::judged(&mut Guest::boot());
}

/// Stores of all sizes with all that both sides can do to them.
#[test]
fn torture_random_sequences_agree() {
    random::sequences(40);
}

/// The golden files are what the scripts make, today's kernel included.
#[test]
fn golden_files_are_up_to_date() {
    let golden = golden::all();
    let names: Vec<&str> = golden.iter().map(|golden| golden.name.as_str()).collect();
    let made: Vec<&str> = stores::kernel_made()
        .iter()
        .map(|made| made.name.as_str())
        .collect();
    assert_eq!(
        names, made,
        "regenerate the golden files: tests/golden/README.md says how"
    );
    for (golden, made) in golden.iter().zip(stores::kernel_made()) {
        let name = &golden.name;
        assert_eq!(golden.view, made.view, "{name}");
        assert_eq!(golden.status, made.status, "{name}");
        assert_eq!(golden.live_status, made.live_status, "{name}");
        assert!(
            golden.origin == fs::read(&made.origin).unwrap(),
            "origin of {name} differs"
        );
        let records = |cow: &[u8]| Reference::load(cow).unwrap().records;
        assert_eq!(
            records(&golden.cow),
            records(&fs::read(&made.cow).unwrap()),
            "{name}"
        );
    }
}

#[test]
#[ignore = "writes tests/golden"]
fn regenerate_golden_files() {
    regenerate::write(&golden::directory(), stores::kernel_made());
}
