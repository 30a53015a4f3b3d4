//! What runs out of space half-way: nothing is lost, no handle stops writing, and nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::sync::Arc;

use dmsnap::storage::SharedStorage;
use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage};
use dmsnap::{ErrorKind, Image, OpenOptions, OriginChoice};
use image_common::*;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const CHUNK: u64 = 16384;
const SIZE: u64 = 256 << 10;

/// All that records are written with.
const WRITES: CallKinds = CallKinds::WRITE.union(CallKinds::WRITE_ZEROES);

#[track_caller]
fn assert_full<T>(result: dmsnap::Result<T>) {
    let error = result.err().expect("there is no space");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}

/// An image over a base, whose merge found no space for its records; its COW file, its base, and another layer over that.
struct Merged {
    image: Image,
    cow: Arc<FaultStorage>,
    origin: SharedStorage,
    other: SharedStorage,
}

fn merge_without_space_for_records() -> Merged {
    let cow = Arc::new(FaultStorage::new(memory()));
    let shared: SharedStorage = cow.clone();
    let (other, origin) = (memory(), memory_with(&pattern(1, SIZE as usize)));
    create(&shared, CHUNK, SIZE);
    create(&other, CHUNK, SIZE);
    let image = open(&shared, &origin);
    image.write(&[1; 10], 0).unwrap();
    image.flush().unwrap();
    cow.arm(Fault::on(WRITES).errno(ENOSPC).forever());
    assert_full(image.merge(&mut |_| true));
    Merged {
        image,
        cow,
        origin,
        other,
    }
}

#[track_caller]
fn assert_busy<T>(result: dmsnap::Result<T>) {
    let error = result.err().expect("somebody claims it");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}

/// Where the origin's last flush in a merge finds no space, it stays locked until a later flush has succeeded, and no longer.
#[test]
fn test_an_origin_is_free_again_once_it_is_flushed() {
    for dropped in [true, false] {
        let (one, two) = (memory(), memory());
        let origin = Arc::new(FaultStorage::new(memory_with(&pattern(1, SIZE as usize))));
        let shared: SharedStorage = origin.clone();
        create(&one, CHUNK, SIZE);
        create(&two, CHUNK, SIZE);
        let image = open(&one, &shared);
        image.write(&[1; 10], 0).unwrap();
        let mut merge = image.start_merge().unwrap();
        assert!(merge.step().unwrap(), "one batch");
        // Goes to the origin.
        image.write(&[2; 10], 3 * CHUNK).unwrap();
        origin.arm(Fault::on(CallKinds::FLUSH).errno(ENOSPC));
        assert_full(merge.step());
        let sibling = || {
            let options = over(OriginChoice::Storage(shared.clone()));
            Image::open_storage(two.clone(), &options)
        };
        assert_busy(sibling());
        if dropped {
            origin.arm(Fault::on(CallKinds::FLUSH).errno(ENOSPC));
            drop(merge);
            assert_busy(sibling());
            image.flush().unwrap();
        } else {
            assert!(!merge.step().unwrap());
            drop(merge);
        }
        drop(sibling().unwrap());
        image.close().unwrap();
    }
}

/// Records that a merge could not clear are cleared by the next flush; until then who writes to their chunks is told.
#[test]
fn test_a_merge_without_space_for_its_records_is_ended_by_a_flush() {
    let merged = merge_without_space_for_records();
    let image = &merged.image;
    assert_full(image.write(&[2; 10], 5));
    assert_full(image.flush());
    image.write(&[3; 10], 2 * CHUNK).unwrap();
    merged.cow.disarm();
    image.write(&[2; 10], 5).unwrap();
    image.flush().unwrap();
    drop(open(&merged.other, &merged.origin));
    let found = contents(image);
    assert_same(&found[..15], &[[1; 5].as_slice(), &[2; 10]].concat(), "all");
    image.merge(&mut |_| true).unwrap();
    assert_same(&contents(image), &found, "merged after all");
    merged.image.close().unwrap();
    let options = OpenOptions::new().origin(OriginChoice::Storage(merged.origin));
    let image = Image::open_storage(merged.cow, &options).unwrap();
    assert_same(&contents(&image), &found, "opened again");
}

/// A merge that ended by whatever flushed next no longer claims the origin, and the new layer knows nothing of it.
#[test]
fn test_a_snapshot_after_a_merge_without_space_frees_the_origin() {
    let merged = merge_without_space_for_records();
    merged.cow.disarm();
    let options = over(OriginChoice::Storage(merged.origin.clone()));
    assert_busy(Image::open_storage(merged.other.clone(), &options));
    merged.image.snapshot_to(memory(), None, None).unwrap();
    drop(open(&merged.other, &merged.origin));
    assert_same(&contents(&merged.image)[..10], &[1; 10], "the new layer");
}

/// A shrink whose descriptor finds no space changes no size, neither at once nor later.
#[test]
fn test_a_shrink_without_space_keeps_the_size() {
    let (cow, origin) = (memory(), memory());
    create(&cow, 4096, 16 * 4096);
    let faulty = Arc::new(FaultStorage::new(cow.clone()));
    let image = open(&(faulty.clone() as SharedStorage), &origin);
    image.write(&pattern(1, 3 * 4096), 5 * 4096).unwrap();
    image.flush().unwrap();
    let before = contents(&image);
    for kinds in [CallKinds::WRITE, CallKinds::FLUSH] {
        faulty.arm(Fault::on(kinds).errno(ENOSPC));
        assert_full(image.resize(4096, true));
        assert_same(&contents(&image), &before, "refused");
        image.flush().unwrap();
        assert_same(&contents(&image), &before, "flushed");
    }
    image.close().unwrap();
    assert_same(&contents(&open(&cow, &origin)), &before, "opened again");
}

