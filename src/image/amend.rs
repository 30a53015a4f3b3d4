//! Changing the descriptor.

use super::{Format, Image};
use crate::error::Result;

/// What to change about an image's descriptor. What is not named stays.
///
/// None of this changes what the open handle shows: the stored names count at the next open.
#[derive(Clone, Debug, Default)]
pub struct Amend {
    pub(super) origin: Option<Option<(String, Format)>>,
    pub(super) add_descriptor: Option<u64>,
    pub(super) remove_descriptor: bool,
}

impl Amend {
    /// Changes nothing.
    pub fn new() -> Amend {
        Amend::default()
    }

    /// Records another origin. A relative name starts at the layer's directory, and the file must exist: its size and UUID are
    /// recorded. The content below is not looked at; it must be the same, or the image changes.
    #[must_use]
    pub fn origin(mut self, name: impl Into<String>, format: Format) -> Amend {
        self.origin = Some(Some((name.into(), format)));
        self
    }

    /// Records that there is no origin: unmapped chunks will read as zeros.
    #[must_use]
    pub fn no_origin(mut self) -> Amend {
        self.origin = Some(None);
        self
    }

    /// Gives a bare store a descriptor, with this size of the disk in bytes. Needs chunks of at least 4096 bytes.
    #[must_use]
    pub fn add_descriptor(mut self, size: u64) -> Amend {
        self.add_descriptor = Some(size);
        self
    }

    /// Makes it a bare store: size and origin are forgotten.
    #[must_use]
    pub fn remove_descriptor(mut self) -> Amend {
        self.remove_descriptor = true;
        self
    }
}

impl Image {
    /// Changes the descriptor. Durable when it returns.
    pub fn amend(&self, amend: &Amend) -> Result<()> {
        let _ = amend;
        unimplemented!()
    }
}
