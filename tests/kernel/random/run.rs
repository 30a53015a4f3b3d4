//! One sequence: what is done, and what both sides have to show.

use std::ops::Range;

use dmsnap::ByteRange;
use dmsnap::store::{OverflowMode, Status};

use super::ours::{Full, Ours};
use super::shape::Shape;
use super::theirs::{Expected, Theirs};
use crate::budget::Random;
use crate::guest::Guest;
use crate::library::{self, assert_same};
use crate::pattern;
use crate::reference::Reference;

const SECTOR: u64 = pattern::SECTOR as u64;

pub(super) struct Run<'a> {
    pub(super) shape: Shape,
    pub(super) random: Random,
    pub(super) theirs: Theirs<'a>,
    pub(super) ours: Ours,
    /// What the snapshot and the origin show.
    pub(super) view: Vec<u8>,
    pub(super) origin: Vec<u8>,
    /// Whether even the bytes of the COW devices that mean nothing are the same.
    pub(super) alike: bool,
    /// Whether the store was given up.
    dead: bool,
    mode: OverflowMode,
    pub(super) log: Vec<String>,
    pub(super) operations: u64,
    pub(super) reloads: u64,
}

impl<'a> Run<'a> {
    /// A new store on both sides, or one side's store on both.
    pub(super) fn new(seed: u64, guest: &'a mut Guest) -> Self {
        let mut random = Random(seed);
        let shape = Shape::random(&mut random);
        let origin = pattern::sectors(random.below(1 << 16) as u16, 0, shape.origin);
        let mut blank = vec![0; (shape.cow * SECTOR) as usize];
        if shape.garbage {
            let garbage = pattern::sectors(0xbad, 0, shape.cow);
            blank[4..].copy_from_slice(&garbage[4..]);
        }
        let ours = Ours::new(&origin, &blank);
        ours.create(shape);
        let theirs_is_new = random.chance(50);
        let cow = if theirs_is_new { blank } else { ours.cow() };
        Self {
            theirs: Theirs::new(guest, shape, &origin, &cow),
            ours,
            view: origin.clone(),
            origin,
            alike: !shape.garbage,
            dead: false,
            mode: OverflowMode::Persistent,
            log: vec![format!("the kernel makes a store: {theirs_is_new}")],
            operations: 0,
            reloads: 0,
            shape,
            random,
        }
    }

    pub(super) fn go(&mut self) {
        // The kernel makes its store when it loads it.
        self.load();
        self.unload();
        for _ in 0..3 + self.random.below(6) {
            match self.random.below(12) {
                0 => self.merge(),
                1 | 2 => self.interrupted_merge(),
                _ => self.work(),
            }
            if self.dead {
                self.look_at_the_dead();
                return;
            }
            if self.random.chance(25) {
                let to_kernel = self.random.chance(50);
                self.hand_over(to_kernel);
            }
        }
        self.load();
        self.unload();
    }

    pub(super) fn finish(self) {
        self.theirs.finish();
    }

    /// Loads the store on both sides, which then show the same.
    fn load(&mut self) {
        let (name, mode) = match self.random.chance(50) {
            true => ("P", OverflowMode::Persistent),
            false => ("PO", OverflowMode::PersistentOverflow),
        };
        self.mode = mode;
        self.log.push(format!("load {name}"));
        self.reloads += 1;
        self.theirs.load(name);
        self.ours.load(mode);
        let status = self.theirs.status("s");
        assert_eq!(self.ours.status(), status, "status: ours, the kernel's");
        let store = Reference::load(&self.theirs.cow()).unwrap();
        assert_eq!(store.status(), status, "status: reference, the kernel's");
        assert_same(&self.theirs.view("s"), &self.view, "the kernel's view");
        assert_same(&self.ours.view(), &self.view, "our view");
    }

    fn unload(&mut self) {
        self.theirs.unload();
        self.ours.unload();
    }

    /// What lies on the devices of both sides while neither has them.
    pub(super) fn compare_devices(&self) {
        let (theirs, ours) = (self.theirs.cow(), self.ours.cow());
        let stores = [&theirs, &ours].map(|cow| Reference::load(cow).unwrap());
        assert_eq!(stores[0], stores[1], "the kernel's exceptions, ours");
        assert_same(&self.theirs.origin(), &self.origin, "the kernel's origin");
        assert_same(&self.ours.origin(), &self.origin, "our origin");
        if self.alike {
            assert_same(&ours, &theirs, "our COW device, byte by byte");
        }
    }

