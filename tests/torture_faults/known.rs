//! A command of the tool, and what it may leave behind when it fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dmsnap::format::Descriptor;
use dmsnap::{CheckOptions, Image, OpenOptions, OriginChoice, check, inspect};

use crate::bench::{EIO, mixture};
use crate::commands::Scenario;
use crate::harness::{Run, Scratch};
use crate::image_common::{assert_same, contents};

/// Why a run may fail.
#[derive(Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) errno: i32,
    /// The calls that failed, if they were chosen: name and file.
    pub(crate) struck: &'a [&'a str],
}

impl Cause<'_> {
    /// With nothing known of the calls.
    pub(crate) fn errno(errno: i32) -> Cause<'static> {
        Cause { errno, struck: &[] }
    }

    fn keeps_files(&self) -> bool {
        self.struck.iter().any(|call| is_removal(call))
    }

    /// Whether nothing but removing a file failed.
    fn only_keeps_files(&self) -> bool {
        !self.struck.is_empty() && self.struck.iter().all(|call| is_removal(call))
    }

    /// Whether this file could not be read somewhere.
    fn is_unreadable(&self, file: &str) -> bool {
        let is_read = |call: &str| {
            let (name, path) = call.split_once(' ').unwrap_or_default();
            (name.starts_with("pread") || name == "read") && path == file
        };
        self.errno == EIO && self.struck.iter().any(|call| is_read(call))
    }
}

fn is_removal(call: &str) -> bool {
    call.starts_with("unlink ")
}

/// A command, and all there is to know of a run without faults.
pub(crate) struct Known {
    pub(crate) scenario: &'static Scenario,
    /// The files before it.
    before: BTreeMap<String, Vec<u8>>,
    /// What the files that change or are made showed before and show after it.
    shown: BTreeMap<&'static str, (Option<Vec<u8>>, Vec<u8>)>,
    /// The descriptors of those that change, before and after. One that is made has another UUID each time.
    descriptors: BTreeMap<&'static str, [Option<Descriptor>; 2]>,
    clean: Run,
}

impl Known {
    pub(crate) fn new(scenario: &'static Scenario) -> Known {
        let prepared = Scratch::fast();
        (scenario.prepare)(&prepared);
        let before = files(&prepared);
        // As all later runs find them, with holes wherever there are zeros.
        let scratch = Scratch::fast();
        restore(&before, &scratch);
        let names = || scenario.changes.iter().copied().chain(scenario.makes);
        let old: Vec<_> = names().map(|name| shown(&scratch.path(name))).collect();
        let describe = || {
            let changes = scenario.changes.iter();
            changes.map(|name| descriptor(&scratch.path(name)))
        };
        let old_descriptors: Vec<_> = describe().collect();
        let clean = scratch.run(scenario.args);
        assert!(clean.code != 1, "{}: {clean:#?}", scenario.name);
        let shown = names()
            .zip(old)
            .map(|(name, old)| (name, (old, shown(&scratch.path(name)).unwrap())))
            .collect();
        let pairs = old_descriptors.into_iter().zip(describe());
        let descriptors = scenario.changes.iter().copied();
        let descriptors = descriptors
            .zip(pairs.map(|(old, new)| [old, new]))
            .collect();
        Known {
            scenario,
            before,
            shown,
            descriptors,
            clean,
        }
    }

    /// Puts the files as they were into a directory.
    pub(crate) fn restore(&self, scratch: &Scratch) {
        restore(&self.before, scratch);
    }

    /// A directory with the files as they were.
    pub(crate) fn scratch(&self) -> Scratch {
        let scratch = Scratch::fast();
        self.restore(&scratch);
        scratch
    }

    /// Looks at how a run ended and what it left. If it failed, it must have been for this cause. Says whether it succeeded.
    pub(crate) fn assess(
        &self,
        scratch: &Scratch,
        run: &Run,
        cause: Option<Cause>,
        what: &str,
    ) -> bool {
        let what = format!("{}: {what}", self.scenario.name);
        let leaves = cause.is_some_and(|cause| cause.keeps_files());
        if let (Some(below), 2) = (self.scenario.below, run.code) {
            let is_unreadable = cause.is_some_and(|cause| cause.is_unreadable("layer.dms"));
            assert!(is_unreadable, "left out what can be read: {what}");
            assert!(run.stdout.contains("left out"), "not told: {what}");
            self.assert_made_in_part(scratch, below, leaves, &what);
            return false;
        }
        let succeeded = run.code == self.clean.code;
        if succeeded {
            assert!(
                run.stdout == self.clean.stdout,
                "says something else: {what}"
            );
        } else {
            let cause = cause.unwrap_or_else(|| panic!("failed: {what}"));
            self.assert_failure_is_told(run, cause.errno, &what);
            if let Some(made) = self.scenario.makes.filter(|_| cause.only_keeps_files()) {
                let is_new = shown(&scratch.path(made)).as_ref() == Some(&self.shown[made].1);
                assert!(!is_new, "made, and called failed: {what}");
            }
        }
        self.assert_files(scratch, succeeded, leaves, &what);
        succeeded
    }

