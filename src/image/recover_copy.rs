//! Copying what is recovered into the new layer.

use super::Image;
use super::metadata::PIECE;
use super::recover::{Finds, RecoverProgress};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Exception;
use crate::storage::Storage;
use crate::units::{ByteRange, ChunkSize};

/// Copies the data of the good records into the new layer.
pub(super) fn copy(
    from: &dyn Storage,
    image: Image,
    finds: &mut Finds,
    progress: &mut dyn FnMut(RecoverProgress) -> bool,
) -> Result<()> {
    let chunk = finds.metadata.chunk_size;
    let mut copier = Copier {
        from,
        to: &image,
        chunk,
        unreadable: Vec::new(),
        buffer: Vec::new(),
    };
    let mut state = RecoverProgress {
        done: 0,
        total: finds.total,
    };
    for run in finds.sifted.good.chunk_by(continues) {
        for part in run.chunks((PIECE / chunk.bytes()).max(1) as usize) {
            if !progress(state) {
                return Err(Error::new(ErrorKind::Cancelled, "the recovery was stopped"));
            }
            copier.copy(part)?;
            state.done += part.len() as u64;
        }
    }
    let unreadable = copier.unreadable;
    image.close()?;
    finds.leave_out(unreadable);
    progress(state);
    Ok(())
}

fn continues((_, one): &(u64, Exception), (_, other): &(u64, Exception)) -> bool {
    one.old.0 + 1 == other.old.0 && one.new.0 + 1 == other.new.0
}

struct Copier<'a> {
    from: &'a dyn Storage,
    to: &'a Image,
    chunk: ChunkSize,
    /// Records whose data the medium does not give.
    unreadable: Vec<(u64, Exception)>,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies the data of records that follow one another.
    fn copy(&mut self, run: &[(u64, Exception)]) -> Result<()> {
        let Some((_, first)) = run.first() else {
            return Ok(());
        };
        let bytes = self.chunk.bytes();
        let (old, new) = (first.old.0 * bytes, first.new.0 * bytes);
        // The last chunk of the disk may be there in part.
        let len = (run.len() as u64 * bytes).min(self.to.size().saturating_sub(old));
        // Nothing is written of a chunk of which a part cannot be read.
        let pieces = || {
            (0..len)
                .step_by(PIECE as usize)
                .map(|at| ByteRange::new(at, PIECE.min(len - at)))
        };
        if len > PIECE {
            for piece in pieces() {
                if let Err(error) = self.read(new, piece) {
                    return self.one_by_one(run, error);
                }
            }
        }
        for piece in pieces() {
            if let Err(error) = self.read(new, piece) {
                return self.one_by_one(run, error);
            }
            self.to.write(&self.buffer, old + piece.start)?;
        }
        Ok(())
    }

    fn read(&mut self, new: u64, piece: ByteRange) -> Result<()> {
        self.buffer.resize(piece.len as usize, 0);
        self.from.read_at(&mut self.buffer, new + piece.start)
    }

    fn one_by_one(&mut self, run: &[(u64, Exception)], error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Io {
            return Err(error);
        }
        if let [one] = run {
            self.unreadable.push(*one);
            return Ok(());
        }
        run.iter()
            .try_for_each(|one| self.copy(std::slice::from_ref(one)))
    }
}
