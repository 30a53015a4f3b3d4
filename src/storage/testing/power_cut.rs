//! What may be left of the operations that no flush has made durable.
//!
//! Between two flushes a device may complete writes in any order, each sector whole or not at all. So after a power cut every sector
//! holds what any of the writes since the last flush left there, or what it held before. Keeping any subset of the operations, with
//! some of them cut down to some of their sectors, and applying them in order reaches all such states that matter: that one write
//! overtook another looks like the other not having happened.

use crate::units::{ByteRange, SECTOR_SIZE};

/// How many operations at most are looked at one by one when states are enumerated.
const ONE_BY_ONE: usize = 24;

/// Up to so many operations, all subsets are enumerated.
const ALL_SUBSETS: usize = 6;

/// Up to so many sectors, all subsets of them are enumerated where one operation is torn.
const ALL_SECTORS: u64 = 8;

/// How much of one operation has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    /// None of it.
    Nothing,
    /// All of it.
    All,
    /// Its first so many sectors.
    First(u64),
    /// All but its first so many sectors.
    AllButFirst(u64),
    /// Each sector or not, by a seed.
    Scattered(u64),
    /// Those of its first 64 sectors whose bits are set.
    Sectors(u64),
}

impl Kept {
    /// The parts of `range` that were kept, cut at sector borders.
    pub(super) fn parts(self, range: ByteRange) -> Vec<ByteRange> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = range.start / SECTOR_SIZE;
        let border = |sectors: u64| {
            (first.saturating_add(sectors).saturating_mul(SECTOR_SIZE))
                .clamp(range.start, range.end())
        };
        let between = |start: u64, end: u64| vec![ByteRange::new(start, end - start)];
        match self {
            Kept::Nothing => Vec::new(),
            Kept::All => vec![range],
            Kept::First(sectors) => between(range.start, border(sectors)),
            Kept::AllButFirst(sectors) => between(border(sectors), range.end()),
            Kept::Scattered(_) | Kept::Sectors(_) => {
                let sectors = range.end().div_ceil(SECTOR_SIZE) - first;
                let kept = (0..sectors).filter(|&sector| self.has(sector));
                kept.map(|sector| {
                    let (start, end) = (border(sector), border(sector + 1));
                    ByteRange::new(start, end - start)
                })
                .collect()
            }
        }
    }

    /// Whether that sector of a scattered operation was kept.
    fn has(self, sector: u64) -> bool {
        match self {
            Kept::Scattered(seed) => mix(seed ^ mix(sector)) & 1 == 1,
            Kept::Sectors(bits) => sector < 64 && bits >> sector & 1 == 1,
            _ => false,
        }
    }
}

/// A power cut after the first `position` operations, and what it left of those that were not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerCut {
    /// Operations that were begun; the last of them may have been under way.
    pub position: usize,
    /// For each of them that was not durable, in order. What is missing here was not kept.
    pub kept: Vec<Kept>,
}

/// Sectors that a not yet durable operation writes; 0 for one that cannot be cut.
pub(super) type Sectors = u64;

/// The states worth looking at: nothing, all, prefixes, each operation alone or missing or cut, and all subsets of a few.
pub(super) fn states(position: usize, pending: &[Sectors]) -> Vec<PowerCut> {
    let count = pending.len();
    let mut states = vec![vec![Kept::Nothing; count], vec![Kept::All; count]];
    if count <= ALL_SUBSETS {
        for subset in 1..(1u32 << count).saturating_sub(1) {
            let keep = |bit| {
                if subset >> bit & 1 == 1 {
                    Kept::All
                } else {
                    Kept::Nothing
                }
            };
            states.push((0..count).map(keep).collect());
        }
    }
    for index in chosen(count) {
        if count > ALL_SUBSETS {
            states.extend(around(count, index));
        }
        let sectors = pending[index];
        let cuts = [1, sectors / 2, sectors.saturating_sub(1)];
        for (number, &cut) in cuts.iter().enumerate() {
            if cut > 0 && cut < sectors && !cuts[..number].contains(&cut) {
                for torn in [Kept::First(cut), Kept::AllButFirst(cut)] {
                    states.extend(torn_states(count, index, torn));
                }
            }
        }
    }
    states.extend(last_torn(pending));
    states
        .into_iter()
        .map(|kept| PowerCut { position, kept })
        .collect()
}

/// The last operation, which was under way, with each subset of its sectors, after all others or without them.
///
/// With more of them than four, only where it is nearly alone, as the write of a metadata area is between two flushes.
fn last_torn(pending: &[Sectors]) -> Vec<Vec<Kept>> {
    let count = pending.len();
    let sectors = pending.last().copied().unwrap_or(0);
    let most = if count <= 2 { ALL_SECTORS } else { 4 };
    if sectors < 2 || sectors > most {
        return Vec::new();
    }
    let torn = |bits, before| {
        let mut kept = vec![before; count];
        kept[count - 1] = Kept::Sectors(bits);
        kept
    };
    let subsets = 1..(1 << sectors) - 1;
    let alone = if count > 1 { Kept::Nothing } else { Kept::All };
    let others = subsets.clone().filter(|_| alone != Kept::All);
    let with = subsets.map(|bits| torn(bits, Kept::All));
    with.chain(others.map(|bits| torn(bits, alone))).collect()
}

