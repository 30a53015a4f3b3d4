//! Closing, and the jobs that end a store's content.

use crate::sync::atomic::Ordering;

use super::Image;
use super::handle::Inner;
use crate::error::Result;

impl Image {
    /// Flushes, gives back what space was reserved ahead, and closes. The handle is gone either way.
    ///
    /// # Errors
    /// As [`Image::flush`]. [`ErrorKind::Busy`](crate::ErrorKind::Busy) while a merge is under way.
    pub fn close(self) -> Result<()> {
        let _job = self.inner.begin_job()?;
        self.inner.finish()
    }

    /// Forgets every exception: the image reads as its origin again. Durable when it returns.
    ///
    /// # Errors
    /// As [`Image::flush`]. After [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) it may have reached the disk: it is finished by whatever
    /// comes next of a write, a flush and another such call. [`ErrorKind::Busy`](crate::ErrorKind::Busy) while a merge or the like is under way.
    pub fn make_empty(&self) -> Result<()> {
        let _job = self.inner.begin_change()?;
        let _closed = self.inner.gate.close();
        let top = self.top();
        top.flush()?;
        top.run_job(|store| store.make_empty())
    }

    /// Invalidates the store for ever, as the kernel does on overflow. Durable when it returns.
    ///
    /// # Errors
    /// As [`Image::flush`]. [`ErrorKind::Busy`](crate::ErrorKind::Busy) while a merge or the like is under way.
    pub fn drop_snapshot(&self) -> Result<()> {
        let _job = self.inner.begin_writing_job()?;
        let _closed = self.inner.gate.close();
        self.top().run_job(|store| store.drop_snapshot())
    }
}

impl Inner {
    /// Makes the image durable and its file as short as it can be. Does so once.
    fn finish(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || !self.writable.load(Ordering::Acquire) {
            return Ok(());
        }
        let top = self.tops.top();
        top.flush()?;
        top.trim();
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell.
        let _ = self.finish();
    }
}
