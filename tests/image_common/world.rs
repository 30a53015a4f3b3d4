//! A chain of layers beside a model of it: for each layer the bytes that it shows.

use std::path::PathBuf;
use std::sync::Arc;

use dmsnap::storage::{FileOptions, SharedStorage};
use dmsnap::{
    ByteRange, CheckOptions, CreateOptions, ErrorKind, Image, OpenOptions, OriginChoice,
    check_storage,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::image_common::*;

/// Something to do to an image. Offsets and lengths are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write { at: u64, len: u64, seed: u64 },
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Read { at: u64, len: u64 },
    Flush,
    Snapshot { chunk: u64 },
    Merge,
    MergeSteps { steps: usize, seed: u64 },
    Resize { sectors: u64 },
    MakeEmpty,
    Reopen,
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let at = || any::<u32>().prop_map(u64::from);
    let len = || prop_oneof![1..600_u64, 1..20_000_u64, 1..150_000_u64];
    prop_oneof![
        10 => (at(), len(), any::<u64>()).prop_map(|(at, len, seed)| Op::Write { at, len, seed }),
        3 => (at(), len(), any::<bool>()).prop_map(|(at, len, unmap)| Op::Zero { at, len, unmap }),
        2 => (at(), len()).prop_map(|(at, len)| Op::Discard { at, len }),
        3 => (at(), len()).prop_map(|(at, len)| Op::Read { at, len }),
        2 => Just(Op::Flush),
        1 => (12..17_u32).prop_map(|shift| Op::Snapshot { chunk: 1 << shift }),
        1 => Just(Op::Merge),
        1 => (0..4_usize, any::<u64>()).prop_map(|(steps, seed)| Op::MergeSteps { steps, seed }),
        1 => (0..500_u64).prop_map(|sectors| Op::Resize { sectors }),
        1 => Just(Op::MakeEmpty),
        2 => Just(Op::Reopen),
    ]
}

/// What the chain starts from.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) base_len: usize,
    pub(crate) sectors: u64,
    pub(crate) chunk: u64,
    pub(crate) files: bool,
    pub(crate) direct: bool,
}

pub(crate) fn any_shape(files: bool) -> impl Strategy<Value = Shape> {
    let shift = if files { 12..17_u32 } else { 9..17_u32 };
    let base_len = prop_oneof![Just(0_usize), 1..300_000_usize, Just(131_072)];
    (base_len, 1..400_u64, shift).prop_map(move |(base_len, sectors, shift)| Shape {
        base_len,
        sectors,
        chunk: 1 << shift,
        files,
        direct: false,
    })
}

pub(crate) struct World {
    directory: Option<TempDir>,
    direct: bool,
    /// The raw origin, then the layers.
    storages: Vec<SharedStorage>,
    paths: Vec<PathBuf>,
    /// What each of them shows; `None` where an unfinished merge left a mixture.
    disks: Vec<Option<Vec<u8>>>,
    /// The size of a first layer that does not record it.
    bare: Option<u64>,
    image: Option<Image>,
}

impl World {
    pub(crate) fn new(shape: &Shape) -> World {
        let base = pattern(1, shape.base_len);
        let size = shape.sectors * 512;
        let mut disk = base.clone();
        disk.resize(size as usize, 0);
        let mut world = World {
            directory: shape.files.then(|| tempfile::tempdir().unwrap()),
            direct: shape.direct,
            storages: Vec::new(),
            paths: Vec::new(),
            disks: vec![Some(base.clone()), Some(disk)],
            bare: (shape.chunk < 4096).then_some(size),
            image: None,
        };
        if let Some(directory) = &world.directory {
            let path = directory.path().join("base.raw");
            std::fs::write(&path, &base).unwrap();
            let layer = directory.path().join("layer1");
            let options = CreateOptions::new()
                .chunk_size(chunk(shape.chunk))
                .size(size)
                .origin("base.raw", dmsnap::Format::Raw);
            Image::create(&layer, &options).unwrap();
            world.paths = vec![path, layer];
        } else {
            let cow = memory();
            create(&cow, shape.chunk, size);
            world.storages = vec![memory_with(&base), cow];
        }
        world.open();
        world
    }

