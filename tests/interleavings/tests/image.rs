//! The locking core of an image: writes, flushes, merges, snapshots and changes of size beside one another, schedule by schedule.
//!
//! Each thread owns some sectors of the disk and gives them version after version. A reader of any sector may find the version that was
//! there when it began, or a later one, and nothing else. So a write that is lost, undone or put elsewhere shows.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod common;

use std::sync::Arc;

use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{
    ByteRange, CheckOptions, ChunkSize, CreateOptions, Image, OpenOptions, OriginChoice,
    check_storage,
};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::thread;

use common::explore;

const SECTOR: u64 = 512;
const CHUNK: u64 = 4096;
const CHUNKS: u64 = 3;
const SECTORS: u64 = CHUNKS * CHUNK / SECTOR;

/// What a sector holds: where it is, and its version.
fn stamp(sector: u64, version: u32) -> [u8; SECTOR as usize] {
    let mut bytes = [0x80 | sector as u8; SECTOR as usize];
    bytes[4..8].copy_from_slice(&version.to_le_bytes());
    bytes[500..504].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// The version that a sector holds; `None` for zeros.
fn version_of(bytes: &[u8], sector: u64) -> Option<u32> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let version = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    assert!(
        bytes == stamp(sector, version),
        "sector {sector} is torn, or another one's"
    );
    Some(version)
}

/// A disk that several threads use. Each sector is written by one thread only, with rising versions.
struct Disk {
    image: Image,
    cow: Arc<MemoryStorage>,
    origin: SharedStorage,
    /// For each sector, the newest version whose write has ended.
    written: Vec<AtomicU32>,
    /// And the newest one whose write has begun.
    begun: Vec<AtomicU32>,
}

fn options(origin: &SharedStorage) -> OpenOptions {
    OpenOptions::new()
        .writable(true)
        .origin(OriginChoice::Storage(origin.clone()))
}

impl Disk {
    fn new() -> Arc<Disk> {
        let base: Vec<u8> = (0..SECTORS).flat_map(|sector| stamp(sector, 0)).collect();
        let origin: SharedStorage = Arc::new(MemoryStorage::from_bytes(&base));
        let cow = Arc::new(MemoryStorage::new());
        let chunk = ChunkSize::from_bytes(CHUNK).unwrap();
        let create = CreateOptions::new()
            .chunk_size(chunk)
            .size(SECTORS * SECTOR);
        let shared: SharedStorage = cow.clone();
        Image::create_on(&shared, &create).unwrap();
        let image = Image::open_storage(shared, &options(&origin)).unwrap();
        let versions = || (0..SECTORS).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Disk {
            image,
            cow,
            origin,
            written: versions(),
            begun: versions(),
        })
    }

    fn write(&self, first: u64, count: u64, version: u32) {
        let sectors = first..first + count;
        let note = |versions: &[AtomicU32]| {
            sectors
                .clone()
                .for_each(|sector| versions[sector as usize].store(version, Ordering::SeqCst));
        };
        let bytes: Vec<u8> = sectors
            .clone()
            .flat_map(|sector| stamp(sector, version))
            .collect();
        note(&self.begun);
        self.image.write(&bytes, first * SECTOR).unwrap();
        note(&self.written);
    }

    fn versions(versions: &[AtomicU32]) -> Vec<u32> {
        versions
            .iter()
            .map(|version| version.load(Ordering::SeqCst))
            .collect()
    }

    /// Every sector of `image` has at least the version `least`, and none that was never begun.
    fn check(&self, image: &Image, least: &[u32]) {
        let mut bytes = vec![0xee; (SECTORS * SECTOR) as usize];
        image.read(&mut bytes, 0).unwrap();
        let most = Disk::versions(&self.begun);
        for (sector, bytes) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            let version = version_of(bytes, sector as u64)
                .unwrap_or_else(|| panic!("sector {sector} is zeros"));
            let (least, most) = (least[sector], most[sector]);
            assert!(
                (least..=most).contains(&version),
                "sector {sector} has version {version}, not {least} to {most}"
            );
        }
    }

    fn read_all(&self) {
        let least = Disk::versions(&self.written);
        self.check(&self.image, &least);
    }

    /// What is flushed survives a crash right after.
    fn flush(&self) {
        let least = Disk::versions(&self.written);
        self.image.flush().unwrap();
        let (cow, origin) = (
            self.cow.snapshot(),
            Arc::new(MemoryStorage::from_bytes(&bytes_of(&self.origin))),
        );
        let copy =
            Image::open_storage(Arc::new(cow), &options(&(origin as SharedStorage))).unwrap();
        self.check(&copy, &least);
    }

    /// All that was written is there, also after a check, a merge and a reopen.
    fn finish(self: Arc<Disk>) {
        let Ok(disk) = Arc::try_unwrap(self) else {
            panic!("a thread still has the disk")
        };
        disk.read_all();
        let last = Disk::versions(&disk.written);
        disk.image.flush().unwrap();
        let copy: SharedStorage = Arc::new(disk.cow.snapshot());
        let outcome = check_storage(&copy, &CheckOptions::new()).unwrap();
        assert_eq!(
            outcome.remaining_corruptions, 0,
            "{:?}",
            outcome.report.findings
        );
        disk.image.merge(&mut |_| true).unwrap();
        disk.check(&disk.image, &last);
    }
}

