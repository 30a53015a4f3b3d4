//! `dmsnap table`

use std::path::{Path, PathBuf};

use dmsnap::format::Geometry;
use dmsnap::storage::{FileOptions, LockMode, Storage};
use dmsnap::units::SECTOR_SIZE;
use dmsnap::{CheckOptions, Format, Image, ImageInfo, Repair};

use crate::args::{LayerFormat, OriginArgs};
use crate::device::{self, BELOW};
use crate::dump::next_free;
use crate::failure::{About, Failure, Result};
use crate::output;

/// Print the dmsetup lines that let the kernel attach a layer
#[derive(clap::Args)]
#[command(after_help = "\
Makes the file fit for a kernel that writes to it: traces of an interrupted operation are removed, and a length at \
which the kernel would lose the snapshot is avoided. Detach with dmsetup remove, in the opposite order.")]
pub(crate) struct Args {
    /// Device that shows the origin
    #[arg(long, value_name = "DEVICE")]
    origin_dev: Option<String>,
    /// Device over FILE, a loop device say
    #[arg(long, value_name = "DEVICE")]
    cow_dev: String,
    /// Make FILE so long that it cannot overflow; takes no space
    #[arg(long)]
    cover: bool,
    /// Name of the new device [default: from FILE]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let path = &args.file;
    for device in args.origin_dev.iter().chain([&args.cow_dev]) {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Failure::new(format!(
                "'{device}' cannot be the name of a device in a table"
            )));
        }
    }
    if args.origin_dev.as_ref() == Some(&args.cow_dev) {
        return Err(Failure::new(format!(
            "'{}' cannot be both the origin's device and the layer's",
            args.cow_dev
        )));
    }
    if let Some(name) = &args.name {
        device::check_name(name)?;
    }
    // What cannot be opened is told by the library, better than by a list of findings.
    let (mut info, warnings) = look_at(args)?;
    warnings.iter().for_each(output::warn);
    let table = Table::new(args, &info)?;
    let devices: Vec<&str> = args
        .origin_dev
        .iter()
        .chain([&args.cow_dev])
        .map(String::as_str)
        .collect();
    device::check_blocks(path, info.chunk_size.bytes(), &devices)?;
    // Nothing was written so far.
    if clear_traces(path)? {
        (info, _) = look_at(args)?;
    }
    fit_length(args, &info)?;
    table.print()?;
    Ok(0)
}

/// Facts about the chain, and what looked wrong without harm.
fn look_at(args: &Args) -> Result<(ImageInfo, Vec<String>)> {
    let image = Image::open(&args.file, &args.origin.options()?).about(&args.file)?;
    Ok((image.info().about(&args.file)?, image.warnings()))
}

/// What lies behind the last record would come back to life under a kernel that appends. Whether there was something.
fn clear_traces(path: &Path) -> Result<bool> {
    let found = dmsnap::check(path, &CheckOptions::new()).about(path)?;
    if found.remaining_corruptions > 0 {
        return Err(Failure::at(
            path,
            "the store is damaged; a kernel would not notice, and spoil more",
        )
        .with_hint("`dmsnap check` lists what is wrong."));
    }
    if found.remaining_repairable == 0 {
        return Ok(false);
    }
    let mended = dmsnap::check(path, &CheckOptions::new().repair(Repair::All)).about(path)?;
    output::warn(format_args!(
        "{}: removed {} of an interrupted operation",
        path.display(),
        output::count(mended.repaired, "trace")
    ));
    Ok(true)
}

/// Makes the file as long as it has to be.
fn fit_length(args: &Args, info: &ImageInfo) -> Result<()> {
    let path = &args.file;
    let geometry = Geometry::new(info.chunk_size);
    let present = geometry.whole_chunks(info.file_size);
    let too_large = || Failure::at(path, "the file would be longer than any file can be");
    // A loop device drops an odd tail.
    let mut wanted = info.chunk_size.count_for(info.file_size);
    if args.cover {
        wanted = wanted.max(covering_chunks(geometry, info).ok_or_else(too_large)?);
    }
    if ends_behind_full_area(geometry, wanted) {
        wanted += 1;
    }
    if !args.cover {
        warn_of_overflow(path, geometry, info, wanted);
    }
    if wanted == present && info.chunk_size.start_of(present) == Some(info.file_size) {
        return Ok(());
    }
    let size = info.chunk_size.start_of(wanted).ok_or_else(too_large)?;
    let file = FileOptions::new()
        .lock(LockMode::None)
        .open(path)
        .about(path)?;
    if !file.is_growable() {
        let message = format!(
            "a device of {} bytes; it should have {size}",
            info.file_size
        );
        if args.cover {
            return Err(Failure::at(path, message));
        }
        output::warn(format_args!(
            "{}: {message}, or the kernel loses the snapshot when the last chunk is used",
            path.display()
        ));
        return Ok(());
    }
    let file = FileOptions::new().writable(true).open(path).about(path)?;
    file.set_size(size).and_then(|()| file.flush()).about(path)
}

/// A file that was written here ends behind its last chunk: the kernel would find no room for its first write.
fn warn_of_overflow(path: &Path, geometry: Geometry, info: &ImageInfo, chunks: u64) {
    let free = geometry
        .capacity(chunks)
        .saturating_sub(geometry.fit(next_free(info)));
    let missing = info
        .chunk_size
        .count_for(info.virtual_size)
        .saturating_sub(info.exceptions);
    if free < missing {
        output::warn(format_args!(
            "{}: room for {free} of the {} that may be written; make it longer before writes, or say --cover",
            path.display(),
            output::count(missing, "chunk")
        ));
    }
}

