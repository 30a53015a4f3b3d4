//! Reading the metadata of a file as it is, damaged or not.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor, Geometry, HEADER_SIZE, Header, HeaderState};
use crate::storage::{Hold, LockMode, SharedStorage, Storage};
use crate::store::{RawArea, RawMetadata, RawSlot, memory};
use crate::units::{ChunkSize, EXCEPTION_SIZE};

/// The largest single transfer.
pub(super) const PIECE: u64 = 1 << 20;

/// How metadata is read.
#[derive(Clone, Copy, Debug)]
pub struct MetadataOptions {
    pub(super) lock: bool,
    pub(super) chunk_size: Option<ChunkSize>,
    pub(super) all_areas: bool,
}

impl Default for MetadataOptions {
    fn default() -> MetadataOptions {
        MetadataOptions {
            lock: true,
            chunk_size: None,
            all_areas: false,
        }
    }
}

impl MetadataOptions {
    /// Up to the end of the log, with a lock.
    pub fn new() -> MetadataOptions {
        MetadataOptions::default()
    }

    /// Whether the file is locked against other programs, the default.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> MetadataOptions {
        self.lock = lock;
        self
    }

    /// Size of a chunk, for a file whose header does not tell it any more.
    #[must_use]
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> MetadataOptions {
        self.chunk_size = Some(chunk_size);
        self
    }

    /// Goes on behind the end of the log, through all areas of the file in which there is something.
    #[must_use]
    pub fn all_areas(mut self, all: bool) -> MetadataOptions {
        self.all_areas = all;
        self
    }
}

/// Reads the metadata of the store in `storage` as it lies there. Nothing of it is checked.
///
/// # Errors
/// [`ErrorKind::InvalidFormat`], [`ErrorKind::Unsupported`] or [`ErrorKind::Corrupt`] if the header does not tell the size of a chunk and the
/// options do not either; [`ErrorKind::InvalidArgument`] if they contradict each other; [`ErrorKind::NoMemory`]; or what the file reports.
pub fn read_metadata(storage: &SharedStorage, options: &MetadataOptions) -> Result<RawMetadata> {
    let hold = Hold::take(storage, LockMode::reader_if(options.lock))?;
    read(&**hold.storage(), options).map_err(|error| error.with_path(storage.name()))
}

pub(super) fn read(storage: &dyn Storage, options: &MetadataOptions) -> Result<RawMetadata> {
    let size = storage.size()?;
    let mut header = [0; HEADER_SIZE];
    let len = size.min(HEADER_SIZE as u64) as usize;
    storage.read_at(&mut header[..len], 0)?;
    let chunk_size = chunk_size(&header, options.chunk_size)?;
    let mut metadata = RawMetadata {
        header,
        chunk_size,
        slots: slots(storage, chunk_size, size)?,
        areas: Vec::new(),
        missing_area: None,
    };
    let reader = Reader {
        storage,
        geometry: Geometry::new(chunk_size),
        size,
    };
    let ends_at = reader.log(&mut metadata)?;
    if options.all_areas {
        reader.areas_from(ends_at + 1, &mut metadata)?;
    }
    Ok(metadata)
}

/// What the header says, or else what the caller knows.
fn chunk_size(header: &[u8; HEADER_SIZE], given: Option<ChunkSize>) -> Result<ChunkSize> {
    let found = match Header::decode(header) {
        Ok(HeaderState::Store(header)) => Ok(header.chunk_size),
        Ok(HeaderState::Blank) => Err(Error::new(
            ErrorKind::InvalidFormat,
            "the header is blank and does not tell the size of a chunk",
        )),
        Err(error) => Err(error),
    };
    match (found, given) {
        (Ok(found), Some(given)) if found != given => {
            let message = format!(
                "the header is good and says chunks of {} bytes, not {}",
                found.bytes(),
                given.bytes()
            );
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
        (Err(_), Some(given)) => Ok(given),
        (found, _) => found,
    }
}

/// The slots of the descriptor that lie in the file.
fn slots(storage: &dyn Storage, chunk_size: ChunkSize, size: u64) -> Result<Vec<RawSlot>> {
    let offsets = Descriptor::slot_offsets(chunk_size).into_iter().flatten();
    let inside = offsets.filter(|offset| offset + DESCRIPTOR_SLOT_SIZE as u64 <= size);
    let read = |offset| {
        let mut bytes = [0; DESCRIPTOR_SLOT_SIZE];
        storage.read_at(&mut bytes, offset)?;
        Ok(RawSlot { offset, bytes })
    };
    inside.map(read).collect()
}

struct Reader<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    size: u64,
}

impl Reader<'_> {
    /// The areas of the log. Returns the number of the last one.
    fn log(&self, metadata: &mut RawMetadata) -> Result<u64> {
        for number in 0.. {
            let Some(area) = self.area(number)? else {
                metadata.missing_area = Some(number);
                return Ok(number);
            };
            let ends = area.terminator().is_some();
            let is_whole = area.slots == self.geometry.exceptions_per_area();
            memory::push(&mut metadata.areas, area)?;
            if ends {
                return Ok(number);
            }
            if !is_whole {
                metadata.missing_area = Some(number);
                return Ok(number);
            }
        }
        Ok(0)
    }

    /// Area `number`, as much of it as the file has.
    fn area(&self, number: u64) -> Result<Option<RawArea>> {
        let Some(start) = self.start(number).filter(|start| *start < self.size) else {
            return Ok(None);
        };
        let end = start + self.geometry.chunk_size().bytes().min(self.size - start);
        let mut area = RawArea::new(number);
        let mut bytes = Vec::new();
        let mut at = start;
        while at < end {
            let len = PIECE.min(end - at) / EXCEPTION_SIZE * EXCEPTION_SIZE;
            if len == 0 {
                break;
            }
            memory::reserve(&mut bytes, len as usize)?;
            bytes.resize(len as usize, 0);
            self.storage.read_at(&mut bytes, at)?;
            area.append(&bytes)?;
            bytes.clear();
            at += len;
        }
        Ok((area.slots > 0).then_some(area))
    }

    fn start(&self, number: u64) -> Option<u64> {
        self.geometry.byte_offset(self.geometry.area_chunk(number)?)
    }

    /// The areas from `first` on that hold something. Skips what the file has no space for, so the work follows what is there.
    fn areas_from(&self, first: u64, metadata: &mut RawMetadata) -> Result<()> {
        let mut number = first;
        while let Some(start) = self.start(number).filter(|start| *start < self.size) {
            let extent = self.storage.extent_at(start)?;
            if !extent.allocated && extent.len >= self.geometry.chunk_size().bytes() {
                let stride = self.geometry.stride() * self.geometry.chunk_size().bytes();
                number += 1.max(extent.len / stride);
                continue;
            }
            if let Some(area) = self.area(number)?.filter(|area| !area.runs.is_empty()) {
                memory::push(&mut metadata.areas, area)?;
            }
            number += 1;
        }
        Ok(())
    }
}
