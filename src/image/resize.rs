//! Changing the size of the disk.

use super::Image;
use crate::error::Result;

impl Image {
    /// Makes the disk `size` bytes long, a multiple of 512. What is new reads as zeros. Shorter only if `shrink_allowed`: what lay past
    /// the new end is lost. Durable when it returns.
    pub fn resize(&self, size: u64, shrink_allowed: bool) -> Result<()> {
        let _ = (size, shrink_allowed);
        unimplemented!()
    }
}
