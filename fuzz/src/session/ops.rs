//! What is done to an image, and what the model makes of it.

use arbitrary::Arbitrary;
use dmsnap::storage::testing::{CallKinds, Fault};
use dmsnap::{ByteRange, Error, ErrorKind};

use super::Session;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    Write {
        at: u16,
        len: u16,
    },
    Zero {
        at: u16,
        len: u16,
        unmap: bool,
    },
    Discard {
        at: u16,
        len: u16,
    },
    Read {
        at: u16,
        len: u16,
    },
    Flush,
    Resize {
        sectors: u8,
        shrink: bool,
    },
    Merge {
        steps: u8,
        at: u16,
    },
    Snapshot {
        shift: u8,
    },
    MakeEmpty,
    Amend(Change),
    /// Closed, checked, opened.
    Reopen,
    /// Opened again without a flush.
    Abandon,
    /// Closed, repaired, opened.
    Repair {
        all: bool,
    },
    Extents,
    Fault {
        origin: bool,
        kinds: u8,
        nth: u8,
        errno: u8,
        forever: bool,
        after: u16,
    },
    Disarm,
    /// The top layer can grow by so many sectors from here.
    Space {
        sectors: u8,
    },
    DropSnapshot,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Change {
    NoOrigin,
    AddDescriptor { sectors: u8 },
    RemoveDescriptor,
}
impl Session {
    /// Returns whether the image can be used on.
    pub(super) fn apply(&mut self, op: Op) -> bool {
        match op {
            Op::Write { at, len } => self.write(at, len),
            Op::Zero { at, len, unmap } => self.zero(at, len, unmap),
            Op::Discard { at, len } => self.discard(at, len),
            Op::Read { at, len } => self.read(at, len),
            Op::Flush => self.flush(),
            Op::Resize { sectors, shrink } => self.resize(u64::from(sectors) * 512, shrink),
            Op::Merge { steps, at } => self.merge(steps, at),
            Op::Snapshot { shift } => self.snapshot(shift),
            Op::MakeEmpty => self.make_empty(),
            Op::Amend(change) => self.amend(change),
            Op::Reopen => return self.close_and_open(),
            Op::Abandon => return self.reopen(),
            Op::Repair { all } => return self.repair(all),
            Op::Extents => self.extents(),
            Op::Fault {
                origin,
                kinds,
                nth,
                errno,
                forever,
                after,
            } => {
                let kinds = CallKinds::from_bits_truncate(u32::from(kinds)) & CallKinds::IO;
                // Operations make few calls, of few bytes; half of the calls that fail leave nothing.
                let after = if after % 2 == 0 { 0 } else { after % 4096 };
                let mut fault = Fault::on(kinds)
                    .nth(u64::from(nth % 16))
                    .after_bytes(u64::from(after));
                fault =
                    fault.errno([libc::EIO, libc::ENOSPC, libc::EDQUOT][usize::from(errno) % 3]);
                let fault = if forever { fault.forever() } else { fault };
                let index = if origin {
                    self.layers.len() - 2
                } else {
                    self.layers.len() - 1
                };
                self.layers[index].faults.arm(fault);
                self.trouble = true;
            }
            Op::Disarm => self.disarm(),
            Op::Space { sectors } => {
                let top = self.layers.last().expect("a layer");
                top.memory
                    .set_max_size(top.size() + u64::from(sectors) * 512);
                self.trouble = true;
            }
            Op::DropSnapshot => {
                // What is there is lost then.
                let dropped = self.image().drop_snapshot();
                let again = self.image().write(b"x", 0);
                assert!(
                    dropped.is_err() || again.is_err(),
                    "written after it was dropped"
                );
                return false;
            }
        }
        true
    }

    /// A range inside the disk, for disks of any length.
    pub(super) fn range(&self, at: u16, len: u16) -> Option<ByteRange> {
        let size = self.image().size();
        let scale = size / (1 << 16) + 1;
        (size > 0).then(|| {
            let at = u64::from(at).saturating_mul(scale) % size;
            ByteRange::new(at, u64::from(len).min(size - at))
        })
    }

