//! `dmsnap recover`

use std::path::{Path, PathBuf};

use dmsnap::store::{Doubt, LeftOut};
use dmsnap::{
    ChunkSize, ErrorKind, Format, HeaderFound, RecoverOptions, RecoverProgress, RecoverReport,
    recover_in_place,
};
use serde::Serialize;

use crate::args::{FormatArg, LayerFormat, format_is_missing, parse_chunk_size};
use crate::failure::{About, Failure, Result};
use crate::output::{self, OutputFormat};
use crate::progress::Progress;
use crate::signal::Interrupt;
use crate::size::parse_disk_size;
use crate::target::Target;

/// Save what a damaged or invalidated layer still holds with certainty
#[derive(clap::Args)]
#[command(after_help = "\
NEW gets what good records of DAMAGED show: legal ones that no other record contradicts. What is left out is listed. DAMAGED \
is only read, unless --in-place makes a good store of it.

A kernel invalidates a store when it is full or a write fails. If a write to the layer was the cause, and nothing wrote to the \
origin since, the store is complete up to the failed write. If a write to the origin was the cause, the data that it \
replaced are lost, and no store tells. A kernel that invalidates wipes size and backing: say them with --size and -b. \
Without a size NEW is a store without a descriptor, as the kernel makes it.

Exit codes: 0 all that the log held was recovered; 1 failed, there is no NEW; 2 something was left out, or the header was damaged.")]
pub(crate) struct Args {
    /// Show progress
    #[arg(short, long, conflicts_with = "output")]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    #[command(flatten)]
    format: LayerFormat,
    /// Size of the disk, if the descriptor does not tell it any more [default: that of the backing given by -b]
    #[arg(long, value_name = "SIZE", value_parser = parse_disk_size)]
    size: Option<u64>,
    /// The image that NEW lies over; a relative name starts at NEW's directory
    #[arg(short, long, value_name = "BACKING")]
    backing: Option<String>,
    /// Format of the backing; it is never guessed
    #[arg(short = 'F', long, value_name = "FMT", requires = "backing")]
    backing_format: Option<FormatArg>,
    /// Size of a chunk, if the header does not tell it any more
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size)]
    chunk_size: Option<ChunkSize>,
    /// NEW records neither size nor backing
    #[arg(long)]
    bare: bool,
    /// Write to DAMAGED itself: what is left out is lost for good then
    #[arg(long, conflicts_with = "new")]
    in_place: bool,
    /// The damaged layer
    damaged: PathBuf,
    /// The layer to make; must not exist
    #[arg(required_unless_present = "in_place")]
    new: Option<PathBuf>,
}

const EXIT_INCOMPLETE: u8 = 2;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    filename: String,
    target: String,
    in_place: bool,
    changed: bool,
    header: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_damage: Option<String>,
    descriptor_damage: Vec<String>,
    chunk_size: u64,
    virtual_size: Option<u64>,
    recovered: u64,
    lost: u64,
    past_end: u64,
    repeated: u64,
    stale: u64,
    missing_area: Option<u64>,
    complete: bool,
    left_out: Vec<Left>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Left {
    record: u64,
    old_chunk: u64,
    new_chunk: u64,
    reason: &'static str,
    #[serde(skip)]
    text: &'static str,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    args.format.check(&args.damaged)?;
    let options = options(args)?;
    let outcome = match &args.new {
        Some(new) => into_new(args, new, &options)?,
        None => {
            let report = recover_in_place(&args.damaged, &options).about(&args.damaged)?;
            Outcome::new(args, &args.damaged, report)
        }
    };
    match args.output {
        _ if args.quiet => {}
        OutputFormat::Json => output::json(&outcome)?,
        OutputFormat::Human => outcome.print()?,
    }
    Ok(if outcome.complete { 0 } else { EXIT_INCOMPLETE })
}

fn options(args: &Args) -> Result<RecoverOptions> {
    let mut options = RecoverOptions::new().bare(args.bare);
    if let Some(size) = args.size {
        options = options.size(size);
    }
    if let Some(chunk_size) = args.chunk_size {
        options = options.chunk_size(chunk_size);
    }
    match (&args.backing, args.backing_format) {
        (Some(backing), Some(format)) => Ok(options.origin(backing, Format::from(format))),
        (Some(backing), None) => Err(format_is_missing(backing)),
        (None, _) => Ok(options),
    }
}

