//! A layer of ours over an origin, which the library and the kernel take turns with.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use dmsnap::storage::{FileOptions, SharedStorage};
use dmsnap::store::OverflowMode;
use dmsnap::{
    ByteRange, ChunkSize, CreateOptions, Format, Image, OpenOptions, OriginChoice, check,
};

use crate::budget::Random;
use crate::library::{self, assert_same, exceptions, sha256};
use crate::pattern;
use crate::scenario::{Outcome, Scenario};
use crate::together::Desk;
use crate::tool;
use crate::vm::{PATTERN_SECTORS, PATTERN_SEED};

const SECTOR: u64 = pattern::SECTOR as u64;

/// Origin, layer, and what the layer has to show.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) origin: PathBuf,
    pub(crate) cow: PathBuf,
    pub(crate) chunk: ChunkSize,
    /// The library sees the COW file as a device that keeps its size.
    pub(crate) fixed: bool,
    /// The library goes past the page cache.
    pub(crate) direct: bool,
    pub(crate) overflow: OverflowMode,
    /// Content of the disk.
    pub(crate) model: Vec<u8>,
    random: Random,
}

impl Pair {
    /// A new layer over an origin of so many sectors, both in `directory`. Chunks that have no room
    /// for a descriptor make a bare store.
    pub(crate) fn create(desk: &Desk<'_>, origin_sectors: u64, chunk_sectors: u32) -> Self {
        let pair = Self::plan(desk, origin_sectors, chunk_sectors);
        let options = CreateOptions::new().chunk_size(pair.chunk);
        let options = if pair.chunk.bytes() < 4096 {
            options.bare(true)
        } else {
            options.origin("origin", Format::Raw)
        };
        Image::create(&pair.cow, &options).unwrap();
        pair
    }

    /// The same without a store in it yet: the file holds so many sectors of garbage, after zeros
    /// where the header goes.
    pub(crate) fn blank(
        desk: &Desk<'_>,
        origin_sectors: u64,
        chunk_sectors: u32,
        cow_sectors: u64,
    ) -> Self {
        let pair = Self::plan(desk, origin_sectors, chunk_sectors);
        let mut garbage = pattern::sectors(0xbad, 0, cow_sectors);
        garbage[..4096].fill(0);
        fs::write(&pair.cow, garbage).unwrap();
        pair
    }

    /// A new bare layer on a device of so many sectors that is full of garbage.
    pub(crate) fn create_on_device(
        desk: &Desk<'_>,
        origin_sectors: u64,
        chunk_sectors: u32,
        cow_sectors: u64,
    ) -> Self {
        let mut pair = Self::plan(desk, origin_sectors, chunk_sectors);
        pair.fixed = true;
        let device = library::device(&pattern::sectors(0xbad, 0, cow_sectors));
        let options = CreateOptions::new().chunk_size(pair.chunk).bare(true);
        Image::create_on(&device, &options).unwrap();
        fs::write(&pair.cow, library::bytes_of(&device)).unwrap();
        pair
    }

    /// Copies of a store and its origin that somebody else made; `view` is what they show.
    pub(crate) fn copy(desk: &Desk<'_>, origin: &Path, cow: &Path, view: Vec<u8>) -> Self {
        let header = dmsnap::inspect(cow).unwrap().header;
        let pair = Self {
            model: view,
            ..Self::plan(desk, 0, header.chunk_size.sectors() as u32)
        };
        fs::copy(origin, &pair.origin).unwrap();
        fs::copy(cow, &pair.cow).unwrap();
        pair
    }

