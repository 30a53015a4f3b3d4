//! `dmsnap compare`

use std::path::{Path, PathBuf};

use dmsnap::{ByteRange, Format};

use crate::args::{FormatArg, OriginArgs};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::source::{self, How, Runs, Source};
use crate::{gate, output};

/// Compare the content of two images
#[derive(clap::Args)]
#[command(after_help = "\
Where one is longer, the rest of it must read as zeros to count as the same, unless -s is given. What lies below is \
said of stores that do not record it, of both if both are such; if none is, of FILE1, or of FILE2 if FILE1 is raw.

Exit codes: 0 the same content; 1 different content, or wrong usage; 2 an image could not be opened; 3 its allocation could not be found out; 4 it could not be read.")]
pub(crate) struct Args {
    /// Format of FILE1 [default: guessed]
    #[arg(short = 'f', long, value_name = "FMT")]
    a_format: Option<FormatArg>,
    /// Format of FILE2 [default: guessed]
    #[arg(short = 'F', long, value_name = "FMT")]
    b_format: Option<FormatArg>,
    /// Show progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Different sizes are a difference
    #[arg(short, long)]
    strict: bool,
    /// Take no locks: an image in use may change meanwhile
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    origin: OriginArgs,
    /// An image
    file1: PathBuf,
    /// Another image
    file2: PathBuf,
}

const EXIT_DIFFERENT: u8 = 1;
const EXIT_OPEN: u8 = 2;
const EXIT_EXTENT: u8 = 3;
const EXIT_READ: u8 = 4;

/// Bytes that are compared at once.
const PIECE: u64 = 1 << 20;

/// Bytes that are read even if they hold holes, which cost more to find than to read.
const WINDOW: u64 = 256 << 10;

pub(crate) fn run(args: &Args) -> Result<u8> {
    let (one, other) = open(args).map_err(|failure| failure.with_code(EXIT_OPEN))?;
    let (longer, shorter) = (one.size().max(other.size()), one.size().min(other.size()));
    if longer != shorter {
        if args.strict {
            say(
                args,
                format_args!("Sizes differ: {} and {} bytes.", one.size(), other.size()),
            )?;
            return Ok(EXIT_DIFFERENT);
        }
        if !args.quiet {
            output::warn(format_args!(
                "sizes differ: {} and {} bytes",
                one.size(),
                other.size()
            ));
        }
    }
    let mut comparison = Comparison {
        one: &one,
        other: &other,
        runs: [Runs::of(&one), Runs::of(&other)],
        buffers: [vec![0; PIECE as usize], vec![0; PIECE as usize]],
    };
    let mut progress = Progress::new(args.progress && !args.quiet, longer);
    let mut at = 0;
    while at < longer {
        let (len, difference) = comparison.piece(ByteRange::new(at, longer - at))?;
        if let Some(offset) = difference {
            drop(progress);
            say(args, format_args!("Content mismatch at offset {offset}!"))?;
            return Ok(EXIT_DIFFERENT);
        }
        at += len;
        progress.set(at)?;
    }
    progress.finish()?;
    say(args, format_args!("Images are identical."))?;
    Ok(0)
}

fn say(args: &Args, what: std::fmt::Arguments<'_>) -> Result<()> {
    if args.quiet {
        Ok(())
    } else {
        output::line(what)
    }
}

fn open(args: &Args) -> Result<(Source, Source)> {
    let none = OriginArgs::default();
    let files = [
        Kind::of(&args.file1, args.a_format)?,
        Kind::of(&args.file2, args.b_format)?,
    ];
    // What records nothing needs it; of two images that do without, the first layer takes it.
    let is_meant = |at: usize| match files {
        _ if files.contains(&Kind::Bare) => files[at] == Kind::Bare,
        [Kind::Raw, _] => at == 1,
        _ => at == 0,
    };
    let how = |format: Option<FormatArg>, at: usize| How {
        format: format.map(Format::from),
        origin: if is_meant(at) { &args.origin } else { &none },
        share: args.force_share,
    };
    Ok((
        Source::open(&args.file1, how(args.a_format, 0))?,
        Source::open(&args.file2, how(args.b_format, 1))?,
    ))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Raw,
    /// A layer that records what it lies over.
    Layer,
    Bare,
}

impl Kind {
    fn of(path: &Path, format: Option<FormatArg>) -> Result<Kind> {
        let format = match format {
            Some(format) => format.into(),
            None => source::guess_format(path)?,
        };
        Ok(match format {
            Format::Raw => Kind::Raw,
            Format::Dmsnap if gate::is_bare(path) => Kind::Bare,
            Format::Dmsnap => Kind::Layer,
        })
    }
}

struct Comparison<'a> {
    one: &'a Source,
    other: &'a Source,
    runs: [Runs<'a>; 2],
    buffers: [Vec<u8>; 2],
}

impl Comparison<'_> {
    /// Compares a piece at the start of `range`: how many bytes, and the offset of the first difference.
    fn piece(&mut self, range: ByteRange) -> Result<(u64, Option<u64>)> {
        let run = |runs: &mut Runs<'_>, range| {
            runs.at(range)
                .map_err(|failure: Failure| failure.with_code(EXIT_EXTENT))
        };
        let [one, other] = &mut self.runs;
        let first = run(one, range)?;
        let second = run(other, ByteRange::new(range.start, first.len))?;
        let is_hole = first.is_zero && second.is_zero;
        if is_hole && (second.len >= WINDOW || second.len == range.len) {
            return Ok((second.len, None));
        }
        let len = second.len.clamp(WINDOW, PIECE).min(range.len);
        let [left, right] = &mut self.buffers;
        let (left, right) = (&mut left[..len as usize], &mut right[..len as usize]);
        for (source, buf) in [(self.one, &mut *left), (self.other, &mut *right)] {
            source
                .read(buf, range.start)
                .map_err(|failure| failure.with_code(EXIT_READ))?;
        }
        if left == right {
            return Ok((len, None));
        }
        let same = left
            .iter()
            .zip(right.iter())
            .take_while(|(left, right)| left == right)
            .count();
        Ok((len, Some(range.start + same as u64)))
    }
}
