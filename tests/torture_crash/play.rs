//! A chain of layers on recorded storages, what was done to it, and what it may show after a power cut.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use dmsnap::format::Descriptor;
use dmsnap::storage::testing::Recorder;
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{Amend, ByteRange, ErrorKind, Image, OpenOptions, OriginChoice};

use crate::budget::Random;
use crate::history::{Durable, Truth};
use crate::image_common::*;

/// Layers that a chain may come to have.
pub(crate) const MAX_LAYERS: usize = 4;

/// What a run starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) origin: usize,
    pub(crate) size: u64,
    pub(crate) chunk: u64,
    /// Chunks of the first layer, if that cannot grow.
    pub(crate) fixed: Option<u64>,
}

impl Shape {
    /// An origin and a disk of so many chunks.
    pub(crate) fn new(chunk: u64, chunks: u64) -> Shape {
        Shape {
            origin: (chunk * chunks) as usize,
            size: chunk * chunks,
            chunk,
            fixed: None,
        }
    }

    /// One of these chunk sizes and about so many bytes; the origin may be shorter or longer than the disk.
    pub(crate) fn any(random: &mut Random, chunks: &[u64], bytes: u64) -> Shape {
        let chunk = chunks[random.below(chunks.len() as u64) as usize];
        let size = (1 + random.below(bytes / 512)) * 512;
        let origin = match random.below(4) {
            0 => 0,
            1 => random.below(bytes) as usize,
            _ => size as usize,
        };
        Shape {
            origin,
            size,
            chunk,
            fixed: None,
        }
    }
}

/// The workload and its seed: what a failure has to say so that it can be repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) workload: &'static str,
    pub(crate) seed: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with DMSNAP_SEED={}", self.workload, self.seed)
    }
}

pub(crate) struct Play {
    pub(crate) name: Name,
    pub(crate) recorder: Recorder,
    /// The raw origin, the layer there is, and room for others.
    pub(crate) storages: Vec<SharedStorage>,
    pub(crate) image: Option<Image>,
    truth: Mutex<Truth>,
    pub(crate) bare: Option<u64>,
    /// What is shown below the top layer, unless a merge left a mixture.
    below: Mutex<Option<Vec<u8>>>,
    /// The descriptor of the top layer, in runs where nothing but [`Play::amend`] changes it.
    descriptor: Mutex<Option<Durable<Option<Descriptor>>>>,
}

/// How to open a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Opens the raw origin and the layers over it.
pub(crate) fn open_chain(
    storages: &[SharedStorage],
    bare: Option<u64>,
    access: Access,
) -> dmsnap::Result<Image> {
    let mut origin = OriginChoice::Storage(storages[0].clone());
    let mut layers = storages.iter().enumerate().skip(1);
    let (last, top) = layers.next_back().expect("a chain has a layer");
    let options = |origin, index| {
        let options = OpenOptions::new().origin(origin);
        let options = options.writable(access == Access::Write);
        match (index, bare) {
            (1, Some(size)) => options.bare_size(size),
            _ => options,
        }
    };
    for (index, storage) in layers {
        let image = Image::open_storage(storage.clone(), &options(origin, index))?;
        origin = OriginChoice::Image(Arc::new(image));
    }
    Image::open_storage(top.clone(), &options(origin, last))
}

/// A blank first layer.
fn first_layer(shape: &Shape) -> MemoryStorage {
    let storage = match shape.fixed {
        // As a device that was used before.
        Some(chunks) => {
            let device = MemoryStorage::fixed(chunks * shape.chunk);
            let garbage = pattern(5, (chunks * shape.chunk) as usize);
            dmsnap::storage::Storage::write_at(&device, &garbage, 0).unwrap();
            device
        }
        None => MemoryStorage::new(),
    };
    let storage = Arc::new(storage);
    let shared: SharedStorage = storage.clone();
    create(&shared, shape.chunk, shape.size);
    storage.snapshot()
}

/// The bytes as a disk of that size shows them.
pub(crate) fn sized(bytes: &[u8], size: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(size as usize, 0);
    bytes
}

