//! Writes to chunks that have no exception yet, against writes to a new raw file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dmsnap::Image;

use crate::files::{
    Directory, GIB, KIB, MIB, Random, create_layer, create_raw, fill_raw, open_layer, settle, timed,
};
use crate::harness::{Aim, Table, Turns, Unit};

const SEQUENTIAL: &str = "64 KiB sequential first writes, flush";
const SEQUENTIAL_PLACED: &str = "64 KiB sequential first writes, raw at the same offsets";
const RANDOM: &str = "4 KiB random first writes, raw file sparse";
const RANDOM_ALLOCATED: &str = "4 KiB random first writes, raw file allocated";
const RANDOM_FLUSHED: &str = "4 KiB random first writes, flush";
const PARTIAL: &str = "4 KiB first writes in 16 KiB chunks (12K read + 16K write)";
const FLUSHED_FIRST: &str = "4 KiB first writes, flush every 16";
const FLUSHED_OVER: &str = "4 KiB overwrites, flush every 16";

struct Bench {
    directory: Directory,
    random: Random,
}

/// A layer that is made anew for each round.
struct Layer {
    path: PathBuf,
    image: Image,
}

impl Layer {
    fn new(path: PathBuf, chunk: u64, size: u64, origin: Option<&Path>) -> Layer {
        create_layer(&path, chunk, size, origin);
        let image = open_layer(&path, false);
        Layer { path, image }
    }

    fn remove(self) {
        self.image.close().expect("close");
        settle(&self.path);
    }
}

pub(crate) fn run(table: &mut Table) {
    let names = [
        SEQUENTIAL,
        SEQUENTIAL_PLACED,
        RANDOM,
        RANDOM_ALLOCATED,
        RANDOM_FLUSHED,
        PARTIAL,
        FLUSHED_FIRST,
        FLUSHED_OVER,
    ];
    if !table.section("First writes, page cache", &names) {
        return;
    }
    let mut bench = Bench {
        directory: Directory::new("first-writes"),
        random: Random::new(2),
    };
    bench.sequential(table);
    bench.random(table);
    bench.partial(table);
    bench.flushed(table);
}

fn write_all(file: &File, piece: u64, offsets: &[u64]) {
    let buf = vec![0xa5; piece as usize];
    for &offset in offsets {
        file.write_all_at(&buf, offset).expect("write");
    }
}

fn write_image(image: &Image, piece: u64, offsets: &[u64]) {
    let buf = vec![0xa5; piece as usize];
    for &offset in offsets {
        image.write(&buf, offset).expect("write");
    }
}

impl Bench {
    fn offsets(&mut self, size: u64, piece: u64) -> Vec<u64> {
        let order = self.random.permutation(size / piece);
        order.iter().map(|index| index * piece).collect()
    }

    /// A round on a new raw file of `size` bytes.
    fn raw(&self, size: u64, work: impl FnOnce(&File)) -> Duration {
        let path = self.directory.file("raw");
        let file = create_raw(&path);
        file.set_len(size).expect("set size");
        let time = timed(|| work(&file));
        drop(file);
        settle(&path);
        time
    }

    /// A round on a new layer of `size` bytes.
    fn ours(
        &self,
        chunk: u64,
        size: u64,
        origin: Option<&Path>,
        work: impl FnOnce(&Image),
    ) -> Duration {
        let layer = Layer::new(self.directory.file("layer"), chunk, size, origin);
        let time = timed(|| work(&layer.image));
        layer.remove();
        time
    }

    fn sequential(&mut self, table: &mut Table) {
        const SIZE: u64 = 256 * MIB;
        const PIECE: u64 = 64 * KIB;
        const CHUNK: u64 = 16 * KIB;
        let offsets: Vec<u64> = (0..SIZE).step_by(PIECE as usize).collect();
        // Where a layer has those bytes: behind the header and the areas so far, which no large folio of the page cache is aligned to.
        let area = CHUNK / 16;
        let place = |chunk: u64| (2 + chunk + chunk / area) * CHUNK;
        let places: Vec<u64> = offsets.iter().map(|offset| place(offset / CHUNK)).collect();
        // A plain writer lets the file grow.
        let raw = |bench: &Bench, offsets: &[u64]| {
            bench.raw(0, |file| {
                write_all(file, PIECE, offsets);
                file.sync_data().expect("sync");
            })
        };
        let ours = |bench: &Bench| {
            bench.ours(CHUNK, SIZE, None, |image| {
                write_image(image, PIECE, &offsets);
                image.flush().expect("flush");
            })
        };
        for (name, aim, raw_offsets) in [
            (SEQUENTIAL, Aim::AtLeast(0.9), &offsets),
            (SEQUENTIAL_PLACED, Aim::None, &places),
        ] {
            let (unit, turns) = (Unit::Rate(SIZE), Turns::rounds(11));
            table.compare(
                name,
                aim,
                unit,
                turns,
                |_| raw(self, raw_offsets),
                |_| ours(self),
            );
        }
    }

