//! What is right about a damaged store, found by the plain rules and without the library, except for the code of the descriptor.

use std::collections::{BTreeMap, BTreeSet};

use dmsnap::format::{Descriptor, SlotState};
use dmsnap::store::FindingKind;

use crate::world::World;

/// What the bytes say.
pub(crate) struct Judgement {
    /// Whether there is a header from which areas are found.
    pub(crate) has_header: bool,
    /// Whether that says the store is valid.
    pub(crate) is_valid: bool,
    /// Whether the log has an end inside the file, in areas that lie wholly inside.
    pub(crate) has_end: bool,
    /// Whether it has one, if only in a part of an area.
    pub(crate) has_terminator: bool,
    /// All records up to the end of the log or of the file.
    pub(crate) records: Vec<(u64, u64)>,
    /// Old and new chunks of the records that are legal and that nothing contradicts.
    pub(crate) good: BTreeMap<u64, u64>,
    /// What a check has to find, leaks not counted.
    pub(crate) kinds: BTreeSet<&'static str>,
    /// Whether some of that cannot be repaired.
    pub(crate) is_corrupt: bool,
    /// The same but for the header's word.
    pub(crate) is_corrupt_though_valid: bool,
    /// Whether a slot of the descriptor is good.
    pub(crate) has_descriptor: bool,
}

/// A finding's kind as this oracle writes it.
pub(crate) fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Invalid => "invalid",
        FindingKind::Descriptor => "descriptor",
        FindingKind::IllegalNewChunk => "illegal",
        FindingKind::TruncatedData => "truncated",
        // Which of the two is told first depends on the order of the log.
        FindingKind::DuplicateOldChunk | FindingKind::SharedNewChunk => "contradiction",
        FindingKind::RepeatedRecord => "repeated",
        FindingKind::PastEnd => "past end",
        FindingKind::StaleSlots => "stale",
        FindingKind::MissingArea => "missing area",
        FindingKind::Leak => "leak",
        other => panic!("{other:?} is not known here"),
    }
}

