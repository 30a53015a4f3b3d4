//! Our side: the same devices in memory.

use std::sync::Arc;

use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage};
use dmsnap::storage::{LockMode, SharedStorage};
use dmsnap::store::{OverflowMode, Status};
use dmsnap::{ByteRange, ChunkSize, CreateOptions, ErrorKind, Image, OpenOptions, OriginChoice};

use super::shape::Shape;
use crate::library;

/// There was no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Ours {
    origin: SharedStorage,
    cow: SharedStorage,
    image: Option<Image>,
}

impl Ours {
    pub(super) fn new(origin: &[u8], cow: &[u8]) -> Self {
        Self {
            origin: library::device(origin),
            cow: library::device(cow),
            image: None,
        }
    }

    /// Makes a new store on the COW device.
    pub(super) fn create(&self, shape: Shape) {
        let chunk = ChunkSize::from_sectors(shape.chunk as u32).unwrap();
        let options = CreateOptions::new().chunk_size(chunk).bare(true);
        Image::create_on(&self.cow, &options).unwrap();
    }

    pub(super) fn load(&mut self, mode: OverflowMode) {
        self.image = Some(open(&self.origin, &self.cow, mode).unwrap());
    }

    pub(super) fn unload(&mut self) {
        let image = self.image.take().unwrap();
        // One that was given up has nothing to be finished.
        if image.status() != Status::Invalid {
            image.close().unwrap();
        }
    }

    /// Why it cannot be opened.
    pub(super) fn refusal(&self) -> ErrorKind {
        let opened = open(&self.origin, &self.cow, OverflowMode::Persistent);
        opened.map(|_| ()).unwrap_err().kind()
    }

    pub(super) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    pub(super) fn view(&self) -> Vec<u8> {
        library::view(self.image())
    }

    /// With all exceptions on disk, as the kernel has them after each write.
    pub(super) fn status(&self) -> String {
        if self.image().status() != Status::Invalid {
            self.image().flush().unwrap();
        }
        self.image().status().to_string()
    }

    pub(super) fn origin(&self) -> Vec<u8> {
        library::bytes_of(&self.origin)
    }

    pub(super) fn cow(&self) -> Vec<u8> {
        library::bytes_of(&self.cow)
    }

    pub(super) fn write(&self, range: ByteRange, bytes: &[u8]) -> Result<(), Full> {
        or_full(self.image().write(bytes, range.start))
    }

    pub(super) fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Result<(), Full> {
        or_full(self.image().write_zeroes(range, unmap))
    }

    /// Saves what is there first, as the kernel does, and gives the snapshot up if it cannot. The origin is written in any case.
    pub(super) fn write_origin(&mut self, range: ByteRange, bytes: &[u8]) -> Result<(), Full> {
        let saved = self.save_origin(range);
        if saved.is_err() && self.image().status() != Status::Invalid {
            // In overflow it takes no write, this one included, until it is opened again.
            self.unload();
            self.load(OverflowMode::PersistentOverflow);
            self.image().drop_snapshot().unwrap();
        }
        // As somebody else does: the image has it for reading only.
        self.origin.lock(LockMode::Writer).unwrap();
        self.origin.write_at(bytes, range.start).unwrap();
        self.origin.lock(LockMode::Reader).unwrap();
        saved
    }

    fn save_origin(&self, range: ByteRange) -> Result<(), Full> {
        let image = self.image();
        let (chunk, size) = (image.chunk_size().bytes(), image.size());
        let mapped = library::exceptions(image);
        for old in range.start / chunk..range.end().div_ceil(chunk) {
            if mapped.iter().all(|exception| exception.0 != old) {
                let mut bytes = vec![0; chunk.min(size - old * chunk) as usize];
                self.origin.read_at(&mut bytes, old * chunk).unwrap();
                or_full(image.write(&bytes, old * chunk))?;
            }
        }
        image.flush().unwrap();
        Ok(())
    }

    /// Merges until the `nth` write or flush of one of the devices fails, if it gets there.
    pub(super) fn merge_until_fault(&self, in_origin: bool, nth: u64) {
        let faulty = |storage: &SharedStorage| Arc::new(FaultStorage::new(storage.clone()));
        let (origin, cow) = (faulty(&self.origin), faulty(&self.cow));
        let (below, top): (SharedStorage, SharedStorage) = (origin.clone(), cow.clone());
        let image = open(&below, &top, OverflowMode::Persistent).unwrap();
        let kinds = CallKinds::WRITE | CallKinds::WRITE_ZEROES | CallKinds::FLUSH;
        let broken = if in_origin { origin } else { cow };
        broken.arm(Fault::on(kinds).nth(nth).forever());
        let merged = image.merge(&mut |_| true);
        assert_eq!(merged.is_err(), broken.fired() > 0, "{merged:?}");
    }
}

fn open(origin: &SharedStorage, cow: &SharedStorage, mode: OverflowMode) -> dmsnap::Result<Image> {
    let options = OpenOptions::new()
        .writable(true)
        .overflow(mode)
        .origin(OriginChoice::Storage(origin.clone()));
    Image::open_storage(cow.clone(), &options)
}

fn or_full(result: dmsnap::Result<()>) -> Result<(), Full> {
    result.map_err(|error| {
        let full = [ErrorKind::Overflow, ErrorKind::SnapshotInvalid];
        assert!(full.contains(&error.kind()), "ours: {error}");
        Full
    })
}
