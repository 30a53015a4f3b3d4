//! The handle, its state, and the facts it can tell at once.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::io::{IoSlice, IoSliceMut};

use super::gate::{Gate, Passage};
use super::layer::Layer;
use super::open::MAX_DEPTH;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, Header};
use crate::storage::{Hold, Storage};
use crate::store::{OverflowMode, State, Status, Usage};
use crate::units::{ByteRange, ChunkSize, CowChunk, OriginChunk};

/// An open image: a COW layer over its origins.
///
/// Every call takes `&self` and may come from any number of threads. Offsets and lengths are in bytes and need no alignment;
/// what reaches past [`Image::size`] is [`ErrorKind::OutOfBounds`].
///
/// A write is visible at once and durable after the next successful [`Image::flush`]. Dropping the handle tries to flush and cannot
/// report a failure; [`Image::close`] can.
#[derive(Debug)]
#[must_use = "an image that is dropped is closed"]
pub struct Image {
    pub(super) inner: Arc<Inner>,
}

/// What a handle and its merges share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) tops: Tops,
    /// On the storage of the present top layer.
    top_hold: Mutex<Hold>,
    /// Passed by everything that changes content.
    pub(super) gate: Gate,
    /// Whether a job that excludes others is under way.
    job: AtomicBool,
    pub(super) writable: AtomicBool,
    pub(super) closed: AtomicBool,
    /// Whether files that a snapshot adds are opened with O_DIRECT.
    pub(super) direct: bool,
    pub(super) overflow: OverflowMode,
    warnings: Mutex<Vec<String>>,
}

/// The layers that were on top, the present one last. Append-only, so that looking at the top costs no lock and no count.
#[derive(Debug)]
pub(super) struct Tops {
    first: Arc<Layer>,
    later: Box<[OnceLock<Arc<Layer>>]>,
    count: AtomicUsize,
}

impl Tops {
    fn new(first: Arc<Layer>) -> Tops {
        let later = (0..MAX_DEPTH).map(|_| OnceLock::new()).collect();
        Tops {
            first,
            later,
            count: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn top(&self) -> &Arc<Layer> {
        let count = self.count.load(Ordering::Acquire);
        let later = count
            .checked_sub(1)
            .and_then(|last| self.later.get(last)?.get());
        later.unwrap_or(&self.first)
    }

    /// Puts a layer on top. Only one thread at a time does that.
    pub(super) fn push(&self, layer: Arc<Layer>) -> Result<()> {
        let count = self.count.load(Ordering::Acquire);
        let slot = self.later.get(count);
        if slot.is_none_or(|slot| slot.set(layer).is_err()) {
            let message = format!("a chain may have {MAX_DEPTH} layers");
            return Err(Error::new(ErrorKind::ChainTooDeep, message));
        }
        self.count.store(count + 1, Ordering::Release);
        Ok(())
    }
}

/// The right to run a job that excludes others.
#[derive(Debug)]
pub(super) struct JobSlot(Arc<Inner>);

impl JobSlot {
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        self.0.job.store(false, Ordering::Release);
    }
}

impl Inner {
    pub(super) fn top_hold(&self) -> MutexGuard<'_, Hold> {
        self.top_hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.writable.load(Ordering::Acquire) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::ReadOnly, "the image was opened read-only");
        Err(error.with_path(self.tops.top().cow.name()))
    }

    /// Passes the gate, behind which nobody takes the right to write away.
    #[inline]
    fn enter(&self) -> Result<Passage<'_>> {
        let inside = self.gate.enter();
        self.check_writable()?;
        Ok(inside)
    }

    /// Begins a job, unless another is under way.
    pub(super) fn begin_job(self: &Arc<Inner>) -> Result<JobSlot> {
        if self.job.swap(true, Ordering::AcqRel) {
            let message = "a merge, snapshot, resize or the like is under way";
            let error = Error::new(ErrorKind::Busy, message);
            return Err(error.with_path(self.tops.top().cow.name()));
        }
        Ok(JobSlot(Arc::clone(self)))
    }

    /// Begins a job that writes. While it is under way nobody takes the right to write away.
    pub(super) fn begin_writing_job(self: &Arc<Inner>) -> Result<JobSlot> {
        let job = self.begin_job()?;
        self.check_writable()?;
        Ok(job)
    }

    /// Begins a job that needs the layer to itself: after a merge that failed, writes still go to the origin.
    pub(super) fn begin_change(self: &Arc<Inner>) -> Result<JobSlot> {
        let job = self.begin_writing_job()?;
        let top = self.tops.top();
        if top.store()?.state() != State::MergeFailed {
            return Ok(job);
        }
        let message = "an earlier merge failed: merge again, or close the image and open it again";
        Err(top.named(Error::new(ErrorKind::MergeFailed, message)))
    }
}

