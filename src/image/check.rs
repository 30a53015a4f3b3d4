//! Checking a layer, and repairing what can be repaired without guessing.

use crate::sync::Arc;
use std::path::Path;

use super::layer::Layer;
use super::node::{Node, Origin};
use super::open::{load_store, open_file};
use super::run;
use super::tracked::Tracked;
use crate::error::Result;
use crate::storage::{Hold, LockMode, SharedStorage};
use crate::store::{CheckReader, CheckReport, Finding, FindingKind, LoadOptions, Severity};
use crate::units::ByteRange;

/// What to repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: the file is only read.
    #[default]
    None,
    /// Leaks: space that nothing refers to is given back.
    Leaks,
    /// Leaks and every finding that is repairable.
    All,
}

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    pub(super) repair: Repair,
    pub(super) lock: bool,
    pub(super) origin_size: Option<u64>,
}

impl Default for CheckOptions {
    fn default() -> CheckOptions {
        CheckOptions {
            repair: Repair::None,
            lock: true,
            origin_size: None,
        }
    }
}

impl CheckOptions {
    /// Only reads, with a lock.
    pub fn new() -> CheckOptions {
        CheckOptions::default()
    }

    /// What to repair.
    #[must_use]
    pub fn repair(mut self, repair: Repair) -> CheckOptions {
        self.repair = repair;
        self
    }

    /// Whether the file is locked against other programs, the default. A repair always locks.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> CheckOptions {
        self.lock = lock;
        self
    }

    /// Size of a bare store's origin in bytes, so that exceptions past its end are found.
    #[must_use]
    pub fn origin_size(mut self, size: u64) -> CheckOptions {
        self.origin_size = Some(size);
        self
    }
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Treatment {
    /// No repair was asked for.
    NotAsked,
    /// It was mended.
    Mended,
    /// It was left as it is, for this reason.
    Left(&'static str),
}

/// What a check found, and what a repair changed.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    /// The findings, leaks at the end. After a repair: those that were there before it.
    pub report: CheckReport,
    /// What became of each of the findings, in their order.
    pub treatments: Vec<Treatment>,
    /// Chunks below next free that no record refers to and that occupy space.
    pub leaks: u64,
    /// The bytes they occupy.
    pub leaked_bytes: u64,
    /// Leaked chunks whose space was given back.
    pub repaired_leaks: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Leaks that are left.
    pub remaining_leaks: u64,
    /// Repairable findings that are left.
    pub remaining_repairable: u64,
    /// Corruptions that are left; no repair touches them.
    pub remaining_corruptions: u64,
}

impl CheckOutcome {
    /// Whether nothing is left to complain about.
    pub fn is_clean(&self) -> bool {
        self.remaining_leaks == 0
            && self.remaining_repairable == 0
            && self.remaining_corruptions == 0
    }
}

/// Checks the layer at `path`. Looks at that file alone, not at its origin.
///
/// # Errors
/// [`ErrorKind::InvalidFormat`](crate::ErrorKind::InvalidFormat) or [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it is no
/// store; [`ErrorKind::Busy`](crate::ErrorKind::Busy) if somebody else holds it; or what the file reports. What is wrong inside is no error but a
/// finding.
pub fn check(path: impl AsRef<Path>, options: &CheckOptions) -> Result<CheckOutcome> {
    let writable = options.repair != Repair::None;
    let storage = open_file(path.as_ref(), writable, false)?;
    check_storage(&storage, options)
}

/// Checks the layer in `storage`.
///
/// # Errors
/// As [`check`].
pub fn check_storage(storage: &SharedStorage, options: &CheckOptions) -> Result<CheckOutcome> {
    let mode = match options.repair {
        Repair::None => LockMode::reader_if(options.lock),
        _ => LockMode::Writer,
    };
    let hold = Hold::take(storage, mode)?;
    check_and_repair(&hold, options).map_err(|error| error.with_path(storage.name()))
}

