//! Jobs that meet trouble: first writes beside them, cancels, failed plans, missing space.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::plans::{CHUNK, PER_CHUNK, flushes, host, io_error, next, no_space, run_until};
use common::raw_store::{RawStore, descriptor, encode};
use common::toy_host::{Disk, Host, Rng, SECTOR};
use dmsnap::store::{Device, OverflowMode, Plan, Prepared, Progress, State, Step, WriteTarget};
use dmsnap::{ByteRange, ErrorKind, OriginChunk};

fn copies(plan: &Plan) -> bool {
    let copies = |step: &Step| matches!(step, Step::Copy { .. });
    plan.steps().iter().any(copies)
}

/// A first write that completed while the records are being cleared would keep a chunk that counts as free.
#[test]
fn test_make_empty_holds_first_writes_back() {
    let mut host = host(12);
    host.write(0, 4 * PER_CHUNK);
    host.flush();
    host.store.make_empty().unwrap();
    let plan = next(&mut host);
    let prepared = host.store.prepare_exception(OriginChunk(8), 1).unwrap();
    assert!(matches!(prepared, Prepared::Wait), "{prepared:?}");
    host.finish_plan(plan);
    host.merge_on();
    for chunk in [8, 9, 2] {
        host.store
            .map_write(ByteRange::new(chunk * CHUNK, CHUNK))
            .map(|extent| assert_eq!(extent.target, WriteTarget::Unmapped))
            .unwrap();
        let Prepared::Exception(new) = host.store.prepare_exception(OriginChunk(chunk), 1).unwrap()
        else {
            panic!()
        };
        host.store.complete_exception(new.id).unwrap();
    }
    host.flush();
    assert_eq!(host.load().exceptions(), 3);
}

/// Chunks in random order, so that shrinking has to move records; more of them than one area holds.
fn scattered(chunks: u64, written: usize) -> Host {
    let mut host = host(chunks);
    let mut rng = Rng::new(chunks);
    let mut order: Vec<u64> = (0..chunks).collect();
    for left in (1..chunks).rev() {
        order.swap(left as usize, rng.below(left + 1) as usize);
    }
    for chunk in &order[..written] {
        host.write(chunk * PER_CHUNK, PER_CHUNK);
    }
    host.flush();
    host
}

#[test]
fn test_a_shrink_can_be_given_up_after_any_plan() {
    for plans in 0..8 {
        let mut host = scattered(600, 500);
        host.stop_resize(200 * PER_CHUNK + 3, plans);
        host.verify();
        // First writes and their records go behind whatever the cancel left.
        host.write(0, 180 * PER_CHUNK);
        host.flush();
        host.verify();
        assert_eq!(host.load().exceptions(), host.store.exceptions());
        host.resize(600 * PER_CHUNK, u64::MAX);
        host.verify();
        host.crash(&mut Rng::new(plans));
        host.verify();
        host.finish();
    }
}

#[test]
fn test_what_a_given_up_shrink_left_is_merged_away() {
    for plans in 0..8 {
        let mut host = scattered(600, 500);
        host.stop_resize(200 * PER_CHUNK, plans);
        host.merge(u64::MAX);
        host.verify();
        assert_eq!(host.load().exceptions(), 0);
    }
}

/// The exceptions of a run that was being written when the disk shrank inside it would come after the others were dropped.
#[test]
fn test_shrink_waits_for_a_run_in_flight_across_the_new_end() {
    let mut host = host(12);
    host.hold(4 * PER_CHUNK, 6 * PER_CHUNK);
    host.store.prepare_resize(6 * CHUNK, 12 * CHUNK).unwrap();
    let waits = loop {
        match host.store.next_plan().unwrap() {
            Progress::Plan(plan) => host.finish_plan(plan),
            Progress::Wait => break true,
            Progress::Done => break false,
        }
    };
    assert!(waits);
    let id = host.held.pop_first().unwrap().1.0.id;
    host.store.complete_exception(id).unwrap();
    host.merge_on();
    assert_eq!(host.store.exceptions(), 2);
    assert!(!host.store.wants_repair());
}

fn fail_merge_when(host: &mut Host, fails: impl Fn(&Plan) -> bool) {
    host.store.prepare_merge(host.store.virtual_size()).unwrap();
    let plan = run_until(host, fails);
    host.store.finish_plan(plan, Err(io_error())).unwrap_err();
}

#[test]
fn test_changes_are_refused_after_a_merge_that_failed() {
    let mut host = host(12);
    host.write(0, 4 * PER_CHUNK);
    host.flush();
    fail_merge_when(&mut host, copies);
    assert_eq!(host.store.state(), State::MergeFailed);
    // Its chunks past the end would be uncovered: first writes go to the origin now, and so would zeros.
    let resized = host.store.prepare_resize(14 * CHUNK, 20 * CHUNK);
    let emptied = host.store.make_empty();
    let described = host.store.prepare_descriptor(None);
    for refused in [resized, emptied, described] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::MergeFailed);
    }
    host.merge(u64::MAX);
    host.verify();
    host.resize(14 * PER_CHUNK, u64::MAX);
    host.verify();
}

/// What first writes put into the origin may be lost with its flush, and the guest's next flush would not tell.
#[test]
fn test_failed_flush_of_the_origin_in_a_merge_latches() {
    let mut host = host(12);
    host.write(0, 4 * PER_CHUNK);
    host.flush();
    fail_merge_when(&mut host, |plan| flushes(plan, Device::Origin));
    assert_eq!(host.store.state(), State::Failed);
    assert_eq!(host.store.status().to_string(), "Merge failed");
    assert_eq!(host.load().exceptions(), 4, "nothing of the batch is gone");
}