fn number(bytes: &[u8], at: u64) -> u64 {
    let at = at as usize;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn judge(world: &World, bytes: &[u8]) -> Judgement {
    let mut judgement = Judgement {
        has_header: false,
        is_valid: false,
        has_end: true,
        has_terminator: true,
        records: Vec::new(),
        good: BTreeMap::new(),
        kinds: BTreeSet::new(),
        is_corrupt: false,
        is_corrupt_though_valid: false,
        has_descriptor: false,
    };
    let sound = [
        b"SnAp".to_vec(),
        1u32.to_le_bytes().to_vec(),
        ((world.chunk / 512) as u32).to_le_bytes().to_vec(),
    ];
    judgement.has_header = bytes.len() >= 16
        && bytes[..4] == sound[0]
        && bytes[8..12] == sound[1]
        && bytes[12..16] == sound[2];
    judgement.is_valid = judgement.has_header && bytes[4..8] != [0; 4];
    judgement.read_log(world, bytes);
    judgement.read_descriptor(world, bytes);
    judgement.sort_out(world, bytes);
    judgement.is_corrupt_though_valid = judgement.is_corrupt;
    if judgement.has_header && !judgement.is_valid {
        judgement.found("invalid", true);
    }
    judgement
}

impl Judgement {
    fn found(&mut self, kind: &'static str, is_corruption: bool) {
        self.kinds.insert(kind);
        self.is_corrupt |= is_corruption;
    }

    fn read_log(&mut self, world: &World, bytes: &[u8]) {
        let size = bytes.len() as u64;
        for area in 0.. {
            let start = world.area(area);
            let is_whole = start + world.chunk <= size;
            for slot in 0..world.per_area() {
                let at = start + slot * 16;
                if at + 16 > size {
                    break;
                }
                let record = (number(bytes, at), number(bytes, at + 8));
                if record.1 == 0 {
                    self.has_end = is_whole;
                    if !is_whole {
                        self.found("missing area", true);
                    }
                    let behind = &bytes[at as usize..(start + world.chunk).min(size) as usize];
                    if is_whole && behind.iter().any(|byte| *byte != 0) {
                        self.found("stale", false);
                    }
                    return;
                }
                self.records.push(record);
            }
            if !is_whole {
                (self.has_end, self.has_terminator) = (false, false);
                self.found("missing area", true);
                return;
            }
        }
    }

    fn read_descriptor(&mut self, world: &World, bytes: &[u8]) {
        let slots: Vec<&[u8]> = world
            .slots()
            .iter()
            .filter_map(|at| bytes.get(*at as usize..*at as usize + 1536))
            .collect();
        if slots.len() < 2 {
            return;
        }
        let is_bad = |slot: &&&[u8]| {
            !matches!(Descriptor::decode(slot), SlotState::Valid(_))
                && slot[..512].iter().any(|byte| *byte != 0)
        };
        let is_good = |slot: &&[u8]| matches!(Descriptor::decode(slot), SlotState::Valid(_));
        self.has_descriptor = slots.iter().any(is_good);
        // Without a magic in either slot they are somebody else's bytes.
        let is_ours = slots.iter().any(|slot| slot.starts_with(b"DMSNAPim"));
        let is_valid = bytes[4..8] != [0; 4];
        if slots.iter().filter(is_bad).count() > 0 && is_ours && is_valid {
            self.found("descriptor", !self.has_descriptor);
        }
    }

    /// The records by the rules: each legal, and no two that contradict each other.
    fn sort_out(&mut self, world: &World, bytes: &[u8]) {
        let size = bytes.len() as u64;
        let is_whole_area = |index: u64| world.area(index / world.per_area()) + world.chunk <= size;
        let (mut olds, mut news) = (
            BTreeMap::<u64, BTreeSet<u64>>::new(),
            BTreeMap::<u64, BTreeSet<u64>>::new(),
        );
        let mut legal = Vec::new();
        let mut kinds = Vec::new();
        for (index, &(old, new)) in (0..).zip(&self.records) {
            olds.entry(old).or_default().insert(new);
            news.entry(new & !(1 << 63)).or_default().insert(old);
            let is_data = new >= 2 && new % (world.per_area() + 1) != 1;
            let fault = match new {
                _ if new < size / world.chunk && is_data => None,
                _ if new == size / world.chunk && !size.is_multiple_of(world.chunk) => {
                    Some("truncated")
                }
                _ => Some("illegal"),
            };
            match fault {
                // A check reads whole areas only.
                Some(kind) if is_whole_area(index) => kinds.push((kind, true)),
                Some(_) => {}
                None => legal.push((index, old, new)),
            }
        }
        let (mut seen_olds, mut seen_news) = (BTreeMap::new(), BTreeMap::new());
        for &(index, old, new) in &legal {
            let is_alone = olds[&old].len() == 1 && news[&new].len() == 1;
            if is_alone && old < world.disk_chunks {
                self.good.insert(old, new);
            }
            if !is_whole_area(index) {
                continue;
            }
            match seen_olds.get(&old) {
                Some(before) if *before == new => kinds.push(("repeated", false)),
                Some(_) => kinds.push(("contradiction", true)),
                None => {}
            }
            seen_olds.entry(old).or_insert(new);
            if *seen_news.entry(new).or_insert(old) != old {
                kinds.push(("contradiction", true));
            }
            if old >= world.disk_chunks && self.has_descriptor {
                // Beside a damaged slot these may be data.
                kinds.push(("past end", self.kinds.contains("descriptor")));
            }
        }
        for (kind, is_corruption) in kinds {
            self.found(kind, is_corruption);
        }
        if self.kinds.contains("descriptor") && self.kinds.contains("past end") {
            self.is_corrupt = true;
        }
    }
}