impl Play {
    /// A new layer over an origin, opened.
    pub(crate) fn new(name: Name, shape: &Shape) -> Play {
        let base = pattern(1, shape.origin);
        let mut play = Play::of(name, shape, &base, &first_layer(shape));
        play.open();
        play
    }

    /// A layer that is there already and shows what a new one does. Nobody has opened it.
    pub(crate) fn of(name: Name, shape: &Shape, base: &[u8], layer: &MemoryStorage) -> Play {
        let recorder = Recorder::new();
        let mut storages: Vec<SharedStorage> = Vec::new();
        let origin = MemoryStorage::from_bytes(base);
        storages.push(Arc::new(recorder.storage(&origin)));
        storages.push(Arc::new(recorder.storage(layer)));
        for _ in 1..MAX_LAYERS {
            storages.push(Arc::new(recorder.storage(&MemoryStorage::new())));
        }
        let disk = sized(base, shape.size);
        Play {
            name,
            recorder,
            storages,
            image: None,
            truth: Mutex::new(Truth::new(&disk)),
            bare: (shape.chunk < 4096).then_some(shape.size),
            below: Mutex::new(Some(base.to_vec())),
            descriptor: Mutex::new(None),
        }
    }

    /// As if the disk had shown this from the beginning.
    pub(crate) fn shows(&mut self, disk: &[u8]) {
        self.truth = Mutex::new(Truth::new(disk));
    }

    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    pub(crate) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    pub(crate) fn size(&self) -> u64 {
        self.image().size()
    }

    pub(crate) fn layers(&self) -> usize {
        self.truth().layers()
    }

    fn open(&mut self) {
        let storages = &self.storages[..=self.layers()];
        self.image = Some(open_chain(storages, self.bare, Access::Write).unwrap());
    }

