//! The damaged stores: twins of golden ones, and one of ours with a damaged descriptor.

use std::collections::HashMap;
use std::sync::OnceLock;

use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::{ChunkSize, CreateOptions, Image};

use crate::crc32::crc32;
use crate::library::{bytes_of, memory, open};
use crate::pattern;
use crate::table::{Made, Row};
use crate::twins;

pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) cow: Vec<u8>,
    pub(crate) origin: Vec<u8>,
}

pub(crate) fn store(row: &Row) -> Store {
    let name = row.name.to_owned();
    match row.made {
        Made::Twin => {
            // COW and origin, by name.
            type Twins = HashMap<String, (Vec<u8>, Vec<u8>)>;
            static TWINS: OnceLock<Twins> = OnceLock::new();
            let twins = TWINS.get_or_init(|| {
                let all = twins::all().into_iter();
                all.map(|twin| (twin.name, (twin.cow, twin.origin)))
                    .collect()
            });
            let (cow, origin) = twins.get(row.name).unwrap().clone();
            Store { name, cow, origin }
        }
        Made::Ours(damage) => {
            let mut ours = Ours::new();
            let before = ours.cow.clone();
            damage(&mut ours);
            assert!(ours.cow != before, "{name}: nothing was damaged");
            Store {
                name,
                cow: ours.cow,
                origin: ours.origin,
            }
        }
    }
}

/// A store with chunks of 4 KiB and a descriptor in slot 1, where slot 2 was never written.
pub(crate) struct Ours {
    cow: Vec<u8>,
    origin: Vec<u8>,
}

const CHUNK: usize = 4096;
const SLOTS: [usize; 2] = [512, 2048];
const SLOT: usize = 1536;
const SECTORS: u64 = 200;

impl Ours {
    fn new() -> Ours {
        let origin = pattern::sectors(11, 0, SECTORS);
        let cow = memory(&[]);
        let options = CreateOptions::new()
            .chunk_size(ChunkSize::from_bytes(CHUNK as u64).unwrap())
            .size(origin.len() as u64)
            .uuid(Uuid([7; 16]));
        Image::create_on(&cow, &options).unwrap();
        let image = open(&cow, &memory(&origin), true).unwrap();
        for chunk in [3, 9, 4, 20] {
            let bytes = pattern::sectors(12, chunk * 8, 8);
            image.write(&bytes, chunk * CHUNK as u64).unwrap();
        }
        image.close().unwrap();
        let cow = bytes_of(&cow);
        assert!(cow[SLOTS[1]..][..SLOT].iter().all(|byte| *byte == 0));
        Ours { cow, origin }
    }

    fn slot(&mut self, number: usize) -> &mut [u8] {
        &mut self.cow[SLOTS[number - 1]..][..SLOT]
    }

    /// Overwrites the first area.
    pub(crate) fn area(&mut self, bytes: &[u8]) {
        self.cow[CHUNK..CHUNK + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the first area full, of records with good numbers, in a file that has no second one.
    pub(crate) fn fill_area(&mut self) {
        let per_area = CHUNK / 16;
        self.cow.resize((2 + per_area) * CHUNK, 0);
        let records = (0..per_area as u64).flat_map(|index| [index, index + 2]);
        let bytes: Vec<u8> = records.flat_map(u64::to_le_bytes).collect();
        self.area(&bytes);
    }

    /// Changes bytes of slot 1, whose checksum is wrong then.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.slot(1)[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Changes bytes of slot 1 and makes the checksum right.
    pub(crate) fn forge(&mut self, at: usize, bytes: &[u8]) {
        self.put(at, bytes);
        self.seal();
    }

    /// Writes another record into slot 1, by the rules.
    pub(crate) fn describe(&mut self, change: impl FnOnce(&mut Descriptor)) {
        let mut descriptor = Descriptor {
            generation: 1,
            incompatible: IncompatibleFeatures::empty(),
            compatible: 0,
            virtual_size: SECTORS * 512,
            uuid: Uuid([7; 16]),
            origin_uuid: None,
            origin_size: 0,
            origin_name: None,
            origin_format: None,
        };
        change(&mut descriptor);
        let bytes = descriptor.encode().unwrap();
        self.slot(1).copy_from_slice(&bytes);
    }

    /// A record with these strings, whatever they are, and the right lengths and checksum.
    pub(crate) fn strings(&mut self, name: &[u8], format: &[u8]) {
        let length = 96 + name.len() + format.len();
        self.put(8, &(length as u32).to_le_bytes());
        self.put(88, &(name.len() as u16).to_le_bytes());
        self.put(90, &(format.len() as u16).to_le_bytes());
        self.put(96, name);
        self.put(96 + name.len(), format);
        self.seal();
    }

    fn seal(&mut self) {
        let slot = self.slot(1);
        let length = u32::from_le_bytes(slot[8..12].try_into().unwrap()) as usize;
        slot[12..16].fill(0);
        let crc = crc32(&slot[..length]);
        slot[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Copies slot 1 to slot 2, with another generation.
    pub(crate) fn second(&mut self, generation: u64) {
        let first = self.slot(1).to_vec();
        self.forge(16, &generation.to_le_bytes());
        let other = self.slot(1).to_vec();
        self.slot(1).copy_from_slice(&first);
        self.slot(2).copy_from_slice(&other);
    }

    /// Overwrites a slot from byte `from` on.
    pub(crate) fn tear(&mut self, number: usize, from: usize) {
        self.slot(number)[from..].fill(0xe5);
    }
}
