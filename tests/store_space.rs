//! Space of the COW file, and stores that become writable.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::raw_store::{RawStore, encode};
use common::toy_host::{Disk, Host, SECTOR};
use dmsnap::store::{Commit, OverflowMode, Prepared, Step, WriteTarget};
use dmsnap::{ByteRange, Error, ErrorKind, OriginChunk};

fn prepare(host: &mut Host, chunk: u64) -> Prepared {
    host.store.prepare_exception(OriginChunk(chunk), 1).unwrap()
}

/// A device may be made larger while a reservation runs on what it had.
#[test]
fn test_finished_reservation_keeps_a_newer_size() {
    let disk = Disk::fixed_with_garbage(40 * SECTOR, 1);
    let mut host = Host::new(SECTOR, 200, 200, disk, OverflowMode::NoSpace);
    let Prepared::Reserve(plan) = prepare(&mut host, 3) else {
        panic!()
    };
    host.cow.bytes.resize(80 * SECTOR as usize, 0);
    host.store.set_cow_size(80 * SECTOR);
    host.finish_plan(plan);
    assert_eq!(host.store.cow_size(), 80 * SECTOR);
    for chunk in 0..60 {
        host.write(2 * chunk, 1);
    }
    assert_eq!(host.store.exceptions(), 60);
}

/// What was freed is given back, what was reserved ahead is kept: a batch of a merge does not cost the reservation.
#[test]
fn test_reclaim_keeps_what_trim_gives_up() {
    let mut host = Host::new(
        4096,
        80_000,
        80_000,
        Disk::growable(),
        OverflowMode::NoSpace,
    );
    host.write(0, 8);
    host.flush();
    let reserved = host.store.cow_size();
    assert!(reserved >= 8 << 20);
    host.reclaim();
    assert_eq!(host.store.cow_size(), reserved, "nothing was freed");
    host.write(8, 80_000 - 8);
    host.flush();
    let full = host.store.cow_size();
    host.merge(u64::MAX);
    host.reclaim();
    let kept = host.store.cow_size();
    assert!(kept < full && kept >= 8 << 20, "{kept} of {full}");
    assert!(
        matches!(prepare(&mut host, 5), Prepared::Exception(_)),
        "the reservation is still good"
    );
    host.trim();
    assert_eq!(host.store.cow_size(), 3 * 4096);
}

/// A host that cannot cut its file shall not be asked for ever.
#[test]
fn test_refused_cut_is_not_asked_for_again() {
    let mut host = Host::new(4096, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    host.write(0, 8);
    host.flush();
    let plan = host.store.trim().unwrap();
    let error = Error::new(ErrorKind::Unsupported, "test");
    host.store.finish_plan(plan, Err(error)).unwrap_err();
    assert!(host.store.trim().is_none());
    host.write(16, 8);
    host.flush();
    host.verify();
    assert!(
        host.store.trim().is_none(),
        "no longer than what was refused"
    );
}

/// In chunks of 4 MiB the end of the area is not read by those who only read. What lies there must not become records.
#[test]
fn test_store_that_becomes_writable_clears_what_it_did_not_look_at() {
    const CHUNK: u64 = 4 << 20;
    let mut raw = RawStore::new(CHUNK, 4, None).with_records(&[(0, 2)]);
    // The second piece of the area, and the slot behind what fits into the first one.
    let stale = raw.slot(CHUNK / 2 / 16) as usize;
    raw.bytes[stale..stale + 16].copy_from_slice(&encode((7, 3)));
    let mut options = raw.options(false);
    options.origin_size = Some(8 * CHUNK);
    let mut store = raw.load(options).unwrap();
    assert!(!store.is_writable());
    let range = ByteRange::new(CHUNK, CHUNK);
    assert_eq!(
        store.map_write(range).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    store.set_writable(true).unwrap();
    assert_eq!(
        store.map_write(range).unwrap().target,
        WriteTarget::Unmapped
    );
    let new = loop {
        match store.prepare_exception(OriginChunk(1), 1).unwrap() {
            Prepared::Exception(new) => break new,
            Prepared::Reserve(plan) => store.finish_plan(plan, Ok(())).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let error = store.set_writable(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "an exception is in flight");
    store.complete_exception(new.id).unwrap();
    let error = store.set_writable(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "it is not committed");
    let Commit::Plan(plan) = store.commit_exceptions().unwrap() else {
        panic!()
    };
    for step in plan.steps() {
        match step {
            Step::Write { offset, data, .. } => {
                raw.bytes[*offset as usize..][..data.len()].copy_from_slice(data);
            }
            Step::WriteZeroes { range, .. } => {
                raw.bytes[range.start as usize..range.end() as usize].fill(0);
            }
            _ => {}
        }
    }
    store.finish_plan(plan, Ok(())).unwrap();
    assert_eq!(raw.bytes[stale..stale + 16], [0; 16]);
    assert_eq!(raw.bytes[raw.slot(1) as usize..][..16], encode((1, 3)));
    store.set_writable(false).unwrap();
    assert_eq!(
        store.map_write(range).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    store.set_writable(true).unwrap();
    assert!(store.map_write(range).is_ok());
}

/// An area that is full to its end: the next one, empty as far as anybody knows, is cleared before it is written.
#[test]
fn test_store_that_becomes_writable_trusts_no_empty_area() {
    const CHUNK: u64 = 2 << 20;
    let per_area = CHUNK / 16;
    let mut raw = RawStore::new(CHUNK, 3, None);
    let stale = raw.slot(per_area - 1) as usize;
    raw.bytes[stale..stale + 16].copy_from_slice(&encode((7, 2)));
    let mut store = raw.load(raw.options(false)).unwrap();
    store.set_writable(true).unwrap();
    store.prepare_merge(0).unwrap();
    let Ok(dmsnap::store::Progress::Plan(plan)) = store.next_plan() else {
        panic!("the merge has to clear it first")
    };
    let clears = plan.steps().iter().any(|step| match step {
        Step::Write { offset, data, .. } => {
            (*offset..offset + data.len() as u64).contains(&(stale as u64))
        }
        Step::WriteZeroes { range, .. } => (range.start..range.end()).contains(&(stale as u64)),
        _ => false,
    });
    assert!(clears);
    store.finish_plan(plan, Ok(())).unwrap();
}
