//! A chain of layers on storages that fail when told, beside what it shows and what may be left of it.

use std::sync::Arc;

use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage, Recorder};
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::store::State;
use dmsnap::{CheckOptions, Error, ErrorKind, Image, OriginChoice, Result, check_storage};

use crate::acts::Act;
use crate::image_common::*;
use crate::world::{Op, Shape};

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EDQUOT: i32 = 122;

/// The raw origin and the layers, from below.
pub(crate) const NAMES: [&str; 4] = ["base", "first", "second", "third"];

/// Calls that are about a place in the file.
const PLACED: CallKinds = CallKinds::READ
    .union(CallKinds::WRITE)
    .union(CallKinds::WRITE_ZEROES)
    .union(CallKinds::DISCARD);

/// Calls on the top layer after whose failure nothing more is committed, whatever they are for.
const LATCHING: CallKinds = CallKinds::FLUSH;

/// A fault, armed while something is done.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) storage: usize,
    pub(crate) kinds: CallKinds,
    pub(crate) nth: u64,
    pub(crate) errno: i32,
    pub(crate) forever: bool,
    /// How much of a write gets through nevertheless.
    pub(crate) after: u64,
}

impl Trouble {
    pub(crate) fn is_space(&self) -> bool {
        self.errno != EIO
    }

    fn fault(&self) -> Fault {
        let fault = Fault::on(self.kinds)
            .nth(self.nth)
            .errno(self.errno)
            .after_bytes(self.after);
        if self.forever { fault.forever() } else { fault }
    }
}

pub(crate) struct Bench {
    recorder: Recorder,
    pub(crate) storages: Vec<Arc<FaultStorage>>,
    /// The lowest of them, without faults.
    pub(crate) base: SharedStorage,
    pub(crate) image: Option<Image>,
    pub(crate) bare: Option<u64>,
    pub(crate) layers: usize,
    /// What the image shows.
    pub(crate) disk: Vec<u8>,
    /// What it showed since the last flush, the oldest first.
    pub(crate) since_flush: Vec<Vec<u8>>,
    /// A handle that wrote to the origin is gone, and its flush failed or never came: whoever opens next sees that, and flushes only what
    /// it has written itself.
    is_origin_doubtful: bool,
    /// Power cuts that were looked at.
    pub(crate) cuts: u64,
}

/// Opens a chain: the raw origin, then layers.
pub(crate) fn open_chain(
    storages: &[SharedStorage],
    bare: Option<u64>,
    writable: bool,
) -> Result<Image> {
    let mut origin = OriginChoice::Storage(storages[0].clone());
    let last = storages.len() - 1;
    for (index, storage) in storages.iter().enumerate().skip(1) {
        let mut options = over(origin).writable(writable || index < last);
        if let (1, Some(size)) = (index, bare) {
            options = options.bare_size(size);
        }
        let image = Image::open_storage(storage.clone(), &options)?;
        if index == last {
            return Ok(image);
        }
        origin = OriginChoice::Image(Arc::new(image));
    }
    panic!("a chain without layers");
}

impl Bench {
    pub(crate) fn new(shape: &Shape) -> Bench {
        let recorder = Recorder::new();
        let base = MemoryStorage::from_bytes(&pattern(1, shape.base_len));
        let first = memory();
        let size = shape.sectors * 512;
        create(&first, shape.chunk, size);
        let first = MemoryStorage::from_bytes(&bytes_of(&first));
        let initial = [base, first, MemoryStorage::new(), MemoryStorage::new()];
        let inner: Vec<SharedStorage> = initial
            .into_iter()
            .zip(NAMES)
            .map(|(initial, name)| {
                Arc::new(recorder.storage(&initial.named(name))) as SharedStorage
            })
            .collect();
        let mut bench = Bench {
            recorder,
            base: inner[0].clone(),
            storages: inner
                .into_iter()
                .map(|inner| Arc::new(FaultStorage::new(inner)))
                .collect(),
            image: None,
            bare: (shape.chunk < 4096).then_some(size),
            layers: 1,
            disk: Vec::new(),
            since_flush: Vec::new(),
            is_origin_doubtful: false,
            cuts: 0,
        };
        bench.open();
        bench
    }

    /// The storages of the chain.
    pub(crate) fn chain(&self) -> Vec<SharedStorage> {
        let storages = self.storages.iter().take(self.layers + 1);
        storages
            .map(|storage| storage.clone() as SharedStorage)
            .collect()
    }

    fn open(&mut self) {
        let image = open_chain(&self.chain(), self.bare, true).unwrap();
        self.disk = contents(&image);
        self.since_flush = vec![self.disk.clone()];
        self.image = Some(image);
    }

    pub(crate) fn close(&mut self) {
        self.image.take().unwrap().close().unwrap();
    }

