//! Opening an image and the chain below it.

use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use std::path::{Path, PathBuf};

use super::handle::Inner;
use super::layer::Layer;
use super::names;
use super::node::{Node, Origin};
use super::run;
use super::tracked::Tracked;
use super::{Format, Image, OpenOptions, OriginChoice};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, Uuid};
use crate::storage::{FileOptions, Hold, LockMode, SharedStorage, Storage};
use crate::store::{LoadOptions, Loader, State, Store};
use crate::units::SECTOR_SIZE;

/// Layers that a chain may have.
pub(super) const MAX_DEPTH: usize = 64;

impl Image {
    /// Opens the layer at `path` and what lies below it.
    ///
    /// # Errors
    /// [`ErrorKind::OriginRefused`] if an origin is needed and the options name none; [`ErrorKind::OriginMismatch`] if one is not what the
    /// image was made over; [`ErrorKind::Busy`] if somebody else holds a file; [`ErrorKind::ChainTooDeep`] for more than 64 layers and for a
    /// chain that contains itself; [`ErrorKind::SnapshotInvalid`] for a store that was invalidated;
    /// [`ErrorKind::InvalidFormat`], [`ErrorKind::Unsupported`] or [`ErrorKind::Corrupt`] for what cannot be read; or what a file reports.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Image> {
        let path = path.as_ref();
        let storage = open_file(path, options.writable, options.direct)?;
        open_image(storage, Some(path.to_path_buf()), options)
    }

    /// Opens the layer in `storage`. A relative origin name starts at the current directory.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_storage(storage: SharedStorage, options: &OpenOptions) -> Result<Image> {
        open_image(storage, None, options)
    }
}

fn open_image(
    storage: SharedStorage,
    path: Option<PathBuf>,
    options: &OpenOptions,
) -> Result<Image> {
    let mut opener = Opener::new(options);
    let mode = opener.top_mode();
    let opened = opener
        .open_layer(storage, path, mode, &options.origin)
        .and_then(|(top, hold)| {
            let damaged = !top.store()?.descriptor_damage().is_empty();
            let leave = options.ignore_descriptor_damage && damaged;
            if options.writable && top.store()?.wants_repair() && !leave {
                top.run_job(|store| store.prepare_repair())?;
            }
            Ok((top, hold))
        });
    let top = opened.inspect_err(|_| opener.give_back())?;
    let warnings = opener.warnings;
    Ok(Image::new(
        top,
        options.writable,
        options.direct,
        options.overflow,
        warnings,
    ))
}

/// Opens a file without a lock; that is taken once it is known that the chain does not contain it already.
pub(super) fn open_file(path: &Path, writable: bool, direct: bool) -> Result<SharedStorage> {
    let options = FileOptions::new()
        .writable(writable)
        .direct(direct)
        .lock(LockMode::None);
    Ok(Arc::new(options.open(path)?))
}

/// Reads a store from its file.
pub(super) fn load_store(storage: &SharedStorage, options: LoadOptions) -> Result<Store> {
    load_with(storage, Loader::new(options))
}

fn load_with(storage: &SharedStorage, loader: Result<Loader>) -> Result<Store> {
    let load = || {
        let mut loader = loader?;
        let tracked = Tracked::new(Arc::clone(storage));
        while let Some(mut plan) = loader.next_plan()? {
            for range in loader.read_ahead() {
                storage.prefetch(range);
            }
            run::run(&mut plan, &tracked, &Node::Zeros)?;
            loader.finish_plan(plan)?;
        }
        loader.finish()
    };
    load().map_err(|error| error.with_path(storage.name()))
}

