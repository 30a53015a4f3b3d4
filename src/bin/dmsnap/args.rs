//! Arguments that several subcommands share.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dmsnap::format::Descriptor;
use dmsnap::{ChunkSize, Format, Image, OpenOptions, OriginChoice};

use crate::failure::{About, Failure, Result};
use crate::size::{parse_disk_size, parse_size};
use crate::{gate, output, source};

/// A format by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Raw,
    Dmsnap,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Format {
        match arg {
            FormatArg::Raw => Format::Raw,
            FormatArg::Dmsnap => Format::Dmsnap,
        }
    }
}

/// `-f` of commands that work on layers only, for those who are used to say it.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct LayerFormat {
    /// Format of FILE; only layers will do
    #[arg(
        short = 'f',
        long = "format",
        value_name = "FMT",
        default_value = "dmsnap"
    )]
    format: FormatArg,
}

impl LayerFormat {
    /// Refuses what is no layer.
    pub(crate) fn check(self, path: &Path) -> Result<()> {
        match self.format {
            FormatArg::Dmsnap => Ok(()),
            FormatArg::Raw => Err(Failure::at(
                path,
                "-f raw: this command works on layers only, format dmsnap",
            )),
        }
    }
}

/// The failure of a backing without a format.
pub(crate) fn format_is_missing(backing: &str) -> Failure {
    Failure::new(format!(
        "the format of the backing \"{backing}\" is missing, and it is never guessed: say -F raw or -F dmsnap"
    ))
}

/// Heading of the options below.
const ORIGIN: &str =
    "What lies below (a store made by the kernel does not say; a layer may be overridden)";

/// What lies below the image, if not what it says itself.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OriginArgs {
    /// What the image lies over, instead of the stored backing; again for what lies below that. A relative PATH starts at the current
    /// directory, as all paths of a command line
    #[arg(long = "origin", value_name = "PATH", help_heading = ORIGIN)]
    paths: Vec<PathBuf>,
    /// Format of the --origin at the same place [default: raw]
    #[arg(
        long = "origin-format",
        value_name = "FMT",
        requires = "paths",
        help_heading = ORIGIN
    )]
    formats: Vec<FormatArg>,
    /// Nothing lies below: what the image does not hold reads as zeros
    #[arg(long, conflicts_with = "paths", help_heading = ORIGIN)]
    no_origin: bool,
    /// Size of the disk, if a store without a descriptor is not as long as its origin
    #[arg(long, value_name = "SIZE", value_parser = parse_disk_size, help_heading = ORIGIN)]
    disk_size: Option<u64>,
    /// Go on even if the backing's UUID is not the recorded one, or merge into a raw backing of another size than recorded
    #[arg(long, help_heading = ORIGIN)]
    ignore_origin_uuid: bool,
}

impl OriginArgs {
    /// Whether it was said what lies below.
    pub(crate) fn is_given(&self) -> bool {
        self.no_origin || !self.paths.is_empty()
    }

    /// Size of the disk, where the store does not record one.
    pub(crate) fn disk_size(&self) -> Option<u64> {
        self.disk_size
    }

    /// Refuses what cannot be said of a raw image.
    pub(crate) fn refuse_for_raw(&self, path: &Path) -> Result<()> {
        let option = match self {
            _ if self.is_given() => "--origin",
            _ if self.disk_size.is_some() => "--disk-size",
            _ if self.ignore_origin_uuid => "--ignore-origin-uuid",
            _ => return Ok(()),
        };
        Err(Failure::at(
            path,
            format!(
                "a raw image lies over nothing and is as long as it is: {option} is for layers"
            ),
        ))
    }

    /// The topmost origin that was named, its format, and what was said of what lies below that.
    pub(crate) fn first(&self) -> Result<Option<(&Path, Format, OriginArgs)>> {
        // Finds contradictions.
        self.choice(OriginChoice::FromImage)?;
        let Some(path) = self.paths.first() else {
            return Ok(None);
        };
        let below = OriginArgs {
            paths: self.paths[1..].to_vec(),
            formats: self.formats.get(1..).unwrap_or_default().to_vec(),
            ignore_origin_uuid: self.ignore_origin_uuid && self.paths.len() > 1,
            ..OriginArgs::default()
        };
        Ok(Some((path, self.format_of(0, path)?, below)))
    }

