//! Little memory, and files and arguments that ask for much: an error or the work done, never an abort.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Mutex;

use crate::budget::count;
use crate::full::limited;
use crate::harness::{Run, Scratch};
use crate::parallel::for_each;

const GIB: u64 = 1 << 30;

/// A sparse file with a header for chunks of so many bytes, and areas full of records for the first `count` exceptions.
fn store(scratch: &Scratch, name: &str, chunk: u64, count: u64, size: u64) {
    let mut header = b"SnAp".to_vec();
    header.extend(
        [1u32, 1, (chunk / 512) as u32]
            .map(u32::to_le_bytes)
            .concat(),
    );
    let file = fs::File::create(scratch.path(name)).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&header, 0).unwrap();
    let per_area = chunk / 16;
    for area in 0..count.div_ceil(per_area) {
        let first = area * per_area;
        let records = (first..count.min(first + per_area)).flat_map(|index| {
            // No two of them in one run, whichever way one looks; the data behind the area.
            let old = index.wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
            let new = 2 + area * (per_area + 1) + (index * 7 + 3) % per_area;
            [old, new].map(u64::to_le_bytes).concat()
        });
        let at = (1 + area * (per_area + 1)) * chunk;
        file.write_all_at(&records.collect::<Vec<u8>>(), at)
            .unwrap();
    }
}

/// The least megabytes of address space with which the tool starts at all: below that nothing of it is tested.
fn least_megabytes() -> u64 {
    let scratch = Scratch::fast();
    let starts = |megabytes: &u64| {
        let run = limited(
            &scratch,
            &format!("--as={}", megabytes << 20),
            &["--version"],
        );
        run.code == 0
    };
    (1..64).find(starts).expect("64 MiB are enough to start")
}

/// How many runs of each command succeeded, and how many told that they lacked memory.
#[derive(Default)]
struct Endings(Mutex<BTreeMap<String, [u32; 2]>>);

impl Endings {
    /// `code` is that of a run with all the memory there is.
    fn add(&self, args: &[&str], run: &Run, code: i32) {
        let lacked = run.code == 1 && run.stderr.contains("no memory for");
        let mut all = self.0.lock().unwrap();
        let [succeeded, told] = all.entry(args.join(" ")).or_default();
        *succeeded += u32::from(run.code == code);
        *told += u32::from(lacked);
    }

    fn assert_all_succeed_somewhere(&self) {
        for (args, [succeeded, _]) in &*self.0.lock().unwrap() {
            assert!(*succeeded > 0, "no limit let this succeed: {args}");
        }
    }

    fn assert_all_lack_memory_somewhere(&self) {
        for (args, [_, told]) in &*self.0.lock().unwrap() {
            assert!(*told > 0, "no limit was too little for this: {args}");
        }
    }
}

/// Ended by itself, and not for want of memory that a file or a caller asked for.
fn assert_survived(run: &Run, what: &str) {
    // The loader's or prlimit's, so the tool has not run.
    assert!(![126, 127].contains(&run.code), "{what}: {run:#?}");
    assert!(!run.stderr.contains("panicked"), "{what}: {run:#?}");
    let aborted = run.stderr.split("memory allocation of ").nth(1);
    let bytes = aborted.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    if let Some(bytes) = bytes {
        // A program without room for its own small needs cannot even say so.
        assert!(bytes <= 4096, "{what}: {run:#?}");
        return;
    }
    assert!(run.code >= 0, "{what}: {run:#?}");
    if run.code == 1 {
        assert!(run.stderr.starts_with("dmsnap: "), "{what}: {run:#?}");
    }
}

const READERS: [&[&str]; 6] = [
    &["info", "--no-origin", "--disk-size", "1T", "x.dms"],
    &["check", "x.dms"],
    &["check", "-r", "all", "x.dms"],
    &[
        "map",
        "--no-origin",
        "--disk-size",
        "1T",
        "-s",
        "1G",
        "-l",
        "9M",
        "x.dms",
    ],
    &["dump", "--output", "json", "x.dms"],
    &[
        "io",
        "--no-origin",
        "--disk-size",
        "1T",
        "x.dms",
        "-c",
        "read 5G 70000",
        "-c",
        "write 6G 70000",
        "-c",
        "flush",
        "-c",
        "discard 0 20G",
        "-c",
        "writez 7G 3G",
    ],
];

/// The largest chunks there are, in a file without content.
#[test]
fn test_huge_chunks_need_no_huge_memory() {
    let mut jobs = Vec::new();
    for chunk in [1 << 20, GIB, 2 * GIB, 512 << 31] {
        for args in READERS {
            jobs.push((chunk, args));
        }
    }
    let endings = Endings::default();
    for_each(&jobs, |&(chunk, args)| {
        let scratch = Scratch::fast();
        let make = || store(&scratch, "x.dms", chunk, 1, (4 * chunk).min(1 << 42));
        make();
        let free = scratch.run(args);
        make();
        let run = limited(&scratch, "--as=160000000", args);
        assert_survived(&run, &format!("chunks of {chunk}"));
        endings.add(args, &run, free.code);
    });
    endings.assert_all_succeed_somewhere();
    count("faults", "memory-limits", jobs.len() as u64);
}

