//! The tool with system calls that fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{self, Run, Scratch};

/// Which calls count, in the letters of `shim.c`.
pub(crate) mod calls {
    pub(crate) const ALL: &str = "rwcsatkomdf";
    /// Those that may want space.
    pub(crate) const SPACE: &str = "wcsatm";
    /// Those that a signal may interrupt.
    pub(crate) const INTERRUPTIBLE: &str = "rwcsat";
    /// Those that may transfer less than they were asked for.
    pub(crate) const TRANSFERS: &str = "rwc";
}

/// What happens to the calls of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tampering {
    pub(crate) calls: &'static str,
    pub(crate) fault: Fault,
    /// Counted from 1; none is the 0th.
    pub(crate) nth: usize,
    /// From then on every so many calls, or just that one.
    pub(crate) every: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Errno(i32),
    Short,
}

/// How the tool did, and the calls it made: `!` before one that was tampered with, its name, the file.
#[derive(Debug)]
pub(crate) struct Shimmed {
    pub(crate) run: Run,
    pub(crate) calls: Vec<String>,
}

impl Shimmed {
    pub(crate) fn tampered(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter_map(|call| call.strip_prefix('!'))
    }
}

/// Runs a command of the tool under the shim.
pub(crate) fn run(scratch: &Scratch, args: &[&str], tampering: &Tampering) -> Shimmed {
    let log = scratch.path(LOG);
    let directory = fs::canonicalize(scratch.directory()).unwrap();
    let mut command = scratch.command(args);
    command
        .env("LD_PRELOAD", library())
        .env("SHIM_DIR", directory)
        .env("SHIM_LOG", &log)
        .env("SHIM_CALLS", tampering.calls)
        .env("SHIM_NTH", tampering.nth.to_string())
        .env("SHIM_EVERY", tampering.every.to_string());
    match tampering.fault {
        Fault::Short => command.env("SHIM_FAULT", "short"),
        Fault::Errno(errno) => command.env("SHIM_FAULT", errno.to_string()),
    };
    let run = harness::finish(command);
    let calls = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    Shimmed {
        run,
        calls: calls.lines().map(str::to_owned).collect(),
    }
}

const LOG: &str = "shim.log";

/// The shim as a library to be loaded first, built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-shim.so");
        // Another run of this test may be using one.
        let work = place.with_extension(std::process::id().to_string());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture_faults/shim.c");
        let options = [
            "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
        ];
        let mut cc = Command::new("cc");
        cc.args(options).arg(&work).args([source, "-ldl"]);
        assert!(cc.status().expect("cc runs").success(), "{cc:?}");
        fs::rename(&work, &place).unwrap();
        place
    })
}