fn check_and_repair(hold: &Hold, options: &CheckOptions) -> Result<CheckOutcome> {
    let storage = hold.storage();
    let (report, leaks) = look(storage, options)?;
    let mut outcome = CheckOutcome {
        treatments: Vec::new(),
        leaks: leaks.chunks,
        leaked_bytes: leaks.bytes,
        repaired_leaks: 0,
        repaired: 0,
        remaining_leaks: leaks.chunks,
        remaining_repairable: report.repairable,
        remaining_corruptions: report.corruptions,
        report,
    };
    // With a corruption it is not known what refers to which chunk.
    if options.repair == Repair::None || outcome.report.corruptions > 0 {
        let findings = outcome.report.findings.iter();
        outcome.treatments = findings
            .map(|finding| untreated(finding, options.repair, outcome.report.corruptions > 0))
            .collect();
        return Ok(outcome);
    }
    if options.repair == Repair::All && outcome.report.repairable > 0 {
        repair_records(hold, options)?;
    }
    let (report, leaks) = look(storage, options)?;
    give_back(storage, &report, &leaks)?;
    let (report, left) = look(storage, options)?;
    let findings = outcome.report.findings.iter();
    outcome.treatments = findings
        .map(
            |finding| match report.findings.iter().any(|later| is_same(finding, later)) {
                false => Treatment::Mended,
                true => untreated(finding, options.repair, false),
            },
        )
        .collect();
    outcome.remaining_leaks = left.chunks;
    outcome.remaining_repairable = report.repairable;
    outcome.remaining_corruptions = report.corruptions;
    outcome.repaired_leaks = outcome.leaks.saturating_sub(left.chunks);
    outcome.repaired = outcome.report.repairable.saturating_sub(report.repairable);
    Ok(outcome)
}

/// The report, with the leaks among its findings.
fn look(storage: &SharedStorage, options: &CheckOptions) -> Result<(CheckReport, Leaks)> {
    let mut report = read_report(storage, options)?;
    let leaks = find_leaks(storage, &report)?;
    report.findings.extend(leaks.findings());
    Ok((report, leaks))
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    (one.kind, one.offset, &one.message) == (other.kind, other.offset, &other.message)
}

/// Why a finding is as it was.
fn untreated(finding: &Finding, repair: Repair, is_corrupt: bool) -> Treatment {
    let reason = match (repair, finding.severity) {
        (Repair::None, _) => return Treatment::NotAsked,
        (_, Severity::Note) => "it does no harm",
        (_, Severity::Corruption) if finding.kind == FindingKind::Invalid => {
            "what origin writes replaced may be missing, so only a recovery makes a store of it"
        }
        (_, Severity::Corruption) => "what it was before cannot be known",
        _ if is_corrupt => "beside a corruption it is open what is in use",
        (Repair::Leaks, Severity::Repairable) => "only leaks were to be repaired",
        (_, Severity::Repairable) => "the repair did not reach it",
        (_, Severity::Leak) => "the file keeps the space",
    };
    Treatment::Left(reason)
}

fn load_options(
    storage: &SharedStorage,
    options: &CheckOptions,
    writable: bool,
) -> Result<LoadOptions> {
    Ok(LoadOptions {
        cow_size: storage.size()?,
        growable: storage.is_growable(),
        writable,
        origin_size: options.origin_size,
        ..LoadOptions::default()
    })
}

fn read_report(storage: &SharedStorage, options: &CheckOptions) -> Result<CheckReport> {
    let mut reader = CheckReader::new(load_options(storage, options, false)?)?;
    let tracked = Tracked::new(Arc::clone(storage));
    while let Some(mut plan) = reader.next_plan()? {
        run::run(&mut plan, &tracked, &Node::Zeros)?;
        reader.finish_plan(plan)?;
    }
    reader.finish()
}

/// As of the other findings.
const MAX_LISTED_LEAKS: usize = 1000;

