//! What the commands do, seen from outside: files, exit codes, JSON.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod cli;
#[path = "common/golden.rs"]
mod golden;
#[path = "common/pattern.rs"]
mod pattern;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cli::{Scratch, content};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Size of the base image of `base_and_layer`.
const SIZE: usize = (1 << 20) + 512;

/// What the layer of `base_and_layer` shows.
fn layer_content() -> Vec<u8> {
    let mut bytes = content(1, SIZE);
    bytes[20 << 10..][..512].fill(0x11);
    bytes[1 << 20..].fill(0x22);
    bytes
}

#[test]
fn test_readers_change_nothing() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot layer.dms top.dms").succeeds();
    for line in [
        "info layer.dms",
        "info --output json layer.dms",
        "info --backing-chain top.dms",
        "info base.raw",
        "check layer.dms",
        "check --output json layer.dms",
        "map top.dms",
        "map --output json top.dms",
        "compare top.dms layer.dms",
        "dump layer.dms",
        "dump --output json layer.dms",
        "io -r layer.dms -c length -c status",
        // Attaching it changes the file only if it has to be made fit for that.
        "table top.dms --origin-dev /dev/mapper/x --cow-dev /dev/loop0",
        "help",
    ] {
        scratch.untouched(|| scratch.dmsnap(line)).succeeds();
    }
}

#[test]
fn test_info_has_qemus_names() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    fs::create_dir(scratch.path("inner")).unwrap();
    scratch
        .dmsnap("create -q -o chunk_size=64K -b ../layer.dms -F dmsnap inner/top.dms 2M")
        .succeeds();
    let top = scratch.dmsnap("info --output json inner/top.dms").json();
    let layer = scratch.dmsnap("info --output json layer.dms").json();
    for (name, value) in [
        ("virtual-size", json!(2 << 20)),
        ("filename", json!("inner/top.dms")),
        ("format", json!("dmsnap")),
        ("cluster-size", json!(65536)),
        ("backing-filename", json!("../layer.dms")),
        ("full-backing-filename", json!("inner/../layer.dms")),
        ("backing-filename-format", json!("dmsnap")),
        ("dirty-flag", json!(false)),
    ] {
        assert_eq!(top[name], value, "{name}");
    }
    assert_eq!(top["actual-size"], json!(scratch.occupied("inner/top.dms")));
    assert_eq!(top["format-specific"]["type"], "dmsnap");
    let (data, below) = (
        &top["format-specific"]["data"],
        &layer["format-specific"]["data"],
    );
    assert_eq!(data["backing-uuid"], below["uuid"]);
    assert_eq!(data["backing-size"], json!(SIZE));
    assert_eq!(below["chunk-size"], json!(16384));
    assert_eq!(below["exceptions"], json!(2));
    assert_eq!(below["state"], "active");
    assert_eq!(below["bare"], json!(false));
    let chain = scratch
        .dmsnap("info -f dmsnap --backing-chain --output json inner/top.dms")
        .json();
    let formats: Vec<_> = chain
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["format"].clone())
        .collect();
    assert_eq!(formats, ["dmsnap", "dmsnap", "raw"]);
    let raw = scratch.dmsnap("info --output json base.raw").json();
    assert_eq!(
        (&raw["format"], &raw["virtual-size"]),
        (&json!("raw"), &json!(SIZE))
    );
    let text = scratch.dmsnap("info inner/top.dms");
    for line in [
        "virtual size: 2 MiB (2097152 bytes)",
        "chunk size: 65536",
        "backing file format: dmsnap",
    ] {
        assert!(
            text.succeeds().lines().any(|found| found == line),
            "{line}: {text:#?}"
        );
    }
}

#[test]
fn test_info_of_a_bare_store_asks_its_origin_for_the_size() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch
        .dmsnap("amend --remove-descriptor layer.dms")
        .succeeds();
    let info = scratch
        .dmsnap("info --output json --origin base.raw layer.dms")
        .json();
    assert_eq!(info["virtual-size"], json!(SIZE));
    assert_eq!(info["format-specific"]["data"]["bare"], json!(true));
    let info = scratch
        .dmsnap("info --output json --disk-size 2M layer.dms")
        .json();
    assert_eq!(info["virtual-size"], json!(2 << 20));
}

