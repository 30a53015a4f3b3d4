//! Cases in which space ends.

use std::fs;

use dmsnap::store::{OverflowMode, Status};
use dmsnap::{ByteRange, ErrorKind, Image};

use crate::library::{self, sha256};
use crate::pair::Pair;
use crate::pattern;
use crate::reference::Reference;
use crate::together::{Case, Desk};
use crate::vm::PATTERN_SEED;

const SECTOR: u64 = pattern::SECTOR as u64;

pub(crate) fn all() -> Vec<Case> {
    let mut cases = devices();
    cases.extend(overflows());
    cases.push(Case::new("overflow by the kernel in mode P", |desk| {
        overflow_by_the_kernel(desk, "P");
    }));
    cases.push(Case::new("overflow by the kernel in mode PO", |desk| {
        overflow_by_the_kernel(desk, "PO");
    }));
    cases
}

/// Devices of every critical size, filled by us until there is no space: as far as the kernel fills
/// its own, and the kernel finds everything. It lacks space then, too.
fn devices() -> Vec<Case> {
    let critical = [3, 4, 33, 34, 35, 36, 67, 68];
    let one = |sectors: u32, chunks: u64, rest: u64| {
        let name = format!("device of {chunks} chunks of {sectors} sectors and {rest}");
        Case::new(name, move |desk| {
            let cow_sectors = chunks * u64::from(sectors) + rest;
            let origin = 520 * u64::from(sectors) + 5;
            let mut pair = Pair::create_on_device(desk, origin, sectors, cow_sectors);
            pair.ours(|pair, image| {
                let size = pair.chunk.bytes();
                for old in 0.. {
                    let range = ByteRange::new((519 - old) * size, size);
                    if let Err(error) = image.write(&[0x3c], range.start) {
                        assert_eq!(error.kind(), ErrorKind::NoSpace);
                        break;
                    }
                    pair.write(image, range);
                }
                // Full or not, what has an exception can be written.
                pair.write(image, ByteRange::new(519 * size, 100));
                image.flush().unwrap();
            });
            full_device(desk, &mut pair, chunks);
        })
    };
    let small = critical.into_iter().map(|chunks| one(1, chunks, 0));
    let large = [(257, 0), (258, 0), (259, 0), (258, 7), (259, 5), (260, 0)];
    let large = large.into_iter().map(|(chunks, rest)| one(8, chunks, rest));
    small.chain(large).collect()
}

/// The kernel looks at a full device of ours, tries to write more, and fills one of its own.
fn full_device(desk: &Desk<'_>, pair: &mut Pair, chunks: u64) {
    let chunk = pair.chunk.sectors();
    let ends_behind_area = (chunks - 1).is_multiple_of(32 * chunk + 1);
    let own = desk.directory.join("own");
    let size = fs::metadata(&pair.cow).unwrap().len();
    fs::write(&own, vec![0; size as usize]).unwrap();
    let (status, view) = (pair.look(), sha256(&pair.model));
    let records = Reference::load(&fs::read(&pair.cow).unwrap())
        .unwrap()
        .records;
    let fill_own = format!(
        "snapshot k $origin $own PO {chunk}; put k 0 {} 0
         field own \"$(status k)\"; detach k",
        records.len() as u64 * chunk
    );
    let scenario = pair
        .scenario()
        .disk("own", &own)
        .script(&pair.attach(false))
        .script("field status \"$(status s)\"; field view $(hash s)")
        .script("fails put s 0 1 0; field after \"$(status s)\"")
        .script("detach s")
        .script(&fill_own);
    let outcome = desk.kernel(scenario);
    let name = &pair.name;
    assert_eq!(outcome.field("status"), status, "{name}");
    assert_eq!(outcome.field("view"), view, "{name}");
    // The kernel can fill its own as far, with the same figures.
    assert_eq!(outcome.field("own"), status, "{name}");
    if ends_behind_area {
        // One chunk looks free; using it is what kills a store in the kernel's hands.
        assert_eq!(outcome.field("after"), "Invalid", "{name}");
        let (image, storage) = (
            fs::read(&pair.cow).unwrap(),
            fs::read(&pair.origin).unwrap(),
        );
        let error = library::open(&library::memory(&image), &library::memory(&storage), false);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::SnapshotInvalid);
    } else {
        assert_eq!(outcome.field("after"), "Overflow", "{name}");
        assert_eq!(pair.look(), status, "{name}");
    }
}

