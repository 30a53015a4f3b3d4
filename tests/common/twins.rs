//! Damaged twins of golden stores: one field changed, and what that means to the library and to the
//! kernel.
#![allow(dead_code, reason = "each test program uses a part of it")]

use dmsnap::ErrorKind;

use crate::golden::{self, Golden};
use crate::reference::Reference;

/// What becomes of the twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is refused: by the library with this kind, by the kernel somehow.
    Refused(ErrorKind),
    /// The library refuses it; the kernel takes it and may show wrong data.
    RefusedByUs(ErrorKind),
    /// Both take it, and it shows these bytes.
    Shows(Vec<u8>),
}

/// A damaged store.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    pub(crate) name: String,
    /// Sectors per chunk as a table has to say it.
    pub(crate) chunk: u32,
    pub(crate) origin: Vec<u8>,
    pub(crate) cow: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// All twins.
pub(crate) fn all() -> Vec<Twin> {
    let mut twins = headers();
    twins.extend(duplicates());
    twins.extend(new_chunks());
    twins.extend(old_chunks());
    twins.extend(terminators());
    twins.extend(ends());
    twins
}

fn twin(of: &str, name: &str, verdict: Verdict, damage: impl FnOnce(&mut Vec<u8>)) -> Twin {
    let Golden {
        chunk,
        origin,
        mut cow,
        ..
    } = golden::named(of);
    let before = cow.clone();
    damage(&mut cow);
    assert!(cow != before, "{name}: nothing was damaged");
    Twin {
        name: format!("{of}, {name}"),
        chunk,
        origin,
        cow,
        verdict,
    }
}

/// A twin that shows what its golden store shows with `records` instead of its own.
fn shown(
    of: &str,
    name: &str,
    records: impl FnOnce(&mut Vec<(u64, u64)>),
    damage: impl FnOnce(&mut Vec<u8>),
) -> Twin {
    let golden = golden::named(of);
    let mut store = Reference::load(&golden.cow).expect("a store");
    records(&mut store.records);
    let view = store.view(&golden.origin, &golden.cow).expect("a view");
    twin(of, name, Verdict::Shows(view), damage)
}