#[test]
fn test_create_records_what_it_was_told() {
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(1, 5000));
    let run = scratch.dmsnap("create -o chunk_size=4k -b base.raw -F raw new.dms");
    assert_eq!(
        run.succeeds(),
        "Created 'new.dms', fmt=dmsnap chunk_size=4096 size=5120 backing_file=base.raw backing_fmt=raw\n"
    );
    scratch
        .dmsnap("create -o size=1M,chunk_size=1M plain.dms")
        .succeeds();
    assert_eq!(
        scratch.dmsnap("info --output json plain.dms").json()["virtual-size"],
        json!(1 << 20)
    );
    scratch
        .dmsnap("create -u -b gone.raw -F raw unsafe.dms 1M")
        .succeeds();
    assert_eq!(
        scratch.dmsnap("info --output json unsafe.dms").json()["backing-filename"],
        "gone.raw"
    );
    assert_eq!(scratch.dmsnap("create -q -f raw raw 3M").succeeds(), "");
    assert_eq!(scratch.read("raw").len(), 3 << 20);
    assert_eq!(scratch.occupied("raw"), 0);
    scratch
        .dmsnap("create --bare -o chunk_size=512 bare.dms")
        .succeeds();
    assert_eq!(
        scratch.read("bare.dms")[..16],
        *b"SnAp\x01\0\0\0\x01\0\0\0\x01\0\0\0"
    );
}

#[test]
fn test_create_and_convert_replace_a_file_and_keep_who_may_use_it() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    for line in [
        "create old 1M",
        "convert -O raw layer.dms old",
        "convert -O dmsnap -B base.raw -F raw layer.dms old",
    ] {
        scratch.write("old", b"not precious");
        fs::set_permissions(scratch.path("old"), fs::Permissions::from_mode(0o640)).unwrap();
        let names: Vec<_> = scratch.contents().into_keys().collect();
        scratch.dmsnap(line).succeeds();
        assert_ne!(scratch.read("old"), b"not precious");
        assert_eq!(
            fs::metadata(scratch.path("old"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o640,
            "{line}"
        );
        assert_eq!(
            scratch.contents().into_keys().collect::<Vec<_>>(),
            names,
            "{line}"
        );
    }
}

#[test]
fn test_io_shows_what_it_wrote() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let run = scratch.io(
        "layer.dms",
        &[
            "write -P 0xaa 4k 512",
            "writez 40k 100",
            "write -z -u 64k 16k",
            "discard 16k 16k",
            "flush",
            "read -v 4606 20",
            "length",
        ],
    );
    let base = content(1, SIZE);
    let hex: Vec<String> = base[4608..4626]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let lines: Vec<&str> = run.succeeds().lines().collect();
    assert_eq!(
        lines[..4],
        [
            "wrote 512/512 bytes at offset 4096",
            "wrote 100/100 bytes at offset 40960",
            "wrote 16384/16384 bytes at offset 65536",
            "discard 16384/16384 bytes at offset 16384",
        ]
    );
    let (first, second) = (hex[..14].join(" "), hex[14..].join(" "));
    assert!(
        lines[4].starts_with(&format!("000011fe:  aa aa {first}")),
        "{}",
        lines[4]
    );
    assert!(
        lines[5].starts_with(&format!("0000120e:  {second}  ")),
        "{}",
        lines[5]
    );
    assert_eq!(lines[6..], ["read 20/20 bytes at offset 4606", "1049088"]);
    let mut expected = layer_content();
    expected[4096..4608].fill(0xaa);
    expected[40960..41060].fill(0);
    expected[65536..81920].fill(0);
    expected[16384..32768].fill(0);
    scratch
        .dmsnap("convert -O raw layer.dms out.raw")
        .succeeds();
    assert!(scratch.read("out.raw") == expected);
    assert!(scratch.read("base.raw") == base, "the base was written");
}

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
                    "ran out of space",
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

