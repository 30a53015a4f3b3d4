//! Power may fail at any moment: the image opens as it is, all that was flushed is there, and nothing is there that was never written.
//!
//! Every change of the files is recorded while random operations run. Then states are rebuilt that a power cut could have left at each
//! point, with any of the unflushed changes lost or torn, and opened.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;
#[path = "image_common/world.rs"]
#[allow(dead_code, reason = "only its operations are used here")]
mod world;

use std::sync::Arc;

use dmsnap::storage::testing::{PowerCut, Recorder, RecordingStorage};
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::store::FindingKind;
use dmsnap::{ByteRange, CheckOptions, ErrorKind, Image, OriginChoice, check_storage};
use image_common::*;
use proptest::prelude::*;
use world::{Op, Shape, any_op, any_shape};

const MAX_LAYERS: usize = 3;

/// What was true when an operation had ended.
struct Mark {
    /// Changes of files so far.
    position: usize,
    disk: Vec<u8>,
    layers: usize,
    /// Whether a power cut from here on must not lose what was written before.
    durable: bool,
}

struct Trace {
    recorder: Recorder,
    storages: Vec<SharedStorage>,
    image: Option<Image>,
    bare: Option<u64>,
    marks: Vec<Mark>,
}

/// Opens a chain: the raw origin, then layers.
fn open_chain(storages: &[SharedStorage], bare: Option<u64>) -> Image {
    let mut origin = OriginChoice::Storage(storages[0].clone());
    for (index, storage) in storages.iter().enumerate().skip(1) {
        let mut options = over(origin);
        if let (1, Some(size)) = (index, bare) {
            options = options.bare_size(size);
        }
        let image = Image::open_storage(storage.clone(), &options).unwrap();
        if index == storages.len() - 1 {
            return image;
        }
        origin = OriginChoice::Image(Arc::new(image));
    }
    panic!("a chain without layers");
}

impl Trace {
    fn new(shape: &Shape) -> Trace {
        let recorder = Recorder::new();
        let base = MemoryStorage::from_bytes(&pattern(1, shape.base_len));
        let first: SharedStorage = Arc::new(MemoryStorage::new());
        let size = shape.sectors * 512;
        create(&first, shape.chunk, size);
        let first = MemoryStorage::from_bytes(&bytes_of(&first));
        let mut storages: Vec<SharedStorage> = Vec::new();
        for initial in [base, first, MemoryStorage::new(), MemoryStorage::new()] {
            let storage: RecordingStorage = recorder.storage(&initial);
            storages.push(Arc::new(storage));
        }
        let bare = (shape.chunk < 4096).then_some(size);
        let image = open_chain(&storages[..2], bare);
        let mut trace = Trace {
            recorder,
            storages,
            image: None,
            bare,
            marks: Vec::new(),
        };
        trace.mark(contents(&image), 1, true);
        trace.image = Some(image);
        trace
    }

    fn mark(&mut self, disk: Vec<u8>, layers: usize, durable: bool) {
        self.marks.push(Mark {
            position: self.recorder.position(),
            disk,
            layers,
            durable,
        });
    }

    fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    fn layers(&self) -> usize {
        self.marks.last().unwrap().layers
    }

    fn range(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.image().size();
        (size > 0).then(|| ByteRange::new(at % size, len.min(size - at % size)))
    }

    /// Runs an operation. Its content is right by the other tests, so the image itself is the model here.
    fn apply(&mut self, op: &Op) {
        let mut layers = self.layers();
        let durable = match *op {
            Op::Write { at, len, seed } => {
                let Some(range) = self.range(at, len) else {
                    return;
                };
                self.image()
                    .write(&pattern(seed, range.len as usize), range.start)
                    .unwrap();
                false
            }
            Op::Zero { at, len, unmap } => {
                let Some(range) = self.range(at, len) else {
                    return;
                };
                self.image().write_zeroes(range, unmap).unwrap();
                false
            }
            Op::Discard { at, len } => {
                let Some(range) = self.range(at, len) else {
                    return;
                };
                self.image().discard(range).unwrap();
                false
            }
            Op::Read { .. } => return,
            Op::Flush => {
                self.image().flush().unwrap();
                true
            }
            Op::Snapshot { chunk: bytes } => {
                if layers == MAX_LAYERS {
                    return;
                }
                let storage = self.storages[layers + 1].clone();
                self.image()
                    .snapshot_to(storage, None, Some(chunk(bytes)))
                    .unwrap();
                layers += 1;
                true
            }
            Op::Merge => {
                self.merge(usize::MAX, 0);
                true
            }
            Op::MergeSteps { steps, seed } => {
                self.merge(steps, seed);
                return;
            }
            Op::Resize { sectors } => self.image().resize(sectors * 512, true).is_ok(),
            Op::MakeEmpty => {
                self.image().make_empty().unwrap();
                true
            }
            Op::Reopen => {
                self.image.take().unwrap().close().unwrap();
                self.image = Some(open_chain(&self.storages[..=layers], self.bare));
                true
            }
        };
        self.mark(contents(self.image()), layers, durable);
    }

