//! Rules of the store one by one: device ends, overflow modes, status figures, idempotent commits, latching, flush counts, memory.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::toy_host::{Disk, Host, Rng, SECTOR};
use dmsnap::store::{
    Commit, Device, FormatOptions, LoadOptions, Loader, OverflowMode, Prepared, Progress, Purpose,
    State, Step, Store, WriteTarget, format_plan,
};
use dmsnap::{ByteRange, ChunkSize, Error, ErrorKind, OriginChunk};

fn fixed(chunks: u64, overflow: OverflowMode) -> Host {
    let disk = Disk::fixed_with_garbage(chunks * SECTOR, chunks);
    Host::new(SECTOR, 200, 200, disk, overflow)
}

fn try_first_write(host: &mut Host, chunk: u64) -> Result<(), ErrorKind> {
    let range = ByteRange::new(chunk * SECTOR, SECTOR);
    let extent = host.store.map_write(range).map_err(|error| error.kind())?;
    assert_eq!(extent.target, WriteTarget::Unmapped);
    loop {
        match host.store.prepare_exception(OriginChunk(chunk), 1) {
            Ok(Prepared::Exception(new)) => {
                host.cow.write(new.cow_offset, &[7; 512]);
                return host
                    .store
                    .complete_exception(new.id)
                    .map_err(|error| error.kind());
            }
            Ok(Prepared::Reserve(plan)) => host.finish_plan(plan),
            Ok(other) => panic!("{other:?}"),
            Err(error) => return Err(error.kind()),
        }
    }
}

/// What the kernel holds on devices that end around an area: the second figure is what is left after the last one that fits.
#[test]
fn test_capacity_at_device_ends_is_the_kernels() {
    let table = [
        (2, 0, "2/2 2"),
        (3, 1, "3/3 2"),
        (33, 31, "33/33 2"),
        (34, 31, "33/34 2"),
        (35, 32, "35/35 3"),
        (36, 33, "36/36 3"),
        (67, 63, "66/67 3"),
        (68, 64, "68/68 4"),
    ];
    for (chunks, capacity, status) in table {
        let mut host = fixed(chunks, OverflowMode::NoSpace);
        for chunk in 0..capacity {
            assert_eq!(
                try_first_write(&mut host, 2 * chunk),
                Ok(()),
                "{chunks}: {chunk}"
            );
        }
        assert_eq!(
            try_first_write(&mut host, 150),
            Err(ErrorKind::NoSpace),
            "{chunks}"
        );
        assert_eq!(host.store.status().to_string(), status);
        host.flush();
        let again = host.load();
        assert_eq!(again.exceptions(), capacity);
        assert_eq!(again.status().to_string(), status);
        assert_eq!(again.state(), State::Active);
    }
}

#[test]
fn test_full_store_takes_overwrites_by_default() {
    let mut host = fixed(3, OverflowMode::NoSpace);
    try_first_write(&mut host, 5).unwrap();
    try_first_write(&mut host, 6).unwrap_err();
    let again = host
        .store
        .map_write(ByteRange::new(5 * SECTOR, SECTOR))
        .unwrap();
    assert_eq!(again.target, WriteTarget::Cow { offset: 2 * SECTOR });
    // A device that grew is used at once.
    host.cow.bytes.resize(4 * SECTOR as usize, 0);
    host.store.set_cow_size(4 * SECTOR);
    try_first_write(&mut host, 6).unwrap();
}

#[test]
fn test_mode_po_refuses_every_write_until_reopened() {
    let mut host = fixed(3, OverflowMode::PersistentOverflow);
    try_first_write(&mut host, 5).unwrap();
    assert_eq!(try_first_write(&mut host, 6), Err(ErrorKind::Overflow));
    assert_eq!(host.store.status().to_string(), "Overflow");
    let mapped = ByteRange::new(5 * SECTOR, SECTOR);
    assert_eq!(
        host.store.map_write(mapped).unwrap_err().kind(),
        ErrorKind::Overflow
    );
    assert!(host.store.map(mapped).is_ok());
    // What was complete is kept.
    let Commit::Plan(plan) = host.store.commit_exceptions().unwrap() else {
        panic!()
    };
    host.finish_plan(plan);
    let again = host.load();
    assert_eq!(again.status().to_string(), "3/3 2");
    assert!(again.map_write(mapped).is_ok());
}

