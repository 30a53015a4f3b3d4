//! Durability.

use super::Image;
use crate::error::Result;

impl Image {
    /// Returns once everything that was written before the call is durable.
    pub fn flush(&self) -> Result<()> {
        unimplemented!()
    }
}
