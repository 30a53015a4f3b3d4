//! The store against a model: random operations, run by a host that keeps everything in memory and loses power at any step.
//!
//! Every sector carries the number of the write that filled it. After a crash each sector must show what it held at the last flush or
//! one of the writes since; after a flush there is only one such number.

#[path = "common/budget.rs"]
#[allow(dead_code, reason = "the cases bring their own numbers")]
mod budget;
mod common;

use budget::Budget;
use common::toy_host::{Disk, Host, Rng, SECTOR};
use dmsnap::store::OverflowMode;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

#[derive(Clone, Debug)]
enum Op {
    Write {
        at: u64,
        len: u64,
    },
    /// A first write whose data never arrives.
    Abort {
        at: u64,
        len: u64,
    },
    /// A first write that stays under way while others go on.
    Hold {
        at: u64,
        len: u64,
    },
    Release {
        done: bool,
    },
    Discard {
        at: u64,
        len: u64,
    },
    Flush,
    /// Run some plans of a merge.
    Merge {
        plans: u64,
    },
    CancelMerge,
    Resize {
        sectors: u64,
    },
    /// Run some plans of a resize, then lose power.
    CrashInResize {
        sectors: u64,
        plans: u64,
    },
    /// A resize of which one plan finds no space the first time.
    ResizeInNeed {
        sectors: u64,
        plan: u64,
    },
    /// A resize that is given up after some plans.
    StopResize {
        sectors: u64,
        plans: u64,
    },
    /// A merge of which a plan fails.
    FailMerge {
        plans: u64,
    },
    /// Empty the layer while this range is written.
    MakeEmpty {
        at: u64,
        len: u64,
    },
    Reclaim,
    Trim,
    Reopen,
    Crash {
        seed: u64,
    },
    /// Lose power after some more writes and flushes, wherever that is.
    Cut {
        changes: u64,
    },
    /// Lose power in the middle of a commit.
    CrashInCommit {
        steps: u64,
        seed: u64,
    },
}

const SECTORS: u64 = 96;

