//! `dmsnap info`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dmsnap::store::State;
use dmsnap::units::SECTOR_SIZE;
use dmsnap::{ErrorKind, Format, Image, ImageInfo, OriginChoice, inspect};
use serde::Serialize;

use crate::args::{FormatArg, OriginArgs};
use crate::failure::{About, Result};
use crate::output::{self, OutputFormat};
use crate::size::human;
use crate::{gate, source};

/// Show facts about an image, also one in use
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Format of FILE [default: guessed]
    #[arg(short, long, value_name = "FMT")]
    format: Option<FormatArg>,
    /// The images below it too, as a list
    #[arg(long)]
    backing_chain: bool,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    /// Accepted for the sake of qemu-img's users: no lock is taken anyway
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    origin: OriginArgs,
    /// The image
    file: PathBuf,
}

/// Facts in qemu-img's names.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Facts {
    virtual_size: u64,
    filename: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u64>,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<String>,
    dirty_flag: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<FormatSpecific>,
}

#[derive(Serialize)]
struct FormatSpecific {
    #[serde(rename = "type")]
    kind: &'static str,
    data: LayerFacts,
}

/// What only layers have.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LayerFacts {
    chunk_size: u64,
    /// Those of an invalid store are not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    exceptions: Option<u64>,
    state: &'static str,
    /// The kernel's status line.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sectors_allocated: Option<u64>,
    total_sectors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_sectors: Option<u64>,
    /// Whether the size of the disk is that of its origin, which was not named: it is as long as the exceptions reach, at least.
    #[serde(skip_serializing_if = "is_false")]
    virtual_size_is_minimum: bool,
    /// Whether there is a descriptor.
    bare: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_uuid: Option<String>,
    /// Size of the backing when the layer was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_size: Option<u64>,
}

fn is_false(switch: &bool) -> bool {
    !switch
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let path = &args.file;
    let format = match args.format {
        Some(format) => format.into(),
        None => source::guess_format(path)?,
    };
    let mut facts = vec![match format {
        Format::Raw => {
            args.origin.refuse_for_raw(path)?;
            raw_facts(path)?
        }
        Format::Dmsnap => top_facts(args)?,
    }];
    if args.backing_chain && format == Format::Dmsnap {
        facts.extend(facts_below(args)?);
    }
    match args.output {
        OutputFormat::Json if args.backing_chain => output::json(&facts)?,
        OutputFormat::Json => facts.first().map_or(Ok(()), output::json)?,
        OutputFormat::Human => {
            for (at, facts) in facts.iter().enumerate() {
                output::put(if at > 0 { "\n" } else { "" })?;
                print(facts)?;
            }
        }
    }
    Ok(0)
}

fn raw_facts(path: &Path) -> Result<Facts> {
    let raw = source::RawImage::open(path, true)?;
    let size = source::Source::Raw(Box::new(raw)).size();
    Ok(Facts {
        virtual_size: size,
        filename: path.display().to_string(),
        cluster_size: None,
        format: Format::Raw.name(),
        actual_size: fs::metadata(path)
            .ok()
            .map(|found| found.blocks() * SECTOR_SIZE),
        backing_filename: None,
        full_backing_filename: None,
        backing_filename_format: None,
        dirty_flag: false,
        format_specific: None,
    })
}

/// A store without a descriptor is as long as its origin, which has to be opened to know.
fn top_facts(args: &Args) -> Result<Facts> {
    let path = &args.file;
    let mut info = inspect(path).about(path)?;
    let is_asked = args.origin.is_given() || args.origin.disk_size().is_some();
    let is_known = is_asked && info.state != State::Invalid;
    if info.is_bare() && is_known {
        let options = args.origin.options_over(OriginChoice::Zeros)?.lock(false);
        info.virtual_size = Image::open(path, &options).about(path)?.size();
    }
    let mut facts = layer_facts(path, &info);
    if let Some(specific) = &mut facts.format_specific {
        specific.data.virtual_size_is_minimum &= !is_known;
    }
    Ok(facts)
}

