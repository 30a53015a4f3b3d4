//! Where a disk under stress lives: in memory, behind a host's callbacks, in files, in files past the page cache; one layer or more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dmsnap::storage::{CallbackStorage, HostAlignment, MemoryStorage, SharedStorage};
use dmsnap::{CreateOptions, Format, Image, OpenOptions, OriginChoice};
use tempfile::TempDir;

use crate::budget::Random;
use crate::host::Host;
use crate::image_common::{chunk, over};
use crate::stamps;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    Memory,
    /// A host that wants blocks of 4096 bytes, so that parts of them are read, changed and written.
    Callbacks,
    Buffered,
    Direct,
}

const MEDIA: [Medium; 4] = [
    Medium::Memory,
    Medium::Callbacks,
    Medium::Buffered,
    Medium::Direct,
];

/// The place of one disk.
pub(crate) struct Place {
    pub(crate) medium: Medium,
    chunk_bytes: u64,
    directory: TempDir,
    layers: AtomicU64,
}

impl Place {
    /// A new disk, with as many layers as chance wants.
    pub(crate) fn new(case: u64, random: &mut Random) -> (Place, Image) {
        let medium = MEDIA[(case % 4) as usize];
        let place = Place {
            medium,
            chunk_bytes: [512, 4096, 4096, 16384, 65536][random.below(5) as usize],
            // On a real file system: not every one in memory knows O_DIRECT.
            directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            layers: AtomicU64::new(1),
        };
        let image = if place.in_files() {
            place.create_files()
        } else {
            place.create_storages()
        };
        // A bare store has no size of its own to change, so it never is on top.
        let least = u64::from(place.chunk_bytes < 4096);
        for _ in 0..least + random.below(3) {
            place.snapshot(&image).unwrap();
        }
        (place, image)
    }

    fn in_files(&self) -> bool {
        matches!(self.medium, Medium::Buffered | Medium::Direct)
    }

    fn layer(&self, number: u64) -> PathBuf {
        self.directory.path().join(format!("layer{number}"))
    }

    fn create_files(&self) -> Image {
        std::fs::write(self.directory.path().join("base"), stamps::at_first()).unwrap();
        let options = CreateOptions::new()
            .chunk_size(chunk(self.chunk_bytes.max(4096)))
            .origin("base", Format::Raw);
        Image::create(self.layer(1), &options).unwrap();
        self.open_files()
    }

    /// The topmost layer, with all below it.
    fn open_files(&self) -> Image {
        let top = self.layer(self.layers());
        let options = over(OriginChoice::FromImage).direct(self.medium == Medium::Direct);
        Image::open(top, &options).unwrap()
    }

    fn storage(&self, bytes: &[u8]) -> SharedStorage {
        let memory = MemoryStorage::from_bytes(bytes);
        if self.medium == Medium::Memory {
            return Arc::new(memory);
        }
        let mut host = Host::new(memory);
        host.alignment = HostAlignment {
            request: 4096,
            memory: 512,
        };
        Arc::new(CallbackStorage::new("host", Box::new(host)).unwrap())
    }

    fn create_storages(&self) -> Image {
        let (cow, origin) = (self.storage(&[]), self.storage(&stamps::at_first()));
        crate::image_common::create(&cow, self.chunk_bytes, stamps::SECTORS * stamps::SECTOR);
        crate::image_common::open(&cow, &origin)
    }

    /// Another layer on top of the image, unless somebody else is at it.
    pub(crate) fn snapshot(&self, image: &Image) -> Option<()> {
        let size = Some(chunk(self.chunk_bytes.max(4096)));
        let number = self.layers() + 1;
        allow_busy(if self.in_files() {
            image.snapshot(self.layer(number), size)
        } else {
            image.snapshot_to(self.storage(&[]), None, size)
        })?;
        self.layers.store(number, Ordering::SeqCst);
        Some(())
    }

    /// A bare store has the size of its origin, so that nothing longer can be merged into it.
    pub(crate) fn can_grow(&self) -> bool {
        self.in_files() || self.chunk_bytes >= 4096
    }

    pub(crate) fn layers(&self) -> u64 {
        self.layers.load(Ordering::SeqCst)
    }

    /// Closes the image and opens it again, where that needs nothing but a name.
    pub(crate) fn reopen(&self, image: Image) -> Image {
        if !self.in_files() {
            return image;
        }
        image.close().unwrap();
        for number in 1..=self.layers() {
            let outcome = dmsnap::check(self.layer(number), &dmsnap::CheckOptions::new()).unwrap();
            let findings = &outcome.report.findings;
            assert_eq!(
                outcome.remaining_corruptions, 0,
                "layer {number}: {findings:?}"
            );
        }
        self.open_files()
    }

    /// Layer after layer, down to the raw file, which then has everything. Gives what is there.
    pub(crate) fn merge_down(&self, image: Image) -> Vec<u8> {
        image.merge(&mut |_| true).unwrap();
        if !self.in_files() {
            return crate::image_common::contents(&image);
        }
        image.close().unwrap();
        for number in (1..self.layers()).rev() {
            let options = OpenOptions::new()
                .writable(true)
                .origin(OriginChoice::FromImage);
            let layer = Image::open(self.layer(number), &options).unwrap();
            layer.merge(&mut |_| true).unwrap();
            layer.close().unwrap();
        }
        std::fs::read(self.directory.path().join("base")).unwrap()
    }
}

/// `None` if another job was under way.
pub(crate) fn allow_busy<T>(result: dmsnap::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == dmsnap::ErrorKind::Busy => None,
        Err(error) => panic!("{error}"),
    }
}
