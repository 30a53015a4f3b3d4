//! One storage, several uses in one program: they meet as programs do that share a file, whatever the storage is.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use dmsnap::storage::{
    CallbackStorage, FileOptions, HostCallbacks, LockMode, MemoryStorage, SharedStorage, Storage,
};
use dmsnap::{
    CheckOptions, CreateOptions, Error, ErrorKind, Image, OpenOptions, OriginChoice, Repair,
    check_storage,
};
use image_common::*;

const SIZE: u64 = 256 << 10;
const CHUNK: u64 = 16384;

/// A host that keeps its bytes in memory.
struct Host(MemoryStorage);

fn system(error: Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl HostCallbacks for Host {
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        self.0.read_vectored_at(bufs, offset).map_err(system)?;
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_vectored_at(bufs, offset).map_err(system)?;
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size().map_err(system)
    }
    fn is_growable(&self) -> bool {
        true
    }
    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_size(size).map_err(system)
    }
}

/// Runs a test with storages of each kind; each call of the function gives an empty one.
fn with_each_kind(test: impl Fn(&mut dyn FnMut() -> SharedStorage)) {
    test(&mut || Arc::new(MemoryStorage::new()));
    test(&mut || {
        let host = Box::new(Host(MemoryStorage::new()));
        Arc::new(CallbackStorage::new("host", host).unwrap())
    });
    let directory = tempfile::tempdir().unwrap();
    let mut files = 0;
    test(&mut || {
        files += 1;
        let path = directory.path().join(format!("file{files}"));
        let options = FileOptions::new().create_new(true).lock(LockMode::None);
        Arc::new(options.open(path).unwrap())
    });
}

#[track_caller]
fn assert_busy<T>(result: dmsnap::Result<T>) {
    let error = result.err().expect("the storage is in use");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("this program"), "{error}");
}

/// The image still writes, and what it wrote is there when it is opened again.
#[track_caller]
fn assert_whole(image: Image, cow: &SharedStorage, origin: &SharedStorage) {
    image.write(&[7; 100], SIZE / 2).unwrap();
    image.flush().unwrap();
    let model = contents(&image);
    image.close().unwrap();
    let options = OpenOptions::new().origin(OriginChoice::Storage(origin.clone()));
    let image = Image::open_storage(cow.clone(), &options).unwrap();
    assert_same(&contents(&image), &model, "opened again");
}

fn base(storage: SharedStorage) -> SharedStorage {
    storage.write_at(&pattern(1, SIZE as usize), 0).unwrap();
    storage
}

#[test]
fn test_a_storage_is_written_by_one_image_at_a_time() {
    with_each_kind(|new| {
        let (cow, origin, other) = (new(), base(new()), base(new()));
        create(&cow, CHUNK, SIZE);
        let image = open(&cow, &origin);
        let second = |writable| {
            let options = OpenOptions::new()
                .writable(writable)
                .origin(OriginChoice::Storage(other.clone()));
            Image::open_storage(cow.clone(), &options)
        };
        assert_busy(second(true));
        assert_busy(second(false));
        // Neither as its origin, nor as that of another image.
        assert_busy(Image::open_storage(
            other.clone(),
            &over(OriginChoice::Storage(cow.clone())),
        ));
        assert_busy(Image::open_storage(
            origin.clone(),
            &over(OriginChoice::Zeros),
        ));
        assert_whole(image, &cow, &origin);
        drop(second(true).unwrap());
    });
}

#[test]
fn test_a_reader_keeps_writers_away_and_meets_readers() {
    with_each_kind(|new| {
        let (cow, origin) = (new(), base(new()));
        create(&cow, CHUNK, SIZE);
        let options = OpenOptions::new().origin(OriginChoice::Storage(origin.clone()));
        let one = Image::open_storage(cow.clone(), &options).unwrap();
        let two = Image::open_storage(cow.clone(), &options).unwrap();
        drop(two);
        let writable = options.clone().writable(true);
        assert_busy(Image::open_storage(cow.clone(), &writable));
        drop(one);
        let writer = Image::open_storage(cow.clone(), &writable).unwrap();
        // Who asked for no lock bears with a writer, and leaves it alone.
        let onlooker = Image::open_storage(cow.clone(), &options.clone().lock(false)).unwrap();
        writer.write(&[1; 10], 0).unwrap();
        drop(onlooker);
        assert_whole(writer, &cow, &origin);
    });
}

#[test]
fn test_a_check_of_an_open_images_storage_leaves_the_image_alone() {
    with_each_kind(|new| {
        let (cow, origin) = (new(), base(new()));
        create(&cow, CHUNK, SIZE);
        let image = open(&cow, &origin);
        image.write(&[1; 10], 0).unwrap();
        image.flush().unwrap();
        for repair in [Repair::None, Repair::Leaks, Repair::All] {
            assert_busy(check_storage(&cow, &CheckOptions::new().repair(repair)));
        }
        check_storage(&cow, &CheckOptions::new().lock(false)).unwrap();
        assert_whole(image, &cow, &origin);
        check_storage(&cow, &CheckOptions::new().repair(Repair::All)).unwrap();
    });
}

