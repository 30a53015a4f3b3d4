//! Real limits: a file system that is full, and files that may grow only so far.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use dmsnap::{
    CheckOptions, CreateOptions, ErrorKind, Format, Image, OpenOptions, OriginChoice, check,
};

use crate::block::{SmallFileSystem, available, run};
use crate::budget::{Random, count, seed};
use crate::commands::SCENARIOS;
use crate::harness::{self, Run, Scratch};
use crate::image_common::{assert_same, chunk, contents, pattern};
use crate::known::{Cause, Known};
use crate::parallel::for_each;

const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;

/// Runs a command with limits, as `prlimit` sets them.
pub(crate) fn limited(scratch: &Scratch, limit: &str, args: &[&str]) -> Run {
    let tool = scratch.command(args);
    let mut command = Command::new("prlimit");
    command.arg(limit).arg("--").arg(tool.get_program());
    command
        .args(tool.get_args())
        .current_dir(scratch.directory());
    harness::finish(command)
}

/// Commands that write.
fn writers() -> Vec<Known> {
    let all = SCENARIOS.iter();
    all.filter(|scenario| scenario.makes.is_some() || !scenario.changes.is_empty())
        .map(Known::new)
        .collect()
}

/// What would make a file too long fails as on a full disk, and the signal that comes with it ends nobody.
#[test]
fn test_a_limit_on_the_size_of_files_is_an_error() {
    let known = writers();
    let mut jobs = Vec::new();
    for known in &known {
        for limit in [
            0,
            100,
            4096,
            20_000,
            60_000,
            150_000,
            600_000,
            1 << 20,
            1_100_000,
            1 << 22,
        ] {
            jobs.push((known, limit));
        }
    }
    for_each(&jobs, |&(known, limit)| {
        let scratch = known.scratch();
        let run = limited(&scratch, &format!("--fsize={limit}"), known.scenario.args);
        let what = format!("files of {limit} bytes: {run:#?}");
        known.assess(&scratch, &run, Some(Cause::errno(EFBIG)), &what);
    });
    count("faults", "file-size-limits", jobs.len() as u64);
}

/// A small file system that can be filled.
struct Small {
    system: SmallFileSystem,
}

impl Small {
    fn new() -> Small {
        Small {
            system: SmallFileSystem::new(24 << 20),
        }
    }

    fn root(&self) -> &Path {
        &self.system.root
    }

    /// Takes all space but so many bytes.
    fn fill(&self, leave: u64) {
        let root = self.root().to_str().unwrap();
        // What was written before may not have its blocks yet.
        run("sync", &["-f", root]);
        let free = run("stat", &["-f", "-c", "%a %S", root]);
        let numbers = free.split(' ').map(|number| number.parse::<u64>().unwrap());
        let free: u64 = numbers.product();
        let filler = vec![1; free.saturating_sub(leave) as usize];
        // The file system needs a little for itself.
        let _ = fs::write(self.root().join("filler"), filler);
        run("sync", &["-f", root]);
    }

    fn make_room(&self) {
        fs::remove_file(self.root().join("filler")).unwrap();
    }
}

/// A command that runs out of space says so and harms nothing; with more space it does its work.
#[test]
fn test_commands_on_a_full_file_system() {
    if !available() {
        return;
    }
    let small = Small::new();
    let mut random = Random(seed());
    let (mut runs, mut full) = (0, 0);
    for known in &writers() {
        for most in [0, 16, 128, 1400] {
            let scratch = Scratch::below(small.root());
            known.restore(&scratch);
            let leave = random.below(most + 1) << 10;
            small.fill(leave);
            let args = known.scenario.args;
            let run = scratch.run(args);
            // Looking at what is left writes too.
            small.make_room();
            let what = format!("{leave} bytes of space: {run:#?}");
            let succeeded = known.assess(&scratch, &run, Some(Cause::errno(ENOSPC)), &what);
            known.restore(&scratch);
            if let Some(made) = known.scenario.makes.filter(|_| succeeded) {
                fs::remove_file(scratch.path(made)).unwrap();
                known.restore(&scratch);
            }
            let again = scratch.run(args);
            known.assess(
                &scratch,
                &again,
                None,
                &format!("with more space: {again:#?}"),
            );
            (runs, full) = (runs + 1, full + u64::from(!succeeded));
        }
    }
    assert!(full > 20, "only {full} of {runs} commands ran out of space");
    count("faults", "calls-without-space", runs);
}

/// Writes to an image until there is no space, and goes on when there is.
#[test]
fn test_an_image_on_a_full_file_system_goes_on_with_more_space() {
    const SIZE: u64 = 8 << 20;
    if !available() {
        return;
    }
    let small = Small::new();
    let mut random = Random(seed());
    for (bytes, leave) in [
        (4096, 300 << 10),
        (4096, 1 << 20),
        (16_384, 2 << 20),
        (65_536, 777 << 10),
    ] {
        let base = pattern(1, SIZE as usize);
        let directory = tempfile::tempdir_in(small.root()).unwrap();
        let path = directory.path().join("layer");
        fs::write(directory.path().join("base"), &base).unwrap();
        let options = CreateOptions::new()
            .chunk_size(chunk(bytes))
            .origin("base", Format::Raw);
        Image::create(&path, &options).unwrap();
        small.fill(leave);
        let image = open(&path);
        let mut disk = base;
        let (mut full_writes, mut full_flushes) = (0, 0);
        for number in 0..600 {
            let (at, len) = (random.below(SIZE - 20_000), 1 + random.below(20_000));
            let data = pattern(number, len as usize);
            let range = at as usize..(at + len) as usize;
            match image.write(&data, at) {
                Ok(()) => disk[range].copy_from_slice(&data),
                Err(error) => {
                    assert_eq!(
                        (error.kind(), error.errno()),
                        (ErrorKind::NoSpace, ENOSPC),
                        "{error}"
                    );
                    assert!(
                        error.path().is_some_and(|path| path.ends_with("layer")),
                        "{error}"
                    );
                    full_writes += 1;
                    // Some of it may be there.
                    image.read(&mut disk[range.clone()], at).unwrap();
                }
            }
            if number % 50 == 49 && image.flush().is_err() {
                full_flushes += 1;
            }
        }
        assert!(full_writes > 0, "there was space for all of it");
        assert_same(&contents(&image), &disk, "full");
        small.make_room();
        image.flush().unwrap();
        let again = pattern(9, 100_000);
        image.write(&again, 5).unwrap();
        disk[5..100_005].copy_from_slice(&again);
        image.close().unwrap();
        assert_same(&contents(&open(&path)), &disk, "with more space");
        assert_eq!(
            check(&path, &CheckOptions::new())
                .unwrap()
                .remaining_corruptions,
            0
        );
        count("faults", "calls-without-space", full_writes + full_flushes);
    }
}

fn open(path: impl AsRef<OsStr>) -> Image {
    let options = OpenOptions::new()
        .writable(true)
        .origin(OriginChoice::FromImage);
    Image::open(Path::new(&path), &options).unwrap()
}
