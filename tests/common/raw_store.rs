//! Stores made byte by byte, for what no host of ours would write.

use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::store::{
    CheckReader, CheckReport, FormatOptions, LoadOptions, Loader, Plan, Step, Store, format_plan,
};
use dmsnap::{ChunkSize, Result};

/// The bytes of a COW file.
pub struct RawStore {
    pub bytes: Vec<u8>,
    pub chunk: u64,
}

pub fn descriptor(virtual_size: u64) -> Descriptor {
    Descriptor {
        generation: 1,
        incompatible: IncompatibleFeatures::empty(),
        compatible: 0,
        virtual_size,
        uuid: Uuid([7; 16]),
        origin_uuid: None,
        origin_size: 0,
        origin_name: None,
        origin_format: None,
    }
}

impl RawStore {
    pub fn new(chunk: u64, chunks: u64, descriptor: Option<Descriptor>) -> RawStore {
        let options = FormatOptions {
            chunk_size: ChunkSize::from_bytes(chunk).unwrap(),
            descriptor,
            fixed_size: true,
        };
        let mut bytes = vec![0; (chunk * chunks) as usize];
        for step in format_plan(&options).unwrap().steps() {
            if let Step::Write { offset, data, .. } = step {
                bytes[*offset as usize..][..data.len()].copy_from_slice(data);
            }
        }
        RawStore { bytes, chunk }
    }

    /// Byte of the record with this number.
    pub fn slot(&self, index: u64) -> u64 {
        let per_area = self.chunk / 16;
        (1 + index / per_area * (per_area + 1)) * self.chunk + index % per_area * 16
    }

    pub fn with_records(mut self, records: &[(u64, u64)]) -> RawStore {
        for (index, record) in (0..).zip(records) {
            let at = self.slot(index) as usize;
            self.bytes[at..at + 16].copy_from_slice(&encode(*record));
        }
        self
    }

    pub fn options(&self, writable: bool) -> LoadOptions {
        LoadOptions {
            cow_size: self.bytes.len() as u64,
            growable: true,
            writable,
            ..LoadOptions::default()
        }
    }

    pub fn supply(&self, plan: &mut Plan) {
        for (index, step) in plan.steps().to_vec().iter().enumerate() {
            if let Step::Read { range, .. } = step {
                let bytes = &self.bytes[range.start as usize..range.end() as usize];
                plan.supply(index, bytes.to_vec()).unwrap();
            }
        }
    }

    pub fn load(&self, options: LoadOptions) -> Result<Store> {
        let mut loader = Loader::new(options)?;
        while let Some(mut plan) = loader.next_plan()? {
            self.supply(&mut plan);
            loader.finish_plan(plan)?;
        }
        loader.finish()
    }

    pub fn check(&self) -> CheckReport {
        let mut reader = CheckReader::new(self.options(false)).unwrap();
        while let Some(mut plan) = reader.next_plan().unwrap() {
            self.supply(&mut plan);
            reader.finish_plan(plan).unwrap();
        }
        reader.finish().unwrap()
    }
}

pub fn encode((old, new): (u64, u64)) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&old.to_le_bytes());
    bytes[8..].copy_from_slice(&new.to_le_bytes());
    bytes
}
