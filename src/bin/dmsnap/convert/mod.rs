//! `dmsnap convert`

mod copy;
mod writer;

use std::path::{Path, PathBuf};

use dmsnap::{CreateOptions, Format, Image, OriginChoice};

use crate::args::{CreateSettings, FormatArg, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::progress::Progress;
use crate::signal::Interrupt;
use crate::source::{self, How, Source};
use crate::target::{self, Target};
use crate::{gate, output};
use copy::{Copy, Difference};
use writer::{LayerWriter, RawWriter, Writer};

/// Copy the content of an image into a new one; zeros take no space there
#[derive(clap::Args)]
#[command(after_help = "\
DST gets its name when it is complete; until then, and if anything fails, what was there stays. A block device is \
written in place. The backing that SRC names is opened if -f dmsnap is given or if the name is relative and without '..': \
a guest can write a layer's header into a raw disk.")]
pub(crate) struct Args {
    /// Show progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Format of SRC [default: guessed]
    #[arg(short = 'f', long, value_name = "FMT")]
    source_format: Option<FormatArg>,
    /// Format of DST
    #[arg(short = 'O', long, value_name = "FMT")]
    target_format: FormatArg,
    #[arg(short = 'o', long, value_name = "NAME=VALUE,...", help = OPTIONS)]
    options: Vec<String>,
    /// Store only what differs from this image; a relative name starts at DST's directory
    #[arg(short = 'B', long, value_name = "BACKING")]
    backing: Option<String>,
    /// Format of the backing; it is never guessed
    #[arg(short = 'F', long, value_name = "FMT", requires = "backing")]
    backing_format: Option<FormatArg>,
    /// Take no lock on SRC: an image in use may change meanwhile
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    origin: OriginArgs,
    /// The image to read
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The image to make
    #[arg(value_name = "DST")]
    target: PathBuf,
}

/// Help for -o.
const OPTIONS: &str =
    "Options: chunk_size=SIZE (16K), bare=on|off, backing_file=NAME, backing_fmt=FMT";

/// An image that the new one lies over.
struct Backing {
    /// As it is to be stored.
    name: String,
    format: Format,
    path: PathBuf,
    image: Source,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let settings = settings(args)?;
    let interrupt = Interrupt::catch()?;
    let how = How {
        format: args.source_format.map(Format::from),
        origin: &args.origin,
        share: args.force_share,
    };
    let source = Source::open(&args.source, how)?;
    let backing = open_backing(args, &settings)?;
    let mut sources = source.files(&args.source)?;
    if let Some(backing) = &backing {
        sources.extend(backing.image.files(&backing.path)?);
    }
    let target = Target::prepare(&args.target, &sources)?;
    let done = match args.target_format {
        FormatArg::Raw => to_raw(args, &source, &target, &interrupt),
        FormatArg::Dmsnap => to_layer(
            args,
            &settings,
            &source,
            backing.as_ref(),
            &target,
            &interrupt,
        ),
    };
    done.map_err(|failure| target.rename_in(failure))?;
    target.commit()?;
    Ok(0)
}

/// The options, as far as they go together.
fn settings(args: &Args) -> Result<CreateSettings> {
    let mut settings = CreateSettings::parse(&args.options)?;
    if settings.size.is_some() {
        return Err(Failure::new(
            "the size is that of the source: -o takes no size here",
        ));
    }
    settings.take_backing(args.backing.as_ref(), args.backing_format)?;
    if args.target_format == FormatArg::Raw && !settings.suit_raw() {
        return Err(Failure::new(
            "a raw image has no backing, no chunks and no descriptor",
        ));
    }
    if settings.bare == Some(false) && !settings.has_room() {
        return Err(Failure::new(format!(
            "chunks of {} bytes have no room for a descriptor: bare=off needs 4096 or more",
            settings.chunk_size().bytes()
        )));
    }
    Ok(settings)
}

fn open_backing(args: &Args, settings: &CreateSettings) -> Result<Option<Backing>> {
    let (Some(name), Some(format)) = (settings.backing.clone(), settings.backing_format) else {
        return Ok(None);
    };
    let path = args.target.parent().unwrap_or(Path::new("")).join(&name);
    if format == Format::Raw {
        source::warn_of_layer_as_raw(&path);
    } else if gate::is_bare(&path) {
        return Err(Failure::at(
            &path,
            "a bare store cannot be a backing, because it does not record its own: add a descriptor to it first",
        ));
    }
    let none = OriginArgs::default();
    let how = How {
        format: Some(format),
        origin: &none,
        share: false,
    };
    let image = Source::open(&path, how)?;
    Ok(Some(Backing {
        name,
        format,
        path,
        image,
    }))
}

fn to_raw(args: &Args, source: &Source, target: &Target, interrupt: &Interrupt) -> Result<()> {
    let size = source.size();
    let storage = target::raw_storage(target, size)?;
    let writer = RawWriter::new(storage, !target.is_block_device());
    copy(args, source, Difference::FromZeros, &writer, interrupt)?;
    writer.finish()
}

fn to_layer(
    args: &Args,
    settings: &CreateSettings,
    source: &Source,
    backing: Option<&Backing>,
    target: &Target,
    interrupt: &Interrupt,
) -> Result<()> {
    let chunk_size = settings.chunk_size();
    let bare = settings.bare == Some(true) || !settings.has_room();
    let mut options = CreateOptions::new()
        .chunk_size(chunk_size)
        .bare(bare)
        .create_on_existing(target.is_block_device());
    if !bare {
        options = options.size(source.size());
    }
    if let Some(backing) = backing.filter(|_| !bare) {
        options = options
            .origin(&backing.name, backing.format)
            .origin_path(&backing.path);
    }
    Image::create(target.work(), &options).about(target.work())?;
    let bare_size = bare.then(|| source.size());
    let writer = LayerWriter::open(target.work(), origin_of(backing), bare_size)?;
    let difference = match backing {
        Some(backing) => Difference::From(&backing.image),
        None => Difference::FromZeros,
    };
    copy(args, source, difference, &writer, interrupt)?;
    writer.finish()?;
    if bare && !args.quiet {
        say_bare(args, source, backing);
    }
    Ok(())
}

fn origin_of(backing: Option<&Backing>) -> OriginChoice {
    match backing {
        None => OriginChoice::Zeros,
        Some(backing) => OriginChoice::Path {
            path: backing.path.clone(),
            format: backing.format,
            below: Box::new(OriginChoice::FromImage),
        },
    }
}

/// What is not in the file has to be remembered by its user.
fn say_bare(args: &Args, source: &Source, backing: Option<&Backing>) {
    let origin = match backing {
        Some(backing) if backing.format == Format::Raw => {
            format!("--origin {}", backing.path.display())
        }
        Some(backing) => format!("--origin {} --origin-format dmsnap", backing.path.display()),
        None => "--no-origin".to_owned(),
    };
    let size = match backing {
        Some(backing) if backing.image.size() == source.size() => String::new(),
        _ => format!(" --disk-size {}", source.size()),
    };
    output::warn(format_args!(
        "{}: a bare store, without a descriptor: it records neither size nor backing; open it with {origin}{size}",
        args.target.display()
    ));
}

fn copy(
    args: &Args,
    source: &Source,
    difference: Difference<'_>,
    writer: &dyn Writer,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut progress = Progress::new(args.progress && !args.quiet, source.size());
    Copy::new(source, difference, writer).run(&mut |done| {
        interrupt.check("nothing was left behind")?;
        progress.set(done)
    })?;
    progress.finish()
}
