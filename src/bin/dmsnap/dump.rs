//! `dmsnap dump`

use std::path::PathBuf;
use std::sync::Arc;

use dmsnap::format::Header;
use dmsnap::storage::{FileOptions, LockMode, SharedStorage, Storage};
use dmsnap::store::{RawMetadata, State};
use dmsnap::units::OriginChunk;
use dmsnap::{
    ChunkSize, Image, ImageInfo, MetadataOptions, OpenOptions, OriginChoice, inspect, read_metadata,
};
use serde::Serialize;

use crate::args::{LayerFormat, OriginArgs, parse_chunk_size};
use crate::failure::{About, Result};
use crate::info::state_name;
use crate::metadata::{self, DescriptorFields, Metadata};
use crate::output::{self, OutputFormat};

/// Print a layer's metadata: header, descriptor, exceptions
#[derive(clap::Args)]
#[command(after_help = "\
Only FILE is looked at: what is said of what lies below changes nothing here. Exceptions are printed as runs in the order of the disk, with chunk numbers as they are in the \
file. JSON holds the whole metadata besides, record by record as it lies in the file: what `dmsnap restore` writes back. Of an \
invalidated store the exceptions are shown there only.

With --raw nothing but the metadata as it lies in the file is shown, damaged or not.")]
pub(crate) struct Args {
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    /// The metadata as it lies in the file, also of a damaged store, with records behind the end of the log
    #[arg(long)]
    raw: bool,
    /// Go on behind the end of the log, through all areas that hold something
    #[arg(long, requires = "raw")]
    all_areas: bool,
    /// Size of a chunk, if the header does not tell it any more
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size, requires = "raw")]
    chunk_size: Option<ChunkSize>,
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
    descriptor: Option<DescriptorFields>,
    /// First chunk that was never handed out.
    next_free: u64,
    exceptions: Vec<Run>,
    /// For `restore`; people are not shown it.
    metadata: Option<Metadata>,
}

/// What can be told of any store.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RawDump {
    filename: String,
    file_size: u64,
    metadata: Metadata,
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
struct Run {
    old_chunk: u64,
    new_chunk: u64,
    count: u64,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let path = &args.file;
    if args.raw {
        return raw(args);
    }
    let info = inspect(path).about(path)?;
    for damage in &info.descriptor_damage {
        output::warn(format_args!("{}: {damage}", path.display()));
    }
    let exceptions = if info.state == State::Invalid {
        Vec::new()
    } else {
        exceptions(args)?
    };
    let metadata = match args.output {
        OutputFormat::Json => Some(Metadata::new(&metadata(args)?.0, path)?),
        OutputFormat::Human => None,
    };
    let dump = Dump {
        filename: path.display().to_string(),
        state: state_name(info.state),
        header: HeaderDump::from(&info.header),
        descriptor: info.descriptor.as_ref().map(DescriptorFields::from),
        next_free: next_free(&info),
        exceptions,
        metadata,
    };
    match args.output {
        OutputFormat::Json => output::json(&dump)?,
        OutputFormat::Human => dump.print()?,
    }
    Ok(0)
}

fn raw(args: &Args) -> Result<u8> {
    let (metadata, file_size) = metadata(args)?;
    let metadata = Metadata::new(&metadata, &args.file)?;
    match args.output {
        OutputFormat::Json => output::json(&RawDump {
            filename: args.file.display().to_string(),
            file_size,
            metadata,
        })?,
        OutputFormat::Human => {
            output::line(format_args!("file: {}", args.file.display()))?;
            output::line(format_args!("file size: {file_size} bytes"))?;
            metadata.print()?;
        }
    }
    Ok(0)
}

/// The metadata as it lies in the file, and the file's size.
fn metadata(args: &Args) -> Result<(RawMetadata, u64)> {
    let path = &args.file;
    let file = FileOptions::new()
        .lock(LockMode::None)
        .open(path)
        .about(path)?;
    let size = file.size().about(path)?;
    let mut options = MetadataOptions::new()
        .lock(!args.force_share)
        .all_areas(args.all_areas);
    if let Some(chunk_size) = args.chunk_size {
        options = options.chunk_size(chunk_size);
    }
    let storage: SharedStorage = Arc::new(file);
    let metadata = read_metadata(&storage, &options).about(path)?;
    Ok((metadata, size))
}

fn exceptions(args: &Args) -> Result<Vec<Run>> {
    let options = OpenOptions::new()
        .origin(OriginChoice::Zeros)
        .lock(!args.force_share);
    let image = Image::open(&args.file, &options).about(&args.file)?;
    let mut from = OriginChunk(0);
    let runs = std::iter::from_fn(|| {
        let (old, new, count) = image.next_exceptions(from)?;
        from = OriginChunk(old.0 + count);
        Some(Ok(Run {
            old_chunk: old.0,
            new_chunk: new.0,
            count,
        }))
    });
    metadata::collect(runs, &args.file)
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
