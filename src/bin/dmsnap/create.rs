//! `dmsnap create`

use std::path::PathBuf;

use dmsnap::storage::Storage;
use dmsnap::{CreateOptions, Format, Image};

use crate::args::{CreateSettings, FormatArg, once};
use crate::failure::{About, Failure, Result};
use crate::size::parse_disk_size;
use crate::target::{self, Target};
use crate::{gate, output, source};

/// Create a layer, empty over its backing
#[derive(clap::Args)]
#[command(after_help = "\
An existing file is replaced, unless somebody uses it; it stays as it is if anything fails. A block device is written \
in place. Chunks under 4096 bytes have no room for size and backing: they need --bare.")]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Format of the new file
    #[arg(short, long, value_name = "FMT", default_value = "dmsnap")]
    format: FormatArg,
    /// The image that the new one lies over; a relative name starts at FILE's directory
    #[arg(short, long, value_name = "BACKING")]
    backing: Option<String>,
    /// Format of the backing; it is never guessed
    #[arg(short = 'F', long, value_name = "FMT")]
    backing_format: Option<FormatArg>,
    /// Do not look at the backing, which need not exist
    #[arg(short = 'u', long)]
    backing_unsafe: bool,
    #[arg(short, long, value_name = "NAME=VALUE,...", help = format!("Options: {}", CreateSettings::NAMES))]
    options: Vec<String>,
    /// A store as the kernel makes it: records neither size nor backing
    #[arg(long)]
    bare: bool,
    /// The file to create
    file: PathBuf,
    /// Size of the disk [default: that of the backing]
    #[arg(value_parser = parse_disk_size)]
    size: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let settings = merge_settings(args)?;
    match args.format {
        FormatArg::Raw => create_raw(args, &settings)?,
        FormatArg::Dmsnap => create_layer(args, &settings)?,
    }
    Ok(0)
}

/// Everything that may be said with an option of its own or with -o.
fn merge_settings(args: &Args) -> Result<CreateSettings> {
    let mut settings = CreateSettings::parse(&args.options)?;
    once("size", &mut settings.size, args.size)?;
    settings.take_backing(args.backing.as_ref(), args.backing_format)?;
    once("bare switch", &mut settings.bare, args.bare.then_some(true))?;
    Ok(settings)
}

fn create_raw(args: &Args, settings: &CreateSettings) -> Result<()> {
    if !settings.suit_raw() {
        return Err(Failure::new(
            "a raw image has no backing, no chunks and no descriptor",
        ));
    }
    let Some(size) = settings.size else {
        return Err(Failure::at(&args.file, "a raw image needs a size"));
    };
    let target = Target::prepare(&args.file, &[])?;
    let storage =
        target::raw_storage(&target, size).map_err(|failure| target.rename_in(failure))?;
    if target.is_block_device() {
        // As with any device, what is on it stays.
        if !args.quiet {
            output::line(format_args!(
                "'{}' has room for {size} bytes; nothing was written to it",
                args.file.display()
            ))?;
        }
        return Ok(());
    }
    let flushed = storage.flush().about(&args.file);
    flushed.map_err(|failure| target.rename_in(failure))?;
    drop(storage);
    target.commit()?;
    say(args, format_args!("fmt=raw size={size}"))
}

fn create_layer(args: &Args, settings: &CreateSettings) -> Result<()> {
    let mut options = create_options(args, settings)?;
    let sources = match (&settings.backing, settings.backing_format) {
        (Some(name), Some(format)) => {
            let backing = target::directory(&args.file).join(name);
            if format == Format::Raw && !args.backing_unsafe {
                source::warn_of_layer_as_raw(&backing);
            }
            // The name as the user has it may be that of a link, which leads to another directory.
            options = options.origin_path(&backing);
            gate::chain(&backing, format)
        }
        _ => Vec::new(),
    };
    let target = Target::prepare(&args.file, &sources)?;
    let options = options.create_on_existing(target.is_block_device());
    Image::create(target.work(), &options)
        .about(target.work())
        .map_err(|failure| target.rename_in(failure))?;
    target.commit()?;
    let chunk_size = settings.chunk_size().bytes();
    if settings.bare == Some(true) {
        return say(
            args,
            format_args!("fmt=dmsnap chunk_size={chunk_size} bare=on"),
        );
    }
    let size = dmsnap::inspect(&args.file).about(&args.file)?.virtual_size;
    let backing = match (&settings.backing, settings.backing_format) {
        (Some(name), Some(format)) => format!(" backing_file={name} backing_fmt={}", format.name()),
        _ => String::new(),
    };
    say(
        args,
        format_args!("fmt=dmsnap chunk_size={chunk_size} size={size}{backing}"),
    )
}

fn create_options(args: &Args, settings: &CreateSettings) -> Result<CreateOptions> {
    let mut options = CreateOptions::new().chunk_size(settings.chunk_size());
    if settings.bare == Some(true) {
        if settings.size.is_some() || settings.backing.is_some() {
            return Err(Failure::at(
                &args.file,
                "a bare store records neither size nor backing: leave them out, or leave --bare out",
            ));
        }
        return Ok(options.bare(true));
    }
    if let (Some(name), Some(format)) = (&settings.backing, settings.backing_format) {
        options = options.origin(name, format);
    }
    if let Some(size) = settings.size {
        options = options.size(size);
    }
    match (args.backing_unsafe, &settings.backing, settings.size) {
        (false, _, _) => Ok(options),
        // 0: nobody knows.
        (true, Some(_), Some(_)) => Ok(options.origin_identity(None, 0)),
        (true, _, _) => Err(Failure::at(&args.file, "-u needs a backing and a size")),
    }
}

fn say(args: &Args, what: std::fmt::Arguments<'_>) -> Result<()> {
    if args.quiet {
        return Ok(());
    }
    output::line(format_args!("Created '{}', {what}", args.file.display()))
}
