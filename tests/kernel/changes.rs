//! Cases of sizes that change, and of everything else that changes a layer but writes.

use std::fs;

use dmsnap::{ByteRange, Image};

use crate::library::{exceptions, sha256};
use crate::pair::Pair;
use crate::pattern;
use crate::together::{Case, Desk};
use crate::tool;
use crate::vm::PATTERN_SEED;

const SECTOR: u64 = pattern::SECTOR as u64;

pub(crate) fn all() -> Vec<Case> {
    let longer = |sectors| {
        let name = format!("longer by {sectors}");
        Case::new(name, move |desk| longer(desk, sectors))
    };
    let shorter = |sectors| {
        let name = format!("shorter by {sectors}");
        Case::new(name, move |desk| shorter(desk, sectors))
    };
    let sizes = [8, 32, 128].map(longer);
    let mut cases: Vec<Case> = sizes.into_iter().chain([8, 32, 128].map(shorter)).collect();
    cases.extend([
        Case::new(
            "shorter, written by the kernel, longer",
            shorter_written_longer,
        ),
        Case::new("shorter, then longer", shorter_then_longer),
        Case::new("adopted and made longer", adopted),
        Case::new("blocks of 4096 bytes", large_blocks),
        Case::new("origin written", origin_written),
        Case::new("discarded by the kernel", discarded),
        Case::new("a device full of garbage", garbage),
        Case::new("stale slots", stale_slots),
        Case::new("emptied", emptied),
        Case::new("given up by us", given_up),
    ]);
    cases
}

fn resize(pair: &mut Pair, image: &Image, sectors: u64) {
    image.resize(sectors * SECTOR, true).unwrap();
    pair.model.resize((sectors * SECTOR) as usize, 0);
}

/// A disk that is longer than its origin.
fn longer(desk: &Desk<'_>, sectors: u32) {
    let mut pair = Pair::create(desk, 803, sectors);
    pair.ours(|pair, image| {
        pair.scribble(image, 10);
        resize(pair, image, 1500);
        pair.scribble(image, 10);
    });
    pair.theirs(desk, |pair| pair.kernel_writes(8));
    // The kernel could not merge it: what it put under the disk's end forgets everything.
    pair.ours(|pair, image| pair.scribble(image, 5));
    pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
    pair.assert_merged();
}

/// A disk that is shorter than its origin.
fn shorter(desk: &Desk<'_>, sectors: u32) {
    let mut pair = Pair::create(desk, 3000, sectors);
    pair.ours(|pair, image| {
        pair.scribble(image, 30);
        let last = ByteRange::new(2900 * SECTOR, 90 * SECTOR);
        pair.write(image, last);
        pair.scribble(image, 5);
        let before = exceptions(image).len();
        resize(pair, image, 1011);
        assert!(exceptions(image).len() < before, "some were dropped");
        pair.scribble(image, 5);
    });
    pair.theirs(desk, |pair| pair.kernel_writes(6));
    pair.ours(|pair, image| {
        pair.scribble(image, 5);
        resize(pair, image, 700);
        pair.scribble(image, 5);
    });
    pair.theirs_merged(desk, |pair| pair.kernel_writes(3));
}

/// The kernel copies the whole last chunk of a shorter disk, and what lies behind the disk must not
/// show when it grows.
fn shorter_written_longer(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 2000, 8);
    pair.ours(|pair, image| {
        pair.scribble(image, 5);
        resize(pair, image, 901);
    });
    pair.theirs(desk, |pair| {
        let written = pattern::sectors(PATTERN_SEED, 3, 2);
        let last = ByteRange::new(899 * SECTOR, 2 * SECTOR);
        pair.model_of(last).copy_from_slice(&written);
        "put s 899 2 3".into()
    });
    pair.ours(|pair, image| {
        resize(pair, image, 1000);
        pair.scribble(image, 3);
    });
    pair.theirs_merged(desk, |pair| pair.kernel_writes(3));
}

/// What was cut off must not come back.
fn shorter_then_longer(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 2000, 8);
    pair.ours(|pair, image| {
        pair.scribble(image, 20);
        resize(pair, image, 901);
        resize(pair, image, 2500);
        pair.scribble(image, 5);
    });
    pair.theirs(desk, |pair| pair.kernel_writes(6));
    pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
    pair.assert_merged();
}

