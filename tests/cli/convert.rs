//! Convert and compare: content, space, exit codes. What a kernel left among it.

use std::fs;

use sha2::{Digest, Sha256};

use crate::golden;
use crate::harness::{SIZE, Scratch, content};

/// Sizes that are no multiple of any chunk, and every chunk size that the issue names.
#[test]
fn test_convert_stores_what_differs_and_nothing_else() {
    let scratch = Scratch::new();
    let base = content(1, SIZE);
    let mut changed = base.clone();
    for at in [0, 5000, 5001, 100_000, SIZE / 2 + 70_000, SIZE - 1] {
        changed[at] ^= 0x5a;
    }
    // Zeros where the base has something.
    changed[200_000..300_000].fill(0);
    scratch.write("base.raw", &base);
    scratch.write("changed.raw", &changed);
    for shift in 9..=20 {
        let chunk = 1usize << shift;
        let line = format!(
            "convert -q -O dmsnap -o chunk_size={chunk} -B base.raw -F raw changed.raw layer.dms"
        );
        scratch.dmsnap(&line).succeeds();
        let origin = if chunk < 4096 {
            "--origin base.raw"
        } else {
            ""
        };
        scratch
            .dmsnap(&format!("convert -O raw {origin} layer.dms out.raw"))
            .succeeds();
        assert!(scratch.read("out.raw") == changed, "chunk size {chunk}");
        let differing = base
            .chunks(chunk)
            .zip(changed.chunks(chunk))
            .filter(|(old, new)| old != new)
            .count();
        let stored = scratch.dmsnap("dump --output json layer.dms").json();
        let stored: u64 = stored["exceptions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["count"].as_u64().unwrap())
            .sum();
        assert_eq!(stored, differing as u64, "chunk size {chunk}");
        scratch.dmsnap("check layer.dms").succeeds();
    }
}

#[test]
fn test_convert_without_a_descriptor_says_what_to_remember() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("longer.raw", &content(9, 2 << 20));
    for (line, words) in [
        (
            "convert -O dmsnap -o chunk_size=512 -B base.raw -F raw layer.dms new.dms",
            "--origin base.raw",
        ),
        (
            "convert -O dmsnap -o bare=on -B layer.dms -F dmsnap longer.raw new.dms",
            "--origin layer.dms --origin-format dmsnap --disk-size 2097152",
        ),
        (
            "convert -O dmsnap -o chunk_size=2k longer.raw new.dms",
            "--no-origin --disk-size 2097152",
        ),
    ] {
        let run = scratch.dmsnap(line);
        run.succeeds();
        let told = run
            .stderr
            .split("open it with ")
            .nth(1)
            .unwrap_or_default()
            .trim();
        assert_eq!(told, words);
        let source = line.split(' ').rev().nth(1).unwrap();
        let options = format!("-f dmsnap {told} new.dms");
        // The options are those of the first image that is a layer.
        scratch
            .dmsnap(&format!("convert -O raw {options} out.raw"))
            .succeeds();
        scratch
            .dmsnap(&format!("compare -s out.raw {source}"))
            .succeeds();
    }
}

#[test]
fn test_convert_keeps_holes_and_makes_new_ones() {
    let scratch = Scratch::new();
    let data = content(4, 2 << 20);
    // A hole, data, zeros that occupy space, data, a hole.
    scratch.write("source.raw", b"");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("source.raw"))
        .unwrap();
    file.set_len(3 << 30).unwrap();
    scratch.poke("source.raw", 1 << 30, &data);
    scratch.poke("source.raw", 2 << 30, &vec![0; 4 << 20]);
    scratch.poke("source.raw", (2 << 30) + (8 << 20), &data);
    // Half of `data` is zeros.
    let needed = 2 * (1 << 20) + (256 << 10);
    for line in [
        "convert -O raw source.raw copy",
        "convert -O dmsnap source.raw copy",
        "convert -O dmsnap -o chunk_size=64k -B empty.raw -F raw source.raw copy",
    ] {
        scratch.dmsnap("create -q -f raw empty.raw 3G").succeeds();
        scratch.dmsnap(line).succeeds();
        let occupied = scratch.occupied("copy");
        assert!(occupied <= needed, "{line}: {occupied} bytes");
        scratch.dmsnap("compare -s source.raw copy").succeeds();
    }
}

