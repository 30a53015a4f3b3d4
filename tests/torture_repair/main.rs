//! Damaged stores of known content: a check finds what is damaged and nothing else, a repair changes no byte that a good record shows, a
//! recovery gives back all of those, and whatever comes out is a good store.
//!
//! What is right is decided by `judge.rs`, which reads the bytes on its own.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

#[path = "../common/budget.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod budget;
mod damage;
mod faults;
#[path = "../common/golden.rs"]
mod golden;
#[path = "../kernel/guest.rs"]
mod guest;
#[path = "../image_common/mod.rs"]
mod image_common;
#[path = "../kernel/initrd.rs"]
mod initrd;
mod judge;
#[path = "../common/library.rs"]
mod library;
mod loading;
#[path = "../common/pattern.rs"]
mod pattern;
#[path = "../common/raw_store.rs"]
#[allow(dead_code, unreachable_pub, reason = "other targets use the rest")]
mod raw_store;
mod recovery;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod reference;
mod repair;
#[path = "../kernel/report.rs"]
mod report;
#[path = "../kernel/scenario.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod scenario;
#[path = "../kernel/verdict.rs"]
mod verdict;
#[path = "../kernel/vm.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod vm;
mod world;

use budget::{Budget, Random, count};
use guest::Guest;
use world::World;

/// Stores that each part tries in `make test`.
const CASES: u64 = 400;

#[test]
fn torture_damaged_stores() {
    let (mut damaged, mut repaired, mut recovered) = (0, 0, 0);
    for seed in Budget::cases(CASES) {
        let random = &mut Random(seed);
        let world = World::random(random);
        repair::accepts_undamaged(&world, seed);
        let bytes = damage::spoil(&world, random);
        damaged += 1;
        let finding = repair::finds_damage(&world, &bytes, seed);
        repaired += u64::from(repair::repairs(&world, &bytes, finding, seed));
        recovery::dumps_and_restores(&world, &bytes, seed);
        recovered += u64::from(recovery::recovers(&world, &bytes, seed));
        recovered += u64::from(recovery::recovers_in_place(&world, &bytes, seed));
    }
    count("repair", "damaged-stores", damaged);
    count("repair", "repaired", repaired);
    count("repair", "recovered", recovered);
}

/// Power may fail while a store is recovered in place: done again, it gives back the same exceptions.
#[test]
fn torture_interrupted_recovery() {
    let mut states = 0;
    for seed in Budget::cases(CASES / 10) {
        let random = &mut Random(seed);
        let world = World::random(random);
        let bytes = damage::spoil(&world, random);
        states += recovery::survives_power_cuts(&world, &bytes, random, seed);
    }
    count("repair", "interrupted-recoveries", states);
}

/// Every call may fail while a store is recovered, in place or into a new file, and while metadata are restored.
#[test]
fn torture_failing_recovery() {
    let mut faults = 0;
    for seed in Budget::cases(6) {
        let random = &mut Random(seed);
        let world = World::random(random);
        let bytes = damage::spoil(&world, random);
        faults += faults::survives_faults(&world, &bytes, seed);
    }
    count("repair", "faults", faults);
}

/// An unmodified kernel loads what came out, and shows what it has to.
#[test]
fn torture_kernel_loads() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::boot();
    let mut loaded = loading::load(&mut guest, &loading::golden(directory.path()));
    for seed in Budget::cases(1) {
        let directory = tempfile::tempdir().unwrap();
        let mut seeds = Random(seed);
        let random = (0..STORES_AT_ONCE).map(|_| loading::random(directory.path(), seeds.next()));
        let random: Vec<_> = random.flatten().collect();
        if guest.is_old() {
            guest = Guest::boot();
        }
        loaded += loading::load(&mut guest, &random);
    }
    count("repair", "loaded-by-the-kernel", loaded);
}

const STORES_AT_ONCE: u64 = 150;
