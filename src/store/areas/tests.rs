//! What the reader of the areas asks for, and what it says of records, against the plain rules.

use super::*;
use crate::units::{ChunkSize, OriginChunk};

fn scan(chunk: u64, cow_size: u64) -> Scan {
    let geometry = Geometry::new(ChunkSize::from_bytes(chunk).unwrap());
    Scan { geometry, cow_size }
}

fn record(old: u64, new: u64) -> Exception {
    Exception {
        old: OriginChunk(old),
        new: CowChunk(new),
    }
}

/// Bytes of areas in which the first `count` slots are records, none of which continues the one before.
struct Log {
    scan: Scan,
    count: u64,
}

impl Log {
    fn record(index: u64) -> Exception {
        record(10 * index, 2 + index % 2)
    }

    fn bytes(&self, range: ByteRange) -> Vec<u8> {
        let chunk = self.scan.geometry.chunk_size().bytes();
        let per_area = chunk / 16;
        let area = (range.start / chunk - 1) / (per_area + 1);
        let start = (1 + area * (per_area + 1)) * chunk;
        assert!(
            range.start >= start && range.end() <= start + chunk,
            "{range:?} leaves its area"
        );
        assert!(
            range.end() <= self.scan.cow_size,
            "{range:?} leaves the file"
        );
        let slots = (range.start - start) / 16..(range.end() - start) / 16;
        let indexes = slots.map(|slot| area * per_area + slot);
        let bytes = |index| match index < self.count {
            true => Log::record(index).encode(),
            false => [0; 16],
        };
        indexes.flat_map(bytes).collect()
    }
}

/// Reads a log as a loader does. Returns the reads, in batches, and what was named to be read ahead before each.
fn read(log: &Log, look_behind: bool) -> (AreaReader, Vec<Vec<ByteRange>>, Vec<Vec<ByteRange>>) {
    let mut reader = AreaReader::new(log.scan, look_behind);
    let (mut batches, mut ahead, mut records) = (Vec::new(), Vec::new(), 0);
    while let Some(steps) = reader.next_steps().unwrap() {
        let ranges: Vec<ByteRange> = steps
            .iter()
            .map(|step| match step {
                Step::Read {
                    device: Device::Cow,
                    range,
                } => *range,
                other => panic!("{other:?}"),
            })
            .collect();
        ahead.push(reader.read_ahead());
        let bytes: Vec<Vec<u8>> = ranges.iter().map(|range| log.bytes(*range)).collect();
        let reads: Vec<(ByteRange, &[u8])> = ranges
            .iter()
            .copied()
            .zip(bytes.iter().map(Vec::as_slice))
            .collect();
        reader
            .feed(&reads, &mut |index, first, len| {
                assert_eq!((index, first, len), (records, Log::record(index), 1));
                records += 1;
                Ok(())
            })
            .unwrap();
        batches.push(ranges);
    }
    assert_eq!(records, log.count);
    (reader, batches, ahead)
}

/// A log of so many areas that end with a half-filled one, in a file with room for more.
fn log(chunk: u64, areas: u64) -> Log {
    let per_area = chunk / 16;
    let count = (areas - 1) * per_area + per_area / 2;
    let scan = scan(chunk, (2 + (areas + 3) * (per_area + 1)) * chunk);
    Log { scan, count }
}

#[test]
fn test_reads_grow_up_to_a_bound() {
    for (chunk, areas, piece, most) in [
        (512, 300, 512, 64),
        (4096, 300, 4096, 64),
        (1 << 20, 20, 1 << 20, 4),
        // A part at a time, of what is larger.
        (8 << 20, 3, 1 << 20, 4),
    ] {
        let log = log(chunk, areas);
        let (_, batches, _) = read(&log, true);
        let mut expected = 1;
        for (number, batch) in batches.iter().enumerate() {
            assert!(batch.iter().all(|range| range.len == piece), "{batch:?}");
            let is_last = number + 1 == batches.len();
            assert!(
                batch.len() == expected || is_last,
                "chunks of {chunk}: {}",
                batch.len()
            );
            expected = (expected * 2).min(most);
        }
        let starts: Vec<u64> = batches.concat().iter().map(|range| range.start).collect();
        assert!(starts.is_sorted_by(|one, next| one < next), "read twice");
    }
}

#[test]
fn test_what_is_read_ahead_is_what_is_read_later() {
    for (chunk, areas) in [(512, 2000), (4096, 300), (1 << 20, 30), (8 << 20, 3)] {
        let log = log(chunk, areas);
        let (_, batches, ahead) = read(&log, false);
        let reads = batches.concat();
        // All that is read was named before, once, and nothing is named that the file does not have.
        let named = ahead.concat();
        assert!(
            named.len() >= reads.len() && named[..reads.len()] == reads,
            "chunks of {chunk}"
        );
        assert!(named.iter().all(|range| range.end() <= log.scan.cow_size));
        let mut done = 0;
        let mut known = 0;
        for (batch, ahead) in batches.iter().zip(&ahead) {
            known += ahead.len();
            let bytes: u64 = named[done..known].iter().map(|range| range.len).sum();
            assert!(
                bytes <= MAX_AHEAD_BYTES.max(chunk.min(MAX_READ)),
                "{bytes} bytes at once"
            );
            assert!(known >= done + batch.len(), "read and not named");
            // Four times what is asked for at once next, within the bound and the file.
            let next = (4 * 2 * batch.len() as u64).min(MAX_AHEAD_BYTES / batch[0].len) as usize;
            let is_all = named.len() == known;
            assert!(
                known >= done + next.min(4 * batch.len()) || is_all,
                "chunks of {chunk}"
            );
            done += batch.len();
        }
    }
}

