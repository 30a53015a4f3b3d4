//! The help is an interface: what it says is pinned. `DMSNAP_UPDATE_HELP=1` writes it anew after a change that is meant.

use std::fs;
use std::path::Path;

use crate::harness::Scratch;

const COMMANDS: [&str; 15] = [
    "create", "info", "check", "map", "compare", "convert", "snapshot", "merge", "resize", "amend",
    "io", "dump", "restore", "recover", "table",
];

fn pinned(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/help")
        .join(format!("{name}.txt"));
    if std::env::var_os("DMSNAP_UPDATE_HELP").is_some() {
        fs::write(&path, text).expect("the pinned help");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "the help of {name} is not what {} says:\n{text}",
        path.display()
    );
}

#[test]
fn test_help_is_what_was_agreed() {
    let scratch = Scratch::new();
    pinned("dmsnap", scratch.dmsnap("--help").succeeds());
    for command in COMMANDS {
        pinned(
            command,
            scratch.dmsnap(&format!("{command} --help")).succeeds(),
        );
        scratch.dmsnap(&format!("{command} -h")).succeeds();
    }
}

#[test]
fn test_help_lists_every_command() {
    let scratch = Scratch::new();
    let run = scratch.dmsnap("help");
    let listed: Vec<&str> = run
        .succeeds()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .collect();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn test_version_is_the_crates() {
    let run = Scratch::new().dmsnap("--version");
    assert_eq!(
        run.succeeds(),
        format!("dmsnap {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn test_wrong_usage_exits_with_1_and_says_what_was_wrong() {
    let scratch = Scratch::new();
    for (line, word) in [
        ("", "Usage"),
        ("frobnicate", "frobnicate"),
        ("--frobnicate", "--frobnicate"),
        ("create", "FILE"),
        ("create --frobnicate x", "--frobnicate"),
        ("create x 12q", "12q"),
        ("create x 1000", "512 and 1024"),
        ("create x 1M y", "'y'"),
        ("info", "FILE"),
        ("info --output xml x", "xml"),
        ("check -r everything x", "everything"),
        ("check -U -r all x", "--repair"),
        ("compare x", "FILE2"),
        ("convert x y", "--target-format"),
        ("convert -O qcow2 x y", "qcow2"),
        ("convert -O dmsnap -F raw x y", "--backing"),
        ("snapshot x", "NEW"),
        ("resize x", "SIZE"),
        ("resize x 100", "0 and 512"),
        ("amend x", "--backing"),
        (
            "amend --remove-descriptor --add-descriptor 1M x",
            "--add-descriptor",
        ),
        ("io -U x", "--read-only"),
        ("map --origin-format raw x", "--origin"),
        ("map --no-origin --origin y x", "--origin"),
        ("table x", "--cow-dev"),
    ] {
        let run = scratch.dmsnap(line);
        run.exits(1);
        // Without any word the help is what is wanted.
        assert!(
            line.is_empty() || run.stderr.starts_with("dmsnap: "),
            "{run:#?}"
        );
        assert!(run.stderr.contains(word), "{line}: no {word:?} in {run:#?}");
        assert_eq!(run.stdout, "", "{line}");
    }
}

#[test]
fn test_commands_on_layers_take_their_format_and_no_other() {
    let scratch = Scratch::new();
    for line in [
        "map FORMAT layer.dms",
        "resize -q FORMAT layer.dms +1M",
        "io FORMAT layer.dms -c length",
        "dump FORMAT layer.dms",
        "check FORMAT layer.dms",
        "merge -q FORMAT layer.dms",
        "amend -q FORMAT -b base.raw -F raw layer.dms",
        "table FORMAT layer.dms --origin-dev /dev/loop0 --cow-dev /dev/loop1",
        "snapshot -q FORMAT layer.dms top.dms",
    ] {
        scratch.base_and_layer();
        scratch
            .dmsnap(&line.replace("FORMAT", "-f dmsnap"))
            .succeeds();
        let run = scratch.untouched(|| scratch.dmsnap(&line.replace("FORMAT", "-f raw")));
        assert_ne!(run.code, 0, "{line}");
        run.fails(run.code, &["layer.dms", "raw"]);
    }
}

#[test]
fn test_one_thing_is_in_the_singular() {
    let scratch = Scratch::new();
    scratch.dmsnap("create -q layer.dms 1M").succeeds();
    scratch.io("layer.dms", &["write -q 0 512"]).succeeds();
    let told = scratch.dmsnap("dump layer.dms");
    assert!(
        told.succeeds().contains("exceptions: 1 in 1 run\n"),
        "{told:#?}"
    );
    scratch.poke("layer.dms", 16384 + 8, &[0xff, 0xff]);
    let told = scratch.dmsnap("check layer.dms");
    let text = told.exits(2);
    assert!(text.contains("\n1 corruption: "), "{text}");
    // Place and kind once, not again in the text.
    assert!(!text.contains(": corrupt at offset"), "{text}");
    assert_eq!(text.matches("offset 16384").count(), 1, "{text}");
}
