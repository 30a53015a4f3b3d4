//! Closing.

use super::Image;
use crate::error::Result;

impl Image {
    /// Flushes, gives back what space was reserved ahead, and closes. The handle is gone either way.
    pub fn close(self) -> Result<()> {
        unimplemented!()
    }
}
