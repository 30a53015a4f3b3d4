//! Any call on any file may fail: the image then shows old or new bytes and nothing else, lack of space passes, and after reopening all
//! that was flushed is there.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;
#[path = "image_common/world.rs"]
#[allow(dead_code, reason = "only its operations are used here")]
mod world;

use std::sync::Arc;

use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage};
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::store::State;
use dmsnap::{ByteRange, CheckOptions, ErrorKind, Image, OriginChoice, Result, check_storage};
use image_common::*;
use proptest::prelude::*;
use world::{Op, Shape, any_op, any_shape};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// A fault that is armed during one operation.
#[derive(Clone, Debug)]
struct Trouble {
    storage: usize,
    nth: u64,
    errno: i32,
    forever: bool,
    after: u64,
    mutating: bool,
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    let errno = prop_oneof![Just(EIO), Just(ENOSPC)];
    let after = prop_oneof![Just(0_u64), 1..5000_u64];
    (
        0..4_usize,
        1..10_u64,
        errno,
        any::<bool>(),
        after,
        any::<bool>(),
    )
        .prop_map(|(storage, nth, errno, forever, after, mutating)| {
            // Nobody runs out of space while reading.
            let mutating = mutating || errno == ENOSPC;
            Trouble {
                storage,
                nth,
                errno,
                forever,
                after,
                mutating,
            }
        })
}

struct Bench {
    storages: Vec<Arc<FaultStorage>>,
    /// The lowest of them, without faults.
    base: SharedStorage,
    image: Option<Image>,
    bare: Option<u64>,
    layers: usize,
    /// What the image shows.
    disk: Vec<u8>,
    /// What it showed since the last flush, the oldest first.
    since_flush: Vec<Vec<u8>>,
}

impl Bench {
    fn new(shape: &Shape) -> Bench {
        let base: SharedStorage = Arc::new(MemoryStorage::from_bytes(&pattern(1, shape.base_len)));
        let first = memory();
        let size = shape.sectors * 512;
        create(&first, shape.chunk, size);
        let inner: [SharedStorage; 4] = [base.clone(), first, memory(), memory()];
        let storages = inner
            .map(|inner| Arc::new(FaultStorage::new(inner)))
            .to_vec();
        let bare = (shape.chunk < 4096).then_some(size);
        let mut bench = Bench {
            storages,
            base,
            image: None,
            bare,
            layers: 1,
            disk: Vec::new(),
            since_flush: Vec::new(),
        };
        bench.open();
        bench
    }

    fn open(&mut self) {
        let mut origin = OriginChoice::Storage(self.storages[0].clone());
        for layer in 1..=self.layers {
            let mut options = over(origin);
            if let (1, Some(size)) = (layer, self.bare) {
                options = options.bare_size(size);
            }
            let image = Image::open_storage(self.storages[layer].clone(), &options).unwrap();
            if layer == self.layers {
                self.disk = contents(&image);
                self.since_flush = vec![self.disk.clone()];
                self.image = Some(image);
                return;
            }
            origin = OriginChoice::Image(Arc::new(image));
        }
    }

    fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    fn range(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.image().size();
        (size > 0).then(|| ByteRange::new(at % size, len.min(size - at % size)))
    }

