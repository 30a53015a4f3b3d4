//! Operations on a new layer against a model, with faults and too little space.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{ChunkSize, CreateOptions, Image};
use dmsnap_fuzz::builder::RawOrigin;
use dmsnap_fuzz::confine::confined;
use dmsnap_fuzz::session::{Op, Options, Session};
use dmsnap_fuzz::watch::Watched;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 << 20;

#[derive(Arbitrary, Debug)]
struct Input {
    shift: u8,
    sectors: u8,
    origin: RawOrigin,
    /// A device of so many sectors, instead of a file.
    device: Option<u8>,
    overflow: u8,
    ops: Vec<Op>,
}

fuzz_target!(|input: Input| {
    confined(LIMIT, || {
        let chunk = ChunkSize::from_bytes(512 << (input.shift % 5)).expect("a legal size");
        let bare = chunk.bytes() < 4096;
        let size = u64::from(input.sectors) * 512;
        let memory = match input.device {
            // As many chunks as a store needs, at least.
            Some(sectors) => MemoryStorage::fixed(3 * chunk.bytes() + u64::from(sectors) * 512),
            None => MemoryStorage::new(),
        };
        let fixed = input.device.is_some();
        let memory = Arc::new(memory);
        let storage: SharedStorage = memory.clone();
        let options = CreateOptions::new().chunk_size(chunk).size(size).bare(bare);
        Image::create_on(&storage, &options).expect("a new layer");
        let cow = Watched::over(memory);
        let options = Options {
            bare_sectors: bare.then_some(input.sectors.into()),
            overflow: input.overflow,
            ..Options::default()
        };
        let origin = Watched::new(input.origin.storage());
        let mut session = Session::open(cow, origin, options, !fixed).expect("a new layer");
        session.run(&input.ops[..input.ops.len().min(40)]);
    });
});
