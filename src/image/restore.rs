//! Writing metadata back to a file, as a dump gave it or as somebody mended it by hand.

use super::metadata::PIECE;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, HEADER_SIZE, Header, HeaderState};
use crate::storage::{Hold, LockMode, SharedStorage, Storage};
use crate::store::{
    CheckReader, FindingKind, LoadOptions, Plan, RawArea, RawMetadata, Severity, Step,
};
use crate::units::{ByteRange, ChunkSize, EXCEPTION_SIZE};

/// How metadata is written back.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    overwrite: bool,
    damaged: bool,
}

impl RestoreOptions {
    /// Not over a valid store, and nothing that a check calls corrupt.
    pub fn new() -> RestoreOptions {
        RestoreOptions::default()
    }

    /// Writes even where the file holds a valid store, whose metadata is lost then.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> RestoreOptions {
        self.overwrite = overwrite;
        self
    }

    /// Writes even metadata that a check calls corrupt, as it was dumped from a damaged store.
    #[must_use]
    pub fn damaged(mut self, damaged: bool) -> RestoreOptions {
        self.damaged = damaged;
        self
    }
}

/// Writes `metadata` to the file behind `storage`: header, slots of the descriptor, and each of its areas. Slots that it does not name become
/// zero. Everything else in the file stays, the data above all. Durable when it returns.
///
/// While it writes the header says "invalid", so that a restore that was stopped leaves no store that seems good.
///
/// # Errors
/// [`ErrorKind::Exists`] if the file holds a valid store; [`ErrorKind::Corrupt`] if the result would be damaged;
/// [`ErrorKind::InvalidArgument`] for metadata that no file can hold; or what the file reports. Nothing was written then, except after the
/// last.
pub fn write_metadata(
    storage: &SharedStorage,
    metadata: &RawMetadata,
    options: &RestoreOptions,
) -> Result<()> {
    let hold = Hold::take(storage, LockMode::Writer)?;
    let run = || {
        metadata.check_form()?;
        check_slots(metadata)?;
        let is_valid = holds_valid_store(&**hold.storage())?;
        if is_valid && !options.overwrite {
            let message = "holds a valid store, whose metadata would be lost";
            return Err(Error::new(ErrorKind::Exists, message));
        }
        let pieces = pieces(metadata)?;
        check_room(&**hold.storage(), &pieces)?;
        if !options.damaged {
            check(&**hold.storage(), &pieces)?;
        }
        write(&**hold.storage(), metadata, is_valid, &pieces)
    };
    run().map_err(|error: Error| error.with_path(storage.name()))
}

/// A file grows, a device does not.
fn check_room(storage: &dyn Storage, pieces: &Pieces<'_>) -> Result<()> {
    let (size, end) = (storage.size()?, pieces.end());
    if end <= size || storage.is_growable() {
        return Ok(());
    }
    let message = format!("the areas end at byte {end}, the device has {size} bytes");
    Err(Error::new(ErrorKind::NoSpace, message))
}

fn check_slots(metadata: &RawMetadata) -> Result<()> {
    let offsets = Descriptor::slot_offsets(metadata.chunk_size);
    let places = offsets.as_ref().map_or(&[][..], |offsets| &offsets[..]);
    match metadata
        .slots
        .iter()
        .find(|slot| !places.contains(&slot.offset))
    {
        None => Ok(()),
        Some(slot) => {
            let message = format!(
                "chunks of {} bytes have no slot of a descriptor at offset {}",
                metadata.chunk_size.bytes(),
                slot.offset
            );
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

fn holds_valid_store(storage: &dyn Storage) -> Result<bool> {
    let mut header = [0; HEADER_SIZE];
    if storage.size()? < HEADER_SIZE as u64 {
        return Ok(false);
    }
    storage.read_at(&mut header, 0)?;
    let found = Header::decode(&header);
    Ok(matches!(found, Ok(HeaderState::Store(header)) if header.is_valid()))
}

/// What is written, except for the header: where, and how to get the bytes. The areas are in pieces, so that memory does not follow the
/// size of a chunk.
struct Pieces<'a> {
    header: [u8; HEADER_SIZE],
    slots: Vec<(u64, &'a [u8])>,
    areas: Vec<(u64, &'a RawArea)>,
}

fn pieces(metadata: &RawMetadata) -> Result<Pieces<'_>> {
    let geometry = metadata.geometry();
    let mut areas = Vec::new();
    for area in &metadata.areas {
        let chunk = geometry.area_chunk(area.number);
        let start = chunk
            .and_then(|chunk| geometry.byte_offset(chunk))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("no file has area {}", area.number),
                )
            })?;
        areas.push((start, area));
    }
    let slots = metadata
        .slots
        .iter()
        .map(|slot| (slot.offset, &slot.bytes[..]));
    Ok(Pieces {
        header: metadata.header,
        slots: slots.collect(),
        areas,
    })
}