    /// One side goes on with what the other has left.
    pub(super) fn hand_over(&mut self, to_kernel: bool) {
        self.log
            .push(format!("hand over to the kernel: {to_kernel}"));
        if to_kernel {
            self.theirs.take(&self.ours.origin(), &self.ours.cow());
        } else {
            self.ours = Ours::new(&self.theirs.origin(), &self.theirs.cow());
        }
    }

    /// Operations until the store is let go, or full.
    fn work(&mut self) {
        self.load();
        for _ in 0..1 + self.random.below(14) {
            self.operations += 1;
            let range = self.random_range();
            let done = match self.random.below(20) {
                0..=9 => self.write(range),
                10 | 11 => self.write_zeroes(range),
                12..=15 => self.write_origin(range),
                16..=18 => self.discard(),
                _ => self.flush(),
            };
            if done.is_err() {
                return;
            }
        }
        let status = self.theirs.status("s");
        assert_eq!(self.ours.status(), status, "status: ours, the kernel's");
        self.unload();
        self.compare_devices();
    }

    /// Of any alignment, every other time about one chunk.
    fn random_range(&mut self) -> ByteRange {
        let (chunk, size) = (self.shape.chunk * SECTOR, self.view.len() as u64);
        if self.random.chance(30) {
            let first = self.random.below(size.div_ceil(chunk));
            let end = (first + 1 + self.random.below(3)) * chunk;
            return ByteRange::new(first * chunk, end.min(size) - first * chunk);
        }
        let len = 1 + self.random.below((3 * chunk + 20 * SECTOR).min(size));
        ByteRange::new(self.random.below(size - len + 1), len)
    }

