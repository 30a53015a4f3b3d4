//! The image descriptor: what the kernel's format has no place for, kept in the header chunk behind the kernel's header.
//!
//! Two slots are written alternately, so a torn write leaves the older one. Nothing in it can be made false by a kernel that
//! writes to the store.

use std::fmt;

use bitflags::bitflags;

use super::{Uuid, array_at};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ChunkSize, MAX_FILE_SIZE, SECTOR_SIZE};

/// The first eight bytes of a slot that was ever written.
pub const DESCRIPTOR_MAGIC: [u8; 8] = *b"DMSNAPim";

/// Bytes of one slot.
pub const DESCRIPTOR_SLOT_SIZE: usize = 1536;

/// Longest name of an origin in bytes, as in qcow2.
pub const MAX_ORIGIN_NAME: usize = 1023;

/// The smallest chunk with room for two slots.
const MIN_CHUNK: u64 = 4096;

const MAGIC_OFFSET: usize = 0;
const LENGTH_OFFSET: usize = 8;
const CRC_OFFSET: usize = 12;
const GENERATION_OFFSET: usize = 16;
const INCOMPATIBLE_OFFSET: usize = 24;
const COMPATIBLE_OFFSET: usize = 32;
const VIRTUAL_SIZE_OFFSET: usize = 40;
const UUID_OFFSET: usize = 48;
const BACKING_UUID_OFFSET: usize = 64;
const BACKING_SIZE_OFFSET: usize = 80;
const NAME_LENGTH_OFFSET: usize = 88;
const FORMAT_LENGTH_OFFSET: usize = 90;
const ZERO_OFFSET: usize = 92;
const STRINGS_OFFSET: usize = 96;

bitflags! {
    /// Features that a program must know before it may open the image. None is defined yet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct IncompatibleFeatures: u64 {}
}

/// What an image knows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Counts up with each write; the higher of two slots wins.
    pub generation: u64,
    /// Features that a program must know to open the image.
    pub incompatible: IncompatibleFeatures,
    /// Features that a program may ignore; unknown bits are kept.
    pub compatible: u64,
    /// Size of the image in bytes, a multiple of 512.
    pub virtual_size: u64,
    /// Identity of this image.
    pub uuid: Uuid,
    /// Identity of the origin, where it has one.
    pub origin_uuid: Option<Uuid>,
    /// Size of the origin in bytes when the layer was made. Informative: the origin's current size counts.
    pub origin_size: u64,
    /// Name of the origin, at most 1023 bytes; a relative one starts at the image's own directory.
    pub origin_name: Option<String>,
    /// Name of the origin's format.
    pub origin_format: Option<String>,
}

/// A slot that was written and is no good any more. `Display` says which, where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDamage {
    /// Which slot: 1 or 2.
    pub slot: usize,
    /// Byte in the file at which it starts.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for SlotDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlotDamage {
            slot,
            offset,
            reason,
        } = self;
        write!(
            f,
            "slot {slot} of the image descriptor, at offset {offset}, is damaged: {reason}"
        )
    }
}

/// What one slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No magic: never written.
    Empty,
    /// Magic, but no good record: the write was interrupted, or the bytes were damaged. With the reason.
    Torn(String),
    /// A good record that needs features this library does not know: the generation and the unknown bits.
    Unsupported(u64, u64),
    /// A good record.
    Valid(Descriptor),
}

impl Descriptor {
    /// Bytes in the file at which the two slots start, or `None` for chunks under 4096 bytes, which have no room.
    ///
    /// From chunks of 16 KiB on, the 4 KiB block with the kernel's header holds no slot, so it is never rewritten.
    pub fn slot_offsets(chunk: ChunkSize) -> Option<[u64; 2]> {
        let bytes = chunk.bytes();
        match bytes {
            ..MIN_CHUNK => None,
            MIN_CHUNK => Some([SECTOR_SIZE, bytes / 2]),
            _ => Some([bytes / 4, bytes / 2]),
        }
    }