fn layer_facts(path: &Path, info: &ImageInfo) -> Facts {
    for damage in &info.descriptor_damage {
        output::warn(format_args!("{}: {damage}", path.display()));
    }
    let descriptor = info.descriptor.as_ref();
    let is_read = info.state != State::Invalid;
    let backing = descriptor.and_then(|descriptor| descriptor.origin_name.clone());
    Facts {
        virtual_size: info.virtual_size,
        filename: path.display().to_string(),
        cluster_size: Some(info.chunk_size.bytes()),
        format: Format::Dmsnap.name(),
        actual_size: info.allocated_bytes,
        full_backing_filename: backing.as_ref().map(|name| full_name(path, name)),
        backing_filename: backing,
        backing_filename_format: descriptor.and_then(|descriptor| descriptor.origin_format.clone()),
        dirty_flag: false,
        format_specific: Some(FormatSpecific {
            kind: Format::Dmsnap.name(),
            data: LayerFacts {
                chunk_size: info.chunk_size.bytes(),
                exceptions: is_read.then_some(info.exceptions),
                state: state_name(info.state),
                status: info.status.to_string(),
                sectors_allocated: is_read.then_some(info.usage.sectors_allocated),
                total_sectors: info.usage.total_sectors,
                metadata_sectors: is_read.then_some(info.usage.metadata_sectors),
                virtual_size_is_minimum: info.is_bare(),
                bare: info.is_bare(),
                uuid: descriptor.map(|descriptor| descriptor.uuid.to_string()),
                backing_uuid: descriptor
                    .and_then(|descriptor| descriptor.origin_uuid)
                    .map(|uuid| uuid.to_string()),
                backing_size: descriptor
                    .filter(|descriptor| descriptor.origin_name.is_some())
                    .map(|descriptor| descriptor.origin_size)
                    .filter(|size| *size > 0),
            },
        }),
    }
}

fn full_name(path: &Path, name: &str) -> String {
    path.parent()
        .map_or_else(|| PathBuf::from(name), |parent| parent.join(name))
        .display()
        .to_string()
}

/// The word for a state, in lower case and the kernel's terms.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Merging => "merging",
        State::MergeFailed => "merge failed",
        State::Overflow => "overflow",
        State::Invalid => "invalid",
        State::Failed => "failed",
        _ => "unknown",
    }
}

/// Facts about the files below the top one.
fn facts_below(args: &Args) -> Result<Vec<Facts>> {
    let path = &args.file;
    let is_guess = args.format.is_none() && !args.origin.is_given();
    let stored = if is_guess {
        OriginChoice::FromImageInside
    } else {
        OriginChoice::FromImage
    };
    let options = args.origin.options_over(stored)?.lock(false);
    let image = match Image::open(path, &options) {
        // There is nothing below it that would be any use.
        Err(error) if error.kind() == ErrorKind::SnapshotInvalid => return Ok(Vec::new()),
        Err(error) if is_guess => return Err(gate::after_guess(error, path)),
        other => other.about(path)?,
    };
    let chain = image.info().about(path)?.chain;
    let below = chain
        .into_iter()
        .skip(1)
        .filter_map(|layer| Some((layer.path?, layer.format)));
    below
        .map(|(path, format)| match format {
            Format::Raw => raw_facts(&path),
            Format::Dmsnap => Ok(layer_facts(&path, &inspect(&path).about(&path)?)),
        })
        .collect()
}

fn print(facts: &Facts) -> Result<()> {
    let size = facts.virtual_size;
    output::line(format_args!("image: {}", facts.filename))?;
    output::line(format_args!("file format: {}", facts.format))?;
    let specific = facts.format_specific.as_ref();
    let least = match specific.map(|specific| &specific.data) {
        Some(data) if data.virtual_size_is_minimum => "at least ",
        _ => "",
    };
    output::line(format_args!(
        "virtual size: {least}{} ({size} bytes)",
        human(size)
    ))?;
    if let Some(size) = facts.actual_size {
        output::line(format_args!("disk size: {}", human(size)))?;
    }
    if let Some(size) = facts.cluster_size {
        output::line(format_args!("chunk size: {size}"))?;
    }
    if let Some(name) = &facts.backing_filename {
        let full = facts.full_backing_filename.as_deref().unwrap_or_default();
        let path = if full == name {
            String::new()
        } else {
            format!(" (actual path: {full})")
        };
        output::line(format_args!("backing file: {name}{path}"))?;
    }
    if let Some(format) = &facts.backing_filename_format {
        output::line(format_args!("backing file format: {format}"))?;
    }
    match &facts.format_specific {
        Some(specific) => print_layer(&specific.data),
        None => Ok(()),
    }
}

fn print_layer(data: &LayerFacts) -> Result<()> {
    output::line("Format specific information:")?;
    let descriptor = if data.bare {
        "none (size and backing are not recorded)"
    } else {
        "yes"
    };
    output::line(format_args!("    descriptor: {descriptor}"))?;
    if let Some(uuid) = &data.uuid {
        output::line(format_args!("    uuid: {uuid}"))?;
    }
    if let Some(uuid) = &data.backing_uuid {
        output::line(format_args!("    backing uuid: {uuid}"))?;
    }
    output::line(format_args!("    state: {}", data.state))?;
    match data.exceptions {
        Some(count) => output::line(format_args!("    exceptions: {count}"))?,
        None => output::line("    exceptions: not read")?,
    }
    output::line(format_args!("    kernel status: {}", data.status))
}