#[test]
fn test_no_store_is_made_in_a_storage_in_use() {
    with_each_kind(|new| {
        let (cow, origin) = (new(), base(new()));
        create(&cow, CHUNK, SIZE);
        let image = open(&cow, &origin);
        image.write(&[1; 10], 0).unwrap();
        image.flush().unwrap();
        for storage in [&cow, &origin] {
            assert_busy(Image::create_on(storage, &CreateOptions::new().size(SIZE)));
            assert_busy(image.snapshot_to(storage.clone(), None, None));
        }
        let model = contents(&image);
        assert_same(&model[..10], &[1; 10], "what was written");
        assert_whole(image, &cow, &origin);
    });
}

#[test]
fn test_a_merge_meets_the_siblings_over_its_base() {
    with_each_kind(|new| {
        let (one, two, origin) = (new(), new(), base(new()));
        create(&one, CHUNK, SIZE);
        create(&two, CHUNK, SIZE);
        let image = open(&one, &origin);
        let sibling = open(&two, &origin);
        image.write(&[1; 10], 0).unwrap();
        assert_busy(image.merge(&mut |_| true));
        let model = pattern(1, SIZE as usize);
        assert_same(&contents(&sibling), &model, "the sibling");
        drop(sibling);
        let merge = image.start_merge().unwrap();
        assert_busy(Image::open_storage(
            two.clone(),
            &over(OriginChoice::Storage(origin.clone())),
        ));
        drop(merge);
        image.merge(&mut |_| true).unwrap();
        drop(open(&two, &origin));
        assert_whole(image, &one, &origin);
    });
}

#[test]
fn test_a_merge_meets_other_layers_over_the_same_image() {
    with_each_kind(|new| {
        let (below, one, two, origin) = (new(), new(), new(), base(new()));
        for cow in [&below, &one, &two] {
            create(cow, CHUNK, SIZE);
        }
        let middle = Arc::new(open(&below, &origin));
        let layer = |cow: &SharedStorage| {
            Image::open_storage(cow.clone(), &over(OriginChoice::Image(middle.clone())))
        };
        let image = layer(&one).unwrap();
        let sibling = layer(&two).unwrap();
        image.write(&[1; 10], 0).unwrap();
        assert_busy(image.merge(&mut |_| true));
        drop(sibling);
        // The image in the middle reads through the layer that is written.
        let merge = image.start_merge().unwrap();
        assert_busy(layer(&two));
        drop(merge);
        image.merge(&mut |_| true).unwrap();
        assert_same(&contents(&middle), &contents(&image), "the middle");
        drop(layer(&two).unwrap());
        drop(image);
        // It still relies on what it reads.
        assert_busy(Image::create_on(&below, &CreateOptions::new().size(SIZE)));
        drop(middle);
        Image::create_on(&below, &CreateOptions::new().size(SIZE)).unwrap();
    });
}

#[test]
fn test_a_snapshot_keeps_its_claims() {
    with_each_kind(|new| {
        let (cow, origin, top) = (new(), base(new()), new());
        create(&cow, CHUNK, SIZE);
        let image = open(&cow, &origin);
        image.write(&[1; 10], 0).unwrap();
        image.snapshot_to(top.clone(), None, None).unwrap();
        image.write(&[2; 10], CHUNK).unwrap();
        assert_busy(Image::open_storage(top.clone(), &over(OriginChoice::Zeros)));
        assert_busy(Image::create_on(&cow, &CreateOptions::new().size(SIZE)));
        // The frozen layer can be read beside.
        let options = OpenOptions::new().origin(OriginChoice::Storage(origin.clone()));
        let frozen = Image::open_storage(cow.clone(), &options).unwrap();
        assert_same(&contents(&frozen)[..10], &[1; 10], "the frozen layer");
        assert_busy(image.merge(&mut |_| true));
        drop(frozen);
        image.merge(&mut |_| true).unwrap();
        let model = contents(&image);
        image.close().unwrap();
        let merged = Image::open_storage(cow.clone(), &options).unwrap();
        assert_same(&contents(&merged), &model, "merged");
    });
}

#[test]
fn test_an_image_handed_in_as_origin_may_not_lie_over_the_layer() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let options = CreateOptions::new().size(SIZE);
    Image::create(path("below"), &options).unwrap();
    let options = CreateOptions::new().origin("below", dmsnap::Format::Dmsnap);
    Image::create(path("above"), &options).unwrap();
    let options = OpenOptions::new().origin(OriginChoice::FromImage);
    let above = Arc::new(Image::open(path("above"), &options).unwrap());
    let options = OpenOptions::new().origin(OriginChoice::Image(above));
    let error = Image::open(path("below"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChainTooDeep, "{error}");
    assert!(error.to_string().contains("below"), "{error}");
}