/// Chunks 2 and 3 hold data that no record refers to.
fn leaky(scratch: &Scratch) {
    let mut store = vec![0; 5 * 4096];
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x08\0\0\0");
    store[4096..][..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    store[2 * 4096..].fill(0x77);
    scratch.write("leaky.dms", &store);
}

#[test]
fn test_check_finds_leaks_and_gives_them_back() {
    let scratch = Scratch::new();
    leaky(&scratch);
    let before = scratch.occupied("leaky.dms");
    scratch
        .untouched(|| scratch.dmsnap("check leaky.dms"))
        .exits(3);
    assert_eq!(scratch.dmsnap("check -q leaky.dms").exits(3), "");
    let run = scratch.dmsnap("check --output json leaky.dms");
    let report: serde_json::Value = serde_json::from_str(run.exits(3)).unwrap();
    for (name, value) in [
        ("filename", json!("leaky.dms")),
        ("format", json!("dmsnap")),
        ("check-errors", json!(0)),
        ("leaks", json!(2)),
        ("allocated-clusters", json!(1)),
        ("image-end-offset", json!(5 * 4096)),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    assert!(report.get("corruptions").is_none());
    assert_eq!(
        report["format-specific"]["data"]["leaked-bytes"],
        json!(8192)
    );
    let run = scratch.dmsnap("check -r leaks --output json leaky.dms");
    assert_eq!(run.json()["leaks-fixed"], json!(2));
    assert_eq!(scratch.occupied("leaky.dms"), before - 8192);
    scratch
        .untouched(|| scratch.dmsnap("check leaky.dms"))
        .succeeds();
    scratch
        .run(&["io", "--no-origin", "leaky.dms", "-c", "read -P 0x77 4k 4k"])
        .succeeds();
}

#[test]
fn test_check_tells_corruption_from_the_rest() {
    let scratch = Scratch::new();
    leaky(&scratch);
    // A second record for chunk 1.
    scratch.poke("leaky.dms", 4096 + 16, &[1, 0, 0, 0, 0, 0, 0, 0, 3]);
    let run = scratch.untouched(|| scratch.dmsnap("check --output json -r all leaky.dms"));
    let report: serde_json::Value = serde_json::from_str(run.exits(2)).unwrap();
    assert_eq!(report["corruptions"], json!(1));
    assert_eq!(
        report["format-specific"]["data"]["findings"][0]["severity"],
        "corruption"
    );
    scratch
        .dmsnap("check -f raw leaky.dms")
        .fails(63, &["leaky.dms"]);
}

#[test]
fn test_map_covers_the_disk() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let extents = scratch.dmsnap("map --output json layer.dms").json();
    let extents = extents.as_array().unwrap();
    let mut at = 0;
    for extent in extents {
        assert_eq!(extent["start"], json!(at));
        assert_eq!(extent["zero"], json!(!extent["data"].as_bool().unwrap()));
        assert_eq!(extent["compressed"], json!(false));
        at += extent["length"].as_u64().unwrap();
    }
    assert_eq!(at, SIZE as u64);
    let first = &extents[1];
    assert_eq!(
        (
            &first["start"],
            &first["length"],
            &first["depth"],
            &first["offset"]
        ),
        (&json!(16384), &json!(16384), &json!(0), &json!(2 * 16384))
    );
    assert_eq!(extents[0]["depth"], json!(1));
    let part = scratch
        .dmsnap("map --output json -s 20k -l 4k layer.dms")
        .json();
    assert_eq!(part[0]["start"], json!(20480));
    assert_eq!(part[0]["length"], json!(4096));
    assert_eq!(
        scratch
            .dmsnap("map --output json -s 20k -l 0 layer.dms")
            .json(),
        json!([])
    );
    let run = scratch.dmsnap("map layer.dms");
    let line = format!("{:<16}{:<16}{:<16}layer.dms", "0x4000", "0x4000", "0x8000");
    assert!(
        run.succeeds().lines().any(|found| found == line),
        "{run:#?}"
    );
}

#[test]
fn test_dump_shows_records_as_they_are() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let dump = scratch.dmsnap("dump --output json layer.dms").json();
    assert_eq!(
        dump["header"],
        json!({"valid": 1, "version": 1, "chunk-size": 32})
    );
    assert_eq!(
        dump["exceptions"],
        json!([
            {"old-chunk": 1, "new-chunk": 2, "count": 1},
            {"old-chunk": 64, "new-chunk": 3, "count": 1},
        ])
    );
    assert_eq!(dump["next-free"], json!(4));
    assert_eq!(dump["descriptor"]["virtual-size"], json!(SIZE));
    assert_eq!(dump["descriptor"]["backing-filename"], "base.raw");
    let text = scratch.dmsnap("dump layer.dms");
    assert!(text.succeeds().contains("old 64 -> new 3, 1 chunks"));
    // Its origin does not matter.
    fs::remove_file(scratch.path("base.raw")).unwrap();
    scratch
        .dmsnap("amend --remove-descriptor layer.dms")
        .succeeds();
    assert!(
        scratch
            .dmsnap("dump layer.dms")
            .succeeds()
            .contains("descriptor: none")
    );
}