    fn assert_failure_is_told(&self, run: &Run, errno: i32, what: &str) {
        assert!(self.scenario.codes.contains(&run.code), "{what}");
        assert!(run.stderr.starts_with("dmsnap: "), "{what}");
        assert!(!run.stderr.contains("panicked"), "{what}");
        let mut names = self
            .before
            .keys()
            .map(String::as_str)
            .chain(self.scenario.makes);
        let is_named = names.any(|name| run.stderr.contains(name));
        assert!(is_named, "no file is named: {what}");
        let cause = format!("os error {errno}");
        assert!(run.stderr.contains(&cause), "no cause is named: {what}");
    }

    /// A descriptor is the old one or the new one, and after success the new one.
    fn assert_descriptors(&self, scratch: &Scratch, succeeded: bool, what: &str) {
        for (name, [old, new]) in &self.descriptors {
            let found = descriptor(&scratch.path(name));
            let allowed = found == *new || !succeeded && found == *old;
            assert!(allowed, "{name} is described by {found:?}: {what}");
        }
    }

    /// The files that are there, of which those that must not change have not, and none is new but the one that is made. One that cannot
    /// be removed may be there under a name of its own.
    fn files_left(&self, scratch: &Scratch, leaves: bool, what: &str) -> BTreeMap<String, Vec<u8>> {
        let after = files(scratch);
        for (name, old) in &self.before {
            let found = after
                .get(name)
                .unwrap_or_else(|| panic!("{name} is gone: {what}"));
            if !self.shown.contains_key(name.as_str()) {
                assert!(found == old, "{name} changed: {what}");
            }
        }
        for name in after.keys() {
            let is_known = self.before.contains_key(name) || self.scenario.makes == Some(name);
            let is_unfinished = name.starts_with(".dmsnap-") && name.ends_with(".tmp");
            assert!(
                is_known || leaves && is_unfinished,
                "{name} was left: {what}"
            );
        }
        after
    }

    /// What is there of the file that is made is right, and what lies below shows in place of the rest.
    fn assert_made_in_part(&self, scratch: &Scratch, below: &str, leaves: bool, what: &str) {
        self.files_left(scratch, leaves, what);
        for (&name, (_, new)) in &self.shown {
            let path = scratch.path(name);
            let found = shown(&path).unwrap_or_else(|| panic!("half-made: {name}: {what}"));
            mixture(&found, &[&self.before[below], new], what);
            go_on(&path, found, what);
        }
    }

    /// Old or new, nothing else, and fit for more.
    fn assert_files(&self, scratch: &Scratch, succeeded: bool, leaves: bool, what: &str) {
        let after = self.files_left(scratch, leaves, what);
        self.assert_descriptors(scratch, succeeded, what);
        let mut left = Vec::new();
        for (&name, (old, new)) in &self.shown {
            let what = format!("{name}: {what}");
            let is_made = self.scenario.makes == Some(name);
            if is_made && !succeeded && after.get(name) == self.before.get(name) {
                continue;
            }
            let path = scratch.path(name);
            let Some(found) = shown(&path) else {
                // What was no good store still is none; and one that is being made passes for none where it cannot be removed.
                let still = !is_made && old.is_none() || is_made && leaves;
                assert!(!succeeded && still, "half-made: {what}");
                continue;
            };
            match old {
                Some(old) if !succeeded && !is_made => mixture(&found, &[old, new], &what),
                _ => assert_same(&found, new, &what),
            }
            left.push((path, found));
        }
        // What lies on top has the later name here: a layer that is written changes what shows above it.
        for (path, found) in left.into_iter().rev() {
            go_on(&path, found, what);
        }
    }
}

fn restore(files: &BTreeMap<String, Vec<u8>>, scratch: &Scratch) {
    for (name, bytes) in files {
        write_sparsely(&scratch.path(name), bytes);
    }
}

fn files(scratch: &Scratch) -> BTreeMap<String, Vec<u8>> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let contents = scratch.contents().into_iter();
    contents.map(|(path, bytes)| (name(path), bytes)).collect()
}

fn is_layer(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "dms")
}

fn open(path: &Path, writable: bool) -> dmsnap::Result<Image> {
    let options = OpenOptions::new()
        .writable(writable)
        .origin(OriginChoice::FromImage);
    Image::open(path, &options)
}

/// What an image shows; nothing if it is none.
fn shown(path: &Path) -> Option<Vec<u8>> {
    if !is_layer(path) {
        return fs::read(path).ok();
    }
    Some(contents(&open(path, false).ok()?))
}

/// The descriptor of a layer that can be read.
fn descriptor(path: &Path) -> Option<Descriptor> {
    if !is_layer(path) {
        return None;
    }
    inspect(path).ok()?.descriptor
}

/// Writing, flushing and checking work as ever.
fn go_on(path: &Path, mut disk: Vec<u8>, what: &str) {
    if !is_layer(path) {
        return;
    }
    let outcome = check(path, &CheckOptions::new()).unwrap();
    assert_eq!(
        outcome.remaining_corruptions, 0,
        "{what}: {:?}",
        outcome.report.findings
    );
    let image = open(path, true).unwrap_or_else(|error| panic!("{error}: {what}"));
    disk[5000..9000].fill(0x77);
    image.write(&[0x77; 4000], 5000).unwrap();
    image.close().unwrap();
    assert_same(&shown(path).unwrap(), &disk, what);
}

/// Zeros become holes.
fn write_sparsely(path: &Path, bytes: &[u8]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, index as u64 * 4096).unwrap();
        }
    }
}