    /// What was named, or `stored` if nothing was. Below the last layer that was named, what it stores is followed.
    pub(crate) fn choice(&self, stored: OriginChoice) -> Result<OriginChoice> {
        if self.formats.len() > self.paths.len() {
            return Err(Failure::new("more --origin-format than --origin"));
        }
        if self.no_origin {
            return Ok(OriginChoice::Zeros);
        }
        let mut below = None;
        for (at, path) in self.paths.iter().enumerate().rev() {
            let format = self.format_of(at, path)?;
            if below.is_some() && format == Format::Raw {
                return Err(Failure::at(
                    path,
                    "a raw image has nothing below it: say --origin-format dmsnap, or leave out what follows",
                ));
            }
            below = Some(OriginChoice::Path {
                path: path.clone(),
                format,
                below: Box::new(below.unwrap_or(OriginChoice::FromImage)),
            });
        }
        Ok(below.unwrap_or(stored))
    }

    /// Options that open a layer over what was named, or over what it names itself.
    pub(crate) fn options(&self) -> Result<OpenOptions> {
        self.options_over(OriginChoice::FromImage)
    }

    /// Options that open a layer over what was named, or over `stored`.
    pub(crate) fn options_over(&self, stored: OriginChoice) -> Result<OpenOptions> {
        let options = OpenOptions::new()
            .origin(self.choice(stored)?)
            .ignore_origin_uuid(self.ignore_origin_uuid);
        Ok(match self.disk_size {
            Some(size) => options.bare_size(size),
            None => options,
        })
    }

    /// Opens a layer with options from here.
    pub(crate) fn open(&self, path: &Path, options: &OpenOptions) -> Result<Image> {
        self.checked(path, Image::open(path, options).about(path)?)
    }

    /// Opens a layer whose format was guessed, with the lock or without.
    pub(crate) fn open_guessed(&self, path: &Path, lock: bool) -> Result<Image> {
        let options = self.options_over(OriginChoice::FromImageInside)?.lock(lock);
        let image = Image::open(path, &options);
        self.checked(path, image.map_err(|error| gate::after_guess(error, path))?)
    }

    fn checked(&self, path: &Path, image: Image) -> Result<Image> {
        if let (Some(size), Some(descriptor)) = (self.disk_size, image.descriptor()) {
            return Err(Failure::at(
                path,
                format!(
                    "records that its disk has {} bytes: --disk-size {size} is for stores without a descriptor",
                    descriptor.virtual_size
                ),
            ));
        }
        image.warnings().iter().for_each(output::warn);
        Ok(image)
    }

    /// A format that was not given is raw; but a layer that is taken for raw bytes by mistake would show garbage.
    fn format_of(&self, at: usize, path: &Path) -> Result<Format> {
        if let Some(format) = self.formats.get(at) {
            return Ok((*format).into());
        }
        if source::looks_like_layer(path)? {
            return Err(Failure::at(
                path,
                "begins like a dmsnap layer: say --origin-format dmsnap, or raw if these are the disk's bytes",
            ));
        }
        Ok(Format::Raw)
    }
}

/// `-o NAME=VALUE,...` of create and convert.
#[derive(Clone, Debug, Default)]
pub(crate) struct CreateSettings {
    pub(crate) chunk_size: Option<ChunkSize>,
    pub(crate) bare: Option<bool>,
    pub(crate) backing: Option<String>,
    pub(crate) backing_format: Option<Format>,
    pub(crate) size: Option<u64>,
}

impl CreateSettings {
    /// Help for -o.
    pub(crate) const NAMES: &str =
        "chunk_size=SIZE (16K), bare=on|off, size=SIZE, backing_file=NAME, backing_fmt=FMT";

