//! Commands that change something: files, exit codes, what is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{SIZE, Scratch, content, finish, layer_content};

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
    let run = finish(command);
    run.fails(1, &["frobnicate"]);
    assert_eq!(run.stdout, "read 512/512 bytes at offset 0\n");
}

#[test]
fn test_layer_that_is_taken_for_raw_bytes_is_told() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    for line in [
        "create -b layer.dms -F raw x.dms",
        "convert -O dmsnap -B layer.dms -F raw base.raw x.dms",
    ] {
        let run = scratch.dmsnap(line);
        run.succeeds();
        let words = "layer.dms: begins like a dmsnap layer";
        assert!(run.stderr.contains(words), "{run:#?}");
        let run = scratch.dmsnap(&line.replace("layer.dms -F raw", "base.raw -F raw"));
        run.succeeds();
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn test_dump_opens_nothing_but_its_file() {
    let scratch = Scratch::new();
    scratch.base_and_layer();
    scratch
        .dmsnap("dump --origin there-is-none layer.dms")
        .succeeds();
}
