//! Jobs that run out of space, are given up, or begin where something is damaged.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::plans::{CHUNK, PER_CHUNK, flushes, host, io_error, next, no_space, run_until};
use common::raw_store::{RawStore, descriptor};
use common::toy_host::{Disk, Host, Rng};
use dmsnap::store::{Commit, Device, OverflowMode, Prepared, Progress, Purpose, State, Step};
use dmsnap::{ErrorKind, OriginChunk};

/// What a flush elsewhere lost may be what the job's next plan builds on: a record that was moved, and whose old place is to be cleared.
#[test]
fn test_a_job_ends_with_a_flush_that_failed_beside_it() {
    let mut host = host(12);
    host.write(0, 6 * PER_CHUNK);
    host.flush();
    host.store.prepare_resize(2 * CHUNK, 12 * CHUNK).unwrap();
    let plan = next(&mut host);
    host.finish_plan(plan);
    host.store.fail(&io_error());
    let error = host.store.next_plan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreviousIo);
    host.store.cancel().unwrap();
    assert_eq!(host.load().virtual_size(), 2 * CHUNK);
}

/// Where space runs out half-way through a change of metadata, giving the job up is no reason to stop writing: the change is finished
/// by the next commit.
#[test]
fn test_a_job_given_up_without_space_is_ended_by_the_next_commit() {
    for changes in 1..4 {
        let mut host = host(12);
        host.write(0, 6 * PER_CHUNK);
        host.flush();
        host.store.prepare_merge(host.store.virtual_size()).unwrap();
        let plan = run_until(&mut host, |plan| flushes(plan, Device::Cow));
        let steps = plan.steps().to_vec();
        host.store.finish_plan(plan, Err(no_space())).unwrap_err();
        host.store.cancel().unwrap();
        assert!(host.store.is_cancelling());
        assert_eq!(host.store.state(), State::Merging);
        let refused = host.store.prepare_descriptor(None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
        for _ in 0..changes {
            let Ok(Commit::Plan(again)) = host.store.commit_exceptions() else {
                panic!("the plan that found no space is due")
            };
            assert_eq!(again.steps(), steps);
            assert!(matches!(host.store.commit_exceptions(), Ok(Commit::Wait)));
            host.store.finish_plan(again, Err(no_space())).unwrap_err();
        }
        host.flush();
        assert!(!host.store.is_cancelling());
        assert_eq!(host.store.state(), State::Active);
        assert_eq!(host.load().exceptions(), 0);
        host.write(3 * PER_CHUNK, 2 * PER_CHUNK);
        host.flush();
        host.verify();
        host.finish();
    }
}

/// First writes wait for it as they did for the job, and a host that asks for one gets the plan, too.
#[test]
fn test_first_writes_end_an_emptying_that_was_given_up_without_space() {
    let mut host = host(12);
    host.write(0, 6 * PER_CHUNK);
    host.flush();
    host.store.make_empty().unwrap();
    let plan = next(&mut host);
    host.store.finish_plan(plan, Err(no_space())).unwrap_err();
    host.store.cancel().unwrap();
    let Prepared::Reserve(plan) = host.store.prepare_exception(OriginChunk(9), 1).unwrap() else {
        panic!("the plan that found no space is due")
    };
    host.finish_plan(plan);
    let prepared = host.store.prepare_exception(OriginChunk(9), 1).unwrap();
    assert!(matches!(prepared, Prepared::Exception(_)), "{prepared:?}");
    assert_eq!(host.load().exceptions(), 0);
}

/// Growing over a large origin makes an exception for each of its chunks: they are committed on the way.
#[test]
fn test_growing_over_a_large_origin_keeps_little_pending() {
    const CHUNKS: u64 = 400_000;
    let raw = RawStore::new(CHUNK, 2, Some(descriptor(CHUNK)));
    let mut store = raw.load(raw.options(true)).unwrap();
    store
        .prepare_resize(CHUNKS * CHUNK, CHUNKS * CHUNK)
        .unwrap();
    let (mut most, mut steps) = (0, 0);
    while let Progress::Plan(plan) = store.next_plan().unwrap() {
        store.finish_plan(plan, Ok(())).unwrap();
        most = most.max(store.pending());
        steps += 1;
    }
    assert_eq!(store.exceptions(), CHUNKS - 1);
    assert!(most <= 1 << 17, "{most} pending after one of {steps} plans");
}

/// Growing is nothing that a kernel does, so running full there does not invalidate.
#[test]
fn test_growing_without_room_changes_nothing_in_the_kernels_modes() {
    for overflow in [
        OverflowMode::Persistent,
        OverflowMode::PersistentOverflow,
        OverflowMode::NoSpace,
    ] {
        let disk = Disk::fixed_with_garbage(6 * CHUNK, 1);
        let (below, size) = (20 * PER_CHUNK, 2 * PER_CHUNK);
        let mut host = Host::new(CHUNK, below, size, disk, overflow);
        host.write(0, 1);
        host.flush();
        host.store.prepare_resize(20 * CHUNK, 20 * CHUNK).unwrap();
        let error = loop {
            match host.store.next_plan() {
                Ok(Progress::Plan(plan)) => host.finish_plan(plan),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        host.store.cancel().unwrap();
        assert_eq!(host.store.state(), State::Active);
        assert!(host.store.take_invalidation().is_none());
        host.flush();
        host.verify();
        assert_eq!(host.load().virtual_size(), 2 * CHUNK);
    }
}

/// What lies past every disk's end takes a chunk, too.
#[test]
fn test_emptying_frees_the_chunks_of_records_past_every_disk() {
    let raw = RawStore::new(512, 40, None).with_records(&[(1 << 60, 2)]);
    let mut store = raw.load(raw.options(true)).unwrap();
    assert_eq!(store.status().to_string(), "3/40 2");
    store.make_empty().unwrap();
    while let Progress::Plan(plan) = store.next_plan().unwrap() {
        store.finish_plan(plan, Ok(())).unwrap();
    }
    assert_eq!(store.status().to_string(), "2/40 2");
}

/// A descriptor that could not be written does not come to count later, and neither does it after a crash.
#[test]
fn test_a_descriptor_given_up_without_space_is_taken_back() {
    for reaches_disk in [true, false] {
        for removed in [true, false] {
            let mut host = host(12);
            host.write(0, PER_CHUNK);
            host.flush();
            if removed {
                host.store.prepare_descriptor(None).unwrap();
            } else {
                host.store.prepare_resize(20 * CHUNK, 12 * CHUNK).unwrap();
            }
            let mut plan = run_until(&mut host, |plan| plan.purpose() == Purpose::Descriptor);
            if reaches_disk {
                host.run(&mut plan, u64::MAX);
            }
            host.store.finish_plan(plan, Err(no_space())).unwrap_err();
            host.store.cancel().unwrap();
            host.flush();
            assert!(!host.store.is_cancelling());
            assert_eq!(host.store.virtual_size(), 12 * CHUNK);
            host.crash(&mut Rng::new(1));
            assert_eq!(host.store.virtual_size(), 12 * CHUNK);
            assert!(host.store.descriptor().is_some());
            host.verify();
            host.resize(20 * PER_CHUNK, u64::MAX);
            host.verify();
            host.finish();
        }
    }
}

/// A read that fails while a merge removes records that stand twice has changed nothing.
#[test]
fn test_failed_read_of_a_repair_in_a_merge_leaves_the_store_as_it_was() {
    let records: Vec<(u64, u64)> = vec![(0, 2), (1, 3), (2, 4), (0, 2)];
    let raw = RawStore::new(CHUNK, 8, None).with_records(&records);
    let mut store = raw.load(raw.options(true)).unwrap();
    store.prepare_merge(3 * CHUNK).unwrap();
    let Progress::Plan(plan) = store.next_plan().unwrap() else {
        panic!("the log is scanned")
    };
    assert!(
        plan.steps()
            .iter()
            .all(|step| matches!(step, Step::Read { .. }))
    );
    store.finish_plan(plan, Err(io_error())).unwrap_err();
    assert_eq!(store.state(), State::MergeFailed);
    store.prepare_merge(3 * CHUNK).unwrap();
}

/// Where a damaged slot is all that tells of a larger disk, taking a new descriptor back would leave the older one to count, and what
/// lies past its end to be dropped.
#[test]
fn test_a_damaged_descriptor_is_not_taken_back_to() {
    let mut raw = RawStore::new(CHUNK, 12, Some(descriptor(4 * CHUNK))).with_records(&[(7, 2)]);
    // The slot of a larger disk, torn.
    let torn = raw.bytes[512..1024].to_vec();
    raw.bytes[2048..2560].copy_from_slice(&torn);
    raw.bytes[2048 + 60] ^= 1;
    let mut store = raw.load(raw.options(true)).unwrap();
    assert!(!store.descriptor_damage().is_empty());
    store
        .prepare_descriptor(Some(descriptor(8 * CHUNK)))
        .unwrap();
    let Ok(Progress::Plan(plan)) = store.next_plan() else {
        panic!("a descriptor is to be written")
    };
    let steps = plan.steps().to_vec();
    store.finish_plan(plan, Err(no_space())).unwrap_err();
    store.cancel().unwrap();
    let Ok(Commit::Plan(plan)) = store.commit_exceptions() else {
        panic!("the plan that found no space is due")
    };
    assert_eq!(plan.steps(), steps, "the same again");
    store.finish_plan(plan, Ok(())).unwrap();
    assert_eq!(store.virtual_size(), 8 * CHUNK);
}

/// Nobody drives a repair that a first write began, so a commit ends it.
#[test]
fn test_a_repair_without_space_is_ended_by_a_commit() {
    let records: Vec<(u64, u64)> = vec![(0, 2), (1, 3), (2, 4), (0, 2)];
    let mut raw = RawStore::new(CHUNK, 8, Some(descriptor(8 * CHUNK))).with_records(&records);
    raw.bytes.resize(4 << 20, 0);
    let mut store = raw.load(raw.options(true)).unwrap();
    loop {
        let Prepared::Reserve(mut plan) = store.prepare_exception(OriginChunk(5), 1).unwrap()
        else {
            panic!("records are to be removed")
        };
        raw.supply(&mut plan);
        if flushes(&plan, Device::Cow) {
            store.finish_plan(plan, Err(no_space())).unwrap_err();
            break;
        }
        store.finish_plan(plan, Ok(())).unwrap();
    }
    assert!(store.is_cancelling());
    let Ok(Commit::Plan(plan)) = store.commit_exceptions() else {
        panic!("the plan that found no space is due")
    };
    store.finish_plan(plan, Ok(())).unwrap();
    store.prepare_resize(9 * CHUNK, 0).unwrap();
}
