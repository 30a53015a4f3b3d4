//! COW devices of fixed size: what running full means in each mode, and that space which was added is used.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dmsnap::storage::{LockMode, MemoryStorage, SharedStorage, Storage, StorageExtent, Users};
use dmsnap::store::OverflowMode;
use dmsnap::{ByteRange, ErrorKind, Image, OriginChoice, Result};
use image_common::*;

const CHUNK: u64 = 16384;

/// A device whose size the test decides about.
#[derive(Debug)]
struct Device {
    bytes: MemoryStorage,
    size: AtomicU64,
}

impl Storage for Device {
    fn name(&self) -> &str {
        "device"
    }
    fn size(&self) -> Result<u64> {
        Ok(self.size.load(Ordering::SeqCst))
    }
    fn is_growable(&self) -> bool {
        false
    }
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.bytes.read_vectored_at(bufs, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.bytes.write_vectored_at(bufs, offset)
    }
    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<()> {
        self.bytes.write_zeroes(range, unmap)
    }
    fn discard(&self, range: ByteRange) -> Result<()> {
        self.bytes.discard(range)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn set_size(&self, _: u64) -> Result<()> {
        unreachable!("a device cannot be made longer")
    }
    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        self.bytes.extent_at(offset)
    }
    fn lock(&self, _: LockMode) -> Result<()> {
        Ok(())
    }
    fn users(&self) -> &Users {
        self.bytes.users()
    }
}

#[test]
fn test_a_device_that_grew_is_used_at_once() {
    for mode in [
        OverflowMode::NoSpace,
        OverflowMode::Persistent,
        OverflowMode::PersistentOverflow,
    ] {
        let size = AtomicU64::new(4 * CHUNK);
        let device = Arc::new(Device {
            bytes: MemoryStorage::fixed(10 * CHUNK),
            size,
        });
        let cow: SharedStorage = device.clone();
        create(&cow, CHUNK, 20 * CHUNK);
        let options = over(OriginChoice::Storage(memory())).overflow(mode);
        let image = Image::open_storage(cow, &options).unwrap();
        image.write(&[1; 2 * CHUNK as usize], 0).unwrap();
        if mode == OverflowMode::NoSpace {
            let error = image.write(&[2; 10], 5 * CHUNK).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        }
        device.size.store(5 * CHUNK, Ordering::SeqCst);
        image.write(&[2; 10], 5 * CHUNK).unwrap();
        let error = image.write(&[3; 10], 7 * CHUNK).unwrap_err();
        let states = match mode {
            OverflowMode::NoSpace => (ErrorKind::NoSpace, "160/160 64"),
            OverflowMode::Persistent => (ErrorKind::Overflow, "Invalid"),
            OverflowMode::PersistentOverflow => (ErrorKind::Overflow, "Overflow"),
        };
        assert_eq!(
            (error.kind(), image.status().to_string().as_str()),
            states,
            "{error}"
        );
        let header = device.bytes.to_vec();
        assert_eq!(
            header[4],
            u8::from(mode != OverflowMode::Persistent),
            "valid"
        );
    }
}
