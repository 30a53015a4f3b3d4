//! Files to measure on, and the plain calls to measure against.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dmsnap::{ChunkSize, CreateOptions, Format, Image, OpenOptions as ImageOptions, OriginChoice};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A directory below `target/`, which is on a real file system, that is removed with all its files.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Directory {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("create a directory");
        Directory(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers without a pattern (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }

    /// The numbers below `bound` in random order.
    pub(crate) fn permutation(&mut self, bound: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..bound).collect();
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last as u64 + 1) as usize);
        }
        all
    }
}

/// Memory that O_DIRECT accepts, filled with something.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(len: u64) -> Buffer {
        let len = len as usize;
        let memory = vec![0xa5; len + 4095];
        let start = (memory.as_ptr() as usize).wrapping_neg() & 4095;
        Buffer { memory, start, len }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A new file for reading and writing.
pub(crate) fn create_raw(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).expect("create a file")
}

pub(crate) fn open_raw(path: &Path, direct: bool) -> File {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options.open(path).expect("open a file")
}

/// Fills a file from its start with pieces of `piece` bytes, and makes it durable so that no write-back disturbs what is measured.
pub(crate) fn fill_raw(file: &File, size: u64, piece: u64) {
    let buf = vec![0x5a; piece as usize];
    for offset in (0..size).step_by(piece as usize) {
        file.write_all_at(&buf, offset).expect("write");
    }
    file.sync_all().expect("sync");
}

/// Removes a file and waits until that costs nobody anything any more.
pub(crate) fn settle(path: &Path) {
    fs::remove_file(path).expect("remove a file");
    let directory = path.parent().expect("a file in a directory");
    let opened = File::open(directory).expect("open a directory");
    opened.sync_all().expect("sync a directory");
}

/// Takes a file out of the page cache.
pub(crate) fn evict(file: &File) {
    file.sync_data().expect("sync");
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0, "posix_fadvise");
}

/// A new layer over `origin`, or over nothing.
pub(crate) fn create_layer(path: &Path, chunk: u64, size: u64, origin: Option<&Path>) {
    let chunk = ChunkSize::from_bytes(chunk).expect("a legal chunk size");
    let mut options = CreateOptions::new().chunk_size(chunk).size(size);
    if let Some(origin) = origin {
        options = options.origin(origin.display().to_string(), Format::Raw);
    }
    let _ = fs::remove_file(path);
    Image::create(path, &options).expect("create an image");
}

pub(crate) fn open_layer(path: &Path, direct: bool) -> Image {
    let options = ImageOptions::new()
        .writable(true)
        .direct(direct)
        .origin(OriginChoice::FromImage);
    Image::open(path, &options).expect("open an image")
}
