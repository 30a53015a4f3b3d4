//! Random operations on a snapshot: as a guest script, and on a model in memory.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pattern;
use crate::vm::{PATTERN_SECTORS, PATTERN_SEED};

const SECTOR: u64 = pattern::SECTOR as u64;

/// One operation; positions and counts are sectors.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sectors `from..` of the pattern disk.
    Write { at: u64, count: u64, from: u64 },
    /// One byte all over.
    Fill { at: u64, count: u64, byte: u8 },
    /// Always whole chunks: on parts of them kernels and we need not agree.
    Discard { at: u64, count: u64 },
    /// Detach the store and load it again.
    Reload,
}

/// A snapshot's geometry and what is done to it, all from one seed.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) seed: u64,
    /// Sectors per chunk.
    pub(crate) chunk: u32,
    pub(crate) origin_sectors: u64,
    /// Enough for a copy of every chunk of the origin.
    pub(crate) cow_sectors: u64,
    pub(crate) ops: Vec<Op>,
}

impl Sequence {
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random(seed);
        let chunk: u32 = 1 << random.below(8);
        let size = u64::from(chunk);
        let origin_sectors = 200 + random.below(1200);
        let chunks = origin_sectors.div_ceil(size);
        // Header, first area, terminator's area and a chunk to spare.
        let cow_sectors = size * (chunks + chunks / (32 * size) + 4);
        let ops = (0..10 + random.below(20))
            .map(|_| Op::random(&mut random, size, origin_sectors))
            .collect();
        Self {
            seed,
            chunk,
            origin_sectors,
            cow_sectors,
            ops,
        }
    }

    /// Commands for the guest: they attach `$cow` over `$origin` as device `cow`, and leave it.
    pub(crate) fn script(&self) -> String {
        let attach = format!(
            "snapshot cow $origin $cow P {} discard_zeroes_cow\n",
            self.chunk
        );
        let mut script = attach.clone();
        for op in &self.ops {
            match op {
                Op::Write { at, count, from } => writeln!(script, "put cow {at} {count} {from}"),
                Op::Fill { at, count, byte } => {
                    writeln!(script, "fill cow {at} {count} {byte:03o}")
                }
                Op::Discard { at, count } => writeln!(script, "discard cow {at} {count}"),
                Op::Reload => write!(script, "detach cow; {attach}"),
            }
            .unwrap();
        }
        script + "leave cow\n"
    }

    /// What the snapshot must show afterwards over this origin.
    pub(crate) fn view(&self, origin: &[u8]) -> Vec<u8> {
        let mut view = origin.to_vec();
        let mut mapped = BTreeSet::new();
        let chunk = u64::from(self.chunk);
        for op in &self.ops {
            match *op {
                Op::Write { at, count, from } => {
                    view[bytes(at, count)].copy_from_slice(&pattern::sectors(
                        PATTERN_SEED,
                        from,
                        count,
                    ));
                    mapped.extend(at / chunk..(at + count).div_ceil(chunk));
                }
                Op::Fill { at, count, byte } => {
                    view[bytes(at, count)].fill(byte);
                    mapped.extend(at / chunk..(at + count).div_ceil(chunk));
                }
                Op::Discard { at, count } => {
                    for old in mapped.range(at / chunk..(at + count) / chunk) {
                        view[bytes(old * chunk, chunk)].fill(0);
                    }
                }
                Op::Reload => {}
            }
        }
        view
    }
}

impl Op {
    fn random(random: &mut Random, chunk: u64, sectors: u64) -> Self {
        let count = 1 + random.below(sectors.min(3 * chunk + 20));
        let at = random.below(sectors - count + 1);
        match random.below(10) {
            0..=5 => Self::Write {
                at,
                count,
                from: random.below(PATTERN_SECTORS - count),
            },
            6..=7 => Self::Fill {
                at,
                count,
                byte: random.below(256).saturating_sub(60) as u8,
            },
            8 if sectors > 4 * chunk => Self::Discard {
                at: random.below(sectors / chunk - 2) * chunk,
                count: (1 + random.below(2)) * chunk,
            },
            _ => Self::Reload,
        }
    }
}

fn bytes(at: u64, count: u64) -> Range<usize> {
    (at * SECTOR) as usize..((at + count) * SECTOR) as usize
}

/// Seed of the random tests: from `DMSNAP_SEED` to repeat a run, else from the clock.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| match std::env::var("DMSNAP_SEED") {
        Ok(seed) => seed.parse().expect("DMSNAP_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("a clock").as_secs() << 8
        }
    });
    println!("DMSNAP_SEED={seed}");
    seed
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}
