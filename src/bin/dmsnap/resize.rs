//! `dmsnap resize`

use std::path::PathBuf;

use crate::args::{LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output;
use crate::size::parse_disk_size;

/// Change the size of the disk; what is new reads as zeros
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Allow a smaller size: what lies past the new end is lost
    #[arg(long)]
    shrink: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer to resize
    file: PathBuf,
    /// The new size; +SIZE grows by that much, -SIZE shrinks
    #[arg(value_name = "[+|-]SIZE", allow_hyphen_values = true, value_parser = parse_change)]
    size: Change,
}

/// A size, or a difference to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    To(u64),
    By(u64),
    Less(u64),
}

fn parse_change(text: &str) -> std::result::Result<Change, String> {
    if let Some(more) = text.strip_prefix('+') {
        return parse_disk_size(more).map(Change::By);
    }
    match text.strip_prefix('-') {
        Some(less) => parse_disk_size(less).map(Change::Less),
        None => parse_disk_size(text).map(Change::To),
    }
}

impl Change {
    fn apply(self, size: u64) -> Option<u64> {
        match self {
            Change::To(size) => Some(size),
            Change::By(more) => size.checked_add(more),
            Change::Less(less) => size.checked_sub(less),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let options = args.origin.options()?.writable(true);
    let image = args.origin.open(&args.file, &options)?;
    let old = image.size();
    let Some(new) = args.size.apply(old) else {
        return Err(Failure::at(
            &args.file,
            format!("the disk has {old} bytes, which cannot change by that much"),
        ));
    };
    if new < old && !args.shrink {
        return Err(Failure::at(
            &args.file,
            format!("{new} bytes are less than the present {old}: what lies past the new end would be lost"),
        )
        .with_hint("say --shrink if that is meant."));
    }
    image.resize(new, args.shrink).about(&args.file)?;
    image.close().about(&args.file)?;
    if !args.quiet {
        output::line(format_args!(
            "Resized '{}' from {old} to {new} bytes.",
            args.file.display()
        ))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_sizes_are_absolute_or_relative() {
        for (text, old, new) in [
            ("1M", 0, Some(1 << 20)),
            ("+1k", 4096, Some(5120)),
            ("-1k", 4096, Some(3072)),
            ("-8k", 4096, None),
        ] {
            assert_eq!(parse_change(text).unwrap().apply(old), new, "{text}");
        }
        for text in ["+", "-", "--1k", "+-1k", "+100", "x"] {
            assert!(parse_change(text).is_err(), "{text}");
        }
    }
}
