//! Workloads on one layer: what guests do.

use dmsnap::Amend;

use crate::budget::Random;
use crate::play::{Name, Play, Shape};

/// Chunks of one sector: 32 records fill an area.
const SMALL: u64 = 512;

fn begin(name: Name, shape: impl FnOnce(&mut Random) -> Shape) -> (Play, Random) {
    let mut random = Random(name.seed);
    let play = Play::new(name, &shape(&mut random));
    (play, random)
}

pub(crate) fn random_writes(name: Name) -> Play {
    let shape = |random: &mut Random| Shape::any(random, &[512, 1024, 4096, 8192], 96 << 10);
    let (mut play, mut random) = begin(name, shape);
    for _ in 0..24 {
        match random.below(8) {
            0..=4 => play.scribble(&mut random, 9000),
            5..=6 => play.flush(),
            _ => play.reopen(),
        }
    }
    play
}

/// Writes of less than a chunk: the rest of it comes from the origin.
pub(crate) fn partial_chunks(name: Name) -> Play {
    let (play, mut random) = begin(name, |random| Shape::any(random, &[4096, 8192], 64 << 10));
    for _ in 0..30 {
        match random.below(5) {
            0..=3 => play.scribble(&mut random, 700),
            _ => play.flush(),
        }
    }
    play
}

/// A chunk at a time, in an order by chance, with flushes close to where one area ends and the next begins.
pub(crate) fn area_roll_over(name: Name) -> Play {
    let (play, mut random) = begin(name, |_| Shape::new(SMALL, 110));
    let mut left: Vec<u64> = (0..110).collect();
    let mut records = 0;
    while !left.is_empty() {
        let old = left.swap_remove(random.below(left.len() as u64) as usize);
        play.write(old * SMALL, &[random.next() as u8 | 1; SMALL as usize]);
        records += 1;
        let close = (records + 2) % 32 < 5;
        if random.chance(if close { 60 } else { 8 }) {
            play.flush();
        }
    }
    play
}

/// More exceptions than an area holds, and one flush: later areas come before the one that makes them reachable.
pub(crate) fn several_areas(name: Name) -> Play {
    let (play, mut random) = begin(name, |_| Shape::new(SMALL, 200));
    for _ in 0..3 {
        let chunks = 33 + random.below(80);
        let first = random.below(200 - chunks);
        let bytes = vec![random.next() as u8 | 1; (chunks * SMALL) as usize];
        play.write(first * SMALL, &bytes);
        play.flush();
    }
    play
}

/// Many exceptions and rewrites between two flushes.
pub(crate) fn many_exceptions(name: Name) -> Play {
    let shape = |random: &mut Random| {
        let chunk = [512, 1024, 4096][random.below(3) as usize];
        Shape::new(chunk, (64 << 10) / chunk)
    };
    let (play, mut random) = begin(name, shape);
    for _ in 0..2 {
        for _ in 0..40 + random.below(30) {
            play.scribble(&mut random, 1500);
        }
        play.flush();
    }
    play
}

pub(crate) fn discards(name: Name) -> Play {
    let (play, mut random) = begin(name, |random| Shape::any(random, &[512, 4096], 64 << 10));
    for _ in 0..28 {
        match random.below(8) {
            0..=3 => play.scribble(&mut random, 12_000),
            4..=5 => {
                if let Some(range) = play.range(&mut random, 20_000) {
                    play.discard(range);
                }
            }
            _ => play.flush(),
        }
    }
    play
}

pub(crate) fn write_zeroes(name: Name) -> Play {
    let (play, mut random) = begin(name, |random| Shape::any(random, &[512, 4096], 64 << 10));
    for _ in 0..28 {
        match random.below(8) {
            0..=2 => play.scribble(&mut random, 12_000),
            3..=5 => {
                if let Some(range) = play.range(&mut random, 20_000) {
                    play.zero(range, random.chance(50));
                }
            }
            _ => play.flush(),
        }
    }
    play
}

pub(crate) fn resize(name: Name) -> Play {
    let (play, mut random) = begin(name, |random| Shape::any(random, &[4096, 8192], 64 << 10));
    for _ in 0..16 {
        match random.below(6) {
            0..=2 => play.scribble(&mut random, 12_000),
            3..=4 => play.resize(random.below(160) * 512),
            _ => play.flush(),
        }
    }
    play
}

/// The descriptor is written again, longer than a sector; or taken away, and given back.
pub(crate) fn descriptor(name: Name) -> Play {
    let (mut play, mut random) = begin(name, |_| Shape::new(4096, 12));
    let directory = tempfile::tempdir().unwrap();
    let mut deep = directory.path().to_path_buf();
    for _ in 0..3 {
        deep.push("d".repeat(200));
    }
    std::fs::create_dir_all(&deep).unwrap();
    let origin = |number: u64| {
        let path = deep.join(format!("origin{number}{}", "x".repeat(number as usize * 9)));
        std::fs::write(&path, vec![0; 12 * 4096]).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let size = play.size();
    // A bare store is as long as its origin.
    play.bare = Some(size);
    for number in 0..8 {
        play.scribble(&mut random, 9000);
        match random.below(4) {
            0..=1 => {
                let name = origin(number);
                play.amend(&Amend::new().origin(name, dmsnap::Format::Raw));
            }
            2 => play.amend(&Amend::new().no_origin()),
            _ => {
                play.amend(&Amend::new().remove_descriptor());
                play.scribble(&mut random, 9000);
                play.amend(&Amend::new().add_descriptor(size));
            }
        }
    }
    play
}

pub(crate) fn make_empty(name: Name) -> Play {
    let (play, mut random) = begin(name, |random| Shape::any(random, &[512, 4096], 64 << 10));
    for _ in 0..3 {
        for _ in 0..6 {
            play.scribble(&mut random, 16_000);
            if random.chance(30) {
                play.flush();
            }
        }
        play.make_empty();
    }
    play.scribble(&mut random, 9000);
    play
}

/// A device that gets full: chunks that are there can be written, others find no space.
pub(crate) fn fixed_size(name: Name) -> Play {
    let shape = |random: &mut Random| {
        let chunk = [512, 4096][random.below(2) as usize];
        let fixed = match chunk {
            // Up to a fifth area.
            512 => 20 + random.below(130),
            _ => 3 + random.below(12),
        };
        Shape {
            fixed: Some(fixed),
            ..Shape::new(chunk, fixed + 8)
        }
    };
    let (mut play, mut random) = begin(name, shape);
    let longest = play.size() / 3;
    for _ in 0..24 {
        match random.below(8) {
            0..=4 => play.scribble(&mut random, longest),
            5..=6 => play.flush(),
            _ => play.reopen(),
        }
    }
    play
}