    /// Runs an operation, and says what the disk should be after it and whether that was durable.
    fn attempt(&mut self, op: &Op) -> (Result<()>, Vec<u8>, bool) {
        let mut after = self.disk.clone();
        let image = self.image.as_ref().unwrap();
        let bytes = |range: ByteRange| range.start as usize..range.end() as usize;
        match *op {
            Op::Write { at, len, seed } => {
                let Some(range) = self.range(at, len) else {
                    return (Ok(()), after, false);
                };
                let data = pattern(seed, range.len as usize);
                after[bytes(range)].copy_from_slice(&data);
                (image.write(&data, range.start), after, false)
            }
            Op::Zero { at, len, unmap } => {
                let Some(range) = self.range(at, len) else {
                    return (Ok(()), after, false);
                };
                after[bytes(range)].fill(0);
                (image.write_zeroes(range, unmap), after, false)
            }
            Op::Discard { at, len } => {
                let Some(range) = self.range(at, len) else {
                    return (Ok(()), after, false);
                };
                zero_mapped(image, range, &mut after);
                (image.discard(range), after, false)
            }
            Op::Read { .. } => {
                let mut found = vec![0; after.len()];
                let result = image.read(&mut found, 0);
                if result.is_ok() {
                    assert_same(&found, &after, "read");
                }
                (result, after, false)
            }
            Op::MakeEmpty if self.layers == 1 => {
                after = bytes_of(&self.base);
                after.resize(self.disk.len(), 0);
                (image.make_empty(), after, true)
            }
            Op::Flush | Op::MakeEmpty | Op::Reopen => (image.flush(), after, true),
            Op::Snapshot { chunk: bytes } => {
                if self.layers == 3 {
                    return (Ok(()), after, false);
                }
                let storage = self.storages[self.layers + 1].clone();
                let result = image.snapshot_to(storage, None, Some(chunk(bytes)));
                self.layers += usize::from(result.is_ok());
                (result, after, true)
            }
            Op::Merge => (image.merge(&mut |_| true), after, true),
            Op::MergeSteps { steps, .. } => {
                let result = image
                    .start_merge()
                    .and_then(|mut merge| (0..steps).try_for_each(|_| merge.step().map(drop)));
                (result, after, false)
            }
            Op::Resize { sectors } => {
                let result = image.resize(sectors * 512, true);
                if self.bare.is_none() || self.layers > 1 {
                    after.resize(sectors as usize * 512, 0);
                }
                (result, after, true)
            }
        }
    }

    fn apply(&mut self, op: &Op, trouble: Option<&Trouble>) {
        if let Some(trouble) = trouble {
            let kinds = if trouble.mutating {
                CallKinds::MUTATING
            } else {
                CallKinds::IO
            };
            let mut fault = Fault::on(kinds)
                .nth(trouble.nth)
                .errno(trouble.errno)
                .after_bytes(trouble.after);
            if trouble.forever {
                fault = fault.forever();
            }
            self.storages[trouble.storage].arm(fault);
        }
        let fired_before: u64 = self.storages.iter().map(|storage| storage.fired()).sum();
        let merged = matches!(op, Op::Merge | Op::MergeSteps { .. });
        let (result, after, durable) = self.attempt(op);
        let fired = self
            .storages
            .iter()
            .map(|storage| storage.fired())
            .sum::<u64>()
            - fired_before;
        self.storages.iter().for_each(|storage| storage.disarm());
        match result {
            Ok(()) => {
                assert_same(
                    &contents(self.image()),
                    &after,
                    &format!("{op:?} succeeded"),
                );
                self.disk = after;
            }
            // The origin's latch shows when it is to be written.
            Err(error) if merged && fired == 0 && error.kind() == ErrorKind::PreviousIo => {
                self.reopen_as_is();
                return;
            }
            Err(error) if error.kind() == ErrorKind::MergeFailed => {
                let state = self.image().info().unwrap().state;
                assert_eq!(state, State::MergeFailed, "{error}");
                return;
            }
            Err(error) => {
                let refused = matches!(
                    error.kind(),
                    ErrorKind::Unsupported | ErrorKind::InvalidArgument
                );
                assert!(
                    fired > 0 || refused && self.bare.is_some(),
                    "{op:?} failed by itself: {error}"
                );
                let found = contents(self.image());
                mixture(
                    &found,
                    &[&self.disk, &after],
                    &format!("{op:?} failed: {error}"),
                );
                self.disk = found;
                if trouble.is_some_and(|trouble| trouble.errno == ENOSPC) {
                    let state = self.image().info().unwrap().state;
                    assert!(
                        state != State::Failed,
                        "{op:?}: lack of space latched: {error}"
                    );
                }
                if matches!(op, Op::MakeEmpty) && self.image().flush().is_ok() {
                    // Which finishes it, if it was begun.
                    let found = contents(self.image());
                    assert!([&self.disk, &after].contains(&&found), "half empty");
                    self.disk = found;
                }
                // What failed may have reached the file all the same.
                self.since_flush.push(after);
                self.after_failure(merged);
                return;
            }
        }
        if durable {
            self.since_flush.clear();
        }
        self.since_flush.push(self.disk.clone());
        if fired > 0 {
            // Dropping a merge or trimming has nobody to tell.
            self.after_failure(merged);
        }
    }