    fn layers(&self) -> usize {
        self.disks.len() - 1
    }

    fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    fn top(&mut self) -> &mut Vec<u8> {
        self.disks.last_mut().unwrap().as_mut().unwrap()
    }

    fn open(&mut self) {
        let image = if self.directory.is_some() {
            Image::open(
                self.paths.last().unwrap(),
                &over(OriginChoice::FromImage).direct(self.direct),
            )
        } else {
            let mut origin = OriginChoice::Storage(self.storages[0].clone());
            for layer in 1..self.layers() {
                let mut options = over(origin);
                if let (1, Some(size)) = (layer, self.bare) {
                    options = options.bare_size(size);
                }
                let image = Image::open_storage(self.storages[layer].clone(), &options).unwrap();
                origin = OriginChoice::Image(Arc::new(image));
            }
            let mut options = over(origin);
            if let (1, Some(size)) = (self.layers(), self.bare) {
                options = options.bare_size(size);
            }
            Image::open_storage(self.storages[self.layers()].clone(), &options)
        };
        self.image = Some(image.unwrap());
    }

    /// Closes and opens again; between the two each layer must pass a check.
    pub(crate) fn reopen(&mut self) {
        self.image.take().unwrap().close().unwrap();
        for layer in 1..=self.layers() {
            self.check_layer(layer);
        }
        self.open();
    }

    fn check_layer(&self, layer: usize) {
        let storage: SharedStorage = match self.paths.get(layer) {
            Some(path) => Arc::new(FileOptions::new().open(path).unwrap()),
            None => self.storages[layer].clone(),
        };
        let outcome = check_storage(&storage, &CheckOptions::new()).unwrap();
        let findings: Vec<_> = outcome.report.findings.iter().map(|f| &f.message).collect();
        assert_eq!(
            (outcome.remaining_corruptions, outcome.remaining_repairable),
            (0, 0),
            "{findings:?}"
        );
        if self.directory.is_some() {
            assert_eq!(outcome.leaks, 0, "layer {layer}: {:?}", outcome.report);
        }
    }

