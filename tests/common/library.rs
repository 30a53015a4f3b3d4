//! The library as the tests of the format drive it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part of it, and a test ends at the first surprise"
)]

use std::path::Path;
use std::sync::Arc;

use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{CheckOptions, CheckOutcome, Format, Image, OpenOptions, OriginChoice, check_storage};
use sha2::{Digest, Sha256};

/// SHA-256 in the digits that the kernel's side prints.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A growable storage with these bytes.
pub(crate) fn memory(bytes: &[u8]) -> SharedStorage {
    Arc::new(MemoryStorage::from_bytes(bytes))
}

/// A device that keeps its size.
pub(crate) fn device(bytes: &[u8]) -> SharedStorage {
    let device: SharedStorage = Arc::new(MemoryStorage::fixed(bytes.len() as u64));
    device.write_at(bytes, 0).unwrap();
    device
}

pub(crate) fn bytes_of(storage: &SharedStorage) -> Vec<u8> {
    let mut bytes = vec![0; storage.size().unwrap() as usize];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Opens `cow` over raw `origin`.
pub(crate) fn open(
    cow: &SharedStorage,
    origin: &SharedStorage,
    writable: bool,
) -> dmsnap::Result<Image> {
    let origin = OriginChoice::Storage(origin.clone());
    let options = OpenOptions::new().writable(writable).origin(origin);
    Image::open_storage(cow.clone(), &options)
}

/// The same with files.
pub(crate) fn open_path(cow: &Path, origin: &Path, writable: bool) -> dmsnap::Result<Image> {
    let origin = OriginChoice::Path {
        path: origin.to_path_buf(),
        format: Format::Raw,
        below: Box::default(),
    };
    Image::open(cow, &OpenOptions::new().writable(writable).origin(origin))
}

/// All bytes of the disk.
pub(crate) fn view(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0xee; image.size() as usize];
    image.read(&mut bytes, 0).unwrap();
    bytes
}

/// (old chunk, new chunk) of every exception, by old chunk.
pub(crate) fn exceptions(image: &Image) -> Vec<(u64, u64)> {
    let runs = image.exceptions().into_iter();
    runs.flat_map(|(old, new, count)| (0..count).map(move |i| (old.0 + i, new.0 + i)))
        .collect()
}

/// What a check of the store in `bytes` finds.
pub(crate) fn check(bytes: &[u8]) -> dmsnap::Result<CheckOutcome> {
    check_storage(&memory(bytes), &CheckOptions::new())
}

/// Fails with the first difference, not with pages of bytes.
#[track_caller]
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let differing = || found.iter().zip(expected).filter(|(f, e)| f != e).count();
    if let Some(at) = found.iter().zip(expected).position(|(f, e)| f != e) {
        let last = found.iter().zip(expected).rposition(|(f, e)| f != e);
        panic!(
            "{what}: {} bytes differ, first {at}, last {last:?}",
            differing()
        );
    }
}