    fn random_bytes(&mut self, len: u64) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).map(|_| self.random.next().to_le_bytes());
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(len as usize);
        bytes
    }

    fn write(&mut self, range: ByteRange) -> Result<(), Full> {
        self.log.push(format!("write {range:?}"));
        let bytes = self.random_bytes(range.len);
        let done = self.ours.write(range, &bytes);
        self.written(range, &bytes, done)
    }

    /// The kernel has no other way to write zeros.
    fn write_zeroes(&mut self, range: ByteRange) -> Result<(), Full> {
        let unmap = self.random.chance(50);
        self.log.push(format!("write zeroes {range:?}, {unmap}"));
        let done = self.ours.write_zeroes(range, unmap);
        self.written(range, &vec![0; range.len as usize], done)
    }

    /// The kernel writes the same, and lacks space if we did.
    fn written(
        &mut self,
        range: ByteRange,
        bytes: &[u8],
        done: Result<(), Full>,
    ) -> Result<(), Full> {
        let (sector, content) = whole_sectors(&self.view, range, bytes);
        let expected = match done {
            Ok(()) => Expected::Works,
            Err(Full) => Expected::Fails,
        };
        self.theirs.write("s", sector, &content, expected);
        let before = self.view.clone();
        self.view[indices(range)].copy_from_slice(bytes);
        if done.is_err() {
            self.full(&before, range);
        }
        done
    }

    fn write_origin(&mut self, range: ByteRange) -> Result<(), Full> {
        self.log.push(format!("write origin {range:?}"));
        let bytes = self.random_bytes(range.len);
        let saved = self.ours.write_origin(range, &bytes);
        let (sector, content) = whole_sectors(&self.origin, range, &bytes);
        self.theirs.write("w", sector, &content, Expected::Works);
        self.origin[indices(range)].copy_from_slice(&bytes);
        if saved.is_err() {
            self.log.push("the snapshot is lost".into());
            self.given_up();
        }
        saved
    }

    /// Whole chunks, the last one never if it is shorter: on parts of them the kernel and we need not agree.
    fn discard(&mut self) -> Result<(), Full> {
        let chunk = self.shape.chunk;
        let whole = self.shape.origin / chunk;
        let mapped = library::exceptions(self.ours.image());
        if whole == 0 {
            return Ok(());
        }
        let first = match self.random.below(1 + mapped.len() as u64) as usize {
            0 => self.random.below(whole),
            some => mapped[some - 1].0.min(whole - 1),
        };
        let end = (first + 1 + self.random.below(3)).min(whole);
        let sectors = first * chunk..end * chunk;
        self.log.push(format!("discard sectors {sectors:?}"));
        let range = ByteRange::new(sectors.start * SECTOR, (end - first) * chunk * SECTOR);
        self.ours.image().discard(range).unwrap();
        self.theirs.discard(&sectors);
        for (old, _) in mapped {
            if (first..end).contains(&old) {
                self.view[indices(ByteRange::new(old * chunk * SECTOR, chunk * SECTOR))].fill(0);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Full> {
        self.log.push("flush".into());
        self.ours.image().flush().unwrap();
        self.theirs.does("flush s".into());
        Ok(())
    }

    /// A write to the snapshot found no space. The view is ahead by it.
    fn full(&mut self, before: &[u8], range: ByteRange) {
        self.log.push("full".into());
        if self.mode == OverflowMode::Persistent {
            self.given_up();
            return;
        }
        self.alike = false;
        assert_eq!(self.ours.status(), "Overflow");
        let theirs = self.theirs.status("s");
        let old_or_new = [before, self.view.as_slice()];
        let ours = self.ours.view();
        assert_old_or_new(&ours, old_or_new, range, "our view");
        if self.shape.ends_behind_area() {
            assert_eq!(theirs, "Invalid");
            self.unload();
            self.view = ours;
            self.hand_over(true);
            return;
        }
        assert_eq!(theirs, "Overflow");
        let shown = self.theirs.view("s");
        assert_old_or_new(&shown, old_or_new, range, "the kernel's view");
        self.in_overflow(&ours, &shown);
    }

    /// Nothing can be written until it is loaded again; a write to the origin may be the end.
    fn in_overflow(&mut self, ours: &[u8], theirs: &[u8]) {
        let mapped = library::exceptions(self.ours.image());
        if !mapped.is_empty() {
            let (old, _) = mapped[self.random.below(mapped.len() as u64) as usize];
            let at = old * self.shape.chunk;
            self.log.push(format!("write sector {at} in overflow"));
            let sector = ByteRange::new(at * SECTOR, SECTOR);
            assert_eq!(self.ours.write(sector, &[1; 512]), Err(Full));
            self.theirs.write("s", at, &[1; 512], Expected::Fails);
        }
        if self.random.chance(30) && self.write_origin_of_unmapped(&mapped).is_err() {
            return;
        }
        self.unload();
        let to_kernel = self.random.chance(50);
        self.view = if to_kernel { ours } else { theirs }.to_vec();
        self.hand_over(to_kernel);
    }

    fn write_origin_of_unmapped(&mut self, mapped: &[(u64, u64)]) -> Result<(), Full> {
        let chunk = self.shape.chunk;
        let has_none = |old: &u64| mapped.iter().all(|exception| exception.0 != *old);
        match (0..self.shape.origin.div_ceil(chunk)).find(has_none) {
            Some(old) => self.write_origin(ByteRange::new(old * chunk * SECTOR + 5, 300)),
            None => Ok(()),
        }
    }

    /// The snapshot is invalid, on both sides.
    fn given_up(&mut self) {
        let status = self.theirs.status("s");
        assert_eq!(
            [status.as_str(), self.ours.status().as_str()],
            ["Invalid"; 2]
        );
        self.alike = false;
        self.unload();
        self.dead = true;
    }

    /// And remains so, while the origin is as it was.
    fn look_at_the_dead(&mut self) {
        self.reloads += 1;
        self.theirs.load("PO");
        assert_eq!(self.theirs.status("s"), "Invalid");
        self.theirs.unload();
        assert_eq!(self.ours.refusal(), dmsnap::ErrorKind::SnapshotInvalid);
        let status = dmsnap::inspect_storage(&library::device(&self.theirs.cow()))
            .unwrap()
            .status;
        assert_eq!(status, Status::Invalid, "the kernel's store as we see it");
        self.compare_devices();
    }
}

/// The whole sectors around `range`, with `bytes` in it: where they begin, and their content.
pub(super) fn whole_sectors(around: &[u8], range: ByteRange, bytes: &[u8]) -> (u64, Vec<u8>) {
    let first = range.start / SECTOR;
    let whole = ByteRange::new(
        first * SECTOR,
        range.end().next_multiple_of(SECTOR) - first * SECTOR,
    );
    let mut content = around[indices(whole)].to_vec();
    let at = (range.start - whole.start) as usize;
    content[at..at + bytes.len()].copy_from_slice(bytes);
    (first, content)
}

pub(super) fn indices(range: ByteRange) -> Range<usize> {
    range.start as usize..range.end() as usize
}

/// Each sector of `range` is one or the other, the rest is the former.
#[track_caller]
fn assert_old_or_new(found: &[u8], [old, new]: [&[u8]; 2], range: ByteRange, what: &str) {
    let sector = SECTOR as usize;
    for at in (0..found.len()).step_by(sector) {
        let place = at..at + sector;
        let written = (at as u64) < range.end() && range.start < (at as u64) + SECTOR;
        let good = found[place.clone()] == old[place.clone()]
            || written && found[place.clone()] == new[place];
        assert!(
            good,
            "{what}: sector {} after a write without space",
            at / sector
        );
    }
}