/// A kernel's store in garbage becomes an image of ours and grows.
fn adopted(desk: &Desk<'_>) {
    let mut pair = Pair::blank(desk, 803, 8, 3000);
    let work = pair.kernel_writes(6) + "put s 800 3 9\n";
    let last = ByteRange::new(800 * SECTOR, 3 * SECTOR);
    pair.model_of(last)
        .copy_from_slice(&pattern::sectors(PATTERN_SEED, 9, 3));
    let attach = pair.attach_as_it_is();
    desk.kernel(
        pair.scenario()
            .script(&attach)
            .script(&work)
            .script("detach s"),
    );
    pair.look();
    let size = (803 * SECTOR).to_string();
    let add = [
        "amend",
        "cow",
        "-b",
        "origin",
        "-F",
        "raw",
        "--add-descriptor",
        &size,
    ];
    tool::ok(desk.directory, &add);
    pair.ours(|pair, image| {
        resize(pair, image, 1400);
        pair.scribble(image, 10);
    });
    pair.theirs(desk, |pair| pair.kernel_writes(5));
}

/// On disks with large blocks.
fn large_blocks(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 2400, 8);
    pair.ours(|pair, image| pair.scribble(image, 20));
    let mut scenario = pair.scenario();
    for disk in &mut scenario.disks {
        disk.block_size = 4096;
    }
    let scenario = scenario
        .script(&pair.attach(false))
        .script("field status \"$(status s)\"; field view $(hash s)");
    let outcome = desk.kernel(scenario);
    assert_eq!(outcome.field("status"), pair.look());
    assert_eq!(outcome.field("view"), sha256(&pair.model));
}

/// The kernel writes the origin below our layer.
fn origin_written(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1003, 8);
    pair.ours(|pair, image| pair.scribble(image, 8));
    // Copied out before it is overwritten, so the disk stays as it is.
    pair.theirs(desk, |_| {
        "origin_of o $origin
         put o 3 90 50; put o 990 13 700; put o 400 200 100
         detach o"
            .into()
    });
    let origin = fs::read(&pair.origin).unwrap();
    assert!(origin != pattern::sectors(0x0b5e, 0, 1003));
    pair.ours(|pair, image| pair.scribble(image, 8));
    pair.theirs_merged(desk, |pair| pair.kernel_writes(2));
}

/// The kernel discards chunks of our layer.
fn discarded(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1000, 8);
    pair.ours(|pair, image| {
        pair.write(image, ByteRange::new(80 * SECTOR, 160 * SECTOR));
    });
    pair.theirs(desk, |pair| {
        pair.model_of(ByteRange::new(104 * SECTOR, 48 * SECTOR))
            .fill(0);
        "detach s; snapshot s $origin $cow PO 8 discard_zeroes_cow
         discard s 104 48; discard s 400 80"
            .into()
    });
    pair.ours(|pair, image| pair.scribble(image, 8));
}

/// What a device held before must never show.
fn garbage(desk: &Desk<'_>) {
    let mut pair = Pair::create_on_device(desk, 1203, 8, 3000);
    pair.ours(|pair, image| pair.scribble(image, 25));
    pair.theirs(desk, |pair| pair.kernel_writes(4));
    pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
    pair.ours(|pair, image| pair.scribble(image, 10));
    pair.theirs_merged(desk, |pair| pair.kernel_writes(4));
}

/// `dmsnap table` clears what a kernel would bring back to life.
fn stale_slots(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1000, 8);
    pair.ours(|pair, image| pair.write(image, ByteRange::new(0, 40 * SECTOR)));
    let mut cow = fs::read(&pair.cow).unwrap();
    // As a torn write leaves it: the kernel's next exception would bring it back to life.
    let slot = 4096 + 6 * 16;
    cow[slot..slot + 16]
        .copy_from_slice(&[[7, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]].concat());
    fs::write(&pair.cow, &cow).unwrap();
    // One exception, just before the slot.
    pair.theirs(desk, |pair| {
        let written = pattern::sectors(PATTERN_SEED, 5, 1);
        pair.model_of(ByteRange::new(500 * SECTOR, SECTOR))
            .copy_from_slice(&written);
        "put s 500 1 5".into()
    });
}

/// All exceptions are forgotten, then there are new ones.
fn emptied(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1000, 8);
    pair.ours(|pair, image| pair.scribble(image, 20));
    pair.ours(|pair, image| {
        image.make_empty().unwrap();
        pair.model = fs::read(&pair.origin).unwrap();
        pair.scribble(image, 20);
    });
    pair.theirs_merged(desk, |pair| pair.kernel_writes(3));
}

/// An invalidation by us is one to the kernel.
fn given_up(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1000, 8);
    pair.ours(|pair, image| pair.scribble(image, 3));
    let (image, _storage) = pair.open(true);
    image.drop_snapshot().unwrap();
    drop(image);
    let scenario = pair
        .scenario()
        .script(&pair.attach_as_it_is())
        .script("field status \"$(status s)\"; fails dd if=/dev/mapper/s of=/dev/null");
    assert_eq!(desk.kernel(scenario).field("status"), "Invalid");
}
