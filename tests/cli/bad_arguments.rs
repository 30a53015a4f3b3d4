//! Bad arguments: found before anything is touched. And names in images that must not be followed.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Scratch, content};

#[test]
fn test_offsets_past_the_end() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    for command in [
        "write 1M 1k",
        "read 1M 513",
        "discard 2M 1",
        "writez 1M 1k",
        "read 2M 0",
    ] {
        let run = scratch.untouched(|| scratch.io("layer.dms", &[command]));
        run.fails(1, &["layer.dms", "1049088"]);
    }
    scratch
        .untouched(|| scratch.dmsnap("map -s 2M layer.dms"))
        .fails(1, &["layer.dms", "1049088"]);
    scratch
        .untouched(|| scratch.dmsnap("resize --shrink layer.dms -2M"))
        .fails(1, &["layer.dms", "1049088"]);
    scratch
        .untouched(|| scratch.dmsnap("resize layer.dms 512k"))
        .fails(1, &["layer.dms", "--shrink"]);
}

#[test]
fn test_io_finds_slips_before_it_writes() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let run =
        scratch.untouched(|| scratch.io("layer.dms", &["write -P 1 0 512", "wirte -P 2 0 512"]));
    run.fails(1, &["wirte", "no such command"]);
}

#[test]
fn test_io_failures_show_in_the_exit_code_and_do_not_stop_what_follows() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let run = scratch.io(
        "layer.dms",
        &["read -P 0x12 20k 512", "read -P 0x11 20k 512"],
    );
    run.fails(
        1,
        &["layer.dms: pattern verification failed at offset 20480: found 0x11, expected 0x12"],
    );
    assert_eq!(run.stdout, "read 512/512 bytes at offset 20480\n");
    scratch
        .untouched(|| scratch.dmsnap("io -r layer.dms -c length"))
        .succeeds();
    let run = scratch.untouched(|| scratch.run(&["io", "-r", "layer.dms", "-c", "write 0 512"]));
    run.fails(1, &["layer.dms", "read-only"]);
}

#[test]
fn test_create_checks_everything_before_it_touches_a_file() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("old", b"precious");
    scratch.write("bad.dms", &content(3, 100_000));
    fs::create_dir(scratch.path("directory")).unwrap();
    symlink("nowhere/file", scratch.path("dangling")).unwrap();
    for (line, word) in [
        ("create old", "needs a size"),
        ("create -b missing.raw -F raw old", "missing.raw"),
        ("create -b base.raw old", "-F raw or -F dmsnap"),
        ("create -F raw old", "-b"),
        ("create -b bad.dms -F dmsnap old", "bad.dms"),
        (
            "create -b base.raw -F raw base.raw",
            "cannot be overwritten",
        ),
        (
            "create -b layer.dms -F dmsnap base.raw",
            "cannot be overwritten",
        ),
        ("create -o chunk_size=3k old 1M", "power of two"),
        ("create -o chunk_size=512 old 1M", "512 bytes have no room"),
        ("create -o chunk_size=2G old 1M", "power of two"),
        ("create --bare old 1M", "--bare"),
        ("create -o colour=red old 1M", "chunk_size"),
        ("create -o size=1M old 1M", "twice"),
        ("create -u -b gone -F raw old", "-u needs"),
        ("create -f raw old", "size"),
        ("create -f raw -b base.raw -F raw old 1M", "no backing"),
        ("create directory 1M", "directory"),
        ("create nowhere/new 1M", "nowhere"),
        ("create new/ 1M", "name of a file"),
        ("create dangling 1M", "nowhere"),
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(1, &[word]);
    }
    let long = "x".repeat(1100);
    let run =
        scratch.untouched(|| scratch.run(&["create", "-u", "-b", &long, "-F", "raw", "old", "1M"]));
    run.fails(1, &["1023"]);
}

