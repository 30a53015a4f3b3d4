//! `dmsnap check`

use std::path::PathBuf;

use clap::ValueEnum;
use dmsnap::store::{FindingKind, Severity};
use dmsnap::{CheckOptions, CheckOutcome, ErrorKind, Repair, Treatment};
use serde::Serialize;

use crate::args::{FormatArg, OriginArgs};
use crate::failure::{About, Failure, Result};
use crate::output::{self, OutputFormat};
use crate::source::{How, Source};

/// Look for damage and leaked space, and repair what needs no guessing
#[derive(clap::Args)]
#[command(after_help = "\
Only FILE is looked at, not what lies below; of an --origin only the size, to tell which exceptions of a store without \
a descriptor lie past the end. A leak is a chunk before the next free one that occupies space and that no record names; \
what lies behind the next free chunk is no leak, later writes use it. Repairable is the trace of an interrupted \
operation: no data is lost, but no kernel should write to the file before it is gone; or one damaged slot of the image \
descriptor, which is written anew from the other. Corruption is never repaired here, and beside it nothing is; a new \
layer of what is certain is made by `dmsnap recover`. With -r each finding says whether it was mended, or left and why.

Exit codes: 0 nothing wrong (any more); 1 the check could not be completed; 2 corruption; 3 leaks or something \
repairable, but no corruption; 63 not a layer, nothing to check.")]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Format of FILE; only layers can be checked
    #[arg(short, long, value_name = "FMT", default_value = "dmsnap")]
    format: FormatArg,
    /// Give back leaked space; with `all`, remove traces of interrupted operations too
    #[arg(short, long, value_name = "WHAT")]
    repair: Option<RepairArg>,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: OutputFormat,
    /// Take no lock: an image in use may seem damaged
    #[arg(short = 'U', long, conflicts_with = "repair")]
    force_share: bool,
    #[command(flatten)]
    origin: OriginArgs,
    /// The layer
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RepairArg {
    Leaks,
    All,
}

const EXIT_CORRUPT: u8 = 2;
const EXIT_LEAKS: u8 = 3;
const EXIT_NOT_SUPPORTED: u8 = 63;

/// The outcome in qemu-img's names.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    filename: String,
    format: &'static str,
    check_errors: u64,
    image_end_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_clusters: Option<u64>,
    allocated_clusters: u64,
    #[serde(skip_serializing_if = "is_zero")]
    corruptions: u64,
    #[serde(skip_serializing_if = "is_zero")]
    leaks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    leaks_fixed: u64,
    format_specific: FormatSpecific,
}

#[derive(Serialize)]
struct FormatSpecific {
    #[serde(rename = "type")]
    kind: &'static str,
    data: Details,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Details {
    chunk_size: u64,
    areas: u64,
    leaked_bytes: u64,
    repairable: u64,
    repaired: u64,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    severity: &'static str,
    kind: &'static str,
    /// Whether a new descriptor would mend it.
    #[serde(skip)]
    is_descriptor: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    message: String,
    /// What a repair did: `mended` or `left`, and then why.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.format == FormatArg::Raw {
        return Err(
            Failure::at(&args.file, "raw images hold nothing that could be checked")
                .with_code(EXIT_NOT_SUPPORTED),
        );
    }
    let outcome = match dmsnap::check(&args.file, &options(args)?) {
        Err(error) if error.kind() == ErrorKind::InvalidFormat => {
            return Err(error)
                .about(&args.file)
                .map_err(|failure: Failure| failure.with_code(EXIT_NOT_SUPPORTED));
        }
        // Not the advice to check.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Err(error).about(&args.file).map_err(Failure::without_hint);
        }
        other => other.about(&args.file)?,
    };
    let outcome = Outcome::new(args, &outcome);
    match args.output {
        _ if args.quiet => {}
        OutputFormat::Json => output::json(&outcome)?,
        OutputFormat::Human => outcome.print()?,
    }
    Ok(outcome.exit_code())
}

fn options(args: &Args) -> Result<CheckOptions> {
    let mut options = CheckOptions::new()
        .lock(!args.force_share)
        .repair(match args.repair {
            None => Repair::None,
            Some(RepairArg::Leaks) => Repair::Leaks,
            Some(RepairArg::All) => Repair::All,
        });
    if let Some(size) = args.origin.disk_size() {
        options = options.origin_size(size);
    } else if let Some((path, format, below)) = args.origin.first()? {
        let how = How {
            format: Some(format),
            origin: &below,
            share: args.force_share,
        };
        options = options.origin_size(Source::open(path, how)?.size());
    }
    Ok(options)
}

