//! Changing the size of the disk.

use super::Image;
use super::layer::Layer;
use crate::error::{Error, ErrorKind, Result};
use crate::units::check_disk_size;

impl Image {
    /// Makes the disk `size` bytes long, a multiple of 512. What is new reads as zeros. Shorter only if `shrink_allowed`: what lay past
    /// the new end is lost. Durable when it returns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a size that no disk has, for shrinking that was not allowed, and for a bare store, whose size is not
    /// its own; [`ErrorKind::Busy`] while a merge or the like is under way; else as [`Image::flush`].
    pub fn resize(&self, size: u64, shrink_allowed: bool) -> Result<()> {
        let _job = self.inner.begin_change()?;
        let _closed = self.inner.gate.close();
        let top = self.top();
        let old = top.virtual_size();
        if size < old && !shrink_allowed {
            let message = format!(
                "{size} bytes are less than the present {old}, and shrinking was not allowed"
            );
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(top.named(error));
        }
        top.resize(size)
    }
}

impl Layer {
    /// Changes the size. Nobody writes meanwhile.
    pub(crate) fn resize(&self, size: u64) -> Result<()> {
        check_disk_size(size).map_err(|error| self.named(error))?;
        self.flush()?;
        if size == self.virtual_size() {
            return Ok(());
        }
        let origin_size = self.origin.end();
        self.run_job(|store| store.prepare_resize(size, origin_size))
    }
}
