//! What the tests of images share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and a failed test is to stop"
)]

use std::sync::Arc;

use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{ChunkSize, CreateOptions, Image, OpenOptions, OriginChoice};

/// Bytes that differ from one another and between seeds, never zero.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) fn chunk(bytes: u64) -> ChunkSize {
    ChunkSize::from_bytes(bytes).unwrap()
}

pub(crate) fn memory() -> SharedStorage {
    Arc::new(MemoryStorage::new())
}

pub(crate) fn memory_with(bytes: &[u8]) -> SharedStorage {
    Arc::new(MemoryStorage::from_bytes(bytes))
}

/// A new layer in `cow`, with a descriptor where the chunk has room for one.
pub(crate) fn create(cow: &SharedStorage, chunk_bytes: u64, size: u64) {
    let options = CreateOptions::new()
        .chunk_size(chunk(chunk_bytes))
        .size(size);
    let options = if chunk_bytes < 4096 {
        options.bare(true)
    } else {
        options
    };
    Image::create_on(cow, &options).unwrap();
}

pub(crate) fn over(origin: OriginChoice) -> OpenOptions {
    OpenOptions::new().writable(true).origin(origin)
}

/// A writable image in `cow` over raw `origin`.
pub(crate) fn open(cow: &SharedStorage, origin: &SharedStorage) -> Image {
    let options = over(OriginChoice::Storage(origin.clone()));
    Image::open_storage(cow.clone(), &options).unwrap()
}

/// A new image over these bytes, as large as they are, and its two storages.
pub(crate) fn image_over(bytes: &[u8], chunk_bytes: u64) -> (Image, SharedStorage, SharedStorage) {
    let (cow, origin) = (memory(), memory_with(bytes));
    create(&cow, chunk_bytes, bytes.len() as u64);
    (open(&cow, &origin), cow, origin)
}

/// All bytes of the disk.
pub(crate) fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0xee; image.size() as usize];
    image.read(&mut bytes, 0).unwrap();
    bytes
}

/// All bytes of a storage.
pub(crate) fn bytes_of(storage: &SharedStorage) -> Vec<u8> {
    let mut bytes = vec![0; storage.size().unwrap() as usize];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Fails with the first difference, not with pages of bytes.
#[track_caller]
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(at) = found.iter().zip(expected).position(|(f, e)| f != e) {
        let differing = found.iter().zip(expected).filter(|(f, e)| f != e).count();
        panic!(
            "{what}: byte {at} is {:#x}, expected {:#x}; {differing} bytes differ",
            found[at], expected[at]
        );
    }
}

/// How many cases a property test tries: `PROPTEST_CASES`, or fewer.
pub(crate) fn cases(default: u32) -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default)
}
