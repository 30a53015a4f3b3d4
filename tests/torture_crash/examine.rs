//! Rebuilds what power cuts could have left, and looks at each state.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex};

use dmsnap::storage::testing::{PowerCut, Recorder};
use dmsnap::storage::{MemoryStorage, SharedStorage, Storage};
use dmsnap::store::FindingKind;
use dmsnap::{CheckOptions, ErrorKind, Image, check_storage};

use crate::budget::{self, Budget, Random};
use crate::image_common::*;
use crate::play::{Access, Name, Play, open_chain, sized};

/// Up to so many changes that are not durable, all states worth looking at are looked at; else as many by chance.
const FEW: usize = 6;
const BY_CHANCE: usize = 48;
/// Points in time that are looked at in one run.
const POSITIONS: usize = 120;

/// Hashes of all states of this process: the same state is not counted twice.
static DISTINCT: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);

/// What a workload's power cuts came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    states: u64,
    distinct: u64,
    stale: u64,
    written_on: u64,
}

impl Drop for Tally {
    fn drop(&mut self) {
        budget::count("crash", "states", self.states);
        budget::count("crash", "distinct-states", self.distinct);
        budget::count("crash", "states-with-stale-slots", self.stale);
        budget::count("crash", "states-written-on", self.written_on);
    }
}

/// Runs a workload from seed after seed: for as many distinct states, or as long as the budget says.
pub(crate) fn torture(
    workload: &'static str,
    distinct: u64,
    run: impl Fn(Name, &mut Tally) + Sync,
) {
    let budget = Budget::shared(u64::MAX);
    let work = || {
        let mut tally = Tally::default();
        while let Some(seed) = next(&budget) {
            let name = Name { workload, seed };
            let _case = Case(name);
            run(name, &mut tally);
            if !budget::is_torture() && tally.distinct >= distinct {
                break;
            }
        }
    };
    if !budget::is_torture() {
        return work();
    }
    // Only one test runs then.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
}

/// A case under way: if it fails, it says how it is repeated.
struct Case(Name);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} repeats it", self.0);
        }
    }
}

fn next(budget: &Mutex<Budget>) -> Option<u64> {
    budget.lock().unwrap().next()
}

/// Spreads a number over all bits.
fn mix(value: u64) -> u64 {
    Random(value).next()
}

/// 64 bits of the bytes of all storages: the sum of what each sector that is not zero comes to at its place.
fn digest<'a>(storages: impl Iterator<Item = &'a dyn Storage>) -> u64 {
    let mut sum = 0u64;
    let mut bytes = Vec::new();
    for (file, storage) in storages.enumerate() {
        let (place, size) = ((file as u64) << 56, storage.size().unwrap());
        sum = sum.wrapping_add(mix(place | size));
        let mut at = 0;
        while at < size {
            let extent = storage.extent_at(at).unwrap();
            if extent.allocated {
                bytes.resize(extent.len as usize, 0);
                storage.read_at(&mut bytes, at).unwrap();
                for (number, sector) in (at / 512..).zip(bytes.chunks(512)) {
                    if sector.iter().any(|&byte| byte != 0) {
                        let word = u64::from(crc32fast::hash(sector)) << 24 | number;
                        sum = sum.wrapping_add(mix(place ^ mix(word)));
                    }
                }
            }
            at += extent.len;
        }
    }
    sum
}

fn digest_of(storages: &[MemoryStorage]) -> u64 {
    digest(storages.iter().map(|storage| storage as &dyn Storage))
}

/// One state that a power cut may have left.
pub(crate) struct State {
    pub(crate) cut: PowerCut,
    digest: u64,
    storages: Vec<MemoryStorage>,
    /// A number that follows from the seed, for decisions about this state.
    pub(crate) chance: u64,
}

impl State {
    /// The same bytes for somebody who may change them.
    pub(crate) fn copy(&self) -> Vec<SharedStorage> {
        let copies = self.storages.iter().map(MemoryStorage::snapshot);
        copies
            .map(|storage| Arc::new(storage) as SharedStorage)
            .collect()
    }
}

fn cuts(recorder: &Recorder, position: usize, random: &mut Random) -> Vec<PowerCut> {
    let mut cuts: Vec<PowerCut> = recorder.states(position).collect();
    if recorder.pending(position) <= FEW {
        return cuts;
    }
    for index in 0..BY_CHANCE.min(cuts.len()) {
        let other = index as u64 + random.below((cuts.len() - index) as u64);
        cuts.swap(index, other as usize);
    }
    cuts.truncate(BY_CHANCE);
    cuts.extend((0..BY_CHANCE).map(|_| recorder.sample(position, random.next())));
    cuts
}

/// Looks at states after up to `end` changes of the files.
///
/// `epoch` says of a position what may be expected there: a state that comes again in the same epoch is not looked at again.
pub(crate) fn examine<E: Copy + Eq + Hash>(
    (name, recorder, end): (Name, &Recorder, usize),
    tally: &mut Tally,
    epoch: impl Fn(usize) -> E,
    mut look: impl FnMut(&State, &mut Tally),
) {
    let mut random = Random(name.seed ^ 0x5eed);
    let mut seen = HashSet::new();
    let step = (end / POSITIONS).max(1);
    let first = random.below(step as u64) as usize;
    for position in (first..=end).step_by(step) {
        let expected = epoch(position);
        for cut in cuts(recorder, position, &mut random) {
            let storages = recorder.rebuild(&cut).unwrap();
            let digest = digest_of(&storages);
            tally.states += 1;
            tally.distinct += u64::from(DISTINCT.lock().unwrap().insert(digest));
            if seen.insert((digest, expected)) {
                let chance = random.next();
                look(
                    &State {
                        cut,
                        digest,
                        storages,
                        chance,
                    },
                    tally,
                );
            }
        }
    }
}

