//! The kernel reads states as they lie, and shows what we do.

use std::sync::Arc;

use dmsnap::storage::{MemoryStorage, SharedStorage};

use crate::budget::{self, Budget, Random};
use crate::guest::{Guest, hash};
use crate::image_common::*;
use crate::play::{Access, Name, Play, open_chain, sized};
use crate::verdict::{self, Lying};
use crate::{disk, files, layers};

/// Runs on one layer over a raw origin.
type Workload = (&'static str, fn(Name) -> Play);

const WORKLOADS: [Workload; 14] = [
    ("random_writes", disk::random_writes),
    ("partial_chunks", disk::partial_chunks),
    ("area_roll_over", disk::area_roll_over),
    ("several_areas", disk::several_areas),
    ("many_exceptions", disk::many_exceptions),
    ("discards", disk::discards),
    ("write_zeroes", disk::write_zeroes),
    ("resize", disk::resize),
    ("descriptor", disk::descriptor),
    ("make_empty", disk::make_empty),
    ("fixed_size", disk::fixed_size),
    ("merge", layers::merge),
    ("two_threads", layers::two_threads),
    ("check_and_repair", files::check_and_repair),
];

/// States of each run.
const STATES: usize = 15;

/// A state for the kernel, and what we see in it.
struct Sampled {
    what: String,
    store: Lying,
    view: String,
    status: String,
}

/// A state of a run by chance.
fn sample(play: &Play, end: usize, random: &mut Random) -> Option<Sampled> {
    let position = random.below(end as u64 + 1) as usize;
    let mut states: Vec<_> = play.recorder.states(position).collect();
    states.push(play.recorder.sample(position, random.next()));
    let cut = states.swap_remove(random.below(states.len() as u64) as usize);
    let what = format!("{}, {cut:?}", play.name);
    let left: Vec<MemoryStorage> = play.recorder.rebuild(&cut).unwrap();
    let shared = left.iter().take(2).map(|storage| {
        let copy = storage.snapshot();
        Arc::new(copy) as SharedStorage
    });
    let image = open_chain(&shared.collect::<Vec<_>>(), play.bare, Access::Read).unwrap();
    let view = contents(&image);
    if let Err(problem) = play.truth().judge(&view, position) {
        panic!("{what}: {problem}");
    }
    let mut cow = left[1].to_vec();
    // As a loop device does.
    cow.truncate(cow.len() / 512 * 512);
    let store = Lying {
        cow,
        // As long as the disk, or the kernel would show another length.
        origin: sized(&left[0].to_vec(), view.len() as u64),
        chunk: image.chunk_size().bytes() / 512,
    };
    (!view.is_empty()).then(|| Sampled {
        what,
        store,
        view: hash(&view),
        status: image.status().to_string(),
    })
}

/// One run of each workload.
fn samples(seed: u64) -> Vec<Sampled> {
    let mut random = Random(seed);
    let mut samples = Vec::new();
    for (workload, run) in WORKLOADS {
        let mut play = run(Name { workload, seed });
        let end = play.end();
        let chosen = (0..STATES).filter_map(|_| sample(&play, end, &mut random));
        samples.extend(chosen);
    }
    // Those of one size take the kernel less time.
    samples.sort_by_key(|sample| (sample.store.cow.len(), sample.store.origin.len()));
    samples
}

#[test]
fn torture_states_read_by_the_kernel() {
    let mut guest = Guest::boot();
    for seed in Budget::cases(1) {
        if guest.is_old() {
            drop(guest);
            guest = Guest::boot();
        }
        let samples = samples(seed);
        let stores: Vec<Lying> = samples.iter().map(|sample| sample.store.clone()).collect();
        for (sample, verdict) in samples.iter().zip(verdict::on(&mut guest, &stores)) {
            let what = &sample.what;
            assert_eq!(verdict.status.as_ref(), Ok(&sample.status), "{what}");
            assert_eq!(verdict.view.as_ref(), Some(&sample.view), "{what}");
            assert!(verdict.untouched, "{what}: the kernel wrote");
        }
        budget::count("crash", "states-read-by-the-kernel", samples.len() as u64);
    }
}
