//! Stores that are nearly valid, made of an input.

use arbitrary::Arbitrary;
use dmsnap::ChunkSize;
use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::storage::{MemoryStorage, Storage};

use crate::crc32::crc32;

/// Bytes that are written of a store at most; longer ones are sparse.
const MOST_BYTES: u64 = 256 << 10;

#[derive(Arbitrary, Clone, Debug)]
pub struct Built {
    shift: u8,
    header: Option<Damage>,
    slots: [Slot; 2],
    records: Vec<Record>,
    size: Size,
    pokes: Vec<(u16, u8)>,
    fixed: bool,
}

#[derive(Arbitrary, Clone, Debug)]
enum Damage {
    Magic(u32),
    Valid(u32),
    Version(u32),
    ChunkSize(u32),
}

#[derive(Arbitrary, Clone, Debug)]
enum Slot {
    Empty,
    Good(Fields),
    /// With the right checksum over whatever stands there.
    Patched {
        fields: Fields,
        at: u8,
        bytes: [u8; 4],
    },
    Torn {
        fields: Fields,
        from: u16,
    },
    Noise(u8),
}

#[derive(Arbitrary, Clone, Debug)]
struct Fields {
    generation: u8,
    sectors: u16,
    origin_uuid: bool,
    origin_size: u16,
    name: u8,
    format: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Record {
    /// To the chunk that a compact log has there.
    Plain(u8),
    /// As many, one after the other.
    Run(u8, u8),
    To(u8, u8),
    Raw(u64, u64),
    /// The same as the one before.
    Again,
    End,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Enough,
    Chunks(u8),
    /// Cut off at the end.
    Less(u16),
    More(u16),
    Sparse(u8),
}

impl Built {
    /// Chunks of 512 bytes to 16 KiB mostly. Larger ones take long: a writer and a check read the whole of the last area.
    fn chunk(&self) -> ChunkSize {
        let shift = match self.shift {
            shift @ 0..6 => 15 + u32::from(shift),
            shift => 9 + u32::from(shift) % 6,
        };
        ChunkSize::from_bytes(1 << shift).expect("a legal size")
    }

    /// Whether copying its chunks would take the memory and the time that the library is to be watched for.
    pub fn is_large(&self) -> bool {
        let sectors = match self.header {
            Some(Damage::ChunkSize(sectors)) => u64::from(sectors),
            _ => self.chunk().sectors(),
        };
        sectors > 64
    }

    /// A storage with these bytes.
    pub fn storage(&self) -> MemoryStorage {
        let chunk = self.chunk();
        let (records, end) = self.log(chunk);
        let size = self.size(chunk, end);
        let storage = if self.fixed {
            MemoryStorage::fixed(size)
        } else {
            MemoryStorage::with_size(size)
        };
        let put = |offset: u64, bytes: &[u8]| {
            let room = size.saturating_sub(offset).min(bytes.len() as u64) as usize;
            storage
                .write_at(&bytes[..room], offset)
                .expect("inside the size");
        };
        put(0, &self.header_bytes(chunk));
        if let Some(offsets) = Descriptor::slot_offsets(chunk) {
            for (slot, offset) in self.slots.iter().zip(offsets) {
                put(offset, &slot.bytes());
            }
        }
        // Bytes that tell the chunks apart, where that is not too much.
        for data in 2..(end.min(MOST_BYTES / chunk.bytes())) {
            put(
                data * chunk.bytes(),
                &vec![data as u8 ^ 0x5a; chunk.bytes() as usize],
            );
        }
        let stride = chunk.exceptions_per_area() + 1;
        for area in 0..=records.len() as u64 / chunk.exceptions_per_area() {
            let place = (1 + area * stride).saturating_mul(chunk.bytes());
            if chunk.bytes() <= MOST_BYTES {
                put(place, &vec![0; chunk.bytes() as usize]);
            }
        }
        for (index, (old, new)) in (0..).zip(records) {
            let (area, slot) = (
                index / chunk.exceptions_per_area(),
                index % chunk.exceptions_per_area(),
            );
            let place = (1 + area * stride).saturating_mul(chunk.bytes()) + slot * 16;
            put(place, &old.to_le_bytes());
            put(place + 8, &new.to_le_bytes());
        }
        for &(at, byte) in self.pokes.iter().take(8) {
            put(u64::from(at), &[byte]);
        }
        storage
    }

