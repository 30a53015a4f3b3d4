//! The dmsetup lines, and what is done to the file so that a kernel can write to it.

use crate::harness::{Scratch, content};

/// A base of `base` bytes and a layer of `disk` bytes over it, in chunks of 4 KiB.
fn layer(base: usize, disk: u64) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(1, base));
    scratch
        .dmsnap(&format!(
            "create -q -o chunk_size=4k -b base.raw -F raw layer.dms {disk}"
        ))
        .succeeds();
    scratch
}

const DEVICES: &str = "--origin-dev /dev/loop0 --cow-dev /dev/loop1";

fn lines(scratch: &Scratch, options: &str) -> Vec<String> {
    let run = scratch.dmsnap(&format!("table {options} layer.dms"));
    run.succeeds().lines().map(str::to_owned).collect()
}

#[test]
fn test_layer_as_long_as_its_origin() {
    let scratch = layer(1 << 20, 1 << 20);
    assert_eq!(
        lines(&scratch, DEVICES),
        ["dmsetup create layer --table '0 2048 snapshot /dev/loop0 /dev/loop1 PO 8'"]
    );
    let named = lines(&scratch, &format!("{DEVICES} --name vm1"));
    assert_eq!(
        named,
        ["dmsetup create vm1 --table '0 2048 snapshot /dev/loop0 /dev/loop1 PO 8'"]
    );
}

#[test]
fn test_shorter_layer_needs_nothing_below() {
    let scratch = layer(1 << 20, 1 << 19);
    assert_eq!(
        lines(&scratch, DEVICES),
        ["dmsetup create layer --table '0 1024 snapshot /dev/loop0 /dev/loop1 PO 8'"]
    );
}

#[test]
fn test_longer_layer_gets_zeros_below() {
    let scratch = layer(1 << 20, 3 << 19);
    assert_eq!(
        lines(&scratch, DEVICES),
        [
            "printf '%s\\n' '0 2048 linear /dev/loop0 0' '2048 1024 zero' | dmsetup create layer-origin",
            "dmsetup create layer --table '0 3072 snapshot /dev/mapper/layer-origin /dev/loop1 PO 8'",
        ]
    );
}

#[test]
fn test_layer_over_nothing_gets_zeros_below() {
    let scratch = Scratch::new();
    scratch.dmsnap("create -q layer.dms 1M").succeeds();
    assert_eq!(
        lines(&scratch, "--cow-dev /dev/loop1"),
        [
            "dmsetup create layer-origin --table '0 2048 zero'",
            "dmsetup create layer --table '0 2048 snapshot /dev/mapper/layer-origin /dev/loop1 PO 32'",
        ]
    );
}

#[test]
fn test_layer_over_a_layer_says_what_the_device_has_to_be() {
    let scratch = layer(1 << 20, 1 << 20);
    scratch.dmsnap("snapshot layer.dms top.dms").succeeds();
    let run = scratch.dmsnap(&format!("table {DEVICES} top.dms"));
    let first = run.succeeds().lines().next().unwrap_or_default();
    assert!(
        first.starts_with("# /dev/loop0 has to show") && first.contains("layer.dms"),
        "{first}"
    );
}

#[test]
fn test_bare_store_with_its_origin_named() {
    let scratch = layer(1 << 20, 1 << 20);
    scratch
        .dmsnap("amend --remove-descriptor layer.dms")
        .succeeds();
    scratch
        .dmsnap(&format!("table {DEVICES} layer.dms"))
        .fails(1, &["layer.dms", "--origin"]);
    assert_eq!(
        lines(&scratch, &format!("{DEVICES} --origin base.raw")).len(),
        1
    );
    assert_eq!(
        lines(
            &scratch,
            &format!("{DEVICES} --origin base.raw --disk-size 2M")
        )
        .len(),
        2
    );
}

#[test]
fn test_what_cannot_be_attached_is_refused() {
    let scratch = layer(1 << 20, 1 << 20);
    scratch
        .untouched(|| scratch.dmsnap("table --cow-dev /dev/loop1 layer.dms"))
        .fails(1, &["layer.dms", "--origin-dev"]);
    let run = scratch.untouched(|| {
        scratch.run(&[
            "table",
            "--origin-dev",
            "/dev/x y",
            "--cow-dev",
            "/dev/z",
            "layer.dms",
        ])
    });
    run.fails(1, &["/dev/x y"]);
    // The kernel would see the base without its last bytes.
    let scratch = layer(1000, 1024);
    scratch
        .untouched(|| scratch.dmsnap(&format!("table {DEVICES} layer.dms")))
        .fails(1, &["base.raw", "1000", "488"]);
}

#[test]
fn test_lines_that_no_kernel_takes_are_not_printed() {
    let scratch = layer(1 << 20, 1 << 20);
    let long = "x".repeat(121);
    for (name, code) in [
        ("a/b", 1),
        ("a b", 1),
        ("", 1),
        (long.as_str(), 1),
        (&long[1..], 0),
    ] {
        let mut args = vec!["table", "layer.dms", "--name", name];
        args.extend(DEVICES.split(' '));
        let run = scratch.run(&args);
        match code {
            0 => _ = run.succeeds(),
            _ => run.fails(1, &["--name", name]),
        }
    }
    scratch
        .untouched(|| {
            scratch.dmsnap("table layer.dms --origin-dev /dev/loop0 --cow-dev /dev/loop0")
        })
        .fails(1, &["/dev/loop0", "both"]);
    scratch.dmsnap("create -q alone.dms 1M").succeeds();
    scratch
        .untouched(|| scratch.dmsnap(&format!("table alone.dms {DEVICES}")))
        .fails(1, &["alone.dms", "no backing", "/dev/loop0"]);
}