    /// The files were changed by other means while they were not open: what they show now is what counts.
    pub(crate) fn look_again(&mut self) {
        self.disk = contents(&open_chain(&self.chain(), self.bare, false).unwrap());
        self.since_flush = vec![self.disk.clone()];
    }

    pub(crate) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    fn state(&self) -> State {
        self.image().info().unwrap().state
    }

    fn fired(&self) -> u64 {
        self.storages.iter().map(|storage| storage.fired()).sum()
    }

    /// Does something else than acts with a fault armed. Says how it ended and whether the fault struck.
    pub(crate) fn under(
        &mut self,
        trouble: &Trouble,
        work: impl FnOnce(&Bench) -> Result<()>,
    ) -> (Result<()>, bool) {
        let fired_before = self.fired();
        self.storages[trouble.storage].arm(trouble.fault());
        let result = work(self);
        self.storages.iter().for_each(|storage| storage.disarm());
        let fired = self.fired() > fired_before;
        match &result {
            Ok(()) => {}
            Err(error) => {
                assert!(fired, "failed by itself: {error}");
                self.assert_placed(error, Some(trouble));
            }
        }
        (result, fired)
    }

    /// Does all of it with a fault armed, until something fails, and looks at what that has left. Says whether the fault struck.
    pub(crate) fn apply(&mut self, acts: &[Act], trouble: Option<&Trouble>) -> bool {
        if let Some(trouble) = trouble {
            self.storages[trouble.storage].arm(trouble.fault());
        }
        let fired_before = self.fired();
        let top = self.layers;
        let mut failed = None;
        let mut merged = false;
        for act in acts {
            let outcome = self.attempt(act);
            merged |= matches!(
                act,
                Act::MergeAndWrite | Act::Do(Op::Merge | Op::MergeSteps { .. })
            );
            match outcome.result {
                Ok(()) => {
                    self.disk = outcome.after;
                    if outcome.durable && !self.is_origin_doubtful {
                        self.since_flush.clear();
                    }
                    self.since_flush.push(self.disk.clone());
                }
                Err(error) => {
                    let is_flush = matches!(act, Act::Do(Op::Flush));
                    failed = Some((error, outcome.after, is_flush));
                    break;
                }
            }
            if self.image.is_none() {
                break;
            }
        }
        let fired = self.fired() > fired_before;
        self.storages.iter().for_each(|storage| storage.disarm());
        let strike = trouble.filter(|_| fired);
        if self.image.is_none() {
            if let Some((error, ..)) = &failed {
                // A latch of an earlier fault shows no other way than by closing.
                assert!(strike.is_some(), "closing failed by itself: {error}");
                self.assert_placed(error, strike);
            }
            self.reopen(merged);
        } else if let Some((error, after, is_flush)) = failed {
            // A flush writes records and nothing else.
            let latching = match is_flush {
                true => LATCHING | CallKinds::WRITE | CallKinds::WRITE_ZEROES,
                false => LATCHING,
            };
            let must_latch =
                strike.is_some_and(|it| it.storage == top && latching.contains(it.kinds));
            self.after_error(&error, after, strike, merged, must_latch);
        } else {
            let what = format!("{acts:?} succeeded");
            assert_same(&contents(self.image()), &self.disk, &what);
            if fired {
                // Dropping a merge or trimming has nobody to tell.
                self.after_failure(strike, merged);
            }
        }
        fired
    }

    /// What an error has left is old or new, and lack of space can be mended.
    fn after_error(
        &mut self,
        error: &Error,
        after: Vec<u8>,
        strike: Option<&Trouble>,
        merged: bool,
        must_latch: bool,
    ) {
        // The origin's latch shows when it is to be written.
        if merged && strike.is_none() && error.kind() == ErrorKind::PreviousIo {
            return self.reopen(true);
        }
        if error.kind() == ErrorKind::MergeFailed {
            assert_eq!(self.state(), State::MergeFailed, "{error}");
            return;
        }
        let refused = matches!(
            error.kind(),
            ErrorKind::Unsupported | ErrorKind::InvalidArgument
        );
        assert!(
            strike.is_some() || refused && self.bare.is_some(),
            "failed by itself: {error}"
        );
        self.assert_placed(error, strike);
        let found = contents(self.image());
        mixture(&found, &[&self.disk, &after], &format!("after {error}"));
        self.disk = found;
        self.since_flush.push(self.disk.clone());
        // What failed may have reached the file all the same.
        self.since_flush.push(after.clone());
        self.cut_power();
        if strike.is_some_and(Trouble::is_space) {
            self.flush_with_more_space(&after);
        } else if must_latch {
            let state = self.state();
            assert!(state != State::Active, "writes on after {error}");
        }
        self.after_failure(strike, merged);
    }

