//! The man page says what the tool can do: every subcommand has a section, and every option of its help stands there.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::process::Command;

const MANUAL: &str = include_str!("../docs/dmsnap.1");

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_dmsnap"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "dmsnap {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn subcommands() -> Vec<String> {
    let help = help(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names = list.lines().take_while(|line| line.starts_with("  "));
    let names = names.filter(|line| !line.starts_with("   "));
    let first_words = names.filter_map(|line| line.split_whitespace().next());
    first_words
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The long options in a text, without values.
fn long_options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(str::to_owned)
        .collect()
}

/// The man page as plain text: minus signs without their backslashes.
fn manual() -> String {
    MANUAL.replace("\\-", "-")
}

/// The text from the heading `name` to the next heading of its level or above.
fn section(manual: &str, name: &str) -> String {
    let start = manual.find(&format!("\n{name}\n"));
    let text = &manual[start.unwrap_or_else(|| panic!("no section {name}")) + name.len() + 2..];
    let end = [text.find("\n.SS "), text.find("\n.SH ")];
    text[..end.into_iter().flatten().min().unwrap_or(text.len())].to_owned()
}

#[test]
fn test_every_option_stands_in_the_section_of_its_command() {
    let manual = manual();
    let shared = long_options(&section(&manual, ".SH OPTIONS OF SEVERAL COMMANDS"));
    assert!(shared.contains("--origin"));
    let names = subcommands();
    assert_eq!(names.len(), 15, "{names:?}");
    for name in names {
        let in_help = long_options(&help(&[&name, "--help"]));
        assert!(in_help.contains("--help"), "{name}");
        let described = long_options(&section(&manual, &format!(".SS {name}")));
        for option in &in_help {
            let found = described.contains(option) || shared.contains(option);
            assert!(
                found,
                "dmsnap {name} has {option}, the man page does not say so"
            );
        }
        for option in &described {
            assert!(
                in_help.contains(option),
                "the man page has {option} for {name}, the tool does not"
            );
        }
    }
}

#[test]
fn test_version_of_the_manual_is_the_tools() {
    let version = help(&["--version"]);
    assert_eq!(
        version.trim(),
        concat!("dmsnap ", env!("CARGO_PKG_VERSION"))
    );
    assert!(
        MANUAL.contains(&format!("\"{}\"", version.trim())),
        "the title line names another version"
    );
}
