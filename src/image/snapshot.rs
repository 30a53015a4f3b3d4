//! Putting a new layer on top of an open image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::create::{create_file, format_storage, random_uuid};
use super::layer::Layer;
use super::node::{Node, Origin};
use super::open::{MAX_DEPTH, load_store};
use super::{Format, Image, names};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, IncompatibleFeatures};
use crate::storage::{Hold, LockMode, SharedStorage, Storage, remove_if};
use crate::store::{FormatOptions, LoadOptions, OverflowMode, Store};
use crate::units::ChunkSize;

impl Image {
    /// Creates a layer at `new_path` with this image as its origin, and goes on in it: what is written from now on goes there, and the
    /// layer that was on top so far is frozen, flushed and locked as an origin. The chunk size defaults to the current one. A failure
    /// leaves everything as it was.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if there is something at `new_path`; [`ErrorKind::InvalidArgument`] over a bare store, which could not be found again
    /// from the new layer; [`ErrorKind::ChainTooDeep`]; [`ErrorKind::Busy`] while a merge or the like is under way; else as [`Image::create`]
    /// and [`Image::flush`].
    pub fn snapshot(
        &self,
        new_path: impl AsRef<Path>,
        chunk_size: Option<ChunkSize>,
    ) -> Result<()> {
        let new_path = new_path.as_ref();
        let named = |error: Error| error.with_path(new_path.display().to_string());
        let name = self.name_from(new_path).map_err(named)?;
        let mut created = None;
        let result = self.put_on_top(Some(&name), chunk_size, |format| {
            let hold = create_file(new_path, format, self.inner.direct)?;
            created = hold.storage().file_id();
            Ok((hold, Some(new_path.to_path_buf())))
        });
        if result.is_err() {
            remove_if(new_path, created);
        }
        result
    }

    /// The same in a storage that the host supplies; its content is lost. `origin_name` is what the new layer records as the name of
    /// the present top layer, if anything.
    ///
    /// # Errors
    /// As [`Image::snapshot`]; [`ErrorKind::Busy`] also if something uses the storage, such as this image.
    pub fn snapshot_to(
        &self,
        storage: SharedStorage,
        origin_name: Option<&str>,
        chunk_size: Option<ChunkSize>,
    ) -> Result<()> {
        self.put_on_top(origin_name, chunk_size, |format| {
            let hold = Hold::take(&storage, LockMode::Writer)?;
            format_storage(&hold, format)?;
            Ok((hold, None))
        })
    }

    /// The name by which the present top is found from a new layer.
    fn name_from(&self, new_path: &Path) -> Result<String> {
        let top = self.top();
        if top.facts().descriptor().is_none() {
            let message = format!(
                "{} is a bare store: it records neither its size nor its origin, so a layer over it could not be \
                 opened again; add a descriptor to it first",
                top.cow.name()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let Some(path) = &top.path else {
            let message =
                "the image was opened without a path: take the snapshot to a storage, with a name";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        names::relative_name(path, new_path)
    }

    fn put_on_top(
        &self,
        origin_name: Option<&str>,
        chunk_size: Option<ChunkSize>,
        make: impl FnOnce(FormatOptions) -> Result<(Hold, Option<PathBuf>)>,
    ) -> Result<()> {
        let inner = &self.inner;
        let _job = inner.begin_change()?;
        check_depth(self.top())?;
        // Most of what has to be flushed is flushed while writes go on.
        self.top().flush()?;
        self.top().leave_written_origin(inner)?;
        let _closed = inner.gate.close();
        let old = self.top();
        old.flush()?;
        let format = new_format(old, origin_name, chunk_size)?;
        let (hold, path) = make(format)?;
        let store = load_new(hold.storage(), inner.overflow)?;
        old.trim();
        let mut top_hold = inner.top_hold();
        top_hold.change(LockMode::Reader)?;
        let pushed = Hold::take(top_hold.storage(), LockMode::Reader).and_then(|below| {
            let origin = Origin::layer(Arc::clone(old), below);
            let layer = Layer::new(store, &hold, path, origin).with_overflow(inner.overflow);
            inner.tops.push(Arc::new(layer))
        });
        match pushed {
            Ok(()) => *top_hold = hold,
            Err(_) => drop(top_hold.change(LockMode::Writer)),
        }
        pushed
    }
}

fn new_format(
    old: &Layer,
    origin_name: Option<&str>,
    chunk_size: Option<ChunkSize>,
) -> Result<FormatOptions> {
    let below = old.facts().descriptor().map(|descriptor| descriptor.uuid);
    let chunk_size = chunk_size.unwrap_or(match Descriptor::slot_offsets(old.chunk) {
        Some(_) => old.chunk,
        None => ChunkSize::DEFAULT,
    });
    if Descriptor::slot_offsets(chunk_size).is_none() {
        let message = format!(
            "chunks of {} bytes have no room for the new layer's size and origin",
            chunk_size.bytes()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let descriptor = Descriptor {
        generation: 1,
        incompatible: IncompatibleFeatures::empty(),
        compatible: 0,
        virtual_size: old.virtual_size(),
        uuid: random_uuid()?,
        origin_uuid: below,
        origin_size: old.virtual_size(),
        origin_name: origin_name.map(str::to_owned),
        origin_format: origin_name.map(|_| Format::Dmsnap.name().to_owned()),
    };
    descriptor.encode()?;
    Ok(FormatOptions {
        chunk_size,
        descriptor: Some(descriptor),
        fixed_size: false,
    })
}

fn load_new(storage: &SharedStorage, overflow: OverflowMode) -> Result<Store> {
    load_store(
        storage,
        LoadOptions {
            cow_size: storage.size()?,
            growable: storage.is_growable(),
            writable: true,
            origin_size: None,
            overflow,
        },
    )
}

fn check_depth(top: &Arc<Layer>) -> Result<()> {
    let mut layers = 1;
    let mut origin = &top.origin;
    while let Node::Layer(layer) = origin {
        layers += 1;
        origin = &layer.origin;
    }
    if layers < MAX_DEPTH {
        return Ok(());
    }
    let message = format!("the chain has {layers} layers already, which is the most there can be");
    Err(top.named(Error::new(ErrorKind::ChainTooDeep, message)))
}
