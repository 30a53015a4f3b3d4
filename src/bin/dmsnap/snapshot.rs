//! `dmsnap snapshot`

use std::path::PathBuf;

use crate::args::{CreateSettings, LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output;

/// Put a new layer on top of a layer
#[derive(clap::Args)]
#[command(
    after_help = "NEW takes the writes from now on. FILE is its backing and must not be written any more."
)]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Options of the new layer: chunk_size=SIZE [default: that of FILE]
    #[arg(short, long, value_name = "NAME=VALUE,...")]
    options: Vec<String>,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer that is frozen
    file: PathBuf,
    /// The layer to create; must not exist
    new: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let settings = CreateSettings::parse(&args.options)?;
    if settings.bare.is_some()
        || settings.size.is_some()
        || settings.backing.is_some()
        || settings.backing_format.is_some()
    {
        return Err(Failure::new(
            "the new layer's size and backing are those of FILE: -o takes chunk_size only",
        ));
    }
    let options = args.origin.options()?.writable(true);
    let image = args.origin.open(&args.file, &options)?;
    image
        .snapshot(&args.new, settings.chunk_size)
        .about(&args.new)?;
    let chunk_size = image.chunk_size().bytes();
    image.close().about(&args.new)?;
    if !args.quiet {
        output::line(format_args!(
            "Created '{}' over '{}', chunk_size={chunk_size}",
            args.new.display(),
            args.file.display()
        ))?;
    }
    Ok(0)
}