#[test]
fn test_convert_shows_progress_if_asked() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let run = scratch.dmsnap("convert -p -O raw layer.dms out.raw");
    let lines: Vec<&str> = run.succeeds().lines().collect();
    assert_eq!(lines.first(), Some(&"    (0.00/100%)"));
    assert_eq!(lines.last(), Some(&"    (100.00/100%)"));
    assert_eq!(
        scratch
            .dmsnap("convert -O raw layer.dms out.raw")
            .succeeds(),
        ""
    );
    assert_eq!(
        scratch
            .dmsnap("convert -p -q -O raw layer.dms out.raw")
            .succeeds(),
        ""
    );
}

/// What a kernel left, in every shape, becomes what the kernel showed.
#[test]
fn test_convert_of_kernel_made_stores_gives_what_the_kernel_showed() {
    let mut invalid = 0;
    for golden in golden::all() {
        let scratch = Scratch::new();
        scratch.write("base.raw", &golden.origin);
        scratch.write("kernel.cow", &golden.cow);
        let run = scratch.untouched_but("out.raw", || {
            scratch.dmsnap("convert --origin base.raw -O raw kernel.cow out.raw")
        });
        let Some(view) = golden.view else {
            run.fails(
                1,
                &[
                    "kernel.cow",
                    "snapshot is invalid",
                    "run full",
                    "create a new layer",
                ],
            );
            invalid += 1;
            continue;
        };
        run.succeeds();
        let sum: String = Sha256::digest(scratch.read("out.raw"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(sum, view, "{}", golden.name);
        let status = scratch.dmsnap("io -r --origin base.raw kernel.cow -c status");
        assert_eq!(status.succeeds().trim(), golden.status, "{}", golden.name);
    }
    assert!(invalid > 0, "no golden file is an invalidated store");
}

#[test]
fn test_compare_exits_as_qemu_img_does() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let base = scratch.read("base.raw");
    scratch.write("longer.raw", &[base.as_slice(), &[0; 1024]].concat());
    scratch.write("longer1.raw", &[base.as_slice(), &[0; 1023], &[1]].concat());
    for (line, code, text) in [
        ("compare base.raw base.raw", 0, "Images are identical.\n"),
        ("compare -q base.raw base.raw", 0, ""),
        (
            "compare base.raw layer.dms",
            1,
            "Content mismatch at offset 20480!\n",
        ),
        (
            "compare layer.dms base.raw",
            1,
            "Content mismatch at offset 20480!\n",
        ),
        ("compare -q base.raw layer.dms", 1, ""),
        ("compare base.raw longer.raw", 0, "Images are identical.\n"),
        (
            "compare base.raw longer1.raw",
            1,
            "Content mismatch at offset 1050111!\n",
        ),
        (
            "compare longer1.raw base.raw",
            1,
            "Content mismatch at offset 1050111!\n",
        ),
        (
            "compare -s base.raw longer.raw",
            1,
            "Sizes differ: 1049088 and 1050112 bytes.\n",
        ),
        (
            "compare -f raw layer.dms base.raw",
            1,
            "Content mismatch at offset 0!\n",
        ),
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        assert_eq!(run.exits(code), text, "{line}");
    }
}

#[test]
fn test_merge_of_what_the_kernel_left_half_merged() {
    let halves: Vec<_> = golden::all()
        .into_iter()
        .filter(|golden| golden.name.contains("merge"))
        .collect();
    assert!(!halves.is_empty(), "no golden file is of a merge");
    for golden in halves {
        let Some(view) = golden.view else { continue };
        let scratch = Scratch::new();
        scratch.write("base.raw", &golden.origin);
        scratch.write("kernel.cow", &golden.cow);
        scratch
            .dmsnap("merge --origin base.raw kernel.cow")
            .succeeds();
        let sum: String = Sha256::digest(scratch.read("base.raw"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(sum, view, "{}", golden.name);
        scratch.dmsnap("check kernel.cow").succeeds();
    }
}
