//! Recovering without a copy: the damaged file itself gets a good log.
//!
//! No record moves except into the slot of one that is left out, and each stands in both places before the first is cleared. Those that are
//! left out are marked before anything else: or else the last of some that contradict each other would be believed, or one that pointed
//! past the end when the file is longer. The header says "invalid" until all is done. So a recovery that was stopped can be done again and
//! gives back the same exceptions. What it left out it does not know any more, where that has been overwritten.

use std::path::Path;

use super::metadata::PIECE;
use super::open::open_file;
use super::recover::{Finds, HeaderFound, RecoverOptions, RecoverReport};
use super::restore::say_invalid;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor, Exception, Geometry, Header};
use crate::storage::{Hold, LockMode, SharedStorage, Storage};
use crate::store::{RawMetadata, memory};
use crate::units::{ByteRange, EXCEPTION_SIZE};

/// As [`recover`](crate::recover), but writes to the damaged file itself. What is left out is lost for good then: work on a copy.
///
/// If it is stopped, it can be done again and gives back the same exceptions; the report may not list any more what the first one left
/// out, and calls the store invalidated, as which it is marked meanwhile.
///
/// # Errors
/// As [`recover`](crate::recover); [`ErrorKind::NoSpace`] for a device that has no room for the area behind a full one.
pub fn recover_in_place(path: impl AsRef<Path>, options: &RecoverOptions) -> Result<RecoverReport> {
    let path = path.as_ref();
    recover_here(&open_file(path, true, false)?, Some(path), options)
}

/// As [`recover_in_place`], in `storage`.
///
/// # Errors
/// As [`recover_in_place`].
pub fn recover_storage_in_place(
    storage: &SharedStorage,
    options: &RecoverOptions,
) -> Result<RecoverReport> {
    recover_here(storage, None, options)
}

fn recover_here(
    storage: &SharedStorage,
    path: Option<&Path>,
    options: &RecoverOptions,
) -> Result<RecoverReport> {
    let hold = Hold::take(storage, LockMode::Writer)?;
    let run = || {
        let finds = Finds::read(&**hold.storage(), options, (path, path))?;
        let change = Change::new(&**hold.storage(), &finds, options)?;
        let changed = change.is_needed();
        if changed {
            change.run()?;
        }
        Ok(RecoverReport {
            changed,
            ..finds.report()
        })
    };
    run().map_err(|error: Error| error.with_path(storage.name()))
}

/// What is to be written.
struct Change<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    header: [u8; 16],
    was_valid: bool,
    /// Slots of the log whose records are left out.
    marked: Vec<(u64, Exception)>,
    /// Slots of the log that get another record.
    filled: Vec<(u64, Exception)>,
    /// Records of the new log.
    len: u64,
    /// Whether something stands behind them in their area, or the area is not there.
    wants_end: bool,
    /// Bytes for the descriptor's slots, in the order in which they are written.
    slots: Vec<(u64, Vec<u8>)>,
}