/// A twin that shows what its golden store shows.
fn harmless(of: &str, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Twin {
    shown(of, name, |_| {}, damage)
}

const SECTOR: usize = 512;
/// Chunks of 8 sectors, records in one area.
const PLAIN: &str = "chunk-8";

fn put32(cow: &mut [u8], at: usize, value: u32) {
    cow[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn chunk_of(cow: &[u8]) -> usize {
    let sectors = u32::from_le_bytes(cow[12..16].try_into().expect("four bytes"));
    sectors as usize * SECTOR
}

/// Where record `index` lies.
fn slot(cow: &[u8], index: usize) -> usize {
    let chunk = chunk_of(cow);
    let (area, slot) = (index / (chunk / 16), index % (chunk / 16));
    chunk * (1 + area * (chunk / 16 + 1)) + 16 * slot
}

fn put_record(cow: &mut [u8], index: usize, old: u64, new: u64) {
    let at = slot(cow, index);
    cow[at..at + 8].copy_from_slice(&old.to_le_bytes());
    cow[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
}

fn record(cow: &[u8], index: usize) -> (u64, u64) {
    Reference::load(cow).expect("a store").records[index]
}

fn last(cow: &[u8]) -> usize {
    Reference::load(cow).expect("a store").records.len() - 1
}

fn headers() -> Vec<Twin> {
    let refused = |name, kind, at, value| {
        let verdict = Verdict::Refused(kind);
        twin(PLAIN, name, verdict, |cow| put32(cow, at, value))
    };
    let valid = |name, value| harmless(PLAIN, name, |cow| put32(cow, 4, value));
    vec![
        // A kernel would take it for a new store.
        twin(
            PLAIN,
            "magic 0",
            Verdict::RefusedByUs(ErrorKind::InvalidFormat),
            |cow| put32(cow, 0, 0),
        ),
        refused("magic 1", ErrorKind::InvalidFormat, 0, 1),
        refused(
            "magic byte-swapped",
            ErrorKind::InvalidFormat,
            0,
            0x536e_4170,
        ),
        valid("valid 2", 2),
        valid("valid 0xffffffff", u32::MAX),
        twin(
            PLAIN,
            "valid 0",
            Verdict::RefusedByUs(ErrorKind::SnapshotInvalid),
            |cow| put32(cow, 4, 0),
        ),
        refused("version 0", ErrorKind::Unsupported, 8, 0),
        refused("version 2", ErrorKind::Unsupported, 8, 2),
        twin(
            PLAIN,
            "version 2, valid 0",
            Verdict::Refused(ErrorKind::Unsupported),
            |cow| {
                put32(cow, 8, 2);
                put32(cow, 4, 0);
            },
        ),
        refused("chunk size 0", ErrorKind::Corrupt, 12, 0),
        refused("chunk size 3", ErrorKind::Corrupt, 12, 3),
        refused("chunk size 2^22", ErrorKind::Corrupt, 12, 1 << 22),
        refused("chunk size 2^31", ErrorKind::Corrupt, 12, 1 << 31),
        twin(
            PLAIN,
            "chunk size 3, version 2",
            Verdict::Refused(ErrorKind::Corrupt),
            |cow| {
                put32(cow, 8, 2);
                put32(cow, 12, 3);
            },
        ),
        harmless(PLAIN, "foreign bytes in the header", |cow| {
            cow[16..4096].fill(0xd6);
        }),
    ]
}

/// Where the kernel contradicts itself we refuse to choose.
fn duplicates() -> Vec<Twin> {
    let corrupt = || Verdict::RefusedByUs(ErrorKind::Corrupt);
    let twin = |name, index: usize, old: Option<usize>, new: Option<usize>| {
        twin(PLAIN, name, corrupt(), |cow| {
            let (own_old, own_new) = record(cow, index);
            let old = old.map_or(own_old, |from| record(cow, from).0);
            let new = new.map_or(own_new, |from| record(cow, from).1);
            put_record(cow, index, old, new);
        })
    };
    vec![
        twin("an old chunk twice", 9, Some(3), None),
        twin("an old chunk twice, next to each other", 9, Some(8), None),
        twin("a new chunk twice", 9, None, Some(3)),
    ]
}

fn new_chunks() -> Vec<Twin> {
    let corrupt = |name, new: u64| {
        let verdict = Verdict::RefusedByUs(ErrorKind::Corrupt);
        twin(PLAIN, name, verdict, |cow| {
            let old = record(cow, 5).0;
            put_record(cow, 5, old, new);
        })
    };
    vec![
        corrupt("new chunk is the first area", 1),
        corrupt("new chunk is the second area", 258),
        // 3000 sectors: 375 chunks.
        corrupt("new chunk behind the end", 375),
        corrupt("new chunk far behind the end", 1 << 40),
        corrupt("new chunk with a run length", 2 + (2 << 56)),
        corrupt("new chunk 2^64-1", u64::MAX),
    ]
}

/// Records for chunks that the disk does not have show nothing.
fn old_chunks() -> Vec<Twin> {
    let past = |of: &str, name, old: u64| {
        let forget_last = |records: &mut Vec<(u64, u64)>| records.truncate(records.len() - 1);
        shown(of, name, forget_last, |cow| {
            let index = last(cow);
            let new = record(cow, index).1;
            put_record(cow, index, old, new);
        })
    };
    vec![
        past(PLAIN, "old chunk just behind the end", 2100 / 8 + 1),
        past(PLAIN, "old chunk far behind the end", 1 << 50),
        past(PLAIN, "old chunk 2^64-1", u64::MAX),
        past("chunk-1", "old chunk just behind the end", 700),
    ]
}

fn terminators() -> Vec<Twin> {
    vec![
        harmless(PLAIN, "a stale slot", |cow| {
            let behind = last(cow) + 2;
            put_record(cow, behind, 6, 3);
        }),
        shown(
            PLAIN,
            "a terminator with an old chunk",
            |records| records.truncate(70),
            |cow| put_record(cow, 70, 77, 0),
        ),
        shown(
            PLAIN,
            "an exception dropped",
            |records| {
                records.swap_remove(20);
            },
            |cow| {
                let index = last(cow);
                let (old, new) = record(cow, index);
                put_record(cow, 20, old, new);
                put_record(cow, index, 0, 0);
            },
        ),
        shown(
            PLAIN,
            "an exception half dropped",
            |records| {
                records.swap_remove(20);
            },
            |cow| {
                let (old, new) = record(cow, last(cow));
                put_record(cow, 20, old, new);
            },
        ),
        harmless(PLAIN, "records in another order", |cow| {
            let (first, second) = (record(cow, 4), record(cow, 50));
            put_record(cow, 50, first.0, first.1);
            put_record(cow, 4, second.0, second.1);
        }),
        harmless("several-areas", "garbage in unreached areas", |cow| {
            cow[133 * SECTOR..].fill(0xff);
        }),
        // The kernel takes it for records; it finds their end, or it does not.
        twin(
            "full-area",
            "garbage in the area behind a full one",
            Verdict::RefusedByUs(ErrorKind::Corrupt),
            |cow| cow[34 * SECTOR..35 * SECTOR].fill(0xff),
        ),
        twin(
            "full-area-at-end",
            "garbage in the last area",
            Verdict::Refused(ErrorKind::Corrupt),
            |cow| cow[34 * SECTOR..35 * SECTOR].fill(0xff),
        ),
    ]
}

fn ends() -> Vec<Twin> {
    vec![
        twin(
            "full-area-at-end",
            "cut behind a full area",
            Verdict::Refused(ErrorKind::Corrupt),
            |cow| cow.truncate(34 * SECTOR),
        ),
        // The kernel loads these, and some chunks cannot be read.
        twin(
            PLAIN,
            "cut below next free",
            Verdict::RefusedByUs(ErrorKind::Corrupt),
            |cow| cow.truncate(100 * 4096),
        ),
        twin(
            PLAIN,
            "cut inside the last data chunk",
            Verdict::RefusedByUs(ErrorKind::Corrupt),
            |cow| cow.truncate(1040 * SECTOR - 1024),
        ),
        harmless(PLAIN, "cut behind the last data chunk", |cow| {
            cow.truncate(1040 * SECTOR);
        }),
        harmless(PLAIN, "some sectors more than whole chunks", |cow| {
            cow.resize(3003 * SECTOR, 0xee);
        }),
        twin(
            PLAIN,
            "nothing but a header",
            Verdict::Refused(ErrorKind::Corrupt),
            |cow| cow.truncate(4096),
        ),
        twin(
            PLAIN,
            "shorter than a header",
            Verdict::RefusedByUs(ErrorKind::InvalidFormat),
            |cow| cow.truncate(15),
        ),
    ]
}