    /// Where the two slots start in chunks that have room for them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for chunks under 4096 bytes.
    pub fn require_room(chunk: ChunkSize) -> Result<[u64; 2]> {
        Descriptor::slot_offsets(chunk).ok_or_else(|| {
            let bytes = chunk.bytes();
            let message =
                format!("chunks of {bytes} bytes have no room for a descriptor, 4096 would");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    /// The bytes of a slot, zeros behind the record.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a value that no descriptor can hold: the size, or a name that is too long or has a NUL byte.
    pub fn encode(&self) -> Result<[u8; DESCRIPTOR_SLOT_SIZE]> {
        let name = self.origin_name.as_deref().unwrap_or_default();
        let format = self.origin_format.as_deref().unwrap_or_default();
        let end = STRINGS_OFFSET + name.len() + format.len();
        self.check(name, format)
            .map_err(|reason| Error::new(ErrorKind::InvalidArgument, reason))?;

        let mut slot = [0; DESCRIPTOR_SLOT_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| {
            slot[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(MAGIC_OFFSET, &DESCRIPTOR_MAGIC);
        put(LENGTH_OFFSET, &(end as u32).to_le_bytes());
        put(GENERATION_OFFSET, &self.generation.to_le_bytes());
        put(INCOMPATIBLE_OFFSET, &self.incompatible.bits().to_le_bytes());
        put(COMPATIBLE_OFFSET, &self.compatible.to_le_bytes());
        put(VIRTUAL_SIZE_OFFSET, &self.virtual_size.to_le_bytes());
        put(UUID_OFFSET, &self.uuid.0);
        put(
            BACKING_UUID_OFFSET,
            &self.origin_uuid.unwrap_or(Uuid::NIL).0,
        );
        put(BACKING_SIZE_OFFSET, &self.origin_size.to_le_bytes());
        put(NAME_LENGTH_OFFSET, &(name.len() as u16).to_le_bytes());
        put(FORMAT_LENGTH_OFFSET, &(format.len() as u16).to_le_bytes());
        put(STRINGS_OFFSET, name.as_bytes());
        put(STRINGS_OFFSET + name.len(), format.as_bytes());
        let crc = record_crc(&slot[..end]);
        slot[CRC_OFFSET..GENERATION_OFFSET].copy_from_slice(&crc.to_le_bytes());
        Ok(slot)
    }

    /// Bytes of the record, names included.
    pub(crate) fn encoded_len(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        STRINGS_OFFSET + len(&self.origin_name) + len(&self.origin_format)
    }

    /// Reads one slot. Nothing in it is used before it was checked.
    pub fn decode(slot: &[u8]) -> SlotState {
        if !slot.starts_with(&DESCRIPTOR_MAGIC) {
            return SlotState::Empty;
        }
        decode_record(slot).unwrap_or_else(SlotState::Torn)
    }

    /// The slot that counts and its descriptor, or `None` for a bare store, which has no descriptor.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a slot was written but neither holds a good record; [`ErrorKind::Unsupported`] if the one that counts
    /// needs features this library does not know.
    pub fn choose(slot1: &[u8], slot2: &[u8]) -> Result<Option<(usize, Descriptor)>> {
        let slots = [slot1, slot2].map(Descriptor::decode);
        let [first, second] = slots.each_ref().map(SlotState::generation);
        // None, which is no good record, is less than any generation.
        let winner = usize::from(second > first);
        let [slot1, slot2] = slots;
        let (winning, losing) = if winner == 0 {
            (slot1, slot2)
        } else {
            (slot2, slot1)
        };
        match (winning, losing) {
            (SlotState::Valid(descriptor), _) => Ok(Some((winner, descriptor))),
            (SlotState::Unsupported(_, bits), _) => Err(unsupported(bits)),
            (SlotState::Empty, SlotState::Empty) => Ok(None),
            (SlotState::Torn(reason), SlotState::Torn(other)) => {
                Err(damaged(format!("{reason}; other slot: {other}")))
            }
            (SlotState::Torn(reason), _) | (_, SlotState::Torn(reason)) => Err(damaged(reason)),
            // Not reached: a good record wins over an empty slot.
            (SlotState::Empty, _) => Ok(None),
        }
    }

    /// The slots that are neither blank nor good; `bases` are the bytes of the file at which they start. A slot is blank if its first sector
    /// is: that one is written last and never torn, so what is found here is damage, not the trace of a power cut.
    pub fn damage(slots: [&[u8]; 2], bases: [u64; 2]) -> Vec<SlotDamage> {
        let number = [1, 2];
        let all = number.into_iter().zip(slots).zip(bases);
        all.filter_map(|((slot, bytes), offset)| {
            let reason = match Descriptor::decode(bytes) {
                SlotState::Valid(_) | SlotState::Unsupported(..) => return None,
                SlotState::Torn(reason) => reason,
                SlotState::Empty => {
                    let first = bytes.get(..SECTOR_SIZE as usize).unwrap_or(bytes);
                    if first.iter().all(|byte| *byte == 0) {
                        return None;
                    }
                    "neither blank nor with the magic DMSNAPim".to_owned()
                }
            };
            Some(SlotDamage {
                slot,
                offset,
                reason,
            })
        })
        .collect()
    }

    /// What both sides demand of the values, with the reason if one does not hold.
    fn check(&self, name: &str, format: &str) -> std::result::Result<(), String> {
        let size = self.virtual_size;
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(format!(
                "virtual size {size} is not a multiple of {SECTOR_SIZE}"
            ));
        }
        if size > MAX_FILE_SIZE {
            return Err(format!("virtual size {size} is above {MAX_FILE_SIZE}"));
        }
        if name.len() > MAX_ORIGIN_NAME {
            let len = name.len();
            return Err(format!(
                "backing name of {len} bytes, at most {MAX_ORIGIN_NAME} are possible"
            ));
        }
        let end = STRINGS_OFFSET + name.len() + format.len();
        if end > DESCRIPTOR_SLOT_SIZE {
            return Err(format!(
                "{end} bytes long with its names, a slot has {DESCRIPTOR_SLOT_SIZE}"
            ));
        }
        for (what, text) in [("backing name", name), ("backing format", format)] {
            if text.contains('\0') {
                return Err(format!("{what} contains a NUL byte"));
            }
        }
        Ok(())
    }
}

impl SlotState {
    /// Generation of a good record.
    fn generation(&self) -> Option<u64> {
        match self {
            SlotState::Valid(descriptor) => Some(descriptor.generation),
            SlotState::Unsupported(generation, _) => Some(*generation),
            SlotState::Empty | SlotState::Torn(_) => None,
        }
    }
}

/// A slot that starts with the magic; `Err` says why it holds no good record.
fn decode_record(slot: &[u8]) -> std::result::Result<SlotState, String> {
    let record = checked_record(slot)?;
    let generation = u64_at(record, GENERATION_OFFSET)?;
    let incompatible = u64_at(record, INCOMPATIBLE_OFFSET)?;
    let known = IncompatibleFeatures::from_bits_truncate(incompatible);
    let unknown = incompatible & !known.bits();
    if unknown != 0 {
        // What follows may have another meaning.
        return Ok(SlotState::Unsupported(generation, unknown));
    }
    let zero = u32::from_le_bytes(field(record, ZERO_OFFSET)?);
    if zero != 0 {
        return Err(format!("reserved field is {zero:#x}, wanted 0"));
    }
    let (name, format) = names(record)?;
    let origin_uuid = Uuid(field(record, BACKING_UUID_OFFSET)?);
    let descriptor = Descriptor {
        generation,
        incompatible: known,
        compatible: u64_at(record, COMPATIBLE_OFFSET)?,
        virtual_size: u64_at(record, VIRTUAL_SIZE_OFFSET)?,
        uuid: Uuid(field(record, UUID_OFFSET)?),
        origin_uuid: (!origin_uuid.is_nil()).then_some(origin_uuid),
        origin_size: u64_at(record, BACKING_SIZE_OFFSET)?,
        origin_name: (!name.is_empty()).then(|| name.to_string()),
        origin_format: (!format.is_empty()).then(|| format.to_string()),
    };
    descriptor.check(name, format)?;
    Ok(SlotState::Valid(descriptor))
}

/// The record's bytes, once its length is possible and its checksum right.
fn checked_record(slot: &[u8]) -> std::result::Result<&[u8], String> {
    let slot = slot.get(..DESCRIPTOR_SLOT_SIZE).unwrap_or(slot);
    let length = u32::from_le_bytes(field(slot, LENGTH_OFFSET)?);
    let record = usize::try_from(length)
        .ok()
        .filter(|&length| length >= STRINGS_OFFSET)
        .and_then(|length| slot.get(..length))
        .ok_or_else(|| {
            let most = slot.len();
            format!("record length {length}, wanted {STRINGS_OFFSET} to {most}")
        })?;
    let stored = u32::from_le_bytes(field(record, CRC_OFFSET)?);
    let computed = record_crc(record);
    if stored != computed {
        return Err(format!("checksum {stored:08x}, wanted {computed:08x}"));
    }
    Ok(record)
}

/// Name and format name of the backing image; they fill the record to its end.
fn names(record: &[u8]) -> std::result::Result<(&str, &str), String> {
    let name_len = usize::from(u16::from_le_bytes(field(record, NAME_LENGTH_OFFSET)?));
    let format_len = usize::from(u16::from_le_bytes(field(record, FORMAT_LENGTH_OFFSET)?));
    let strings = record.get(STRINGS_OFFSET..).unwrap_or_default();
    if name_len + format_len != strings.len() {
        let have = strings.len();
        return Err(format!(
            "names of {name_len} and {format_len} bytes in a record with {have}"
        ));
    }
    let (name, format) = strings.split_at_checked(name_len).unwrap_or_default();
    Ok((text(name, "backing name")?, text(format, "backing format")?))
}

fn text<'a>(bytes: &'a [u8], what: &str) -> std::result::Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("{what} is not UTF-8: {error}"))
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> std::result::Result<[u8; N], String> {
    array_at(bytes, offset).ok_or_else(|| {
        let (len, end) = (bytes.len(), offset + N);
        format!("cut off after {len} bytes, wanted at least {end}")
    })
}

fn u64_at(bytes: &[u8], offset: usize) -> std::result::Result<u64, String> {
    field(bytes, offset).map(u64::from_le_bytes)
}

/// CRC-32 of a record of at least [`GENERATION_OFFSET`] bytes, its own field taken as zero.
fn record_crc(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..CRC_OFFSET]);
    hasher.update(&[0; GENERATION_OFFSET - CRC_OFFSET]);
    hasher.update(&record[GENERATION_OFFSET..]);
    hasher.finalize()
}

fn damaged(reason: String) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the image descriptor is damaged: {reason}"),
    )
}

fn unsupported(bits: u64) -> Error {
    let numbers: Vec<String> = (0..u64::BITS)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| bit.to_string())
        .collect();
    let list = numbers.join(", ");
    Error::new(
        ErrorKind::Unsupported,
        format!("the image needs features this library does not know: incompatible bits {list}"),
    )
}

#[cfg(test)]
mod tests;
