//! Reads and writes of chunks that have an exception, against the same on a raw file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use dmsnap::Image;

use crate::files::{
    Buffer, Directory, GIB, KIB, Random, create_layer, create_raw, fill_raw, open_layer, open_raw,
    timed,
};
use crate::harness::{Aim, Table, Turns, Unit};

const BLOCK: u64 = 4 * KIB;
const EXCEPTIONS: u64 = 256 << 10;

const CACHED_READ: &str = "4 KiB random reads";
const CACHED_READ_2: &str = "4 KiB random reads, 2 threads";
const CACHED_WRITE: &str = "4 KiB random overwrites";
const CACHED_WRITE_2: &str = "4 KiB random overwrites, 2 threads";
const DIRECT_READ: &str = "O_DIRECT 4 KiB random reads";
const DIRECT_WRITE: &str = "O_DIRECT 4 KiB random overwrites";

/// Runs `work` on two threads at once, with half of `offsets` each. From when the first begins to when the last is done.
fn on_two_threads(offsets: &[u64], work: impl Fn(&[u64]) + Sync) -> Duration {
    let (first, second) = offsets.split_at(offsets.len() / 2);
    let barrier = Barrier::new(2);
    let (barrier, work) = (&barrier, &work);
    let timed_part = |part| {
        barrier.wait();
        let start = Instant::now();
        work(part);
        (start, Instant::now())
    };
    let ((start, end), (other_start, other_end)) = thread::scope(|scope| {
        let other = scope.spawn(move || timed_part(second));
        let own = timed_part(first);
        (own, other.join().expect("no panic"))
    });
    end.max(other_end) - start.min(other_start)
}

fn read_raw(file: &File, offsets: &[u64]) {
    let mut buf = Buffer::new(BLOCK);
    for &offset in offsets {
        file.read_exact_at(buf.bytes(), offset).expect("read");
    }
}

fn write_raw(file: &File, offsets: &[u64]) {
    let mut buf = Buffer::new(BLOCK);
    for &offset in offsets {
        file.write_all_at(buf.bytes(), offset).expect("write");
    }
}

fn read_image(image: &Image, offsets: &[u64]) {
    let mut buf = Buffer::new(BLOCK);
    for &offset in offsets {
        image.read(buf.bytes(), offset).expect("read");
    }
}

fn write_image(image: &Image, offsets: &[u64]) {
    let mut buf = Buffer::new(BLOCK);
    for &offset in offsets {
        image.write(buf.bytes(), offset).expect("write");
    }
}

pub(crate) fn run(table: &mut Table) {
    let names = [
        CACHED_READ,
        CACHED_READ_2,
        CACHED_WRITE,
        CACHED_WRITE_2,
        DIRECT_READ,
        DIRECT_WRITE,
    ];
    if !table.section(
        "256 K exceptions in random order, chunks of 4 KiB (1 GiB)",
        &names,
    ) {
        return;
    }
    let directory = Directory::new("mapped");
    let (raw_path, layer_path) = (directory.file("raw"), directory.file("layer"));
    let raw = create_raw(&raw_path);
    fill_raw(&raw, GIB, BLOCK);
    create_layer(&layer_path, BLOCK, GIB, None);
    let image = open_layer(&layer_path, false);
    let mut random = Random::new(1);
    let order: Vec<u64> = random
        .permutation(EXCEPTIONS)
        .iter()
        .map(|chunk| chunk * BLOCK)
        .collect();
    write_image(&image, &order);
    image.flush().expect("flush");
    // Other offsets than those of the exceptions' order, which would be consecutive in the COW file.
    let order: Vec<u64> = random
        .permutation(EXCEPTIONS)
        .iter()
        .map(|chunk| chunk * BLOCK)
        .collect();
    cached(table, &raw, &image, &order);
    image.close().expect("close");
    raw.sync_all().expect("sync");
    let (raw, image) = (open_raw(&raw_path, true), open_layer(&layer_path, true));
    direct(table, &raw, &image, &order);
}

/// The offsets of a slice.
fn turn(order: &[u64], count: usize, slice: usize) -> &[u64] {
    let turns = order.len() / count;
    &order[slice % turns * count..][..count]
}

fn cached(table: &mut Table, raw: &File, image: &Image, order: &[u64]) {
    const COUNT: usize = 250;
    const TURNS: Turns = Turns {
        rounds: 15,
        slices: 51,
    };
    let unit = Unit::PerOperation(COUNT as u64);
    // Everything is in the cache before it counts.
    read_raw(raw, order);
    read_image(image, order);
    let part = |slice: usize| turn(order, COUNT, slice);
    table.compare(
        CACHED_READ,
        Aim::AtLeast(0.8),
        unit,
        TURNS,
        |slice| timed(|| read_raw(raw, part(slice))),
        |slice| timed(|| read_image(image, part(slice))),
    );
    table.compare(
        CACHED_READ_2,
        Aim::None,
        unit,
        TURNS,
        |slice| on_two_threads(part(slice), |part| read_raw(raw, part)),
        |slice| on_two_threads(part(slice), |part| read_image(image, part)),
    );
    table.compare(
        CACHED_WRITE,
        Aim::AtLeast(0.95),
        unit,
        TURNS,
        |slice| timed(|| write_raw(raw, part(slice))),
        |slice| timed(|| write_image(image, part(slice))),
    );
    table.compare(
        CACHED_WRITE_2,
        Aim::AtLeast(0.9),
        unit,
        TURNS,
        |slice| on_two_threads(part(slice), |part| write_raw(raw, part)),
        |slice| on_two_threads(part(slice), |part| write_image(image, part)),
    );
}

fn direct(table: &mut Table, raw: &File, image: &Image, order: &[u64]) {
    const COUNT: usize = 20;
    const TURNS: Turns = Turns {
        rounds: 15,
        slices: 51,
    };
    let unit = Unit::PerOperation(COUNT as u64);
    let part = |slice: usize| turn(order, COUNT, slice);
    table.compare(
        DIRECT_READ,
        Aim::AtLeast(0.97),
        unit,
        TURNS,
        |slice| timed(|| read_raw(raw, part(slice))),
        |slice| timed(|| read_image(image, part(slice))),
    );
    table.compare(
        DIRECT_WRITE,
        Aim::AtLeast(0.97),
        unit,
        TURNS,
        |slice| timed(|| write_raw(raw, part(slice))),
        |slice| timed(|| write_image(image, part(slice))),
    );
}