#[test]
fn test_snapshot_and_merge_down_to_the_base() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let run = scratch.dmsnap("snapshot -o chunk_size=4K layer.dms top.dms");
    assert_eq!(
        run.succeeds(),
        "Created 'top.dms' over 'layer.dms', chunk_size=4096\n"
    );
    scratch
        .dmsnap("snapshot layer.dms top.dms")
        .fails(1, &["top.dms", "exist"]);
    let layer = scratch.read("layer.dms");
    scratch
        .io(
            "top.dms",
            &["write -P 0x33 20k 512", "write -P 0x44 500k 64k"],
        )
        .succeeds();
    assert!(
        scratch.read("layer.dms") == layer,
        "the frozen layer was written"
    );
    let mut expected = layer_content();
    expected[20 << 10..][..512].fill(0x33);
    expected[500 << 10..][..64 << 10].fill(0x44);
    scratch
        .dmsnap("convert -O raw top.dms expected.raw")
        .succeeds();
    assert!(scratch.read("expected.raw") == expected);

    let run = scratch.dmsnap("merge -p top.dms");
    assert!(
        run.succeeds()
            .ends_with("Merged 17 exceptions of 'top.dms' into 'layer.dms', 69632 bytes.\n"),
        "{run:#?}"
    );
    assert!(
        run.stderr.contains("other layers over this file"),
        "{run:#?}"
    );
    scratch
        .dmsnap("compare -s layer.dms expected.raw")
        .succeeds();
    scratch.dmsnap("compare -s top.dms expected.raw").succeeds();
    let run = scratch.dmsnap("merge -q layer.dms");
    assert_eq!((run.succeeds(), run.stderr.as_str()), ("", ""));
    assert!(scratch.read("base.raw") == expected);
    scratch.dmsnap("merge -q layer.dms").succeeds();
    scratch.dmsnap("create -q plain.dms 1M").succeeds();
    scratch
        .untouched(|| scratch.dmsnap("merge plain.dms"))
        .fails(1, &["plain.dms", "no origin"]);
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

#[test]
fn test_resize_both_ways() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let size = || scratch.dmsnap("info --output json layer.dms").json()["virtual-size"].clone();
    scratch.dmsnap("resize layer.dms 2M").succeeds();
    assert_eq!(size(), json!(2 << 20));
    scratch.dmsnap("resize layer.dms +512k").succeeds();
    assert_eq!(size(), json!(5 << 19));
    scratch
        .io(
            "layer.dms",
            &["read -P 0 1049088 1572352", "write -P 9 2M 1k"],
        )
        .succeeds();
    for (line, expected) in [
        ("resize --shrink layer.dms -1M", 3 << 19),
        ("resize layer.dms -512k --shrink", 1 << 20),
        ("resize layer.dms --shrink 64k", 1 << 16),
    ] {
        scratch.dmsnap(line).succeeds();
        assert_eq!(size(), json!(expected), "{line}");
    }
    scratch.dmsnap("resize layer.dms 3M").succeeds();
    scratch
        .io(
            "layer.dms",
            &["read -P 0x11 20k 512", "read -P 0 64k 3080192"],
        )
        .succeeds();
}

#[test]
fn test_amend_changes_what_is_recorded() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    fs::copy(scratch.path("base.raw"), scratch.path("moved.raw")).unwrap();
    let backing =
        || scratch.dmsnap("info --output json layer.dms").json()["backing-filename"].clone();
    scratch
        .dmsnap("amend -b moved.raw -F raw layer.dms")
        .succeeds();
    assert_eq!(backing(), "moved.raw");
    scratch
        .untouched(|| scratch.dmsnap("amend -b missing.raw -F raw layer.dms"))
        .fails(1, &["missing.raw"]);
    scratch
        .untouched(|| scratch.dmsnap("amend -b moved.raw layer.dms"))
        .fails(1, &["-F raw or -F dmsnap"]);
    scratch
        .untouched(|| scratch.dmsnap("amend --add-descriptor 1M layer.dms"))
        .fails(1, &["layer.dms", "descriptor"]);
    scratch.run(&["amend", "-b", "", "layer.dms"]).succeeds();
    assert_eq!(backing(), json!(null));
    scratch
        .io("layer.dms", &["read -P 0 0 16k", "read -P 0x11 20k 512"])
        .succeeds();
    scratch
        .dmsnap("amend --remove-descriptor layer.dms")
        .succeeds();
    scratch
        .untouched(|| scratch.dmsnap("amend -b base.raw -F raw layer.dms"))
        .fails(1, &["layer.dms", "descriptor"]);
    scratch
        .dmsnap("amend --add-descriptor 1049088 -b base.raw -F raw layer.dms")
        .succeeds();
    scratch
        .dmsnap("convert -O raw layer.dms out.raw")
        .succeeds();
    assert!(scratch.read("out.raw") == layer_content());
}

#[test]
fn test_commands_are_read_from_standard_input() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.write("commands", b"# a comment\n\nwrite -q -P 7 0 512\nfrobnicate\nread -P 7 0 512\nquit\nwrite -P 8 0 512\n");
    let mut command = scratch.command(&["io", "layer.dms"]);
    command.stdin(fs::File::open(scratch.path("commands")).unwrap());
    let run = cli::finish(command);
    run.fails(1, &["frobnicate"]);
    assert_eq!(run.stdout, "read 512/512 bytes at offset 0\n");
}

#[test]
fn test_output_that_nobody_reads_is_no_failure() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    for line in [
        "map layer.dms",
        "check layer.dms",
        "info --output json layer.dms",
        "merge -p layer.dms",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = scratch.command(&words);
        assert!(command.stdout(writer).status().unwrap().success(), "{line}");
    }
}
