//! The handle and what can be read from it at once.

use std::io::{IoSlice, IoSliceMut};

use crate::error::Result;
use crate::format::{Descriptor, Header};
use crate::store::{Status, Usage};
use crate::units::{ByteRange, ChunkSize, CowChunk, OriginChunk};

/// An open image: a COW layer over its origins.
///
/// Every call takes `&self` and may come from any number of threads. Offsets and lengths are in bytes and need no alignment;
/// what reaches past [`Image::size`] is [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds).
///
/// A write is visible at once and durable after the next successful [`Image::flush`]. Dropping the handle tries to flush and cannot
/// report a failure; [`Image::close`] can.
#[derive(Debug)]
#[must_use = "an image that is dropped is closed"]
pub struct Image {}

impl Image {
    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Size of a chunk of the top layer.
    pub fn chunk_size(&self) -> ChunkSize {
        unimplemented!()
    }

    /// Whether it was opened for writing.
    pub fn is_writable(&self) -> bool {
        unimplemented!()
    }

    /// Header of the top layer.
    pub fn header(&self) -> Header {
        unimplemented!()
    }

    /// Descriptor of the top layer; a bare store has none.
    pub fn descriptor(&self) -> Option<Descriptor> {
        unimplemented!()
    }

    /// Exceptions of the top layer as runs: first origin chunk, first COW chunk, number of chunks, in ascending order of origin chunks.
    pub fn exceptions(&self) -> Vec<(OriginChunk, CowChunk, u64)> {
        unimplemented!()
    }

    /// The kernel's status line of the top layer.
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// The kernel's figures of the top layer, in sectors.
    pub fn usage(&self) -> Usage {
        unimplemented!()
    }

    /// Bytes of heap that the top layer's exception table takes.
    pub fn heap_bytes(&self) -> usize {
        unimplemented!()
    }

    /// What looked wrong while opening but did no harm, such as an origin whose size changed.
    pub fn warnings(&self) -> Vec<String> {
        unimplemented!()
    }

    /// Fills `buf` from `offset`.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _ = (buf, offset);
        unimplemented!()
    }

    /// Fills `bufs` from `offset`.
    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let _ = (bufs, offset);
        unimplemented!()
    }

    /// Gives back the range's space: chunks that lie wholly in it and were written become zeros, all else stays as it is.
    pub fn discard(&self, range: ByteRange) -> Result<()> {
        let _ = range;
        unimplemented!()
    }

    /// Makes the range read as zeros. With `unmap` space may be given back.
    pub fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let _ = (range, unmap);
        unimplemented!()
    }

    /// Forgets every exception: the image reads as its origin again. Durable when it returns.
    pub fn make_empty(&self) -> Result<()> {
        unimplemented!()
    }

    /// Invalidates the store for ever, as the kernel does on overflow. Durable when it returns.
    pub fn drop_snapshot(&self) -> Result<()> {
        unimplemented!()
    }

    /// Makes `buf` the content from `offset`.
    pub fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored(&[IoSlice::new(buf)], offset)
    }
}
