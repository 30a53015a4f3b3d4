//! Jobs that meet trouble: first writes beside them, cancels, failed plans, missing space.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::raw_store::{RawStore, descriptor, encode};
use common::toy_host::{Disk, Host, Rng, SECTOR};
use dmsnap::store::{
    Commit, Device, OverflowMode, Plan, Prepared, Progress, Purpose, State, Step, WriteTarget,
};
use dmsnap::{ByteRange, Error, ErrorKind, OriginChunk};

const CHUNK: u64 = 4096;
const PER_CHUNK: u64 = CHUNK / SECTOR;

fn host(chunks: u64) -> Host {
    let sectors = chunks * PER_CHUNK;
    Host::new(
        CHUNK,
        sectors,
        sectors,
        Disk::growable(),
        OverflowMode::NoSpace,
    )
}

fn io_error() -> Error {
    Error::new(ErrorKind::Io, "test")
}

fn next(host: &mut Host) -> Plan {
    match host.store.next_plan().unwrap() {
        Progress::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn flushes(plan: &Plan, wanted: Device) -> bool {
    let flushes = |step: &Step| matches!(step, Step::Flush { device } if *device == wanted);
    plan.steps().iter().any(flushes)
}

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
    loop {
        let plan = next(host);
        if fails(&plan) {
            host.store.finish_plan(plan, Err(io_error())).unwrap_err();
            return;
        }
        host.finish_plan(plan);
    }
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
    let plan = loop {
        let plan = next(&mut host);
        if flushes(&plan, Device::Origin) {
            break plan;
        }
        host.finish_plan(plan);
    };
    let error = Error::new(ErrorKind::NoSpace, "test");
    host.store.finish_plan(plan, Err(error)).unwrap_err();
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
    let no_space = || Error::new(ErrorKind::NoSpace, "test");
    for changes in 1..4 {
        let mut host = host(12);
        host.write(0, 6 * PER_CHUNK);
        host.flush();
        host.store.prepare_merge(host.store.virtual_size()).unwrap();
        let plan = loop {
            let plan = next(&mut host);
            if flushes(&plan, Device::Cow) {
                break plan;
            }
            host.finish_plan(plan);
        };
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
    let no_space = Error::new(ErrorKind::NoSpace, "test");
    host.store.finish_plan(plan, Err(no_space)).unwrap_err();
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
            let mut plan = loop {
                let plan = next(&mut host);
                if plan.purpose() == Purpose::Descriptor {
                    break plan;
                }
                host.finish_plan(plan);
            };
            if reaches_disk {
                host.run(&mut plan, u64::MAX);
            }
            let error = Error::new(ErrorKind::NoSpace, "test");
            host.store.finish_plan(plan, Err(error)).unwrap_err();
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
    let error = Error::new(ErrorKind::NoSpace, "test");
    store.finish_plan(plan, Err(error)).unwrap_err();
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
            let error = Error::new(ErrorKind::NoSpace, "test");
            store.finish_plan(plan, Err(error)).unwrap_err();
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
