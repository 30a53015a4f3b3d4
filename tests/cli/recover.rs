//! dump --raw, restore and recover: damaged and invalidated stores, and metadata mended by hand.

use std::fs;

use serde_json::{Value, json};

use crate::golden;
use crate::harness::{Run, SIZE, Scratch, finish, layer_content};

const CHUNK: usize = 16384;

fn json_of(run: &Run, code: i32) -> Value {
    serde_json::from_str(run.exits(code)).expect("JSON")
}

/// What a layer over base.raw shows.
fn shown(scratch: &Scratch, layer: &str) -> Vec<u8> {
    let line = format!("convert -q -f dmsnap -O raw {layer} shown.raw");
    scratch.dmsnap(&line).succeeds();
    let bytes = scratch.read("shown.raw");
    fs::remove_file(scratch.path("shown.raw")).unwrap();
    bytes
}

#[test]
fn test_dumped_metadata_is_restored_byte_by_byte() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let before = scratch.read("layer.dms");
    for (line, code) in [("dump --output json", 0), ("dump --raw --output json", 0)] {
        let dump = scratch.dmsnap(&format!("{line} layer.dms"));
        scratch.write("meta.json", dump.exits(code).as_bytes());
        // Over a valid store only if that is said.
        let refused = scratch.untouched(|| scratch.dmsnap("restore meta.json layer.dms"));
        refused.fails(1, &["layer.dms", "valid store", "--overwrite"]);
        scratch
            .dmsnap("restore -q --overwrite meta.json layer.dms")
            .succeeds();
        assert!(scratch.read("layer.dms") == before);
        // Whatever stands there by now.
        scratch.poke("layer.dms", 0, &[0; 8192]);
        scratch.poke("layer.dms", CHUNK as u64, &[0xff; CHUNK]);
        let run = scratch.dmsnap("restore meta.json layer.dms");
        assert_eq!(run.succeeds(), "Wrote 2 records in 1 area to 'layer.dms'\n");
        assert!(scratch.read("layer.dms") == before);
    }
    let mut command = scratch.command(&["restore", "-q", "--overwrite", "-", "layer.dms"]);
    command.stdin(fs::File::open(scratch.path("meta.json")).unwrap());
    finish(command).succeeds();
    assert!(scratch.read("layer.dms") == before);
}

#[test]
fn test_metadata_is_mended_by_hand() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    // The second record points at the first area.
    scratch.poke("layer.dms", CHUNK as u64 + 16 + 8, &[1]);
    scratch.dmsnap("check layer.dms").exits(2);
    scratch.dmsnap("dump --output json layer.dms").exits(1);
    let mut dump = scratch.dmsnap("dump --raw --output json layer.dms").json();
    scratch.write("meta.json", dump.to_string().as_bytes());
    // Back as it is only if that is said.
    let refused = scratch.untouched(|| scratch.dmsnap("restore --overwrite meta.json layer.dms"));
    refused.fails(1, &["damaged", "holds metadata", "--damaged"]);
    scratch
        .untouched(|| scratch.dmsnap("restore -q --overwrite --damaged meta.json layer.dms"))
        .succeeds();
    let records = &mut dump["metadata"]["areas"][0]["records"];
    assert_eq!(
        records[1],
        json!({"slot": 1, "old-chunk": 64, "new-chunk": 1, "count": 1})
    );
    records[1]["new-chunk"] = json!(3);
    scratch.write("meta.json", dump.to_string().as_bytes());
    scratch
        .dmsnap("restore -q --overwrite meta.json layer.dms")
        .succeeds();
    scratch.dmsnap("check layer.dms").succeeds();
    assert!(shown(&scratch, "layer.dms") == layer_content());
}

