//! The library and the golden files: what the kernel saw in its own stores, the library sees too.
//!
//! No virtual machine here; `tests/kernel` makes these files and judges what the library writes.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "common/golden.rs"]
mod golden;
#[path = "common/library.rs"]
mod library;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/reference.rs"]
mod reference;

use dmsnap::store::OverflowMode;
use dmsnap::{
    ChunkSize, CreateOptions, ErrorKind, Image, OpenOptions, OriginChoice, inspect_storage,
};
use golden::Golden;
use library::{assert_same, bytes_of, exceptions, memory, open, sha256, view};
use reference::Reference;

/// The golden stores that can be read.
fn readable() -> Vec<Golden> {
    let mut readable = golden::all();
    readable.retain(|golden| golden.view.is_some());
    assert!(readable.len() >= 25, "{}", readable.len());
    readable
}

#[test]
fn content_and_figures_are_the_kernels() {
    for golden in readable() {
        let name = &golden.name;
        let (cow, origin) = (memory(&golden.cow), memory(&golden.origin));
        let image = open(&cow, &origin, false).unwrap();
        assert_eq!(image.size(), golden.origin.len() as u64, "{name}");
        assert_eq!(
            image.chunk_size().sectors(),
            u64::from(golden.chunk),
            "{name}"
        );
        assert_eq!(Some(sha256(&view(&image))), golden.view, "{name}");
        assert_eq!(image.status().to_string(), golden.status, "{name}");
        let mut records = Reference::load(&golden.cow).unwrap().records;
        records.sort_unstable();
        assert_eq!(exceptions(&image), records, "{name}");
        drop(image);
        assert!(bytes_of(&cow) == golden.cow, "{name}: reading changed it");
    }
}

#[test]
fn invalid_stores_are_refused_and_say_so() {
    let mut invalid = golden::all();
    invalid.retain(|golden| golden.view.is_none());
    assert!(invalid.len() >= 3, "{}", invalid.len());
    for golden in invalid {
        let name = &golden.name;
        for writable in [false, true] {
            let (cow, origin) = (memory(&golden.cow), memory(&golden.origin));
            let error = open(&cow, &origin, writable).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SnapshotInvalid, "{name}: {error}");
            assert!(error.to_string().contains("invalid"), "{name}: {error}");
            assert!(bytes_of(&cow) == golden.cow, "{name}: refusing changed it");
        }
        let status = inspect_storage(&memory(&golden.cow)).unwrap().status;
        assert_eq!(status.to_string(), golden.status, "{name}");
    }
}

#[test]
fn checks_find_nothing_in_what_the_kernel_wrote() {
    for golden in golden::all() {
        let outcome = library::check(&golden.cow).unwrap();
        let wanted = u64::from(golden.view.is_none());
        assert_eq!(outcome.is_clean(), wanted == 0, "{}", golden.name);
        assert_eq!(outcome.report.corruptions, wanted, "{}", golden.name);
        let found: Vec<_> = outcome.report.findings.iter().collect();
        assert_eq!(found.len() as u64, wanted, "{}: {found:?}", golden.name);
    }
}

/// Half-merged ones and full ones among them.
#[test]
fn merging_leaves_the_view_in_the_origin() {
    for golden in readable() {
        let name = &golden.name;
        let (cow, origin) = (memory(&golden.cow), memory(&golden.origin));
        let image = open(&cow, &origin, true).unwrap();
        image.merge(&mut |_| true).unwrap();
        assert_eq!(image.exceptions(), [], "{name}");
        image.close().unwrap();
        assert_eq!(Some(sha256(&bytes_of(&origin))), golden.view, "{name}");
        let merged = Reference::load(&bytes_of(&cow)).unwrap();
        assert_eq!(merged.records, [], "{name}");
    }
}

/// The operations that the scripts of these stores have, on a device as large: in the kernel's modes
/// we leave what the kernel leaves, and what was written before the end is the same to the byte.
#[test]
fn running_full_leaves_what_the_kernel_leaves() {
    let full = |name: &str, mode: OverflowMode, writes: &[(u64, u64, u64)]| {
        let golden = golden::named(name);
        let device = library::device(&vec![0; golden.cow.len()]);
        let chunk = ChunkSize::from_sectors(golden.chunk).unwrap();
        let options = CreateOptions::new().chunk_size(chunk).bare(true);
        Image::create_on(&device, &options).unwrap();
        let origin = OriginChoice::Storage(memory(&golden.origin));
        let options = OpenOptions::new().writable(true).overflow(mode);
        let image = Image::open_storage(device.clone(), &options.origin(origin)).unwrap();
        let (last, fitting) = writes.split_last().unwrap();
        let write = |&(at, count, from): &(u64, u64, u64)| {
            image.write(&pattern::sectors(0xd15c, from, count), at * 512)
        };
        fitting.iter().for_each(|fits| write(fits).unwrap());
        image.flush().unwrap();
        assert_eq!(write(last).unwrap_err().kind(), ErrorKind::Overflow);
        assert_eq!(image.status().to_string(), golden.live_status, "{name}");
        image.close().unwrap();
        assert_same(&bytes_of(&device), &golden.cow, name);
    };
    let (first, second, third) = ((16, 48, 10), (100, 9, 60), (203, 1, 70));
    full(
        "overflow-p",
        OverflowMode::Persistent,
        &[first, second, third],
    );
    let too_long = (100, 40, 60);
    full(
        "overflow-po",
        OverflowMode::PersistentOverflow,
        &[first, too_long],
    );
}

/// What the kernel began we go on with; the plain rules still find everything.
#[test]
fn writing_on_is_understood_by_the_reference_reader() {
    for golden in readable() {
        let name = &golden.name;
        let (cow, origin) = (memory(&golden.cow), memory(&golden.origin));
        let image = open(&cow, &origin, true).unwrap();
        let mut expected = view(&image);
        for (number, start) in (0..expected.len()).step_by(7001).enumerate() {
            let len = (1 + number * 977 % 6000).min(expected.len() - start);
            let bytes = vec![number as u8; len];
            image.write(&bytes, start as u64).unwrap();
            expected[start..start + len].copy_from_slice(&bytes);
        }
        image.flush().unwrap();
        let cow_bytes = bytes_of(&cow);
        let reference = Reference::load(&cow_bytes).unwrap();
        let found = reference.view(&golden.origin, &cow_bytes).unwrap();
        assert_same(&found, &expected, name);
        assert_eq!(reference.status(), image.status().to_string(), "{name}");
        close_and_compare(image, &expected, name, || {
            open(&cow, &origin, false).unwrap()
        });
        assert!(library::check(&bytes_of(&cow)).unwrap().is_clean());
    }
}

fn close_and_compare(image: Image, expected: &[u8], name: &str, reopen: impl Fn() -> Image) {
    image.close().unwrap();
    assert_same(&view(&reopen()), expected, name);
}
