//! What an image is, for people and programs to look at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::node::{Node, RawOrigin};
use super::open::{load_store, open_file};
use super::{Format, Image};
use crate::error::Result;
use crate::format::{Descriptor, Header, SlotDamage, Uuid};
use crate::storage::{SharedStorage, Storage};
use crate::store::{LoadOptions, State, Status, Store, Usage};
use crate::units::ChunkSize;

/// Facts about a layer.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    /// Size of the disk in bytes. A bare store without a known origin: up to the end of its last exception.
    pub virtual_size: u64,
    /// Size of a chunk.
    pub chunk_size: ChunkSize,
    /// The header.
    pub header: Header,
    /// The descriptor; a bare store has none.
    pub descriptor: Option<Descriptor>,
    /// Slots of the descriptor that were written and are no good any more: the other one may be older than the last change.
    pub descriptor_damage: Vec<SlotDamage>,
    /// Number of exceptions. Those of an invalidated store are not read.
    pub exceptions: u64,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// Bytes that the file occupies, where known.
    pub allocated_bytes: Option<u64>,
    /// State of the store.
    pub state: State,
    /// The kernel's status line.
    pub status: Status,
    /// The kernel's figures.
    pub usage: Usage,
    /// The layers, top first, as far as they are open: [`inspect`] gives the top alone.
    pub chain: Vec<LayerInfo>,
}

impl ImageInfo {
    /// Whether the store has no descriptor.
    pub fn is_bare(&self) -> bool {
        self.descriptor.is_none()
    }
}

/// Facts about one file of a chain.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// The file; `None` for a storage that the host supplied.
    pub path: Option<PathBuf>,
    /// What errors call it.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// Size in bytes of the disk that it shows.
    pub virtual_size: u64,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// Name of its origin as stored.
    pub origin_name: Option<String>,
}

impl Image {
    /// Facts about the image and its chain.
    ///
    /// # Errors
    /// What asking the files for their sizes gives.
    pub fn info(&self) -> Result<ImageInfo> {
        let top = self.top();
        // Asked before the store is locked: a storage may be a host's.
        let sizes = FileSizes::of(&top.cow, top.path.as_deref())?;
        let mut info = facts(&top.facts(), sizes, &top.cow, top.path.as_deref());
        let mut node = &top.origin;
        loop {
            match node {
                Node::Zeros => return Ok(info),
                Node::Raw(raw) => {
                    info.chain.push(raw_layer(raw));
                    return Ok(info);
                }
                Node::Layer(layer) => {
                    let store = layer.facts();
                    info.chain
                        .push(layer_info(&store, &layer.cow, layer.path.as_deref()));
                    node = &layer.origin;
                }
            }
        }
    }
}

/// Facts about the layer at `path`: takes no lock and opens no other file. An invalidated store is no error here.
///
/// # Errors
/// [`ErrorKind::InvalidFormat`](crate::ErrorKind::InvalidFormat), [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) or
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for what cannot be read, or what the file reports.
pub fn inspect(path: impl AsRef<Path>) -> Result<ImageInfo> {
    let path = path.as_ref();
    inspect_file(&open_file(path, false, false)?, Some(path))
}

/// Facts about the layer in `storage`. Leaves its lock alone.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_storage(storage: &SharedStorage) -> Result<ImageInfo> {
    inspect_file(storage, None)
}

fn inspect_file(storage: &SharedStorage, path: Option<&Path>) -> Result<ImageInfo> {
    let options = LoadOptions {
        cow_size: storage.size()?,
        growable: storage.is_growable(),
        ..LoadOptions::default()
    };
    let store = load_store(storage, options)?;
    let sizes = FileSizes::of(&**storage, path)?;
    Ok(facts(&store, sizes, &**storage, path))
}

/// What the file itself tells.
struct FileSizes {
    size: u64,
    allocated: Option<u64>,
}

impl FileSizes {
    fn of(storage: &dyn Storage, path: Option<&Path>) -> Result<FileSizes> {
        Ok(FileSizes {
            size: storage.size()?,
            allocated: path.and_then(allocated_bytes),
        })
    }
}

fn facts(store: &Store, sizes: FileSizes, storage: &dyn Storage, path: Option<&Path>) -> ImageInfo {
    ImageInfo {
        virtual_size: store.virtual_size(),
        chunk_size: store.chunk_size(),
        header: store.header(),
        descriptor: store.descriptor().cloned(),
        descriptor_damage: store.descriptor_damage().to_vec(),
        exceptions: store.exceptions(),
        file_size: sizes.size,
        allocated_bytes: sizes.allocated,
        state: store.state(),
        status: store.status(),
        usage: store.usage(),
        chain: vec![layer_info(store, storage, path)],
    }
}

fn layer_info(store: &Store, storage: &dyn Storage, path: Option<&Path>) -> LayerInfo {
    let descriptor = store.descriptor();
    LayerInfo {
        path: path.map(Path::to_path_buf),
        name: storage.name().to_owned(),
        format: Format::Dmsnap,
        virtual_size: store.virtual_size(),
        uuid: descriptor.map(|descriptor| descriptor.uuid),
        origin_name: descriptor.and_then(|descriptor| descriptor.origin_name.clone()),
    }
}

fn raw_layer(raw: &RawOrigin) -> LayerInfo {
    LayerInfo {
        path: raw.path.clone(),
        name: raw.storage.name().to_owned(),
        format: Format::Raw,
        virtual_size: raw.size(),
        uuid: None,
        origin_name: None,
    }
}

/// What `du` says. Files count in units of 512 bytes.
fn allocated_bytes(path: &Path) -> Option<u64> {
    fs::metadata(path)
        .ok()
        .map(|metadata| metadata.blocks() * 512)
}