    /// What a failure leaves is one of the allowed things, and either the handle works on or it says that it does not.
    fn after_failure(&mut self, merged: bool) {
        self.since_flush.push(self.disk.clone());
        let state = self.image().info().unwrap().state;
        if merged && self.image().flush().is_err() {
            // Its origin takes no writes any more.
            return self.reopen_as_is();
        }
        if state == State::Failed {
            for error in [
                self.image().write(&[1], 0).err(),
                self.image().flush().err(),
            ] {
                let kind = error.map(|error| error.kind());
                assert!(
                    self.disk.is_empty() || kind == Some(ErrorKind::PreviousIo),
                    "{kind:?}"
                );
            }
            self.reopen_as_is();
        }
    }

    /// Drops the handle and opens again. Power did not fail, so only records may be missing.
    fn reopen_as_is(&mut self) {
        drop(self.image.take());
        let possible = std::mem::take(&mut self.since_flush);
        self.open();
        let possible: Vec<&[u8]> = possible.iter().map(Vec::as_slice).collect();
        mixture(&self.disk, &possible, "reopened");
    }

    fn finish(mut self) {
        let before = self.disk.clone();
        self.image().flush().unwrap();
        self.image.take().unwrap().close().unwrap();
        for layer in 1..=self.layers {
            let storage: SharedStorage = self.storages[layer].clone();
            let outcome = check_storage(&storage, &CheckOptions::new()).unwrap();
            let findings = outcome.report.findings;
            assert_eq!(outcome.remaining_corruptions, 0, "{findings:?}");
        }
        self.open();
        assert_same(&self.disk, &before, "closed and opened");
    }
}

fn zero_mapped(image: &Image, range: ByteRange, disk: &mut [u8]) {
    let (chunk, size) = (image.chunk_size().bytes(), disk.len() as u64);
    for (old, _, count) in image.exceptions() {
        for old in old.0..old.0 + count {
            let (start, end) = (old * chunk, ((old + 1) * chunk).min(size));
            if range.start <= start && end <= range.end() && start < end {
                disk[start as usize..end as usize].fill(0);
            }
        }
    }
}

/// Each byte is what one of `possible` has there, and the length is that of one.
#[track_caller]
fn mixture(found: &[u8], possible: &[&[u8]], what: &str) {
    assert!(
        possible.iter().any(|disk| disk.len() == found.len()),
        "{what}: {}",
        found.len()
    );
    for (at, byte) in found.iter().enumerate() {
        let allowed = possible.iter().any(|disk| disk.get(at) == Some(byte));
        assert!(
            allowed,
            "{what}: byte {at} is {byte:#x}, which nobody wrote there"
        );
    }
}

fn run(shape: &Shape, ops: &[(Op, Option<Trouble>)]) {
    let mut bench = Bench::new(shape);
    for (op, trouble) in ops {
        bench.apply(op, trouble.as_ref());
    }
    bench.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_any_call_may_fail(
        shape in any_shape(false),
        ops in prop::collection::vec((any_op(), prop::option::of(any_trouble())), 1..25),
    ) {
        run(&shape, &ops);
    }
}

/// So many exceptions may be pending; the write that comes next commits them first.
#[test]
fn test_a_commit_that_fails_fails_only_a_write_of_which_nothing_is_there() {
    const PENDING: u64 = 1 << 18;
    let (cow, origin) = (memory(), memory());
    create(&cow, 512, 0);
    origin.set_size((PENDING + 8) * 512).unwrap();
    let faulty = Arc::new(FaultStorage::new(cow));
    let image = open(&(faulty.clone() as SharedStorage), &origin);
    let piece = pattern(1, 4096 * 512);
    for offset in (0..(PENDING - 4096) * 512).step_by(piece.len()) {
        image.write(&piece, offset).unwrap();
    }
    image.write(&piece[512..], (PENDING - 4096) * 512).unwrap();
    faulty.arm(Fault::on(CallKinds::FLUSH).errno(ENOSPC).forever());
    image.write(&[7; 512], (PENDING - 1) * 512).unwrap();
    let error = image.write(&[8; 512], PENDING * 512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let mut found = [9; 1024];
    image.read(&mut found, (PENDING - 1) * 512).unwrap();
    assert_same(&found, &[[7; 512], [0; 512]].concat(), "done, and not done");
    faulty.disarm();
    image.write(&[8; 512], PENDING * 512).unwrap();
    image.close().unwrap();
}