    /// Only the origin, and the names of both files.
    pub(crate) fn plan(desk: &Desk<'_>, origin_sectors: u64, chunk_sectors: u32) -> Self {
        let origin = desk.directory.join("origin");
        let model = pattern::sectors(0x0b5e, 0, origin_sectors);
        fs::write(&origin, &model).unwrap();
        let seed = desk.name.bytes().fold(1, |seed: u64, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        Self {
            name: desk.name.to_owned(),
            origin,
            cow: desk.directory.join("cow"),
            chunk: ChunkSize::from_sectors(chunk_sectors).unwrap(),
            fixed: false,
            direct: false,
            overflow: OverflowMode::NoSpace,
            model,
            random: Random(seed),
        }
    }

    /// Opens it: a bare store over its origin, any other as its descriptor says.
    pub(crate) fn open(&self, writable: bool) -> (Image, SharedStorage) {
        let storage: SharedStorage = if self.fixed {
            library::device(&fs::read(&self.cow).unwrap())
        } else {
            let file = FileOptions::new().writable(writable).direct(self.direct);
            Arc::new(file.open(&self.cow).unwrap())
        };
        let origin = OriginChoice::Path {
            path: self.origin.clone(),
            format: Format::Raw,
            below: Box::default(),
        };
        let options = OpenOptions::new()
            .writable(writable)
            .overflow(self.overflow)
            .direct(self.direct)
            .origin(origin);
        (
            Image::open_storage(storage.clone(), &options).unwrap(),
            storage,
        )
    }

    /// Our turn: opens, works, closes, and looks whether everything is there.
    #[track_caller]
    pub(crate) fn ours<R>(&mut self, work: impl FnOnce(&mut Self, &Image) -> R) -> R {
        let (image, storage) = self.open(true);
        let result = work(self, &image);
        image.close().unwrap();
        if self.fixed {
            fs::write(&self.cow, library::bytes_of(&storage)).unwrap();
        }
        self.look();
        result
    }

    /// Compares what we read with the model, and checks the store. Returns its status.
    #[track_caller]
    pub(crate) fn look(&self) -> String {
        let (image, _storage) = self.open(false);
        assert_same(&library::view(&image), &self.model, &self.name);
        let outcome = check(&self.cow, &Default::default()).unwrap();
        assert!(outcome.is_clean(), "{}: {outcome:?}", self.name);
        image.status().to_string()
    }

    /// `count` random operations of ours.
    pub(crate) fn scribble(&mut self, image: &Image, count: usize) {
        for _ in 0..count {
            let size = self.model.len() as u64;
            let longest = (3 * self.chunk.bytes() + 5000).min(size);
            let len = 1 + self.random.below(longest);
            let range = ByteRange::new(self.random.below(size - len + 1), len);
            match self.random.below(12) {
                0..=6 => self.write(image, range),
                7 | 8 => {
                    let unmap = self.random.below(2) == 0;
                    image.write_zeroes(range, unmap).unwrap();
                    self.model_of(range).fill(0);
                }
                9 => self.discard(image, range),
                10 => self.discard_around_an_exception(image),
                _ => image.flush().unwrap(),
            }
        }
    }

    fn discard_around_an_exception(&mut self, image: &Image) {
        let mapped = exceptions(image);
        if mapped.is_empty() {
            return;
        }
        let (old, _) = mapped[self.random.below(mapped.len() as u64) as usize];
        let (chunk, size) = (self.chunk.bytes(), self.model.len() as u64);
        let start = (old * chunk).saturating_sub(self.random.below(2 * chunk));
        let end = (old + 1) * chunk + self.random.below(2 * chunk);
        self.discard(image, ByteRange::new(start, end.min(size) - start));
    }

    /// Writes something new.
    pub(crate) fn write(&mut self, image: &Image, range: ByteRange) {
        let word = self.random.below(u64::MAX).to_le_bytes();
        let place = self.model_of(range);
        for (number, bytes) in place.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&word[..bytes.len()]);
            bytes[0] = number as u8;
        }
        image.write(place, range.start).unwrap();
    }

    /// Writes from four threads at once. Their pieces take turns, so that they meet in every chunk.
    pub(crate) fn write_by_threads(&mut self, image: &Image, bytes: u8) {
        const PIECE: usize = 700;
        let (seed, size) = (self.random.below(u64::MAX), self.model.len());
        let pieces = size.div_ceil(PIECE);
        // Some chunks stay as they are.
        let chosen = |piece: &usize| Random(seed ^ (*piece as u64 / 64)).below(3) > 0;
        let chosen: Vec<usize> = (0..pieces).filter(chosen).collect();
        let piece = |number: usize| {
            let start = number * PIECE;
            (start, vec![bytes ^ number as u8; PIECE.min(size - start)])
        };
        thread::scope(|scope| {
            for own in 0..4 {
                let chosen = &chosen;
                scope.spawn(move || {
                    for &number in chosen.iter().filter(|number| *number % 4 == own) {
                        let (start, content) = piece(number);
                        image.write(&content, start as u64).unwrap();
                        if number % 50 == 0 {
                            image.flush().unwrap();
                        }
                    }
                });
            }
        });
        for &number in &chosen {
            let (start, content) = piece(number);
            self.model[start..start + content.len()].copy_from_slice(&content);
        }
    }

    fn discard(&mut self, image: &Image, range: ByteRange) {
        let mapped = exceptions(image);
        image.discard(range).unwrap();
        let (chunk, size) = (self.chunk.bytes(), self.model.len() as u64);
        for (old, _) in mapped {
            let start = old * chunk;
            let end = (start + chunk).min(size);
            if range.start <= start && end <= range.end() {
                self.model_of(ByteRange::new(start, end - start)).fill(0);
            }
        }
    }

    pub(crate) fn model_of(&mut self, range: ByteRange) -> &mut [u8] {
        &mut self.model[range.start as usize..range.end() as usize]
    }

    /// Random writes for the kernel to do on device `s`, as a script; the model is ahead by them.
    pub(crate) fn kernel_writes(&mut self, count: usize) -> String {
        let mut script = String::new();
        let sectors = self.model.len() as u64 / SECTOR;
        for _ in 0..count {
            let longest = sectors.min(2 * self.chunk.sectors() + 9);
            let count = 1 + self.random.below(longest);
            let at = self.random.below(sectors - count + 1);
            let from = self.random.below(PATTERN_SECTORS - count);
            writeln!(script, "put s {at} {count} {from}").unwrap();
            let written = pattern::sectors(PATTERN_SEED, from, count);
            let range = ByteRange::new(at * SECTOR, count * SECTOR);
            self.model_of(range).copy_from_slice(&written);
        }
        script
    }

    /// A scenario with both disks, which devices of fixed names lead to.
    pub(crate) fn scenario(&self) -> Scenario {
        Scenario::new(&self.name)
            .disk("origin", &self.origin)
            .disk("cow", &self.cow)
            .script("ln -sf $origin /dev/origin; ln -sf $cow /dev/cow")
    }

    /// Commands that attach it as device `s`: what `dmsnap table` prints, to the letter. The tool
    /// also makes the file fit for a kernel that writes, with room for every chunk of the disk.
    pub(crate) fn attach(&self, room: bool) -> String {
        if self.fixed {
            return self.attach_as_it_is();
        }
        let mut arguments = vec!["table", "cow", "--name", "s", "--cow-dev", "/dev/cow"];
        arguments.extend(["--origin-dev", "/dev/origin"]);
        if self.open(false).0.descriptor().is_none() {
            arguments.extend(["--origin", "origin"]);
        }
        if room {
            arguments.push("--cover");
        }
        tool::ok(self.cow.parent().unwrap(), &arguments)
    }

    /// The same without the tool, whatever the file holds.
    pub(crate) fn attach_as_it_is(&self) -> String {
        let (length, chunk) = (self.model.len() as u64 / SECTOR, self.chunk.sectors());
        format!("create s '0 {length} snapshot /dev/origin /dev/cow PO {chunk}'")
    }

    /// The kernel's turn: it has to see what we saw, works, and we have to see what it sees then.
    #[track_caller]
    pub(crate) fn theirs(&mut self, desk: &Desk<'_>, work: impl FnOnce(&mut Self) -> String) {
        self.theirs_then(desk, work, "");
    }

    /// The same with commands that run after the device was detached.
    #[track_caller]
    pub(crate) fn theirs_then(
        &mut self,
        desk: &Desk<'_>,
        work: impl FnOnce(&mut Self) -> String,
        then: &str,
    ) -> Outcome {
        let before = sha256(&self.model);
        let work = work(self);
        let attach = self.attach(!work.is_empty());
        let status = self.open(false).0.status().to_string();
        let scenario = self
            .scenario()
            .script(&attach)
            .script("field status \"$(status s)\"; field view $(hash s)")
            .script(&work)
            .script("field status_after \"$(status s)\"; field view_after $(hash s)")
            .script("detach s; [ ! -e /dev/mapper/s-origin ] || detach s-origin")
            .script(then);
        let outcome = desk.kernel(scenario);
        let name = &self.name;
        assert_eq!(outcome.field("status"), status, "{name}");
        assert_eq!(outcome.field("view"), before, "{name}: what we wrote");
        let after = sha256(&self.model);
        assert_eq!(outcome.field("view_after"), after, "{name}: what it wrote");
        if then.is_empty() {
            assert_eq!(self.look(), outcome.field("status_after"), "{name}");
        }
        outcome
    }

    /// The kernel's turn, at the end of which it merges the layer into the origin.
    #[track_caller]
    pub(crate) fn theirs_merged(
        &mut self,
        desk: &Desk<'_>,
        work: impl FnOnce(&mut Self) -> String,
    ) {
        let chunk = self.chunk.sectors();
        let merge = format!(
            "merge m $origin $cow PO {chunk}
             field merged \"$(wait_merge m)\"
             detach m"
        );
        let origin = fs::read(&self.origin).unwrap();
        let outcome = self.theirs_then(desk, work, &merge);
        assert_eq!(self.look(), outcome.field("merged"), "{}", self.name);
        self.assert_merged();
        // The kernel knows whole chunks only, so of the last one it may have copied all.
        let end = self
            .model
            .len()
            .next_multiple_of(self.chunk.bytes() as usize);
        if let Some(rest) = origin.get(end..) {
            assert!(
                fs::read(&self.origin).unwrap()[end..] == *rest,
                "{}",
                self.name
            );
        }
    }

    /// `dmsnap merge`, which has to leave nothing to do.
    #[track_caller]
    pub(crate) fn merge_by_tool(&self) {
        let arguments = ["merge", "cow", "--origin", "origin"];
        tool::ok(self.cow.parent().unwrap(), &arguments);
        self.assert_merged();
    }

    /// Nothing is left in the layer, and the origin has it all.
    #[track_caller]
    pub(crate) fn assert_merged(&self) {
        let (image, _storage) = self.open(false);
        assert_eq!(image.exceptions(), [], "{}", self.name);
        let origin = fs::read(&self.origin).unwrap();
        let shown = &origin[..self.model.len()];
        assert_same(shown, &self.model, &format!("{}, merged", self.name));
    }
}
