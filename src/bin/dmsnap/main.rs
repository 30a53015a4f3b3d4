//! `dmsnap`: creates, inspects, converts, merges, checks and repairs VM disk layers in the device-mapper snapshot format.
//!
//! Grammar, output and exit codes follow qemu-img and qemu-io, so that who knows those knows this. The tool uses the library's
//! public API only.
#![forbid(unsafe_code)]

mod amend;
mod args;
mod check;
mod compare;
mod convert;
mod create;
mod device;
mod dump;
mod failure;
mod gate;
mod info;
mod io;
mod map;
mod merge;
mod metadata;
mod output;
mod progress;
mod recover;
mod resize;
mod restore;
mod signal;
mod size;
mod snapshot;
mod source;
mod table;
mod target;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use failure::Failure;

/// VM disk layers in Linux device-mapper's persistent snapshot format
#[derive(Parser)]
#[command(name = "dmsnap", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
A layer holds what differs from the image below it, its backing or origin. The same file is a COW device for the kernel.

Sizes and offsets are bytes, or take a suffix: 4k, 16K, 1.5G (k, M, G, T, P, E are powers of 1024).

Exit codes: 0 done; 1 failed, or wrong usage; check, compare and recover have more (see their help); \
128 + N stopped by signal N after cleaning up.";

/// The subcommands, and what runs each.
#[derive(Subcommand)]
enum Command {
    Create(create::Args),
    Info(info::Args),
    Check(check::Args),
    Map(map::Args),
    Compare(compare::Args),
    Convert(convert::Args),
    Snapshot(snapshot::Args),
    Merge(merge::Args),
    Resize(resize::Args),
    Amend(amend::Args),
    Io(io::Args),
    Dump(dump::Args),
    Restore(restore::Args),
    Recover(recover::Args),
    Table(table::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> failure::Result<u8> {
    signal::outlive_file_size_limits()?;
    match command {
        Command::Create(args) => create::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Resize(args) => resize::run(&args),
        Command::Amend(args) => amend::run(&args),
        Command::Io(args) => io::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Table(args) => table::run(&args),
    }
}

/// Prints what clap has to say. Asking for help is no failure; wrong usage exits with 1 as in qemu-img, not with clap's 2.
fn usage(error: &clap::Error) -> ExitCode {
    match error.render().to_string().strip_prefix("error: ") {
        // As every other failure begins.
        Some(text) => output::complain(text.trim_end()),
        // Nothing can be done about a closed terminal.
        None => drop(error.print()),
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(Failure::GENERAL),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn test_grammar_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}
