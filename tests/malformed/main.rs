//! Every malformed field of a store, and what becomes of it when it is opened, read, written, merged, checked and repaired.
//!
//! The table is in `table.rs`. `docs/malformed.md` shows it: `DMSNAP_UPDATE_MALFORMED=1 cargo test --test malformed` writes that file.
//! Stores that a kernel made come from `common/twins.rs`, which `tests/kernel` lets the kernel judge.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../common/crc32.rs"]
mod crc32;
#[path = "../common/golden.rs"]
mod golden;
#[path = "../common/library.rs"]
mod library;
mod outcome;
#[path = "../common/pattern.rs"]
mod pattern;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod reference;
mod stores;
mod table;
#[path = "../common/twins.rs"]
mod twins;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use table::{COLUMNS, Row};

#[test]
fn test_every_row_comes_out_as_the_table_says() {
    let mut wrong = String::new();
    for row in table::all() {
        let found = outcome::of(&stores::store(&row));
        if found.each_ref().map(String::as_str) != row.outcomes {
            writeln!(
                wrong,
                "{}: found {found:?}, wanted {:?}",
                row.name, row.outcomes
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What the kernel is asked about is in the table, and nothing is twice.
#[test]
fn test_the_table_has_every_twin_once() {
    let rows = table::all();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a name stands twice");
    for twin in twins::all() {
        assert!(
            names.contains(twin.name.as_str()),
            "no row for {}",
            twin.name
        );
    }
}

#[test]
fn test_the_document_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/malformed.md");
    let text = render(&table::all());
    if std::env::var_os("DMSNAP_UPDATE_MALFORMED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/malformed.md: run DMSNAP_UPDATE_MALFORMED=1 cargo test --test malformed"
    );
}

const INTRODUCTION: &str = "\
# Malformed stores

What dmsnap does with each field that can be wrong. `tests/malformed` holds this table and tests every cell; do not edit it here.
The first column says what belongs together: rows with one number are about one rule, and a name is the field of the image descriptor
([format.md](format.md), section 4). Names begin with the store that was damaged: the golden stores of the tests were made by a kernel.

- **open**: to read. A word such as `Corrupt` is the kind of the error; `warns` means that a warning tells of the damage.
- **read**: `right` is what the undamaged rules of the format show.
- **write**: opened to be written, written in several places, closed, opened again and compared.
- **merge**: into the origin, which then shows what the image did.
- **check**: what `dmsnap check` finds, or the kind of its error.
- **repair**: what is left after `dmsnap check -r all`; `untouched` means that not a byte was changed.
";

fn render(rows: &[Row]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let line = |text: &mut String, cells: &[&str]| {
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    };
    text.push('\n');
    line(
        &mut text,
        &[&["rule", "store and damage"][..], &COLUMNS].concat(),
    );
    line(&mut text, &["---"; 8]);
    for row in rows {
        line(
            &mut text,
            &[&[row.rule, row.name][..], &row.outcomes].concat(),
        );
    }
    text
}
