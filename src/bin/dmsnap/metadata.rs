//! A store's metadata as JSON: what `dump` prints and `restore` reads. People may edit it in between.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use dmsnap::format::{
    DESCRIPTOR_SLOT_SIZE, Descriptor, Exception, HEADER_SIZE, IncompatibleFeatures, SNAP_MAGIC,
    SlotState, Uuid,
};
use dmsnap::store::{RawArea, RawMetadata, RawRun, RawSlot};
use dmsnap::{ChunkSize, CowChunk, OriginChunk};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::failure::{Failure, Result};
use crate::output;

/// Everything that a restore writes.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Metadata {
    /// In sectors; the header's word on it may be damaged.
    chunk_size_sectors: u32,
    header: HeaderFields,
    /// Those that are not blank.
    descriptor_slots: Vec<Slot>,
    #[serde(deserialize_with = "list")]
    areas: Vec<Area>,
    /// Where the log goes on outside the file. Only told, not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing_area: Option<u64>,
}

/// The header, field by field.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HeaderFields {
    /// Hexadecimal digits, where it is not "SnAp".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    magic: Option<String>,
    valid: u32,
    version: u32,
    chunk_size_sectors: u32,
}

/// A slot of the descriptor: in words where it is good, else its bytes.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Slot {
    slot: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    descriptor: Option<DescriptorFields>,
    /// Hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    /// Why it is no good. Only told, not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// A descriptor, field by field.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DescriptorFields {
    pub(crate) generation: u64,
    pub(crate) incompatible_features: u64,
    pub(crate) compatible_features: u64,
    pub(crate) virtual_size: u64,
    pub(crate) uuid: String,
    pub(crate) backing_uuid: Option<String>,
    pub(crate) backing_size: u64,
    pub(crate) backing_filename: Option<String>,
    pub(crate) backing_filename_format: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Area {
    area: u64,
    /// Where the file ends inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots: Option<u64>,
    /// Slot that ends the log, if this area does. Only told, not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    #[serde(deserialize_with = "list")]
    records: Vec<Run>,
}

/// Records in slots next to each other that go up by one on both sides.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Run {
    slot: u64,
    old_chunk: u64,
    new_chunk: u64,
    count: u64,
}

impl Metadata {
    /// What was found in a file; `path` is for errors.
    pub(crate) fn new(raw: &RawMetadata, path: &Path) -> Result<Metadata> {
        let slots = (1..).zip(&raw.slots);
        let is_blank = |slot: &RawSlot| slot.bytes.iter().all(|byte| *byte == 0);
        Ok(Metadata {
            chunk_size_sectors: raw.chunk_size.sectors() as u32,
            header: HeaderFields::new(&raw.header),
            descriptor_slots: slots
                .filter(|(_, slot)| !is_blank(slot))
                .map(|(number, slot)| Slot::new(number, slot))
                .collect(),
            areas: collect(
                raw.areas.iter().map(|area| Area::new(area, raw, path)),
                path,
            )?,
            missing_area: raw.missing_area,
        })
    }

    /// What is to be written; `path` is the file that says so.
    pub(crate) fn to_raw(&self, path: &Path) -> Result<RawMetadata> {
        let wrong = |what: String| Failure::at(path, what);
        let chunk_size = ChunkSize::from_sectors(self.chunk_size_sectors)
            .map_err(|error| wrong(error.message().to_owned()))?;
        let offsets = Descriptor::slot_offsets(chunk_size);
        let mut slots: Vec<RawSlot> = offsets.into_iter().flatten().map(RawSlot::blank).collect();
        for slot in &self.descriptor_slots {
            let place = slot
                .slot
                .checked_sub(1)
                .and_then(|index| slots.get_mut(index));
            let place = place.ok_or_else(|| {
                wrong(format!(
                    "no slot {} of the descriptor in such chunks",
                    slot.slot
                ))
            })?;
            place.bytes = slot
                .to_bytes()
                .map_err(|why| wrong(format!("slot {} of the descriptor: {why}", slot.slot)))?;
        }
        let per_area = chunk_size.exceptions_per_area();
        let areas = self.areas.iter().map(|area| area.to_raw(per_area, path));
        Ok(RawMetadata {
            header: self.header.to_bytes().map_err(wrong)?,
            chunk_size,
            slots,
            areas: collect(areas, path)?,
            missing_area: None,
        })
    }
}

