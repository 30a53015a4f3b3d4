//! What lies below a layer.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::io::{IoSlice, IoSliceMut};
use std::path::PathBuf;

use super::bufs::{total_mut, with_part_mut};
use super::copy::{self, Scratch};
use super::layer::Layer;
use super::tracked::Tracked;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Hold, Storage};
use crate::units::ByteRange;

/// The origin of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// None: zeros without end.
    Zeros,
    /// The bytes of a disk.
    Raw(Arc<RawOrigin>),
    /// Another layer.
    Layer(Arc<Layer>),
}

/// An origin, and the right to rely on its content.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) node: Node,
    /// Each layer over it has one, so that one which wants to merge meets the others.
    pub(crate) hold: Option<Hold>,
}

impl Origin {
    pub(crate) const ZEROS: Origin = Origin {
        node: Node::Zeros,
        hold: None,
    };

    pub(crate) fn layer(layer: Arc<Layer>, hold: Hold) -> Origin {
        Origin {
            node: Node::Layer(layer),
            hold: Some(hold),
        }
    }

    pub(crate) fn raw(hold: Hold, path: Option<PathBuf>) -> Result<Origin> {
        Ok(Origin {
            node: Node::Raw(Arc::new(RawOrigin::new(&hold, path)?)),
            hold: Some(hold),
        })
    }
}

/// A raw file or device at the bottom of a chain.
#[derive(Debug)]
pub(crate) struct RawOrigin {
    pub(crate) storage: Tracked,
    pub(crate) path: Option<PathBuf>,
    /// Its size. Our lock keeps others from changing it, so it need not be asked for at each read.
    size: AtomicU64,
    /// A flush failed: what a merge wrote may be lost, and a later flush that succeeds would not tell.
    failed: AtomicBool,
}

impl RawOrigin {
    fn new(hold: &Hold, path: Option<PathBuf>) -> Result<RawOrigin> {
        let storage = Arc::clone(hold.storage());
        let size = AtomicU64::new(storage.size()?);
        Ok(RawOrigin {
            storage: Tracked::new(storage),
            path,
            size,
            failed: AtomicBool::new(false),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        self.storage.set_size(size)?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = "a flush of this origin failed: open the image again to write";
        Err(Error::new(ErrorKind::PreviousIo, message).with_path(self.storage.name()))
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.check()?;
        self.storage.write_vectored_at(bufs, offset)
    }

    /// As [`Tracked::try_copy_from`].
    pub(crate) fn try_copy_from(
        &self,
        source: &dyn Storage,
        from: u64,
        to: u64,
        len: u64,
    ) -> Result<bool> {
        self.check()?;
        self.storage.try_copy_from(source, from, to, len)
    }

    fn flush(&self) -> Result<()> {
        self.check()?;
        self.storage.flush().inspect_err(|error| {
            if error.kind() != ErrorKind::NoSpace {
                self.failed.store(true, Ordering::Release);
            }
        })
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64, wanted: u64) -> Result<()> {
        let inside = self.size().saturating_sub(offset).min(wanted);
        if inside == wanted {
            return self.storage.read_vectored_at(bufs, offset);
        }
        if inside > 0 {
            with_part_mut(bufs, 0, inside, |bufs| {
                self.storage.read_vectored_at(bufs, offset)
            })?;
        }
        with_part_mut(bufs, inside, wanted - inside, fill_zeros);
        Ok(())
    }
}

pub(crate) fn fill_zeros(bufs: &mut [IoSliceMut<'_>]) {
    for buf in bufs {
        buf.fill(0);
    }
}

impl Node {
    /// Where it ends; past that there are zeros.
    pub(crate) fn end(&self) -> u64 {
        match self {
            Node::Zeros => 0,
            Node::Raw(raw) => raw.size(),
            Node::Layer(layer) => layer.virtual_size(),
        }
    }

    /// Fills `bufs` from `offset`, with zeros past the end.
    pub(crate) fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let wanted = total_mut(bufs);
        match self {
            Node::Zeros => {
                fill_zeros(bufs);
                Ok(())
            }
            Node::Raw(raw) => raw.read(bufs, offset, wanted),
            Node::Layer(layer) => {
                let inside = layer.virtual_size().saturating_sub(offset).min(wanted);
                if inside == wanted {
                    return layer.read(bufs, offset);
                }
                if inside > 0 {
                    with_part_mut(bufs, 0, inside, |bufs| layer.read(bufs, offset))?;
                }
                with_part_mut(bufs, inside, wanted - inside, fill_zeros);
                Ok(())
            }
        }
    }

    /// Writes into the origin, as a merge does.
    pub(crate) fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        match self {
            Node::Zeros => Err(nothing_to_write()),
            Node::Raw(raw) => raw.write(bufs, offset),
            Node::Layer(layer) => layer.write(bufs, offset),
        }
    }

    /// Makes a range of the origin read as zeros.
    pub(crate) fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        match self {
            Node::Zeros => Err(nothing_to_write()),
            Node::Raw(raw) => raw
                .check()
                .and_then(|()| raw.storage.write_zeroes(range, unmap)),
            Node::Layer(layer) => layer.write_zeroes(range, unmap),
        }
    }

    /// Gives back space of a range of the origin.
    pub(crate) fn discard(&self, range: ByteRange) -> Result<()> {
        match self {
            Node::Zeros => Err(nothing_to_write()),
            Node::Raw(raw) => raw.storage.discard(range),
            Node::Layer(layer) => layer.discard(range),
        }
    }

    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        match self {
            Node::Zeros => Err(nothing_to_write()),
            Node::Raw(raw) => raw.set_size(size),
            Node::Layer(layer) => layer.resize(size),
        }
    }

    /// Makes what was written into the origin durable, a layer's records included.
    pub(crate) fn flush(&self) -> Result<()> {
        match self {
            Node::Zeros => Ok(()),
            Node::Raw(raw) => raw.flush(),
            Node::Layer(layer) => layer.flush(),
        }
    }

    /// What errors call it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Node::Zeros => "no origin",
            Node::Raw(raw) => raw.storage.name(),
            Node::Layer(layer) => layer.cow.name(),
        }
    }

    /// Puts the bytes of `range` at `to` in `target`; zeros need not be written if `target` reads as zeros there already.
    pub(crate) fn copy_out(
        &self,
        range: ByteRange,
        (target, to): (&Tracked, u64),
        target_is_zero: bool,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let inside = self.end().saturating_sub(range.start).min(range.len);
        let part = ByteRange::new(range.start, inside);
        match self {
            _ if inside == 0 => {}
            Node::Zeros => {}
            Node::Raw(raw) => {
                let from = (&raw.storage as &dyn Storage, part.start);
                copy::copy(from, (target, to), inside, target_is_zero, scratch)?;
            }
            Node::Layer(layer) => layer.copy_out(part, (target, to), target_is_zero, scratch)?,
        }
        let rest = range.len - inside;
        if rest > 0 && !target_is_zero {
            target.write_zeroes(ByteRange::new(to + inside, rest), true)?;
        }
        Ok(())
    }
}

fn nothing_to_write() -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "the image has no origin to write to",
    )
}