/// The kernel's two ways to be full, gone by us.
fn overflows() -> Vec<Case> {
    let over = |pair: &mut Pair, image: &Image| {
        pair.write(image, ByteRange::new(16 * SECTOR, 48 * SECTOR));
        let len = (pair.model.len() - 70 * 512) as u64;
        let room = image.exceptions().iter().map(|run| run.2).sum::<u64>();
        assert_eq!(room, 6);
        let big = vec![7; len as usize];
        image.write(&big, 70 * SECTOR).unwrap_err()
    };
    vec![
        Case::new("overflow in mode P", move |desk| {
            let mut pair = Pair::create_on_device(desk, 400, 8, 84);
            pair.overflow = OverflowMode::Persistent;
            let (image, storage) = pair.open(true);
            let error = over(&mut pair, &image);
            assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
            assert_eq!(image.status(), Status::Invalid);
            let error = image.read(&mut [0], 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SnapshotInvalid, "{error}");
            drop(image);
            fs::write(&pair.cow, library::bytes_of(&storage)).unwrap();
            let scenario = pair
                .scenario()
                .script(&pair.attach(false))
                .script("field status \"$(status s)\"; fails dd if=/dev/mapper/s of=/dev/null")
                .script("fails put s 16 1 0; detach s");
            assert_eq!(desk.kernel(scenario).field("status"), "Invalid");
            let invalid = dmsnap::inspect(&pair.cow).unwrap();
            assert_eq!(invalid.status, Status::Invalid);
        }),
        Case::new("overflow in mode PO", move |desk| {
            let mut pair = Pair::create_on_device(desk, 400, 8, 84);
            pair.overflow = OverflowMode::PersistentOverflow;
            let (image, storage) = pair.open(true);
            let error = over(&mut pair, &image);
            assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
            assert_eq!(image.status(), Status::Overflow);
            pair.model = library::view(&image);
            image.close().unwrap();
            fs::write(&pair.cow, library::bytes_of(&storage)).unwrap();
            assert_eq!(pair.look(), "80/84 16");
            pair.theirs(desk, |pair| {
                let bytes = pattern::sectors(PATTERN_SEED, 5, 48);
                pair.model_of(ByteRange::new(16 * SECTOR, 48 * SECTOR))
                    .copy_from_slice(&bytes);
                "put s 16 48 5".into()
            });
        }),
    ]
}

/// A file of ours without room for more. The kernel's mode decides what is left of it.
fn overflow_by_the_kernel(desk: &Desk<'_>, mode: &str) {
    let mut pair = Pair::create(desk, 1000, 8);
    pair.ours(|pair, image| pair.write(image, ByteRange::new(80 * SECTOR, 80 * SECTOR)));
    let attach = pair.attach_as_it_is().replace(" PO ", &format!(" {mode} "));
    let scenario = pair
        .scenario()
        .script(&attach)
        .script("put s 80 4 7; fails put s 800 4 7; field status \"$(status s)\"; detach s");
    let outcome = desk.kernel(scenario);
    if mode == "P" {
        assert_eq!(outcome.field("status"), "Invalid");
        let error = library::open_path(&pair.cow, &pair.origin, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SnapshotInvalid, "{error}");
        let info = dmsnap::inspect(&pair.cow).unwrap();
        assert_eq!(info.status, Status::Invalid);
        // The kernel wrote the whole header chunk.
        assert_eq!(info.descriptor, None);
        return;
    }
    assert_eq!(outcome.field("status"), "Overflow");
    let written = pattern::sectors(PATTERN_SEED, 7, 4);
    pair.model_of(ByteRange::new(80 * SECTOR, 4 * SECTOR))
        .copy_from_slice(&written);
    pair.look();
    pair.ours(|pair, image| pair.scribble(image, 10));
    pair.theirs_merged(desk, |pair| pair.kernel_writes(5));
}
