//! Writes.

use std::io::IoSlice;

use super::Image;
use crate::error::Result;

impl Image {
    /// Makes `bufs` the content from `offset`.
    pub fn write_vectored(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let _ = (bufs, offset);
        unimplemented!()
    }
}