    /// A range inside the disk, if it has any bytes.
    fn range(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.image().size();
        (size > 0).then(|| {
            let at = at % size;
            ByteRange::new(at, len.min(size - at))
        })
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write { at, len, seed } => self.write(at, len, seed),
            Op::Zero { at, len, unmap } => self.zero(at, len, unmap),
            Op::Discard { at, len } => self.discard(at, len),
            Op::Read { at, len } => self.read(at, len),
            Op::Flush => self.image().flush().unwrap(),
            Op::Snapshot { chunk } => self.snapshot(chunk),
            Op::Merge => self.merge(usize::MAX, 0),
            Op::MergeSteps { steps, seed } => self.merge(steps, seed),
            Op::Resize { sectors } => self.resize(sectors),
            Op::MakeEmpty => self.make_empty(),
            Op::Reopen => self.reopen(),
        }
    }

    fn write(&mut self, at: u64, len: u64, seed: u64) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        let bytes = pattern(seed, range.len as usize);
        self.image().write(&bytes, range.start).unwrap();
        self.top()[range.start as usize..range.end() as usize].copy_from_slice(&bytes);
    }

    fn zero(&mut self, at: u64, len: u64, unmap: bool) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        self.image().write_zeroes(range, unmap).unwrap();
        self.top()[range.start as usize..range.end() as usize].fill(0);
    }

    fn discard(&mut self, at: u64, len: u64) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        let chunk = self.image().chunk_size().bytes();
        let runs = self.image().exceptions();
        self.image().discard(range).unwrap();
        let top = self.top();
        let size = top.len() as u64;
        for (old, _, count) in runs {
            for old in old.0..old.0 + count {
                let (start, end) = (old * chunk, ((old + 1) * chunk).min(size));
                if range.start <= start && end <= range.end() && start < end {
                    top[start as usize..end as usize].fill(0);
                }
            }
        }
    }

    fn read(&mut self, at: u64, len: u64) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        let mut bytes = vec![0xee; range.len as usize];
        self.image().read(&mut bytes, range.start).unwrap();
        let expected = &self.top()[range.start as usize..range.end() as usize];
        assert_same(&bytes, expected, &format!("read of {range}"));
    }

    fn snapshot(&mut self, chunk_bytes: u64) {
        if self.layers() == 3 {
            return;
        }
        let chunk_size = Some(chunk(chunk_bytes));
        if let Some(directory) = &self.directory {
            let path = directory.path().join(format!("layer{}", self.layers() + 1));
            self.image().snapshot(&path, chunk_size).unwrap();
            self.paths.push(path);
        } else {
            let storage = memory();
            self.image()
                .snapshot_to(storage.clone(), None, chunk_size)
                .unwrap();
            self.storages.push(storage);
        }
        self.disks.push(self.disks.last().unwrap().clone());
    }

    /// Merges up to so many steps, with writes between them.
    fn merge(&mut self, steps: usize, seed: u64) {
        let size = self.image().size();
        let mut merge = match self.image().start_merge() {
            Ok(merge) => merge,
            // A bare layer cannot be made as long as the one above it.
            Err(error) if self.bare.is_some() && error.kind() == ErrorKind::Unsupported => return,
            Err(error) => panic!("{error}"),
        };
        let mut more = true;
        for step in 0..steps {
            more = merge.step().unwrap();
            if !more {
                break;
            }
            let at = seed.wrapping_mul(step as u64 + 1);
            self.write(at, 5000, seed);
            self.zero(at.rotate_left(7), 9000, true);
            self.discard(at.rotate_left(19), 70_000);
            self.read(at.rotate_left(3), 50_000);
        }
        drop(merge);
        let top = self.top().clone();
        let below = self.disks.len() - 2;
        let lower = &mut self.disks[below];
        *lower = match lower.take() {
            _ if more => None,
            Some(mut lower) => {
                let len = lower.len().max(size as usize);
                lower.resize(len, 0);
                lower[..top.len()].copy_from_slice(&top);
                Some(lower)
            }
            None => None,
        };
        if !more {
            assert_eq!(self.image().exceptions(), []);
        }
    }

    fn resize(&mut self, sectors: u64) {
        let size = sectors * 512;
        match self.image().resize(size, true) {
            Ok(()) => self.top().resize(size as usize, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(self.image().descriptor().is_none());
            }
        }
    }

    fn make_empty(&mut self) {
        self.image().make_empty().unwrap();
        assert_eq!(self.image().exceptions(), []);
        let below = self.disks.len() - 2;
        let found = contents(self.image());
        let expected = match &self.disks[below] {
            None => found,
            Some(lower) => {
                let mut expected = lower.clone();
                expected.resize(found.len(), 0);
                assert_same(&found, &expected, "emptied");
                expected
            }
        };
        *self.top() = expected;
    }

    /// Everything, the lower layers too.
    pub(crate) fn verify(&mut self) {
        let found = contents(self.image());
        assert_same(&found, self.top(), "the image");
        self.image.take().unwrap().close().unwrap();
        for layer in 0..self.layers() {
            let Some(disk) = &self.disks[layer] else {
                continue;
            };
            // Below a mixture everything is known all the same, since nothing was written there.
            assert_same(&self.layer_contents(layer), disk, &format!("layer {layer}"));
        }
        self.open();
        let found = contents(self.image());
        assert_same(&found, self.top(), "the image, reopened");
    }

    fn layer_contents(&self, layer: usize) -> Vec<u8> {
        if layer == 0 {
            return match self.paths.first() {
                Some(path) => std::fs::read(path).unwrap(),
                None => bytes_of(&self.storages[0]),
            };
        }
        if let Some(path) = self.paths.get(layer) {
            let options = OpenOptions::new().origin(OriginChoice::FromImage);
            return contents(&Image::open(path, &options).unwrap());
        }
        let mut origin = OriginChoice::Storage(self.storages[0].clone());
        for below in 1..=layer {
            let mut options = OpenOptions::new().origin(origin);
            if let (1, Some(size)) = (below, self.bare) {
                options = options.bare_size(size);
            }
            let image = Image::open_storage(self.storages[below].clone(), &options).unwrap();
            if below == layer {
                return contents(&image);
            }
            origin = OriginChoice::Image(Arc::new(image));
        }
        unreachable!("the loop returns at `layer`")
    }
}
