//! An image behaves as a disk: what was written is read, through flushes, reopening, snapshots, merges and changes of size.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use dmsnap::{ByteRange, CreateOptions, ErrorKind, Image, OpenOptions, OriginChoice};
use image_common::*;

const SIZE: usize = 100 * 1024 + 512;

fn put(model: &mut [u8], bytes: &[u8], offset: usize) {
    model[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn test_partial_writes_keep_the_origins_bytes_around_them() {
    for chunk_bytes in [512, 4096, 16384, 65536] {
        let base = pattern(1, SIZE);
        let (image, cow, origin) = image_over(&base, chunk_bytes);
        let mut model = base.clone();
        for (seed, offset, len) in [
            (2, 5000, 300),
            (3, 0, 1),
            (4, SIZE - 700, 700),
            (5, 8192, 40000),
        ] {
            let bytes = pattern(seed, len);
            image.write(&bytes, offset as u64).unwrap();
            put(&mut model, &bytes, offset);
        }
        assert_same(&contents(&image), &model, "before the flush");
        image.flush().unwrap();
        image.close().unwrap();
        assert_same(&bytes_of(&origin), &base, "the origin");
        assert_same(&contents(&open(&cow, &origin)), &model, "after reopening");
    }
}

#[test]
fn test_vectors_are_split_at_extents() {
    let (image, ..) = image_over(&pattern(1, SIZE), 4096);
    image.write(&pattern(2, 4096), 8192).unwrap();
    let bytes = pattern(3, 20000);
    let parts = [
        IoSlice::new(&bytes[..1000]),
        IoSlice::new(&bytes[1000..9000]),
        IoSlice::new(&bytes[9000..]),
    ];
    image.write_vectored(&parts, 5000).unwrap();
    let mut expected = pattern(1, SIZE);
    put(&mut expected, &pattern(2, 4096), 8192);
    put(&mut expected, &bytes, 5000);
    let (mut one, mut two) = (vec![0; 7000], vec![0; 30000]);
    image
        .read_vectored(
            &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)],
            100,
        )
        .unwrap();
    assert_same(&[one, two].concat(), &expected[100..37100], "vectors");
}

#[test]
fn test_zeros_past_a_shorter_origin() {
    let (cow, origin) = (memory(), memory_with(&pattern(1, 10_000)));
    create(&cow, 16384, 65536);
    let image = open(&cow, &origin);
    image.write(&[7; 10], 12_000).unwrap();
    image.write(&[8; 10], 40_000).unwrap();
    let mut expected = pattern(1, 10_000);
    expected.resize(65536, 0);
    put(&mut expected, &[7; 10], 12_000);
    put(&mut expected, &[8; 10], 40_000);
    assert_same(&contents(&image), &expected, "longer than its origin");
}

#[test]
fn test_discard_zeroes_whole_mapped_chunks_only() {
    let base = pattern(1, SIZE);
    let (image, cow, _) = image_over(&base, 16384);
    let mut model = base.clone();
    put(&mut model, &pattern(2, 65536), 0);
    image.write(&pattern(2, 65536), 0).unwrap();
    let before = image.exceptions();
    image
        .discard(ByteRange::new(100, SIZE as u64 - 100))
        .unwrap();
    model[16384..65536].fill(0);
    assert_same(&contents(&image), &model, "after discard");
    assert_eq!(image.exceptions(), before);
    assert!(
        !cow.extent_at(16384 * 3).unwrap().allocated,
        "space was given back"
    );
}

#[test]
fn test_write_zeroes_reads_back_as_zeros() {
    for unmap in [false, true] {
        let base = pattern(1, SIZE);
        let (image, ..) = image_over(&base, 16384);
        let mut model = base.clone();
        put(&mut model, &pattern(2, 20000), 3000);
        image.write(&pattern(2, 20000), 3000).unwrap();
        for (start, len) in [(4000, 100), (10_000, 60_000), (SIZE - 9, 9)] {
            image
                .write_zeroes(ByteRange::new(start as u64, len as u64), unmap)
                .unwrap();
            model[start..start + len].fill(0);
        }
        assert_same(&contents(&image), &model, "zeros");
    }
    let (cow, origin) = (memory(), memory());
    create(&cow, 4096, 1 << 30);
    let image = open(&cow, &origin);
    image
        .write_zeroes(ByteRange::new(0, 1 << 30), true)
        .unwrap();
    assert_eq!(image.exceptions(), [], "zeros over zeros need no exception");
}