impl Play {
    /// Looks at the states that power cuts of this run could have left.
    pub(crate) fn examine(mut self, tally: &mut Tally) {
        let end = self.end();
        let play = &self;
        let source = (play.name, &play.recorder, end);
        let epoch = |position| play.epoch(position);
        examine(source, tally, epoch, |state, tally| {
            play.judge(state, tally);
        });
    }

    fn judge(&self, state: &State, tally: &mut Tally) {
        let what = format!("{}, {:?}", self.name, state.cut);
        let possible = self.truth().possible_layers(state.cut.position);
        for (index, &layers) in possible.iter().enumerate() {
            let storages = state.copy();
            let image = match open_chain(&storages[..=layers], self.bare, Access::Read) {
                Ok(image) => image,
                // A layer that was being put on top.
                Err(error) if index > 0 => {
                    assert_eq!(error.kind(), ErrorKind::InvalidFormat, "{what}: {error}");
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let found = contents(&image);
            let judged = self.truth().judge(&found, state.cut.position);
            let described = image.descriptor();
            let judged =
                judged.and_then(|()| self.judge_descriptor(&described, state.cut.position));
            if let Err(problem) = judged {
                panic!("{what}: {problem}\n{}", self.before(state.cut.position));
            }
            if state.chance.is_multiple_of(8) {
                unchanged(state, &storages, &what);
            }
        }
        let layers = possible[0];
        check_layers(state, layers, &what, tally);
        if state.chance.is_multiple_of(20) {
            self.go_on(state, layers, &what);
            tally.written_on += 1;
        }
    }

    /// The last changes before a power cut, with the number of the storage.
    fn before(&self, position: usize) -> String {
        let changes = (position.saturating_sub(20)..position).map(|index| {
            let change = self.recorder.operation(index);
            format!("{index}: {change:?}\n")
        });
        changes.collect()
    }

    /// Writing, flushing, merging and reopening work in such a state as in any other.
    fn go_on(&self, state: &State, layers: usize, what: &str) {
        let storages = &state.copy()[..=layers];
        let open = || open_chain(storages, self.bare, Access::Write).unwrap();
        let image = open();
        let mut disk = contents(&image);
        if let Err(problem) = self.truth().judge(&disk, state.cut.position) {
            panic!("{what}, opened for writing: {problem}");
        }
        let mut random = Random(state.chance);
        for _ in 0..4 {
            write_on(&image, &mut disk, &mut random);
        }
        assert_same(&contents(&image), &disk, what);
        image.close().unwrap();
        let image = open();
        assert_same(&contents(&image), &disk, what);
        write_on(&image, &mut disk, &mut random);
        match image.merge(&mut |_| true) {
            Ok(()) => assert_eq!(image.exceptions(), [], "{what}"),
            // A bare layer cannot be made as long as the one above it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}"),
        }
        assert_same(&contents(&image), &disk, what);
        image.close().unwrap();
        let image = open_chain(storages, self.bare, Access::Read).unwrap();
        assert_same(&contents(&image), &disk, what);
    }
}

fn write_on(image: &Image, disk: &mut [u8], random: &mut Random) {
    let at = random.below(disk.len().max(1) as u64) as usize;
    let len = (1 + random.below(6000) as usize).min(disk.len() - at);
    let bytes = pattern(random.next(), len);
    match image.write(&bytes, at as u64) {
        Ok(()) => disk[at..at + len].copy_from_slice(&bytes),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            let old = disk[at..at + len].to_vec();
            image.read(&mut disk[at..at + len], at as u64).unwrap();
            let found = disk[at..at + len].iter();
            let mut known = found.zip(old.iter().zip(&bytes));
            assert!(known.all(|(found, (old, new))| found == old || found == new));
        }
    }
}

/// A reader leaves every byte as it was.
pub(crate) fn unchanged(state: &State, storages: &[SharedStorage], what: &str) {
    let after = digest(storages.iter().map(|storage| &**storage));
    assert_eq!(after, state.digest, "{what}: a reader has written");
}

fn check_layers(state: &State, layers: usize, what: &str, tally: &mut Tally) {
    let mut stale = false;
    for storage in &state.copy()[1..=layers] {
        let outcome = check_storage(storage, &CheckOptions::new()).unwrap();
        let findings = &outcome.report.findings;
        assert_eq!(outcome.remaining_corruptions, 0, "{what}: {findings:?}");
        let mut kinds = findings.iter().map(|finding| finding.kind);
        stale |= kinds.any(|kind| kind == FindingKind::StaleSlots);
    }
    tally.stale += u64::from(stale);
}

/// That this is no image yet is said in so many words, or it is a new one that shows its origin.
pub(crate) fn blank_or_none(
    opened: dmsnap::Result<Image>,
    origin: &[u8],
    finished: bool,
    what: &str,
) {
    match opened {
        Ok(image) => {
            let expected = sized(origin, image.size());
            assert_same(&contents(&image), &expected, what);
            assert_eq!(image.exceptions(), [], "{what}");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidFormat, "{what}: {error}");
            assert!(!finished, "{what}: {error}");
        }
    }
}