impl Pieces<'_> {
    /// Length that the file has at least afterwards.
    fn end(&self) -> u64 {
        let last = self.areas.last();
        last.map_or(0, |(start, area)| start + area.slots * EXCEPTION_SIZE)
    }

    /// Puts what will be written over what was read.
    fn apply(&self, range: ByteRange, bytes: &mut [u8]) {
        put(range, bytes, 0, &self.header);
        for (offset, slot) in &self.slots {
            put(range, bytes, *offset, slot);
        }
        // Reads of areas begin and end at slots.
        let first = self
            .areas
            .partition_point(|(start, area)| start + area.slots * EXCEPTION_SIZE <= range.start);
        for (start, area) in self.areas[first..]
            .iter()
            .take_while(|(start, _)| *start < range.end())
        {
            let from = range.start.max(*start);
            let end = range.end().min(start + area.slots * EXCEPTION_SIZE);
            let slot = (from - start) / EXCEPTION_SIZE;
            let piece = area.encode(slot, (end - from).div_ceil(EXCEPTION_SIZE));
            put(range, bytes, start + slot * EXCEPTION_SIZE, &piece);
        }
    }
}

/// Copies what of `new` at `offset` lies in `range`, whose bytes these are.
fn put(range: ByteRange, bytes: &mut [u8], offset: u64, new: &[u8]) {
    let end = (offset + new.len() as u64).min(range.end());
    let start = offset.max(range.start);
    if start < end {
        let (from, len) = ((start - offset) as usize, (end - start) as usize);
        let to = (start - range.start) as usize;
        bytes[to..to + len].copy_from_slice(&new[from..from + len]);
    }
}

/// Refuses what would be a damaged store. That it says it is invalid may be just what was dumped.
fn check(storage: &dyn Storage, pieces: &Pieces<'_>) -> Result<()> {
    let size = storage.size()?;
    let options = LoadOptions {
        cow_size: match storage.is_growable() {
            true => size.max(pieces.end()),
            false => size,
        },
        growable: storage.is_growable(),
        ..LoadOptions::default()
    };
    let report = match read_report(storage, size, pieces, options) {
        Err(error) if !matches!(error.kind(), ErrorKind::Io | ErrorKind::NoMemory) => {
            let message = format!("would be no store: {}", error.message());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        other => other?,
    };
    let corruptions = report
        .findings
        .iter()
        .filter(|found| found.severity == Severity::Corruption);
    let (invalid, faults): (Vec<_>, Vec<_>) =
        corruptions.partition(|found| found.kind == FindingKind::Invalid);
    match faults.first() {
        None => Ok(()),
        Some(first) => {
            // Of each kind only so many are listed, but all are counted.
            let count = report.corruptions - invalid.len() as u64;
            let message = format!("would be damaged: {} ({count} in all)", first.message);
            let error = Error::new(ErrorKind::Corrupt, message);
            Err(match first.offset {
                Some(offset) => error.with_offset(offset),
                None => error,
            })
        }
    }
}

fn read_report(
    storage: &dyn Storage,
    size: u64,
    pieces: &Pieces<'_>,
    options: LoadOptions,
) -> Result<crate::store::CheckReport> {
    let mut reader = CheckReader::new(options)?;
    while let Some(mut plan) = reader.next_plan()? {
        supply(&mut plan, storage, size, pieces)?;
        reader.finish_plan(plan)?;
    }
    reader.finish()
}

fn supply(plan: &mut Plan, storage: &dyn Storage, size: u64, pieces: &Pieces<'_>) -> Result<()> {
    for index in 0..plan.steps().len() {
        let Some(Step::Read { range, .. }) = plan.steps().get(index).cloned() else {
            continue;
        };
        let buffer = plan.buffer(index)?;
        let there = range.len.min(size.saturating_sub(range.start)) as usize;
        if there > 0 {
            storage.read_at(&mut buffer[..there], range.start)?;
        }
        pieces.apply(range, buffer);
    }
    Ok(())
}

/// Durably no good store, until its header says otherwise.
pub(super) fn say_invalid(storage: &dyn Storage, chunk_size: ChunkSize) -> Result<()> {
    let header = Header {
        valid: 0,
        ..Header::new(chunk_size)
    };
    storage.write_at(&header.encode(), 0)?;
    storage.flush()
}

fn write(
    storage: &dyn Storage,
    metadata: &RawMetadata,
    was_valid: bool,
    pieces: &Pieces<'_>,
) -> Result<()> {
    if was_valid {
        say_invalid(storage, metadata.chunk_size)?;
    }
    for (start, area) in &pieces.areas {
        let per_piece = PIECE / EXCEPTION_SIZE;
        for slot in (0..area.slots).step_by(per_piece as usize) {
            let bytes = area.encode(slot, per_piece.min(area.slots - slot));
            storage.write_at(&bytes, start + slot * EXCEPTION_SIZE)?;
        }
    }
    for (offset, bytes) in &pieces.slots {
        storage.write_at(bytes, *offset)?;
    }
    storage.flush()?;
    storage.write_at(&pieces.header, 0)?;
    storage.flush()
}