/// Chunks that the kernel may need: it goes on behind the highest chunk in use and fills no holes.
fn covering_chunks(geometry: Geometry, info: &ImageInfo) -> Option<u64> {
    let holes = geometry
        .fit(next_free(info))
        .saturating_sub(info.exceptions);
    let disk = info.chunk_size.count_for(info.virtual_size);
    geometry.chunks_for(disk.checked_add(holes)?)
}

/// Whether filling the last area would need a next one that is not there: the kernel then invalidates the store, in every mode.
fn ends_behind_full_area(geometry: Geometry, chunks: u64) -> bool {
    chunks > 1 && (chunks - 1).is_multiple_of(geometry.stride())
}

/// What is to be attached, in sectors.
#[derive(Debug)]
struct Table {
    name: String,
    length: u64,
    /// Device of the origin and how much of it is used.
    origin: Option<(String, u64)>,
    /// The origin, if it is a layer itself.
    layer_below: Option<String>,
    cow: String,
    chunk: u64,
}

impl Table {
    fn new(args: &Args, info: &ImageInfo) -> Result<Table> {
        let path = &args.file;
        let below = info.chain.get(1);
        let length = info.virtual_size / SECTOR_SIZE;
        if length == 0 {
            return Err(Failure::at(
                path,
                "the disk has no sectors; device-mapper cannot attach it",
            ));
        }
        let origin = match (below, &args.origin_dev) {
            (None, None) => None,
            (None, Some(device)) => {
                return Err(Failure::at(
                    path,
                    format!(
                        "has no backing, so there is nothing that {device} could show: leave --origin-dev out"
                    ),
                ));
            }
            (Some(_), None) => {
                return Err(Failure::at(
                    path,
                    "there is an origin: say --origin-dev DEVICE, the device that shows it",
                ));
            }
            (Some(layer), Some(device)) => {
                let (sectors, rest) = (
                    layer.virtual_size / SECTOR_SIZE,
                    layer.virtual_size % SECTOR_SIZE,
                );
                if rest != 0 && length >= sectors {
                    return Err(Failure::new(format!(
                        "{}: {} bytes is not a multiple of {SECTOR_SIZE}: no device would show the last {rest}; append zeros first",
                        layer.name, layer.virtual_size
                    )));
                }
                Some((device.clone(), sectors.min(length)))
            }
        };
        let name = match &args.name {
            Some(name) => name.clone(),
            None => device::derive_name(path)?,
        };
        Ok(Table {
            name,
            length,
            origin: origin.filter(|(_, sectors)| *sectors > 0),
            layer_below: below
                .filter(|layer| layer.format == Format::Dmsnap)
                .map(|layer| layer.name.clone()),
            cow: args.cow_dev.clone(),
            chunk: info.chunk_size.sectors(),
        })
    }

    fn print(&self) -> Result<()> {
        let Table {
            name,
            length,
            cow,
            chunk,
            ..
        } = self;
        if let (Some((device, _)), Some(layer)) = (&self.origin, &self.layer_below) {
            output::line(format_args!(
                "# {device} has to show {layer}, a layer itself: attach that one first"
            ))?;
        }
        let below = format!("{name}{BELOW}");
        let origin = match &self.origin {
            None => {
                self.create(&below, &[format!("0 {length} zero")])?;
                format!("/dev/mapper/{below}")
            }
            Some((device, sectors)) if sectors < length => {
                let rest = length - sectors;
                self.create(
                    &below,
                    &[
                        format!("0 {sectors} linear {device} 0"),
                        format!("{sectors} {rest} zero"),
                    ],
                )?;
                format!("/dev/mapper/{below}")
            }
            Some((device, _)) => device.clone(),
        };
        self.create(
            name,
            &[format!("0 {length} snapshot {origin} {cow} PO {chunk}")],
        )
    }

    /// One line for a shell, also for a table of several lines.
    fn create(&self, name: &str, table: &[String]) -> Result<()> {
        let name = quote(name);
        match table {
            [line] => output::line(format_args!(
                "dmsetup create {name} --table {}",
                quote(line)
            )),
            lines => {
                let lines: Vec<String> = lines.iter().map(|line| quote(line)).collect();
                output::line(format_args!(
                    "printf '%s\\n' {} | dmsetup create {name}",
                    lines.join(" ")
                ))
            }
        }
    }
}

/// A word for a shell.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+:=@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmsnap::ChunkSize;

    #[test]
    fn test_no_length_ends_behind_a_full_area() {
        let geometry = Geometry::new(ChunkSize::MIN);
        for chunks in 0..200 {
            let bad = [34, 67, 100, 133, 166, 199].contains(&chunks);
            assert_eq!(ends_behind_full_area(geometry, chunks), bad, "{chunks}");
        }
        for exceptions in 0..200 {
            let chunks = geometry.chunks_for(exceptions).unwrap();
            assert!(!ends_behind_full_area(geometry, chunks), "{exceptions}");
        }
    }

    #[test]
    fn test_words_survive_a_shell() {
        assert_eq!(quote("/dev/loop0"), "/dev/loop0");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), "'it'\\''s'");
    }
}
