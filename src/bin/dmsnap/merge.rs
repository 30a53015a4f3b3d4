//! `dmsnap merge`

use std::path::PathBuf;

use dmsnap::{ErrorKind, Image, MergeProgress};

use crate::args::{LayerFormat, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output;
use crate::progress::Progress;
use crate::signal::Interrupt;

/// Merge a layer into its origin, which then reads as the layer did
#[derive(clap::Args)]
#[command(after_help = "\
The layer is empty afterwards. Stopped at any point, by a signal, a full disk or a power cut, the pair of layer and \
origin shows the same content, and merging again goes on from there. Other layers over the same origin do not survive \
a merge: they show a mixture then.")]
pub(crate) struct Args {
    /// Show progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing but errors and warnings about the layer at hand; not that others over the origin become wrong
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: LayerFormat,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer to merge
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.file)?;
    let interrupt = Interrupt::catch()?;
    let options = args.origin.options()?.writable(true);
    let image = args.origin.open(&args.file, &options)?;
    let info = image.info().about(&args.file)?;
    let origin = info.chain.into_iter().nth(1);
    let Some(origin) = origin else {
        return Err(Failure::at(&args.file, "there is no origin to merge into"));
    };
    if !args.quiet {
        output::warn(format_args!(
            "{0}: other layers over this file become wrong by the merge; only the lock of a program that uses one now prevents it",
            origin.name
        ));
    }
    let mut progress = Progress::new(args.progress && !args.quiet, info.exceptions);
    let last = merge(args, &image, &mut progress, &interrupt)?;
    image.close().about(&args.file)?;
    if !args.quiet {
        output::line(format_args!(
            "Merged {} of '{}' into '{}', {} bytes.",
            output::count(last.total, "exception"),
            args.file.display(),
            origin.name,
            last.bytes_copied
        ))?;
    }
    Ok(0)
}

fn merge(
    args: &Args,
    image: &Image,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<MergeProgress> {
    progress.set(0)?;
    let mut last = MergeProgress::default();
    let mut shown = Ok(());
    let merged = image.merge(&mut |now| {
        last = now;
        shown = progress.set(now.done);
        !interrupt.is_pending() && shown.is_ok()
    });
    shown?;
    match merged {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            let MergeProgress { done, total, .. } = last;
            interrupt.check(&format!(
                "{}: {done} of {} merged; merge again to go on",
                args.file.display(),
                output::count(total, "exception")
            ))?;
            Err(error).about(&args.file)
        }
        other => {
            other.about(&args.file)?;
            progress.finish()?;
            Ok(last)
        }
    }
}
