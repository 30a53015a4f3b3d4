//! Merging and converting, against copying the same bytes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dmsnap::{CowChunk, OriginChunk};

use crate::files::{
    Directory, GIB, KIB, MIB, Random, create_layer, create_raw, fill_raw, open_layer, open_raw,
    settle, timed,
};
use crate::harness::{Aim, Table, Turns, Unit};

const MERGE_RANDOM: &str = "merge, 512 MiB in random chunks of 16 KiB";
const MERGE_RUNS: &str = "merge, 512 MiB in one run";
const TO_LAYER: &str = "convert -f raw -O dmsnap, fsync";
const TO_RAW: &str = "convert -f dmsnap -O raw, fsync";

const CHUNK: u64 = 16 * KIB;
const MERGED: u64 = 512 * MIB;

pub(crate) fn run(table: &mut Table) {
    let merges = [MERGE_RANDOM, MERGE_RUNS];
    let heading = "Merge, against pread + pwrite of the same bytes in the order of the origin, fdatasync, ftruncate";
    if table.section(heading, &merges) {
        let mut random = Random::new(3);
        let mut chunks = random.permutation(GIB / CHUNK);
        chunks.truncate((MERGED / CHUNK) as usize);
        merge(table, MERGE_RANDOM, &chunks);
        let chunks: Vec<u64> = (0..MERGED / CHUNK).collect();
        merge(table, MERGE_RUNS, &chunks);
    }
    let heading =
        "Tool, against cp --sparse=always, fsync (1 GiB, half of it data, a quarter written zeros)";
    if table.section(heading, &[TO_LAYER, TO_RAW]) {
        convert(table);
    }
}

/// Exceptions for these chunks, in this order.
fn merge(table: &mut Table, name: &str, chunks: &[u64]) {
    if !table.wants_any(&[name]) {
        return;
    }
    let directory = Directory::new("merge");
    let (origin, kept) = (directory.file("origin"), directory.file("kept"));
    fill_raw(&create_raw(&origin), GIB, MIB);
    create_layer(&kept, CHUNK, GIB, Some(&origin));
    let image = open_layer(&kept, false);
    let buf = vec![0x77; CHUNK as usize];
    for chunk in chunks {
        image.write(&buf, chunk * CHUNK).expect("write");
    }
    let runs = image.exceptions();
    image.close().expect("close");
    let work = directory.file("work");
    let fresh = || {
        fs::copy(&kept, &work).expect("copy a layer");
        open_raw(&work, false).sync_all().expect("sync");
    };
    table.compare(
        name,
        Aim::None,
        Unit::Rate(MERGED),
        Turns::rounds(5),
        |_| {
            fresh();
            let time = copy_runs(&work, &origin, &runs);
            settle(&work);
            time
        },
        |_| {
            fresh();
            let image = open_layer(&work, false);
            let time = timed(|| image.merge(&mut |_| true).expect("merge"));
            image.close().expect("close");
            settle(&work);
            time
        },
    );
}

/// What a plain program would do that knows where everything is, and gives the space back as a merge does.
fn copy_runs(cow: &Path, origin: &Path, runs: &[(OriginChunk, CowChunk, u64)]) -> Duration {
    let (cow, origin) = (open_raw(cow, false), open_raw(origin, false));
    let mut buf = vec![0; MIB as usize];
    timed(|| {
        for (old, new, count) in runs {
            let (from, to, len) = (new.0 * CHUNK, old.0 * CHUNK, count * CHUNK);
            for done in (0..len).step_by(MIB as usize) {
                let piece = &mut buf[..MIB.min(len - done) as usize];
                cow.read_exact_at(piece, from + done).expect("read");
                origin.write_all_at(piece, to + done).expect("write");
            }
        }
        origin.sync_data().expect("sync");
        cow.set_len(0).expect("cut");
        cow.sync_data().expect("sync");
    })
}

fn convert(table: &mut Table) {
    const PIECE: u64 = 256 * KIB;
    let directory = Directory::new("convert");
    let raw = directory.file("raw");
    let file = create_raw(&raw);
    file.set_len(GIB).expect("set size");
    for offset in (0..GIB).step_by(PIECE as usize) {
        // Data, a hole, data, written zeros.
        let byte = match offset / PIECE % 4 {
            1 => continue,
            3 => 0,
            _ => 0x3c,
        };
        file.write_all_at(&vec![byte; PIECE as usize], offset)
            .expect("write");
    }
    file.sync_all().expect("sync");
    let layer = directory.file("layer");
    tool(&["convert", "-f", "raw", "-O", "dmsnap"], &raw, &layer);
    let target = directory.file("target");
    let ours = |source: &Path, formats: [&str; 4]| {
        let [f, from, o, to] = formats;
        let time = timed(|| tool(&["convert", f, from, o, to], source, &target));
        settle(&target);
        time
    };
    let plain = |_| {
        let time = timed(|| {
            command("cp", &["--sparse=always"], &raw, &target);
            open_raw(&target, false).sync_all().expect("sync");
        });
        settle(&target);
        time
    };
    table.compare(
        TO_LAYER,
        Aim::None,
        Unit::Whole,
        Turns::rounds(5),
        plain,
        |_| ours(&raw, ["-f", "raw", "-O", "dmsnap"]),
    );
    table.compare(
        TO_RAW,
        Aim::None,
        Unit::Whole,
        Turns::rounds(5),
        plain,
        |_| ours(&layer, ["-f", "dmsnap", "-O", "raw"]),
    );
}

fn tool(arguments: &[&str], source: &Path, target: &Path) {
    command(env!("CARGO_BIN_EXE_dmsnap"), arguments, source, target);
}

fn command(program: &str, arguments: &[&str], source: &Path, target: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .args([source, target])
        .stdout(Stdio::null())
        .status()
        .expect("run a program");
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
