//! The tool, as a user runs it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `dmsnap` with these arguments in `directory`.
pub(crate) fn run<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dmsnap"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap()
}

/// The same, which has to work. What it printed.
#[track_caller]
pub(crate) fn ok<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> String {
    let output = run(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