/// An image of 16 chunks of 4096 bytes over as many, with its COW file and its origin.
fn small_image() -> (Image, Arc<FaultStorage>, Arc<FaultStorage>) {
    let (inner, base) = (memory(), memory_with(&pattern(2, 16 * 4096)));
    create(&inner, 4096, 16 * 4096);
    let cow = Arc::new(FaultStorage::new(inner));
    let origin = Arc::new(FaultStorage::new(base));
    let image = open(
        &(cow.clone() as SharedStorage),
        &(origin.clone() as SharedStorage),
    );
    (image, cow, origin)
}

/// A layer of 16 chunks that records an origin of one.
fn create_over_one_chunk(cow: &SharedStorage) {
    let options = dmsnap::CreateOptions::new()
        .chunk_size(chunk(4096))
        .size(16 * 4096)
        .origin_identity(None, 4096)
        .origin("base.raw", dmsnap::Format::Raw);
    Image::create_on(cow, &options).unwrap();
}

/// An origin whose flush failed when a merge was to begin is not merged into; the layer above it works on.
#[test]
fn test_an_origin_that_takes_no_writes_does_not_stop_its_layer() {
    let cow = memory();
    create_over_one_chunk(&cow);
    let origin = Arc::new(FaultStorage::new(memory_with(&pattern(2, 4096))));
    let image = open(&cow, &(origin.clone() as SharedStorage));
    image.write(&[1; 10], 0).unwrap();
    // It is made as long as the layer and flushed.
    origin.arm(Fault::on(CallKinds::FLUSH).errno(EIO));
    let error = image.merge(&mut |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    for _ in 0..2 {
        let error = image.start_merge().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PreviousIo, "{error}");
        image.write(&[2; 10], 4096).unwrap();
        image.flush().unwrap();
    }
    image.resize(8 * 4096, true).unwrap();
    image.close().unwrap();
}

/// What could not be emptied for want of space is emptied later, but nothing is lost that was written after the failure.
#[test]
fn test_writes_after_a_failed_emptying_survive_it() {
    let (image, cow, origin) = small_image();
    image.write(&[1; 3 * 4096], 0).unwrap();
    image.flush().unwrap();
    cow.arm(Fault::on(WRITES).errno(ENOSPC).forever());
    assert_full(image.make_empty());
    for at in [0, 8 * 4096] {
        assert_full(image.write(&[3; 10], at));
    }
    cow.disarm();
    image.write(&[4; 10], 4096).unwrap();
    image.flush().unwrap();
    let mut expected = pattern(2, 16 * 4096);
    expected[4096..4106].fill(4);
    assert_same(&contents(&image), &expected, "emptied, then written");
    image.close().unwrap();
    assert_same(
        &contents(&open(&(cow as SharedStorage), &(origin as SharedStorage))),
        &expected,
        "opened again",
    );
}

/// A snapshot that could not be given up for want of space is a good one.
#[test]
fn test_a_snapshot_not_given_up_for_want_of_space_goes_on() {
    let (image, cow, origin) = small_image();
    image.write(&[1; 4096], 0).unwrap();
    image.flush().unwrap();
    for kinds in [CallKinds::WRITE, CallKinds::FLUSH] {
        cow.arm(Fault::on(kinds).errno(ENOSPC));
        assert_full(image.drop_snapshot());
        image.write(&[3; 4096], 4096).unwrap();
        image.flush().unwrap();
        assert_eq!(contents(&image)[4096], 3);
    }
    image.close().unwrap();
    let image = open(&(cow as SharedStorage), &(origin as SharedStorage));
    assert_eq!(contents(&image)[4096], 3);
    image.drop_snapshot().unwrap();
}

/// The thread that is to try the next step of a merge again must not wait for that.
#[test]
fn test_writes_between_the_steps_of_a_merge_without_space_do_not_hang() {
    let (image, cow, origin) = small_image();
    image.write(&[1; 4096], 0).unwrap();
    let mut merge = image.start_merge().unwrap();
    for kinds in [CallKinds::WRITE, CallKinds::FLUSH] {
        origin.arm(Fault::on(kinds).errno(ENOSPC));
        assert_full(merge.step());
        image.write(&[2; 10], 0).unwrap();
    }
    // Its records may be gone or not.
    cow.arm(Fault::on(WRITES).errno(ENOSPC));
    for error in [merge.step().map(drop), image.write(&[3; 10], 0)] {
        assert_full(error);
    }
    assert_same(
        &contents(&image)[..11],
        &[[2; 10].as_slice(), &[1]].concat(),
        "not done",
    );
    while merge.step().unwrap() {}
    image.write(&[3; 10], 0).unwrap();
    assert_same(
        &contents(&image)[..11],
        &[[3; 10].as_slice(), &[1]].concat(),
        "done",
    );
}

/// An origin that was made longer by a merge which then failed is still known by the next one.
#[test]
fn test_a_merge_tried_again_records_the_length_of_its_origin() {
    let (inner, origin) = (memory(), memory_with(&pattern(2, 4096)));
    create_over_one_chunk(&inner);
    let cow = Arc::new(FaultStorage::new(inner.clone()));
    let image = open(&(cow.clone() as SharedStorage), &origin);
    image.write(&[1; 4096], 4096).unwrap();
    image.flush().unwrap();
    cow.arm(Fault::on(CallKinds::WRITE).errno(ENOSPC));
    image.merge(&mut |_| true).unwrap_err();
    image.merge(&mut |_| true).unwrap();
    let recorded = image.descriptor().unwrap().origin_size;
    assert_eq!((recorded, origin.size().unwrap()), (16 * 4096, 16 * 4096));
    image.close().unwrap();
    assert_eq!(open(&inner, &origin).warnings(), Vec::<String>::new());
}