/// What is known on the way down a chain.
pub(super) struct Opener<'a> {
    options: &'a OpenOptions,
    /// Files that are open already.
    files: Vec<(u64, u64)>,
    layers: usize,
    warnings: Vec<String>,
    /// An image that was writable until it was taken as origin.
    frozen: Option<Arc<Inner>>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(options: &'a OpenOptions) -> Opener<'a> {
        Opener {
            options,
            files: Vec::new(),
            layers: 0,
            warnings: Vec::new(),
            frozen: None,
        }
    }

    /// Lets an image that was handed in go on writing.
    fn give_back(&mut self) {
        if let Some(inner) = self.frozen.take()
            && inner.top_hold().change(LockMode::Writer).is_ok()
        {
            inner.writable.store(true, Ordering::Release);
        }
    }

    fn top_mode(&self) -> LockMode {
        match self.options.writable {
            true => LockMode::Writer,
            false => LockMode::reader_if(self.options.lock),
        }
    }

    fn origin_mode(&self) -> LockMode {
        LockMode::reader_if(self.options.writable || self.options.lock)
    }

    /// Notes a file of the chain and claims it.
    fn enter(&mut self, storage: &SharedStorage, mode: LockMode) -> Result<Hold> {
        self.note(&**storage)?;
        Hold::take(storage, mode)
    }

    /// Notes a file of the chain, unless it is in it already.
    fn note(&mut self, storage: &dyn Storage) -> Result<()> {
        let Some(id) = storage.file_id() else {
            return Ok(());
        };
        if self.files.contains(&id) {
            let message = "this file is in it twice, once below itself";
            let error = Error::new(ErrorKind::ChainTooDeep, message);
            return Err(error.with_path(storage.name()));
        }
        self.files.push(id);
        Ok(())
    }

    fn open_layer(
        &mut self,
        storage: SharedStorage,
        path: Option<PathBuf>,
        mode: LockMode,
        choice: &OriginChoice,
    ) -> Result<(Arc<Layer>, Hold)> {
        self.count_layer(storage.name())?;
        let hold = self.enter(&storage, mode)?;
        let named = |error: Error| error.with_path(storage.name());
        let is_top = self.layers == 1;
        let bare_size = self.options.bare_size.filter(|_| is_top);
        // Its size decides where a bare store ends, so an origin that the caller names is opened first.
        let given = self.open_given(choice)?;
        let origin_size = match given.as_ref().map(|origin| &origin.node) {
            _ if bare_size.is_some() => bare_size,
            Some(Node::Zeros) | None => None,
            // As on a loop device, an odd end does not count.
            Some(node) => Some(node.end() / SECTOR_SIZE * SECTOR_SIZE),
        };
        let load_options = LoadOptions {
            cow_size: storage.size()?,
            growable: storage.is_growable(),
            // A merge writes to the origin, too.
            writable: self.options.writable,
            origin_size,
            overflow: self.options.overflow,
        };
        let loader = if self.options.ignore_descriptor_damage && is_top {
            Loader::without_descriptor(load_options)
        } else {
            Loader::new(load_options)
        };
        let store = load_with(&storage, loader)?;
        if store.state() == State::Invalid {
            return Err(named(store.invalid_error()));
        }
        let descriptor = store.descriptor().cloned();
        let origin = match given {
            Some(node) => node,
            None => self
                .open_stored(descriptor.as_ref(), path.as_deref(), choice)
                .map_err(named)?,
        };
        let other_size = match &descriptor {
            Some(descriptor) => self.compare(descriptor, &origin.node, storage.name())?,
            None => None,
        };
        self.warn_of_damage(&store, storage.name());
        if let Err(error) = store.check_bare_end(store.virtual_size()) {
            self.warnings
                .push(error.with_path(storage.name()).to_string());
        }
        let layer = Layer::new(store, &hold, path, origin)
            .with_overflow(self.options.overflow)
            .with_doubtful_origin(other_size);
        Ok((Arc::new(layer), hold))
    }

    fn warn_of_damage(&mut self, store: &Store, name: &str) {
        for damage in store.descriptor_damage() {
            let past = if store.wants_repair() && store.descriptor().is_some() {
                ", and exceptions past the end may be data: the disk may have been larger"
            } else {
                ""
            };
            self.warnings.push(format!("{name}: {damage}{past}"));
        }
    }

    fn count_layer(&mut self, name: &str) -> Result<()> {
        self.layers += 1;
        if self.layers > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} layers");
            return Err(Error::new(ErrorKind::ChainTooDeep, message).with_path(name));
        }
        Ok(())
    }

    /// The origin, if the caller decides about it.
    fn open_given(&mut self, choice: &OriginChoice) -> Result<Option<Origin>> {
        match choice {
            OriginChoice::Refuse | OriginChoice::FromImage | OriginChoice::FromImageInside => {
                Ok(None)
            }
            OriginChoice::Zeros => Ok(Some(Origin::ZEROS)),
            OriginChoice::Path {
                path,
                format,
                below,
            } => self.open_path(path, *format, below).map(Some),
            OriginChoice::Storage(storage) => self.open_raw(storage.clone(), None).map(Some),
            OriginChoice::Image(image) => self.adopt(image).map(Some),
        }
    }

    /// The origin that the image names.
    fn open_stored(
        &mut self,
        descriptor: Option<&Descriptor>,
        path: Option<&Path>,
        choice: &OriginChoice,
    ) -> Result<Origin> {
        let Some(descriptor) = descriptor else {
            return Err(bare());
        };
        match (&descriptor.origin_name, choice) {
            (None, _) => return Ok(Origin::ZEROS),
            (Some(_), OriginChoice::FromImage) => {}
            (Some(name), OriginChoice::FromImageInside) if names::stays_inside(name) => {}
            (Some(name), _) => return Err(refused(name)),
        }
        let Some((origin, format)) = names::stored_origin(descriptor, path)? else {
            return Ok(Origin::ZEROS);
        };
        let storage = open_file(&origin, false, self.options.direct).map_err(|error| {
            let name = descriptor.origin_name.as_deref().unwrap_or_default();
            missing(error, name, path)
        })?;
        self.open_origin(storage, origin, format, choice)
    }

    fn open_path(&mut self, path: &Path, format: Format, below: &OriginChoice) -> Result<Origin> {
        let storage = open_file(path, false, self.options.direct)?;
        self.open_origin(storage, path.to_path_buf(), format, below)
    }

    fn open_origin(
        &mut self,
        storage: SharedStorage,
        path: PathBuf,
        format: Format,
        below: &OriginChoice,
    ) -> Result<Origin> {
        let path = Some(path);
        match format {
            Format::Raw => self.open_raw(storage, path),
            Format::Dmsnap => {
                let mode = self.origin_mode();
                let (layer, hold) = self.open_layer(storage, path, mode, below)?;
                Ok(Origin::layer(layer, hold))
            }
        }
    }

    fn open_raw(&mut self, storage: SharedStorage, path: Option<PathBuf>) -> Result<Origin> {
        Origin::raw(self.enter(&storage, self.origin_mode())?, path)
    }

    /// Takes an open image as origin: it is frozen as a snapshot freezes.
    fn adopt(&mut self, image: &Image) -> Result<Origin> {
        let inner = &image.inner;
        let _job = inner.begin_job()?;
        if inner.writable.load(Ordering::Acquire) {
            inner.tops.top().leave_written_origin(inner)?;
        }
        let _closed = inner.gate.close();
        let mut layer = Arc::clone(inner.tops.top());
        let own = inner.top_hold();
        let mut mode = self.origin_mode();
        if inner.writable.load(Ordering::Acquire) {
            layer.flush()?;
            // Reads through the layer that is merged into, if it comes to that, so it sees what is written.
            own.accompany()?;
            inner.writable.store(false, Ordering::Release);
            self.frozen = Some(Arc::clone(inner));
            mode = LockMode::Reader;
        }
        let hold = Hold::take(own.storage(), mode)?;
        let top = Origin::layer(Arc::clone(&layer), hold);
        loop {
            self.count_layer(layer.cow.name())?;
            self.note(&layer.cow)?;
            match &layer.origin {
                Node::Layer(below) => layer = Arc::clone(below),
                Node::Raw(raw) => {
                    self.note(&raw.storage)?;
                    return Ok(top);
                }
                Node::Zeros => return Ok(top),
            }
        }
    }

    /// Compares an origin with what the descriptor says about it. A size that is not the recorded one is returned, for a merge to refuse.
    fn compare(
        &mut self,
        descriptor: &Descriptor,
        origin: &Node,
        name: &str,
    ) -> Result<Option<u64>> {
        let found = origin_uuid(origin);
        if let Some(expected) = descriptor.origin_uuid
            && found != Some(expected)
            && !self.options.ignore_origin_uuid
            && !matches!(origin, Node::Zeros)
        {
            let found = found.map_or_else(|| "none".to_owned(), |uuid| uuid.to_string());
            let message = format!(
                "the origin {} has the UUID {found}, the image was made over {expected}",
                origin.name()
            );
            return Err(Error::new(ErrorKind::OriginMismatch, message).with_path(name));
        }
        let Node::Raw(raw) = origin else {
            return Ok(None);
        };
        let (size, recorded) = (raw.size(), descriptor.origin_size);
        if recorded == 0 || size == recorded {
            return Ok(None);
        }
        self.warnings.push(format!(
            "{name}: the origin {} has {size} bytes, it had {recorded} when the layer was made",
            origin.name()
        ));
        // A merge that was stopped may have made it as long as the layer.
        let is_grown = (recorded..=descriptor.virtual_size).contains(&size);
        Ok((!is_grown && !self.options.ignore_origin_uuid).then_some(recorded))
    }
}

/// An origin that the layer at `path` names and that is not there is told as the layer's problem.
fn missing(error: Error, name: &str, path: Option<&Path>) -> Error {
    match path {
        Some(path) if error.kind() == ErrorKind::NotFound => {
            let message = format!("names the origin \"{name}\", which does not exist");
            error.seen_from(path.display().to_string(), message)
        }
        _ => error,
    }
}

fn origin_uuid(origin: &Node) -> Option<Uuid> {
    match origin {
        Node::Layer(layer) => layer.facts().descriptor().map(|descriptor| descriptor.uuid),
        _ => None,
    }
}

fn bare() -> Error {
    let message = "a bare store: it does not record its origin, so the origin has to be named";
    Error::new(ErrorKind::OriginRefused, message)
}

fn refused(name: &str) -> Error {
    let message = format!(
        "the image names \"{name}\" as its origin, and opening files that images name was not allowed"
    );
    Error::new(ErrorKind::OriginRefused, message)
}
