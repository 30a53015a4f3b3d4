//! Each call of each workload fails, in every way.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use dmsnap::storage::testing::CallKinds;

use crate::bench::{EDQUOT, EIO, ENOSPC, NAMES, Trouble};
use crate::budget::{Budget, count, is_torture};
use crate::parallel::for_each;
use crate::workloads;

pub(crate) const KINDS: [CallKinds; 9] = [
    CallKinds::READ,
    CallKinds::WRITE,
    CallKinds::WRITE_ZEROES,
    CallKinds::DISCARD,
    CallKinds::FLUSH,
    CallKinds::SET_SIZE,
    CallKinds::EXTENT,
    CallKinds::SIZE,
    CallKinds::LOCK,
];

/// What may go wrong with a call of this kind: the errno, and how many bytes get through nevertheless.
pub(crate) fn ways(kinds: CallKinds) -> Vec<(i32, u64)> {
    let data = CallKinds::WRITE | CallKinds::WRITE_ZEROES;
    let space = data | CallKinds::FLUSH | CallKinds::SET_SIZE | CallKinds::DISCARD;
    let mut ways = vec![(EIO, 0)];
    if space.contains(kinds) {
        ways.extend([(ENOSPC, 0), (EDQUOT, 0)]);
    }
    if data.contains(kinds) {
        // Torn at a sector, torn inside one, and all of it there in spite of the error.
        ways.extend([
            (EIO, 512),
            (EIO, 700),
            (EIO, u64::MAX),
            (ENOSPC, 512),
            (EDQUOT, 700),
        ]);
    }
    ways
}

/// Fails the calls of one kind on one storage, each in turn and in every way, until there are no more. Returns how many there were.
///
/// `attempt` says whether the fault struck.
pub(crate) fn each_call(
    storage: usize,
    kinds: CallKinds,
    what: &str,
    attempt: impl Fn(&Trouble) -> bool,
) -> u64 {
    let mut faults = 0;
    for (errno, after) in ways(kinds) {
        for forever in [false, true] {
            // A long run has the time for what hardly differs from the others.
            if forever && after > 0 && !is_torture() {
                continue;
            }
            for nth in 1.. {
                let trouble = Trouble {
                    storage,
                    kinds,
                    nth,
                    errno,
                    forever,
                    after,
                };
                let fired = catch_unwind(AssertUnwindSafe(|| attempt(&trouble)));
                let fired = fired.unwrap_or_else(|panic| {
                    eprintln!("{what}: {trouble:?}");
                    resume_unwind(panic)
                });
                if !fired {
                    break;
                }
                faults += 1;
            }
        }
    }
    faults
}

#[test]
fn torture_every_call_of_every_workload_fails() {
    for seed in Budget::cases(1) {
        let all = workloads::all(seed);
        let mut jobs = Vec::new();
        for workload in &all {
            for storage in 0..NAMES.len() {
                jobs.extend(KINDS.map(|kinds| (workload, storage, kinds)));
            }
        }
        let (faults, cuts) = (AtomicU64::new(0), AtomicU64::new(0));
        for_each(&jobs, |&(workload, storage, kinds)| {
            let what = format!("DMSNAP_SEED={seed}: {}", workload.name);
            let more = each_call(storage, kinds, &what, |trouble| {
                let mut bench = workload.bench();
                let fired = bench.apply(&workload.acts, Some(trouble));
                if fired {
                    cuts.fetch_add(bench.finish(), Ordering::Relaxed);
                }
                fired
            });
            faults.fetch_add(more, Ordering::Relaxed);
        });
        let faults = faults.into_inner();
        assert!(faults > 1000, "{faults} faults only");
        count("faults", "workloads", all.len() as u64);
        count("faults", "faults", faults);
        count("faults", "power-cuts", cuts.into_inner());
    }
}
