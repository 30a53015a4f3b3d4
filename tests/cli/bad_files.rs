//! Bad files of every kind to every command: a clear message, the documented exit code, nothing touched.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::harness::{Scratch, content};
use crate::holder::Holder;

/// Commands that open a layer, with `FILE` for it, and what they exit with when they cannot.
const COMMANDS: [(&str, i32); 13] = [
    ("info -f dmsnap FILE", 1),
    ("check FILE", 1),
    ("check -r all FILE", 1),
    ("map FILE", 1),
    ("compare -f dmsnap FILE base.raw", 2),
    ("convert -f dmsnap -O raw FILE out.raw", 1),
    ("snapshot FILE new.dms", 1),
    ("merge FILE", 1),
    ("resize FILE 2M", 1),
    ("amend -b other.raw -F raw FILE", 1),
    ("io FILE -c flush", 1),
    ("dump FILE", 1),
    ("table FILE --origin-dev /dev/loop0 --cow-dev /dev/loop1", 1),
];

/// What makes a file that is no good of the good one.
type Spoil = fn(&Scratch);

/// Runs all commands on a file called `bad` that was made by `spoil`. `expected` replaces the exit code for some.
fn battery(spoil: Spoil, words: &[&str], expected: &[(&str, i32)]) {
    for (command, code) in COMMANDS {
        let scratch = Scratch::new();
        scratch.base_and_layer();
        fs::copy(scratch.path("layer.dms"), scratch.path("bad")).unwrap();
        fs::copy(scratch.path("base.raw"), scratch.path("other.raw")).unwrap();
        spoil(&scratch);
        let special = expected.iter().find(|(name, _)| command.starts_with(name));
        let code = special.map_or(code, |(_, code)| *code);
        let run = scratch.untouched(|| scratch.dmsnap(&command.replace("FILE", "bad")));
        match code {
            0 => _ = run.succeeds(),
            _ if command.starts_with("check") && run.stdout.contains("corruption") => {
                let told = run.exits(code);
                // The rest is advice.
                let word = words.first().unwrap_or(&"offset");
                assert!(told.contains(word), "{command}: no {word:?} in {told}");
            }
            _ => {
                run.fails(code, words);
                assert!(
                    run.stderr.contains("bad"),
                    "{command}: the file is not named: {run:#?}"
                );
            }
        }
    }
}

#[test]
fn test_missing_file() {
    battery(
        |scratch| fs::remove_file(scratch.path("bad")).unwrap(),
        &["No such file"],
        &[],
    );
}

#[test]
fn test_directory() {
    let spoil = |scratch: &Scratch| {
        fs::remove_file(scratch.path("bad")).unwrap();
        fs::create_dir(scratch.path("bad")).unwrap();
    };
    battery(spoil, &["is a directory, not a regular file"], &[]);
}

#[test]
fn test_empty_file() {
    battery(
        |scratch| scratch.write("bad", b""),
        &["not a snapshot store"],
        &[("check", 63)],
    );
}

#[test]
fn test_garbage() {
    battery(
        |scratch| scratch.write("bad", &content(7, 1 << 20)),
        &["SnAp"],
        &[("check", 63)],
    );
}

#[test]
fn test_other_format_is_named() {
    battery(
        |scratch| scratch.poke("bad", 0, b"QFI\xfb"),
        &["qcow2"],
        &[("check", 63)],
    );
}

#[test]
fn test_blank_store() {
    battery(
        |scratch| scratch.poke("bad", 0, &[0; 16]),
        &["not a snapshot store"],
        &[("check", 63)],
    );
}

#[test]
fn test_version_from_the_future() {
    battery(|scratch| scratch.poke("bad", 8, &[2]), &["version 2"], &[]);
}

#[test]
fn test_impossible_chunk_size() {
    battery(
        |scratch| scratch.poke("bad", 12, &[3]),
        &["3 sectors is not a power of two", "offset 12"],
        &[],
    );
}

#[test]
fn test_damaged_descriptor() {
    let spoil = |scratch: &Scratch| scratch.poke("bad", 4096 + 50, &[0xff; 4]);
    battery(
        spoil,
        &["slot 1", "descriptor", "offset 4096", "checksum"],
        &[("check", 2)],
    );
}