#[test]
fn test_snapshot_freezes_the_old_top() {
    let base = pattern(1, SIZE);
    let (image, first, origin) = image_over(&base, 4096);
    image.write(&pattern(2, 5000), 5000).unwrap();
    let frozen = contents(&image);
    let second = memory();
    image
        .snapshot_to(second.clone(), Some("first"), Some(chunk(16384)))
        .unwrap();
    assert_eq!(image.chunk_size(), chunk(16384));
    image.write(&pattern(3, 9000), 7000).unwrap();
    let mut model = frozen.clone();
    put(&mut model, &pattern(3, 9000), 7000);
    assert_same(&contents(&image), &model, "the new top");
    image.close().unwrap();

    let below = Image::open_storage(
        first,
        &OpenOptions::new().origin(OriginChoice::Storage(origin.clone())),
    )
    .unwrap();
    assert_same(&contents(&below), &frozen, "the frozen layer");
    let options = over(OriginChoice::Image(Arc::new(below)));
    let image = Image::open_storage(second, &options).unwrap();
    assert_same(&contents(&image), &model, "the chain, reopened");
    assert_same(&bytes_of(&origin), &base, "the base");
}

#[test]
fn test_merge_moves_everything_into_a_raw_origin() {
    for chunk_bytes in [512, 4096, 65536] {
        let (image, cow, origin) = image_over(&pattern(1, SIZE), chunk_bytes);
        for seed in 0..40 {
            image
                .write(&pattern(seed, 1500), (seed * 7919) % (SIZE as u64 - 1500))
                .unwrap();
        }
        image.discard(ByteRange::new(0, 30_000)).unwrap();
        let model = contents(&image);
        let mut calls = 0;
        image
            .merge(&mut |progress| {
                calls += 1;
                assert!(progress.done <= progress.total);
                true
            })
            .unwrap();
        assert!(calls > 0);
        assert_eq!(image.exceptions(), []);
        assert_same(&bytes_of(&origin), &model, "the origin");
        assert_same(&contents(&image), &model, "the image");
        image.write(&[9; 600], 1000).unwrap();
        image.close().unwrap();
        let image = open(&cow, &origin);
        let mut model = model;
        put(&mut model, &[9; 600], 1000);
        assert_same(&contents(&image), &model, "after writing on");
        assert_eq!(
            image.exceptions().iter().map(|run| run.2).sum::<u64>(),
            1600_u64.div_ceil(chunk_bytes) - 1000 / chunk_bytes
        );
    }
}

#[test]
fn test_merge_into_a_layer_goes_through_that_layer() {
    let base = pattern(1, SIZE);
    let (image, ..) = image_over(&base, 4096);
    image.write(&pattern(2, 5000), 5000).unwrap();
    let second = memory();
    image.snapshot_to(second, None, Some(chunk(16384))).unwrap();
    image.write(&pattern(3, 9000), 7000).unwrap();
    image
        .write_zeroes(ByteRange::new(50_000, 20_000), true)
        .unwrap();
    image.resize(SIZE as u64 + 65536, false).unwrap();
    image.write(&pattern(4, 100), SIZE as u64 + 60000).unwrap();
    let model = contents(&image);
    image.merge(&mut |_| true).unwrap();
    assert_eq!(image.exceptions(), []);
    assert_same(&contents(&image), &model, "after the merge");
}

