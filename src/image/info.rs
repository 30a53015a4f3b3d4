//! What an image is, for people and programs to look at.

use std::path::{Path, PathBuf};

use super::{Format, Image};
use crate::error::Result;
use crate::format::{Descriptor, Uuid};
use crate::storage::SharedStorage;
use crate::store::{State, Status, Usage};
use crate::units::ChunkSize;

/// Facts about a layer.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    /// Size of the disk in bytes. A bare store without a known origin: up to the end of its last exception.
    pub virtual_size: u64,
    /// Size of a chunk.
    pub chunk_size: ChunkSize,
    /// The descriptor; a bare store has none.
    pub descriptor: Option<Descriptor>,
    /// Number of exceptions.
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
    pub fn info(&self) -> Result<ImageInfo> {
        unimplemented!()
    }
}

/// Facts about the layer at `path`: takes no lock and opens no other file.
pub fn inspect(path: impl AsRef<Path>) -> Result<ImageInfo> {
    let _ = path.as_ref();
    unimplemented!()
}

/// Facts about the layer in `storage`.
pub fn inspect_storage(storage: &SharedStorage) -> Result<ImageInfo> {
    let _ = storage;
    unimplemented!()
}