#[test]
fn test_record_outside_the_file() {
    let spoil = |scratch: &Scratch| scratch.poke("bad", 16384 + 8, &[0xff, 0xff]);
    let words = [
        "maps chunk 1 to COW chunk 65535, but the file has only 4 whole chunks",
        "offset 16384",
    ];
    battery(spoil, &words, &[("check", 2)]);
}

#[test]
fn test_file_cut_in_the_first_area() {
    let spoil = |scratch: &Scratch| cut(scratch, 20_000);
    let words = [
        "the first metadata area lies outside the file of 20000 bytes",
        "offset 16384",
    ];
    battery(spoil, &words, &[("check", 2)]);
}

#[test]
fn test_file_cut_in_the_data() {
    let spoil = |scratch: &Scratch| cut(scratch, 3 * 16384 + 100);
    let words = ["but the file ends inside that chunk", "offset 16400"];
    battery(spoil, &words, &[("check", 2)]);
}

fn cut(scratch: &Scratch, len: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("bad"))
        .unwrap();
    file.set_len(len).unwrap();
}

#[test]
fn test_invalidated_store_is_refused_with_what_happened_and_what_can_be_done() {
    let spoil = |scratch: &Scratch| scratch.poke("bad", 4, &[0]);
    let words = [
        "snapshot is invalid",
        "run full",
        "create a new layer",
        "if a merge of this layer had begun",
    ];
    battery(spoil, &words, &[("info", 0), ("dump", 0), ("check", 2)]);
}

#[test]
fn test_missing_origin() {
    let spoil = |scratch: &Scratch| {
        fs::rename(scratch.path("base.raw"), scratch.path("moved.raw")).unwrap();
    };
    let scratch = Scratch::new();
    scratch.base_and_layer();
    spoil(&scratch);
    for line in [
        "map layer.dms",
        "io layer.dms -c flush",
        "merge layer.dms",
        "convert -O raw layer.dms out.raw",
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(
            1,
            &[
                "layer.dms",
                "names the origin \"base.raw\", which does not exist",
                "No such file",
                "--origin",
                "amend -b",
            ],
        );
        assert!(!run.stderr.contains("not found in"), "{run:#?}");
    }
    // These need no origin.
    for line in ["info layer.dms", "dump layer.dms", "check layer.dms"] {
        scratch.untouched(|| scratch.dmsnap(line)).succeeds();
    }
    scratch
        .dmsnap("map --origin moved.raw layer.dms")
        .succeeds();
    scratch
        .dmsnap("amend -b moved.raw -F raw layer.dms")
        .succeeds();
    scratch.dmsnap("map layer.dms").succeeds();
}

#[test]
fn test_origin_with_another_uuid_is_refused_unless_forced() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot layer.dms top.dms").succeeds();
    scratch
        .dmsnap("create -b base.raw -F raw other.dms")
        .succeeds();
    let line = "map --origin other.dms --origin-format dmsnap top.dms";
    scratch
        .untouched(|| scratch.dmsnap(line))
        .fails(1, &["top.dms", "UUID", "--ignore-origin-uuid"]);
    scratch
        .dmsnap(&format!("{line} --ignore-origin-uuid"))
        .succeeds();
}

#[test]
fn test_chain_that_names_itself() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot layer.dms top.dms").succeeds();
    // By way of a file that is not there yet.
    scratch
        .dmsnap("create -q -u -b top.dms -F dmsnap next.dms 1049088")
        .succeeds();
    fs::rename(scratch.path("next.dms"), scratch.path("layer.dms")).unwrap();
    for line in [
        "map --ignore-origin-uuid top.dms",
        "convert --ignore-origin-uuid -f dmsnap -O raw top.dms out.raw",
        "io --ignore-origin-uuid top.dms -c flush",
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(1, &["top.dms", "twice", "impossible chain"]);
        assert!(!run.stderr.contains("too deep"), "{run:#?}");
    }
}

#[test]
fn test_merge_into_an_origin_of_another_size_is_refused() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("wrong.raw", &content(9, 3 << 19));
    let line = "merge --origin wrong.raw layer.dms";
    scratch.untouched(|| scratch.dmsnap(line)).fails(
        1,
        &[
            "layer.dms",
            "wrong.raw",
            "1572864",
            "1049088",
            "--ignore-origin-uuid",
        ],
    );
    scratch
        .dmsnap(&format!("{line} --ignore-origin-uuid"))
        .succeeds();
    assert_eq!(scratch.read("wrong.raw")[20 << 10..][..512], [0x11; 512]);
}

