//! A running kernel that does what it is told at once: the host's side of `guest/driver.c`.
//!
//! A test program of its own can have it too: it needs the modules `initrd`, `pattern`, `report`, `scenario` and `vm` beside it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::scenario::{Outcome, Scenario};
use crate::vm::{self, Failure};

const SECTOR: u64 = 512;
/// Where messages, answers and content begin on the shared disk, and where their texts begin behind their heads.
const MESSAGE: u64 = 0;
const ANSWER: u64 = 4096 * SECTOR;
const TEXT: u64 = 8 * SECTOR;
const CONTENT: u64 = 8192;
const DISK_SECTORS: u64 = CONTENT + (1 << 20);
/// The driver copies that much in one request.
pub(crate) const COPY_SECTORS: u64 = 2048;
/// After that a test starts another machine: a boot has its own limit.
const LIFE: Duration = Duration::from_secs(300);
const SCENARIO_SECONDS: u32 = 560;

/// What became of a command: the words that it gave, or an errno.
pub(crate) type Answer = Result<String, i32>;

/// A booted kernel and the disk that it shares with us.
pub(crate) struct Guest {
    disk: File,
    boot: Option<JoinHandle<Result<Vec<Outcome>, Failure>>>,
    started: Instant,
    sent: u64,
    /// First sector that has no content yet.
    free: u64,
    _directory: TempDir,
}

impl Guest {
    pub(crate) fn boot() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let disk = File::create_new(&path).unwrap();
        disk.set_len(DISK_SECTORS * SECTOR).unwrap();
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let mut scenario = Scenario::new("driver")
            .disk("disk", &path)
            .file("driver", driver())
            .script("\"$1\"/driver $disk");
        scenario.limit_seconds = SCENARIO_SECONDS;
        Self {
            disk,
            boot: Some(thread::spawn(move || vm::try_run(&[scenario]))),
            started: Instant::now(),
            sent: 0,
            free: CONTENT,
            _directory: directory,
        }
    }

    /// Whether it is time for another one.
    pub(crate) fn is_old(&self) -> bool {
        self.started.elapsed() > LIFE
    }

    /// Has the commands run in order, all of them; each has an answer.
    pub(crate) fn ask<S: AsRef<str>>(&mut self, commands: &[S]) -> Vec<Answer> {
        let lines: Vec<&str> = commands.iter().map(AsRef::as_ref).collect();
        let text = self.exchange(&lines.join("\n"));
        let answers: Vec<Answer> = text.lines().map(parsed).collect();
        assert_eq!(answers.len(), commands.len(), "the driver's answer: {text}");
        answers
    }

    /// The same where none may fail.
    #[track_caller]
    pub(crate) fn ask_all<S: AsRef<str>>(&mut self, commands: &[S]) -> Vec<String> {
        let answers = self.ask(commands).into_iter().zip(commands);
        let good = answers.map(|(answer, command)| match answer {
            Ok(words) => words,
            Err(errno) => panic!("the kernel: {}: errno {errno}", command.as_ref()),
        });
        good.collect()
    }

    /// Forgets all content: what is placed next may take its room.
    pub(crate) fn clear(&mut self) {
        self.free = CONTENT;
    }

    /// Whether so many sectors more have room.
    pub(crate) fn has_room(&self, sectors: u64) -> bool {
        self.free + sectors <= DISK_SECTORS
    }

    /// Puts whole sectors somewhere on the shared disk; returns where. No device may be read through a cache there.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> u64 {
        let at = self.reserve(bytes.len() as u64 / SECTOR);
        self.put(at, bytes);
        at
    }

    /// Room for content that comes later.
    pub(crate) fn reserve(&mut self, sectors: u64) -> u64 {
        assert!(self.has_room(sectors), "the shared disk is full");
        self.free += sectors;
        self.free - sectors
    }

    pub(crate) fn put(&self, sector: u64, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64 % SECTOR, 0, "whole sectors");
        self.disk.write_all_at(bytes, sector * SECTOR).unwrap();
    }

    pub(crate) fn get(&self, sector: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; (count * SECTOR) as usize];
        self.disk
            .read_exact_at(&mut bytes, sector * SECTOR)
            .unwrap();
        bytes
    }

    fn exchange(&mut self, text: &str) -> String {
        self.send(text).unwrap();
        loop {
            let [number, size] = self.words(ANSWER);
            if number == self.sent {
                let mut text = vec![0; size as usize];
                self.disk.read_exact_at(&mut text, ANSWER + TEXT).unwrap();
                return String::from_utf8(text).unwrap();
            }
            if self.boot.as_ref().is_none_or(JoinHandle::is_finished) {
                self.end();
                panic!("the kernel ended while it was to do:\n{text}");
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The head goes last: it tells that the text is there.
    fn send(&mut self, text: &str) -> io::Result<()> {
        self.sent += 1;
        self.disk.write_all_at(text.as_bytes(), MESSAGE + TEXT)?;
        let mut head = self.sent.to_le_bytes().to_vec();
        head.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.disk.write_all_at(&head, MESSAGE)
    }

    fn words(&self, at: u64) -> [u64; 2] {
        let mut words = [0; 16];
        self.disk.read_exact_at(&mut words, at).unwrap();
        let (first, second) = words.split_at(8);
        [first, second].map(|word| u64::from_le_bytes(word.try_into().unwrap()))
    }

    /// Waits for the machine, which was told to end or did so by itself.
    fn end(&mut self) {
        let outcomes = self.boot.take().map(|boot| boot.join().unwrap());
        if let Some(Err(failure)) = outcomes {
            panic!("{failure}");
        }
    }
}

/// Ends the machine, and the test if something was wrong with it.
impl Drop for Guest {
    fn drop(&mut self) {
        if self.boot.is_none() {
            return;
        }
        let sent = self.send("quit");
        if !thread::panicking() {
            sent.unwrap();
            self.end();
        } else if let Some(boot) = self.boot.take() {
            // The test has failed already, and says why.
            let _ = boot.join();
        }
    }
}

fn parsed(line: &str) -> Answer {
    match line.split_once(' ') {
        None if line == "ok" => Ok(String::new()),
        Some(("ok", words)) => Ok(words.into()),
        Some(("error", errno)) => Err(errno.parse().unwrap()),
        _ => panic!("the driver's answer: {line}"),
    }
}

/// The hash of `guest/driver.c`, in the digits that it prints.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let words = bytes.chunks_exact(8);
    let state = words.fold(bytes.len() as u64 / SECTOR, |state, word| {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        (word ^ state)
            .rotate_left(29)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    format!("{state:016x}")
}

/// The driver as a program, built by the first who wants it.
fn driver() -> Vec<u8> {
    static DRIVER: OnceLock<Vec<u8>> = OnceLock::new();
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/guest/driver.c");
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("driver");
        let arguments = ["-static", "-Os", "-Wall", "-Wextra", "-Werror", "-o"];
        let output = Command::new("cc")
            .args(arguments)
            .args([&program, &source])
            .output();
        let output = output.expect("a C compiler: cc");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cc {source:?}:\n{errors}");
        fs::read(program).unwrap()
    };
    DRIVER.get_or_init(build).clone()
}
