//! Writing the image descriptor: always the slot that does not count, so that the other one survives a torn write.

use super::job::Job;
use super::plan::{Device, Purpose, Step};
use super::state::Progress;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor};
use crate::units::ByteRange;

#[derive(Debug)]
pub(crate) struct DescriptorJob {
    wanted: Option<Descriptor>,
    finished: bool,
}

impl Store {
    /// Begins to replace the descriptor; its generation is set here. `None` removes it: the store becomes bare.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the chunks are too small to hold one, or a field is not legal.
    pub fn prepare_descriptor(&mut self, wanted: Option<Descriptor>) -> Result<()> {
        if let Some(descriptor) = &wanted {
            self.slot_offsets()?;
            descriptor.encode()?;
        }
        self.begin_job(Job::Descriptor(DescriptorJob::new(wanted)))
    }

    fn slot_offsets(&self) -> Result<[u64; 2]> {
        Descriptor::slot_offsets(self.chunk_size()).ok_or_else(|| {
            let bytes = self.chunk_size().bytes();
            let message =
                format!("chunks of {bytes} bytes have no room for a descriptor, 4096 would");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }
}

impl DescriptorJob {
    pub(crate) fn new(wanted: Option<Descriptor>) -> DescriptorJob {
        DescriptorJob {
            wanted,
            finished: false,
        }
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        if self.finished || (self.wanted.is_none() && store.descriptor.is_none()) {
            return Ok(Progress::Done);
        }
        let offsets = store.slot_offsets()?;
        let (current, other) = (offsets[store.slot & 1], offsets[1 - (store.slot & 1)]);
        let flush = Step::Flush {
            device: Device::Cow,
        };
        let steps = match (&mut self.wanted, &store.descriptor) {
            (Some(wanted), Some(old)) => {
                wanted.generation = old.generation.saturating_add(1);
                vec![write(other, wanted)?, flush]
            }
            // Whatever lies in the other slot must not look like a newer one.
            (Some(wanted), None) => {
                wanted.generation = 1;
                vec![zero(current), flush.clone(), write(other, wanted)?, flush]
            }
            // The one that counts goes last.
            (None, _) => vec![zero(other), flush.clone(), zero(current), flush],
        };
        Ok(store.job_plan(Purpose::Descriptor, steps))
    }

    pub(crate) fn done(&mut self, store: &mut Store) {
        store.descriptor = self.wanted.take();
        store.slot = 1 - (store.slot & 1);
        if let Some(descriptor) = &store.descriptor {
            store.virtual_size = descriptor.virtual_size;
        }
        self.finished = true;
    }
}

fn write(offset: u64, descriptor: &Descriptor) -> Result<Step> {
    let data = descriptor.encode()?[..].into();
    Ok(Step::Write {
        device: Device::Cow,
        offset,
        data,
    })
}

fn zero(offset: u64) -> Step {
    let range = ByteRange::new(offset, DESCRIPTOR_SLOT_SIZE as u64);
    Step::WriteZeroes {
        device: Device::Cow,
        range,
        unmap: false,
    }
}
