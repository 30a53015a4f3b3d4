//! Damaged descriptor slots lose nothing, are told with their place, and can be mended; what `amend` records.

use crate::harness::{Run, Scratch, content};

/// Slots of a layer with chunks of 16 KiB.
const SLOTS: [u64; 2] = [4096, 8192];

/// A layer of 9 MiB over a base of 4 MiB, with flushed data past the size that its older slot gives. The newer slot is the second.
fn grown() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(3, 4 << 20));
    scratch
        .dmsnap("create -q -b base.raw -F raw layer.dms")
        .succeeds();
    scratch.dmsnap("resize -q layer.dms 9M").succeeds();
    scratch
        .io("layer.dms", &["write -q -P 0x5a 8M 64k", "flush"])
        .succeeds();
    scratch
}

fn uuid(scratch: &Scratch, file: &str) -> String {
    let info = scratch.dmsnap(&format!("info --output json {file}")).json();
    info["format-specific"]["data"]["uuid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Flips a bit.
fn damage(scratch: &Scratch, file: &str, offset: u64) {
    let byte = scratch.read(file)[offset as usize];
    scratch.poke(file, offset, &[byte ^ 1]);
}

#[track_caller]
fn has_data(scratch: &Scratch) {
    scratch
        .io("layer.dms", &["read -q -P 0x5a 8M 64k"])
        .succeeds();
}

#[track_caller]
fn warns(run: &Run, words: &[&str]) {
    run.succeeds();
    for word in ["warning: "].iter().chain(words) {
        assert!(run.stderr.contains(word), "no {word:?} in {run:#?}");
    }
}

#[test]
fn test_data_past_the_size_in_the_older_slot_is_never_dropped() {
    // The size, the checksum, the magic.
    for at in [44, 12, 0] {
        let scratch = grown();
        let id = uuid(&scratch, "layer.dms");
        damage(&scratch, "layer.dms", SLOTS[1] + at);
        for line in [
            "io layer.dms -c flush",
            "resize layer.dms 5M",
            "snapshot layer.dms top.dms",
            "merge layer.dms",
            "amend -b base.raw -F raw layer.dms",
            "amend --add-descriptor 8M layer.dms",
            "table layer.dms --origin-dev /dev/loop0 --cow-dev /dev/loop1",
        ] {
            let run = scratch.untouched(|| scratch.dmsnap(line));
            run.exits(1);
            assert!(run.stderr.contains("layer.dms"), "{line}: {run:#?}");
            if !line.starts_with("table") {
                run.fails(1, &["slot 2", "offset 8192", "larger", "--add-descriptor"]);
            }
        }
        for line in ["check layer.dms", "check -r all layer.dms"] {
            let run = scratch.untouched(|| scratch.dmsnap(line));
            let told = run.exits(2);
            assert!(told.contains("corruption at offset 8192: slot 2"), "{told}");
            assert!(told.contains("4 exceptions lie past the end"), "{told}");
        }
        // Who only reads is warned.
        for line in [
            "io -r layer.dms -c length",
            "info layer.dms",
            "map layer.dms",
        ] {
            let run = scratch.untouched(|| scratch.dmsnap(line));
            warns(&run, &["layer.dms", "slot 2", "offset 8192"]);
        }
        scratch
            .dmsnap("amend -q --add-descriptor 9M layer.dms")
            .succeeds();
        has_data(&scratch);
        assert_eq!(uuid(&scratch, "layer.dms"), id);
        let run = scratch.dmsnap("check layer.dms");
        assert!(run.succeeds().contains("No errors"), "{run:#?}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn test_damage_in_the_slot_that_does_not_count_is_told_and_mended() {
    let scratch = grown();
    damage(&scratch, "layer.dms", SLOTS[0] + 44);
    let run = scratch.untouched(|| scratch.dmsnap("check layer.dms"));
    let told = run.exits(3);
    assert!(
        told.contains("repairable at offset 4096: slot 1 of the image descriptor"),
        "{told}"
    );
    warns(
        &scratch.dmsnap("info layer.dms"),
        &["slot 1", "offset 4096"],
    );
    scratch.dmsnap("check -r all layer.dms").succeeds();
    scratch
        .untouched(|| scratch.dmsnap("check layer.dms"))
        .succeeds();
    let run = scratch.dmsnap("info layer.dms");
    assert!(run.succeeds().contains("9437184 bytes"), "{run:#?}");
    assert_eq!(run.stderr, "");
    has_data(&scratch);
}

#[test]
fn test_both_slots_damaged_leaves_ways_out() {
    let spoiled = || {
        let scratch = grown();
        SLOTS
            .iter()
            .for_each(|slot| damage(&scratch, "layer.dms", slot + 44));
        scratch
    };
    let scratch = spoiled();
    let words = ["slot 1", "offset 4096", "slot 2", "offset 8192", "amend"];
    for line in ["io layer.dms -c flush", "map layer.dms", "info layer.dms"] {
        scratch.untouched(|| scratch.dmsnap(line)).fails(1, &words);
    }
    let run = scratch.untouched(|| scratch.dmsnap("check -r all layer.dms"));
    let told = run.exits(2);
    assert!(told.contains("corruption at offset 4096: slot 1"), "{told}");
    assert!(told.contains("corruption at offset 8192: slot 2"), "{told}");
    // A bare store from here on.
    scratch
        .dmsnap("amend -q --remove-descriptor layer.dms")
        .succeeds();
    scratch
        .io("layer.dms", &["flush"])
        .fails(1, &["bare store", "--origin"]);
    let args = "io -r --origin base.raw --disk-size 9M layer.dms -c";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.push("read -q -P 0x5a 8M 64k");
    scratch.run(&args).succeeds();
    assert!(
        scratch.read("layer.dms")[4096..12288]
            .iter()
            .all(|byte| *byte == 0)
    );
    // Or with a new descriptor, all at once.
    let scratch = spoiled();
    scratch
        .dmsnap("amend -q --add-descriptor 9M -b base.raw -F raw layer.dms")
        .succeeds();
    has_data(&scratch);
    scratch.dmsnap("check layer.dms").succeeds();
}

#[test]
fn test_names_longer_than_a_sector_are_written_and_replaced() {
    let scratch = grown();
    let long = format!("{}base.raw", "./".repeat(300));
    for name in [long.as_str(), "base.raw", long.as_str(), long.as_str()] {
        let args = ["amend", "-q", "-b", name, "-F", "raw", "layer.dms"];
        scratch.run(&args).succeeds();
        let run = scratch.dmsnap("check layer.dms");
        assert!(run.succeeds().contains("No errors"), "{run:#?}");
        let info = scratch.dmsnap("info --output json layer.dms").json();
        assert_eq!(info["backing-filename"], name);
        has_data(&scratch);
    }
}

#[test]
fn test_descriptor_that_comes_back_can_have_the_same_uuid() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot -q layer.dms top.dms").succeeds();
    let id = uuid(&scratch, "layer.dms");
    scratch
        .dmsnap("amend -q --remove-descriptor layer.dms")
        .succeeds();
    let add = "amend -q -b base.raw -F raw layer.dms --add-descriptor 1049088";
    scratch.dmsnap(add).succeeds();
    scratch.dmsnap("map top.dms").fails(1, &["UUID"]);
    scratch
        .dmsnap(&format!("{add} --uuid {id}"))
        .fails(1, &["the UUID of an image that has one stays"]);
    scratch
        .dmsnap("amend -q --remove-descriptor layer.dms")
        .succeeds();
    scratch.dmsnap(&format!("{add} --uuid {id}")).succeeds();
    scratch.dmsnap("map top.dms").succeeds();
    assert_eq!(uuid(&scratch, "layer.dms"), id);
}

#[test]
fn test_amend_makes_no_loop() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch.dmsnap("snapshot -q layer.dms top.dms").succeeds();
    scratch.dmsnap("snapshot -q top.dms third.dms").succeeds();
    scratch
        .untouched(|| scratch.dmsnap("amend -b layer.dms -F dmsnap layer.dms"))
        .fails(1, &["layer.dms", "cannot be its own origin"]);
    for above in ["top.dms", "third.dms"] {
        scratch
            .untouched(|| scratch.dmsnap(&format!("amend -b {above} -F dmsnap layer.dms")))
            .fails(1, &["layer.dms", above, "lies over this very image"]);
    }
}

#[test]
fn test_backing_that_nobody_looked_at_has_no_size_to_warn_of() {
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(1, 1 << 20));
    scratch
        .dmsnap("create -q -u -b base.raw -F raw layer.dms 2M")
        .succeeds();
    let run = scratch.dmsnap("map layer.dms");
    run.succeeds();
    assert_eq!(run.stderr, "");
    scratch.dmsnap("merge -q layer.dms").succeeds();
}