    fn header_bytes(&self, chunk: ChunkSize) -> [u8; 16] {
        let mut fields = [u32::from_le_bytes(*b"SnAp"), 1, 1, chunk.sectors() as u32];
        match self.header {
            Some(Damage::Magic(value)) => fields[0] = value,
            Some(Damage::Valid(value)) => fields[1] = value,
            Some(Damage::Version(value)) => fields[2] = value,
            Some(Damage::ChunkSize(value)) => fields[3] = value,
            None => {}
        }
        let mut bytes = [0; 16];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The records, and the chunk behind the last that a compact log has.
    fn log(&self, chunk: ChunkSize) -> (Vec<(u64, u64)>, u64) {
        let per_area = chunk.exceptions_per_area();
        let mut log: Vec<(u64, u64)> = Vec::new();
        let compact = |index: usize| 2 + index as u64 + index as u64 / per_area;
        for record in &self.records {
            if log.len() > 400 {
                break;
            }
            match *record {
                Record::Plain(old) => log.push((old.into(), compact(log.len()))),
                Record::Run(old, count) => {
                    for old in (u64::from(old)..).take(usize::from(count)) {
                        log.push((old, compact(log.len())));
                    }
                }
                Record::To(old, new) => log.push((old.into(), new.into())),
                Record::Raw(old, new) => log.push((old, new)),
                Record::Again => log.extend(log.last().copied()),
                Record::End => log.push((0, 0)),
            }
        }
        let end = compact(log.len());
        (log, end)
    }

    fn size(&self, chunk: ChunkSize, end: u64) -> u64 {
        // The next area, too.
        let enough = (end + 1) * chunk.bytes();
        match self.size {
            Size::Enough => enough,
            Size::Chunks(chunks) => u64::from(chunks) * chunk.bytes(),
            Size::Less(bytes) => enough.saturating_sub(bytes.into()),
            Size::More(bytes) => enough + u64::from(bytes),
            Size::Sparse(shift) => 1 << (20 + shift % 42),
        }
    }
}

impl Slot {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Slot::Empty => Vec::new(),
            Slot::Good(fields) => fields.bytes(),
            Slot::Patched { fields, at, bytes } => {
                let mut slot = fields.bytes();
                let at = 8 + usize::from(*at) % 120;
                slot[at..at + 4].copy_from_slice(bytes);
                seal(&mut slot);
                slot
            }
            Slot::Torn { fields, from } => {
                let mut slot = fields.bytes();
                let from = usize::from(*from) % slot.len();
                slot[from..].fill(0xe5);
                slot
            }
            Slot::Noise(byte) => vec![*byte; 1536],
        }
    }
}

/// Puts the right checksum into a slot, whatever else stands in it.
pub fn seal(slot: &mut [u8]) {
    let length = u32::from_le_bytes([slot[8], slot[9], slot[10], slot[11]]) as usize;
    let length = length.clamp(16, slot.len());
    slot[12..16].fill(0);
    let crc = crc32(&slot[..length]);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let name = (self.name % 4 > 0).then(|| "x/".repeat(usize::from(self.name)));
        let format = ["raw", "dmsnap", "qcow2", ""][usize::from(self.format) % 4].to_owned();
        let descriptor = Descriptor {
            generation: self.generation.into(),
            incompatible: IncompatibleFeatures::empty(),
            compatible: 0,
            virtual_size: u64::from(self.sectors % 512) * 512,
            uuid: Uuid([7; 16]),
            origin_uuid: self.origin_uuid.then_some(Uuid([9; 16])),
            origin_size: u64::from(self.origin_size) * 256,
            origin_format: name.is_some().then_some(format),
            origin_name: name,
        };
        descriptor.encode().expect("legal values").to_vec()
    }
}

/// An origin, whose last bytes need not fill a sector.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct RawOrigin {
    bytes: u16,
    fixed: bool,
}

impl RawOrigin {
    pub fn storage(self) -> MemoryStorage {
        let bytes = self.bytes();
        if self.fixed {
            let storage = MemoryStorage::fixed(bytes.len() as u64);
            storage.write_at(&bytes, 0).expect("inside the size");
            storage
        } else {
            MemoryStorage::from_bytes(&bytes)
        }
    }

    pub fn bytes(self) -> Vec<u8> {
        (0..self.bytes).map(|at| (at >> 8) as u8 | 0x80).collect()
    }
}
