//! Writers, readers, flushes, discards, zeroes, merges, snapshots, changes of size and questions, all on one image at one time.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dmsnap::{ByteRange, Image};

use crate::budget::{Budget, Random, count};
use crate::media::{Place, allow_busy};
use crate::stamps::{Board, Kind, SECTOR, SECTORS, kind, stamps};

const WRITERS: u32 = 4;
/// For one disk and one writer.
const STEPS: u64 = 500;
const DISK: u64 = SECTORS * SECTOR;
/// How far a disk grows, and how many layers may come on top of those it had.
const GROWTH: u64 = 256 << 10;
const MORE_LAYERS: u64 = 6;

/// Jobs that were done to their end, over all disks: one that is always busy would test nothing.
#[derive(Debug, Default)]
struct Jobs {
    snapshots: AtomicU64,
    resizes: AtomicU64,
    merges: AtomicU64,
}

impl Jobs {
    fn done<T>(counter: &AtomicU64, result: Option<T>) {
        counter.fetch_add(u64::from(result.is_some()), Ordering::Relaxed);
    }

    fn assert_some_of_each(&self) {
        for counter in [&self.snapshots, &self.resizes, &self.merges] {
            assert!(counter.load(Ordering::Relaxed) > 0, "never done: {self:?}");
        }
    }
}

/// One disk and those who work on it.
struct Stress<'a> {
    case: u64,
    place: &'a Place,
    image: &'a Image,
    board: &'a Board,
    jobs: &'a Jobs,
    operations: AtomicU64,
    /// Writers that are still at work; the others work as long as there are any.
    writing: AtomicU32,
}