    /// There is space now, and what is flushed is what shows.
    fn flush_with_more_space(&mut self, after: &[u8]) {
        let state = self.state();
        assert!(state != State::Failed, "lack of space latched");
        self.image().flush().unwrap();
        let found = contents(self.image());
        // A job that was begun may have been finished.
        mixture(&found, &[&self.disk, after], "flushed with more space");
        self.disk = found;
        if !self.is_origin_doubtful {
            self.since_flush.clear();
        }
        self.since_flush.push(self.disk.clone());
        self.cut_power();
    }

    /// The error is the fault's, and says where it struck.
    fn assert_placed(&self, error: &Error, strike: Option<&Trouble>) {
        let Some(trouble) = strike else { return };
        if matches!(error.kind(), ErrorKind::PreviousIo | ErrorKind::MergeFailed) {
            assert!(error.path().is_some(), "{error}");
            return;
        }
        assert_eq!(error.errno(), trouble.errno, "{error}");
        assert_eq!(error.path(), Some(NAMES[trouble.storage]), "{error}");
        if PLACED.contains(trouble.kinds) {
            assert!(error.offset().is_some(), "{error}");
        }
    }

    /// What a failure leaves is one of the allowed things, and either the handle works on or it says that it does not.
    fn after_failure(&mut self, strike: Option<&Trouble>, merged: bool) {
        self.since_flush.push(self.disk.clone());
        let state = self.state();
        let is_space = strike.is_some_and(Trouble::is_space);
        assert!(!is_space || state != State::Failed, "lack of space latched");
        if merged && self.image().flush().is_err() {
            assert!(!is_space, "lack of space latched the origin");
            // Its origin takes no writes any more.
            return self.reopen(true);
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
            self.reopen(merged);
        }
    }

    /// Drops the handle and opens again. Power did not fail, so only records may be missing. What was not flushed is not yet, unless this
    /// handle flushes it.
    pub(crate) fn reopen(&mut self, merged: bool) {
        drop(self.image.take());
        let possible = std::mem::take(&mut self.since_flush);
        self.open();
        let disks: Vec<&[u8]> = possible.iter().map(Vec::as_slice).collect();
        mixture(&self.disk, &disks, "reopened");
        self.since_flush.extend(possible);
        self.is_origin_doubtful |= merged;
    }

    /// Were power to fail now, the last good flush would have kept its promise.
    pub(crate) fn cut_power(&mut self) {
        let possible: Vec<&[u8]> = self.since_flush.iter().map(Vec::as_slice).collect();
        for (left, what) in self.after_power_cuts() {
            self.cuts += 1;
            let left = &left[..=self.layers];
            let image = open_chain(left, self.bare, false).unwrap();
            mixture(&contents(&image), &possible, &what);
            drop(image);
            left[1..]
                .iter()
                .for_each(|layer| assert_sound(layer, &what));
        }
    }

    /// What some power cuts at this moment would leave of all storages, and which they are.
    pub(crate) fn after_power_cuts(&self) -> Vec<(Vec<SharedStorage>, String)> {
        let position = self.recorder.position();
        let worst = self.recorder.states(position).take(3);
        let cuts = worst.chain((0..2).map(|seed| self.recorder.sample(position, seed)));
        cuts.map(|cut| {
            let left = self.recorder.rebuild(&cut).unwrap().into_iter();
            let left = left.map(|storage| Arc::new(storage) as SharedStorage);
            (left.collect(), format!("after {cut:?}"))
        })
        .collect()
    }

    /// Writes, flushes, closes and opens again: all as ever.
    pub(crate) fn finish(mut self) -> u64 {
        for seed in 0..3 {
            let (at, len) = (seed * 7919 * 5, 3000);
            let write = Op::Write { at, len, seed };
            self.apply(&[Act::Do(write)], None);
        }
        let before = self.disk.clone();
        self.image().flush().unwrap();
        if !self.is_origin_doubtful {
            self.since_flush = vec![before.clone()];
        }
        self.cut_power();
        self.close();
        for layer in &self.chain()[1..] {
            assert_sound(layer, "closed");
        }
        self.open();
        assert_same(&self.disk, &before, "closed and opened");
        self.cuts
    }
}

pub(crate) fn assert_sound(layer: &SharedStorage, what: &str) {
    let outcome = check_storage(layer, &CheckOptions::new()).unwrap();
    let findings = outcome.report.findings;
    assert_eq!(outcome.remaining_corruptions, 0, "{what}: {findings:?}");
}

/// Each byte is what one of `possible` has there, and the length is that of one.
#[track_caller]
pub(crate) fn mixture(found: &[u8], possible: &[&[u8]], what: &str) {
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