#[test]
fn test_resize_shows_zeros_and_forgets_what_lies_past_the_end() {
    let base = pattern(1, SIZE);
    let (image, ..) = image_over(&base, 16384);
    image.write(&pattern(2, 30_000), 50_000).unwrap();
    let mut model = contents(&image);
    assert_eq!(
        image.resize(60_416, false).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        image.resize(60_000, true).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    image.resize(60_416, true).unwrap();
    model.truncate(60_416);
    assert_same(&contents(&image), &model, "shrunk");
    image.resize(SIZE as u64 * 2, false).unwrap();
    model.resize(SIZE * 2, 0);
    assert_same(&contents(&image), &model, "grown again");
}

#[test]
fn test_bounds_and_rights_are_checked() {
    let (image, cow, origin) = image_over(&pattern(1, SIZE), 4096);
    let end = SIZE as u64;
    let mut buf = [0; 2];
    for (error, what) in [
        (image.read(&mut buf, end - 1).unwrap_err(), "read"),
        (image.write(&buf, end - 1).unwrap_err(), "write"),
        (image.write(&buf, u64::MAX).unwrap_err(), "write far out"),
        (image.read(&mut [], end + 1).unwrap_err(), "empty read"),
        (
            image.discard(ByteRange::new(0, end + 1)).unwrap_err(),
            "discard",
        ),
        (
            image
                .write_zeroes(ByteRange::new(end, 1), true)
                .unwrap_err(),
            "write zeroes",
        ),
        (
            image.next_extent(ByteRange::new(0, end + 1)).unwrap_err(),
            "extent",
        ),
    ] {
        assert_eq!(error.kind(), ErrorKind::OutOfBounds, "{what}: {error}");
        assert!(error.path().is_some(), "{what}: {error}");
    }
    image.read(&mut [], end).unwrap();
    assert_eq!(image.exceptions(), [], "nothing was written");
    drop(image);
    let options = OpenOptions::new().origin(OriginChoice::Storage(origin));
    let image = Image::open_storage(cow, &options).unwrap();
    assert_eq!(
        image.write(&buf, 0).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(
        image.merge(&mut |_| true).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    image.flush().unwrap();
}

#[test]
fn test_extents_name_the_layer_and_its_offset() {
    let base = pattern(1, 65536);
    let (cow, origin) = (memory(), memory_with(&base));
    create(&cow, 4096, 131_072);
    let image = open(&cow, &origin);
    image.write(&[1; 8192], 8192).unwrap();
    let extents: Vec<_> = image
        .extents(ByteRange::new(0, 131_072))
        .unwrap()
        .map(|extent| extent.unwrap())
        .collect();
    let shape: Vec<_> = extents
        .iter()
        .map(|e| (e.range.start, e.range.len, e.depth, e.allocated, e.offset))
        .collect();
    assert_eq!(
        shape,
        [
            (0, 8192, 1, true, Some(0)),
            (8192, 8192, 0, true, Some(8192)),
            (16384, 49152, 1, true, Some(16384)),
            (65536, 65536, 1, false, None),
        ]
    );
}

#[test]
fn test_full_device_gives_no_space_and_works_on() {
    let (cow, origin) = (
        Arc::new(dmsnap::storage::MemoryStorage::fixed(4096 * 5)) as _,
        memory(),
    );
    create(&cow, 4096, 65536);
    let image = open(&cow, &origin);
    image.write(&[1; 3 * 4096], 0).unwrap();
    let error = image.write(&[2; 512], 40960).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    image.write(&[3; 3 * 4096], 0).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_same(
        &contents(&open(&cow, &origin))[..3 * 4096],
        &[3; 3 * 4096],
        "what fitted",
    );
}

#[test]
fn test_a_bare_store_takes_only_sizes_of_disks() {
    let (cow, origin) = (memory(), memory_with(&pattern(1, 10_000)));
    create(&cow, 512, 8192);
    for size in [1000, 511, u64::MAX, 1 << 63] {
        let options = over(OriginChoice::Storage(origin.clone())).bare_size(size);
        let error = Image::open_storage(cow.clone(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    for size in [0, 512, 1 << 40] {
        let options = over(OriginChoice::Storage(origin.clone())).bare_size(size);
        let image = Image::open_storage(cow.clone(), &options).unwrap();
        assert_eq!(image.size(), size);
    }
    // As on a loop device, an odd end of the origin does not count.
    assert_eq!(open(&cow, &origin).size(), 10_000 / 512 * 512);
}

#[test]
fn test_small_chunks_need_a_bare_store() {
    let cow = memory();
    let options = CreateOptions::new().chunk_size(chunk(512)).size(65536);
    let error = Image::create_on(&cow, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    Image::create_on(&cow, &options.bare(true)).unwrap();
    let options = OpenOptions::new().writable(true);
    let error = Image::open_storage(cow.clone(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OriginRefused, "{error}");
    let options = options.origin(OriginChoice::Zeros).bare_size(65536);
    let image = Image::open_storage(cow, &options).unwrap();
    image.write(&[1; 65536], 0).unwrap();
}

#[test]
fn test_huge_chunks_are_copied_in_pieces() {
    let size = 3 << 20;
    let mut base = pattern(1, size);
    base[1 << 20..2 << 20].fill(0);
    let (cow, origin) = (memory(), memory_with(&base));
    create(&cow, 16 << 20, size as u64);
    let image = open(&cow, &origin);
    image.write(&[9; 1000], 1_500_000).unwrap();
    put(&mut base, &[9; 1000], 1_500_000);
    assert_same(&contents(&image), &base, "one chunk of 16 MiB");
    image.close().unwrap();
    assert_same(&contents(&open(&cow, &origin)), &base, "reopened");
}

/// A file that was cut right before a metadata area gets that by the next commit, and then the size in the figures is the file's.
#[test]
fn test_figures_of_a_file_that_was_cut_before_an_area() {
    let cow = memory();
    create(&cow, 4096, 16 << 20);
    let open = || Image::open_storage(cow.clone(), &over(OriginChoice::Zeros)).unwrap();
    let image = open();
    image.write(&pattern(1, 12 << 20), 0).unwrap();
    image.resize(7 * 4096, true).unwrap();
    image.resize(16 << 20, false).unwrap();
    for chunk in 7..2048 {
        image.write(&[chunk as u8; 4096], chunk * 4096).unwrap();
    }
    image.flush().unwrap();
    let total = image.usage().total_sectors;
    assert_eq!(total, cow.size().unwrap() / 512);
    // Looks through all areas of the log.
    image.resize(100 * 4096, true).unwrap();
    let model = contents(&image);
    image.close().unwrap();
    assert_same(&contents(&open()), &model, "opened again");
}