    /// Whether it worked; with no fault set it has to.
    pub(super) fn worked<T>(&self, what: &str, result: Result<T, Error>) -> bool {
        match result {
            Ok(_) => true,
            Err(error) => {
                let refused = [
                    ErrorKind::NoSpace,
                    ErrorKind::Overflow,
                    ErrorKind::SnapshotInvalid,
                ];
                // A merge may have filled the layer below, whose flush then fails too.
                let stopped = self.merge_failed && error.kind() == ErrorKind::PreviousIo;
                let full = !self.sound && (refused.contains(&error.kind()) || stopped);
                // Beside a damaged descriptor, what lies past the end may be data.
                let doubtful = self.damaged && error.kind() == ErrorKind::Corrupt;
                assert!(
                    self.trouble || full || doubtful,
                    "{what}: {error} ({:?})",
                    error.kind()
                );
                false
            }
        }
    }

    pub(super) fn changed(&mut self, range: ByteRange, value: u8, worked: bool) {
        assert!(
            !(worked && self.latched),
            "a write worked after a flush had failed"
        );
        let Some(model) = &mut self.model else { return };
        let range = range.start as usize..range.end() as usize;
        if worked {
            model.write(range, value);
        } else {
            model.doubt(range, value);
        }
    }

    pub(super) fn write(&mut self, at: u16, len: u16) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        self.value = self.value % 250 + 1;
        let bytes = vec![self.value; range.len as usize];
        let worked = self.worked("write", self.image().write(&bytes, range.start));
        if !range.is_empty() {
            self.changed(range, self.value, worked);
        }
    }

    pub(super) fn zero(&mut self, at: u16, len: u16, unmap: bool) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        let worked = self.worked("write zeroes", self.image().write_zeroes(range, unmap));
        if !range.is_empty() {
            self.changed(range, 0, worked);
        }
    }

    /// Chunks that lie in it wholly become zeros or stay.
    pub(super) fn discard(&mut self, at: u16, len: u16) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        self.worked("discard", self.image().discard(range));
        let (chunk, size) = (self.image().chunk_size(), self.image().size());
        let first = range.start.div_ceil(chunk.bytes()) * chunk.bytes();
        let end = match range.end() {
            end if end == size => end,
            end => end - chunk.offset_in_chunk(end),
        };
        if let Some(model) = &mut self.model
            && first < end
        {
            model.doubt(first as usize..end as usize, 0);
        }
    }

    pub(super) fn read(&mut self, at: u16, len: u16) {
        let Some(range) = self.range(at, len) else {
            return;
        };
        let mut bytes = vec![0xee; range.len as usize];
        let worked = self.worked("read", self.image().read(&mut bytes, range.start));
        if let (true, Some(model)) = (worked, &mut self.model) {
            model.read(range.start as usize, &bytes, "read");
        }
    }

    pub(super) fn flush(&mut self) {
        let result = self.image().flush();
        match &result {
            // That a flush found no space is not the end: with space, or without the fault, it works.
            Err(error) if error.kind() == ErrorKind::NoSpace && self.sound => {
                self.disarm();
                self.unlimit();
                let again = self.image().flush();
                assert!(again.is_ok(), "a flush after ENOSPC: {again:?}");
                self.flushed();
            }
            Err(error) => {
                self.latched |= self.sound && error.kind() != ErrorKind::NoSpace;
                self.worked("flush", result);
            }
            Ok(()) => self.flushed(),
        }
    }

    pub(super) fn flushed(&mut self) {
        if let Some(model) = &mut self.model {
            model.flushed();
        }
    }

    pub(super) fn disarm(&self) {
        for layer in &self.layers {
            layer.faults.disarm();
        }
    }

    pub(super) fn unlimit(&self) {
        for layer in &self.layers {
            layer.memory.set_max_size(u64::MAX);
        }
    }

    pub(super) fn extents(&mut self) {
        let size = self.image().size();
        let mut at = 0;
        for _ in 0..300 {
            if at >= size {
                break;
            }
            match self.image().next_extent(ByteRange::new(at, size - at)) {
                Ok(extent) => {
                    assert_eq!(extent.range.start, at, "where an extent begins");
                    assert!(
                        extent.range.len > 0 && extent.range.end() <= size,
                        "{extent:?}"
                    );
                    at = extent.range.end();
                }
                Err(error) => {
                    self.worked("extents", Err::<(), _>(error));
                    break;
                }
            }
        }
    }
}