    fn random(&mut self, table: &mut Table) {
        const SIZE: u64 = 128 * MIB;
        const PIECE: u64 = 4 * KIB;
        let offsets = self.offsets(SIZE, PIECE);
        let unit = Unit::PerOperation(SIZE / PIECE);
        let ours = |_| {
            self.ours(PIECE, SIZE, None, |image| {
                write_image(image, PIECE, &offsets);
            })
        };
        table.compare(
            RANDOM,
            Aim::AtLeast(0.8),
            unit,
            Turns::rounds(9),
            |_| self.raw(SIZE, |file| write_all(file, PIECE, &offsets)),
            ours,
        );
        let path = self.directory.file("allocated");
        let file = create_raw(&path);
        fill_raw(&file, SIZE, PIECE);
        table.compare(
            RANDOM_ALLOCATED,
            Aim::None,
            unit,
            Turns::rounds(9),
            |_| timed(|| write_all(&file, PIECE, &offsets)),
            ours,
        );
        table.compare(
            RANDOM_FLUSHED,
            Aim::AtLeast(0.8),
            unit,
            Turns::rounds(5),
            |_| {
                self.raw(SIZE, |file| {
                    write_all(file, PIECE, &offsets);
                    file.sync_data().expect("sync");
                })
            },
            |_| {
                self.ours(PIECE, SIZE, None, |image| {
                    write_image(image, PIECE, &offsets);
                    image.flush().expect("flush");
                })
            },
        );
    }

    /// The head and the tail of each chunk come from an origin that is in the cache.
    fn partial(&mut self, table: &mut Table) {
        const SIZE: u64 = GIB;
        const CHUNK: u64 = 16 * KIB;
        const PIECE: u64 = 4 * KIB;
        const COUNT: usize = 8192;
        let path = self.directory.file("origin");
        let origin = create_raw(&path);
        fill_raw(&origin, SIZE, MIB);
        let mut chunks = self.offsets(SIZE, CHUNK);
        chunks.truncate(COUNT);
        let offsets: Vec<u64> = chunks
            .iter()
            .map(|chunk| chunk + self.random.below(CHUNK / PIECE) * PIECE)
            .collect();
        table.compare(
            PARTIAL,
            Aim::AtMost(1.15),
            Unit::PerOperation(COUNT as u64),
            Turns::rounds(9),
            |_| {
                self.raw(COUNT as u64 * CHUNK, |file| {
                    let mut buf = vec![0xa5; CHUNK as usize];
                    for (to, &from) in (0..).step_by(CHUNK as usize).zip(&chunks) {
                        let around = &mut buf[..(CHUNK - PIECE) as usize];
                        origin.read_exact_at(around, from).expect("read");
                        file.write_all_at(&buf, to).expect("write");
                    }
                })
            },
            |_| {
                self.ours(CHUNK, SIZE, Some(&path), |image| {
                    write_image(image, PIECE, &offsets);
                })
            },
        );
    }

    fn flushed(&mut self, table: &mut Table) {
        const SIZE: u64 = 128 * MIB;
        const PIECE: u64 = 4 * KIB;
        const COUNT: usize = 512;
        const GROUP: usize = 16;
        let mut offsets = self.offsets(SIZE, PIECE);
        offsets.truncate(COUNT);
        let unit = Unit::PerOperation(COUNT as u64);
        let raw = |file: &File| {
            for group in offsets.chunks(GROUP) {
                write_all(file, PIECE, group);
                file.sync_data().expect("sync");
            }
        };
        let ours = |image: &Image| {
            for group in offsets.chunks(GROUP) {
                write_image(image, PIECE, group);
                image.flush().expect("flush");
            }
        };
        table.compare(
            FLUSHED_FIRST,
            Aim::None,
            unit,
            Turns::rounds(5),
            |_| self.raw(SIZE, raw),
            |_| self.ours(PIECE, SIZE, None, ours),
        );
        let twice = |_| {
            let layer = Layer::new(self.directory.file("layer"), PIECE, SIZE, None);
            write_image(&layer.image, PIECE, &offsets);
            layer.image.flush().expect("flush");
            let time = timed(|| ours(&layer.image));
            layer.remove();
            time
        };
        table.compare(
            FLUSHED_OVER,
            Aim::None,
            unit,
            Turns::rounds(5),
            |_| {
                self.raw(SIZE, |file| {
                    write_all(file, PIECE, &offsets);
                    file.sync_data().expect("sync");
                    raw(file);
                })
            },
            twice,
        );
    }
}
