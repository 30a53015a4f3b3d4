//! What every storage does, whatever is below it.

use std::io::{IoSlice, IoSliceMut};
use std::thread;

use dmsnap::error::ErrorKind;
use dmsnap::storage::{LockMode, Storage};
use dmsnap::units::ByteRange;

use super::pattern;

/// Bytes that the battery needs in a storage of fixed size; growable ones start empty.
pub(crate) const SIZE: u64 = 8 << 20;

/// Runs every behaviour on a fresh storage each time.
pub(crate) fn run(name: &str, mut fresh: impl FnMut() -> Box<dyn Storage>) {
    type Behaviour = fn(&dyn Storage);
    let behaviours: [(&str, Behaviour); 12] = [
        ("writes are read back", writes_are_read_back),
        ("any alignment works", any_alignment_works),
        ("vectors of odd pieces", vectors_of_odd_pieces),
        (
            "more slices than one call takes",
            more_slices_than_one_call_takes,
        ),
        ("reading past the end fails", reading_past_the_end_fails),
        ("size is exact", size_is_exact),
        ("zeroes in any range", zeroes_in_any_range),
        ("discard leaves the rest", discard_leaves_the_rest),
        ("extents cover all", extents_cover_all),
        ("reader mode refuses writes", reader_mode_refuses_writes),
        (
            "threads do not disturb each other",
            threads_do_not_disturb_each_other,
        ),
        ("absurd ranges fail", absurd_ranges_fail),
    ];
    for (behaviour, check) in behaviours {
        println!("{name}: {behaviour}");
        let storage = fresh();
        check(&*storage);
        storage.flush().unwrap();
    }
}

fn read(storage: &dyn Storage, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    storage.read_at(&mut buf, offset).unwrap();
    buf
}

/// Makes sure of `size` bytes at least.
fn sized(storage: &dyn Storage, size: u64) {
    if storage.size().unwrap() < size {
        storage.set_size(size).unwrap();
    }
}

fn writes_are_read_back(storage: &dyn Storage) {
    let data = pattern(1, 100_000);
    storage.write_at(&data, 4096).unwrap();
    assert!(read(storage, 4096, data.len()) == data);
    storage.write_at(b"abc", 5000).unwrap();
    assert_eq!(
        read(storage, 4999, 5),
        [data[903], b'a', b'b', b'c', data[907]]
    );
    storage.write_at(b"", 0).unwrap();
    storage.read_at(&mut [], 0).unwrap();
    assert!(storage.block_size().is_power_of_two());
    assert!(!storage.name().is_empty());
}

fn any_alignment_works(storage: &dyn Storage) {
    sized(storage, 65536);
    let mut model = vec![0; 65536];
    storage.write_at(&model, 0).unwrap();
    for (round, &(start, len)) in [
        (0, 1),
        (1, 511),
        (511, 2),
        (512, 512),
        (4095, 2),
        (4000, 9000),
        (0, 4096),
        (8192, 12288),
        (3, 65530),
        (12287, 4097),
        (65535, 1),
        (20480, 45056),
    ]
    .iter()
    .enumerate()
    {
        let data = pattern(round as u8, len);
        storage.write_at(&data, start as u64).unwrap();
        model[start..start + len].copy_from_slice(&data);
        assert!(
            read(storage, 0, 65536) == model,
            "after {len} bytes at {start}"
        );
        let from = start.saturating_sub(7);
        assert!(read(storage, from as u64, start + len - from) == model[from..start + len]);
    }
}

fn vectors_of_odd_pieces(storage: &dyn Storage) {
    let data = pattern(2, 50_000);
    let (first, rest) = data.split_at(4096);
    let (second, third) = rest.split_at(777);
    let slices = [first, &[], second, third].map(IoSlice::new);
    storage.write_vectored_at(&slices, 8192).unwrap();
    let (mut a, mut b) = (vec![0; 1], vec![0; data.len() - 1]);
    let mut slices = [
        IoSliceMut::new(&mut a),
        IoSliceMut::new(&mut []),
        IoSliceMut::new(&mut b),
    ];
    storage.read_vectored_at(&mut slices, 8192).unwrap();
    assert!(
        slices[2].len() == data.len() - 1,
        "the caller's slices stay as they were"
    );
    assert!([a, b].concat() == data);
}