impl Metadata {
    /// For people.
    pub(crate) fn print(&self) -> Result<()> {
        let HeaderFields {
            magic,
            valid,
            version,
            chunk_size_sectors: chunk_size,
        } = &self.header;
        let magic = magic
            .as_ref()
            .map_or(String::new(), |magic| format!("magic={magic} "));
        output::line(format_args!(
            "header: {magic}valid={valid} version={version} chunk_size={chunk_size} sectors"
        ))?;
        for slot in &self.descriptor_slots {
            let damage = slot.damage.as_deref().unwrap_or("good");
            output::line(format_args!("descriptor slot {}: {damage}", slot.slot))?;
            match (&slot.descriptor, &slot.bytes) {
                (Some(descriptor), _) => descriptor.print()?,
                (None, Some(bytes)) => output::line(format_args!("    {bytes}"))?,
                (None, None) => {}
            }
        }
        self.areas.iter().try_for_each(Area::print)?;
        match self.missing_area {
            Some(area) => output::line(format_args!(
                "the log goes on in area {area}, behind the end of the file"
            )),
            None => Ok(()),
        }
    }
}

impl HeaderFields {
    fn new(bytes: &[u8; HEADER_SIZE]) -> HeaderFields {
        let (words, _) = bytes.as_chunks::<4>();
        let [magic, valid, version, chunk_size] =
            [0, 1, 2, 3].map(|word| words.get(word).copied().unwrap_or_default());
        HeaderFields {
            magic: (magic != SNAP_MAGIC).then(|| to_hex(&magic)),
            valid: u32::from_le_bytes(valid),
            version: u32::from_le_bytes(version),
            chunk_size_sectors: u32::from_le_bytes(chunk_size),
        }
    }

    fn to_bytes(&self) -> std::result::Result<[u8; HEADER_SIZE], String> {
        let magic = match &self.magic {
            None => SNAP_MAGIC.to_vec(),
            Some(text) => from_hex(text).ok_or("the header's magic is not hexadecimal")?,
        };
        let numbers = [self.valid, self.version, self.chunk_size_sectors];
        let bytes = [magic, numbers.map(u32::to_le_bytes).concat()].concat();
        bytes
            .try_into()
            .map_err(|_| "the header's magic has four bytes".to_owned())
    }
}

impl Slot {
    fn new(slot: usize, raw: &RawSlot) -> Slot {
        let (descriptor, damage) = match Descriptor::decode(&raw.bytes) {
            SlotState::Valid(descriptor) => (Some(descriptor), None),
            SlotState::Torn(why) => (None, Some(why)),
            SlotState::Empty => (None, Some("without the magic DMSNAPim".to_owned())),
            SlotState::Unsupported(..) => (None, Some("it needs unknown features".to_owned())),
        };
        // Bytes behind the record are not ours, but they are there.
        let whole = descriptor
            .filter(|descriptor| descriptor.encode().is_ok_and(|bytes| bytes == raw.bytes));
        Slot {
            slot,
            bytes: whole.is_none().then(|| to_hex(&raw.bytes)),
            descriptor: whole.as_ref().map(DescriptorFields::from),
            damage,
        }
    }

    fn to_bytes(&self) -> std::result::Result<[u8; DESCRIPTOR_SLOT_SIZE], String> {
        match (&self.descriptor, &self.bytes) {
            (Some(descriptor), None) => {
                let descriptor = descriptor.to_descriptor()?;
                descriptor
                    .encode()
                    .map_err(|error| error.message().to_owned())
            }
            (None, Some(text)) => {
                let bytes = from_hex(text).ok_or("its bytes are not hexadecimal")?;
                bytes
                    .try_into()
                    .map_err(|_| format!("a slot has {DESCRIPTOR_SLOT_SIZE} bytes"))
            }
            _ => Err("either a descriptor or bytes".to_owned()),
        }
    }
}

impl From<&Descriptor> for DescriptorFields {
    fn from(descriptor: &Descriptor) -> DescriptorFields {
        DescriptorFields {
            generation: descriptor.generation,
            incompatible_features: descriptor.incompatible.bits(),
            compatible_features: descriptor.compatible,
            virtual_size: descriptor.virtual_size,
            uuid: descriptor.uuid.to_string(),
            backing_uuid: descriptor.origin_uuid.map(|uuid| uuid.to_string()),
            backing_size: descriptor.origin_size,
            backing_filename: descriptor.origin_name.clone(),
            backing_filename_format: descriptor.origin_format.clone(),
        }
    }
}

