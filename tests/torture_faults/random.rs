//! Random operations with random faults.

use dmsnap::storage::testing::CallKinds;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::acts::Act;
use crate::bench::{Bench, EDQUOT, EIO, ENOSPC, NAMES, Trouble};
use crate::budget::{Budget, count};
use crate::world::{Shape, any_op, any_shape};

fn any_trouble() -> impl Strategy<Value = Trouble> {
    let errno = prop_oneof![2 => Just(EIO), 1 => Just(ENOSPC), 1 => Just(EDQUOT)];
    let after = prop_oneof![Just(0_u64), 1..5000_u64];
    (
        0..NAMES.len(),
        1..10_u64,
        errno,
        any::<bool>(),
        after,
        any::<bool>(),
    )
        .prop_map(|(storage, nth, errno, forever, after, mutating)| {
            // Nobody runs out of space while reading.
            let mutating = mutating || errno != EIO;
            Trouble {
                storage,
                kinds: if mutating {
                    CallKinds::MUTATING
                } else {
                    CallKinds::IO
                },
                nth,
                errno,
                forever,
                after,
            }
        })
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        30 => any_op().prop_map(Act::Do),
        1 => Just(Act::MergeAndWrite),
        1 => Just(Act::Close),
        1 => Just(Act::Drop),
    ]
}

fn run(shape: &Shape, acts: Vec<(Act, Option<Trouble>)>) {
    let mut bench = Bench::new(shape);
    let mut faults = 0;
    for (act, trouble) in acts {
        faults += u64::from(bench.apply(&[act], trouble.as_ref()));
    }
    count("faults", "power-cuts", bench.finish());
    count("faults", "faults", faults);
}

#[test]
fn torture_any_call_may_fail() {
    const CASES: u32 = 60;
    for seed in Budget::cases(4) {
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let acts = prop::collection::vec((any_act(), prop::option::of(any_trouble())), 1..25);
        let strategy = (any_shape(false), acts);
        TestRunner::new_with_rng(config, random)
            .run(&strategy, |(shape, acts)| {
                run(&shape, acts);
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("DMSNAP_SEED={seed}: {failure}"));
    }
}
