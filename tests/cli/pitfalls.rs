//! What users met, or would have: one test for each.

use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::json;

use crate::harness::{Scratch, content, finish};

/// A bare store over `base.raw` (4 MiB) with exceptions at its beginning and at 2 MiB.
fn bare(scratch: &Scratch) {
    scratch.write("base.raw", &content(1, 4 << 20));
    scratch.dmsnap("create -q --bare bare.cow").succeeds();
    let write = "io --origin base.raw bare.cow -c".split(' ');
    for command in ["write -P 7 0 64k", "write -P 9 2M 64k"] {
        let args: Vec<&str> = write.clone().chain([command]).collect();
        scratch.run(&args).succeeds();
    }
}

/// There is nothing else to tell a wrong origin by, and what lies past its end would be lost.
#[test]
fn test_merge_into_an_origin_that_is_too_short_is_refused() {
    let scratch = Scratch::new();
    bare(&scratch);
    scratch.write("short.raw", &content(2, 1 << 20));
    for options in ["--origin short.raw", "--disk-size 1M --origin base.raw"] {
        let merged = scratch.untouched(|| scratch.dmsnap(&format!("merge {options} bare.cow")));
        merged.fails(1, &["bare.cow", "2162688", "1048576"]);
    }
    let read = scratch.dmsnap("map --origin short.raw bare.cow");
    read.succeeds();
    assert!(read.stderr.contains("warning"), "{read:#?}");
    scratch
        .dmsnap("merge -q --origin base.raw bare.cow")
        .succeeds();
    assert_eq!(scratch.read("base.raw")[2 << 20], 9);
}

#[test]
fn test_a_descriptor_for_a_disk_that_is_too_short_is_refused() {
    let scratch = Scratch::new();
    bare(&scratch);
    let amended = scratch.untouched(|| scratch.dmsnap("amend --add-descriptor 1M bare.cow"));
    amended.fails(1, &["bare.cow", "2162688", "1048576"]);
    scratch
        .dmsnap("amend -q --add-descriptor 4M bare.cow")
        .succeeds();
}

/// Under nohup a hang-up is no reason to stop.
#[test]
fn test_a_signal_that_was_ignored_stays_ignored() {
    let scratch = Scratch::new();
    scratch.write("big.raw", &content(1, 128 << 20));
    let tool = scratch.command(&["convert", "-p", "-O", "raw", "big.raw", "out.raw"]);
    let mut line = format!(
        "trap '' HUP; kill -HUP $$; exec {}",
        tool.get_program().display()
    );
    for arg in tool.get_args() {
        line.push_str(&format!(" {}", arg.display()));
    }
    // Sent again while the tool runs.
    let line = format!("(sleep 0.05; kill -HUP $$) & {line}");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]).current_dir(scratch.directory());
    shell.stdin(Stdio::null());
    finish(shell).succeeds();
    assert_eq!(scratch.read("out.raw").len(), 128 << 20);
}

#[test]
fn test_table_checks_its_arguments_before_it_writes() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    // A record behind the terminator.
    scratch.poke("layer.dms", 16384 + 40 * 16, &[1; 16]);
    let long = "x".repeat(150);
    scratch.dmsnap(&format!("create -q {long} 1M")).succeeds();
    for (line, words) in [
        ("layer.dms --cow-dev /dev/loop1".to_owned(), "--origin-dev"),
        (format!("{long} --cow-dev /dev/loop1"), "--name"),
    ] {
        let refused = scratch.untouched(|| scratch.dmsnap(&format!("table {line}")));
        refused.fails(1, &[words]);
    }
}

