//! Where converted bytes go.

use std::path::Path;

use dmsnap::storage::{FileStorage, Storage};
use dmsnap::{ByteRange, Image, OpenOptions, OriginChoice};

use crate::failure::{About, Result};

/// The new image, which has its size already.
pub(super) trait Writer: Sync {
    /// Bytes that are stored or left out together, a power of two.
    fn unit(&self) -> u64;

    /// Makes `buf` the content from `offset`.
    fn write(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Makes the range read as zeros.
    fn zero(&self, range: ByteRange) -> Result<()>;

    /// Leaves the range as a new image has it, which is zeros.
    fn skip(&self, range: ByteRange) -> Result<()>;
}

/// Smallest hole worth making: file systems allocate by it.
const BLOCK: u64 = 4096;

/// A raw file, or a device.
pub(super) struct RawWriter {
    storage: FileStorage,
    /// A new file reads as zeros; a device holds what was on it.
    is_new: bool,
}

impl RawWriter {
    pub(super) fn new(storage: FileStorage, is_new: bool) -> RawWriter {
        RawWriter { storage, is_new }
    }

    /// Makes it durable.
    pub(super) fn finish(self) -> Result<()> {
        Ok(self.storage.flush()?)
    }
}

impl Writer for RawWriter {
    fn unit(&self) -> u64 {
        BLOCK
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        Ok(self.storage.write_at(buf, offset)?)
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        Ok(self.storage.write_zeroes(range, true)?)
    }

    fn skip(&self, range: ByteRange) -> Result<()> {
        if self.is_new {
            Ok(())
        } else {
            self.zero(range)
        }
    }
}

/// A layer that has just been created.
pub(super) struct LayerWriter {
    image: Image,
}

impl LayerWriter {
    /// Opens it. A bare one does not say how long its disk is.
    pub(super) fn open(
        path: &Path,
        origin: OriginChoice,
        bare_size: Option<u64>,
    ) -> Result<LayerWriter> {
        let mut options = OpenOptions::new().writable(true).origin(origin);
        if let Some(size) = bare_size {
            options = options.bare_size(size);
        }
        let image = Image::open(path, &options).about(path)?;
        Ok(LayerWriter { image })
    }

    /// Makes it durable.
    pub(super) fn finish(self) -> Result<()> {
        Ok(self.image.close()?)
    }
}

impl Writer for LayerWriter {
    fn unit(&self) -> u64 {
        self.image.chunk_size().bytes()
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        Ok(self.image.write(buf, offset)?)
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        Ok(self.image.write_zeroes(range, true)?)
    }

    fn skip(&self, _range: ByteRange) -> Result<()> {
        Ok(())
    }
}