/// A device that is not there yet cannot be asked.
#[test]
fn test_small_chunks_are_warned_of() {
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(2, 1 << 20));
    for (size, warned) in [("512", true), ("2048", true), ("4096", false)] {
        scratch
            .dmsnap(&format!("create -q --bare -o chunk_size={size} layer.dms"))
            .succeeds();
        let devices = "--origin-dev /dev/there-is-none --cow-dev /dev/nor-this";
        let run = scratch.dmsnap(&format!(
            "table --cover --origin base.raw {devices} layer.dms"
        ));
        run.succeeds();
        let words = format!("chunks of {size} bytes; a kernel refuses them if");
        assert_eq!(run.stderr.contains(&words), warned, "{run:#?}");
    }
}

#[test]
fn test_file_is_made_a_whole_number_of_chunks() {
    let scratch = layer(1 << 20, 1 << 20);
    scratch.io("layer.dms", &["write -P 1 0 4k"]).succeeds();
    let mut bytes = scratch.read("layer.dms");
    let whole = bytes.len();
    bytes.resize(whole + 100, 0);
    scratch.write("layer.dms", &bytes);
    lines(&scratch, DEVICES);
    assert_eq!(scratch.read("layer.dms").len(), whole + 4096);
    scratch.io("layer.dms", &["read -P 1 0 4k"]).succeeds();
}

/// As many chunks as the disk has, and one area for each full one and the last: the file never ends behind a full area.
#[test]
fn test_cover_makes_room_for_every_chunk() {
    for chunks in [1u64, 255, 256, 257, 511, 512, 600] {
        let scratch = layer(4096, chunks * 4096);
        let run = scratch.dmsnap(&format!("table {DEVICES} layer.dms"));
        run.succeeds();
        let plural = if chunks == 1 { "" } else { "s" };
        assert!(
            run.stderr
                .contains(&format!("of the {chunks} chunk{plural} that")),
            "{run:#?}"
        );
        let run = scratch.dmsnap(&format!("table --cover {DEVICES} layer.dms"));
        run.succeeds();
        assert_eq!(run.stderr, "");
        assert_eq!(
            scratch.read("layer.dms").len() as u64,
            (2 + chunks + chunks / 256) * 4096,
            "{chunks}"
        );
        scratch
            .untouched(|| scratch.dmsnap(&format!("table --cover {DEVICES} layer.dms")))
            .succeeds();
        scratch.dmsnap("check layer.dms").succeeds();
    }
}

/// The kernel goes on behind the highest chunk in use, so holes cost room.
#[test]
fn test_cover_counts_holes() {
    let scratch = Scratch::new();
    let mut store = vec![0; 6 * 512];
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x01\0\0\0");
    store[512..][..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    scratch.write("layer.dms", &store);
    scratch.write("base.raw", &content(2, 30 * 512));
    scratch
        .dmsnap(&format!(
            "table --cover --origin base.raw {DEVICES} layer.dms"
        ))
        .succeeds();
    // 30 chunks and 3 holes: 33 data chunks, one area full, so a second one.
    assert_eq!(scratch.read("layer.dms").len(), (2 + 33 + 1) * 512);
}

#[test]
fn test_file_does_not_end_behind_a_full_area() {
    let scratch = Scratch::new();
    scratch
        .dmsnap("create -q --bare -o chunk_size=512 layer.dms")
        .succeeds();
    scratch.write("base.raw", &content(2, 1 << 20));
    for (chunks, fit) in [(33, 33), (34, 35), (35, 35), (67, 68)] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(scratch.path("layer.dms"))
            .unwrap();
        file.set_len(chunks * 512).unwrap();
        scratch
            .dmsnap(&format!("table --origin base.raw {DEVICES} layer.dms"))
            .succeeds();
        assert_eq!(scratch.read("layer.dms").len(), fit * 512, "{chunks}");
    }
}

#[test]
fn test_stale_slots_are_cleared_first() {
    let scratch = layer(1 << 20, 1 << 20);
    scratch.io("layer.dms", &["write -P 1 0 4k"]).succeeds();
    scratch.poke("layer.dms", 4096 + 16 * 7, &[9; 16]);
    let run = scratch.dmsnap(&format!("table {DEVICES} layer.dms"));
    run.succeeds();
    assert!(run.stderr.contains("removed 1 trace"), "{run:#?}");
    assert_eq!(scratch.read("layer.dms")[4096 + 16 * 7..][..16], [0; 16]);
    scratch.io("layer.dms", &["read -P 1 0 4k"]).succeeds();
    // A damaged store is not handed to a kernel, which would not notice.
    scratch.poke("layer.dms", 4096 + 8, &[0xff, 0xff]);
    scratch
        .untouched(|| scratch.dmsnap(&format!("table {DEVICES} layer.dms")))
        .fails(1, &["layer.dms", "corrupt"]);
}