/// As in qemu-img the backing is looked for from where the user's name is.
#[test]
fn test_a_backing_is_found_from_the_name_of_a_link() {
    let scratch = Scratch::new();
    for (directory, len) in [("a", 8), ("b", 4)] {
        std::fs::create_dir(scratch.path(directory)).unwrap();
        scratch.write(&format!("{directory}/base.raw"), &content(1, len << 20));
    }
    scratch.write("b/real.dms", b"");
    scratch.write("changed.raw", &content(2, 8 << 20));
    symlink("../b/real.dms", scratch.path("a/link.dms")).unwrap();
    for line in [
        "create -q -b base.raw -F raw a/link.dms",
        "convert -q -O dmsnap -B base.raw -F raw changed.raw a/link.dms",
    ] {
        scratch.dmsnap(line).succeeds();
        let info = scratch.dmsnap("info --output json a/link.dms").json();
        assert_eq!(info["virtual-size"], json!(8 << 20), "{line}");
        let opened = scratch.dmsnap("io a/link.dms -c length");
        opened.succeeds();
        assert_eq!(opened.stderr, "", "{line}");
    }
    assert!(scratch.path("a/link.dms").is_symlink());
}

#[test]
fn test_a_link_that_leads_nowhere_is_made_to_lead_somewhere() {
    let scratch = Scratch::new();
    scratch.write("source.raw", &content(1, 1 << 20));
    std::fs::create_dir(scratch.path("below")).unwrap();
    symlink("below/there.raw", scratch.path("link.raw")).unwrap();
    scratch
        .dmsnap("convert -q -O raw source.raw link.raw")
        .succeeds();
    assert_eq!(scratch.read("below/there.raw"), content(1, 1 << 20));
    assert!(scratch.path("link.raw").is_symlink());
}

#[test]
fn test_what_lies_below_can_be_said_of_every_file() {
    let scratch = Scratch::new();
    bare(&scratch);
    scratch.dmsnap("create -q --bare top.cow").succeeds();
    let below = "--origin bare.cow --origin-format dmsnap --origin base.raw";
    for command in ["map", "check"] {
        scratch
            .dmsnap(&format!("{command} {below} top.cow"))
            .succeeds();
        let surplus =
            format!("{command} --origin base.raw --origin-format raw --origin-format raw");
        let refused = scratch.dmsnap(&format!("{surplus} top.cow"));
        refused.fails(1, &["more --origin-format"]);
    }
    // Both of them, or the one that needs it.
    scratch
        .dmsnap("compare --origin base.raw bare.cow bare.cow")
        .succeeds();
    scratch
        .dmsnap("create -q -b base.raw -F raw layer.dms")
        .succeeds();
    scratch
        .dmsnap("compare --origin base.raw layer.dms bare.cow")
        .exits(1);
    scratch
        .dmsnap("compare --origin base.raw layer.dms top.cow")
        .succeeds();
    let converted = scratch.dmsnap("convert -O dmsnap -B bare.cow -F dmsnap base.raw new.dms");
    converted.fails(1, &["bare.cow", "add a descriptor"]);
    assert!(!converted.stderr.contains("--origin"), "{converted:#?}");
}

#[test]
fn test_options_that_would_be_ignored_are_refused() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("changed.raw", &content(2, 1 << 20));
    for (line, words) in [
        ("convert --disk-size 1M -O raw base.raw o", "--disk-size"),
        (
            "convert --ignore-origin-uuid -O raw base.raw o",
            "--ignore-origin-uuid",
        ),
        ("info --disk-size 1M base.raw", "--disk-size"),
        ("io --disk-size 512K layer.dms -c length", "layer.dms"),
        (
            "convert -O dmsnap -o backing_fmt=raw base.raw o",
            "without -b",
        ),
        (
            "convert -O dmsnap -B base.raw -o backing_fmt=dmsnap -F raw changed.raw o",
            "given twice",
        ),
        (
            "convert -O dmsnap -o bare=off,chunk_size=512 base.raw o",
            "4096",
        ),
        ("create --bare -o bare=off o", "given twice"),
    ] {
        let refused = scratch.untouched(|| scratch.dmsnap(line));
        refused.fails(1, &[words]);
    }
}

#[test]
fn test_quit_quits() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let quit = scratch.untouched(|| scratch.io("layer.dms", &["quit", "write -P 1 0 512"]));
    assert_eq!(quit.succeeds(), "");
}
