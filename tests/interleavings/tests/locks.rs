//! The locks that the library is built on, each alone, under every order of steps that a scheduler can think of.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]
#![allow(
    dead_code,
    unused_imports,
    reason = "each part of the library is used in part"
)]

mod common;
#[path = "../../../src/image/gate.rs"]
mod gate;
#[path = "../../../src/storage/range_locks.rs"]
mod range_locks;
#[path = "../../../src/image/signal.rs"]
mod signal;
#[path = "../../../src/sync/mod.rs"]
mod sync;

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use shuttle::thread;

use common::explore;
use gate::Gate;
use range_locks::RangeLocks;
use signal::Signal;

/// Runs each of these as a thread and waits for all.
fn together(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let handles: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    handles
        .into_iter()
        .for_each(|handle| handle.join().unwrap());
}

#[test]
fn torture_nobody_is_inside_a_closed_gate() {
    explore(12, || {
        let (gate, inside) = (Arc::new(Gate::default()), Arc::new(AtomicU32::new(0)));
        let pass = || {
            let (gate, inside) = (gate.clone(), inside.clone());
            Box::new(move || {
                for _ in 0..2 {
                    let _passage = gate.enter();
                    inside.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            }) as Box<dyn FnOnce() + Send>
        };
        let close = || {
            let (gate, inside) = (gate.clone(), inside.clone());
            Box::new(move || {
                for _ in 0..2 {
                    let _closed = gate.close();
                    assert_eq!(inside.fetch_add(100, Ordering::SeqCst), 0);
                    assert_eq!(inside.fetch_sub(100, Ordering::SeqCst), 100);
                }
            }) as Box<dyn FnOnce() + Send>
        };
        together(vec![pass(), pass(), close(), close()]);
        drop(gate.close());
    });
}

/// A change is never slept through: the generation is taken first, then the state is looked at.
#[test]
fn torture_no_signal_is_missed() {
    explore(12, || {
        let (signal, ready) = (
            Arc::new(Signal::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let wait = || {
            let (signal, ready) = (signal.clone(), ready.clone());
            Box::new(move || {
                loop {
                    let seen = signal.generation();
                    if ready.load(Ordering::SeqCst) {
                        return;
                    }
                    signal.wait(seen);
                }
            }) as Box<dyn FnOnce() + Send>
        };
        let (noise, change) = (signal.clone(), signal.clone());
        let set = ready.clone();
        together(vec![
            wait(),
            wait(),
            Box::new(move || noise.notify()),
            Box::new(move || {
                set.store(true, Ordering::SeqCst);
                change.notify();
            }),
        ]);
    });
}

#[test]
fn torture_locks_on_ranges_that_overlap_exclude_each_other() {
    explore(12, || {
        let locks = Arc::new(RangeLocks::default());
        let blocks: Arc<Vec<AtomicU32>> = Arc::new((0..4).map(|_| AtomicU32::new(0)).collect());
        let threads = [(0..2, true), (1..3, true), (1..4, false), (0..4, false)];
        let work = |(range, exclusive): (std::ops::Range<u64>, bool)| {
            let (locks, blocks) = (locks.clone(), blocks.clone());
            Box::new(move || {
                for _ in 0..2 {
                    let _guard = locks.acquire(range.clone(), exclusive);
                    let add = if exclusive { 100 } else { 1 };
                    for block in &blocks[range.start as usize..range.end as usize] {
                        let before = block.fetch_add(add, Ordering::SeqCst);
                        assert!(before == 0 || (!exclusive && before < 100), "{before}");
                    }
                    for block in &blocks[range.start as usize..range.end as usize] {
                        block.fetch_sub(add, Ordering::SeqCst);
                    }
                }
            }) as Box<dyn FnOnce() + Send>
        };
        together(threads.into_iter().map(work).collect());
    });
}