impl DescriptorFields {
    /// For people.
    pub(crate) fn print(&self) -> Result<()> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        output::line(format_args!(
            "descriptor: generation={} virtual_size={} uuid={}",
            self.generation, self.virtual_size, self.uuid
        ))?;
        output::line(format_args!(
            "    features: incompatible={:#x} compatible={:#x}",
            self.incompatible_features, self.compatible_features
        ))?;
        output::line(format_args!(
            "    backing: {} format={} size={} uuid={}",
            text(&self.backing_filename),
            text(&self.backing_filename_format),
            self.backing_size,
            text(&self.backing_uuid)
        ))
    }

    fn to_descriptor(&self) -> std::result::Result<Descriptor, String> {
        let uuid = |text: &String| {
            text.parse::<Uuid>()
                .map_err(|error| error.message().to_owned())
        };
        let incompatible = IncompatibleFeatures::from_bits(self.incompatible_features);
        Ok(Descriptor {
            generation: self.generation,
            incompatible: incompatible.ok_or("unknown incompatible features")?,
            compatible: self.compatible_features,
            virtual_size: self.virtual_size,
            uuid: uuid(&self.uuid)?,
            origin_uuid: self.backing_uuid.as_ref().map(uuid).transpose()?,
            origin_size: self.backing_size,
            origin_name: self.backing_filename.clone(),
            origin_format: self.backing_filename_format.clone(),
        })
    }
}

/// Collects as much as a file says there is, for which there may be no memory.
pub(crate) fn collect<T>(parts: impl Iterator<Item = Result<T>>, path: &Path) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for part in parts {
        if all.try_reserve(1).is_err() {
            return Err(Failure::at(path, "no memory for more of its metadata"));
        }
        all.push(part?);
    }
    Ok(all)
}

impl Area {
    fn new(area: &RawArea, raw: &RawMetadata, path: &Path) -> Result<Area> {
        let records = area.runs.iter().map(|run| {
            Ok(Run {
                slot: run.slot,
                old_chunk: run.first.old.0,
                new_chunk: run.first.new.0,
                count: run.count,
            })
        });
        let is_whole = area.slots == raw.chunk_size.exceptions_per_area();
        Ok(Area {
            area: area.number,
            slots: (!is_whole).then_some(area.slots),
            end: area.terminator(),
            records: collect(records, path)?,
        })
    }

    fn print(&self) -> Result<()> {
        let slots = self.slots.map_or(String::new(), |slots| {
            format!(", cut off after {slots} slots")
        });
        output::line(format_args!("area {}{slots}:", self.area))?;
        let end = self.end.unwrap_or(u64::MAX);
        for run in &self.records {
            let stale = if run.slot >= end {
                " (behind the end of the log)"
            } else {
                ""
            };
            output::line(format_args!(
                "    slot {}: old {} -> new {}, {}{stale}",
                run.slot,
                run.old_chunk,
                run.new_chunk,
                output::count(run.count, "record")
            ))?;
        }
        Ok(())
    }

    fn to_raw(&self, per_area: u64, path: &Path) -> Result<RawArea> {
        let runs = self.records.iter().map(|run| {
            Ok(RawRun {
                slot: run.slot,
                first: Exception {
                    old: OriginChunk(run.old_chunk),
                    new: CowChunk(run.new_chunk),
                },
                count: run.count,
            })
        });
        Ok(RawArea {
            number: self.area,
            slots: self.slots.unwrap_or(per_area),
            runs: collect(runs, path)?,
        })
    }
}

/// A list of any length, for which there may be no memory: serde's own would end the program then.
fn list<'de, D, T>(input: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
            text.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                if all.try_reserve(1).is_err() {
                    return Err(A::Error::custom("no memory for more"));
                }
                all.push(one);
            }
            Ok(all)
        }
    }

    input.deserialize_seq(List(PhantomData))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        Some((high? << 4 | low?) as u8)
    };
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_hexadecimal_digits() {
        assert_eq!(to_hex(b"SnAp\x01\xff"), "536e417001ff");
        assert_eq!(
            from_hex("536E417001ff").as_deref(),
            Some(&b"SnAp\x01\xff"[..])
        );
        for text in ["5", "5g", "+5", "é"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn test_header_of_any_bytes_comes_back() {
        for bytes in [*b"SnAp\x01\0\0\0\x01\0\0\0\x08\0\0\0", [0; 16], [0xa5; 16]] {
            assert_eq!(HeaderFields::new(&bytes).to_bytes(), Ok(bytes));
        }
    }
}
