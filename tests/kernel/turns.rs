//! Cases in which the library and the kernel take turns with one layer.

use std::fs;

use dmsnap::{ByteRange, Image};

use crate::library::{exceptions, sha256};
use crate::pair::Pair;
use crate::pattern;
use crate::sequence::{self, Random};
use crate::together::Case;
use crate::tool;
use crate::vm::PATTERN_SEED;

const SECTOR: u64 = pattern::SECTOR as u64;

pub(crate) fn all() -> Vec<Case> {
    let mut cases = chunk_sizes();
    cases.extend(areas());
    cases.extend(sizes());
    cases.extend(others());
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

fn resize(pair: &mut Pair, image: &Image, sectors: u64) {
    image.resize(sectors * SECTOR, true).unwrap();
    pair.model.resize((sectors * SECTOR) as usize, 0);
}

/// Disks that are longer or shorter than their origin.
fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for sectors in [8, 32, 128] {
        cases.push(Case::new(format!("longer by {sectors}"), move |desk| {
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
        }));
        cases.push(Case::new(format!("shorter by {sectors}"), move |desk| {
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
        }));
    }
    // The kernel copies the whole last chunk of a shorter disk, and what lies behind the disk must
    // not show when it grows.
    cases.push(Case::new(
        "shorter, written by the kernel, longer",
        move |desk| {
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
        },
    ));
    // What was cut off must not come back.
    cases.push(Case::new("shorter, then longer", move |desk| {
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
    }));
    cases
}

fn others() -> Vec<Case> {
    vec![
        Case::new("blocks of 4096 bytes", |desk| {
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
        }),
        Case::new("origin written", |desk| {
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
        }),
        Case::new("discarded by the kernel", |desk| {
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
        }),
        Case::new(
            "a kernel's store in garbage, adopted and made longer",
            |desk| {
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
            },
        ),
        Case::new("a device full of garbage", |desk| {
            let mut pair = Pair::create_on_device(desk, 1203, 8, 3000);
            pair.ours(|pair, image| pair.scribble(image, 25));
            pair.theirs(desk, |pair| pair.kernel_writes(4));
            pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
            pair.ours(|pair, image| pair.scribble(image, 10));
            pair.theirs_merged(desk, |pair| pair.kernel_writes(4));
        }),
        Case::new("stale slots", |desk| {
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
        }),
        Case::new("emptied", |desk| {
            let mut pair = Pair::create(desk, 1000, 8);
            pair.ours(|pair, image| pair.scribble(image, 20));
            pair.ours(|pair, image| {
                image.make_empty().unwrap();
                pair.model = fs::read(&pair.origin).unwrap();
                pair.scribble(image, 20);
            });
            pair.theirs_merged(desk, |pair| pair.kernel_writes(3));
        }),
        Case::new("given up by us", |desk| {
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
        }),
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
    let seed = sequence::seed();
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
