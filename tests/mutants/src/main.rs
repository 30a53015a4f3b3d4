//! Puts many mutants into one program: `mutants TREE < mutants.json > placed.json`.
//!
//! The input is what `cargo mutants --list --json` prints, with a number `id` for each. The files below TREE are changed so
//! that each mutant is there, asleep: `crate::mutant::is(id)` says whether it is the one that is awake. The output tells for each
//! where its text now stands, so that errors of the compiler can be laid at its door; what cannot be put in is not named there.

mod edits;
mod place;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::{env, fs};

use serde::{Deserialize, Serialize};

/// As cargo-mutants prints it, as far as needed.
#[derive(Clone, Debug, Deserialize)]
struct Mutant {
    id: u32,
    file: String,
    genre: String,
    replacement: String,
    span: Span,
}

#[derive(Clone, Debug, Deserialize)]
struct Span {
    start: Position,
}

/// Both from 1 on, columns in characters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Position {
    line: usize,
    column: usize,
}

/// Where in a changed file a mutant stands, in bytes.
#[derive(Debug, Serialize)]
struct Placed {
    id: u32,
    file: String,
    start: usize,
    end: usize,
}

fn main() {
    let tree = env::args().nth(1).expect("the directory of the sources");
    let mutants: Vec<Mutant> = serde_json::from_reader(io::stdin()).expect("mutants as JSON");
    let mut by_file: BTreeMap<String, Vec<Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_file.entry(mutant.file.clone()).or_default().push(mutant);
    }
    let mut placed = Vec::new();
    for (file, mutants) in by_file {
        let path = Path::new(&tree).join(&file);
        let source = fs::read_to_string(&path).expect("a source file");
        let edits = place::edits(&source, &mutants);
        let (text, places) = edits.apply(&source);
        fs::write(&path, text).expect("a file that can be written");
        placed.extend(places.into_iter().map(|(id, start, end)| Placed {
            id,
            file: file.clone(),
            start,
            end,
        }));
    }
    serde_json::to_writer(io::stdout(), &placed).expect("standard output");
}