#[test]
fn test_merge_that_was_stopped_after_the_origin_grew_goes_on() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("resize -q layer.dms 2M").succeeds();
    let base = fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("base.raw"))
        .unwrap();
    base.set_len(2 << 20).unwrap();
    scratch.dmsnap("merge -q layer.dms").succeeds();
    assert_eq!(scratch.read("base.raw")[20 << 10..][..512], [0x11; 512]);
}

#[test]
fn test_backings_that_only_qemu_knows() {
    let scratch = Scratch::new();
    for name in ["json:{\"driver\":\"raw\"}", "nbd://host/disk"] {
        let args = ["create", "-u", "-b", name, "-F", "raw", "layer.dms", "1M"];
        scratch.run(&args).succeeds();
        scratch
            .untouched(|| scratch.dmsnap("map layer.dms"))
            .fails(1, &["layer.dms", "only files can be opened"]);
        let args = ["create", "-b", name, "-F", "raw", "layer2.dms"];
        scratch
            .untouched(|| scratch.run(&args))
            .fails(1, &["only files can be opened"]);
    }
}

#[test]
fn test_locked_by_qemu() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    fs::copy(scratch.path("base.raw"), scratch.path("bad")).unwrap();
    fs::copy(scratch.path("layer.dms"), scratch.path("bad")).unwrap();
    fs::copy(scratch.path("base.raw"), scratch.path("other.raw")).unwrap();
    let holder = Holder::of(&scratch.path("bad"));
    for (command, code) in COMMANDS {
        let run = scratch.untouched(|| scratch.dmsnap(&command.replace("FILE", "bad")));
        match command.split(' ').next() {
            Some("info") => _ = run.succeeds(),
            _ => run.fails(code, &["bad", "busy"]),
        }
    }
    // Nor may it be overwritten.
    for command in [
        "create bad 1M",
        "convert -O raw base.raw bad",
        "convert -O dmsnap -B base.raw -F raw base.raw bad",
    ] {
        scratch
            .untouched(|| scratch.dmsnap(command))
            .fails(1, &["bad", "busy"]);
    }
    // Readers may be told not to mind.
    for command in [
        "map -U bad",
        "check -U bad",
        "dump -U bad",
        "compare -U bad layer.dms",
        "io -r -U bad -c length",
    ] {
        scratch.untouched(|| scratch.dmsnap(command)).succeeds();
    }
    drop(holder);
    scratch.dmsnap("check bad").succeeds();
}

#[test]
fn test_locked_origin() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let _holder = Holder::of(&scratch.path("base.raw"));
    for command in [
        "map layer.dms",
        "merge layer.dms",
        "io layer.dms -c flush",
        "create -b base.raw -F raw new.dms",
    ] {
        scratch
            .untouched(|| scratch.dmsnap(command))
            .fails(1, &["base.raw", "busy"]);
    }
}

/// Descriptors that contradict the file are found by the library; here: nothing of a FIFO or device is ever waited for.
#[test]
fn test_fifo_is_not_waited_for() {
    let scratch = Scratch::new();
    let made = Command::new("mkfifo")
        .arg(scratch.path("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    for line in [
        "check fifo",
        "map fifo",
        "dump fifo",
        "info fifo",
        "convert -O raw fifo out",
        "create fifo 1M",
    ] {
        scratch.dmsnap(line).fails(1, &["fifo"]);
    }
}

#[test]
fn test_stale_slots_are_repaired_not_feared() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(scratch.path("layer.dms"))
        .unwrap();
    file.write_all_at(&[9; 16], 16384 + 16 * 5).unwrap();
    let run = scratch.untouched(|| scratch.dmsnap("check layer.dms"));
    assert!(run.exits(3).contains("repairable"), "{run:#?}");
    scratch.dmsnap("check -r leaks layer.dms").exits(3);
    scratch.dmsnap("check -r all layer.dms").succeeds();
    scratch
        .untouched(|| scratch.dmsnap("check layer.dms"))
        .succeeds();
    scratch
        .io(
            "layer.dms",
            &["read -P 0x11 20k 512", "read -P 0x22 1M 512"],
        )
        .succeeds();
}
