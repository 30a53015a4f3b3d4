//! Being told to stop.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::failure::{Failure, Result};

/// Notes signals that ask to stop, for work that must tidy up first. A second one stops at once.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From here on such signals are noted instead of ending the process.
    pub(crate) fn catch() -> Result<Interrupt> {
        let signal = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        // By nohup, or a shell that has put the program into the background.
        let ignored = ignored_signals();
        let heeded = |number: &i32| ignored >> (number - 1) & 1 == 0;
        for number in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(heeded) {
            // In this order: the first signal sets what the second one finds.
            flag::register_conditional_shutdown(
                number,
                exit_code(number as usize).into(),
                again.clone(),
            )
            .and_then(|_| flag::register(number, again.clone()))
            .and_then(|_| flag::register_usize(number, signal.clone(), number as usize))
            .map_err(|error| Failure::new(format!("cannot catch signals: {error}")))?;
        }
        Ok(Interrupt { signal })
    }

    /// Whether a signal came.
    pub(crate) fn is_pending(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// A failure if a signal came.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(Failure::new(format!("stopped by signal {number}: {what}"))
                .with_code(exit_code(number))),
        }
    }
}

/// A write past the limit on the size of files (`ulimit -f`) fails from here on, as one to a full disk does, instead of ending the
/// process before it has tidied up.
pub(crate) fn outlive_file_size_limits() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default())
        .map(drop)
        .map_err(|error| Failure::new(format!("cannot catch signals: {error}")))
}

/// The signals that whoever started this process has it ignore, signal 1 in the lowest bit.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// As shells report a process that a signal ended.
fn exit_code(signal: usize) -> u8 {
    u8::try_from(signal + 128).unwrap_or(u8::MAX)
}