/// All indices if they are few, else some spread evenly, the ends among them.
fn chosen(count: usize) -> Vec<usize> {
    if count <= ONE_BY_ONE {
        return (0..count).collect();
    }
    (0..ONE_BY_ONE)
        .map(|step| step * (count - 1) / (ONE_BY_ONE - 1))
        .collect()
}

/// A prefix up to `index`, only it, all but it.
fn around(count: usize, index: usize) -> [Vec<Kept>; 3] {
    let of = |keep: &dyn Fn(usize) -> bool| {
        (0..count)
            .map(|at| if keep(at) { Kept::All } else { Kept::Nothing })
            .collect()
    };
    [
        of(&|at| at < index),
        of(&|at| at == index),
        of(&|at| at != index),
    ]
}

/// One torn operation alone, with all before it, and with all others.
fn torn_states(count: usize, index: usize, torn: Kept) -> [Vec<Kept>; 3] {
    let with = |before: Kept, after: Kept| {
        let mut kept = vec![before; count];
        kept[index..].fill(after);
        kept[index] = torn;
        kept
    };
    [
        with(Kept::Nothing, Kept::Nothing),
        with(Kept::All, Kept::Nothing),
        with(Kept::All, Kept::All),
    ]
}

/// A state by chance. Seeds differ in how much they keep, so that nearly nothing and nearly all occur.
pub(super) fn sample(position: usize, pending: &[Sectors], seed: u64) -> PowerCut {
    let mut state = mix(seed);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(state)
    };
    let (keep, tear) = (next() % 101, next() % 60);
    let kept = pending.iter().map(|&sectors| {
        if sectors > 1 && next() % 100 < tear {
            return match next() % 3 {
                0 => Kept::First(1 + next() % (sectors - 1)),
                1 => Kept::AllButFirst(1 + next() % (sectors - 1)),
                _ => Kept::Scattered(next()),
            };
        }
        if next() % 100 < keep {
            Kept::All
        } else {
            Kept::Nothing
        }
    });
    let kept = kept.collect();
    PowerCut { position, kept }
}

/// Spreads a number over all bits.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn test_parts_are_cut_at_sectors_of_the_device() {
        let range = ByteRange::new(700, 1000);
        assert_eq!(Kept::First(1).parts(range), [ByteRange::new(700, 324)]);
        assert_eq!(
            Kept::AllButFirst(1).parts(range),
            [ByteRange::new(1024, 676)]
        );
        assert_eq!(Kept::AllButFirst(9).parts(range), [ByteRange::new(1700, 0)]);
        let parts: HashSet<_> = (0..64)
            .flat_map(|seed| Kept::Scattered(seed).parts(range))
            .collect();
        let all =
            [(700, 324), (1024, 512), (1536, 164)].map(|(start, len)| ByteRange::new(start, len));
        assert_eq!(parts, HashSet::from(all));
    }

    #[test]
    fn test_states_of_few_operations_hold_every_subset_and_tears() {
        let states = states(9, &[8, 0, 1]);
        let whole: HashSet<_> = states
            .iter()
            .filter(|cut| {
                cut.kept
                    .iter()
                    .all(|kept| matches!(kept, Kept::All | Kept::Nothing))
            })
            .map(|cut| cut.kept.clone())
            .collect();
        assert_eq!(whole.len(), 8);
        assert!(
            states
                .iter()
                .any(|cut| cut.kept == [Kept::First(4), Kept::All, Kept::All])
        );
        assert!(
            states
                .iter()
                .all(|cut| cut.kept.len() == 3 && cut.position == 9)
        );
    }

    #[test]
    fn test_a_small_operation_is_torn_in_every_way() {
        let torn = |pending: &[Sectors]| -> HashSet<_> {
            let states = states(1, pending);
            states.into_iter().map(|cut| cut.kept).collect()
        };
        let area = torn(&[8]);
        assert!((1..255).all(|bits| area.contains(&vec![Kept::Sectors(bits)])));
        let second = torn(&[1, 1, 1, 4]);
        for before in [Kept::All, Kept::Nothing] {
            let with = |bits| vec![before, before, before, Kept::Sectors(bits)];
            assert!((1..15).all(|bits| second.contains(&with(bits))));
        }
        let range = ByteRange::new(512, 3 * 512);
        let ends = [ByteRange::new(512, 512), ByteRange::new(1536, 512)];
        assert_eq!(Kept::Sectors(0b101).parts(range), ends);
    }

    #[test]
    fn test_states_of_many_operations_stay_few() {
        let states = states(0, &vec![16; 10_000]);
        assert!(states.len() < 1000, "{}", states.len());
        assert!(
            states
                .iter()
                .any(|cut| cut.kept[9_999] == Kept::Nothing && cut.kept[9_998] == Kept::All)
        );
    }
}
