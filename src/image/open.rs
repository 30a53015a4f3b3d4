//! Opening an image and the chain below it.

use std::path::Path;

use super::{Image, OpenOptions};
use crate::error::Result;
use crate::storage::SharedStorage;

impl Image {
    /// Opens the layer at `path` and what lies below it.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Image> {
        let _ = (path.as_ref(), options);
        unimplemented!()
    }

    /// Opens the layer in `storage`. A relative origin name starts at the current directory.
    pub fn open_storage(storage: SharedStorage, options: &OpenOptions) -> Result<Image> {
        let _ = (storage, options);
        unimplemented!()
    }
}
