//! A process that is killed while it writes, flushes and merges leaves files that open as they are, with all that was flushed.
//!
//! The test runs itself as the process to be killed. That one says which operation it begins and which flush has ended; operations
//! follow from a seed, so this side knows what each of them does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use dmsnap::{
    ByteRange, CheckOptions, CreateOptions, Format, Image, OpenOptions, OriginChoice, check,
};

use crate::budget::{Budget, Random, count};
use crate::image_common::*;
use crate::kill::{again, kill, told};

const SIZE: u64 = 2 << 20;
const TEST: &str = "kill_library::torture_a_killed_process_loses_nothing_flushed";
/// Kills, one after the other, of processes that work on one disk.
const KILLS: u64 = 12;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(ByteRange, u64),
    Zero(ByteRange),
    Flush,
    Merge,
}

/// The `index`-th operation of a run.
fn step(seed: u64, index: u64) -> Step {
    let bytes = pattern(seed ^ (index + 1).wrapping_mul(0x2545_f491_4f6c_dd1d), 12);
    let number =
        |at: usize| u64::from_le_bytes([&bytes[at..at + 4], &[0; 4]].concat().try_into().unwrap());
    let (kind, at, len) = (
        number(0) >> 3,
        number(4) * 7919 % SIZE,
        number(8) % 60_000 + 1,
    );
    let range = ByteRange::new(at, len.min(SIZE - at));
    match kind % 16 {
        0..=9 => Step::Write(range, kind),
        10..=11 => Step::Zero(range),
        12..=14 => Step::Flush,
        _ => Step::Merge,
    }
}

fn apply(step: Step, disk: &mut [u8]) {
    match step {
        Step::Write(range, seed) => disk[range.start as usize..range.end() as usize]
            .copy_from_slice(&pattern(seed, range.len as usize)),
        Step::Zero(range) => disk[range.start as usize..range.end() as usize].fill(0),
        Step::Flush | Step::Merge => {}
    }
}

fn open_layer(directory: &Path) -> Image {
    let options = OpenOptions::new()
        .writable(true)
        .origin(OriginChoice::FromImage);
    Image::open(directory.join("layer"), &options).unwrap()
}

/// Works until it is killed.
fn work(directory: &Path, seed: u64) -> ! {
    let image = open_layer(directory);
    let mut out = std::io::stdout();
    for index in 0.. {
        let step = step(seed, index);
        out.write_all(format!("\nbegin {index}\n").as_bytes())
            .unwrap();
        match step {
            Step::Write(range, seed) => {
                image
                    .write(&pattern(seed, range.len as usize), range.start)
                    .unwrap();
            }
            Step::Zero(range) => image.write_zeroes(range, true).unwrap(),
            Step::Flush => image.flush().unwrap(),
            Step::Merge => {
                // What was written before is flushed first, and each batch is a chance to be killed.
                let mut say = |_| out.write_all(b"batch\n").is_ok();
                image.merge(&mut say).unwrap();
            }
        }
        if matches!(step, Step::Flush | Step::Merge) {
            out.write_all(format!("\ndurable {index}\n").as_bytes())
                .unwrap();
        }
    }
    unreachable!("somebody kills this process")
}

/// Runs the worker until it has said so many lines. Returns the operations begun, and how many of them are durable.
fn run_and_kill(directory: &Path, seed: u64, lines: usize) -> (u64, u64) {
    let mut child = again(TEST, directory, seed).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut begun, mut durable) = (0, 0);
    let mut line = String::new();
    let mut said = 0;
    while output.read_line(&mut line).unwrap() > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // A line that the kill cut short says nothing.
            _ if !line.ends_with('\n') => {}
            ["begin", index] => begun = index.parse::<u64>().unwrap() + 1,
            ["durable", index] => durable = index.parse::<u64>().unwrap() + 1,
            _ => {}
        }
        said += usize::from(matches!(words[..], ["begin" | "durable" | "batch", ..]));
        if said == lines {
            let _ = child.kill();
        }
        line.clear();
    }
    let status = kill(&mut child);
    assert!(
        !status.success() && said >= lines,
        "it was killed, it did not fail"
    );
    (begun, durable)
}

/// A disk, and what it holds.
struct Disk<'a> {
    path: &'a Path,
    content: Vec<u8>,
}

impl Disk<'_> {
    fn new(path: &Path) -> Disk<'_> {
        let content = pattern(1, SIZE as usize);
        std::fs::write(path.join("base"), &content).unwrap();
        let options = CreateOptions::new()
            .chunk_size(chunk(4096))
            .origin("base", Format::Raw);
        Image::create(path.join("layer"), &options).unwrap();
        Disk { path, content }
    }

    /// One process that works until it is killed. Gives how many merges it had begun.
    fn kill(&mut self, seed: u64, lines: usize) -> usize {
        let (begun, durable) = run_and_kill(self.path, seed, lines);
        (0..durable).for_each(|index| apply(step(seed, index), &mut self.content));
        let mut possible = vec![self.content.clone()];
        for index in durable..begun {
            let mut next = possible.last().unwrap().clone();
            apply(step(seed, index), &mut next);
            possible.push(next);
        }
        let outcome = check(self.path.join("layer"), &CheckOptions::new()).unwrap();
        let findings = outcome.report.findings;
        assert_eq!(
            outcome.remaining_corruptions, 0,
            "seed {seed}: {findings:?}"
        );
        let image = open_layer(self.path);
        let found = contents(&image);
        for (at, byte) in found.iter().enumerate() {
            let allowed = possible.iter().any(|disk| disk[at] == *byte);
            assert!(
                allowed,
                "seed {seed}, {durable} of {begun}: byte {at} is {byte:#x}"
            );
        }
        self.content = found;
        image.close().unwrap();
        let steps = (0..begun).map(|index| step(seed, index));
        steps.filter(|step| matches!(step, Step::Merge)).count()
    }

    fn finish(self) {
        let image = open_layer(self.path);
        image.merge(&mut |_| true).unwrap();
        assert_same(&contents(&image), &self.content, "merged at last");
        drop(image);
        let origin = std::fs::read(self.path.join("base")).unwrap();
        assert_same(&origin, &self.content, "the origin");
    }
}

#[test]
fn torture_a_killed_process_loses_nothing_flushed() {
    if let Some((directory, seed)) = told() {
        work(&directory, seed);
    }
    let mut merged = 0;
    for case in Budget::cases(3) {
        let (directory, mut random) = (tempfile::tempdir().unwrap(), Random(case));
        let mut disk = Disk::new(directory.path());
        for _ in 0..KILLS {
            let lines = 1 + random.below(120) as usize;
            merged += disk.kill(random.next(), lines);
            count("threads", "kills", 1);
        }
        disk.finish();
    }
    assert!(merged > 0, "no merge was among the operations");
}