fn bytes_of(storage: &SharedStorage) -> Vec<u8> {
    let mut bytes = vec![0; storage.size().unwrap() as usize];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}

type Work = Box<dyn FnOnce(&Disk) + Send>;

fn work(work: impl FnOnce(&Disk) + Send + 'static) -> Work {
    Box::new(work)
}

/// Runs each of these as a thread with the disk, then looks at everything.
fn run(threads: Vec<Work>) {
    let disk = Disk::new();
    run_on(&disk, threads);
    disk.finish();
}

fn run_on(disk: &Arc<Disk>, threads: Vec<Work>) {
    let handles: Vec<_> = threads
        .into_iter()
        .map(|work| {
            let disk = disk.clone();
            thread::spawn(move || work(&disk))
        })
        .collect();
    handles
        .into_iter()
        .for_each(|handle| handle.join().unwrap());
}

/// Two parts of one new chunk: the later one waits for the exception in flight and then writes in place.
#[test]
fn torture_first_writes_of_one_chunk() {
    explore(6, || {
        run(vec![
            work(|disk| disk.write(0, 1, 1)),
            work(|disk| disk.write(2, 3, 1)),
            work(|disk| disk.write(6, 6, 1)),
            work(|disk| disk.read_all()),
        ]);
    });
}

#[test]
fn torture_flushes_beside_writes() {
    explore(6, || {
        run(vec![
            work(|disk| (1..4).for_each(|version| disk.write(1, 2, version))),
            work(|disk| (1..4).for_each(|version| disk.write(5, 9, version))),
            work(|disk| (0..2).for_each(|_| disk.flush())),
            work(|disk| disk.flush()),
        ]);
    });
}

#[test]
fn torture_a_merge_beside_writes() {
    explore(6, || {
        let disk = Disk::new();
        disk.write(0, SECTORS - CHUNK / SECTOR, 1);
        run_on(
            &disk,
            vec![
                work(|disk| (2..4).for_each(|version| disk.write(1, 2, version))),
                work(|disk| (2..4).for_each(|version| disk.write(6, 14, version))),
                work(|disk| disk.image.merge(&mut |_| true).unwrap()),
                work(|disk| {
                    disk.read_all();
                    disk.flush();
                }),
            ],
        );
        disk.finish();
    });
}

/// One batch, then it is given up: what waits for the batch has to go on.
#[test]
fn torture_a_merge_given_up_beside_writes() {
    explore(6, || {
        let disk = Disk::new();
        disk.write(0, SECTORS, 1);
        run_on(
            &disk,
            vec![
                work(|disk| disk.write(1, 2, 2)),
                work(|disk| disk.write(6, 14, 2)),
                work(|disk| {
                    for _ in 0..2 {
                        drop(disk.image.start_merge().unwrap());
                    }
                }),
                work(|disk| disk.flush()),
            ],
        );
        disk.finish();
    });
}

