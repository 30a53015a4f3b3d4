//! Commands that look: info, check, map, dump. They change nothing, and their JSON has qemu-img's names.

use std::fs;

use serde_json::json;

use crate::harness::{SIZE, Scratch};

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
fn test_info_claims_nothing_that_was_not_read() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.poke("layer.dms", 4, &[0]);
    let run = scratch.dmsnap("info layer.dms");
    assert!(run.succeeds().contains("exceptions: not read"), "{run:#?}");
    let data = &scratch.dmsnap("info --output json layer.dms").json()["format-specific"]["data"];
    assert_eq!(data["exceptions"], json!(null));
    // A bare store is as long as an origin that was not named.
    scratch.base_and_layer();
    scratch
        .dmsnap("amend -q --remove-descriptor layer.dms")
        .succeeds();
    for (origin, least) in [("", true), ("--origin base.raw", false)] {
        let run = scratch.dmsnap(&format!("info {origin} layer.dms"));
        assert_eq!(run.succeeds().contains("virtual size: at least "), least);
        let info = scratch.dmsnap(&format!("info {origin} --output json layer.dms"));
        let data = &info.json()["format-specific"]["data"];
        assert_eq!(
            data["virtual-size-is-minimum"],
            if least { json!(true) } else { json!(null) }
        );
    }
}

#[test]
fn test_dump_shows_records_as_they_are() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let dump = scratch.dmsnap("dump --output json layer.dms").json();
    assert_eq!(
        dump["header"],
        json!({"valid": 1, "version": 1, "chunk-size-sectors": 32})
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
    assert!(text.succeeds().contains("old 64 -> new 3, 1 chunk\n"));
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