/// The block that file systems allocate by.
const BLOCK: u64 = 4096;

/// Space that nothing refers to.
#[derive(Debug, Default)]
struct Leaks {
    /// Allocated parts of the report's holes, as long as they are. Metadata areas may be among them.
    ranges: Vec<ByteRange>,
    /// What can be given back of them, and how many chunks it touches: as many as are listed as findings.
    listed: Vec<(ByteRange, u64)>,
    /// The chunk that was counted last.
    counted: Option<u64>,
    chunks: u64,
    bytes: u64,
}

/// Which of the report's holes occupy space. Asks the file for its holes, so the work follows what is there and not what a hostile
/// record claims.
fn find_leaks(storage: &SharedStorage, report: &CheckReport) -> Result<Leaks> {
    let size = storage.size()?;
    let mut leaks = Leaks::default();
    // The kernel's devices cannot tell, and nothing is lost on them.
    if !storage.is_growable() {
        return Ok(leaks);
    }
    for hole in &report.holes {
        let end = hole.end().min(size);
        let mut at = hole.start;
        while at < end {
            let extent = storage.extent_at(at)?;
            let len = extent.len.clamp(1, end - at);
            if extent.allocated {
                leaks.add(report, ByteRange::new(at, len));
            }
            at += len;
        }
    }
    Ok(leaks)
}

impl Leaks {
    /// One for each range, unless there are very many.
    fn findings(&self) -> impl Iterator<Item = Finding> {
        self.listed.iter().map(|(range, chunks)| Finding {
            severity: Severity::Leak,
            kind: FindingKind::Leak,
            offset: Some(range.start),
            message: match chunks {
                1 => format!("{} bytes of a chunk that no record names", range.len),
                _ => format!(
                    "{} bytes of {chunks} chunks that no record names",
                    range.len
                ),
            },
        })
    }

    fn add(&mut self, report: &CheckReport, range: ByteRange) {
        let chunk = report.chunk_size;
        let before = self.bytes;
        for part in whole_blocks(report, range) {
            let (first, last) = (chunk.index_of(part.start), chunk.index_of(part.end() - 1));
            // Two extents may share a chunk.
            self.chunks += last - first + u64::from(self.counted != Some(first));
            self.counted = Some(last);
            self.bytes += part.len;
            if self.listed.len() < MAX_LISTED_LEAKS {
                self.listed.push((part, last - first + 1));
            }
        }
        if self.bytes > before {
            self.ranges.push(range);
        }
    }
}

/// What of a range can be given back: where chunks are smaller than a file system's blocks, only whole blocks.
fn whole_blocks(report: &CheckReport, range: ByteRange) -> impl Iterator<Item = ByteRange> {
    report.data_in(range).filter_map(|part| {
        let start = part.start.next_multiple_of(BLOCK);
        let end = part.end() / BLOCK * BLOCK;
        (start < end).then(|| ByteRange::new(start, end - start))
    })
}

fn give_back(storage: &SharedStorage, report: &CheckReport, leaks: &Leaks) -> Result<()> {
    for range in &leaks.ranges {
        for part in whole_blocks(report, *range) {
            storage.discard(part)?;
        }
    }
    if leaks.ranges.is_empty() {
        Ok(())
    } else {
        storage.flush()
    }
}

fn repair_records(hold: &Hold, options: &CheckOptions) -> Result<()> {
    let storage = hold.storage();
    let store = load_store(storage, load_options(storage, options, true)?)?;
    let layer = Layer::new(store, hold, None, Origin::ZEROS);
    layer.run_job(|store| store.prepare_repair())?;
    let descriptor = layer.facts().descriptor().cloned();
    if !layer.facts().descriptor_damage().is_empty() {
        // It goes to the slot that does not count, the damaged one.
        layer.run_job(|store| store.prepare_descriptor(descriptor))?;
    }
    layer.flush()?;
    layer.trim();
    Ok(())
}