#[test]
fn test_the_block_of_the_end_is_kept() {
    for (chunk, count, tail) in [
        (512, 0, 0),
        (512, 31, 31),
        (512, 32, 0),
        (4096, 255, 255),
        (4096, 256, 0),
        (16384, 256, 0),
        (16384, 300, 44),
        (2 << 20, 65_536 + 256 + 7, 7),
    ] {
        let scan = scan(chunk, 2 * (chunk / 16 + 1) * chunk);
        let (reader, ..) = read(&Log { scan, count }, true);
        let end = reader.end().unwrap();
        assert_eq!((end.len, end.stale), (count, false));
        let records: Vec<Exception> = (count - tail..count).map(Log::record).collect();
        assert_eq!(end.tail, records, "{count} records in chunks of {chunk}");
    }
}

/// Feeds a store of chunks of 2 MiB, read in two pieces, in which one byte behind the end is not zero.
#[test]
fn test_bytes_behind_the_end_are_stale() {
    let scan = scan(2 << 20, 1 << 40);
    for (stale_at, look_behind, seen) in [
        (None, true, false),
        (Some(40), true, true),
        (Some((1 << 20) - 1), true, true),
        (Some((2 << 20) - 1), true, true),
        (Some((2 << 20) - 1), false, false),
    ] {
        let mut area = vec![0; 2 << 20];
        area[..16].copy_from_slice(&record(5, 2).encode());
        if let Some(at) = stale_at {
            area[at] = 1;
        }
        let mut reader = AreaReader::new(scan, look_behind);
        let mut reads = 0;
        while let Some(steps) = reader.next_steps().unwrap() {
            for step in steps {
                let Step::Read { range, .. } = step else {
                    panic!("{step:?}")
                };
                let at = (range.start - (2 << 20)) as usize;
                // Behind the area is data: a reader that has its end asks for nothing of it.
                let bytes = area
                    .get(at..at + range.len as usize)
                    .unwrap_or(&[0xff; 1 << 20]);
                reads += 1;
                reader
                    .feed(&[(range, bytes)], &mut |_, _, _| Ok(()))
                    .unwrap();
            }
        }
        assert_eq!(reader.end().unwrap().stale, seen, "{stale_at:?}");
        assert!(reads <= 3, "{reads} reads");
    }
}

#[test]
fn test_an_area_outside_of_the_file_is_told() {
    // The second area of such a store is chunk 34.
    for (cow_size, words, offset) in [
        (
            1023,
            "the first metadata area lies outside the file of 1023 bytes",
            512,
        ),
        (
            35 * 512 - 1,
            "metadata area 1 lies outside the file of 17919 bytes, although area 0 is full",
            34 * 512,
        ),
    ] {
        let mut reader = AreaReader::new(scan(512, cow_size), true);
        let full: Vec<u8> = (0..32)
            .flat_map(|index| Log::record(index).encode())
            .collect();
        let error = loop {
            match reader.next_steps() {
                Err(error) => break error,
                Ok(_) => reader
                    .feed(&[(ByteRange::new(512, 512), &full)], &mut |_, _, _| Ok(()))
                    .unwrap(),
            }
        };
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Corrupt, Some(offset))
        );
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Every new chunk of small files, which end where a chunk does, or not.
#[test]
fn test_new_chunks_lie_in_the_file_and_hold_data() {
    for cow_size in (34 * 512..=38 * 512)
        .step_by(128)
        .chain([2 * 512, 3 * 512, 100 * 512])
    {
        let scan = scan(512, cow_size);
        let whole = cow_size / 512;
        for new in 0..105 {
            let window = scan.data_window(7, record(9, new));
            let is_cut = new == whole && !cow_size.is_multiple_of(512);
            assert_eq!(scan.is_cut(CowChunk(new)), is_cut, "{new} of {cow_size}");
            let is_data = new >= 2 && new % 33 != 1;
            if is_data && new < whole {
                // From one area to the next, or to the end.
                let first = (2..=new)
                    .rev()
                    .take_while(|chunk| chunk % 33 != 1)
                    .last()
                    .unwrap();
                let end = (new..whole)
                    .take_while(|chunk| chunk % 33 != 1)
                    .last()
                    .unwrap()
                    + 1;
                assert_eq!(window.unwrap(), (first, end), "{new} of {cow_size}");
                continue;
            }
            let error = window.unwrap_err();
            let why = match new {
                _ if is_cut => "the file ends inside".to_owned(),
                _ if new >= whole => format!("the file has only {whole} whole chunks"),
                _ => "which holds metadata".to_owned(),
            };
            assert!(
                error.to_string().contains(&why),
                "{new} of {cow_size}: {error}"
            );
            assert_eq!(error.offset(), Some(512 + 7 * 16));
        }
    }
    let far = scan(1 << 30, u64::MAX >> 1);
    assert!(far.data_window(0, record(0, MAX_NEW_CHUNK)).is_err());
    let near = scan(512, u64::MAX >> 1);
    assert!(near.data_window(0, record(0, MAX_NEW_CHUNK)).is_ok());
    let error = near
        .data_window(0, record(0, MAX_NEW_CHUNK + 1))
        .unwrap_err();
    assert!(error.to_string().contains("can address"), "{error}");
}
