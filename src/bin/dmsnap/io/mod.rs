//! `dmsnap io`

mod command;
mod run;

use std::io::BufRead;
use std::path::PathBuf;

use dmsnap::Image;

use crate::args::{LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use command::Command;

/// Read and write a layer by commands, as qemu-io does
#[derive(clap::Args)]
#[command(after_help = command::HELP)]
pub(crate) struct Args {
    /// A command; again for more
    #[arg(short, long, value_name = "COMMAND")]
    cmd: Vec<String>,
    /// Open for reading only
    #[arg(short, long)]
    read_only: bool,
    /// Bypass the page cache
    #[arg(short, long)]
    nocache: bool,
    /// Take no lock: only with -r
    #[arg(short = 'U', long, requires = "read_only")]
    force_share: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    // A slip in the last command is found before the first one writes.
    let commands = args
        .cmd
        .iter()
        .map(|text| parse(text))
        .collect::<Result<Vec<_>>>()?;
    let options = args
        .origin
        .options()?
        .writable(!args.read_only)
        .direct(args.nocache)
        .lock(!args.force_share);
    let image = args.origin.open(&args.file, &options)?;
    let code = if args.cmd.is_empty() {
        interact(args, &image)?
    } else {
        execute(args, &image, &commands)?
    };
    image.close().about(&args.file)?;
    Ok(code)
}

fn parse(text: &str) -> Result<Command> {
    Command::parse(text).map_err(|reason| Failure::new(format!("command '{text}': {reason}")))
}

fn execute(args: &Args, image: &Image, commands: &[Command]) -> Result<u8> {
    let mut code = 0;
    for command in commands {
        if *command == Command::Quit {
            break;
        }
        code = code.max(one(args, image, command));
    }
    Ok(code)
}

/// Commands from standard input. A slip is no reason to leave.
fn interact(args: &Args, image: &Image) -> Result<u8> {
    let mut code = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Failure::new(format!("cannot read commands: {error}")))?;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse(text) {
            Ok(Command::Quit) => break,
            Ok(command) => code = code.max(one(args, image, &command)),
            Err(failure) => {
                failure.report();
                code = Failure::GENERAL;
            }
        }
    }
    Ok(code)
}

fn one(args: &Args, image: &Image, command: &Command) -> u8 {
    match run::run(image, command).map_err(|failure| failure.named(&args.file)) {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            Failure::GENERAL
        }
    }
}
