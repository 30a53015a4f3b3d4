//! Two processes that want one image: they write, take snapshots and merge in turns, and whoever comes second is told so.
//!
//! The disk is a log: its first sector counts the records, each record names its process. A record that is lost, or two processes at
//! work at one time, show. A third process only reads, and finds whole logs.

use std::fs::{self, File, OpenOptions as FileOpenOptions};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use dmsnap::{CreateOptions, Error, ErrorKind, Format, Image, OpenOptions, OriginChoice};

use crate::budget::{Budget, Random, count};
use crate::image_common::chunk;
use crate::kill::{again, told};

const TEST: &str = "contenders::torture_two_processes_never_hold_one_image";
const SECTOR: u64 = 512;
const SECTORS: u64 = 1024;
/// Turns that each process wants to have.
const TURNS: u64 = 25;

fn options(writable: bool) -> OpenOptions {
    OpenOptions::new()
        .writable(writable)
        .origin(OriginChoice::FromImage)
}

/// A record, which is also what the first sector holds: who, and the how-manieth.
fn record(process: u64, number: u64) -> Vec<u8> {
    [process.to_le_bytes(), number.to_le_bytes()]
        .concat()
        .repeat(SECTOR as usize / 16)
}

/// Number in a sector, and whose it is.
fn number(image: &Image, sector: u64) -> (u64, u64) {
    let mut bytes = vec![0; SECTOR as usize];
    image.read(&mut bytes, sector * SECTOR).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes, record(word(0), word(8)), "sector {sector} is torn");
    (word(0), word(8))
}

/// The loser is told in a way that a program and a person understand.
fn assert_busy(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("layer") || text.contains("base"),
        "which file: {text}"
    );
}

/// Proof of being alone, as far as another process that obeys no lock of ours can tell.
struct Alone<'a>(&'a Path);

impl Alone<'_> {
    fn new(path: &Path) -> Alone<'_> {
        let file: std::io::Result<File> = FileOpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path);
        file.expect("somebody else has the image at the same time");
        Alone(path)
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// One process: it tries until it has had its turns. Seed 0 is the one that only reads.
fn contend(directory: &Path, seed: u64) {
    let mut random = Random(seed);
    let (mut turns, mut refused) = (0, 0_u64);
    while turns < TURNS {
        match Image::open(directory.join("layer"), &options(seed != 0)) {
            Ok(image) if seed == 0 => {
                check_log(&image);
                turns += 1;
            }
            Ok(image) => {
                turn(directory, image, seed, &mut random);
                turns += 1;
            }
            Err(error) => {
                assert_busy(&error);
                refused += 1;
            }
        }
        sleep(Duration::from_micros(random.below(1500)));
    }
    println!("\nrefused {refused}");
}

/// Adds a record, perhaps by way of a layer on top, or merges.
fn turn(directory: &Path, image: Image, process: u64, random: &mut Random) {
    let proof = directory.join("alone");
    let alone = Alone::new(&proof);
    let (_, last) = number(&image, 0);
    let next = last + 1;
    let above = directory.join("above");
    let way = random.below(4);
    if way == 0 {
        image.snapshot(&above, None).unwrap();
    }
    image
        .write(&record(process, next), (1 + next % (SECTORS - 1)) * SECTOR)
        .unwrap();
    image.flush().unwrap();
    image.write(&record(process, next), 0).unwrap();
    match way {
        // What is on top has to come down: nobody else would find it.
        0 => while !merged(&image) {},
        1 => drop(merged(&image)),
        _ => {}
    }
    // Before the lock goes, or the next one may come first.
    let flushed = image.flush();
    drop(alone);
    image.close().unwrap();
    flushed.unwrap();
    if way == 0 {
        fs::remove_file(above).unwrap();
    }
}

/// Merges, unless the reader has just now what is merged into.
fn merged(image: &Image) -> bool {
    let result = image.merge(&mut |_| true);
    result.inspect_err(assert_busy).is_ok()
}

/// All records up to the last one are there.
fn check_log(image: &Image) -> u64 {
    let (_, last) = number(image, 0);
    let first = last.saturating_sub(SECTORS - 2).max(1);
    for next in first..=last {
        let (_, found) = number(image, 1 + next % (SECTORS - 1));
        assert_eq!(found, next, "a record is lost");
    }
    last
}

fn refused(output: &str) -> u64 {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("refused "));
    line.unwrap_or_else(|| panic!("it did not get to its end: {output}"))
        .parse()
        .unwrap()
}

#[test]
fn torture_two_processes_never_hold_one_image() {
    if let Some((directory, seed)) = told() {
        return contend(&directory, seed);
    }
    let mut losers = 0;
    for case in Budget::cases(1) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("base"), record(0, 0).repeat(SECTORS as usize)).unwrap();
        let create = CreateOptions::new()
            .chunk_size(chunk(4096))
            .origin("base", Format::Raw);
        Image::create(path("layer"), &create).unwrap();
        let seeds = [0, case | 1, case.wrapping_add(1) | 1 << 40];
        let start = |seed| again(TEST, directory.path(), seed).spawn().unwrap();
        for child in seeds.map(start) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "case {case}: {output:?}");
            losers += refused(&String::from_utf8_lossy(&output.stdout));
        }
        let image = Image::open(path("layer"), &options(false)).unwrap();
        assert_eq!(check_log(&image), 2 * TURNS, "case {case}");
        count("threads", "turns", 2 * TURNS);
    }
    assert!(losers > 0, "nobody ever came second");
}