#[test]
fn test_what_is_no_dump_is_refused() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let dump = scratch.dmsnap("dump --raw --output json layer.dms").json();
    let refused = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut changed = dump.clone();
        change(&mut changed);
        scratch.write("meta.json", changed.to_string().as_bytes());
        let line = "restore --overwrite --damaged meta.json layer.dms";
        scratch.untouched(|| scratch.dmsnap(line)).fails(1, words);
    };
    refused(
        &|dump| *dump = json!([1, 2]),
        &["meta.json", "dump --output json"],
    );
    refused(&|dump| dump["metadata"]["colour"] = json!(1), &["colour"]);
    refused(
        &|dump| dump["metadata"]["chunk-size-sectors"] = json!(3),
        &["power of two"],
    );
    refused(
        &|dump| dump["metadata"]["header"]["magic"] = json!("12"),
        &["four bytes"],
    );
    refused(
        &|dump| dump["metadata"]["areas"][0]["records"][0]["slot"] = json!(5000),
        &["area 0", "slot"],
    );
    refused(
        &|dump| dump["metadata"]["areas"][0]["records"][1]["slot"] = json!(0),
        &["area 0", "out of order"],
    );
    refused(
        &|dump| dump["metadata"]["areas"][0]["area"] = json!(u64::MAX),
        &["no file"],
    );
    refused(
        &|dump| dump["metadata"]["descriptor-slots"][0]["slot"] = json!(3),
        &["no slot 3"],
    );
    refused(
        &|dump| dump["metadata"]["descriptor-slots"][0]["descriptor"]["uuid"] = json!("x"),
        &["UUID"],
    );
    scratch.write("meta.json", b"{");
    scratch
        .untouched(|| scratch.dmsnap("restore meta.json layer.dms"))
        .fails(1, &["meta.json"]);
    scratch
        .dmsnap("restore nothing.json layer.dms")
        .fails(1, &["nothing.json"]);
    scratch.write("meta.json", dump.to_string().as_bytes());
    scratch
        .dmsnap("restore meta.json nothing.dms")
        .fails(1, &["nothing.dms"]);
}

#[test]
fn test_raw_dump_shows_what_lies_behind_the_end() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.poke(
        "layer.dms",
        CHUNK as u64 + 3 * 16,
        &[7, 0, 0, 0, 0, 0, 0, 0, 9],
    );
    let run = scratch.untouched(|| scratch.dmsnap("dump --raw layer.dms"));
    let text = run.succeeds();
    for line in [
        "header: valid=1 version=1 chunk_size=32 sectors",
        "descriptor slot 1: good",
        "area 0:",
        "    slot 1: old 64 -> new 3, 1 record",
        "    slot 3: old 7 -> new 9, 1 record (behind the end of the log)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    // Without a header the user has to know the size of a chunk.
    scratch.poke("layer.dms", 0, &[0; 16]);
    scratch.dmsnap("dump --raw layer.dms").fails(1, &["blank"]);
    let run = scratch.dmsnap("dump --raw --all-areas --chunk-size 16k layer.dms");
    assert!(
        run.succeeds().contains("header: magic=00000000 valid=0"),
        "{run:#?}"
    );
}

