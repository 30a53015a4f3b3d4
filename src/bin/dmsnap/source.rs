//! Images that are read: raw files and layers behind one face.

use std::path::{Path, PathBuf};

use dmsnap::format::{HEADER_SIZE, SNAP_MAGIC};
use dmsnap::storage::{FileOptions, FileStorage, LockMode, Storage};
use dmsnap::units::SECTOR_SIZE;
use dmsnap::{ByteRange, ExtentKind, Format, Image};

use crate::args::OriginArgs;
use crate::failure::{About, Failure, Result};
use crate::output;

/// Beginnings of formats that other tools know and this one does not, so that nobody takes their containers for the bytes of a disk.
const OTHER_FORMATS: [(&[u8], &str); 7] = [
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"WithoutFreeSpace", "parallels"),
];

/// How to open a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// The format, if the user said it.
    pub(crate) format: Option<Format>,
    /// What lies below.
    pub(crate) origin: &'a OriginArgs,
    /// Open without locks.
    pub(crate) share: bool,
}

/// An image that is read.
#[derive(Debug)]
pub(crate) enum Source {
    Raw(Box<RawImage>),
    Layer(Box<Image>),
}

/// The bytes of a disk in a file. As in qemu-img it is as long as its sectors; what lies past the file's end reads as zeros.
#[derive(Debug)]
pub(crate) struct RawImage {
    storage: FileStorage,
    file_size: u64,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) len: u64,
    pub(crate) is_zero: bool,
}

/// Runs of a source that is walked through. Each is asked for once: to find the end of a run takes as long as the run is.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    source: &'a Source,
    known: ByteRange,
    is_zero: bool,
}

impl<'a> Runs<'a> {
    pub(crate) fn of(source: &'a Source) -> Runs<'a> {
        Runs {
            source,
            known: ByteRange::new(0, 0),
            is_zero: false,
        }
    }

    /// The run at the start of `range`, clipped to it. What lies past the end of the source is zeros.
    pub(crate) fn at(&mut self, range: ByteRange) -> Result<Run> {
        let start = range.start;
        if !(self.known.start..self.known.end()).contains(&start) {
            let rest = self.source.size().saturating_sub(start).max(range.len);
            let run = self.source.run_at(ByteRange::new(start, rest))?;
            self.known = ByteRange::new(start, run.len);
            self.is_zero = run.is_zero;
        }
        Ok(Run {
            len: (self.known.end() - start).min(range.len),
            is_zero: self.is_zero,
        })
    }
}

impl Source {
    /// Opens an image for reading.
    pub(crate) fn open(path: &Path, how: How<'_>) -> Result<Source> {
        match how.format {
            Some(format) => Source::open_as(path, format, how),
            None => match guess_format(path)? {
                Format::Dmsnap if !how.origin.is_given() => {
                    let image = how.origin.open_guessed(path, !how.share)?;
                    Ok(Source::Layer(Box::new(image)))
                }
                format => Source::open_as(path, format, how),
            },
        }
    }

    fn open_as(path: &Path, format: Format, how: How<'_>) -> Result<Source> {
        match format {
            Format::Raw => {
                how.origin.refuse_for_raw(path)?;
                RawImage::open(path, how.share).map(|raw| Source::Raw(Box::new(raw)))
            }
            Format::Dmsnap => {
                let options = how.origin.options()?.lock(!how.share);
                let image = how.origin.open(path, &options)?;
                Ok(Source::Layer(Box::new(image)))
            }
        }
    }

    /// Size of the disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Source::Raw(raw) => raw.file_size.next_multiple_of(SECTOR_SIZE),
            Source::Layer(image) => image.size(),
        }
    }

    /// The file at `path`, which this source was opened from, and those below it.
    pub(crate) fn files(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut files = vec![path.to_path_buf()];
        if let Source::Layer(image) = self {
            let below = image.info().about(path)?.chain.into_iter().skip(1);
            files.extend(below.filter_map(|layer| layer.path));
        }
        Ok(files)
    }

    /// The run at the start of `range`. What lies past the end is zeros.
    fn run_at(&self, range: ByteRange) -> Result<Run> {
        let inside = self.size().saturating_sub(range.start).min(range.len);
        if inside == 0 {
            return Ok(Run {
                len: range.len,
                is_zero: true,
            });
        }
        let range = ByteRange::new(range.start, inside);
        match self {
            Source::Raw(raw) => raw.run_at(range),
            Source::Layer(image) => {
                let extent = image.next_extent(range)?;
                Ok(Run {
                    len: extent.range.len,
                    is_zero: extent.kind == ExtentKind::Zero,
                })
            }
        }
    }

    /// Fills `buf` from `offset`, past the end with zeros.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = match self {
            Source::Raw(raw) => raw.file_size,
            Source::Layer(image) => image.size(),
        };
        let inside = end.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (head, tail) = buf.split_at_mut(inside);
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        match self {
            Source::Raw(raw) => Ok(raw.storage.read_at(head, offset)?),
            Source::Layer(image) => Ok(image.read(head, offset)?),
        }
    }
}

impl RawImage {
    /// Opens the bytes of a disk.
    pub(crate) fn open(path: &Path, share: bool) -> Result<RawImage> {
        let lock = if share {
            LockMode::None
        } else {
            LockMode::Reader
        };
        let storage = FileOptions::new().lock(lock).open(path).about(path)?;
        let file_size = storage.size().about(path)?;
        Ok(RawImage { storage, file_size })
    }

    fn run_at(&self, range: ByteRange) -> Result<Run> {
        if range.start >= self.file_size {
            return Ok(Run {
                len: range.len,
                is_zero: true,
            });
        }
        let extent = self.storage.extent_at(range.start)?;
        Ok(Run {
            len: extent.len.clamp(1, range.len),
            is_zero: !extent.allocated,
        })
    }
}

/// The format that a file's first bytes tell: a layer, or else the bytes of a disk.
pub(crate) fn guess_format(path: &Path) -> Result<Format> {
    let start = first_bytes(path)?;
    if start.starts_with(&SNAP_MAGIC) {
        return Ok(Format::Dmsnap);
    }
    match OTHER_FORMATS
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        Some((_, name)) => {
            let message =
                format!("this looks like a {name} image, a format that this tool does not read");
            Err(Failure::at(path, message).with_hint(
                "convert it with qemu-img first, or say -f raw if these are the bytes of a disk.",
            ))
        }
        None => Ok(Format::Raw),
    }
}

/// Whether a file begins as a layer does.
pub(crate) fn looks_like_layer(path: &Path) -> Result<bool> {
    Ok(first_bytes(path)?.starts_with(&SNAP_MAGIC))
}

/// A new layer over a layer that is taken for raw bytes shows that one's metadata, which is hardly ever meant.
pub(crate) fn warn_of_layer_as_raw(path: &Path) {
    if looks_like_layer(path).unwrap_or(false) {
        output::warn(format_args!(
            "{}: begins like a dmsnap layer, but -F raw takes its bytes for those of a disk; -F dmsnap would show the disk in it",
            path.display()
        ));
    }
}

/// Opened as images are, so that a FIFO is refused instead of waited for.
fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    let file = FileOptions::new()
        .lock(LockMode::None)
        .open(path)
        .about(path)?;
    let len = file.size().about(path)?.min(HEADER_SIZE as u64);
    let mut bytes = vec![0; len as usize];
    file.read_at(&mut bytes, 0).about(path)?;
    Ok(bytes)
}