fn op() -> impl Strategy<Value = Op> {
    let range = (0..SECTORS, 1..24u64);
    prop_oneof![
        12 => range.clone().prop_map(|(at, len)| Op::Write { at, len }),
        1 => range.clone().prop_map(|(at, len)| Op::Abort { at, len }),
        1 => range.clone().prop_map(|(at, len)| Op::Hold { at, len }),
        1 => any::<bool>().prop_map(|done| Op::Release { done }),
        1 => range.clone().prop_map(|(at, len)| Op::Discard { at, len }),
        4 => Just(Op::Flush),
        3 => (1..12u64).prop_map(|plans| Op::Merge { plans }),
        1 => Just(Op::CancelMerge),
        2 => (1..SECTORS).prop_map(|sectors| Op::Resize { sectors }),
        1 => (1..SECTORS, 0..6u64).prop_map(|(sectors, plans)| Op::CrashInResize { sectors, plans }),
        1 => (1..SECTORS, 0..8u64).prop_map(|(sectors, plan)| Op::ResizeInNeed { sectors, plan }),
        2 => (1..SECTORS, 0..8u64).prop_map(|(sectors, plans)| Op::StopResize { sectors, plans }),
        1 => (0..6u64).prop_map(|plans| Op::FailMerge { plans }),
        2 => range.prop_map(|(at, len)| Op::MakeEmpty { at, len }),
        1 => Just(Op::Reclaim),
        1 => Just(Op::Trim),
        1 => Just(Op::Reopen),
        2 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
        4 => (0..12u64).prop_map(|changes| Op::Cut { changes }),
        2 => (0..8u64, any::<u64>()).prop_map(|(steps, seed)| Op::CrashInCommit { steps, seed }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..60)
}

/// What a host starts from.
#[derive(Clone, Debug)]
struct Shape {
    shift: u32,
    origin: u64,
    size: u64,
    /// Of a device that cannot grow.
    chunks: Option<u64>,
}

impl Shape {
    fn host(&self) -> Host {
        let disk = match self.chunks {
            Some(chunks) => Disk::fixed_with_garbage(chunks << self.shift, chunks),
            None => Disk::growable(),
        };
        let chunk = 1 << self.shift;
        Host::new(chunk, self.origin, self.size, disk, OverflowMode::NoSpace)
    }
}

fn growable() -> impl Strategy<Value = Shape> {
    let shift = prop_oneof![Just(9u32), Just(10), Just(12)];
    (shift, 1..SECTORS, 1..SECTORS).prop_map(|(shift, origin, size)| Shape {
        shift,
        origin,
        // Below 4096 bytes there is no descriptor, so the disk is as long as its origin and keeps its size.
        size: if shift < 12 { origin } else { size },
        chunks: None,
    })
}

fn fixed() -> impl Strategy<Value = Shape> {
    let shift = prop_oneof![Just(9u32), Just(12)];
    (shift, 1..SECTORS, 2..80u64).prop_map(|(shift, origin, chunks)| Shape {
        shift,
        origin,
        size: origin,
        chunks: Some(chunks),
    })
}

fn run(host: &mut Host, ops: &[Op]) {
    for (index, op) in ops.iter().enumerate() {
        match *op {
            Op::Write { at, len } => host.write(at, len),
            Op::Abort { at, len } => host.abort(at, len),
            Op::Hold { at, len } => host.hold(at, len),
            Op::Release { done } => host.release(done),
            Op::Discard { at, len } => host.discard(at, len),
            Op::Flush => host.flush(),
            Op::Merge { plans } => host.merge(plans),
            Op::CancelMerge => host.cancel_merge(),
            Op::Resize { sectors } => host.resize(sectors, u64::MAX),
            Op::CrashInResize { sectors, plans } => {
                host.resize(sectors, plans);
                host.crash(&mut Rng::new(plans + sectors));
            }
            Op::ResizeInNeed { sectors, plan } => host.resize_in_need(sectors, u64::MAX, plan),
            Op::StopResize { sectors, plans } => host.stop_resize(sectors, plans),
            Op::FailMerge { plans } => host.fail_merge(plans),
            Op::MakeEmpty { at, len } => host.make_empty(at, len),
            Op::Reclaim => host.reclaim(),
            Op::Trim => host.trim(),
            Op::Reopen => host.reopen(),
            Op::Crash { seed } => host.crash(&mut Rng::new(seed)),
            Op::Cut { changes } => host.cut_after(changes),
            Op::CrashInCommit { steps, seed } => host.crash_in_commit(steps, &mut Rng::new(seed)),
        }
        if !host.has_power() {
            host.crash(&mut Rng::new(index as u64));
        }
        host.verify();
    }
    host.crash(&mut Rng::new(9));
    host.finish();
}

/// `DMSNAP_CASES` sets how many cases a test runs, for long runs by hand.
fn config(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("DMSNAP_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(cases),
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(384))]

    #[test]
    fn test_growable_store_agrees_with_the_model(shape in growable(), ops in ops()) {
        run(&mut shape.host(), &ops);
    }

    #[test]
    fn test_fixed_size_store_agrees_with_the_model_until_it_is_full(shape in fixed(), ops in ops()) {
        run(&mut shape.host(), &ops);
    }
}

/// Both, from seeds.
#[test]
fn torture_store_half() {
    let strategy = (prop_oneof![growable(), fixed()], ops());
    let mut power_cuts = 0;
    for seed in Budget::cases(64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), random);
        let case = strategy.new_tree(&mut runner).map(|tree| tree.current());
        let (shape, ops) = case.expect("the strategy rejects nothing");
        let mut host = shape.host();
        run(&mut host, &ops);
        power_cuts += host.power_cuts;
    }
    budget::count("crash", "power-cuts-of-the-store-half", power_cuts);
}

#[test]
fn test_sector_is_512_bytes() {
    assert_eq!(SECTOR, 512);
}
