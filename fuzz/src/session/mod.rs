//! An image over storages in memory, driven by operations of an input, beside a model of its bytes.

mod layers;
mod ops;

use std::sync::Arc;

use arbitrary::Arbitrary;
use dmsnap::store::OverflowMode;
use dmsnap::{
    CheckOptions, Error, ErrorKind, Image, OpenOptions, OriginChoice, Repair, check_storage,
};

use crate::model::Model;
use crate::watch::Watched;

pub use ops::{Change, Op};

/// Longer disks have no model: it would take too long.
pub const MODEL_BYTES: u64 = 64 << 10;
const MOST_LAYERS: usize = 3;

/// How the layer that a session begins with is opened.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Options {
    pub bare_sectors: Option<u16>,
    pub ignore_damage: bool,
    pub ignore_uuid: bool,
    pub overflow: u8,
}

impl Options {
    fn build(self, writable: bool, origin: OriginChoice) -> OpenOptions {
        let options = OpenOptions::new()
            .writable(writable)
            .origin(origin)
            .ignore_origin_uuid(self.ignore_uuid)
            .ignore_descriptor_damage(self.ignore_damage)
            .overflow(self.overflow());
        match self.bare_sectors {
            Some(sectors) => options.bare_size(u64::from(sectors) * 512),
            None => options,
        }
    }

    fn overflow(self) -> OverflowMode {
        match self.overflow % 8 {
            1 => OverflowMode::Persistent,
            2 => OverflowMode::PersistentOverflow,
            _ => OverflowMode::NoSpace,
        }
    }
}

pub struct Session {
    /// The raw origin, then the layers.
    layers: Vec<Watched>,
    /// How long they were at first.
    initial: Vec<u64>,
    options: Options,
    image: Option<Image>,
    model: Option<Model>,
    /// Whether nothing fails without a fault: the layer was made by the library.
    sound: bool,
    /// Whether a fault or a limit was set since the image was opened.
    trouble: bool,
    /// The size that a resize which failed asked for.
    asked: Option<u64>,
    /// Whether a failed flush has ended writing.
    latched: bool,
    /// Whether a merge has failed, after which first writes go on to the origin.
    merge_failed: bool,
    /// Whether opening has warned of the descriptor.
    damaged: bool,
    value: u8,
}

/// Opens a layer for reading, whose storages must not change.
pub fn open_to_read(cow: &Watched, origin: &Watched, options: Options) -> Result<Image, Error> {
    let origin = OriginChoice::Storage(origin.shared());
    Image::open_storage(cow.shared(), &options.build(false, origin))
}

/// The bytes of an image that is not too long.
pub fn contents(image: &Image) -> Option<Vec<u8>> {
    if image.size() > MODEL_BYTES {
        return None;
    }
    let mut bytes = vec![0xee; image.size() as usize];
    image
        .read(&mut bytes, 0)
        .expect("what was opened can be read");
    Some(bytes)
}

impl Session {
    /// Opens a layer for writing; `None` if it is refused.
    pub fn open(cow: Watched, origin: Watched, options: Options, sound: bool) -> Option<Session> {
        let layers = vec![origin, cow];
        let mut session = Session {
            initial: layers.iter().map(Watched::size).collect(),
            layers,
            options,
            image: None,
            model: None,
            sound,
            trouble: false,
            asked: None,
            latched: false,
            merge_failed: false,
            damaged: false,
            value: 0,
        };
        match session.open_chain() {
            Ok(image) => session.image = Some(image),
            Err(error) => {
                assert!(!sound, "a new layer is refused: {error}");
                return None;
            }
        }
        session.damaged = !session.image().warnings().is_empty();
        session.model = contents(session.image()).map(|bytes| Model::of(&bytes));
        session.restrict();
        Some(session)
    }

    /// What a reader has seen is what a writer begins with.
    pub fn expect(&mut self, before: Option<Vec<u8>>) {
        if let (Some(bytes), Some(model)) = (before, &mut self.model) {
            assert_eq!(bytes.len(), model.len(), "opened to be written: the size");
            model.read(0, &bytes, "opened to be written");
        }
    }

    fn image(&self) -> &Image {
        self.image
            .as_ref()
            .expect("an image is open between the operations")
    }

    fn open_chain(&mut self) -> Result<Image, Error> {
        let mut origin = OriginChoice::Storage(self.layers[0].shared());
        let mut options = self.options;
        let top = self.layers.len() - 1;
        for (index, layer) in self.layers.iter().enumerate().skip(1) {
            // Until the image is open nothing is known that bounds it.
            layer.allow(layer.size().saturating_add(16 << 20));
            let image = Image::open_storage(layer.shared(), &options.build(true, origin))?;
            if index == top {
                return Ok(image);
            }
            origin = OriginChoice::Image(Arc::new(image));
            options = Options {
                bare_sectors: None,
                ignore_damage: false,
                ..options
            };
        }
        unreachable!("a session has a layer")
    }

