//! Checks and repairs: leaks, and what interrupted operations leave.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::fs;

use dmsnap::{CheckOptions, CreateOptions, Image, OpenOptions, Repair, check};
use image_common::*;

const SIZE: u64 = 1 << 20;

#[test]
fn test_leaks_are_found_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let layer = directory.path().join("layer");
    Image::create(&layer, &CreateOptions::new().size(SIZE)).unwrap();
    let image = Image::open(&layer, &OpenOptions::new().writable(true)).unwrap();
    image.write(&pattern(1, 3 * 16384), 0).unwrap();
    image.close().unwrap();
    // The second of three records goes: its chunk is in nobody's hands any more.
    let mut bytes = fs::read(&layer).unwrap();
    let (area, record) = (16384, 16);
    bytes.copy_within(area + 2 * record..area + 3 * record, area + record);
    bytes[area + 2 * record..area + 3 * record].fill(0);
    fs::write(&layer, &bytes).unwrap();

    let found = check(&layer, &CheckOptions::new()).unwrap();
    assert_eq!((found.leaks, found.leaked_bytes), (1, 16384));
    assert_eq!((found.remaining_leaks, found.repaired_leaks), (1, 0));
    assert!(!found.is_clean());
    assert!(
        fs::read(&layer).unwrap() == bytes,
        "a check changes nothing"
    );
    let repaired = check(&layer, &CheckOptions::new().repair(Repair::Leaks)).unwrap();
    assert_eq!(
        (
            repaired.leaks,
            repaired.repaired_leaks,
            repaired.remaining_leaks
        ),
        (1, 1, 0)
    );
    assert!(check(&layer, &CheckOptions::new()).unwrap().is_clean());
    let image = Image::open(&layer, &OpenOptions::new()).unwrap();
    let mut expected = pattern(1, 3 * 16384);
    expected[16384..2 * 16384].fill(0);
    assert_same(
        &contents(&image)[..3 * 16384],
        &expected,
        "what has records",
    );
}

#[test]
fn test_records_left_by_an_interruption_are_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let layer = directory.path().join("layer");
    Image::create(&layer, &CreateOptions::new().size(SIZE)).unwrap();
    let image = Image::open(&layer, &OpenOptions::new().writable(true)).unwrap();
    image.write(&pattern(1, 3 * 16384), 0).unwrap();
    let expected = contents(&image);
    image.close().unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    // Behind the terminator something was torn, and the last record stands twice.
    bytes.copy_within(16384 + 32..16384 + 48, 16384 + 48);
    bytes[16384 + 160] = 1;
    fs::write(&layer, &bytes).unwrap();
    let found = check(&layer, &CheckOptions::new()).unwrap();
    assert_eq!(found.remaining_corruptions, 0);
    assert_eq!(found.remaining_repairable, 2, "{:?}", found.report.findings);
    let repaired = check(&layer, &CheckOptions::new().repair(Repair::All)).unwrap();
    assert_eq!((repaired.repaired, repaired.remaining_repairable), (2, 0));
    assert!(check(&layer, &CheckOptions::new()).unwrap().is_clean());
    // Opening for writing does the same by itself.
    fs::write(&layer, &bytes).unwrap();
    let image = Image::open(&layer, &OpenOptions::new().writable(true)).unwrap();
    assert_same(&contents(&image), &expected, "nothing is lost");
    image.write(&[1; 10], 0).unwrap();
    image.write(&[1; 10], SIZE - 10).unwrap();
    image.close().unwrap();
    assert!(check(&layer, &CheckOptions::new()).unwrap().is_clean());
}
