//! Records that no host of ours writes, and plans that come back out of turn.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::raw_store::{RawStore, descriptor};
use dmsnap::store::{
    CheckReader, FindingKind, LoadOptions, Loader, OverflowMode, Progress, Severity, Step,
};
use dmsnap::{ByteRange, ErrorKind, OriginChunk};

const FAR: u64 = 1 << 60;

fn found(raw: &RawStore, kind: FindingKind) -> usize {
    let report = raw.check();
    let of_kind = report.findings.iter().filter(|found| found.kind == kind);
    of_kind.count()
}

/// An exception past any disk's end that shares its chunk with another one would free that when it is dropped.
#[test]
fn test_exceptions_past_every_disk_may_not_share_chunks() {
    let shared: [&[(u64, u64)]; 3] = [
        &[(0, 2), (FAR, 2)],
        &[(FAR, 2), (1, 3), (0, 2)],
        &[(FAR, 2), (FAR + 7, 2), (0, 3)],
    ];
    for records in shared {
        for described in [true, false] {
            let descriptor = described.then(|| descriptor(8 * 4096));
            let raw = RawStore::new(4096, 8, descriptor).with_records(records);
            let error = raw.load(raw.options(true)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{records:?}");
            assert_eq!(found(&raw, FindingKind::SharedNewChunk), 1, "{records:?}");
        }
    }
}

#[test]
fn test_exceptions_past_every_disk_are_compared_with_each_other() {
    let raw = RawStore::new(4096, 8, None).with_records(&[(FAR, 2), (FAR, 3)]);
    let error = raw.load(raw.options(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(found(&raw, FindingKind::DuplicateOldChunk), 1);

    let raw = RawStore::new(4096, 8, None).with_records(&[(FAR, 2), (0, 3), (FAR, 2)]);
    assert!(raw.load(raw.options(true)).unwrap().wants_repair());
    assert_eq!(found(&raw, FindingKind::RepeatedRecord), 1);
    assert_eq!(found(&raw, FindingKind::SharedNewChunk), 0);
}

/// Runs the job that was begun; returns how many bytes it copies.
fn drive(store: &mut dmsnap::store::Store, raw: &mut RawStore) -> u64 {
    let mut copied = 0;
    loop {
        match store.next_plan().unwrap() {
            Progress::Plan(mut plan) => {
                raw.supply(&mut plan);
                for step in plan.steps().to_vec() {
                    match step {
                        Step::Write { offset, data, .. } => {
                            raw.bytes[offset as usize..][..data.len()].copy_from_slice(&data);
                        }
                        Step::WriteZeroes { range, .. } => {
                            raw.bytes[range.start as usize..range.end() as usize].fill(0);
                        }
                        Step::Copy { len, .. } => copied += len,
                        _ => {}
                    }
                }
                store.finish_plan(plan, Ok(())).unwrap();
            }
            Progress::Wait => panic!("nothing to wait for"),
            Progress::Done => return copied,
        }
    }
}

#[test]
fn test_exceptions_past_every_disk_are_merged_and_repaired_away() {
    let records = [(u64::MAX - 1, 2), (FAR, 5), (u64::MAX, 3)];
    let mut raw = RawStore::new(4096, 8, Some(descriptor(8 * 4096))).with_records(&records);
    let mut store = raw.load(raw.options(true)).unwrap();
    assert!(store.wants_repair());
    store.prepare_merge(8 * 4096).unwrap();
    assert_eq!(drive(&mut store, &mut raw), 0);
    assert!(!store.wants_repair());
    assert_eq!(raw.check().next_free, 2);

    let mut raw = RawStore::new(4096, 8, Some(descriptor(8 * 4096))).with_records(&records);
    let mut store = raw.load(raw.options(true)).unwrap();
    store.prepare_repair().unwrap();
    assert_eq!(drive(&mut store, &mut raw), 0);
    assert!(!store.wants_repair());
    assert_eq!(raw.check().next_free, 2);
}

/// A batch frees the chunks of its records, although one of them stands in front of the batch again.
#[test]
fn test_merge_begins_with_records_that_stand_twice() {
    let count = 66_000;
    let data = |index: u64| 2 + index + index / 32;
    let mut records: Vec<(u64, u64)> = (0..count).map(|index| (index, data(index))).collect();
    records.push(records[0]);
    let mut raw = RawStore::new(512, data(count) + 34, None).with_records(&records);
    let mut store = raw.load(raw.options(true)).unwrap();
    assert!(store.wants_repair());
    store.prepare_merge(store.virtual_size()).unwrap();
    assert_eq!(drive(&mut store, &mut raw), count * 512);
    assert_eq!(store.exceptions(), 0);
    assert_eq!(raw.check().exceptions, 0);
}

/// A reader that took both would count the records twice.
#[test]
fn test_loaders_take_the_plan_they_gave_last_and_once() {
    let raw = RawStore::new(4096, 8, None).with_records(&[(0, 2), (1, 3)]);
    let mut loader = Loader::new(raw.options(true)).unwrap();
    let mut reader = CheckReader::new(raw.options(true)).unwrap();
    let (mut plans, mut refused) = (0, 0);
    while let Some(mut old) = loader.next_plan().unwrap() {
        raw.supply(&mut old);
        let mut plan = loader.next_plan().unwrap().unwrap();
        raw.supply(&mut plan);
        let error = loader.finish_plan(old).unwrap_err();
        refused += u64::from(error.kind() == ErrorKind::InvalidArgument);
        loader.finish_plan(plan).unwrap();
        plans += 1;
    }
    assert_eq!(refused, plans);
    let store = loader.finish().unwrap();
    assert_eq!((store.exceptions(), store.wants_repair()), (2, false));
    while let Some(mut old) = reader.next_plan().unwrap() {
        raw.supply(&mut old);
        let mut plan = reader.next_plan().unwrap().unwrap();
        raw.supply(&mut plan);
        let error = reader.finish_plan(old).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        reader.finish_plan(plan).unwrap();
    }
    assert_eq!(reader.finish().unwrap().repairable, 0);
}

/// Many findings of one kind do not hide another kind.
#[test]
fn test_check_lists_a_thousand_findings_of_each_kind() {
    let mut records: Vec<(u64, u64)> = (0..1200).map(|old| (old, 1 << 40)).collect();
    records.extend([(5000, 2), (5000, 3)]);
    records.extend((6000..6002).map(|old| (old, 4)));
    let raw = RawStore::new(65536, 8, None).with_records(&records);
    assert_eq!(found(&raw, FindingKind::IllegalNewChunk), 1000);
    assert_eq!(found(&raw, FindingKind::DuplicateOldChunk), 1);
    assert_eq!(found(&raw, FindingKind::SharedNewChunk), 1);
    let report = raw.check();
    assert_eq!(report.corruptions, 1202);
    let bad = |severity| severity == Severity::Corruption;
    assert!(report.findings.iter().all(|found| bad(found.severity)));
}

/// The parts of a range that a hostile record claims are told as they are asked for.
#[test]
fn test_parts_of_a_huge_hole_are_told_one_by_one() {
    let report = RawStore::new(512, 8, None).check();
    let parts: Vec<ByteRange> = report
        .data_in(ByteRange::new(0, 1 << 62))
        .skip(1)
        .take(2)
        .collect();
    let stride = 33 * 512;
    let expected = [0, 1].map(|area| ByteRange::new(1024 + area * stride, 32 * 512));
    assert_eq!(parts, expected);
}

/// Chunk numbers have 48 bits here. What a huge sparse file holds behind that must not come out as another chunk, the header's for one.
#[test]
fn test_chunks_past_the_last_number_are_neither_read_nor_handed_out() {
    const LAST: u64 = (1 << 48) - 1;
    let huge = |raw: &RawStore, overflow| LoadOptions {
        cow_size: (1 << 57) + 4096,
        overflow,
        ..raw.options(true)
    };
    for past in [LAST + 1, LAST + 2] {
        let raw = RawStore::new(512, 40, None).with_records(&[(5, LAST), (9, past)]);
        let error = raw.load(huge(&raw, OverflowMode::NoSpace)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.offset(), Some(512 + 16), "{error}");
    }
    let raw = RawStore::new(512, 40, None).with_records(&[(5, LAST)]);
    let mut store = raw.load(huge(&raw, OverflowMode::Persistent)).unwrap();
    let error = store.prepare_exception(OriginChunk(0), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
}

/// Nobody finds a record among millions by its chunk.
#[test]
fn test_contradictions_are_told_with_their_place() {
    let records: Vec<(u64, u64)> = (0..300).map(|old| (old, old + 2)).collect();
    type Case<'a> = (&'a [(u64, u64)], FindingKind, u64);
    let cases: [Case<'_>; 4] = [
        (&[(300, 303), (7, 304)], FindingKind::DuplicateOldChunk, 301),
        (&[(300, 9)], FindingKind::SharedNewChunk, 300),
        (
            &[(FAR, 303), (FAR, 304)],
            FindingKind::DuplicateOldChunk,
            301,
        ),
        (&[(300, 303), (7, 9)], FindingKind::RepeatedRecord, 301),
    ];
    for (more, kind, slot) in cases {
        // Where area 1 lies, in chunk 258, no data can be.
        let legal = records.iter().map(|&(old, new)| match new {
            258.. => (old, new + 1),
            _ => (old, new),
        });
        let all: Vec<(u64, u64)> = legal.chain(more.iter().copied()).collect();
        let raw = RawStore::new(4096, 320, None).with_records(&all);
        let place = Some(raw.slot(slot));
        let report = raw.check();
        let found = report.findings.iter().find(|found| found.kind == kind);
        assert_eq!(found.map(|found| found.offset), Some(place), "{more:?}");
        match raw.load(raw.options(true)) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert_eq!(error.offset(), place, "{error}");
                assert!(error.to_string().contains("one is expected"), "{error}");
            }
            Ok(_) => assert_eq!(kind, FindingKind::RepeatedRecord, "{more:?}"),
        }
    }
}