#[test]
fn test_recovers_what_a_kernel_invalidated() {
    let scratch = Scratch::new();
    let store = golden::named("overflow-p");
    scratch.write("base.raw", &store.origin);
    scratch.write("cow", &store.cow);
    let line = "recover -b base.raw -F raw cow new.dms";
    let run = scratch.untouched_but("new.dms", || scratch.dmsnap(line));
    let text = run.succeeds();
    assert!(
        text.contains("complete only if no write to the origin was the cause"),
        "{text}"
    );
    let mut valid = store.cow.clone();
    valid[4] = 1;
    scratch.write("valid", &valid);
    scratch
        .dmsnap("convert -q --origin base.raw -f dmsnap -O raw valid expected.raw")
        .succeeds();
    let expected = scratch.read("expected.raw");
    assert!(shown(&scratch, "new.dms") == expected);
    scratch.dmsnap("check new.dms").succeeds();
    // Never over something that is there.
    scratch
        .untouched(|| scratch.dmsnap(line))
        .fails(1, &["new.dms", "exists"]);
    // Without a size it is a store as the kernel makes it.
    let run = scratch.dmsnap("recover --output json cow bare.dms");
    let report = json_of(&run, 0);
    for (name, value) in [
        ("header", json!("invalidated")),
        ("complete", json!(true)),
        ("virtual-size", json!(null)),
        ("lost", json!(0)),
        ("left-out", json!([])),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    assert_eq!(
        scratch.dmsnap("info --output json bare.dms").json()["format-specific"]["data"]["bare"],
        json!(true)
    );
    let run = scratch.dmsnap("recover --in-place cow");
    assert!(run.succeeds().contains(" in 'cow'.\n"), "{run:#?}");
    assert!(scratch.read("cow") == valid);
    let again = scratch.untouched(|| scratch.dmsnap("recover --in-place cow"));
    assert!(
        again.succeeds().contains("nothing to recover"),
        "{again:#?}"
    );
}

#[test]
fn test_recover_leaves_out_what_is_in_doubt_and_says_so() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    // A third record contradicts the first one.
    scratch.poke("layer.dms", CHUNK as u64 + 32, &[1, 0, 0, 0, 0, 0, 0, 0, 3]);
    scratch.dmsnap("check layer.dms").exits(2);
    fs::create_dir(scratch.path("inner")).unwrap();
    let run = scratch.dmsnap("recover --output json layer.dms inner/new.dms");
    let report = json_of(&run, 2);
    assert_eq!(
        (&report["recovered"], &report["lost"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(
        report["left-out"][0],
        json!({"record": 0, "old-chunk": 1, "new-chunk": 2, "reason": "duplicate-old-chunk"})
    );
    assert_eq!(report["left-out"][1]["reason"], "shared-new-chunk");
    // The backing is found from there, too, and the size is kept.
    assert!(shown(&scratch, "inner/new.dms") == scratch.read("base.raw"));
    let run = scratch.dmsnap("recover layer.dms other.dms");
    let text = run.exits(2);
    assert!(
        text.contains("left out: record 2, chunk 1 in COW chunk 3"),
        "{text}"
    );
    assert!(text.contains("3 exceptions left out"), "{text}");
}

#[test]
fn test_recovers_a_file_that_was_cut_off() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let whole = scratch.read("layer.dms");
    scratch.write("layer.dms", &whole[..3 * CHUNK + 100]);
    let run = scratch.dmsnap("check --output json layer.dms");
    let finding = &json_of(&run, 2)["format-specific"]["data"]["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["severity"]),
        (&json!("truncated-data"), &json!("corruption"))
    );
    let run = scratch.dmsnap("recover layer.dms new.dms");
    assert!(
        run.exits(2).contains("the file ends inside of that"),
        "{run:#?}"
    );
    let mut expected = layer_content();
    expected[1 << 20..].copy_from_slice(&scratch.read("base.raw")[1 << 20..]);
    assert!(shown(&scratch, "new.dms") == expected);
    // Down to nothing but the log.
    scratch.write("layer.dms", &whole[..CHUNK + 40]);
    let run = scratch.dmsnap("recover --output json layer.dms none.dms");
    let report = json_of(&run, 2);
    assert_eq!(
        (&report["recovered"], &report["missing-area"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn test_recover_needs_to_know_what_nothing_tells() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.poke("layer.dms", 0, &[0xa5; 16]);
    scratch
        .untouched(|| scratch.dmsnap("recover layer.dms new.dms"))
        .fails(1, &["layer.dms"]);
    let run = scratch.dmsnap("recover --chunk-size 16k layer.dms new.dms");
    assert!(run.exits(2).contains("The header was damaged"), "{run:#?}");
    assert!(shown(&scratch, "new.dms") == layer_content());
    for (line, word) in [
        ("recover layer.dms", "NEW"),
        ("recover --in-place layer.dms new2.dms", "--in-place"),
        ("recover -b base.raw layer.dms new2.dms", "-F raw"),
        ("recover --chunk-size 3k layer.dms new2.dms", "power of two"),
        ("recover -f raw layer.dms new2.dms", "raw"),
    ] {
        scratch.untouched(|| scratch.dmsnap(line)).fails(1, &[word]);
    }
    let run = scratch.dmsnap(&format!(
        "recover -p --size {SIZE} --chunk-size 16k layer.dms new3.dms"
    ));
    assert!(run.exits(2).contains("(100.00/100%)"), "{run:#?}");
}

#[test]
fn test_check_says_what_a_repair_did_and_what_it_left() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.poke("layer.dms", CHUNK as u64 + 5 * 16, &[7]);
    let run = scratch.untouched(|| scratch.dmsnap("check -r leaks layer.dms"));
    assert!(
        run.exits(3)
            .contains("(left: only leaks were to be repaired)"),
        "{run:#?}"
    );
    let run = scratch.dmsnap("check -r all --output json layer.dms");
    let findings = run.json()["format-specific"]["data"]["findings"].clone();
    assert_eq!(
        (&findings[0]["kind"], &findings[0]["repair"]),
        (&json!("stale-slots"), &json!("mended"))
    );
    scratch.poke("layer.dms", CHUNK as u64 + 5 * 16, &[7]);
    scratch.poke("layer.dms", CHUNK as u64 + 8, &[1]);
    let run = scratch.untouched(|| scratch.dmsnap("check -r all layer.dms"));
    let text = run.exits(2);
    assert!(
        text.contains("(left: what it was before cannot be known)"),
        "{text}"
    );
    assert!(
        text.contains("(left: beside a corruption it is open what is in use)"),
        "{text}"
    );
}

/// It was called complete, without what lay past the base's end.
#[test]
fn test_a_grown_layer_without_its_size_is_not_cut_to_its_base() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let grown = SIZE + (1 << 20);
    scratch
        .dmsnap(&format!("resize -q layer.dms {grown}"))
        .succeeds();
    scratch
        .io("layer.dms", &[&format!("write -q -P 0x77 {SIZE} 64k")])
        .succeeds();
    let expected = shown(&scratch, "layer.dms");
    // As a kernel leaves it that gives a store up.
    scratch.poke("layer.dms", 4, &[0]);
    scratch.poke("layer.dms", 16, &[0; CHUNK - 16]);
    for line in [
        "recover -b base.raw -F raw layer.dms new.dms",
        "recover -b base.raw -F raw --in-place layer.dms",
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(1, &["layer.dms", "say the size of the disk"]);
    }
    let line = format!("recover --size {grown} -b base.raw -F raw layer.dms new.dms");
    scratch.dmsnap(&line).succeeds();
    assert!(shown(&scratch, "new.dms") == expected);
}

/// It was taken for a store without a descriptor.
#[test]
fn test_an_image_with_unknown_features_is_not_recovered() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let mut slot = scratch.read("layer.dms")[4096..8192].to_vec();
    let len = u32::from_le_bytes(slot[8..12].try_into().unwrap()) as usize;
    slot[24] = 0x80;
    slot[12..16].fill(0);
    let crc = crc32fast::hash(&slot[..len]);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
    scratch.poke("layer.dms", 4096, &slot);
    for line in [
        "recover layer.dms new.dms",
        "recover --size 2M --in-place layer.dms",
    ] {
        let run = scratch.untouched(|| scratch.dmsnap(line));
        run.fails(1, &["layer.dms", "feature"]);
    }
}

/// What there was of the second slot stayed as damage, and the first one was not believed.
#[test]
fn test_recovers_a_file_that_ends_inside_its_descriptor() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    let whole = scratch.read("layer.dms");
    let half = whole[4096..][..1000].to_vec();
    let cut = [&whole[..8192], &half].concat();
    scratch.write("layer.dms", &cut);
    let run = scratch.dmsnap("recover --output json layer.dms new.dms");
    let report = json_of(&run, 2);
    assert_eq!(
        (&report["virtual-size"], &report["missing-area"]),
        (&json!(SIZE), &json!(0))
    );
    scratch.dmsnap("recover --in-place layer.dms").exits(2);
    for layer in ["layer.dms", "new.dms"] {
        scratch.dmsnap(&format!("check {layer}")).succeeds();
        assert!(
            shown(&scratch, layer) == scratch.read("base.raw"),
            "{layer}"
        );
    }
}
