//! The golden files: stores made by a stock kernel, and what the kernel says about them.
//!
//! `tests/golden/index.tsv` lists them. Origins that nothing wrote to are not stored: a seed makes
//! them. `tests/golden/README.md` tells how all of it is made again.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::pattern;

/// A kernel-made store with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Golden {
    pub(crate) name: String,
    /// Sectors per chunk.
    pub(crate) chunk: u32,
    pub(crate) origin: Vec<u8>,
    pub(crate) cow: Vec<u8>,
    /// SHA-256 of the snapshot device in lower-case hexadecimal digits; `None` if the snapshot is
    /// invalid and cannot be read.
    pub(crate) view: Option<String>,
    /// The status of the snapshot when it is loaded from the file.
    pub(crate) status: String,
    /// The status it had when the kernel was done with it: may be `Overflow` or `Merge failed`.
    pub(crate) live_status: String,
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All golden stores, in the order of the index.
pub(crate) fn all() -> Vec<Golden> {
    lines().iter().map(|line| read(line)).collect()
}

/// The golden store of this name.
pub(crate) fn named(name: &str) -> Golden {
    let lines = lines();
    let line = lines
        .iter()
        .find(|line| line.split('\t').next() == Some(name));
    read(line.expect("a golden store of that name"))
}

fn lines() -> Vec<String> {
    let index = fs::read_to_string(directory().join("index.tsv")).expect("the index");
    let lines = index.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn read(line: &str) -> Golden {
    let columns: Vec<&str> = line.split('\t').collect();
    let [name, chunk, origin, sectors, status, live_status, view] = columns[..] else {
        panic!("not seven columns: {line}");
    };
    let sectors = sectors.parse().expect("sectors of the origin");
    Golden {
        name: name.into(),
        chunk: chunk.parse().expect("a chunk size"),
        origin: match origin.strip_prefix("seed ") {
            Some(seed) => pattern::sectors(seed.parse().expect("a seed"), 0, sectors),
            None => unpack(origin),
        },
        cow: unpack(&format!("{name}.cow.gz")),
        view: (view != "unreadable").then(|| view.into()),
        status: status.into(),
        live_status: live_status.into(),
    }
}

fn unpack(file: &str) -> Vec<u8> {
    let packed = fs::read(directory().join(file)).expect(file);
    let mut content = Vec::new();
    GzDecoder::new(packed.as_slice())
        .read_to_end(&mut content)
        .expect(file);
    content
}
