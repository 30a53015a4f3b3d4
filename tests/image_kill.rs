//! A process that is killed while it writes, flushes and merges leaves files that open as they are, with all that was flushed.
//!
//! The test runs itself as the process to be killed. That one says which operation it begins and which flush has ended; operations
//! follow from a seed, so this side knows what each of them does.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dmsnap::{
    ByteRange, CheckOptions, CreateOptions, Format, Image, OpenOptions, OriginChoice, check,
};
use image_common::*;

const SIZE: u64 = 2 << 20;
const DIRECTORY: &str = "DMSNAP_TEST_KILL_DIRECTORY";
const SEED: &str = "DMSNAP_TEST_KILL_SEED";
const ROUNDS: u64 = 40;

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
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "test_a_killed_process_loses_nothing_flushed",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
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
            child.kill().unwrap();
        }
        line.clear();
    }
    assert!(
        !child.wait().unwrap().success() && said >= lines,
        "it was killed, it did not fail"
    );
    (begun, durable)
}

#[test]
fn test_a_killed_process_loses_nothing_flushed() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let seed = std::env::var(SEED).unwrap().parse().unwrap();
        work(&PathBuf::from(directory), seed);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut disk = pattern(1, SIZE as usize);
    std::fs::write(path.join("base"), &disk).unwrap();
    let options = CreateOptions::new()
        .chunk_size(chunk(4096))
        .origin("base", Format::Raw);
    Image::create(path.join("layer"), &options).unwrap();
    let mut merged = 0;
    for seed in 0..ROUNDS {
        let lines = (seed as usize * 37) % 120 + 1;
        let (begun, durable) = run_and_kill(path, seed, lines);
        (0..durable).for_each(|index| apply(step(seed, index), &mut disk));
        merged += (0..begun)
            .filter(|&index| matches!(step(seed, index), Step::Merge))
            .count();
        let mut possible = vec![disk.clone()];
        for index in durable..begun {
            let mut next = possible.last().unwrap().clone();
            apply(step(seed, index), &mut next);
            possible.push(next);
        }
        let outcome = check(path.join("layer"), &CheckOptions::new()).unwrap();
        assert_eq!(
            outcome.remaining_corruptions, 0,
            "{:?}",
            outcome.report.findings
        );
        let image = open_layer(path);
        let found = contents(&image);
        for (at, byte) in found.iter().enumerate() {
            let allowed = possible.iter().any(|disk| disk[at] == *byte);
            assert!(
                allowed,
                "round {seed}, {durable} of {begun}: byte {at} is {byte:#x}"
            );
        }
        disk = found;
        image.close().unwrap();
    }
    assert!(merged > 0, "no merge was among the operations");
    let image = open_layer(path);
    image.merge(&mut |_| true).unwrap();
    assert_same(&contents(&image), &disk, "merged at last");
    drop(image);
    assert_same(
        &std::fs::read(path.join("base")).unwrap(),
        &disk,
        "the origin",
    );
}
