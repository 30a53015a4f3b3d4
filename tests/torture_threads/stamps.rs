//! Sectors that tell where they belong, who wrote them and when, and a board of what they may hold.
//!
//! Every sector is written by one writer only, in the order of its versions, so what a reader may find there lies between the version
//! whose write had ended when the reader began and the one whose write had begun when the reader was done. A sector that is lost,
//! stale, torn or put elsewhere is none of these.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::budget::Random;

pub(crate) const SECTOR: u64 = 512;
/// Sectors of the disk that are written; growth comes behind them.
pub(crate) const SECTORS: u64 = 4096;
/// In the first half of the disk, writers share every chunk: no chunk has so few sectors, but the smallest ones.
const STRIPE: u64 = 3;
/// In the other half whole chunks belong to one writer, so that discards have something to give back.
const WHOLE: u64 = 128;
/// The writer of what was there at first, version 0.
const NOBODY: u32 = 0xffff;

/// What the writer does for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Zero,
    /// Zeros afterwards, or what was there: the next version is written at once.
    Discard,
}

pub(crate) fn kind(version: u32) -> Kind {
    match version % 8 {
        3 => Kind::Zero,
        6 => Kind::Discard,
        _ => Kind::Write,
    }
}

fn fill(sector: u64, writer: u32, version: u32, bytes: &mut [u8]) {
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&sector.to_le_bytes());
    tag[8..12].copy_from_slice(&writer.to_le_bytes());
    tag[12..].copy_from_slice(&version.to_le_bytes());
    // All along the sector, so that a torn one shows wherever it is torn.
    bytes
        .chunks_exact_mut(16)
        .for_each(|part| part.copy_from_slice(&tag));
}

/// Content of the sectors for a version of a writer.
pub(crate) fn stamps(sectors: Range<u64>, writer: u32, version: u32) -> Vec<u8> {
    let mut bytes = vec![0; ((sectors.end - sectors.start) * SECTOR) as usize];
    for (sector, bytes) in sectors.zip(bytes.chunks_exact_mut(SECTOR as usize)) {
        fill(sector, writer, version, bytes);
    }
    bytes
}

/// What the disk holds before anybody writes.
pub(crate) fn at_first() -> Vec<u8> {
    stamps(0..SECTORS, NOBODY, 0)
}

/// What every sector may hold.
pub(crate) struct Board {
    writers: u32,
    /// The newest version whose write has ended.
    written: Vec<AtomicU32>,
    /// And the newest one whose write has begun.
    begun: Vec<AtomicU32>,
}

impl Board {
    pub(crate) fn new(writers: u32) -> Board {
        let versions = || (0..SECTORS).map(|_| AtomicU32::new(0)).collect();
        Board {
            writers,
            written: versions(),
            begun: versions(),
        }
    }

    fn owner(&self, sector: u64) -> u32 {
        let unit = if sector < SECTORS / 2 { STRIPE } else { WHOLE };
        (sector / unit % u64::from(self.writers)) as u32
    }

    /// Some sectors of a writer that lie together.
    pub(crate) fn range_of(&self, writer: u32, random: &mut Random) -> Range<u64> {
        let mut start = random.below(SECTORS);
        while self.owner(start) != writer {
            start = random.below(SECTORS);
        }
        let most = 1 + random.below(WHOLE);
        let mine = |sector: &u64| *sector < SECTORS && self.owner(*sector) == writer;
        let len = (start..start + most).take_while(mine).count() as u64;
        start..start + len
    }

    pub(crate) fn begin(&self, sectors: Range<u64>, version: u32) {
        sectors.for_each(|sector| self.begun[sector as usize].store(version, Ordering::SeqCst));
    }

    pub(crate) fn end(&self, sectors: Range<u64>, version: u32) {
        sectors.for_each(|sector| self.written[sector as usize].store(version, Ordering::SeqCst));
    }

    /// To be taken before a read.
    pub(crate) fn least(&self, sectors: Range<u64>) -> Vec<u32> {
        let load = |sector: u64| self.written[sector as usize].load(Ordering::SeqCst);
        sectors.map(load).collect()
    }

    /// What was read of the sectors from `first` on is possible. `least` was taken before.
    pub(crate) fn check(&self, first: u64, bytes: &[u8], least: &[u32], what: &str) {
        for (index, bytes) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            let sector = first + index as u64;
            let most = self.begun[sector as usize].load(Ordering::SeqCst);
            let versions = least[index]..=most;
            if let Err(found) = self.judge(sector, bytes, versions.clone()) {
                let owner = self.owner(sector);
                panic!("{what}: sector {sector} of writer {owner}, version {versions:?}: {found}");
            }
        }
    }

    fn judge(
        &self,
        sector: u64,
        bytes: &[u8],
        versions: RangeInclusive<u32>,
    ) -> Result<(), String> {
        let is_written_now = versions.start() < versions.end();
        let may_be_zero = versions
            .clone()
            .any(|version| version > 0 && kind(version) != Kind::Write);
        let writer_of = |version: u32| match version {
            0 => NOBODY,
            _ => self.owner(sector),
        };
        let is_possible = |place: u64, writer: u32, version: u32| {
            place == sector
                && writer == writer_of(version)
                && versions.contains(&version)
                && kind(version) == Kind::Write
        };
        let mut first = None;
        for part in bytes.chunks_exact(16) {
            let place = u64::from_le_bytes(part[..8].try_into().unwrap());
            let writer = u32::from_le_bytes(part[8..12].try_into().unwrap());
            let version = u32::from_le_bytes(part[12..].try_into().unwrap());
            let is_zero = may_be_zero && part.iter().all(|byte| *byte == 0);
            if !is_zero && !is_possible(place, writer, version) {
                return Err(format!("version {version} of writer {writer} for {place}"));
            }
            // Some file systems show a reader what is there of a sector while that is written: ext4 does.
            if *first.get_or_insert(part) != part && !is_written_now {
                return Err(format!("torn, from version {version} on"));
            }
        }
        Ok(())
    }
}
