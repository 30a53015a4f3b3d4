//! Runs the tool as a user does: as a process, in a directory of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Size of the base image of [`Scratch::base_and_layer`].
pub(crate) const SIZE: usize = (1 << 20) + 512;

/// What the layer of [`Scratch::base_and_layer`] shows.
pub(crate) fn layer_content() -> Vec<u8> {
    let mut bytes = content(1, SIZE);
    bytes[20 << 10..][..512].fill(0x11);
    bytes[1 << 20..].fill(0x22);
    bytes
}

/// What a run of the tool left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts the exit code and gives standard output.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        &self.stdout
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) -> &str {
        self.exits(0)
    }

    /// Asserts a failure that is told in the tool's manner, and says `words`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        self.exits(code);
        assert!(self.stderr.starts_with("dmsnap: "), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.succeeds()).expect("JSON")
    }
}

/// A directory with images.
pub(crate) struct Scratch {
    directory: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// In memory where the system has such a place. A kill takes nothing from the page cache, so the medium does not matter to it, and
    /// waiting for a disk would be most of the time. A container may give it too little room.
    pub(crate) fn fast() -> Scratch {
        const MEMORY: &str = "/dev/shm";
        let directory = match free_bytes(MEMORY) {
            // The largest of the tests needs half of this, and two may run.
            Some(1_000_000_000..) => tempfile::tempdir_in(MEMORY).ok(),
            _ => None,
        };
        let directory = directory.unwrap_or_else(|| tempfile::tempdir().expect("a directory"));
        Scratch { directory }
    }

    /// On a certain file system.
    #[allow(dead_code, reason = "for another test program")]
    pub(crate) fn below(place: &Path) -> Scratch {
        Scratch {
            directory: tempfile::tempdir_in(place).expect("a directory"),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The tool, about to run here.
    pub(crate) fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        tool_in(self.directory(), args)
    }

    /// Runs the tool with words that a space separates.
    pub(crate) fn dmsnap(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.run(&words)
    }

    pub(crate) fn run(&self, args: &[impl AsRef<OsStr>]) -> Run {
        finish(self.command(args))
    }

    /// Runs commands of `dmsnap io`.
    pub(crate) fn io(&self, file: &str, commands: &[&str]) -> Run {
        let mut args = vec!["io", file];
        commands
            .iter()
            .for_each(|command| args.extend(["-c", command]));
        self.run(&args)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect(name);
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    /// Overwrites a part of a file.
    pub(crate) fn poke(&self, name: &str, offset: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.path(name))
            .expect(name);
        file.write_all_at(bytes, offset).expect(name);
    }

    /// Bytes that a file occupies.
    pub(crate) fn occupied(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).expect(name).blocks() * 512
    }

    /// Everything in the directory, to see that nothing changed.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.directory()).expect("the directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect()
    }

    /// Asserts that `run` changes no file and leaves none behind.
    #[track_caller]
    pub(crate) fn untouched<T>(&self, run: impl FnOnce() -> T) -> T {
        let before = self.contents();
        let result = run();
        let after = self.contents();
        let names = |map: &BTreeMap<PathBuf, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after));
        for (path, content) in before {
            assert!(
                after.get(&path) == Some(&content),
                "{} changed",
                path.display()
            );
        }
        result
    }

    /// The same, but `made` may appear.
    #[track_caller]
    pub(crate) fn untouched_but<T>(&self, made: &str, run: impl FnOnce() -> T) -> T {
        let without = || {
            let mut contents = self.contents();
            contents.remove(&self.path(made));
            contents
        };
        let before = without();
        let result = run();
        assert!(before == without(), "something else than {made} changed");
        result
    }

    /// A base image of 1 MiB and 512 bytes with something in it, and a layer over it with two exceptions.
    pub(crate) fn base_and_layer(&self) {
        self.write("base.raw", &content(1, SIZE));
        self.dmsnap("create -q -b base.raw -F raw layer.dms")
            .succeeds();
        self.io(
            "layer.dms",
            &["write -q -P 0x11 20k 512", "write -q -P 0x22 1M 512"],
        )
        .succeeds();
    }
}

/// What a file system has left for us.
fn free_bytes(directory: &str) -> Option<u64> {
    let args = ["--output=avail", "--block-size=1", directory];
    let output = Command::new("df").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().last()?.trim().parse().ok()
}

pub(crate) fn tool_in(directory: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmsnap"));
    command
        .current_dir(directory)
        .args(args)
        .stdin(Stdio::null())
        .env_remove("COLUMNS");
    command
}

pub(crate) fn finish(mut command: Command) -> Run {
    let output = command.output().expect("the tool runs");
    Run {
        // A signal has no code: then this is one that no test expects.
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Bytes that look random, the same for the same seed; the second half of them are zeros.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes: Vec<u8> = (0..len / 2).map(|_| random.next() as u8).collect();
    bytes.resize(len, 0);
    bytes
}

/// A small generator (xorshift), so that a seed is all that is needed to see a failure again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        let mut x = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        x >> 11
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
