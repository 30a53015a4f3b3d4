//! Cases in which the library and the kernel take turns with one layer.

use std::fs;

use dmsnap::{ByteRange, Image};

use crate::budget::{self, Random};
use crate::library::exceptions;
use crate::pair::Pair;
use crate::pattern;
use crate::together::Case;
use crate::tool;

const SECTOR: u64 = pattern::SECTOR as u64;

pub(crate) fn all() -> Vec<Case> {
    let mut cases = chunk_sizes();
    cases.extend(areas());
    cases.extend(converted());
    cases.extend(ways());
    cases.extend(random());
    cases
}

/// All sizes from 512 bytes to 1 MiB over an origin that ends inside a chunk: we write, the kernel
/// writes, we write, the kernel writes and merges, we write again and merge.
fn chunk_sizes() -> Vec<Case> {
    let one = |shift: u32| {
        let sectors = 1 << shift;
        Case::new(format!("chunks of {sectors} sectors"), move |desk| {
            let origin = 60 * u64::from(sectors).min(64) + 2 * u64::from(sectors) + 1001;
            let mut pair = Pair::create(desk, origin, sectors);
            pair.ours(|pair, image| pair.scribble(image, 30));
            pair.theirs(desk, |pair| pair.kernel_writes(8));
            pair.ours(|pair, image| pair.scribble(image, 20));
            pair.theirs_merged(desk, |pair| pair.kernel_writes(4));
            pair.ours(|pair, image| pair.scribble(image, 10));
            pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
            pair.assert_merged();
        })
    };
    (0..12).map(one).collect()
}

/// Writes the first `chunks` chunks, in an order that is not theirs.
fn fill(pair: &mut Pair, image: &Image, chunks: u64) {
    let size = pair.chunk.bytes();
    for step in 0..chunks {
        // 7 and the numbers of chunks used here have no common divisor.
        let old = step * 7 % chunks;
        let mut range = ByteRange::new(old * size, size);
        range.len = range.len.min(pair.model.len() as u64 - range.start);
        pair.write(image, range);
    }
    assert_eq!(exceptions(image).len() as u64, chunks);
}

/// Areas that are empty, full, just begun; the file ends as close behind them as it may.
fn areas() -> Vec<Case> {
    let one = |sectors: u32, exceptions: u64, room: bool| {
        let name = format!("{exceptions} exceptions of {sectors} sectors, room: {room}");
        Case::new(name, move |desk| {
            let origin = 290 * u64::from(sectors) + 3;
            let mut pair = Pair::create(desk, origin, sectors);
            pair.ours(|pair, image| fill(pair, image, exceptions));
            pair.theirs_merged(desk, |pair| match room {
                true => pair.kernel_writes(6),
                false => String::new(),
            });
        })
    };
    vec![
        one(1, 31, true),
        one(1, 32, true),
        one(1, 32, false),
        one(1, 33, false),
        one(1, 64, false),
        one(1, 96, true),
        one(1, 289, true),
        one(8, 255, true),
        one(8, 256, false),
        one(8, 257, true),
    ]
}

/// Layers that the tool makes of two raw images, of every chunk size.
fn converted() -> Vec<Case> {
    let one = |size: &'static str| {
        Case::new(format!("converted to chunks of {size}"), move |desk| {
            let base = pattern::sectors(0xba5e, 0, 5003);
            let mut changed = base.clone();
            for (at, length) in [(7, 2), (900, 700), (2100, 1), (3000, 90), (5002, 1)] {
                let bytes = at * SECTOR as usize..(at + length) * SECTOR as usize;
                let filling = if length == 90 { 0 } else { at as u8 };
                changed[bytes].fill(filling);
            }
            fs::write(desk.directory.join("base.raw"), &base).unwrap();
            fs::write(desk.directory.join("changed.raw"), &changed).unwrap();
            let option = format!("chunk_size={size}");
            let convert = [
                "convert", "-O", "dmsnap", "-o", &option, "-B", "base.raw", "-F", "raw",
            ];
            tool::ok(
                desk.directory,
                &[&convert[..], &["changed.raw", "layer"]].concat(),
            );
            let (origin, cow) = (
                desk.directory.join("base.raw"),
                desk.directory.join("layer"),
            );
            let mut pair = Pair::copy(desk, &origin, &cow, changed);
            pair.theirs_merged(desk, |_| String::new());
        })
    };
    let sizes = [
        "512", "1K", "2K", "4K", "8K", "16K", "32K", "64K", "128K", "256K", "512K", "1M",
    ];
    sizes.into_iter().map(one).collect()
}

/// Other ways to write.
fn ways() -> Vec<Case> {
    let direct = [1, 4, 8, 32].map(|sectors| {
        Case::new(format!("past the page cache, {sectors}"), move |desk| {
            let mut pair = Pair::create(desk, 1403, sectors);
            pair.direct = true;
            pair.ours(|pair, image| pair.scribble(image, 25));
            pair.theirs(desk, |pair| pair.kernel_writes(4));
            pair.ours(|pair, image| pair.scribble(image, 10));
            pair.theirs_merged(desk, |pair| pair.kernel_writes(2));
        })
    });
    let threads = [1, 8, 64].map(|sectors| {
        Case::new(format!("by threads, {sectors}"), move |desk| {
            let mut pair = Pair::create(desk, 2803, sectors);
            pair.ours(|pair, image| pair.write_by_threads(image, 0));
            pair.theirs(desk, |pair| pair.kernel_writes(4));
            pair.ours(|pair, image| pair.write_by_threads(image, 0x5a));
            pair.theirs_merged(desk, |pair| pair.kernel_writes(2));
        })
    });
    direct.into_iter().chain(threads).collect()
}

/// Shapes and turns from a seed that is printed.
fn random() -> Vec<Case> {
    let seed = budget::seed();
    let one = |number: u64| {
        let mut random = Random(seed + number);
        let sectors = 1 << random.below(9);
        let size = 1 + random.below(30 * u64::from(sectors) + 400);
        let turns = 1 + random.below(2);
        Case::new(format!("random turns {}", seed + number), move |desk| {
            let mut pair = Pair::create(desk, size, sectors);
            for _ in 0..turns {
                let count = random.below(40) as usize;
                pair.ours(|pair, image| pair.scribble(image, count));
                pair.theirs(desk, |pair| pair.kernel_writes(6));
            }
            pair.ours(|pair, image| pair.scribble(image, 5));
            pair.theirs_merged(desk, |pair| pair.kernel_writes(2));
        })
    };
    (0..4).map(one).collect()
}
