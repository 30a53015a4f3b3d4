//! The way from source to target: what need not be stored is found and left out.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use dmsnap::ByteRange;

use super::writer::Writer;
use crate::failure::{Failure, Result};
use crate::source::{Runs, Source};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// Bytes that are read even if they hold holes: asking for the next hole takes longer than reading that much, and scattered data has
/// many.
const WINDOW: u64 = 256 << 10;

/// Pieces under way: one being read, one waiting, one being written.
const PIECES: usize = 3;

/// What need not be stored.
#[derive(Clone, Copy)]
pub(super) enum Difference<'a> {
    /// Zeros.
    FromZeros,
    /// What this image holds at the same place.
    From(&'a Source),
}

/// A copy about to be made.
pub(super) struct Copy<'a> {
    source: &'a Source,
    difference: Difference<'a>,
    writer: &'a dyn Writer,
    unit: u64,
}

/// A piece of the disk, and what to do about it.
struct Piece {
    range: ByteRange,
    /// Its bytes, where they were read.
    data: Vec<u8>,
    parts: Vec<Part>,
}

/// What the reading side remembers.
struct Reader<'a> {
    runs: Runs<'a>,
    runs_below: Option<Runs<'a>>,
    /// What the image below holds at the place of the piece.
    below: Vec<u8>,
}

struct Part {
    range: ByteRange,
    action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Zeros, as in a new image.
    Skip,
    /// The same as below.
    Keep,
    /// Zeros where the image below holds something else.
    Zero,
    /// Bytes to be stored.
    Write,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        source: &'a Source,
        difference: Difference<'a>,
        writer: &'a dyn Writer,
    ) -> Copy<'a> {
        Copy {
            source,
            difference,
            writer,
            unit: writer.unit().min(PIECE),
        }
    }

    /// Copies all. `progress` hears how many bytes are done, and stops the copy by failing.
    ///
    /// Reading and comparing go on while writes are under way. Writes keep the order of the disk, so that the target does too.
    pub(super) fn run(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let (done, todo) = sync_channel(PIECES);
        let (recycle, buffers) = channel();
        for _ in 0..PIECES {
            // Both ends are here: it cannot fail.
            let _ = recycle.send(Vec::new());
        }
        thread::scope(|scope| {
            let reader = scope.spawn(move || self.read_all(&done, &buffers));
            // An end of a channel that is dropped ends the other thread.
            let written = self.write_all(todo, recycle, progress);
            let read = reader
                .join()
                .unwrap_or_else(|_| Err(Failure::new("the reading thread failed")));
            read.and(written)
        })
    }

    /// The reader's side. Ends early, without a failure of its own, when the writer has given up.
    fn read_all(&self, done: &SyncSender<Piece>, buffers: &Receiver<Vec<u8>>) -> Result<()> {
        let end = self.source.size();
        let mut reader = Reader {
            runs: Runs::of(self.source),
            runs_below: match self.difference {
                Difference::FromZeros => None,
                Difference::From(backing) => Some(Runs::of(backing)),
            },
            below: Vec::new(),
        };
        let mut at = 0;
        while at < end {
            let Ok(data) = buffers.recv() else {
                return Ok(());
            };
            let piece = self.read_piece(ByteRange::new(at, end - at), data, &mut reader)?;
            at = piece.range.end();
            if done.send(piece).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write_all(
        &self,
        todo: Receiver<Piece>,
        recycle: Sender<Vec<u8>>,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        progress(0)?;
        for piece in todo {
            for Part { range, action } in &piece.parts {
                match action {
                    Action::Skip => self.writer.skip(*range)?,
                    Action::Keep => {}
                    Action::Zero => self.writer.zero(*range)?,
                    Action::Write => self.writer.write(piece.bytes(*range), range.start)?,
                }
            }
            progress(piece.range.end())?;
            // The reader may be done.
            let _ = recycle.send(piece.data);
        }
        Ok(())
    }

    /// The next piece of `rest`: a long run of what need not be looked at, or as much as is read at once.
    fn read_piece(
        &self,
        rest: ByteRange,
        mut data: Vec<u8>,
        reader: &mut Reader<'_>,
    ) -> Result<Piece> {
        let run = reader.runs.at(rest)?;
        let (len, is_zero) = match &mut reader.runs_below {
            None => (run.len, run.is_zero),
            Some(runs) => {
                let other = runs.at(ByteRange::new(rest.start, run.len))?;
                (other.len, run.is_zero && other.is_zero)
            }
        };
        // A unit that is zero in part is looked at as a whole.
        let whole = len / self.unit * self.unit;
        if is_zero && (len == rest.len || whole >= WINDOW) {
            let range = ByteRange::new(rest.start, if len == rest.len { len } else { whole });
            let parts = vec![Part {
                range,
                action: Action::Skip,
            }];
            return Ok(Piece { range, data, parts });
        }
        let len = len.clamp(WINDOW, PIECE);
        let len = len.next_multiple_of(self.unit).min(rest.len);
        let range = ByteRange::new(rest.start, len);
        data.resize(len as usize, 0);
        self.source.read(&mut data, range.start)?;
        let below = &mut reader.below;
        if let Difference::From(backing) = self.difference {
            below.resize(len as usize, 0);
            backing.read(below, range.start)?;
        } else {
            below.clear();
        }
        let parts = self.parts(range.start, &data, below);
        Ok(Piece { range, data, parts })
    }

    /// Sorts out the units of a piece. `below` is what lies below, or empty if nothing does.
    fn parts(&self, start: u64, data: &[u8], below: &[u8]) -> Vec<Part> {
        let unit = self.unit as usize;
        let mut parts: Vec<Part> = Vec::new();
        let mut at = start;
        let mut others = below.chunks(unit);
        for bytes in data.chunks(unit) {
            let action = match others.next() {
                Some(other) if bytes == other => Action::Keep,
                Some(_) if is_zero(bytes) => Action::Zero,
                None if is_zero(bytes) => Action::Skip,
                _ => Action::Write,
            };
            let len = bytes.len() as u64;
            match parts.last_mut() {
                Some(last) if last.action == action => last.range.len += len,
                _ => parts.push(Part {
                    range: ByteRange::new(at, len),
                    action,
                }),
            }
            at += len;
        }
        parts
    }
}

impl Piece {
    /// The bytes of a part.
    fn bytes(&self, range: ByteRange) -> &[u8] {
        let start = (range.start - self.range.start) as usize;
        &self.data[start..start + range.len as usize]
    }
}

/// Compares with zeros by the system's memory comparison, which is as fast as memory.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn test_one_byte_is_not_overlooked() {
        for len in [1, 4095, 4096, 4097, 10_000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in [0, len / 2, len - 1] {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