impl<'a> Change<'a> {
    fn new(
        storage: &'a dyn Storage,
        finds: &Finds,
        options: &RecoverOptions,
    ) -> Result<Change<'a>> {
        let geometry = finds.metadata.geometry();
        let was_valid = finds.header == HeaderFound::Valid;
        let (len, filled) = new_log(finds)?;
        let header = match was_valid {
            true => finds.metadata.header,
            false => Header::new(finds.metadata.chunk_size).encode(),
        };
        let left_out = finds.sifted.left_out.iter();
        let change = Change {
            marked: memory::collect(left_out.map(|left| (left.index, left.marked())))?,
            storage,
            geometry,
            header,
            was_valid,
            filled,
            len,
            wants_end: !ends_clean(&finds.metadata, len),
            slots: slots(finds, options)?,
        };
        change.check_room()?;
        Ok(change)
    }

    fn is_needed(&self) -> bool {
        !self.was_valid || !self.filled.is_empty() || self.wants_end || !self.slots.is_empty()
    }

    /// The area in which the new log ends.
    fn last_area(&self) -> Result<ByteRange> {
        let (area, _) = self.geometry.area_and_slot(self.len);
        let chunk = self.geometry.area_chunk(area);
        let start = chunk.and_then(|chunk| self.geometry.byte_offset(chunk));
        let range =
            start.and_then(|start| ByteRange::checked(start, self.geometry.chunk_size().bytes()));
        range.ok_or_else(|| {
            let message = format!("no file can hold metadata area {area}");
            Error::new(ErrorKind::OutOfBounds, message)
        })
    }

    /// Before anything is written.
    fn check_room(&self) -> Result<()> {
        let end = self.last_area()?.end();
        let size = self.storage.size()?;
        if end <= size || self.storage.is_growable() {
            return Ok(());
        }
        let message = format!(
            "the log needs a metadata area that ends at byte {end}, the device has {size} bytes: make it larger, or recover into a \
             new file"
        );
        Err(Error::new(ErrorKind::NoSpace, message))
    }

    fn run(&self) -> Result<()> {
        let storage = self.storage;
        if self.was_valid {
            say_invalid(storage, self.geometry.chunk_size())?;
        }
        self.write_records(&self.marked)?;
        let area = self.last_area()?;
        if storage.size()? < area.end() {
            storage.set_size(area.end())?;
        }
        self.write_records(&self.filled)?;
        self.clear_behind(area)?;
        // Should a slot be torn, no record past the end of the disk is to be left that puts that end in doubt.
        storage.flush()?;
        for (offset, bytes) in &self.slots {
            storage.write_at(bytes, *offset)?;
            storage.flush()?;
        }
        storage.write_at(&self.header, 0)?;
        storage.flush()
    }

    fn write_records(&self, records: &[(u64, Exception)]) -> Result<()> {
        for (index, record) in records {
            self.storage
                .write_at(&record.encode(), self.slot(*index)?)?;
        }
        self.storage.flush()
    }

    fn slot(&self, index: u64) -> Result<u64> {
        self.geometry.slot_offset(index).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a record was read where no file has a byte",
            )
        })
    }

    /// Zeros from the end of the log to the end of its area.
    fn clear_behind(&self, area: ByteRange) -> Result<()> {
        let (_, slot) = self.geometry.area_and_slot(self.len);
        let mut at = area.start + slot * EXCEPTION_SIZE;
        while at < area.end() {
            let len = PIECE.min(area.end() - at);
            self.storage.write_at(&vec![0; len as usize], at)?;
            at += len;
        }
        Ok(())
    }
}

/// The length of the new log, and the slots that get another record: those of records that are left out, from the last good ones.
fn new_log(finds: &Finds) -> Result<(u64, Vec<(u64, Exception)>)> {
    let mut good = memory::collect(finds.sifted.good.iter().copied())?;
    good.sort_unstable_by_key(|(index, _)| *index);
    let len = good.len() as u64;
    let stays = good.partition_point(|(index, _)| *index < len);
    let mut moving = good[stays..].iter();
    let mut staying = good[..stays].iter().peekable();
    let mut filled = Vec::new();
    for index in 0..len {
        if staying.next_if(|(at, _)| *at == index).is_none()
            && let Some((_, record)) = moving.next()
        {
            memory::push(&mut filled, (index, *record))?;
        }
    }
    Ok((len, filled))
}

/// Whether the log ends with record `len` already, with nothing behind.
fn ends_clean(metadata: &RawMetadata, len: u64) -> bool {
    let per_area = metadata.geometry().exceptions_per_area();
    let (number, slot) = metadata.geometry().area_and_slot(len);
    let area = metadata.areas.get(number as usize);
    area.is_some_and(|area| {
        let last = area.runs.last().map_or(0, |run| run.slot + run.count);
        area.slots == per_area && area.terminator() == Some(slot) && last <= slot
    })
}

/// The slots of the descriptor, where they are not what they have to be.
fn slots(finds: &Finds, options: &RecoverOptions) -> Result<Vec<(u64, Vec<u8>)>> {
    let Some((offsets, [first, second])) = finds.metadata.descriptor_slots() else {
        return Ok(Vec::new());
    };
    let chosen = Descriptor::choose(&first, &second);
    let is_bare = matches!(chosen, Ok(None));
    let old = chosen.ok().flatten();
    // The good one goes last, when there is another.
    let [this, other] = match old {
        Some((0, _)) => [offsets[1], offsets[0]],
        _ => offsets,
    };
    let old = old.map(|(_, descriptor)| descriptor);
    let is_good = finds.damage.is_empty() && old == finds.facts.descriptor;
    // Bytes of somebody else stay where there is no descriptor.
    let is_theirs = finds.facts.descriptor.is_none() && is_bare && !options.bare;
    // Where the file ends before a slot does, that gets its length, and the bytes that there were of it go.
    let are_whole = finds.metadata.slots.len() == offsets.len();
    if are_whole && (is_good || is_theirs) {
        return Ok(Vec::new());
    }
    let empty = vec![0; DESCRIPTOR_SLOT_SIZE];
    let wanted = match &finds.facts.descriptor {
        Some(descriptor) => Descriptor {
            generation: descriptor.generation.saturating_add(1),
            ..descriptor.clone()
        }
        .encode()?
        .to_vec(),
        None => empty.clone(),
    };
    Ok(vec![(this, wanted), (other, empty)])
}
