//! The tool under a shim that fails its system calls, one after the other.

use std::cell::RefCell;

use crate::budget::{Budget, Random, count};
use crate::commands::SCENARIOS;
use crate::known::{Cause, Known};
use crate::parallel::for_each;
use crate::shim::{self, Fault, Tampering, calls};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// Of each kind: the calls it applies to, the fault, and how often it comes again.
const KINDS: [(&str, Fault, usize); 9] = [
    (calls::ALL, Fault::Errno(EIO), 0),
    (calls::ALL, Fault::Errno(EIO), 1),
    (calls::SPACE, Fault::Errno(ENOSPC), 0),
    (calls::SPACE, Fault::Errno(ENOSPC), 1),
    (calls::SPACE, Fault::Errno(EDQUOT), 0),
    (calls::INTERRUPTIBLE, Fault::Errno(EINTR), 0),
    (calls::INTERRUPTIBLE, Fault::Errno(EINTR), 2),
    (calls::TRANSFERS, Fault::Short, 0),
    (calls::TRANSFERS, Fault::Short, 1),
];

/// The number of calls of this kind in a run without faults.
fn calls_of(known: &Known, kind: usize) -> usize {
    let (calls, fault, _) = KINDS[kind];
    let none = Tampering {
        calls,
        fault,
        nth: 0,
        every: 0,
    };
    shim::run(&known.scratch(), known.scenario.args, &none)
        .calls
        .len()
}

/// Runs a command with a fault and looks at what is left.
fn attempt(known: &Known, tampering: &Tampering) {
    let scratch = known.scratch();
    let shimmed = shim::run(&scratch, known.scenario.args, tampering);
    let what = format!("{tampering:?}: {shimmed:#?}");
    let struck: Vec<&str> = shimmed.tampered().collect();
    let cause = match tampering.fault {
        Fault::Errno(errno) if errno != EINTR && !struck.is_empty() => Some(Cause {
            errno,
            struck: &struck,
        }),
        _ => None,
    };
    let succeeded = known.assess(&scratch, &shimmed.run, cause, &what);
    // What could not be made durable must not be called done.
    let is_sync = |call: &&str| call.starts_with("fsync") || call.starts_with("fdatasync");
    assert!(
        !succeeded || cause.is_none() || !struck.iter().any(is_sync),
        "{}: a failed sync was ignored: {what}",
        known.scenario.name
    );
}

/// All faults of a command: every call in turn, in every way.
fn all_faults(known: &Known) -> Vec<Tampering> {
    let mut faults = Vec::new();
    for (kind, &(calls, fault, every)) in KINDS.iter().enumerate() {
        let last = match (fault, every) {
            // Where every call or every second one is hit anyway, only the beginning differs.
            (Fault::Short | Fault::Errno(EINTR), 1..) => every,
            _ => calls_of(known, kind),
        };
        faults.extend((1..=last).map(|nth| Tampering {
            calls,
            fault,
            nth,
            every,
        }));
    }
    faults
}

/// Some of the faults there are, which come back after a while.
fn some_faults(random: &mut Random) -> Vec<Tampering> {
    let mut one = || {
        let kind = random.below(KINDS.len() as u64) as usize;
        let (calls, fault, _) = KINDS[kind];
        Tampering {
            calls,
            fault,
            nth: 1 + random.below(60) as usize,
            every: random.below(9) as usize,
        }
    };
    (0..8)
        .map(|_| one())
        // A program that is interrupted each time it tries again never ends.
        .filter(|tampering| tampering.fault != Fault::Errno(EINTR) || tampering.every != 1)
        .collect()
}

#[test]
fn torture_the_tool_survives_every_system_call_that_fails() {
    let known: Vec<Known> = SCENARIOS.iter().map(Known::new).collect();
    let run = |faults: &dyn Fn(&Known) -> Vec<Tampering>| {
        let mut all: Vec<(&Known, Tampering)> = Vec::new();
        for known in &known {
            all.extend(faults(known).into_iter().map(|fault| (known, fault)));
        }
        for_each(&all, |(known, tampering)| attempt(known, tampering));
        count("faults", "failed-system-calls", all.len() as u64);
    };
    run(&all_faults);
    for seed in Budget::cases(1) {
        let random = RefCell::new(Random(seed));
        run(&|_| some_faults(&mut random.borrow_mut()));
    }
}

/// The command called so, with its first call failing that is `call`.
#[track_caller]
fn fails_telling(name: &str, call: &dyn Fn(&str) -> bool, message: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let known = Known::new(scenario.unwrap());
    let none = Tampering {
        calls: calls::ALL,
        fault: Fault::Errno(EIO),
        nth: 0,
        every: 0,
    };
    let clean = shim::run(&known.scratch(), known.scenario.args, &none);
    let place = clean.calls.iter().position(|found| call(found));
    let nth = 1 + place.unwrap_or_else(|| panic!("no such call: {clean:#?}"));
    let faulty = Tampering { nth, ..none };
    let shimmed = shim::run(&known.scratch(), known.scenario.args, &faulty);
    shimmed.run.fails(1, &[message]);
}

/// It was called by the name under which it grows.
#[test]
fn test_a_new_raw_image_that_cannot_be_flushed_is_called_by_its_name() {
    let sync = |call: &str| call.contains("fdatasync");
    fails_telling("create raw", &sync, "dmsnap: new.raw: cannot flush");
}

/// It said `.: cannot sync directory`, which names nothing that the user knows.
#[test]
fn test_a_directory_that_cannot_be_synced_is_told_with_the_file() {
    let open_directory = |call: &str| call.ends_with("open64 .");
    for name in ["create", "snapshot"] {
        fails_telling(name, &open_directory, "new.dms: cannot sync the directory");
    }
}