fn into_new(args: &Args, new: &Path, options: &RecoverOptions) -> Result<Outcome> {
    if new.symlink_metadata().is_ok() {
        return Err(Failure::at(
            new,
            "exists already: name a file that does not exist",
        ));
    }
    let interrupt = Interrupt::catch()?;
    let target = Target::prepare(new, std::slice::from_ref(&args.damaged))?;
    let wanted = args.progress && !args.quiet;
    let mut progress = None;
    let mut shown = Ok(());
    let recovered = dmsnap::recover(
        &args.damaged,
        target.work(),
        options,
        &mut |now: RecoverProgress| {
            let progress = progress.get_or_insert_with(|| Progress::new(wanted, now.total));
            shown = progress.set(now.done);
            !interrupt.is_pending() && shown.is_ok()
        },
    );
    shown?;
    let report = match recovered {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            interrupt.check("nothing was left behind")?;
            return Err(error).about(&args.damaged);
        }
        other => other
            .about(&args.damaged)
            .map_err(|failure| target.rename_in(failure))?,
    };
    if let Some(mut progress) = progress {
        progress.finish()?;
    }
    target.commit()?;
    Ok(Outcome::new(args, new, report))
}

impl Outcome {
    fn new(args: &Args, target: &Path, report: RecoverReport) -> Outcome {
        let complete = report.is_complete();
        let (header, header_damage) = match report.header {
            HeaderFound::Valid => ("valid", None),
            HeaderFound::Invalidated => ("invalidated", None),
            HeaderFound::Damaged(why) => ("damaged", Some(why)),
        };
        let damage = report.descriptor_damage.iter();
        Outcome {
            filename: args.damaged.display().to_string(),
            target: target.display().to_string(),
            in_place: args.in_place,
            changed: report.changed,
            header,
            header_damage,
            descriptor_damage: damage.map(|damage| damage.to_string()).collect(),
            chunk_size: report.chunk_size.bytes(),
            virtual_size: report.size,
            recovered: report.recovered,
            lost: report.lost,
            past_end: report.past_end,
            repeated: report.repeated,
            stale: report.stale,
            missing_area: report.missing_area,
            complete,
            left_out: report.left_out.iter().map(Left::new).collect(),
        }
    }

    fn print(&self) -> Result<()> {
        for left in &self.left_out {
            output::line(format_args!(
                "left out: record {}, chunk {} in COW chunk {}: {}",
                left.record, left.old_chunk, left.new_chunk, left.text
            ))?;
        }
        let more = (self.lost + self.past_end).saturating_sub(self.left_out.len() as u64);
        if more > 0 {
            output::line(format_args!("left out: {more} more"))?;
        }
        self.print_doubts()?;
        let exceptions = output::count(self.recovered, "exception");
        let (from, to) = (&self.filename, &self.target);
        match (self.in_place, self.changed) {
            (false, _) => output::line(format_args!(
                "Recovered {exceptions} of '{from}' to '{to}'."
            ))?,
            (true, true) => output::line(format_args!("Recovered {exceptions} in '{to}'."))?,
            (true, false) => {
                output::line(format_args!("{exceptions} in '{to}', nothing to recover."))?;
            }
        }
        if self.lost > 0 {
            output::line(format_args!(
                "{} left out: there the layer now shows what lies below.",
                output::count(self.lost, "exception")
            ))?;
        }
        Ok(())
    }

    /// What may be missing without a record that says so.
    fn print_doubts(&self) -> Result<()> {
        if let Some(why) = &self.header_damage {
            output::line(format_args!("The header was damaged: {why}."))?;
        }
        if self.header == "invalidated" {
            output::line(
                "The store was invalidated: this is complete only if no write to the origin was the cause. If one was, the \
                 data that it replaced are lost.",
            )?;
        }
        for damage in &self.descriptor_damage {
            output::line(damage)?;
        }
        if let Some(area) = self.missing_area {
            output::line(format_args!(
                "The file ends before the log does: from metadata area {area} on exceptions are lost, nobody knows how many."
            ))?;
        }
        if self.stale > 0 {
            output::line(format_args!(
                "{} behind the end of the log not looked at; see `dmsnap dump --raw`.",
                output::count(self.stale, "record")
            ))?;
        }
        Ok(())
    }
}

impl Left {
    fn new(left: &LeftOut) -> Left {
        let (reason, text) = match left.doubt {
            Doubt::OutOfRange => ("out-of-range", "that lies outside the file"),
            Doubt::Truncated => ("truncated", "the file ends inside of that"),
            Doubt::Metadata => ("metadata", "that holds metadata"),
            Doubt::DuplicateOldChunk => ("duplicate-old-chunk", "the chunk has another exception"),
            Doubt::SharedNewChunk => ("shared-new-chunk", "another exception has it too"),
            Doubt::PastEnd => ("past-end", "past the end of the disk, it shows nothing"),
            Doubt::Unreadable => ("unreadable", "that cannot be read"),
            _ => ("other", "in doubt"),
        };
        Left {
            record: left.index,
            old_chunk: left.record.old.0,
            new_chunk: left.record.new.0,
            reason,
            text,
        }
    }
}
