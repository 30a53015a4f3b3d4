//! The help is an interface: what it says is pinned. `DMSNAP_UPDATE_HELP=1` writes it anew after a change that is meant.

use std::fs;
use std::path::Path;

use crate::harness::Scratch;

const COMMANDS: [&str; 13] = [
    "create", "info", "check", "map", "compare", "convert", "snapshot", "merge", "resize", "amend",
    "io", "dump", "table",
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
        assert!(run.stderr.contains(word), "{line}: no {word:?} in {run:#?}");
        assert_eq!(run.stdout, "", "{line}");
    }
}
