//! What is done to a chain of layers, beside what it then should show.

use dmsnap::{Amend, ByteRange, Format, Image, Result};

use crate::bench::Bench;
use crate::image_common::*;
use crate::world::Op;

/// Something to do that may fail.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Do(Op),
    /// A merge with writes after each step, some of which go to the origin.
    MergeAndWrite,
    Amend,
    /// Closing, and opening again without faults.
    Close,
    /// The same without being told.
    Drop,
}

/// How an act ended: what the disk shows if it was done, and whether that is durable then.
pub(crate) struct Outcome {
    pub(crate) result: Result<()>,
    pub(crate) after: Vec<u8>,
    pub(crate) durable: bool,
}

impl Bench {
    fn range(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.image().size();
        (size > 0).then(|| ByteRange::new(at % size, len.min(size - at % size)))
    }

    pub(crate) fn attempt(&mut self, act: &Act) -> Outcome {
        let after = self.disk.clone();
        let (result, durable) = match act {
            Act::Do(op) => return self.attempt_op(op),
            Act::MergeAndWrite => return self.merge_and_write(),
            Act::Amend => {
                // Any file will do.
                let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
                let amend = Amend::new().origin(file, Format::Raw);
                (self.image().amend(&amend), true)
            }
            Act::Close => (self.image.take().unwrap().close(), true),
            Act::Drop => {
                drop(self.image.take());
                (Ok(()), false)
            }
        };
        Outcome {
            result,
            after,
            durable,
        }
    }

    fn attempt_op(&mut self, op: &Op) -> Outcome {
        let mut after = self.disk.clone();
        let nothing = |after| Outcome {
            result: Ok(()),
            after,
            durable: false,
        };
        let image = self.image.as_ref().unwrap();
        let bytes = |range: ByteRange| range.start as usize..range.end() as usize;
        let (result, durable) = match *op {
            Op::Write { at, len, seed } => {
                let Some(range) = self.range(at, len) else {
                    return nothing(after);
                };
                let data = pattern(seed, range.len as usize);
                after[bytes(range)].copy_from_slice(&data);
                (image.write(&data, range.start), false)
            }
            Op::Zero { at, len, unmap } => {
                let Some(range) = self.range(at, len) else {
                    return nothing(after);
                };
                after[bytes(range)].fill(0);
                (image.write_zeroes(range, unmap), false)
            }
            Op::Discard { at, len } => {
                let Some(range) = self.range(at, len) else {
                    return nothing(after);
                };
                zero_mapped(image, range, &mut after);
                (image.discard(range), false)
            }
            Op::Read { .. } => {
                let mut found = vec![0; after.len()];
                let result = image.read(&mut found, 0);
                if result.is_ok() {
                    assert_same(&found, &after, "read");
                }
                (result, false)
            }
            Op::MakeEmpty if self.layers == 1 => {
                after = bytes_of(&self.base);
                after.resize(self.disk.len(), 0);
                (image.make_empty(), true)
            }
            Op::Flush | Op::MakeEmpty | Op::Reopen => (image.flush(), true),
            Op::Snapshot { chunk: bytes } => {
                if self.layers == 3 {
                    return nothing(after);
                }
                let storage = self.storages[self.layers + 1].clone();
                let result = image.snapshot_to(storage, None, Some(chunk(bytes)));
                self.layers += usize::from(result.is_ok());
                (result, true)
            }
            Op::Merge => (image.merge(&mut |_| true), true),
            Op::MergeSteps { steps, .. } => {
                let result = image
                    .start_merge()
                    .and_then(|mut merge| (0..steps).try_for_each(|_| merge.step().map(drop)));
                (result, false)
            }
            Op::Resize { sectors } => {
                let result = image.resize(sectors * 512, true);
                if self.bare.is_none() || self.layers > 1 {
                    after.resize(sectors as usize * 512, 0);
                }
                (result, true)
            }
        };
        Outcome {
            result,
            after,
            durable,
        }
    }

    fn merge_and_write(&mut self) -> Outcome {
        let mut number = 0;
        let mut merged = None;
        let result = loop {
            let merge = match &mut merged {
                None => match self.image().start_merge() {
                    Ok(merge) => merged.insert(merge),
                    Err(error) => break Err(error),
                },
                Some(merge) => merge,
            };
            let more = match merge.step() {
                Ok(more) => more,
                Err(error) => break Err(error),
            };
            number += 1;
            let len = self.disk.len().min(700);
            let at = number * 17_000 % (self.disk.len() - len + 1) as u64;
            let mut after = self.disk.clone();
            let data = pattern(number, len);
            after[at as usize..][..len].copy_from_slice(&data);
            let result = self.image().write(&data, at);
            if result.is_err() || !more {
                return Outcome {
                    result,
                    after,
                    durable: false,
                };
            }
            self.disk = after;
            self.since_flush.push(self.disk.clone());
        };
        Outcome {
            result,
            after: self.disk.clone(),
            durable: false,
        }
    }
}

fn zero_mapped(image: &Image, range: ByteRange, disk: &mut [u8]) {
    let (chunk, size) = (image.chunk_size().bytes(), disk.len() as u64);
    for (old, _, count) in image.exceptions() {
        for old in old.0..old.0 + count {
            let (start, end) = (old * chunk, ((old + 1) * chunk).min(size));
            if range.start <= start && end <= range.end() && start < end {
                disk[start as usize..end as usize].fill(0);
            }
        }
    }
}