fn more_slices_than_one_call_takes(storage: &dyn Storage) {
    let data = pattern(3, 2500 * 3);
    let slices: Vec<_> = data.chunks(3).map(IoSlice::new).collect();
    storage.write_vectored_at(&slices, 100).unwrap();
    assert!(read(storage, 100, data.len()) == data);
    let mut back = vec![0; data.len()];
    let mut slices: Vec<_> = back.chunks_mut(3).map(IoSliceMut::new).collect();
    storage.read_vectored_at(&mut slices, 100).unwrap();
    assert!(back == data);
}

fn reading_past_the_end_fails(storage: &dyn Storage) {
    storage.write_at(&pattern(4, 4096), 0).unwrap();
    let size = storage.size().unwrap();
    for (offset, len) in [
        (size - 1, 2),
        (size, 1),
        (size + 4096, 4096),
        (size - 512, 8192),
    ] {
        let error = storage.read_at(&mut vec![0; len], offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let text = error.to_string();
        assert!(text.contains(storage.name()), "{text}");
        assert!(text.contains(&size.to_string()), "{text}");
        assert!(error.offset().is_some(), "{text}");
    }
    let mut last = [0; 512];
    storage.read_at(&mut last, size - 512).unwrap();
}

fn size_is_exact(storage: &dyn Storage) {
    if !storage.is_growable() {
        let size = storage.size().unwrap();
        assert_eq!(size, SIZE);
        storage.set_size(size).unwrap();
        assert_eq!(
            storage.set_size(size + 512).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(
            storage.set_size(size - 512).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(
            storage.write_at(&[1; 512], size).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        let beyond = ByteRange::new(size - 512, 1024);
        assert_eq!(
            storage.write_zeroes(beyond, true).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        return;
    }
    for size in [1, 511, 512, 4096, 5000, 70_000] {
        storage.write_at(&[7], size - 1).unwrap();
        assert_eq!(storage.size().unwrap(), size);
    }
    let data = pattern(5, 70_000);
    storage.write_at(&data, 0).unwrap();
    storage.set_size(5001).unwrap();
    assert_eq!(storage.size().unwrap(), 5001);
    storage.set_size(9000).unwrap();
    let back = read(storage, 0, 9000);
    assert!(back[..5001] == data[..5001]);
    assert!(
        back[5001..].iter().all(|&byte| byte == 0),
        "what is new reads as zeros"
    );
}

fn zeroes_in_any_range(storage: &dyn Storage) {
    let len = 256 << 10;
    let data = pattern(6, len);
    for unmap in [true, false] {
        for (start, count) in [
            (0, 4096),
            (1, 4095),
            (512, 1024),
            (4096, 131_072),
            (5001, 99_999),
            (3, 0),
        ] {
            storage.write_at(&data, 0).unwrap();
            storage
                .write_zeroes(ByteRange::new(start, count), unmap)
                .unwrap();
            let mut model = data.clone();
            model[start as usize..(start + count) as usize].fill(0);
            assert!(
                read(storage, 0, len) == model,
                "unmap {unmap}, {count} bytes at {start}"
            );
        }
    }
    if storage.is_growable() {
        for (unmap, end) in [(true, 300_001), (false, 400_003)] {
            let start = storage.size().unwrap() - 100;
            storage.write_at(&[9], start - 1).unwrap();
            storage
                .write_zeroes(ByteRange::new(start, end - start), unmap)
                .unwrap();
            assert_eq!(storage.size().unwrap(), end, "unmap {unmap}");
            assert!(
                read(storage, start, (end - start) as usize)
                    .iter()
                    .all(|&byte| byte == 0)
            );
            assert_eq!(read(storage, start - 1, 1), [9]);
        }
    }
}

fn discard_leaves_the_rest(storage: &dyn Storage) {
    let data = pattern(7, 200_000);
    storage.write_at(&data, 0).unwrap();
    let size = storage.size().unwrap();
    storage.discard(ByteRange::new(10_000, 100_001)).unwrap();
    storage.discard(ByteRange::new(size + 5, 1000)).unwrap();
    assert_eq!(storage.size().unwrap(), size);
    assert!(read(storage, 0, 10_000) == data[..10_000]);
    assert!(read(storage, 110_001, 89_999) == data[110_001..]);
}

fn extents_cover_all(storage: &dyn Storage) {
    sized(storage, SIZE);
    storage.write_at(&pattern(8, 65536), 1 << 20).unwrap();
    let size = storage.size().unwrap();
    let mut at = 0;
    while at < size {
        let extent = storage.extent_at(at).unwrap();
        assert!(
            extent.len > 0 && at + extent.len <= size,
            "{extent:?} at {at} of {size}"
        );
        let written = 1 << 20..(1 << 20) + 65536;
        if !extent.allocated {
            assert!(
                at >= written.end || at + extent.len <= written.start,
                "{extent:?} at {at}"
            );
            assert!(
                read(storage, at, extent.len as usize)
                    .iter()
                    .all(|&byte| byte == 0)
            );
        }
        at += extent.len;
    }
    assert_eq!(storage.extent_at(size).unwrap().len, 0);
    assert_eq!(storage.extent_at(size + 1).unwrap().len, 0);
}

fn reader_mode_refuses_writes(storage: &dyn Storage) {
    storage.write_at(&[1; 4096], 0).unwrap();
    for mode in [LockMode::Reader, LockMode::None] {
        storage.lock(mode).unwrap();
        let range = ByteRange::new(0, 512);
        let size = storage.size().unwrap();
        let results = [
            storage.write_at(&[2; 512], 0),
            storage.write_zeroes(range, true),
            storage.write_zeroes(range, false),
            storage.discard(range),
            storage.set_size(size),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        assert_eq!(read(storage, 0, 512), [1; 512]);
    }
    storage.lock(LockMode::Writer).unwrap();
    storage.write_at(&[3; 512], 0).unwrap();
    assert_eq!(read(storage, 0, 512), [3; 512]);
}

fn threads_do_not_disturb_each_other(storage: &dyn Storage) {
    let piece = 700;
    sized(storage, 4 * piece * 16);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                for round in 0..16 {
                    let at = (round * 4 + thread) * piece;
                    storage
                        .write_at(&pattern(thread as u8, piece as usize), at)
                        .unwrap();
                    assert!(
                        read(storage, at, piece as usize) == pattern(thread as u8, piece as usize)
                    );
                }
            });
        }
    });
    for slot in 0..64 {
        let expected = pattern((slot % 4) as u8, piece as usize);
        assert!(
            read(storage, slot * piece, piece as usize) == expected,
            "slot {slot}"
        );
    }
}

fn absurd_ranges_fail(storage: &dyn Storage) {
    sized(storage, 4096);
    let size = storage.size().unwrap();
    for start in [u64::MAX, u64::MAX - 600, i64::MAX as u64 - 5, 1 << 63] {
        assert!(
            storage.write_at(&[1; 512], start).is_err(),
            "write at {start}"
        );
        assert!(
            storage.read_at(&mut [0; 512], start).is_err(),
            "read at {start}"
        );
        assert!(
            storage
                .write_zeroes(ByteRange::new(start, 512), false)
                .is_err(),
            "zero at {start}"
        );
    }
    assert!(
        storage
            .write_zeroes(ByteRange::new(4096, u64::MAX), true)
            .is_err()
    );
    assert_eq!(storage.size().unwrap(), size);
}
