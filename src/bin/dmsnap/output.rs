//! What goes to standard output and standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Text for people, or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Human,
    Json,
}

/// Prints a line. A reader that has seen enough (`| head`) is no failure, and does not stop the work either.
pub(crate) fn line(text: impl Display) -> Result<()> {
    put(format_args!("{text}\n"))
}

/// A number of things, in the singular where it is one.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Prints text as it is.
pub(crate) fn put(text: impl Display) -> Result<()> {
    heard(write!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush()))
}

fn heard(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints a value as JSON, indented as qemu-img does. Bit by bit: there may be millions of exceptions.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    // Small, since what is printed may have taken nearly all memory.
    let mut out = BufWriter::with_capacity(4096, io::stdout().lock());
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, indent);
    let written = value.serialize(&mut serializer).map_err(io::Error::from);
    heard(
        written
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush()),
    )
}

/// Prints an error. Where standard error is closed there is nobody to tell.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "dmsnap: {text}");
}

/// Prints a warning.
pub(crate) fn warn(text: impl Display) {
    complain(format_args!("warning: {text}"));
}