/// Where the origin had no room, what was copied may be lost: it is copied again before the next flush.
#[test]
fn test_batch_is_copied_again_after_a_flush_without_space() {
    let mut host = host(12);
    host.write(0, 4 * PER_CHUNK);
    host.flush();
    host.store.prepare_merge(host.store.virtual_size()).unwrap();
    let plan = run_until(&mut host, |plan| flushes(plan, Device::Origin));
    host.store.finish_plan(plan, Err(no_space())).unwrap_err();
    // Meanwhile its chunks can be written.
    host.write(PER_CHUNK, 1);
    let mut copied = false;
    while let Progress::Plan(plan) = host.store.next_plan().unwrap() {
        assert!(copied || !flushes(&plan, Device::Origin), "{plan:?}");
        copied |= copies(&plan);
        host.finish_plan(plan);
    }
    host.verify();
}

#[test]
fn test_failed_flush_of_a_zeroed_tail_latches() {
    let mut host = host(12);
    host.resize(11 * PER_CHUNK + 3, u64::MAX);
    host.write(11 * PER_CHUNK, 2);
    host.flush();
    host.store.prepare_resize(12 * CHUNK, 12 * CHUNK).unwrap();
    let plan = next(&mut host);
    assert!(flushes(&plan, Device::Cow));
    host.store.finish_plan(plan, Err(io_error())).unwrap_err();
    assert_eq!(host.store.state(), State::Failed);
}

/// Growing over an origin with data: every plan in turn finds no space at first.
#[test]
fn test_resize_goes_on_after_missing_space() {
    for short in 0..8 {
        for sectors in [5 * PER_CHUNK + 3, 5 * PER_CHUNK] {
            let mut host = host(20);
            host.resize(sectors, u64::MAX);
            host.write(3 * PER_CHUNK, 1);
            host.resize_in_need(18 * PER_CHUNK, u64::MAX, short);
            host.verify();
            host.crash(&mut Rng::new(short));
            host.verify();
            assert_eq!(host.store.virtual_size(), 18 * CHUNK);
            host.resize_in_need(2 * PER_CHUNK + 1, u64::MAX, short);
            host.verify();
            host.finish();
        }
    }
}

/// Both slots would have the same generation, and the other one would count.
#[test]
fn test_descriptor_of_the_last_generation_is_not_replaced() {
    let last = dmsnap::format::Descriptor {
        generation: u64::MAX,
        ..descriptor(8 * CHUNK)
    };
    let raw = RawStore::new(CHUNK, 2, Some(last));
    let mut store = raw.load(raw.options(true)).unwrap();
    let error = store.prepare_resize(4 * CHUNK, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(store.virtual_size(), 8 * CHUNK);
    let error = store
        .prepare_descriptor(Some(descriptor(8 * CHUNK)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    store.prepare_descriptor(None).unwrap();
}

/// Another size in a descriptor would uncover or hide chunks that nobody zeroed or dropped.
#[test]
fn test_another_descriptor_does_not_change_the_size() {
    let mut host = host(12);
    let other = descriptor(20 * CHUNK);
    let error = host.store.prepare_descriptor(Some(other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    host.store
        .prepare_descriptor(Some(descriptor(12 * CHUNK)))
        .unwrap();
}

/// Puts a record of slot 0 behind the last one, as an interrupted drop does.
fn repeat_first_record(host: &mut Host, records: u64) {
    let raw = RawStore::new(CHUNK, 2, None);
    let first = host.cow.read(raw.slot(0), 16);
    host.cow.write(raw.slot(records), &first);
    host.cow.flush();
    host.store = host.load();
    assert!(host.store.wants_repair());
}

#[test]
fn test_shrink_drops_records_that_stand_twice() {
    let mut host = host(12);
    host.write(0, 8 * PER_CHUNK);
    host.flush();
    repeat_first_record(&mut host, 8);
    host.resize(6 * PER_CHUNK, u64::MAX);
    host.verify();
    assert!(!host.store.wants_repair());
    host.resize(12 * PER_CHUNK, u64::MAX);
    host.verify();
    assert!(!host.load().wants_repair());
}

/// Records that stand twice make the log longer than the chunks in use: the areas at its end lie behind next free.
#[test]
fn test_first_write_spares_areas_of_records_that_stand_twice() {
    let mut host = Host::new(SECTOR, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    for chunk in 0..17 {
        host.write(100 - 2 * chunk, 1);
    }
    host.flush();
    let raw = RawStore::new(SECTOR, 2, None);
    let record = |chunk: u64| encode((100 - 2 * chunk, 2 + chunk));
    assert_eq!(host.cow.read(raw.slot(16), 16), record(16));
    for slot in 0..64 {
        host.cow.write(raw.slot(slot), &record(slot % 16));
    }
    host.cow.write(raw.slot(64), &[0; SECTOR as usize]);
    host.cow.write(raw.slot(64), &record(16));
    host.cow.flush();
    host.store = host.load();
    assert!(host.store.wants_repair());
    host.verify();
    // No repair was asked for.
    host.write(150, 1);
    host.flush();
    host.verify();
    host.crash(&mut Rng::new(1));
    host.verify();
    assert_eq!(host.store.exceptions(), 18);
    host.finish();
}