#[test]
fn test_convert_checks_everything_before_it_touches_a_file() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("old", b"precious");
    scratch.write(
        "foreign",
        &[b"QFI\xfb".as_slice(), &content(5, 4096)].concat(),
    );
    scratch.write(
        "bad",
        &[b"SnAp\x01\0\0\0\x01\0\0\0\x03\0\0\0".as_slice(), &[0; 4096]].concat(),
    );
    for (line, word) in [
        ("convert -O raw missing old", "missing"),
        ("convert -O raw foreign old", "qcow2"),
        ("convert -O raw bad old", "power of two"),
        ("convert -f dmsnap -O raw base.raw old", "base.raw"),
        (
            "convert -O raw -o chunk_size=4k base.raw old",
            "raw image has",
        ),
        (
            "convert -O raw -B base.raw -F raw layer.dms old",
            "raw image has",
        ),
        (
            "convert -O dmsnap -B base.raw layer.dms old",
            "-F raw or -F dmsnap",
        ),
        (
            "convert -O dmsnap -B missing.raw -F raw layer.dms old",
            "missing.raw",
        ),
        ("convert -O dmsnap -o size=1M layer.dms old", "size"),
        (
            "convert -O dmsnap -o chunk_size=5k layer.dms old",
            "power of two",
        ),
        (
            "convert -O raw --origin base.raw base.raw old",
            "raw image lies over nothing",
        ),
        (
            "convert -O raw layer.dms layer.dms",
            "cannot be overwritten",
        ),
        (
            "convert -O dmsnap -B base.raw -F raw layer.dms base.raw",
            "cannot be overwritten",
        ),
        ("convert -O raw layer.dms base.raw", "base.raw"),
        // However it is read, what lies below it is needed.
        (
            "convert -U -O raw layer.dms base.raw",
            "cannot be overwritten",
        ),
        ("convert -O raw layer.dms nowhere/out", "nowhere"),
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(1, &[word]);
    }
}

/// A guest can write a header and a descriptor into its raw disk. A tool that guessed the format and followed the name would show it
/// any file.
#[test]
fn test_names_in_a_guessed_layer_are_followed_inside_its_directory_only() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let absolute = scratch.path("base.raw").display().to_string();
    fs::create_dir(scratch.path("inner")).unwrap();
    for name in [absolute.as_str(), "../base.raw"] {
        scratch
            .run(&["create", "-b", name, "-F", "raw", "inner/disk"])
            .succeeds();
        for (line, code) in [
            ("convert -O raw inner/disk out.raw", 1),
            ("compare inner/disk base.raw", 2),
            ("info --backing-chain inner/disk", 1),
        ] {
            let run = scratch.untouched(|| scratch.dmsnap(line));
            run.fails(
                code,
                &["inner/disk", name, "-f dmsnap", "-f raw", "--origin"],
            );
        }
        scratch.dmsnap("info inner/disk").succeeds();
        scratch
            .dmsnap("compare -f dmsnap inner/disk base.raw")
            .succeeds();
        scratch
            .dmsnap("info --backing-chain -f dmsnap inner/disk")
            .succeeds();
        scratch
            .dmsnap("compare --origin base.raw inner/disk base.raw")
            .succeeds();
        // A command that works on layers only was not guessing.
        scratch.dmsnap("map inner/disk").succeeds();
    }
    // Nor deeper down.
    scratch
        .dmsnap("create -b disk -F dmsnap inner/top")
        .succeeds();
    scratch
        .dmsnap("compare inner/top base.raw")
        .fails(2, &["inner/top", "inner/disk", "../base.raw"]);
    fs::copy(scratch.path("base.raw"), scratch.path("inner/base.raw")).unwrap();
    scratch
        .dmsnap("amend -b base.raw -F raw inner/disk")
        .succeeds();
    scratch.dmsnap("compare inner/top base.raw").succeeds();
}

#[test]
fn test_origin_taken_for_raw_by_mistake() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot layer.dms top.dms").succeeds();
    scratch
        .dmsnap("map --origin layer.dms top.dms")
        .fails(1, &["layer.dms", "--origin-format"]);
    scratch
        .dmsnap("map --origin layer.dms --origin-format dmsnap top.dms")
        .succeeds();
    scratch
        .dmsnap("map --origin layer.dms --origin-format dmsnap --origin base.raw --origin-format raw top.dms")
        .succeeds();
    scratch
        .dmsnap("map --origin base.raw --origin layer.dms --origin-format raw --origin-format dmsnap top.dms")
        .fails(1, &["base.raw", "nothing below"]);
}

#[test]
fn test_bare_store_needs_to_be_told_its_origin() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch
        .dmsnap("amend --remove-descriptor layer.dms")
        .succeeds();
    for line in [
        "map layer.dms",
        "convert -O raw layer.dms out.raw",
        "merge layer.dms",
        "io layer.dms -c flush",
    ] {
        scratch
            .untouched(|| scratch.dmsnap(line))
            .fails(1, &["layer.dms", "--origin"]);
    }
    scratch.dmsnap("map --origin base.raw layer.dms").succeeds();
    scratch
        .dmsnap("snapshot --origin base.raw layer.dms new.dms")
        .fails(1, &["layer.dms", "descriptor"]);
}