    /// Begins a call that makes `range` read as `bytes`, and ends it.
    fn change(&self, offset: u64, bytes: &[u8], call: impl FnOnce(&Image) -> dmsnap::Result<()>) {
        let range = ByteRange::new(offset, bytes.len() as u64);
        let started = self.recorder.position();
        self.truth().begin(started, offset, bytes);
        match call(self.image()) {
            Ok(()) => self.truth().end(range),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                self.truth().end(range);
                self.found_instead(range);
            }
        }
    }

    /// After a call that found no space: each byte is an old or a new one, and stays what it is.
    fn found_instead(&self, range: ByteRange) {
        let mut found = vec![0; range.len as usize];
        self.image().read(&mut found, range.start).unwrap();
        let mut truth = self.truth();
        truth.begin(self.recorder.position(), range.start, &found);
        truth.end(range);
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.change(offset, bytes, |image| image.write(bytes, offset));
    }

    pub(crate) fn zero(&self, range: ByteRange, unmap: bool) {
        let zeros = vec![0; range.len as usize];
        self.change(range.start, &zeros, |image| {
            image.write_zeroes(range, unmap)
        });
    }

    /// Chunks that are mapped and wholly inside become zeros, all else stays. Not for several threads.
    pub(crate) fn discard(&self, range: ByteRange) {
        let (size, chunk) = (self.size(), self.image().chunk_size().bytes());
        let mut bytes = self.truth().now()[range.start as usize..range.end() as usize].to_vec();
        for (old, _, count) in self.image().exceptions() {
            for old in old.0..old.0 + count {
                let (start, end) = (old * chunk, ((old + 1) * chunk).min(size));
                if range.start <= start && end <= range.end() && start < end {
                    bytes[(start - range.start) as usize..(end - range.start) as usize].fill(0);
                }
            }
        }
        self.change(range.start, &bytes, |image| image.discard(range));
    }

    pub(crate) fn flush(&self) {
        let began = self.truth().tick();
        match self.image().flush() {
            Ok(()) => self.truth().flushed(began, self.recorder.position()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
        }
    }

    /// A call is over after which everything is durable.
    fn durable(&self) {
        self.truth().durable(self.recorder.position());
    }

    pub(crate) fn reopen(&mut self) {
        self.image.take().unwrap().close().unwrap();
        self.durable();
        self.open();
    }

    pub(crate) fn resize(&self, size: u64) {
        let started = self.recorder.position();
        self.truth().begin_resize(started, size);
        self.image().resize(size, true).unwrap();
        self.truth().end_resize(self.recorder.position());
        self.durable();
    }

    pub(crate) fn make_empty(&self) {
        let Some(below) = self.below.lock().unwrap().clone() else {
            return;
        };
        let disk = sized(&below, self.size());
        self.change(0, &disk, Image::make_empty);
        self.durable();
    }

    pub(crate) fn snapshot(&self, chunk_bytes: u64) {
        let layers = self.layers();
        if layers == MAX_LAYERS {
            return;
        }
        let storage = self.storages[layers + 1].clone();
        let started = self.recorder.position();
        self.truth().begin_layer(started);
        self.image()
            .snapshot_to(storage, None, Some(chunk(chunk_bytes)))
            .unwrap();
        let mut truth = self.truth();
        truth.end_layer();
        *self.below.lock().unwrap() = Some(truth.now());
        drop(truth);
        self.durable();
    }

    /// Merges up to so many steps; `between` is called after each.
    pub(crate) fn merge(&self, steps: usize, mut between: impl FnMut(&Play)) {
        let began = self.truth().tick();
        let mut merge = match self.image().start_merge() {
            Ok(merge) => merge,
            // A bare layer cannot be made as long as the one above it.
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
        };
        self.truth().flushed(began, self.recorder.position());
        let below = self.below.lock().unwrap().take();
        for _ in 0..steps {
            if !merge.step().unwrap() {
                drop(merge);
                assert_eq!(self.image().exceptions(), []);
                *self.below.lock().unwrap() = below.map(|below| self.merged_into(below));
                return self.durable();
            }
            between(self);
        }
    }

    fn merged_into(&self, mut below: Vec<u8>) -> Vec<u8> {
        let disk = self.truth().now();
        below.resize(below.len().max(disk.len()), 0);
        below[..disk.len()].copy_from_slice(&disk);
        below
    }

    /// Says nothing about what was written before: if there is nothing to change nothing is done.
    pub(crate) fn amend(&self, amend: &Amend) {
        let (old, started) = (self.image().descriptor(), self.recorder.position());
        self.image().amend(amend).unwrap();
        let (new, over) = (self.image().descriptor(), self.recorder.position());
        let mut known = self.descriptor.lock().unwrap();
        known
            .get_or_insert_with(|| Durable::new(old))
            .push(started, over, new);
    }

    /// Where two positions have the same of this, the same may be shown.
    pub(crate) fn epoch(&self, position: usize) -> impl Copy + Eq + Hash {
        let known = self.descriptor.lock().unwrap();
        let described = known.as_ref().map(|known| known.epoch(position));
        (self.truth().epoch(position), described)
    }

    /// Whether a power cut after `position` changes may have left this descriptor.
    pub(crate) fn judge_descriptor(
        &self,
        found: &Option<Descriptor>,
        position: usize,
    ) -> Result<(), String> {
        let known = self.descriptor.lock().unwrap();
        let Some(known) = &*known else { return Ok(()) };
        if known.allowed(position).any(|allowed| allowed == found) {
            return Ok(());
        }
        let allowed: Vec<_> = known.allowed(position).collect();
        Err(format!("described by {found:?}, not one of {allowed:?}"))
    }

    /// A range of the disk, of at most `longest` bytes.
    pub(crate) fn range(&self, random: &mut Random, longest: u64) -> Option<ByteRange> {
        let size = self.size();
        (size > 0).then(|| {
            let at = random.below(size);
            ByteRange::new(at, (1 + random.below(longest)).min(size - at))
        })
    }

    /// Writes somewhere.
    pub(crate) fn scribble(&self, random: &mut Random, longest: u64) {
        if let Some(range) = self.range(random, longest) {
            self.write(range.start, &pattern(random.next(), range.len as usize));
        }
    }

    /// The model is right, and the power may go now. Returns how many changes of files there were.
    pub(crate) fn end(&mut self) -> usize {
        let what = self.name.to_string();
        let image = self.image.take();
        if let Some(image) = &image {
            assert_same(&contents(image), &self.truth().now(), &what);
        }
        // What closing does comes too late.
        self.recorder.position()
    }
}