impl Finding {
    fn new(finding: &dmsnap::store::Finding, treatment: Treatment) -> Finding {
        let (repair, reason) = match treatment {
            Treatment::Mended => (Some("mended"), None),
            Treatment::Left(reason) => (Some("left"), Some(reason)),
            _ => (None, None),
        };
        Finding {
            severity: match finding.severity {
                Severity::Note => "note",
                Severity::Leak => "leak",
                Severity::Repairable => "repairable",
                Severity::Corruption => "corruption",
            },
            kind: kind_name(finding.kind),
            is_descriptor: finding.severity == Severity::Corruption
                && finding.kind == FindingKind::Descriptor,
            offset: finding.offset,
            message: finding.message.clone(),
            repair,
            reason,
        }
    }

    fn print(&self) -> Result<()> {
        let place = self
            .offset
            .map_or(String::new(), |offset| format!(" at offset {offset}"));
        let done = match (self.repair, self.reason) {
            (Some(repair), Some(reason)) => format!(" ({repair}: {reason})"),
            (Some(repair), None) => format!(" ({repair})"),
            _ => String::new(),
        };
        output::line(format_args!(
            "{}{place}: {}{done}",
            self.severity, self.message
        ))
    }
}

fn kind_name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Invalid => "invalid",
        FindingKind::Descriptor => "descriptor",
        FindingKind::IllegalNewChunk => "illegal-new-chunk",
        FindingKind::TruncatedData => "truncated-data",
        FindingKind::DuplicateOldChunk => "duplicate-old-chunk",
        FindingKind::SharedNewChunk => "shared-new-chunk",
        FindingKind::RepeatedRecord => "repeated-record",
        FindingKind::PastEnd => "past-end",
        FindingKind::StaleSlots => "stale-slots",
        FindingKind::MissingArea => "missing-area",
        FindingKind::Leak => "leak",
        _ => "other",
    }
}

impl Outcome {
    fn new(args: &Args, outcome: &CheckOutcome) -> Outcome {
        let report = &outcome.report;
        let chunk = report.chunk_size;
        let findings = report.findings.iter().zip(&outcome.treatments);
        let findings = findings.map(|(finding, treatment)| Finding::new(finding, *treatment));
        Outcome {
            filename: args.file.display().to_string(),
            format: "dmsnap",
            check_errors: 0,
            image_end_offset: report.next_free.saturating_mul(chunk.bytes()),
            total_clusters: report
                .descriptor
                .as_ref()
                .map(|descriptor| chunk.count_for(descriptor.virtual_size)),
            allocated_clusters: report.exceptions,
            corruptions: outcome.remaining_corruptions,
            leaks: outcome.remaining_leaks,
            leaks_fixed: outcome.repaired_leaks,
            format_specific: FormatSpecific {
                kind: "dmsnap",
                data: Details {
                    chunk_size: chunk.bytes(),
                    areas: report.areas,
                    leaked_bytes: outcome.leaked_bytes,
                    repairable: outcome.remaining_repairable,
                    repaired: outcome.repaired,
                    findings: findings.collect(),
                },
            },
        }
    }

    fn exit_code(&self) -> u8 {
        let repairable = self.format_specific.data.repairable;
        match (self.corruptions, self.leaks + repairable) {
            (0, 0) => 0,
            (0, _) => EXIT_LEAKS,
            _ => EXIT_CORRUPT,
        }
    }

    fn print(&self) -> Result<()> {
        let details = &self.format_specific.data;
        details.findings.iter().try_for_each(Finding::print)?;
        let fixed = [
            (self.leaks_fixed, "leaked chunk", "given back"),
            (details.repaired, "finding", "mended"),
        ];
        for (count, what, how) in fixed.iter().filter(|(count, ..)| *count > 0) {
            let count = output::count(*count, what);
            output::line(format_args!("Repaired: {count} {how}."))?;
        }
        self.print_verdict()?;
        if let Some(total) = self.total_clusters.filter(|total| *total > 0) {
            let share = self.allocated_clusters as f64 * 100.0 / total as f64;
            output::line(format_args!(
                "{}/{total} = {share:.2}% chunks allocated",
                self.allocated_clusters
            ))?;
        }
        output::line(format_args!("Image end offset: {}", self.image_end_offset))
    }

    fn print_verdict(&self) -> Result<()> {
        let details = &self.format_specific.data;
        if self.exit_code() == 0 {
            return output::line("No errors were found.");
        }
        if self.corruptions > 0 {
            output::line(format_args!(
                "{}: data is lost or may be wrong. Not repaired here: `dmsnap recover` saves what is certain.",
                output::count(self.corruptions, "corruption")
            ))?;
            if details.findings.iter().any(|found| found.is_descriptor) {
                output::line(
                    "An image descriptor can be written anew by `dmsnap amend --add-descriptor SIZE`.",
                )?;
            }
        }
        if details.repairable > 0 {
            output::line(format_args!(
                "{}, harmless for data: see -r all.",
                output::count(details.repairable, "repairable finding")
            ))?;
        }
        if self.leaks > 0 {
            output::line(format_args!(
                "{}, {} bytes: space without use, harmless for data: see -r leaks.",
                output::count(self.leaks, "leaked chunk"),
                details.leaked_bytes
            ))?;
        }
        Ok(())
    }
}
