//! Commands of the tool that are to survive every fault, and what may become of their files.

use crate::harness::{SIZE, Scratch, content};

/// A command in a directory of its own.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) args: &'static [&'static str],
    /// Makes the files.
    pub(crate) prepare: fn(&Scratch),
    /// The file that appears, complete, or not at all. What was there before stays until then.
    pub(crate) makes: Option<&'static str>,
    /// Files whose bytes may change. Each shows what it showed before or what it shows after success, byte by byte.
    pub(crate) changes: &'static [&'static str],
    /// Exit codes of a failure.
    pub(crate) codes: &'static [i32],
    /// The file below the one that is made, if that may lack what cannot be read: exit code 2.
    pub(crate) below: Option<&'static str>,
}

/// A base, a layer, and another one on top.
fn chain(scratch: &Scratch) {
    scratch.base_and_layer();
    scratch
        .dmsnap("snapshot -q -o chunk_size=4K layer.dms top.dms")
        .succeeds();
    scratch
        .io(
            "top.dms",
            &["write -q -P 0x33 10k 30k", "write -q -P 0x34 700k 5k"],
        )
        .succeeds();
}

fn two_raw(scratch: &Scratch) {
    scratch.base_and_layer();
    let mut other = content(1, SIZE);
    other[300 << 10..][..70_000].fill(0x44);
    scratch.write("source.raw", &other);
    scratch.write("old.dms", b"what was there before");
}

/// A layer with a chunk that occupies space and that no record names.
fn leaky(scratch: &Scratch) {
    scratch.base_and_layer();
    scratch
        .io(
            "layer.dms",
            &["write -q -P 0x55 64k 64k", "discard -q 64k 16k"],
        )
        .succeeds();
    // What a kernel's crash leaves: the chunk has content, its record is gone.
    let bytes = scratch.read("layer.dms");
    let chunk = 16 << 10;
    let entry = |index: usize| chunk + 16 * index;
    let count = (0..chunk / 16)
        .take_while(|&index| {
            bytes[entry(index)..entry(index) + 16]
                .iter()
                .any(|&byte| byte != 0)
        })
        .count();
    let last = bytes[entry(count - 1)..entry(count)].to_vec();
    scratch.poke("layer.dms", entry(count - 3) as u64, &last);
}

/// A layer that a kernel gave up.
fn invalidated(scratch: &Scratch) {
    scratch.base_and_layer();
    scratch.poke("layer.dms", 4, &[0]);
}

/// The same, and its metadata as they were.
fn dumped(scratch: &Scratch) {
    scratch.base_and_layer();
    let dump = scratch.dmsnap("dump --raw --output json layer.dms");
    scratch.write("meta.json", dump.succeeds().as_bytes());
    scratch.poke("layer.dms", 4, &[0]);
    scratch.poke("layer.dms", 16 << 10, &[0xff; 100]);
}

/// What a scenario is unless it says something else: a command on a chain that only reads.
const CHANGES_NOTHING: Scenario = Scenario {
    name: "",
    args: &[],
    prepare: chain,
    makes: None,
    changes: &[],
    codes: &[1],
    below: None,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create raw",
        args: &["create", "-f", "raw", "new.raw", "1M"],
        makes: Some("new.raw"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "create",
        args: &["create", "-b", "layer.dms", "-F", "dmsnap", "new.dms", "2M"],
        makes: Some("new.dms"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "create over an old file",
        args: &["create", "-b", "base.raw", "-F", "raw", "old.dms"],
        prepare: two_raw,
        makes: Some("old.dms"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "convert to raw",
        args: &["convert", "-O", "raw", "top.dms", "new.raw"],
        makes: Some("new.raw"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "convert to a layer over an old file",
        args: &[
            "convert",
            "-O",
            "dmsnap",
            "-B",
            "base.raw",
            "-F",
            "raw",
            "source.raw",
            "old.dms",
        ],
        prepare: two_raw,
        makes: Some("old.dms"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "convert to a whole layer",
        args: &[
            "convert",
            "-O",
            "dmsnap",
            "-o",
            "chunk_size=64K",
            "top.dms",
            "new.dms",
        ],
        makes: Some("new.dms"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "snapshot",
        args: &["snapshot", "top.dms", "new.dms"],
        makes: Some("new.dms"),
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "write",
        args: &[
            "io",
            "top.dms",
            "-c",
            "write -f -P 0x61 0 8k",
            "-c",
            "write -f -P 0x62 511k 70000",
            "-c",
            "write -P 0x63 100k 1",
            "-c",
            "writez -u 32k 20k",
            "-c",
            "flush",
            "-c",
            "writez -f 200k 17k",
            "-c",
            "write -P 0x64 900k 30k",
        ],
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "write past the page cache",
        args: &[
            "io",
            "-n",
            "layer.dms",
            "-c",
            "write -f -P 0x61 1000 9000",
            "-c",
            "write -P 0x63 100k 1",
            "-c",
            "writez -u 20k 20k",
            "-c",
            "write -P 0x64 1M 512",
        ],
        prepare: Scratch::base_and_layer,
        changes: &["layer.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "discard",
        args: &[
            "io",
            "top.dms",
            "-c",
            "discard 0 64k",
            "-c",
            "discard 700k 100k",
        ],
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "grow",
        args: &["resize", "top.dms", "3M"],
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "shrink",
        args: &["resize", "--shrink", "top.dms", "24K"],
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "merge into a raw image",
        args: &["merge", "layer.dms"],
        prepare: Scratch::base_and_layer,
        changes: &["layer.dms", "base.raw"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "merge into a layer",
        args: &["merge", "top.dms"],
        changes: &["top.dms", "layer.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "amend",
        args: &["amend", "-b", "./layer.dms", "-F", "dmsnap", "top.dms"],
        changes: &["top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "check",
        args: &["check", "top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "repair",
        args: &["check", "-r", "all", "layer.dms"],
        prepare: leaky,
        changes: &["layer.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "compare",
        args: &["compare", "top.dms", "top.dms"],
        codes: &[2, 3, 4],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "map",
        args: &["map", "--output", "json", "top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "info",
        args: &["info", "--backing-chain", "--output", "json", "top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "dump",
        args: &["dump", "--output", "json", "top.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "table",
        args: &[
            "table",
            "--origin-dev",
            "/dev/loop0",
            "--cow-dev",
            "/dev/loop1",
            "layer.dms",
        ],
        prepare: Scratch::base_and_layer,
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "recover",
        args: &["recover", "layer.dms", "new.dms"],
        prepare: invalidated,
        makes: Some("new.dms"),
        below: Some("base.raw"),
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "recover in place",
        args: &["recover", "--in-place", "layer.dms"],
        prepare: invalidated,
        changes: &["layer.dms"],
        ..CHANGES_NOTHING
    },
    Scenario {
        name: "restore",
        args: &["restore", "meta.json", "layer.dms"],
        prepare: dumped,
        changes: &["layer.dms"],
        ..CHANGES_NOTHING
    },
];