impl Image {
    pub(super) fn new(
        (top, hold): (Arc<Layer>, Hold),
        writable: bool,
        direct: bool,
        overflow: OverflowMode,
        warnings: Vec<String>,
    ) -> Image {
        let inner = Inner {
            tops: Tops::new(top),
            top_hold: Mutex::new(hold),
            gate: Gate::default(),
            job: AtomicBool::new(false),
            writable: AtomicBool::new(writable),
            closed: AtomicBool::new(false),
            direct,
            overflow,
            warnings: Mutex::new(warnings),
        };
        Image {
            inner: Arc::new(inner),
        }
    }

    #[inline]
    pub(super) fn top(&self) -> &Arc<Layer> {
        self.inner.tops.top()
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.top().virtual_size()
    }

    /// Size of a chunk of the top layer.
    pub fn chunk_size(&self) -> ChunkSize {
        self.top().chunk
    }

    /// Whether it can be written: it was opened for that, and is not the origin of another image.
    pub fn is_writable(&self) -> bool {
        self.inner.writable.load(Ordering::Acquire)
    }

    /// Header of the top layer.
    pub fn header(&self) -> Header {
        self.top().facts().header()
    }

    /// Descriptor of the top layer; a bare store has none.
    pub fn descriptor(&self) -> Option<Descriptor> {
        self.top().facts().descriptor().cloned()
    }

    /// Exceptions of the top layer as runs: first origin chunk, first COW chunk, number of chunks, in ascending order of origin chunks.
    pub fn exceptions(&self) -> Vec<(OriginChunk, CowChunk, u64)> {
        self.top().facts().runs().collect()
    }

    /// The first exceptions of the top layer at or behind chunk `from`, as [`Image::exceptions`] has them.
    pub fn next_exceptions(&self, from: OriginChunk) -> Option<(OriginChunk, CowChunk, u64)> {
        self.top().facts().runs_from(from).next()
    }

    /// The kernel's status of the top layer.
    pub fn status(&self) -> Status {
        self.top().facts().status()
    }

    /// The kernel's figures of the top layer, in sectors.
    pub fn usage(&self) -> Usage {
        self.top().facts().usage()
    }

    /// Bytes of heap that the top layer's exceptions take.
    pub fn heap_bytes(&self) -> usize {
        self.top().facts().heap_bytes()
    }

    /// What looked wrong while opening but did no harm, such as an origin whose size changed.
    pub fn warnings(&self) -> Vec<String> {
        self.inner
            .warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], [`ErrorKind::SnapshotInvalid`], or what a file reports.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_vectored(&mut [IoSliceMut::new(buf)], offset)
    }

    /// Fills `bufs` from `offset`.
    ///
    /// # Errors
    /// As [`Image::read`].
    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.top().read(bufs, offset)
    }

    /// Makes `buf` the content from `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`]; [`ErrorKind::ReadOnly`]; [`ErrorKind::NoSpace`] if there is none for a new chunk, which leaves the content as
    /// it was and may be tried again; [`ErrorKind::PreviousIo`] after a failed flush; [`ErrorKind::SnapshotInvalid`],
    /// [`ErrorKind::Overflow`]; or what a file reports. After an I/O error the range holds old bytes, new ones, or a mixture.
    pub fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored(&[IoSlice::new(buf)], offset)
    }

    /// Makes `bufs` the content from `offset`.
    ///
    /// # Errors
    /// As [`Image::write`].
    pub fn write_vectored(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let _inside = self.inner.enter()?;
        self.top().write(bufs, offset)
    }

    /// Returns once everything that was written before the call is durable.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] if there is no room for metadata: nothing is lost, try again after space was added. Any other failure stops
    /// the handle from writing, and that a file could not write back what it had buffered is one, for want of space too: what was written
    /// since the last good flush may be lost, and [`ErrorKind::PreviousIo`] is all it says from then on.
    pub fn flush(&self) -> Result<()> {
        if !self.is_writable() {
            return Ok(());
        }
        let top = self.top();
        top.flush()?;
        // A merge that could not flush at its end has left that to this flush; one that is under way does it itself.
        if top.origin_written.load(Ordering::Acquire)
            && let Ok(job) = self.inner.begin_job()
        {
            top.leave_origin(job.inner())?;
        }
        Ok(())
    }

    /// Gives back the range's space: chunks that lie wholly in it and were written become zeros, all else stays as it is.
    ///
    /// # Errors
    /// As [`Image::write`].
    pub fn discard(&self, range: ByteRange) -> Result<()> {
        let _inside = self.inner.enter()?;
        self.top().discard(range)
    }

    /// Makes the range read as zeros. With `unmap` space may be given back.
    ///
    /// # Errors
    /// As [`Image::write`].
    pub fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let _inside = self.inner.enter()?;
        self.top().write_zeroes(range, unmap)
    }
}
