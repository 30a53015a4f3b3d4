//! Writing the image descriptor: always the slot that does not count, so that the other one survives.
//!
//! A slot appears and goes by one sector, which is never torn: its first, with the magic. So a power cut leaves a slot good or blank,
//! and one that is neither was damaged.

use super::job::Job;
use super::plan::{Device, Purpose, Step};
use super::state::Progress;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor};
use crate::units::{ByteRange, SECTOR_SIZE};

#[derive(Debug)]
pub(crate) struct DescriptorJob {
    wanted: Option<Descriptor>,
    finished: bool,
    /// Given up after a plan that may have been carried out in part: the old one is to count.
    undone: bool,
}

impl Store {
    /// Begins to replace the descriptor; its generation is set here. `None` removes it: the store becomes bare.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the chunks are too small to hold one, a field is not legal, or the size differs from that of the
    /// present descriptor, which [`Store::prepare_resize`] changes, or a bare store has exceptions past the end that it gives; [`ErrorKind::Corrupt`] if a descriptor slot is damaged and there are
    /// exceptions past the end that the new one gives: the disk may have been larger; [`ErrorKind::Unsupported`] if no generation is left
    /// for another one; [`ErrorKind::MergeFailed`] after a merge that failed; [`ErrorKind::Busy`] while another job is under way.
    pub fn prepare_descriptor(&mut self, wanted: Option<Descriptor>) -> Result<()> {
        if let Some(descriptor) = &wanted {
            Descriptor::require_room(self.chunk_size())?;
            descriptor.encode()?;
            self.check_end(descriptor.virtual_size)?;
            if self.descriptor.is_none() && self.reaches_past(descriptor.virtual_size) {
                let message = format!(
                    "exceptions reach up to {} bytes, and would be lost from a disk of {}",
                    self.least_size(),
                    descriptor.virtual_size
                );
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            self.next_generation()?;
            // Where a slot is damaged, the other one may have another size than the disk.
            let known = self.descriptor.is_some() && self.damage.is_empty();
            if known && descriptor.virtual_size != self.virtual_size {
                let message = format!(
                    "the disk has {} bytes, not {}: its size is changed by a resize",
                    self.virtual_size, descriptor.virtual_size
                );
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        self.begin_job(Job::Descriptor(DescriptorJob::new(wanted)))
    }

    /// What makes the next descriptor the one that counts.
    pub(crate) fn next_generation(&self) -> Result<u64> {
        let generation = self.descriptor.as_ref().map_or(0, |old| old.generation);
        generation.checked_add(1).ok_or_else(|| {
            let message = "the descriptor has the last generation there is: none could replace it";
            Error::new(ErrorKind::Unsupported, message)
        })
    }
}

impl DescriptorJob {
    pub(crate) fn new(wanted: Option<Descriptor>) -> DescriptorJob {
        DescriptorJob {
            wanted,
            finished: false,
            undone: false,
        }
    }

    pub(crate) fn undo(&mut self) {
        self.undone = true;
    }

    pub(crate) fn is_undone(&self) -> bool {
        self.undone
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        let nothing_there = store.descriptor.is_none() && store.damage.is_empty();
        if self.finished || (self.wanted.is_none() && nothing_there) {
            return Ok(Progress::Done);
        }
        let offsets = Descriptor::require_room(store.chunk_size())?;
        let generation = store.next_generation();
        let (current, other) = (offsets[store.slot & 1], offsets[1 - (store.slot & 1)]);
        let flush = Step::Flush {
            device: Device::Cow,
        };
        let blank = |slot| zero_range(ByteRange::new(slot, SECTOR_SIZE));
        let steps = match (&mut self.wanted, &store.descriptor) {
            (Some(_), Some(_)) if self.undone => vec![blank(other), flush],
            (Some(_), None) if self.undone => vec![blank(other), blank(current), flush],
            (None, Some(old)) if self.undone => replace(current, old)?,
            (Some(wanted), Some(_)) => {
                wanted.generation = generation?;
                replace(other, wanted)?
            }
            // Whatever lies in the other slot must not look like a newer one.
            (Some(wanted), None) => {
                wanted.generation = 1;
                let [first, rest] = write_halves(other, wanted)?;
                vec![zero(current), rest, flush.clone(), first, flush]
            }
            // The one that counts goes last.
            (None, _) => {
                let rest = |slot| zero_range(rest_of(slot));
                vec![
                    blank(other),
                    flush.clone(),
                    blank(current),
                    flush.clone(),
                    rest(other),
                    rest(current),
                    flush,
                ]
            }
        };
        Ok(store.job_plan(Purpose::Descriptor, steps))
    }

    pub(crate) fn done(&mut self, store: &mut Store) {
        self.finished = true;
        if self.undone {
            return;
        }
        store.descriptor = self.wanted.take();
        store.slot = 1 - (store.slot & 1);
        store.damage.clear();
        if let Some(descriptor) = &store.descriptor {
            store.virtual_size = descriptor.virtual_size;
        }
    }
}

/// Writes over an old record. One that fits a sector replaces it at once, whatever is left of a longer one behind it.
fn replace(offset: u64, descriptor: &Descriptor) -> Result<Vec<Step>> {
    let flush = Step::Flush {
        device: Device::Cow,
    };
    let [first, rest] = write_halves(offset, descriptor)?;
    if descriptor.encoded_len() as u64 <= SECTOR_SIZE {
        return Ok(vec![first, flush]);
    }
    let blank = zero_range(ByteRange::new(offset, SECTOR_SIZE));
    Ok(vec![
        blank,
        flush.clone(),
        rest,
        flush.clone(),
        first,
        flush,
    ])
}

/// The slot in two writes: its first sector, and the rest.
fn write_halves(offset: u64, descriptor: &Descriptor) -> Result<[Step; 2]> {
    let slot = descriptor.encode()?;
    let (first, rest) = slot.split_at(SECTOR_SIZE as usize);
    let write = |offset, data: &[u8]| Step::Write {
        device: Device::Cow,
        offset,
        data: data.into(),
    };
    Ok([write(offset, first), write(rest_of(offset).start, rest)])
}

/// A slot without its first sector.
fn rest_of(offset: u64) -> ByteRange {
    ByteRange::new(
        offset + SECTOR_SIZE,
        DESCRIPTOR_SLOT_SIZE as u64 - SECTOR_SIZE,
    )
}

fn zero(offset: u64) -> Step {
    zero_range(ByteRange::new(offset, DESCRIPTOR_SLOT_SIZE as u64))
}

fn zero_range(range: ByteRange) -> Step {
    Step::WriteZeroes {
        device: Device::Cow,
        range,
        unmap: false,
    }
}
