//! `dmsnap amend`

use std::path::PathBuf;

use dmsnap::{Amend, Image, OriginChoice};

use crate::args::{FormatArg, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output;
use crate::size::parse_disk_size;

/// Change what a layer records: its backing, or whether it has a descriptor
#[derive(clap::Args)]
#[command(after_help = "\
The content below is not compared: a backing that is not the same shows another disk. Nothing but FILE is opened, \
except to record size and UUID of a new backing.")]
#[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Name of the backing; a relative one starts at FILE's directory; '' for none
    #[arg(short, long, value_name = "BACKING", group = "changes")]
    backing: Option<String>,
    /// Format of the backing; it is never guessed
    #[arg(short = 'F', long, value_name = "FMT", requires = "backing")]
    backing_format: Option<FormatArg>,
    /// Give a bare store a descriptor, with this size; needs chunks of 4096 bytes or more
    #[arg(long, value_name = "SIZE", value_parser = parse_disk_size, group = "changes")]
    add_descriptor: Option<u64>,
    /// Take the descriptor away: size and backing are forgotten
    #[arg(long, group = "changes", conflicts_with_all = ["backing", "add_descriptor"])]
    remove_descriptor: bool,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer to change
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let amend = changes(args)?;
    // The backing may be missing: naming another one is what this command is for.
    let options = args
        .origin
        .options_over(OriginChoice::Zeros)?
        .writable(true);
    let image = Image::open(&args.file, &options).about(&args.file)?;
    image.warnings().iter().for_each(output::warn);
    image.amend(&amend).about(&args.file)?;
    image.close().about(&args.file)?;
    if !args.quiet {
        output::line(format_args!("Amended '{}'.", args.file.display()))?;
    }
    Ok(0)
}

fn changes(args: &Args) -> Result<Amend> {
    let mut amend = Amend::new();
    if let Some(size) = args.add_descriptor {
        amend = amend.add_descriptor(size);
    }
    if args.remove_descriptor {
        amend = amend.remove_descriptor();
    }
    match (args.backing.as_deref(), args.backing_format) {
        (None, _) => Ok(amend),
        (Some(""), None) => Ok(amend.no_origin()),
        (Some(""), Some(_)) => Err(Failure::new("no backing has no format: leave -F out")),
        (Some(name), Some(format)) => Ok(amend.origin(name, format.into())),
        (Some(name), None) => Err(Failure::new(format!(
            "the format of the backing \"{name}\" is missing, and it is never guessed: say -F raw or -F dmsnap"
        ))),
    }
}
