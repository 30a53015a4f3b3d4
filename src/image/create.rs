//! Creating an image.

use std::path::Path;

use super::{CreateOptions, Image};
use crate::error::Result;
use crate::storage::SharedStorage;

impl Image {
    /// Creates a layer at `path`, which must not exist unless the options allow it. Durable when it returns; after a failure nothing is
    /// left at `path`.
    pub fn create(path: impl AsRef<Path>, options: &CreateOptions) -> Result<()> {
        let _ = (path.as_ref(), options);
        unimplemented!()
    }

    /// Creates a layer in `storage`, whose content is lost. Opens nothing else: an origin's size and UUID come from
    /// [`CreateOptions::origin_identity`].
    pub fn create_on(storage: &SharedStorage, options: &CreateOptions) -> Result<()> {
        let _ = (storage, options);
        unimplemented!()
    }
}
