//! `dmsnap amend`

use std::path::PathBuf;

use dmsnap::format::Uuid;
use dmsnap::{Amend, OriginChoice};

use crate::args::{FormatArg, LayerFormat, OriginArgs, format_is_missing};
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
    /// Give a bare store a descriptor, with this size, or write a damaged one anew; needs chunks of 4096 bytes or more
    #[arg(long, value_name = "SIZE", value_parser = parse_disk_size, group = "changes")]
    add_descriptor: Option<u64>,
    /// UUID of the added descriptor, for layers above that know it [default: random]
    #[arg(long, value_name = "UUID", requires = "add_descriptor")]
    uuid: Option<Uuid>,
    /// Take the descriptor away, also a damaged one: size, backing and UUID are forgotten, and layers above refuse
    #[arg(long, group = "changes", conflicts_with_all = ["backing", "add_descriptor"])]
    remove_descriptor: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer to change
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let amend = changes(args)?;
    // The backing may be missing: naming another one is what this command is for.
    let options = args
        .origin
        .options_over(OriginChoice::Zeros)?
        .writable(true)
        // These two mend a descriptor.
        .ignore_descriptor_damage(args.add_descriptor.is_some() || args.remove_descriptor);
    let image = args.origin.open(&args.file, &options)?;
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
    if let Some(uuid) = args.uuid {
        amend = amend.uuid(uuid);
    }
    if args.remove_descriptor {
        amend = amend.remove_descriptor();
    }
    match (args.backing.as_deref(), args.backing_format) {
        (None, _) => Ok(amend),
        (Some(""), None) => Ok(amend.no_origin()),
        (Some(""), Some(_)) => Err(Failure::new("no backing has no format: leave -F out")),
        (Some(name), Some(format)) => Ok(amend.origin(name, format.into())),
        (Some(name), None) => Err(format_is_missing(name)),
    }
}