#[test]
fn test_mode_p_invalidates_on_disk() {
    let mut host = fixed(3, OverflowMode::Persistent);
    try_first_write(&mut host, 5).unwrap();
    host.flush();
    assert_eq!(try_first_write(&mut host, 6), Err(ErrorKind::Overflow));
    let plan = host.store.take_invalidation().unwrap();
    assert_eq!(plan.purpose(), Purpose::Invalidate);
    host.finish_plan(plan);
    assert!(host.store.take_invalidation().is_none());
    assert_eq!(host.store.status().to_string(), "Invalid");
    assert_eq!(&host.cow.bytes[..16], b"SnAp\0\0\0\0\x01\0\0\0\x01\0\0\0");
    let mapped = ByteRange::new(5 * SECTOR, SECTOR);
    assert_eq!(
        host.store.map(mapped).unwrap_err().kind(),
        ErrorKind::SnapshotInvalid
    );
    host.cow.flush();
    let again = host.load();
    assert_eq!(again.state(), State::Invalid);
}

#[test]
fn test_figures_follow_the_kernels_formulas() {
    let mut host = Host::new(SECTOR, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    let allocated = |store: &Store| {
        (
            store.usage().sectors_allocated,
            store.usage().metadata_sectors,
        )
    };
    assert_eq!(allocated(&host.store), (2, 2));
    for chunk in 0..31 {
        try_first_write(&mut host, chunk).unwrap();
    }
    assert_eq!(allocated(&host.store), (33, 2));
    try_first_write(&mut host, 31).unwrap();
    assert_eq!(allocated(&host.store), (35, 3), "the 32nd fills the area");
    host.flush();
    assert_eq!(allocated(&host.store), (35, 3));
    try_first_write(&mut host, 32).unwrap();
    assert_eq!(allocated(&host.store), (36, 3));
}

/// A commit that found no space runs again as it was; what completed meanwhile goes to the next one.
#[test]
fn test_commit_without_space_stays_pending_and_is_the_same_plan() {
    let mut host = Host::new(SECTOR, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    try_first_write(&mut host, 1).unwrap();
    let Commit::Plan(plan) = host.store.commit_exceptions().unwrap() else {
        panic!()
    };
    assert!(matches!(
        host.store.commit_exceptions().unwrap(),
        Commit::Wait
    ));
    let steps = plan.steps().to_vec();
    try_first_write(&mut host, 2).unwrap();
    let error = Error::new(ErrorKind::NoSpace, "test");
    assert_eq!(
        host.store.finish_plan(plan, Err(error)).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(host.store.state(), State::Active);
    assert_eq!(host.store.pending(), 2);
    let Commit::Plan(again) = host.store.commit_exceptions().unwrap() else {
        panic!()
    };
    assert_eq!(again.steps(), steps);
    host.finish_plan(again);
    assert_eq!(host.store.pending(), 1);
    host.flush();
    assert_eq!(host.load().exceptions(), 2);
}

#[test]
fn test_failed_commit_latches_and_commits_nothing_more() {
    let mut host = Host::new(SECTOR, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    try_first_write(&mut host, 1).unwrap();
    let Commit::Plan(plan) = host.store.commit_exceptions().unwrap() else {
        panic!()
    };
    let error = Error::new(ErrorKind::Io, "test");
    host.store.finish_plan(plan, Err(error)).unwrap_err();
    assert_eq!(host.store.state(), State::Failed);
    let range = ByteRange::new(0, SECTOR);
    assert_eq!(
        host.store.map_write(range).unwrap_err().kind(),
        ErrorKind::PreviousIo
    );
    assert_eq!(
        host.store.commit_exceptions().unwrap_err().kind(),
        ErrorKind::PreviousIo
    );
    assert!(host.store.map(range).is_ok(), "reads go on");
}

/// Ten thousand scattered first writes: two flushes for all of them, and one of each file for a batch of their merge.
#[test]
fn test_flushes_are_few() {
    let sectors = 8 * 20_000;
    let mut host = Host::new(
        4096,
        sectors,
        sectors,
        Disk::growable(),
        OverflowMode::NoSpace,
    );
    let mut rng = Rng::new(3);
    let mut chunks: Vec<u64> = (0..20_000).collect();
    for left in (1..20_000).rev() {
        chunks.swap(left, rng.below(left as u64 + 1) as usize);
    }
    for chunk in &chunks[..10_000] {
        host.write(chunk * 8, 8);
    }
    let before = host.cow.flushes;
    host.flush();
    assert!(
        host.cow.flushes - before <= 3,
        "{} flushes",
        host.cow.flushes - before
    );
    assert_eq!(host.store.exceptions(), 10_000);
    let (cow, origin) = (host.cow.flushes, host.origin.flushes);
    host.merge(u64::MAX);
    let (cow, origin) = (host.cow.flushes - cow, host.origin.flushes - origin);
    let batches = 10_000u64.div_ceil(4096);
    assert!(
        cow <= 2 * batches && origin <= 2 * batches,
        "{cow} and {origin} flushes"
    );
    host.verify();
}

/// A chunk of 1 GiB: no step carries more than a block of metadata, no read more than 1 MiB.
#[test]
fn test_huge_chunks_need_no_huge_buffers() {
    let chunk_size = ChunkSize::MAX;
    let options = FormatOptions {
        chunk_size,
        descriptor: None,
        fixed_size: false,
    };
    let plan = format_plan(&options).unwrap();
    let small = |step: &Step| match step {
        Step::Write { data, .. } => data.len() <= 64 << 10,
        Step::Read { range, .. } => range.len <= 1 << 20,
        _ => true,
    };
    assert!(plan.steps().iter().all(small));
    let mut header = vec![0; 4096];
    header[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\0\0\x20\0");
    let options = LoadOptions {
        cow_size: 8 << 30,
        growable: true,
        writable: true,
        origin_size: Some(1 << 40),
        overflow: OverflowMode::NoSpace,
    };
    let mut loader = Loader::new(options).unwrap();
    let mut bytes_read = 0;
    while let Some(mut plan) = loader.next_plan().unwrap() {
        assert!(plan.steps().iter().all(small));
        for (index, step) in plan.steps().to_vec().iter().enumerate() {
            let Step::Read { range, .. } = step else {
                panic!("{step:?}")
            };
            bytes_read += range.len;
            let mut bytes = vec![0; range.len as usize];
            if range.start == 0 {
                bytes.copy_from_slice(&header);
            }
            plan.supply(index, bytes).unwrap();
        }
        loader.finish_plan(plan).unwrap();
    }
    assert!(bytes_read < 2 << 30);
    let mut store = loader.finish().unwrap();
    let Prepared::Reserve(plan) = store.prepare_exception(OriginChunk(700), 3).unwrap() else {
        panic!()
    };
    assert!(plan.steps().iter().all(small));
    store.finish_plan(plan, Ok(())).unwrap();
    let Prepared::Exception(new) = store.prepare_exception(OriginChunk(700), 1).unwrap() else {
        panic!()
    };
    assert_eq!(new.cow_offset, 2 << 30);
    store.complete_exception(new.id).unwrap();
    let Commit::Plan(plan) = store.commit_exceptions().unwrap() else {
        panic!()
    };
    assert!(plan.steps().iter().all(small));
    store.finish_plan(plan, Ok(())).unwrap();
}

/// What was looked up stays good while pinned: a merge neither reuses nor cuts off the chunk.
#[test]
fn test_pinned_chunks_are_not_freed() {
    let mut host = Host::new(SECTOR, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    host.write(10, 4);
    host.flush();
    host.store.prepare_merge(200 * SECTOR).unwrap();
    let pins = host.store.pins().clone();
    let pin = pins.pin();
    loop {
        match host.store.next_plan().unwrap() {
            Progress::Plan(plan) => {
                let copies = |step: &Step| matches!(step, Step::Copy { .. });
                assert!(!plan.steps().iter().any(copies));
                host.finish_plan(plan);
            }
            Progress::Wait => break,
            Progress::Done => panic!("the batch was copied although it is in use"),
        }
    }
    let held = host
        .store
        .map_write(ByteRange::new(11 * SECTOR, SECTOR))
        .unwrap();
    assert_eq!(held.target, WriteTarget::Wait, "writers of the batch wait");
    assert!(pins.unpin(pin), "the store waits for this");
    host.merge_on();
    assert_eq!(host.store.exceptions(), 0);

    // Freed while somebody reads: the space is kept until he is done.
    host.write(10, 4);
    host.flush();
    host.trim();
    let before = host.cow.bytes.len();
    assert_eq!(before, 6 * SECTOR as usize, "the slack is gone");
    host.store.make_empty().unwrap();
    let pin = pins.pin();
    host.merge_on();
    host.trim();
    assert_eq!(host.cow.bytes.len(), before);
    pins.unpin(pin);
    host.trim();
    assert_eq!(host.cow.bytes.len(), 2 * SECTOR as usize);
}

/// A write that a merge sent to the origin may still be on its way when the merge ends. A first write of the same chunk would copy the
/// origin without it, so it waits.
#[test]
fn test_first_writes_after_a_merge_wait_for_its_writes_to_the_origin() {
    for cancelled in [false, true] {
        let mut host = Host::new(4096, 200, 200, Disk::growable(), OverflowMode::NoSpace);
        host.write(0, 8);
        host.flush();
        host.store.prepare_merge(200 * SECTOR).unwrap();
        let pins = host.store.pins().clone();
        let range = ByteRange::new(16 * SECTOR, SECTOR);
        assert_eq!(
            host.store.map_write(range).unwrap().target,
            WriteTarget::Origin
        );
        let pin = pins.pin();
        if cancelled {
            host.store.cancel().unwrap();
        } else {
            let mut other = Some(pin);
            loop {
                match host.store.next_plan().unwrap() {
                    Progress::Plan(plan) => host.finish_plan(plan),
                    // The batch waits for all pins; take a new one as a later writer would.
                    Progress::Wait => match other.take() {
                        Some(first) if host.store.exceptions() > 0 => {
                            let later = pins.pin();
                            pins.unpin(first);
                            other = Some(later);
                        }
                        still => {
                            other = still;
                            break;
                        }
                    },
                    Progress::Done => panic!("a write is on its way to the origin"),
                }
                if host.store.state() == State::Active {
                    break;
                }
            }
            assert_eq!(host.store.state(), State::Active);
            assert!(matches!(prepare_chunk_2(&mut host), Prepared::Wait));
            pins.unpin(other.unwrap());
            assert!(matches!(host.store.next_plan().unwrap(), Progress::Done));
            assert!(!matches!(prepare_chunk_2(&mut host), Prepared::Wait));
            continue;
        }
        assert!(matches!(prepare_chunk_2(&mut host), Prepared::Wait));
        assert!(matches!(host.store.next_plan().unwrap(), Progress::Wait));
        assert!(pins.unpin(pin), "the store waits for this");
        assert!(matches!(host.store.next_plan().unwrap(), Progress::Done));
        assert!(!matches!(prepare_chunk_2(&mut host), Prepared::Wait));
    }
}

fn prepare_chunk_2(host: &mut Host) -> Prepared {
    host.store.prepare_exception(OriginChunk(2), 1).unwrap()
}

/// Space is reserved ahead, but not at the price of the last chunks that fit.
#[test]
fn test_a_reservation_without_room_is_tried_again_for_one_chunk() {
    let mut host = Host::new(4096, 200, 200, Disk::growable(), OverflowMode::NoSpace);
    let Prepared::Reserve(plan) = host.store.prepare_exception(OriginChunk(3), 2).unwrap() else {
        panic!()
    };
    let no_space = || Error::new(ErrorKind::NoSpace, "test");
    host.store.finish_plan(plan, Err(no_space())).unwrap();
    let Prepared::Reserve(plan) = host.store.prepare_exception(OriginChunk(3), 2).unwrap() else {
        panic!()
    };
    let size = Step::SetSize {
        device: Device::Cow,
        size: 3 * 4096,
    };
    assert_eq!(plan.steps(), [size]);
    let error = host.store.finish_plan(plan, Err(no_space())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    // Space was added.
    host.write(3 * 8, 16);
    host.verify();
    assert_eq!(host.store.exceptions(), 2);
}
