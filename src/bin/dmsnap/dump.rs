//! `dmsnap dump`

use std::path::PathBuf;

use dmsnap::format::{Descriptor, Header};
use dmsnap::store::State;
use dmsnap::units::OriginChunk;
use dmsnap::{Image, ImageInfo, OpenOptions, OriginChoice, inspect};
use serde::Serialize;

use crate::args::{LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::info::state_name;
use crate::output::{self, OutputFormat};

/// Print a layer's metadata: header, descriptor, exceptions
#[derive(clap::Args)]
#[command(after_help = "\
Only FILE is looked at: what is said of what lies below changes nothing here. Exceptions are printed as runs in the order of the disk, with chunk numbers as they are in the \
file. Of an invalidated store only header and descriptor are shown.")]
pub(crate) struct Args {
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    /// Take no lock: an image in use may change meanwhile
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    _origin: OriginArgs,
    /// The layer
    file: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Dump {
    filename: String,
    state: &'static str,
    header: HeaderDump,
    descriptor: Option<DescriptorDump>,
    /// First chunk that was never handed out.
    next_free: u64,
    exceptions: Vec<Run>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct HeaderDump {
    valid: u32,
    version: u32,
    /// As on disk.
    chunk_size_sectors: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DescriptorDump {
    generation: u64,
    incompatible_features: u64,
    compatible_features: u64,
    virtual_size: u64,
    uuid: String,
    backing_uuid: Option<String>,
    backing_size: u64,
    backing_filename: Option<String>,
    backing_filename_format: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Run {
    old_chunk: u64,
    new_chunk: u64,
    count: u64,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let path = &args.file;
    let info = inspect(path).about(path)?;
    for damage in &info.descriptor_damage {
        output::warn(format_args!("{}: {damage}", path.display()));
    }
    let exceptions = if info.state == State::Invalid {
        Vec::new()
    } else {
        exceptions(args)?
    };
    let dump = Dump {
        filename: path.display().to_string(),
        state: state_name(info.state),
        header: HeaderDump::from(&info.header),
        descriptor: info.descriptor.as_ref().map(DescriptorDump::from),
        next_free: next_free(&info),
        exceptions,
    };
    match args.output {
        OutputFormat::Json => output::json(&dump)?,
        OutputFormat::Human => dump.print()?,
    }
    Ok(0)
}

fn exceptions(args: &Args) -> Result<Vec<Run>> {
    let options = OpenOptions::new()
        .origin(OriginChoice::Zeros)
        .lock(!args.force_share);
    let image = Image::open(&args.file, &options).about(&args.file)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut from = OriginChunk(0);
    while let Some((old, new, count)) = image.next_exceptions(from) {
        // So many there are as the file says.
        if runs.try_reserve(1).is_err() {
            let message = format!("no memory for more than {} runs of exceptions", runs.len());
            return Err(Failure::at(&args.file, message));
        }
        runs.push(Run {
            old_chunk: old.0,
            new_chunk: new.0,
            count,
        });
        from = OriginChunk(old.0 + count);
    }
    Ok(runs)
}

/// The kernel's figure for what is handed out, in chunks.
pub(crate) fn next_free(info: &ImageInfo) -> u64 {
    info.usage.sectors_allocated / info.chunk_size.sectors()
}

impl From<&Header> for HeaderDump {
    fn from(header: &Header) -> HeaderDump {
        HeaderDump {
            valid: header.valid,
            version: header.version,
            chunk_size_sectors: header.chunk_size.sectors(),
        }
    }
}

impl From<&Descriptor> for DescriptorDump {
    fn from(descriptor: &Descriptor) -> DescriptorDump {
        DescriptorDump {
            generation: descriptor.generation,
            incompatible_features: descriptor.incompatible.bits(),
            compatible_features: descriptor.compatible,
            virtual_size: descriptor.virtual_size,
            uuid: descriptor.uuid.to_string(),
            backing_uuid: descriptor.origin_uuid.map(|uuid| uuid.to_string()),
            backing_size: descriptor.origin_size,
            backing_filename: descriptor.origin_name.clone(),
            backing_filename_format: descriptor.origin_format.clone(),
        }
    }
}

impl Dump {
    fn print(&self) -> Result<()> {
        output::line(format_args!("file: {}", self.filename))?;
        output::line(format_args!("state: {}", self.state))?;
        let HeaderDump {
            valid,
            version,
            chunk_size_sectors: chunk_size,
        } = self.header;
        output::line(format_args!(
            "header: valid={valid} version={version} chunk_size={chunk_size} sectors"
        ))?;
        match &self.descriptor {
            Some(descriptor) => descriptor.print()?,
            None => output::line("descriptor: none")?,
        }
        output::line(format_args!("next free chunk: {}", self.next_free))?;
        let count: u64 = self.exceptions.iter().map(|run| run.count).sum();
        output::line(format_args!(
            "exceptions: {count} in {}",
            output::count(self.exceptions.len() as u64, "run")
        ))?;
        for Run {
            old_chunk,
            new_chunk,
            count,
        } in &self.exceptions
        {
            output::line(format_args!(
                "    old {old_chunk} -> new {new_chunk}, {}",
                output::count(*count, "chunk")
            ))?;
        }
        Ok(())
    }
}

impl DescriptorDump {
    fn print(&self) -> Result<()> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        output::line(format_args!(
            "descriptor: generation={} virtual_size={} uuid={}",
            self.generation, self.virtual_size, self.uuid
        ))?;
        output::line(format_args!(
            "    features: incompatible={:#x} compatible={:#x}",
            self.incompatible_features, self.compatible_features
        ))?;
        output::line(format_args!(
            "    backing: {} format={} size={} uuid={}",
            text(&self.backing_filename),
            text(&self.backing_filename_format),
            self.backing_size,
            text(&self.backing_uuid)
        ))
    }
}
