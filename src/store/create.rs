//! Making a new store, and how large one gets.

use std::sync::Arc;

use super::plan::{Device, Plan, Purpose, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor, Geometry, Header};
use crate::units::{ByteRange, ChunkSize, SECTOR_SIZE};

/// What a new store looks like.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Size of a chunk.
    pub chunk_size: ChunkSize,
    /// The image descriptor; without one the store is bare. It needs chunks of at least 4096 bytes.
    pub descriptor: Option<Descriptor>,
    /// Whether the COW file may hold anything already and has a fixed size, as a block device.
    pub fixed_size: bool,
}

/// The plan that makes a new store. What was a store before is none any more as soon as anything else of it changes, and the header's
/// magic comes last: until then the file is no store.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if a descriptor has no room in the chunk or is not legal.
pub fn format_plan(options: &FormatOptions) -> Result<Plan> {
    let chunk = options.chunk_size.bytes();
    let flush = Step::Flush {
        device: Device::Cow,
    };
    let first_sector: Arc<[u8]> = vec![0; SECTOR_SIZE as usize].into();
    let mut steps = Vec::new();
    if !options.fixed_size {
        steps.push(Step::SetSize {
            device: Device::Cow,
            size: 2 * chunk,
        });
    }
    steps.push(Step::Write {
        device: Device::Cow,
        offset: 0,
        data: first_sector,
    });
    steps.push(flush.clone());
    steps.extend(super::log::zero_steps(ByteRange::new(chunk, chunk)));
    steps.extend(descriptor_steps(options)?);
    steps.push(flush.clone());
    let mut sector = vec![0; SECTOR_SIZE as usize];
    let header = Header::new(options.chunk_size).encode();
    sector[..header.len()].copy_from_slice(&header);
    steps.push(Step::Write {
        device: Device::Cow,
        offset: 0,
        data: sector.into(),
    });
    steps.push(flush);
    Ok(Plan::new(0, Purpose::Format, steps))
}

/// Both slots, so that nothing old is taken for a descriptor.
fn descriptor_steps(options: &FormatOptions) -> Result<Vec<Step>> {
    let room = Descriptor::require_room(options.chunk_size);
    if room.is_err() && options.descriptor.is_none() {
        return Ok(Vec::new());
    }
    let [first, second] = room?;
    let empty = [0; DESCRIPTOR_SLOT_SIZE];
    let record = match &options.descriptor {
        Some(descriptor) => descriptor.encode()?,
        None => empty,
    };
    let slots = [(first, record), (second, empty)];
    let write = |(offset, data): (u64, [u8; DESCRIPTOR_SLOT_SIZE])| Step::Write {
        device: Device::Cow,
        offset,
        data: data[..].into(),
    };
    Ok(slots.into_iter().map(write).collect())
}

/// Sizes of a COW file in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// For the chunks that are mapped.
    pub required: u64,
    /// For a disk of which every chunk is mapped.
    pub fully_allocated: u64,
}

/// How large a COW file gets with `mapped_chunks` exceptions, and at the most, for a disk of `virtual_size` bytes.
///
/// # Errors
/// [`ErrorKind::OutOfBounds`] if no file can be that long.
pub fn measure(chunk: ChunkSize, virtual_size: u64, mapped_chunks: u64) -> Result<Measure> {
    let size = |records: u64| {
        let chunks = Geometry::new(chunk).chunks_for(records);
        chunks
            .and_then(|chunks| chunk.start_of(chunks))
            .ok_or_else(|| {
                let message = format!(
                    "no file can hold {records} chunks of {} bytes",
                    chunk.bytes()
                );
                Error::new(ErrorKind::OutOfBounds, message)
            })
    };
    Ok(Measure {
        required: size(mapped_chunks)?,
        fully_allocated: size(chunk.count_for(virtual_size))?,
    })
}
