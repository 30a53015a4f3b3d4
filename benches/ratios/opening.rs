//! Opening an image with many exceptions, against reading its metadata areas and doing nothing with them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use dmsnap::format::{Exception, Geometry};
use dmsnap::{ChunkSize, Image, OpenOptions, OriginChunk};

use crate::files::{Directory, KIB, create_layer, evict, open_raw, timed};
use crate::harness::{Aim, Table, Turns, Unit};
use crate::memory;

/// A layer of which only the metadata was written: its data chunks are holes.
struct Made {
    path: PathBuf,
    chunk: u64,
    count: u64,
}

/// A bijection of the numbers of `bits` bits that leaves no order in them.
fn scatter(number: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    let mut mixed = number;
    for factor in [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93] {
        mixed = mixed.wrapping_mul(factor) & mask;
        mixed ^= mixed >> (bits / 2);
    }
    mixed
}

impl Made {
    fn new(path: PathBuf, chunk: u64, count: u64, random: bool) -> Made {
        // A disk with four times as many chunks.
        let bits = (4 * count).ilog2();
        create_layer(&path, chunk, chunk << bits, None);
        let made = Made { path, chunk, count };
        let geometry = made.geometry();
        let file = open_raw(&made.path, false);
        let chunks = geometry.chunks_for(count).expect("a short log");
        file.set_len((chunks + 1) * chunk).expect("set size");
        let mut area = Vec::with_capacity(chunk as usize);
        for (start, offset) in made.areas() {
            area.clear();
            let end = count.min(start + geometry.exceptions_per_area());
            for index in start..end {
                let record = Exception {
                    old: OriginChunk(if random { scatter(index, bits) } else { index }),
                    new: geometry.compact_chunk(index).expect("a short log"),
                };
                area.extend_from_slice(&record.encode());
            }
            area.resize(chunk as usize, 0);
            file.write_all_at(&area, offset).expect("write");
        }
        file.sync_all().expect("sync");
        made
    }

    fn geometry(&self) -> Geometry {
        Geometry::new(ChunkSize::from_bytes(self.chunk).expect("a legal chunk size"))
    }

    /// First record and byte of each area, that of the terminator included.
    fn areas(&self) -> impl Iterator<Item = (u64, u64)> {
        let geometry = self.geometry();
        (0..=self.count / geometry.exceptions_per_area()).map(move |area| {
            let chunk = geometry.area_chunk(area).expect("a short log");
            let offset = geometry.byte_offset(chunk).expect("a short log");
            (area * geometry.exceptions_per_area(), offset)
        })
    }

    fn read_areas(&self, file: &File) -> Duration {
        let mut buf = vec![0; self.chunk as usize];
        timed(|| {
            for (_, offset) in self.areas() {
                file.read_exact_at(&mut buf, offset).expect("read");
            }
        })
    }

    fn open(&self) -> Image {
        Image::open(&self.path, &OpenOptions::new()).expect("open an image")
    }

    fn time_open(&self) -> Duration {
        let mut image = None;
        let time = timed(|| image = Some(self.open()));
        drop(image);
        time
    }

    fn cold(&self, table: &mut Table, name: &str, rounds: usize) {
        let file = open_raw(&self.path, false);
        table.compare(
            name,
            Aim::AtLeast(0.8),
            Unit::Whole,
            Turns::rounds(rounds),
            |_| {
                evict(&file);
                self.read_areas(&file)
            },
            |_| {
                evict(&file);
                self.time_open()
            },
        );
    }

    fn warm(&self, table: &mut Table, name: &str, aim: Aim) {
        let file = open_raw(&self.path, false);
        self.read_areas(&file);
        let (raw, ours) = (|_| self.read_areas(&file), |_| self.time_open());
        table.compare(name, aim, Unit::Whole, Turns::rounds(5), raw, ours);
    }

    fn memory(&self, table: &mut Table, name: &str, aim: f64) {
        let before = memory::held();
        let (image, most) = memory::most_during(|| self.open());
        let held = memory::held() - before;
        let each = held as f64 / self.count as f64;
        let peak = format!("{:.2} peak", most as f64 / self.count as f64);
        table.figure(name, Aim::AtMost(aim), each, &peak, &format!("{each:.3} B"));
        drop(image);
    }
}

struct Names {
    cold: &'static str,
    warm: &'static str,
    memory: &'static str,
}

const MILLION: Names = Names {
    cold: "open, 1 M random, chunks of 4 KiB, cold",
    warm: "open, 1 M random, chunks of 4 KiB, warm",
    memory: "bytes of heap an exception, 1 M random",
};
const RANDOM: Names = Names {
    cold: "open, 16 M random, cold",
    warm: "open, 16 M random, warm (in 1.5 s)",
    memory: "bytes of heap an exception, 16 M random",
};
const SEQUENTIAL: Names = Names {
    cold: "open, 16 M sequential, cold",
    warm: "open, 16 M sequential, warm",
    memory: "bytes of heap an exception, 16 M sequential",
};

pub(crate) fn run(table: &mut Table) {
    let names = [MILLION, RANDOM, SEQUENTIAL].map(|names| [names.cold, names.warm, names.memory]);
    if !table.section(
        "Opening, against reading the metadata areas (chunks of 16 KiB)",
        names.as_flattened(),
    ) {
        return;
    }
    let directory = Directory::new("opening");
    let path = |name| directory.file(name);
    if table.wants_any(&names[0]) {
        let made = Made::new(path("million"), 4 * KIB, 1 << 20, true);
        made.cold(table, MILLION.cold, 5);
        made.warm(table, MILLION.warm, Aim::None);
        made.memory(table, MILLION.memory, 16.0);
    }
    if table.wants_any(&names[1]) {
        let made = Made::new(path("random"), 16 * KIB, 16 << 20, true);
        made.cold(table, RANDOM.cold, 3);
        made.warm(table, RANDOM.warm, Aim::Within(Duration::from_millis(1500)));
        made.memory(table, RANDOM.memory, 16.0);
    }
    if table.wants_any(&names[2]) {
        let made = Made::new(path("sequential"), 16 * KIB, 16 << 20, false);
        made.cold(table, SEQUENTIAL.cold, 3);
        made.warm(table, SEQUENTIAL.warm, Aim::AtLeast(0.5));
        made.memory(table, SEQUENTIAL.memory, 0.1);
    }
}
