//! Discard and write zeroes.

use super::copy::Scratch;
use super::extents::{ExtentKind, Seen};
use super::first_write::Span;
use super::layer::Layer;
use crate::error::Result;
use crate::storage::Storage;
use crate::store::WriteTarget;
use crate::units::ByteRange;

/// Bytes of new zeroed chunks that are in flight at a time.
const MAX_ZEROED: u64 = 1 << 30;

impl Layer {
    /// Zeroes the exceptions that lie wholly in `range` and gives their space back.
    pub(crate) fn discard(&self, range: ByteRange) -> Result<()> {
        let range = self.checked_range(range.start, range.len)?;
        self.check_inside(range)?;
        let whole = self.whole_chunks(range);
        let mut at = whole.start;
        while at < whole.end() {
            let rest = ByteRange::new(at, whole.end() - at);
            let (extent, _pin) = self.look_up_write(rest)?;
            if let WriteTarget::Cow { offset } = extent.target {
                let len = self.zeroed_len(at, extent.len);
                self.cow.write_zeroes(ByteRange::new(offset, len), true)?;
            }
            at += extent.len;
        }
        Ok(())
    }

    /// Makes `range` read as zeros.
    pub(crate) fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        let range = self.checked_range(range.start, range.len)?;
        let mut at = range.start;
        while at < range.end() {
            let rest = ByteRange::new(at, range.end() - at);
            let (extent, pin) = self.look_up_write(rest)?;
            at += match extent.target {
                WriteTarget::Cow { offset } => {
                    let whole = self.chunk.offset_in_chunk(at) == 0;
                    let len = if whole {
                        self.zeroed_len(at, extent.len)
                    } else {
                        extent.len
                    };
                    self.cow.write_zeroes(ByteRange::new(offset, len), unmap)?;
                    extent.len
                }
                WriteTarget::Origin => {
                    self.origin
                        .write_zeroes(ByteRange::new(at, extent.len), unmap)?;
                    extent.len
                }
                WriteTarget::Unmapped => {
                    drop(pin);
                    let part = ByteRange::new(at, extent.len.min(MAX_ZEROED));
                    let below = self.origin.locate(part, 1, &mut Seen::default())?;
                    match below.kind {
                        ExtentKind::Zero => below.len,
                        ExtentKind::Data => {
                            let part = ByteRange::new(at, below.len);
                            self.first_write(part, |span| self.fill_zeros(span, unmap))?
                        }
                    }
                }
                WriteTarget::Wait => 0,
            };
        }
        Ok(())
    }

    /// Gives new chunks their content: zeros, and the origin's bytes around them.
    fn fill_zeros(&self, span: &Span, unmap: bool) -> Result<()> {
        let zeros = ByteRange::new(span.cow_of(span.data.start), span.data.len);
        if !(span.reads_zero && unmap) {
            self.cow.write_zeroes(zeros, unmap)?;
        }
        let mut scratch = Scratch::default();
        for part in [span.head(), span.tail()] {
            if !part.is_empty() {
                let to = span.cow_of(part.start);
                self.origin
                    .copy_out(part, (&self.cow, to), span.reads_zero, &mut scratch)?;
            }
        }
        Ok(())
    }

    fn check_inside(&self, range: ByteRange) -> Result<()> {
        if !range.is_empty() {
            let mapped = self.store()?.map_write(range);
            mapped.map_err(|error| self.named(error))?;
        }
        Ok(())
    }

    /// The chunks wholly inside `range`; the disk's end counts as the end of its last chunk.
    fn whole_chunks(&self, range: ByteRange) -> ByteRange {
        let size = self.chunk.bytes();
        let start = range.start.div_ceil(size) * size;
        let end = if range.end() == self.virtual_size() {
            range.end()
        } else {
            self.chunk.index_of(range.end()) * size
        };
        ByteRange::new(start, end.saturating_sub(start))
    }

    /// How much to zero of `len` bytes at the start of a chunk: at the disk's end to the end of the chunk, so that its space can go; but not
    /// where a longer origin would get it from a merge.
    fn zeroed_len(&self, at: u64, len: u64) -> u64 {
        let end = at + len;
        let size = self.virtual_size();
        if end == size && self.origin.end() <= size {
            self.chunk.count_for(len) * self.chunk.bytes()
        } else {
            len
        }
    }
}
