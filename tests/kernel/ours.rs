//! The operations of a sequence, done by the library.

use dmsnap::{ByteRange, ChunkSize, CreateOptions, Image};

use crate::library::{self, assert_same, bytes_of, exceptions, view};
use crate::pattern;
use crate::reference::Reference;
use crate::sequence::{Op, Sequence};
use crate::vm::PATTERN_SEED;

const SECTOR: u64 = pattern::SECTOR as u64;

/// Does `sequence` on a device as large as the kernel's. The result must be the same: content,
/// every exception and its place, figures.
#[track_caller]
pub(crate) fn agrees(sequence: &Sequence, origin: &[u8], cow: &[u8], expected: &[u8]) {
    let kernel = Reference::load(cow).unwrap();
    let device = library::device(&vec![0; (sequence.cow_sectors * SECTOR) as usize]);
    let chunk = ChunkSize::from_sectors(sequence.chunk).unwrap();
    let options = CreateOptions::new().chunk_size(chunk).bare(true);
    Image::create_on(&device, &options).unwrap();
    let origin = library::memory(origin);
    let open = || library::open(&device, &origin, true).unwrap();
    let mut image = open();
    for op in &sequence.ops {
        match *op {
            Op::Write { at, count, from } => {
                let bytes = pattern::sectors(PATTERN_SEED, from, count);
                image.write(&bytes, at * SECTOR).unwrap();
            }
            // The kernel has no other way to write zeros.
            Op::Fill { at, count, byte: 0 } => {
                let range = ByteRange::new(at * SECTOR, count * SECTOR);
                image.write_zeroes(range, at % 2 == 0).unwrap();
            }
            Op::Fill { at, count, byte } => {
                let bytes = vec![byte; (count * SECTOR) as usize];
                image.write(&bytes, at * SECTOR).unwrap();
            }
            Op::Discard { at, count } => {
                let range = ByteRange::new(at * SECTOR, count * SECTOR);
                image.discard(range).unwrap();
            }
            Op::Reload => {
                image.close().unwrap();
                image = open();
            }
        }
    }
    image.close().unwrap();
    let image = open();
    assert_same(&view(&image), expected, &format!("ours: {sequence:?}"));
    let mut records = kernel.records.clone();
    records.sort_unstable();
    assert_eq!(exceptions(&image), records, "{sequence:?}");
    assert_eq!(image.status().to_string(), kernel.status(), "{sequence:?}");
    // Both had empty devices, so even what is not looked at is the same.
    let what = format!("COW devices: {sequence:?}");
    assert_same(&bytes_of(&device), cow, &what);
}
