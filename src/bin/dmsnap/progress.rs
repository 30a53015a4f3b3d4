//! How far a long operation is: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Result;
use crate::output;

/// Shows progress, if the user asked for it.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Not asked for.
    Silent,
    /// On a terminal.
    Bar(ProgressBar),
    /// Into a file or pipe: a line for each whole percent, so that a log stays short.
    Lines { total: u64, shown: Option<u64> },
}

impl Progress {
    /// Progress towards `total` units; `wanted` is -p.
    pub(crate) fn new(wanted: bool, total: u64) -> Progress {
        if !wanted {
            Progress::Silent
        } else if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
            Progress::bar(total)
        } else {
            Progress::Lines { total, shown: None }
        }
    }

    fn bar(total: u64) -> Progress {
        let bar =
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        // A template that does not parse would be our own slip; the plain bar does then.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} % {eta:>4} left") {
            bar.set_style(style);
        }
        Progress::Bar(bar)
    }

    /// Shows that `done` units are done.
    pub(crate) fn set(&mut self, done: u64) -> Result<()> {
        match self {
            Progress::Silent => Ok(()),
            Progress::Bar(bar) => {
                bar.set_position(done);
                Ok(())
            }
            Progress::Lines { total, shown } => {
                let share = percent(done, *total);
                if *shown == Some(share as u64) {
                    return Ok(());
                }
                *shown = Some(share as u64);
                output::line(format_args!("    ({share:.2}/100%)"))
            }
        }
    }

    /// Shows that all is done.
    pub(crate) fn finish(&mut self) -> Result<()> {
        match self {
            Progress::Bar(bar) => {
                bar.finish_and_clear();
                Ok(())
            }
            Progress::Lines { total, .. } => {
                let total = *total;
                self.set(total)
            }
            Progress::Silent => Ok(()),
        }
    }
}

impl Drop for Progress {
    /// A message that follows must not be drawn over.
    fn drop(&mut self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Nothing to do counts as done.
fn percent(done: u64, total: u64) -> f64 {
    match total {
        0 => 100.0,
        _ => done as f64 * 100.0 / total as f64,
    }
}
