//! The same random operations on the kernel's target and on ours, compared whenever a store is loaded.

mod merging;
mod ours;
mod run;
mod shape;
mod theirs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use self::run::Run;
use crate::budget::{self, Budget};
use crate::guest::Guest;

/// Sequences from one seed on, each in a machine that it finds as if it were new. All that fail are told.
#[track_caller]
pub(crate) fn sequences(cases: u64) {
    let budget = Budget::shared(cases);
    let failed = Mutex::new(Vec::new());
    let machines = if budget::is_torture() { 2 } else { 1 };
    thread::scope(|scope| {
        for _ in 0..machines {
            scope.spawn(|| work(&budget, &failed));
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "sequences that failed, see above; each repeats as the first one of DMSNAP_SEED=: {failed:?}"
    );
}

fn work(budget: &Mutex<Budget>, failed: &Mutex<Vec<u64>>) {
    let next = || budget.lock().unwrap().next();
    let mut guest = None;
    while let Some(seed) = next() {
        let machine = match guest.take() {
            Some(machine) => machine,
            None => Guest::boot(),
        };
        guest = sequence(seed, machine);
        if guest.is_none() {
            failed.lock().unwrap().push(seed);
            budget::count("kernel", "differences", 1);
        }
        // The old one ends before the next one begins.
        guest = guest.filter(|guest| !guest.is_old());
    }
}

/// Gives the machine back unless the sequence failed, which says what was done until then.
fn sequence(seed: u64, mut guest: Guest) -> Option<Guest> {
    let mut run = Run::new(seed, &mut guest);
    let result = catch_unwind(AssertUnwindSafe(|| run.go()));
    budget::count("kernel", "sequences", 1);
    budget::count("kernel", "operations", run.operations);
    budget::count("kernel", "reloads", run.reloads);
    if result.is_err() {
        println!("sequence {seed}: {:?}\n{}", run.shape, run.log.join("\n"));
        return None;
    }
    run.finish();
    Some(guest)
}