/// The layer that was on top holds what was written before the switch, and is not touched afterwards.
#[test]
fn torture_a_snapshot_beside_writes() {
    explore(6, || {
        let disk = Disk::new();
        run_on(
            &disk,
            vec![
                work(|disk| (1..3).for_each(|version| disk.write(1, 2, version))),
                work(|disk| (1..3).for_each(|version| disk.write(6, 6, version))),
                work(|disk| {
                    let least = Disk::versions(&disk.written);
                    let new: SharedStorage = Arc::new(MemoryStorage::new());
                    disk.image.snapshot_to(new, None, None).unwrap();
                    let frozen = disk.cow.snapshot();
                    let bytes = frozen.to_vec();
                    let below =
                        OpenOptions::new().origin(OriginChoice::Storage(disk.origin.clone()));
                    let below = Image::open_storage(Arc::new(frozen), &below).unwrap();
                    disk.check(&below, &least);
                    thread::yield_now();
                    assert!(disk.cow.to_vec() == bytes, "the frozen layer was written");
                }),
                work(|disk| disk.read_all()),
            ],
        );
        let last = Disk::versions(&disk.written);
        disk.check(&disk.image, &last);
        disk.image.merge(&mut |_| true).unwrap();
        disk.check(&disk.image, &last);
    });
}

/// Growing leaves the content alone; a discarded chunk is zeros or what it was, and its neighbours are what they were.
#[test]
fn torture_discards_zeroes_and_growth_beside_writes() {
    const GIVEN: u64 = 2 * CHUNK;
    explore(6, || {
        let disk = Disk::new();
        disk.write(0, SECTORS, 1);
        run_on(
            &disk,
            vec![
                work(|disk| (2..4).for_each(|version| disk.write(1, 2, version))),
                work(|disk| disk.image.discard(ByteRange::new(GIVEN, CHUNK)).unwrap()),
                work(|disk| {
                    disk.image
                        .resize(SECTORS * SECTOR + 3 * CHUNK, false)
                        .unwrap()
                }),
                work(|disk| {
                    let new = ByteRange::new(CHUNK, 4 * SECTOR);
                    disk.image.write_zeroes(new, true).unwrap();
                    disk.image.flush().unwrap();
                }),
            ],
        );
        let mut bytes = vec![0xee; disk.image.size() as usize];
        disk.image.read(&mut bytes, 0).unwrap();
        let zeros = |range: std::ops::Range<u64>| {
            bytes[range.start as usize..range.end as usize]
                .iter()
                .all(|byte| *byte == 0)
        };
        assert!(zeros(GIVEN..GIVEN + 4 * CHUNK), "discarded, and new");
        assert!(zeros(CHUNK..CHUNK + 4 * SECTOR), "zeroed");
        let kept = (0..CHUNK / SECTOR).chain(12..16);
        for sector in kept {
            let at = (sector * SECTOR) as usize;
            let expected = if [1, 2].contains(&sector) { 3 } else { 1 };
            assert_eq!(
                version_of(&bytes[at..at + SECTOR as usize], sector),
                Some(expected)
            );
        }
    });
}

/// A chunk of the file that a merge frees is not given to others while somebody still reads what was there.
#[test]
fn torture_freed_chunks_beside_reads() {
    const IN_CHUNK: u64 = CHUNK / SECTOR;
    explore(6, || {
        let disk = Disk::new();
        disk.write(0, 2 * IN_CHUNK, 1);
        run_on(
            &disk,
            vec![
                work(|disk| disk.read_all()),
                work(|disk| disk.read_all()),
                work(|disk| {
                    disk.image.merge(&mut |_| true).unwrap();
                    // The last chunk has no exception yet.
                    disk.write(2 * IN_CHUNK, IN_CHUNK, 1);
                }),
            ],
        );
        let exceptions = disk.image.exceptions();
        let used: Vec<u64> = exceptions.iter().map(|(_, new, _)| new.0).collect();
        assert_eq!(used, [2], "not the chunk that was freed");
    });
}
