//! Measures the library and the tool against plain system calls on raw files, side by side in one run, and prints a table of ratios.
//!
//! `cargo bench -- WORD...` measures only rows whose names contain one of the words. Files are made below `target/`, which must
//! be on a real file system for the figures to mean anything.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run is to stop")]

mod copying;
mod files;
mod first_writes;
mod harness;
mod mapped;
mod memory;
mod opening;

fn main() {
    // Cargo passes `--bench`.
    let words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let mut table = harness::Table::new(words.collect());
    mapped::run(&mut table);
    first_writes::run(&mut table);
    opening::run(&mut table);
    copying::run(&mut table);
    table.finish();
}