/// Another directory with the same store.
fn sparse_copy(made: &Scratch) -> Scratch {
    let copy = Scratch::fast();
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always"])
        .args([made.path("x.dms"), copy.path("x.dms")]);
    assert!(cp.status().unwrap().success(), "{cp:?}");
    copy
}

/// Many exceptions, with less and less memory for them.
#[test]
fn test_memory_for_exceptions_may_end_anywhere() {
    let made = Scratch::fast();
    // 4 MiB of records, and as many holes between their chunks.
    store(&made, "x.dms", 4096, 1 << 18, 2 << 30);
    let codes = READERS.map(|args| sparse_copy(&made).run(args).code);
    let least = least_megabytes();
    let mut jobs = Vec::new();
    for (args, code) in READERS.into_iter().zip(codes) {
        for megabytes in (least..64).step_by(3) {
            jobs.push((megabytes, args, code));
        }
    }
    let endings = Endings::default();
    for_each(&jobs, |&(megabytes, args, code)| {
        // Of its own: some of them write.
        let scratch = sparse_copy(&made);
        let run = limited(&scratch, &format!("--as={}", megabytes << 20), args);
        assert_survived(&run, &format!("{megabytes} MiB: {args:?}"));
        endings.add(args, &run, code);
    });
    endings.assert_all_succeed_somewhere();
    endings.assert_all_lack_memory_somewhere();
    count("faults", "memory-limits", jobs.len() as u64);
}

const RECOVERIES: [&[&str]; 4] = [
    &["recover", "-q", "--size", "1T", "x.dms", "new.dms"],
    &["recover", "-q", "--in-place", "x.dms"],
    &["dump", "--raw", "--all-areas", "--output", "json", "x.dms"],
    &["restore", "-q", "--overwrite", "meta.json", "x.dms"],
];

/// A store to recover, and its metadata in a file.
fn dumped_store(scratch: &Scratch, chunk: u64, count: u64, size: u64) {
    store(scratch, "x.dms", chunk, count, size);
    let dump = scratch.dmsnap("dump --raw --output json x.dms");
    scratch.write("meta.json", dump.succeeds().as_bytes());
}

/// Huge chunks, and many exceptions with less and less memory for them, in what is recovered and restored.
#[test]
fn test_recovering_needs_no_huge_memory() {
    let least = least_megabytes();
    let mut jobs = Vec::new();
    for args in RECOVERIES {
        for chunk in [1 << 20, GIB] {
            jobs.push((args, chunk, 1, 160 << 20));
        }
        for megabytes in (least..50).step_by(4) {
            // Of what is copied there is no more than a few blocks.
            let count = if args.contains(&"new.dms") {
                1 << 12
            } else {
                1 << 16
            };
            jobs.push((args, 4096, count, megabytes << 20));
        }
    }
    let endings = Endings::default();
    for_each(&jobs, |&(args, chunk, count, limit)| {
        let scratch = Scratch::fast();
        let chunks = 4 + count * 2;
        dumped_store(&scratch, chunk, count, chunks * chunk);
        let run = limited(&scratch, &format!("--as={limit}"), args);
        assert_survived(
            &run,
            &format!("{count} chunks of {chunk}, {limit}: {args:?}"),
        );
        let made = args.contains(&"new.dms") && run.code != 1;
        assert_eq!(scratch.path("new.dms").exists(), made, "{args:?}: {run:#?}");
        // What is recovered here is all there is.
        endings.add(args, &run, 0);
    });
    endings.assert_all_succeed_somewhere();
    count("faults", "memory-limits", jobs.len() as u64);
}

/// Sizes that somebody types, and those in a descriptor.
#[test]
fn test_huge_sizes_need_no_huge_memory() {
    let scratch = Scratch::fast();
    scratch
        .dmsnap("create -q -o chunk_size=64K huge.dms 4E")
        .succeeds();
    let lines = [
        "io huge.dms -c length",
        "io huge.dms -c status",
        "map huge.dms",
        "info huge.dms",
        "check huge.dms",
        "resize huge.dms 5E",
        "snapshot huge.dms top.dms",
        "compare huge.dms huge.dms",
        "convert -O dmsnap huge.dms copy.dms",
    ];
    let commands = [
        "write 3E 100000",
        "writez 1E 1T",
        "discard 0 4E",
        "read -P 0 -s 1 -l 3 3E 70000",
        "read -P 0 -s 4E 0 4",
        "read 4E 4E",
        "truncate 100T",
        "truncate 0",
    ];
    let io = commands.map(|command| vec!["io", "huge.dms", "-c", command]);
    let lines = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    for args in io.iter().chain(&lines) {
        let run = limited(&scratch, "--as=200000000", args);
        assert_survived(&run, &format!("{args:?}"));
    }
    count("faults", "memory-limits", (io.len() + lines.len()) as u64);
}