    fn merge(&mut self, steps: usize, seed: u64) {
        let mut merge = match self.image().start_merge() {
            Ok(merge) => merge,
            Err(error) => {
                // A bare layer cannot be made as long as the one above it.
                assert!(
                    self.bare.is_some() && error.kind() == ErrorKind::Unsupported,
                    "{error}"
                );
                return;
            }
        };
        let layers = self.layers();
        self.mark(contents(self.image()), layers, true);
        for step in 0..steps {
            if !merge.step().unwrap() {
                break;
            }
            let at = seed.wrapping_mul(step as u64 + 1);
            self.apply(&Op::Write {
                at,
                len: 5000,
                seed,
            });
        }
        drop(merge);
    }

    /// Opens a state that a power cut could have left and compares it with what it may show.
    fn verify(&self, cut: &PowerCut, go_on: bool) {
        let ended = self
            .marks
            .partition_point(|mark| mark.position <= cut.position);
        let durable = self.marks[..ended]
            .iter()
            .rposition(|mark| mark.durable)
            .unwrap();
        // The operation under way at the cut may have happened in part.
        let possible = &self.marks[durable..(ended + 1).min(self.marks.len())];
        let layers = self.marks[ended - 1].layers;
        let left = self.recorder.rebuild(cut).unwrap();
        let left: Vec<SharedStorage> = left
            .into_iter()
            .map(|storage| Arc::new(storage) as SharedStorage)
            .collect();
        let image = open_chain(&left[..=layers], self.bare);
        let found = contents(&image);
        let what = format!("{cut:?} in {durable}..{ended}");
        self.compare(&found, possible, &what);
        if !go_on {
            drop(image);
            for storage in &left[1..=layers] {
                let outcome = check_storage(storage, &CheckOptions::new()).unwrap();
                let findings = outcome.report.findings;
                assert_eq!(outcome.remaining_corruptions, 0, "{what}: {findings:?}");
                let damaged = findings
                    .iter()
                    .any(|finding| finding.kind == FindingKind::Descriptor);
                assert!(!damaged, "{what}: {findings:?}");
            }
            return;
        }
        go_on_from(image, found, &left[..=layers], self.bare, &what);
    }

    fn compare(&self, found: &[u8], possible: &[Mark], what: &str) {
        let sizes: Vec<_> = possible.iter().map(|mark| mark.disk.len()).collect();
        assert!(
            sizes.contains(&found.len()),
            "{what}: size {} of {sizes:?}",
            found.len()
        );
        if possible.iter().any(|mark| mark.disk == found) {
            return;
        }
        for (at, byte) in found.iter().enumerate() {
            let allowed = possible.iter().any(|mark| mark.disk.get(at) == Some(byte));
            assert!(
                allowed,
                "{what}: byte {at} is {byte:#x}, which nobody wrote there"
            );
        }
    }
}

/// Writing, flushing, merging and reopening work in such a state as in any other.
fn go_on_from(
    image: Image,
    mut disk: Vec<u8>,
    storages: &[SharedStorage],
    bare: Option<u64>,
    what: &str,
) {
    for seed in 0..4 {
        let at = seed as usize * 7919 % disk.len().max(1);
        let bytes = pattern(seed, 6000.min(disk.len() - at));
        image.write(&bytes, at as u64).unwrap();
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    assert_same(&contents(&image), &disk, what);
    image.close().unwrap();
    let image = open_chain(storages, bare);
    assert_same(&contents(&image), &disk, what);
    match image.merge(&mut |_| true) {
        Ok(()) => assert_eq!(image.exceptions(), []),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    assert_same(&contents(&image), &disk, what);
    image.close().unwrap();
    assert_same(&contents(&open_chain(storages, bare)), &disk, what);
}

fn run(shape: &Shape, ops: &[Op]) {
    let mut trace = Trace::new(shape);
    for op in ops {
        trace.apply(op);
    }
    let end = trace.recorder.position();
    // All points of short runs, spread ones of long runs.
    let step = (end / 60).max(1);
    for position in (0..=end).step_by(step) {
        for (number, cut) in trace.recorder.states(position).take(40).enumerate() {
            trace.verify(&cut, number % 8 == 1);
        }
        for seed in 0..4 {
            trace.verify(&trace.recorder.sample(position, seed), seed == 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_power_may_fail_at_any_moment(
        shape in any_shape(false),
        ops in prop::collection::vec(any_op(), 1..16),
    ) {
        run(&shape, &ops);
    }
}
