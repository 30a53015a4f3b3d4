//! Writes: in place where a chunk has an exception, else as a new exception.

use std::io::{IoSlice, IoSliceMut};

use super::bufs::{parts, total, with_part};
use super::copy::Scratch;
use super::first_write::Span;
use super::layer::{Layer, PinGuard};
use crate::error::Result;
use crate::storage::Storage;
use crate::store::{WriteExtent, WriteTarget};
use crate::units::ByteRange;

/// A copied head and tail up to this size are gathered in memory, so that the chunks are written at once.
const MAX_GATHERED: u64 = 256 << 10;

/// Data up to this size is copied rather than read around.
const MAX_OVERLAID: u64 = 16 << 10;

impl Layer {
    /// Where the first bytes of `range` go, and a pin on that. Waits until there is such a place.
    #[inline]
    pub(crate) fn look_up_write(&self, range: ByteRange) -> Result<(WriteExtent, PinGuard<'_>)> {
        loop {
            let seen = self.changed.generation();
            let store = self.store()?;
            let mapped = store.map_write(range);
            let extent = mapped.map_err(|error| self.named(error))?;
            if extent.target != WriteTarget::Wait {
                return Ok((extent, self.pin()));
            }
            drop(store);
            self.wait(seen)?;
        }
    }

    /// Makes `bufs` the content from `offset`.
    pub(crate) fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let len = total(bufs);
        let range = self.checked_range(offset, len)?;
        let mut done = 0;
        while done < len {
            let rest = ByteRange::new(range.start + done, len - done);
            let (extent, pin) = self.look_up_write(rest)?;
            let part = ByteRange::new(rest.start, extent.len);
            done += match extent.target {
                // The usual case, with no buffers to cut.
                WriteTarget::Cow { offset } if part.len == len => {
                    return self.cow.write_vectored_at(bufs, offset);
                }
                WriteTarget::Cow { offset } => {
                    with_part(bufs, done, part.len, |bufs| {
                        self.cow.write_vectored_at(bufs, offset)
                    })?;
                    part.len
                }
                WriteTarget::Origin => {
                    with_part(bufs, done, part.len, |bufs| {
                        self.origin.write(bufs, part.start)
                    })?;
                    part.len
                }
                WriteTarget::Unmapped => {
                    // Writers of new chunks must not keep others from being freed, or both would wait.
                    drop(pin);
                    self.first_write(part, |span| {
                        with_part(bufs, done, span.data.len, |bufs| self.fill(span, bufs))
                    })?
                }
                WriteTarget::Wait => 0,
            };
        }
        Ok(())
    }

    /// Gives new chunks their content: the data, and the origin's bytes around it.
    fn fill(&self, span: &Span, bufs: &[IoSlice<'_>]) -> Result<()> {
        let (head, tail) = (span.head(), span.tail());
        if head.is_empty() && tail.is_empty() {
            return self.cow.write_vectored_at(bufs, span.cow_offset);
        }
        if head.len + tail.len > MAX_GATHERED {
            return self.fill_piecewise(span, bufs);
        }
        // Zeros that are there already need not be written.
        let end = self.origin.end();
        let is_there = |part: ByteRange| span.reads_zero && part.start >= end;
        let head_len = if is_there(head) { 0 } else { head.len };
        let tail_len = if is_there(tail) { 0 } else { tail.len };
        if head_len + tail_len == 0 {
            let start = span.cow_of(span.data.start);
            return self.cow.write_vectored_at(bufs, start);
        }
        let head = ByteRange::new(span.data.start - head_len, head_len);
        let tail = ByteRange::new(tail.start, tail_len);
        Scratch::of_thread(|memory| {
            if span.data.len <= MAX_OVERLAID {
                self.fill_overlaid(span, bufs, (head, tail), memory)
            } else {
                self.fill_gathered(span, bufs, (head, tail), memory)
            }
        })
    }

    /// Puts everything together in memory and writes it at once. Where the data lies inside, it is read around in one piece: the bytes that are
    /// read in vain cost less than another call.
    fn fill_overlaid(
        &self,
        span: &Span,
        bufs: &[IoSlice<'_>],
        (head, tail): (ByteRange, ByteRange),
        memory: &mut Scratch,
    ) -> Result<()> {
        let whole = ByteRange::new(head.start, head.len + span.data.len + tail.len);
        let content = memory.piece(whole.len);
        let read = match (head.is_empty(), tail.is_empty()) {
            (false, false) => whole,
            (false, true) => head,
            (true, _) => tail,
        };
        let within = |part: ByteRange| {
            let start = (part.start - whole.start) as usize;
            start..start + part.len as usize
        };
        let into = &mut content[within(read)];
        self.origin.read(&mut [IoSliceMut::new(into)], read.start)?;
        let mut at = within(span.data).start;
        for buf in bufs {
            content[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        let start = span.cow_of(whole.start);
        self.cow.write_vectored_at(&[IoSlice::new(content)], start)
    }

    /// Writes the data in place, between what is read of the origin.
    fn fill_gathered(
        &self,
        span: &Span,
        bufs: &[IoSlice<'_>],
        (head, tail): (ByteRange, ByteRange),
        memory: &mut Scratch,
    ) -> Result<()> {
        let copied = memory.piece(head.len + tail.len);
        let (head_buf, tail_buf) = copied.split_at_mut(head.len as usize);
        for (part, buf) in [(head, &mut *head_buf), (tail, &mut *tail_buf)] {
            if !part.is_empty() {
                self.origin.read(&mut [IoSliceMut::new(buf)], part.start)?;
            }
        }
        let start = span.cow_of(span.data.start) - head.len;
        let mut all = Vec::with_capacity(bufs.len() + 2);
        all.push(IoSlice::new(head_buf));
        all.extend(parts(bufs, 0, span.data.len));
        all.push(IoSlice::new(tail_buf));
        all.retain(|buf| !buf.is_empty());
        self.cow.write_vectored_at(&all, start)
    }

    /// The same for chunks too big to gather.
    fn fill_piecewise(&self, span: &Span, bufs: &[IoSlice<'_>]) -> Result<()> {
        let mut scratch = Scratch::default();
        for part in [span.head(), span.tail()] {
            if !part.is_empty() {
                let to = span.cow_of(part.start);
                self.origin
                    .copy_out(part, (&self.cow, to), span.reads_zero, &mut scratch)?;
            }
        }
        self.cow
            .write_vectored_at(bufs, span.cow_of(span.data.start))
    }
}
