//! `dmsnap map`

use std::path::PathBuf;

use dmsnap::{ByteRange, ExtentKind, Image, ImageExtent};
use serde::Serialize;

use crate::args::{LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output::{self, OutputFormat};
use crate::size::parse_size;

/// Show which file of the chain holds which part of the disk
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Begin at this offset of the disk
    #[arg(short, long, value_name = "OFFSET", default_value = "0", value_parser = parse_size)]
    start_offset: u64,
    /// Look at this many bytes at most
    #[arg(short = 'l', long, value_name = "LENGTH", value_parser = parse_size)]
    max_length: Option<u64>,
    /// Form of the output; text shows what holds data, JSON everything
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    /// Take no locks: an image in use may change meanwhile
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer
    file: PathBuf,
}

/// An extent in qemu-img's names.
#[derive(Serialize)]
struct Extent {
    start: u64,
    length: u64,
    depth: u32,
    present: bool,
    zero: bool,
    data: bool,
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl From<ImageExtent> for Extent {
    fn from(extent: ImageExtent) -> Extent {
        let zero = extent.kind == ExtentKind::Zero;
        Extent {
            start: extent.range.start,
            length: extent.range.len,
            depth: extent.depth,
            present: extent.present,
            zero,
            data: !zero,
            compressed: false,
            offset: extent.offset,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let options = args.origin.options()?.lock(!args.force_share);
    let image = args.origin.open(&args.file, &options)?;
    let size = image.size();
    if args.start_offset > size {
        return Err(Failure::at(
            &args.file,
            format!(
                "offset {} is past the end, the disk has {size} bytes",
                args.start_offset
            ),
        ));
    }
    let rest = size - args.start_offset;
    let len = args.max_length.map_or(rest, |len| len.min(rest));
    let extents = image
        .extents(ByteRange::new(args.start_offset, len))
        .about(&args.file)?;
    match args.output {
        OutputFormat::Json => {
            // One by one: there may be millions.
            let mut before = "[";
            for extent in extents {
                let extent = Extent::from(extent.about(&args.file)?);
                let text = serde_json::to_string(&extent)
                    .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
                output::put(format_args!("{before}{text}"))?;
                before = ",\n";
            }
            output::line(if len == 0 { "[]" } else { "]" })?;
        }
        OutputFormat::Human => print(args, &image, extents)?,
    }
    Ok(0)
}

fn print(args: &Args, image: &Image, extents: dmsnap::image::Extents<'_>) -> Result<()> {
    let chain = image.info().about(&args.file)?.chain;
    output::line(format_args!(
        "{:<16}{:<16}{:<16}{}",
        "Offset", "Length", "Mapped to", "File"
    ))?;
    for extent in extents {
        let extent = extent.about(&args.file)?;
        let Some(offset) = extent.offset.filter(|_| extent.kind == ExtentKind::Data) else {
            continue;
        };
        let name = chain
            .get(extent.depth as usize)
            .map_or("", |layer| layer.name.as_str());
        let ByteRange { start, len } = extent.range;
        output::line(format_args!("{start:<#16x}{len:<#16x}{offset:<#16x}{name}"))?;
    }
    Ok(())
}
