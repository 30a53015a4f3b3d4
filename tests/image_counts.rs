//! What operations cost, by counting: flushes, bytes, calls, memory.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::sync::Arc;

use dmsnap::Image;
use dmsnap::storage::SharedStorage;
use dmsnap::storage::testing::{CallKinds, CountingStorage};
use image_common::*;

const CHUNK: u64 = 4096;
const CHUNKS: u64 = 40_000;

fn counted(origin_len: u64) -> (Image, Arc<CountingStorage>, Arc<CountingStorage>) {
    let (cow, origin) = (memory(), memory());
    origin.set_size(origin_len).unwrap();
    create(&cow, CHUNK, CHUNKS * CHUNK);
    let cow = Arc::new(CountingStorage::new(cow));
    let origin = Arc::new(CountingStorage::new(origin));
    let image = open(
        &(cow.clone() as SharedStorage),
        &(origin.clone() as SharedStorage),
    );
    (image, cow, origin)
}

/// Writes one sector each in so many different chunks, in no order.
fn scatter(image: &Image, count: u64) {
    for i in 0..count {
        // 7919 shares no factor with the number of chunks, so no chunk comes twice.
        image
            .write(&[1; 512], (i * 7919 % CHUNKS) * CHUNK + 512)
            .unwrap();
    }
}

#[test]
fn test_ten_thousand_first_writes_cost_three_flushes() {
    let (image, cow, origin) = counted(CHUNKS * CHUNK);
    scatter(&image, 10_000);
    assert_eq!(
        cow.calls(CallKinds::FLUSH),
        0,
        "none before it is asked for"
    );
    image.flush().unwrap();
    let flushes = cow.calls(CallKinds::FLUSH);
    assert!((1..=3).contains(&flushes), "{flushes}");
    assert_eq!(origin.calls(CallKinds::MUTATING), 0);
    assert_eq!(
        image.exceptions().iter().map(|run| run.2).sum::<u64>(),
        10_000
    );
}

#[test]
fn test_a_merge_costs_two_flushes_of_each_file_a_batch() {
    let (image, cow, origin) = counted(CHUNKS * CHUNK);
    scatter(&image, 10_000);
    image.flush().unwrap();
    cow.reset();
    origin.reset();
    let mut batches = 0;
    image
        .merge(&mut |_| {
            batches += 1;
            true
        })
        .unwrap();
    assert!(batches <= 10_000 / 4096 + 2, "{batches} batches");
    let flushes = (cow.calls(CallKinds::FLUSH), origin.calls(CallKinds::FLUSH));
    // A batch holds more than 10,000 of these; what is durable before and after it is not flushed again.
    let bound = 2;
    assert!(
        flushes.0 <= bound && flushes.1 <= bound,
        "{flushes:?}, {bound} allowed"
    );
    assert_eq!(image.exceptions(), []);
}

#[test]
fn test_whole_chunks_copy_nothing_and_partial_ones_in_one_read() {
    let (image, cow, origin) = counted(CHUNKS * CHUNK);
    image.write(&[0; 512], 0).unwrap();
    cow.reset();
    origin.reset();
    image
        .write(&vec![1; 16 * CHUNK as usize], 8 * CHUNK)
        .unwrap();
    assert_eq!(origin.calls(CallKinds::IO), 0, "whole chunks");
    assert_eq!(
        (cow.calls(CallKinds::IO), cow.bytes(CallKinds::WRITE)),
        (1, 16 * CHUNK),
        "one write for all of them"
    );
    cow.reset();
    image.write(&[1; 1024], 100 * CHUNK + 512).unwrap();
    assert_eq!(
        (origin.calls(CallKinds::IO), origin.bytes(CallKinds::READ)),
        (1, CHUNK),
        "one read for head and tail"
    );
    assert_eq!(
        (cow.calls(CallKinds::IO), cow.bytes(CallKinds::WRITE)),
        (1, CHUNK),
        "one write for all three"
    );
    cow.reset();
    origin.reset();
    image.write(&[1; 1024], 101 * CHUNK).unwrap();
    assert_eq!(
        (origin.calls(CallKinds::IO), origin.bytes(CallKinds::READ)),
        (1, CHUNK - 1024),
        "the tail alone"
    );
    let large = 10 * CHUNK;
    image
        .write(&vec![1; large as usize], 200 * CHUNK + 512)
        .unwrap();
    assert_eq!(
        (cow.calls(CallKinds::IO), cow.bytes(CallKinds::WRITE)),
        (2, 12 * CHUNK),
        "one write for each"
    );
    cow.reset();
    origin.reset();
    image.write(&[2; 1024], 100 * CHUNK + 1000).unwrap();
    image.read(&mut [0; 100], 100 * CHUNK).unwrap();
    assert_eq!(origin.calls(CallKinds::IO), 0, "the exception is there");
    assert_eq!(
        (cow.bytes(CallKinds::WRITE), cow.bytes(CallKinds::READ)),
        (1024, 100),
        "in place"
    );
}

#[test]
fn test_past_the_origins_end_nothing_is_read_or_filled() {
    let (image, cow, origin) = counted(0);
    image.write(&[0; 512], 0).unwrap();
    cow.reset();
    origin.reset();
    image.write(&[1; 512], 100 * CHUNK + 1024).unwrap();
    assert_eq!(origin.calls(CallKinds::IO), 0);
    assert_eq!(cow.bytes(CallKinds::WRITE | CallKinds::WRITE_ZEROES), 512);
}