/// Also if the writer fails: the others would work for ever.
struct Writing<'a>(&'a AtomicU32);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stress<'_> {
    fn random(&self, thread: u64) -> Random {
        Random(self.case.wrapping_mul(1000) + thread)
    }

    fn did(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads sectors, in one buffer or in two, and looks at each.
    fn read(&self, first: u64, sectors: u64, cut: u64, what: &str) {
        let mut bytes = vec![0xee; (sectors * SECTOR) as usize];
        let least = self.board.least(first..first + sectors);
        let (head, tail) = bytes.split_at_mut((cut % (sectors * SECTOR)) as usize);
        let bufs = &mut [IoSliceMut::new(head), IoSliceMut::new(tail)];
        self.image.read_vectored(bufs, first * SECTOR).unwrap();
        let what = format!("case {}, {:?}, {what}", self.case, self.place.medium);
        self.board.check(first, &bytes, &least, &what);
        self.did();
    }

    fn write(&self, writer: u32) {
        let _writing = Writing(&self.writing);
        let mut random = self.random(u64::from(writer));
        for version in 1..=STEPS as u32 {
            let sectors = self.board.range_of(writer, &mut random);
            self.change(writer, sectors.clone(), version, &mut random);
            if kind(version) == Kind::Discard {
                let len = sectors.end - sectors.start;
                self.read(sectors.start, len, 0, "discarded");
                self.overwrite(writer, sectors, version);
            }
            match random.below(40) {
                0 => self.image.flush().unwrap(),
                1..8 => {
                    let mine = self.board.range_of(writer, &mut random);
                    self.read(mine.start, mine.end - mine.start, random.next(), "own");
                }
                _ => {}
            }
        }
    }

    fn change(
        &self,
        writer: u32,
        sectors: std::ops::Range<u64>,
        version: u32,
        random: &mut Random,
    ) {
        self.board.begin(sectors.clone(), version);
        let range = ByteRange::new(
            sectors.start * SECTOR,
            (sectors.end - sectors.start) * SECTOR,
        );
        match kind(version) {
            Kind::Write => {
                let bytes = stamps(sectors.clone(), writer, version);
                let (head, tail) = bytes.split_at(random.below(range.len) as usize);
                let bufs = [IoSlice::new(head), IoSlice::new(tail)];
                self.image.write_vectored(&bufs, range.start).unwrap();
            }
            Kind::Zero => self.image.write_zeroes(range, random.chance(50)).unwrap(),
            Kind::Discard => self.image.discard(range).unwrap(),
        }
        if kind(version) != Kind::Discard {
            self.board.end(sectors, version);
        }
        self.did();
    }

    /// Ends what a discard has begun: nobody knows whether there are zeros now. The version after it is one that is written.
    fn overwrite(&self, writer: u32, sectors: std::ops::Range<u64>, discarded: u32) {
        let bytes = stamps(sectors.clone(), writer, discarded + 1);
        self.board.begin(sectors.clone(), discarded + 1);
        self.image.write(&bytes, sectors.start * SECTOR).unwrap();
        self.board.end(sectors, discarded + 1);
        self.did();
    }

    /// Works until all writers are done, and waits between as long as `pause` says, so that those who write get somewhere.
    fn meanwhile(&self, thread: u64, pause: Duration, mut step: impl FnMut(&mut Random)) {
        let mut random = self.random(thread);
        while self.writing.load(Ordering::SeqCst) > 0 {
            step(&mut random);
            self.did();
            thread::sleep(pause);
        }
    }

    fn look(&self, random: &mut Random) {
        let first = random.below(SECTORS);
        let sectors = 1 + random.below((SECTORS - first).min(400));
        self.read(first, sectors, random.next(), "reader");
    }

    fn ask(&self, random: &mut Random) {
        let first = random.below(SECTORS) * SECTOR;
        match random.below(6) {
            0 => self.image.flush().unwrap(),
            1 => {
                let range = ByteRange::new(first, DISK - first);
                let lens = self
                    .image
                    .extents(range)
                    .unwrap()
                    .map(|extent| extent.unwrap().range.len);
                assert_eq!(lens.sum::<u64>(), range.len);
            }
            2 => assert!(self.image.info().unwrap().chain.len() >= 2),
            3 => {
                let usage = self.image.usage();
                assert!(usage.sectors_allocated >= usage.metadata_sectors);
            }
            4 => drop(self.image.exceptions()),
            _ => assert!(self.image.size() >= DISK && self.image.is_writable()),
        }
    }

    /// A flush may do what a merge left to it, and is in the way of these then.
    fn job(&self, random: &mut Random) {
        match random.below(10) {
            0 if self.place.layers() < MORE_LAYERS => {
                Jobs::done(&self.jobs.snapshots, self.place.snapshot(self.image));
            }
            1..=2 if self.place.can_grow() => {
                Jobs::done(&self.jobs.resizes, self.resize(random));
            }
            3..=5 => {
                // Given up after a step or two.
                let Some(mut merge) = allow_busy(self.image.start_merge()) else {
                    return;
                };
                for _ in 0..1 + random.below(2) {
                    merge.step().unwrap();
                    self.did();
                }
            }
            _ => {
                let merged = allow_busy(self.image.merge(&mut |_| true));
                Jobs::done(&self.jobs.merges, merged);
            }
        }
    }

    /// What is new is zeros, whatever was there before the disk was made shorter. `None` if another job was in the way.
    fn resize(&self, random: &mut Random) -> Option<()> {
        let size = DISK + SECTOR * (1 + random.below(GROWTH / SECTOR));
        allow_busy(self.image.resize(size, true))?;
        let rubbish = vec![0xdd; 700.min(size - DISK) as usize];
        self.image
            .write(&rubbish, size - rubbish.len() as u64)
            .unwrap();
        allow_busy(self.image.resize(DISK, true))?;
        allow_busy(self.image.resize(size, false))?;
        let mut bytes = vec![0xee; (size - DISK) as usize];
        self.image.read(&mut bytes, DISK).unwrap();
        assert!(
            bytes.iter().all(|byte| *byte == 0),
            "growth is not zeros: case {}",
            self.case
        );
        Some(())
    }

    /// A thread that waits for ever is a failure, too, and says with which seed.
    fn watch(&self) {
        let (mut before, mut since) = (0, Instant::now());
        while self.writing.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(20));
            let now = self.operations.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(300) {
                eprintln!(
                    "DMSNAP_SEED={}: no thread has got anywhere for five minutes",
                    self.case
                );
                std::process::abort();
            }
        }
    }

    fn run(&self) {
        let pause = |micros| Duration::from_micros(micros);
        thread::scope(|scope| {
            (0..WRITERS).for_each(|writer| drop(scope.spawn(move || self.write(writer))));
            scope.spawn(|| self.meanwhile(10, pause(100), |random| self.look(random)));
            scope.spawn(|| self.meanwhile(11, pause(500), |random| self.ask(random)));
            scope.spawn(|| self.meanwhile(12, pause(500), |random| self.job(random)));
            scope.spawn(|| self.watch());
        });
    }
}

fn stress(case: u64, jobs: &Jobs) {
    let (place, image) = Place::new(case, &mut Random(case));
    let board = Board::new(WRITERS);
    let stress = Stress {
        case,
        place: &place,
        image: &image,
        board: &board,
        jobs,
        operations: AtomicU64::new(0),
        writing: AtomicU32::new(WRITERS),
    };
    stress.run();
    count(
        "threads",
        "operations",
        stress.operations.load(Ordering::Relaxed),
    );
    stress.read(0, SECTORS, 0, "at last");
    let all = |bytes: &[u8], what| {
        let what = format!("case {case}, {:?}, {what}", place.medium);
        board.check(0, &bytes[..DISK as usize], &board.least(0..SECTORS), &what);
    };
    let image = place.reopen(image);
    all(&crate::image_common::contents(&image), "opened again");
    all(&place.merge_down(image), "merged");
}

#[test]
fn torture_threads_do_not_lose_each_others_writes() {
    const CASES: u64 = 20;
    let jobs = Jobs::default();
    let mut done = 0;
    for case in Budget::cases(CASES) {
        stress(case, &jobs);
        done += 1;
    }
    // A run that was given a second or two may have had no disk that can do all of it.
    if done >= CASES {
        jobs.assert_some_of_each();
    }
}