    /// Reads all -o of a command line.
    pub(crate) fn parse(options: &[String]) -> Result<CreateSettings> {
        let mut settings = CreateSettings::default();
        for option in options.iter().flat_map(|list| list.split(',')) {
            let Some((name, value)) = option.split_once('=') else {
                return Err(Failure::new(format!(
                    "-o {option}: wanted NAME=VALUE; there are {}",
                    Self::NAMES
                )));
            };
            settings
                .set(name, value)
                .map_err(|reason| Failure::new(format!("-o {option}: {reason}")))?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        match name {
            "chunk_size" | "cluster_size" => self.chunk_size = Some(parse_chunk_size(value)?),
            "bare" => self.bare = Some(parse_switch(value)?),
            "size" => self.size = Some(parse_disk_size(value)?),
            "backing_file" => self.backing = Some(value.to_string()),
            "backing_fmt" => {
                let format = Format::from_name(value);
                self.backing_format = Some(format.ok_or("no such format; there are raw, dmsnap")?);
            }
            _ => return Err(format!("no such option; there are {}", Self::NAMES)),
        }
        Ok(())
    }

    /// Adds what was said of the backing by options of its own.
    pub(crate) fn take_backing(
        &mut self,
        backing: Option<&String>,
        format: Option<FormatArg>,
    ) -> Result<()> {
        once("backing", &mut self.backing, backing.cloned())?;
        let format = format.map(Format::from);
        once("backing format", &mut self.backing_format, format)?;
        match (&self.backing, self.backing_format) {
            (Some(backing), None) => Err(format_is_missing(backing)),
            (None, Some(_)) => Err(Failure::new(
                "-F without -b or -B: which backing has this format?",
            )),
            _ => Ok(()),
        }
    }

    /// Whether nothing was said that only a layer has.
    pub(crate) fn suit_raw(&self) -> bool {
        self.backing.is_none() && self.bare.is_none() && self.chunk_size.is_none()
    }

    /// Whether a chunk has room for a descriptor.
    pub(crate) fn has_room(&self) -> bool {
        Descriptor::slot_offsets(self.chunk_size()).is_some()
    }

    /// The chunk size that was asked for, or the default.
    pub(crate) fn chunk_size(&self) -> ChunkSize {
        self.chunk_size.unwrap_or(ChunkSize::DEFAULT)
    }
}

/// What may be said by -o or by an option of its own, but once.
pub(crate) fn once<T>(what: &str, setting: &mut Option<T>, own: Option<T>) -> Result<()> {
    match (&setting, own) {
        (Some(_), Some(_)) => Err(Failure::new(format!(
            "the {what} is given twice, by -o and besides it"
        ))),
        (None, Some(own)) => {
            *setting = Some(own);
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(crate) fn parse_chunk_size(text: &str) -> std::result::Result<ChunkSize, String> {
    ChunkSize::from_bytes(parse_size(text)?)
        .map_err(|_| "a chunk is a power of two from 512 to 1G bytes".to_string())
}

fn parse_switch(text: &str) -> std::result::Result<bool, String> {
    match text {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err("wanted on or off".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<CreateSettings, String> {
        CreateSettings::parse(&[text.to_string()]).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn test_settings() {
        let settings =
            parse("chunk_size=4k,bare=on,size=1M,backing_file=a b,backing_fmt=raw").unwrap();
        assert_eq!(settings.chunk_size().bytes(), 4096);
        assert_eq!(settings.bare, Some(true));
        assert_eq!(settings.size, Some(1 << 20));
        assert_eq!(settings.backing.as_deref(), Some("a b"));
        assert_eq!(settings.backing_format, Some(Format::Raw));
        assert_eq!(CreateSettings::default().chunk_size(), ChunkSize::DEFAULT);
    }

    #[test]
    fn test_wrong_settings_are_told() {
        for (text, word) in [
            ("chunk_size", "NAME=VALUE"),
            ("", "NAME=VALUE"),
            ("colour=red", "there are chunk_size"),
            ("chunk_size=3k", "power of two"),
            ("chunk_size=2G", "power of two"),
            ("chunk_size=x", "not a size"),
            ("size=1000", "512 and 1024"),
            ("bare=perhaps", "on or off"),
            ("backing_fmt=qcow2", "raw, dmsnap"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
