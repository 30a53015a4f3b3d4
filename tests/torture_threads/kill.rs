//! Processes that are killed: the tool, or this very program as another process.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::budget::Random;

/// What a process that this program starts of itself has to know.
pub(crate) const DIRECTORY: &str = "DMSNAP_TEST_DIRECTORY";
pub(crate) const SEED: &str = "DMSNAP_TEST_SEED";

/// This program once more, to run only `test`, which finds `directory` and `seed` in its environment and so knows its part.
pub(crate) fn again(test: &str, directory: &Path, seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// What such a process was told, if this is one.
pub(crate) fn told() -> Option<(std::path::PathBuf, u64)> {
    let directory = std::env::var_os(DIRECTORY)?;
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    Some((directory.into(), seed))
}

pub(crate) fn kill(child: &mut Child) -> ExitStatus {
    // It may have ended by itself, which is no failure.
    let _ = child.kill();
    child.wait().unwrap()
}

/// How long a command takes, to draw moments from.
pub(crate) struct Moments {
    whole: Duration,
}

impl Moments {
    /// Of a command that ends with this code by itself: the least of some runs, each prepared by `command`.
    pub(crate) fn measured(code: i32, mut command: impl FnMut() -> Command) -> Moments {
        let mut run = || {
            let mut command = command();
            let begin = Instant::now();
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
            begin.elapsed()
        };
        let whole = run().min(run()).min(run());
        Moments { whole }
    }

    /// Runs a command and kills it at a moment of its life, or a little after. Gives whether it was alive.
    pub(crate) fn kill(&self, mut command: Command, random: &mut Random) -> bool {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(self.whole.mul_f64(random.below(1100) as f64 / 1000.0));
        kill(&mut child).code().is_none()
    }
}
