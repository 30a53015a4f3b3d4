//! Workloads on chains, merges and whatever else takes more than one call of a guest.

use crate::budget::Random;
use crate::play::{Name, Play, Shape};

/// Fills a layer so that a merge has something to do.
fn fill(play: &Play, random: &mut Random, writes: u64) {
    for _ in 0..writes {
        play.scribble(random, 12_000);
        if random.chance(25) {
            play.flush();
        }
    }
}

/// What a guest does during a merge.
fn meanwhile(play: &Play, random: &mut Random) {
    match random.below(6) {
        0..=2 => play.scribble(random, 5000),
        3 => {
            if let Some(range) = play.range(random, 9000) {
                play.zero(range, true);
            }
        }
        4 => play.flush(),
        _ => {}
    }
}

/// Merges that are interrupted, taken up again and ended, with writes between the steps.
pub(crate) fn merge(name: Name) -> Play {
    let mut random = Random(name.seed);
    let shape = Shape::any(&mut random, &[512, 1024, 4096], 64 << 10);
    let mut play = Play::new(name, &shape);
    fill(&play, &mut random, 8);
    let steps = random.below(3) as usize;
    play.merge(steps, |play| meanwhile(play, &mut random));
    play.scribble(&mut random, 9000);
    if random.chance(30) {
        play.reopen();
    }
    play.merge(usize::MAX, |play| meanwhile(play, &mut random));
    play.scribble(&mut random, 9000);
    play
}

pub(crate) fn snapshot(name: Name) -> Play {
    let mut random = Random(name.seed);
    let shape = Shape::any(&mut random, &[4096, 8192], 48 << 10);
    let play = Play::new(name, &shape);
    for _ in 0..3 {
        fill(&play, &mut random, 3);
        play.snapshot(4096 << random.below(2));
    }
    fill(&play, &mut random, 2);
    play
}

/// Layers over layers, which are written, merged into one another and opened again.
pub(crate) fn chain(name: Name) -> Play {
    let mut random = Random(name.seed);
    let shape = Shape::any(&mut random, &[512, 4096], 48 << 10);
    let mut play = Play::new(name, &shape);
    for _ in 0..4 {
        fill(&play, &mut random, 3);
        match random.below(4) {
            0..=1 => play.snapshot(4096 << random.below(2)),
            2 => {
                let steps = [1, usize::MAX][random.below(2) as usize];
                play.merge(steps, |play| meanwhile(play, &mut random));
            }
            _ => play.reopen(),
        }
    }
    play.merge(usize::MAX, |play| meanwhile(play, &mut random));
    play
}

/// Everything after everything else.
pub(crate) fn anything(name: Name) -> Play {
    let mut random = Random(name.seed);
    let shape = Shape::any(&mut random, &[512, 2048, 4096, 16384], 96 << 10);
    let mut play = Play::new(name, &shape);
    for _ in 0..18 {
        match random.below(20) {
            0..=7 => play.scribble(&mut random, 20_000),
            8..=9 => {
                if let Some(range) = play.range(&mut random, 30_000) {
                    play.zero(range, random.chance(50));
                }
            }
            10 => {
                if let Some(range) = play.range(&mut random, 30_000) {
                    play.discard(range);
                }
            }
            11..=13 => play.flush(),
            14 => play.snapshot(4096 << random.below(3)),
            15..=16 => {
                let steps = [0, 1, 2, usize::MAX][random.below(4) as usize];
                play.merge(steps, |play| meanwhile(play, &mut random));
            }
            17 if play.image().descriptor().is_some() => play.resize(random.below(250) * 512),
            18 => play.make_empty(),
            _ => play.reopen(),
        }
    }
    play
}

/// Each thread writes sectors of its own, which lie in chunks of both; both flush.
pub(crate) fn two_threads(name: Name) -> Play {
    let mut random = Random(name.seed);
    let chunk = [2048, 4096, 8192][random.below(3) as usize];
    let shape = Shape::new(chunk, (48 << 10) / chunk);
    let play = Play::new(name, &shape);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (play, seed) = (&play, random.next());
            scope.spawn(move || stripes(play, thread, Random(seed)));
        }
    });
    play
}

fn stripes(play: &Play, thread: u64, mut random: Random) {
    let stripe = 1024;
    for _ in 0..20 {
        let at = (random.below(play.size() / stripe / 2) * 2 + thread) * stripe;
        let from = random.below(stripe);
        let len = 1 + random.below(stripe - from);
        match random.below(6) {
            0..=3 => {
                let bytes = crate::image_common::pattern(random.next(), len as usize);
                play.write(at + from, &bytes);
            }
            4 => play.zero(dmsnap::ByteRange::new(at + from, len), random.chance(50)),
            _ => play.flush(),
        }
    }
}