    /// Lets the image change what it may: the top layer, and what lies below during a merge.
    fn restrict(&self) {
        let top = self.layers.len() - 1;
        for layer in &self.layers[..top] {
            layer.forbid();
        }
        self.allow(top, self.image().size());
        if self.merge_failed {
            self.allow_origin();
        }
    }

    fn allow_origin(&self) {
        let below = self.layers.len() - 2;
        let disk = self.image().size().max(self.layers[below].size());
        self.allow(below, disk);
    }

    fn allow(&self, index: usize, disk: u64) {
        let layer = &self.layers[index];
        if index == 0 {
            return layer.allow(disk);
        }
        let chunk = self.image().chunk_size().bytes().max(self.initial_chunk());
        let own = self.initial[index].div_ceil(512).saturating_mul(512);
        // Every chunk of the disk, their areas, and what is reserved ahead: a slab, and areas.
        let data = disk
            .saturating_add(disk / 32)
            .saturating_add(chunk.saturating_mul(4));
        let ahead = (8 << 20) + chunk.saturating_mul(20);
        layer.allow(
            own.saturating_add(data.saturating_mul(2))
                .saturating_add(ahead),
        );
    }

    /// The largest chunk that a layer below may have.
    fn initial_chunk(&self) -> u64 {
        1 << 16
    }

    pub fn run(&mut self, ops: &[Op]) {
        for op in ops {
            if !self.apply(*op) {
                return;
            }
        }
        self.verify("at the end");
        self.close_and_open();
    }

    pub fn verify(&mut self, what: &str) {
        let size = self.image().size();
        if self.model.is_none() || size > 4 * MODEL_BYTES {
            return;
        }
        let mut bytes = vec![0xee; size as usize];
        let worked = self.worked(what, self.image().read(&mut bytes, 0));
        if let (true, Some(model)) = (worked, &mut self.model) {
            assert_eq!(model.len() as u64, size, "{what}: the size");
            model.read(0, &bytes, what);
        }
    }

    fn close_and_open(&mut self) -> bool {
        let untroubled = !self.trouble;
        if let Some(image) = self.image.take() {
            let closed = image.close();
            if self.worked("close", closed) && !self.latched {
                self.flushed();
            }
        }
        self.disarm();
        for layer in &self.layers[1..] {
            layer.forbid();
            let outcome = check_storage(&layer.shared(), &CheckOptions::new())
                .expect("a store can be checked");
            let findings = &outcome.report.findings;
            let clean = outcome.remaining_corruptions == 0;
            assert!(
                clean || self.may_be_corrupt(),
                "a layer that was open: {findings:?}"
            );
            if self.sound && untroubled {
                assert_eq!(
                    outcome.remaining_repairable, 0,
                    "a layer that was closed: {findings:?}"
                );
            }
        }
        self.reopen()
    }

    /// A damaged descriptor stays one, and a store in mode P may have been given up.
    fn may_be_corrupt(&self) -> bool {
        self.damaged || self.options.overflow() == OverflowMode::Persistent
    }

    fn repair(&mut self, all: bool) -> bool {
        self.flush();
        self.image = None;
        self.disarm();
        self.unlimit();
        let top = self.layers.last().expect("a layer");
        top.allow(top.size().saturating_add(16 << 20));
        let repair = if all { Repair::All } else { Repair::Leaks };
        let options = CheckOptions::new().repair(repair);
        let outcome = check_storage(&top.shared(), &options).expect("a store can be repaired");
        let clean = outcome.remaining_corruptions == 0;
        let findings = &outcome.report.findings;
        assert!(clean || self.may_be_corrupt(), "{findings:?}");
        if all && clean {
            assert_eq!(
                outcome.remaining_repairable, 0,
                "{:?}",
                outcome.report.findings
            );
        }
        self.reopen()
    }

    fn reopen(&mut self) -> bool {
        self.image = None;
        self.disarm();
        self.unlimit();
        match self.open_chain() {
            Ok(image) => self.image = Some(image),
            Err(error) => {
                let given_up = self.options.overflow() == OverflowMode::Persistent
                    && error.kind() == ErrorKind::SnapshotInvalid;
                assert!(given_up, "what was open cannot be opened: {error}");
                return false;
            }
        }
        self.trouble = false;
        self.latched = false;
        self.merge_failed = false;
        let size = self.image().size();
        if let Some(model) = &mut self.model {
            if size != model.len() as u64 {
                assert_eq!(
                    Some(size),
                    self.asked,
                    "the size of {} bytes has changed",
                    model.len()
                );
                let before = model.len();
                model.doubt_size(size as usize, before);
            }
            model.reopened();
        }
        self.asked = None;
        self.restrict();
        self.verify("opened again");
        true
    }
}
