//! Putting a new layer on top of an open image.

use std::path::Path;

use super::Image;
use crate::error::Result;
use crate::storage::SharedStorage;
use crate::units::ChunkSize;

impl Image {
    /// Creates a layer at `new_path` with this image as its origin, and goes on in it: what is written from now on goes there, and the
    /// layer that was on top so far is frozen, flushed and locked as an origin. The chunk size defaults to the current one. A failure
    /// leaves everything as it was.
    pub fn snapshot(
        &self,
        new_path: impl AsRef<Path>,
        chunk_size: Option<ChunkSize>,
    ) -> Result<()> {
        let _ = (new_path.as_ref(), chunk_size);
        unimplemented!()
    }

    /// The same in a storage that the host supplies; its content is lost. `origin_name` is what the new layer records as the name of
    /// the present top layer, if anything.
    pub fn snapshot_to(
        &self,
        storage: SharedStorage,
        origin_name: Option<&str>,
        chunk_size: Option<ChunkSize>,
    ) -> Result<()> {
        let _ = (storage, origin_name, chunk_size);
        unimplemented!()
    }
}
