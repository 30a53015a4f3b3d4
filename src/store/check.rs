//! Checking a store: everything that is wrong with its metadata, not only the first thing.
//!
//! Reads as a [`Loader`](super::Loader) does, but goes on where that one refuses.

use super::areas::{AreaReader, Scan};
use super::load::{LoadOptions, PlanTurns, Preamble, PreambleReader, check_size};
use super::locate::SecondLook;
use super::memory;
use super::plan::Plan;
use super::records::{Closed, Records, conflict_text, shared_text};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, Geometry, Header};
use crate::units::{ByteRange, ChunkSize};

/// Findings of one kind beyond this many are counted, not listed.
const MAX_LISTED: u64 = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing, harmless.
    Note,
    /// Space that nothing uses.
    Leak,
    /// The trace of an interrupted operation; opening for writing or a repair finishes it.
    Repairable,
    /// Data is lost or may be wrong.
    Corruption,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The header says that the snapshot is invalid.
    Invalid,
    /// The image descriptor is damaged.
    Descriptor,
    /// A record names a COW chunk outside the file, one that holds metadata, or one that no file can have.
    IllegalNewChunk,
    /// The file ends inside the COW chunk of a record.
    TruncatedData,
    /// Two records for one chunk.
    DuplicateOldChunk,
    /// One COW chunk in two records.
    SharedNewChunk,
    /// A record stands twice.
    RepeatedRecord,
    /// An exception for a chunk past the end of the disk.
    PastEnd,
    /// Something other than zeros behind the last record.
    StaleSlots,
    /// A full area without the next one.
    MissingArea,
    /// Space that no record uses.
    Leak,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: FindingKind,
    /// Byte in the COW file it is about, where there is one.
    pub offset: Option<u64>,
    /// The details.
    pub message: String,
}

/// What a check found out.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// The findings, at most 1000 of a kind.
    pub findings: Vec<Finding>,
    /// How many findings are corruptions.
    pub corruptions: u64,
    /// How many findings a repair can mend.
    pub repairable: u64,
    /// The header.
    pub header: Header,
    /// The image descriptor, if there is a good one.
    pub descriptor: Option<Descriptor>,
    /// Size of a chunk.
    pub chunk_size: ChunkSize,
    /// Exceptions that are legal.
    pub exceptions: u64,
    /// Metadata areas in use.
    pub areas: u64,
    /// The chunk behind the highest one in use.
    pub next_free: u64,
    /// Ranges of the COW file below `next_free` that no record uses, metadata areas among them. Where data chunks there occupy space,
    /// that is a leak: see [`CheckReport::data_in`].
    pub holes: Vec<ByteRange>,
}

impl CheckReport {
    /// The parts of `range` that are no metadata areas, in order. There are as many as the range has areas, which a hostile record may
    /// make very many, so ask for what occupies space only.
    pub fn data_in(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + use<> {
        let stride = Geometry::new(self.chunk_size).stride();
        let bytes = self.chunk_size.bytes();
        let mut at = range.start;
        std::iter::from_fn(move || {
            let area = |at: u64| (at / bytes + stride - 1).is_multiple_of(stride);
            if at < range.end() && area(at) {
                at = (at / bytes).saturating_add(1).saturating_mul(bytes);
            }
            if at >= range.end() {
                return None;
            }
            let chunk = at / bytes;
            let into_stride = (chunk + stride - 1) % stride;
            let end = (chunk + stride - into_stride).saturating_mul(bytes);
            let part = ByteRange::new(at, end.min(range.end()) - at);
            at = part.end();
            Some(part)
        })
    }
}

/// Reads a store for a check. Used as a [`Loader`](super::Loader).
pub struct CheckReader {
    options: LoadOptions,
    preamble: PreambleReader,
    areas: Option<AreaReader>,
    records: Records,
    /// Looks for the records that are findings.
    second_look: SecondLook,
    findings: Findings,
    plans: PlanTurns,
}

#[derive(Default)]
struct Findings {
    listed: Vec<Finding>,
    /// How many of each kind were added.
    of_kind: Vec<(FindingKind, u64)>,
    corruptions: u64,
    repairable: u64,
}

impl Findings {
    fn add(&mut self, severity: Severity, kind: FindingKind, offset: Option<u64>, message: String) {
        match severity {
            Severity::Corruption => self.corruptions += 1,
            Severity::Repairable => self.repairable += 1,
            Severity::Note | Severity::Leak => {}
        }
        let before = match self.of_kind.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => {
                *count += 1;
                *count - 1
            }
            None => {
                self.of_kind.push((kind, 1));
                0
            }
        };
        if before < MAX_LISTED {
            self.listed.push(Finding {
                severity,
                kind,
                offset,
                message,
            });
        }
    }

    fn add_error(&mut self, kind: FindingKind, error: &Error) {
        self.add(
            Severity::Corruption,
            kind,
            error.offset(),
            error.message().to_owned(),
        );
    }

    /// Findings that were only counted where they were made.
    fn add_uncounted(&mut self, severity: Severity, more: u64) {
        match severity {
            Severity::Corruption => self.corruptions += more,
            _ => self.repairable += more,
        }
    }
}

impl CheckReader {
    /// Begins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFormat`] if the file is too short to hold a header.
    pub fn new(options: LoadOptions) -> Result<CheckReader> {
        check_size(options.cow_size)?;
        let preamble = PreambleReader::tolerant(options.cow_size);
        let (records, findings) = (Records::default(), Findings::default());
        Ok(CheckReader {
            options,
            preamble,
            areas: None,
            records,
            second_look: SecondLook::default(),
            findings,
            plans: PlanTurns::default(),
        })
    }

    /// The next reads, or `None` when everything was looked at.
    ///
    /// # Errors
    /// [`ErrorKind::NoMemory`].
    pub fn next_plan(&mut self) -> Result<Option<Plan>> {
        let steps = match (self.preamble.next_steps(), &mut self.areas) {
            (Some(steps), _) => Some(steps),
            (None, Some(areas)) if !self.second_look.has_begun() => {
                areas.next_steps().unwrap_or_else(|error| {
                    self.findings.add_error(FindingKind::MissingArea, &error);
                    None
                })
            }
            (None, _) => None,
        };
        let steps = match steps {
            Some(steps) => Some(steps),
            None => self
                .second_look
                .next_steps(&mut self.records, |closed| closed.findings().collect())?,
        };
        Ok(self.plans.give(steps))
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFormat`] or [`ErrorKind::Unsupported`] if the file is no store that can be checked;
    /// [`ErrorKind::InvalidArgument`] for a plan that is not the last one.
    pub fn finish_plan(&mut self, plan: Plan) -> Result<()> {
        let reads = plan.reads()?;
        self.plans.take(&plan)?;
        if self.second_look.feed(&reads)? {
            return Ok(());
        }
        if let Some(areas) = &mut self.areas {
            let scan = self.records.scan();
            let (records, findings) = (&mut self.records, &mut self.findings);
            return areas.feed(&reads, &mut |index, first, len| {
                // One by one, so that each illegal one is a finding.
                for (index, record) in (index..).zip(first.run(len)) {
                    match records.push(index, record, 1) {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::NoMemory => return Err(error),
                        Err(error) => {
                            let kind = match scan.is_some_and(|scan| scan.is_cut(record.new)) {
                                true => FindingKind::TruncatedData,
                                false => FindingKind::IllegalNewChunk,
                            };
                            findings.add_error(kind, &error);
                        }
                    }
                }
                Ok(())
            });
        }
        self.preamble.feed(&reads)?;
        let Some(preamble) = self.preamble.preamble() else {
            return Ok(());
        };
        if !preamble.header.is_valid() {
            let message = "the header says that the snapshot is invalid".to_owned();
            self.findings
                .add(Severity::Corruption, FindingKind::Invalid, Some(4), message);
        }
        let geometry = Geometry::new(preamble.header.chunk_size);
        let scan = Scan {
            geometry,
            cow_size: self.options.cow_size,
        };
        self.areas = Some(AreaReader::new(scan, true));
        self.records = Records::new(scan);
        Ok(())
    }

    /// What was found, when [`CheckReader::next_plan`] has returned `None`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the header was not read yet.
    pub fn finish(self) -> Result<CheckReport> {
        let Some(preamble) = self.preamble.preamble().cloned() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the header was not read yet",
            ));
        };
        let mut findings = self.findings;
        let geometry = Geometry::new(preamble.header.chunk_size);
        let end = self.areas.as_ref().and_then(AreaReader::end);
        if let Some(end) = end.as_ref().filter(|end| end.stale) {
            let offset = geometry.slot_offset(end.len);
            let message = "bytes behind the last record are not zero; a kernel that writes here \
                           would take them for records";
            findings.add(
                Severity::Repairable,
                FindingKind::StaleSlots,
                offset,
                message.to_owned(),
            );
        }
        let mut second_look = self.second_look;
        let closed = second_look.take_closed(self.records)?;
        check_records(&closed, &second_look, &mut findings);
        let size = preamble
            .descriptor
            .as_ref()
            .map(|descriptor| descriptor.virtual_size);
        let origin_size = self.options.origin_size;
        let past = past_end(&closed, geometry, size.or(origin_size));
        let may_be_longer = check_descriptor(&preamble, past, &mut findings);
        check_end(past, size.is_some(), may_be_longer, &mut findings);
        let whole = geometry.whole_chunks(self.options.cow_size);
        let bytes = geometry.chunk_size().bytes();
        let holes = closed
            .holes
            .iter()
            .map(|range| (range.start.0, range.end().0.min(whole)));
        let holes = holes.filter(|(start, end)| start < end);
        let holes = holes.map(|(start, end)| ByteRange::new(start * bytes, (end - start) * bytes));
        Ok(CheckReport {
            holes: memory::collect(holes)?,
            findings: findings.listed,
            corruptions: findings.corruptions,
            repairable: findings.repairable,
            header: preamble.header,
            descriptor: preamble.descriptor,
            chunk_size: geometry.chunk_size(),
            exceptions: closed.table.len(),
            areas: end.map_or(0, |end| geometry.area_and_slot(end.len).0 + 1),
            next_free: closed.next_free,
        })
    }
}

fn check_records(closed: &Closed, places: &SecondLook, findings: &mut Findings) {
    let report = &closed.report;
    for conflict in &report.conflicts.listed {
        let place = places.offset(&conflict.record());
        let (kind, message) = (FindingKind::DuplicateOldChunk, conflict_text(conflict));
        findings.add(Severity::Corruption, kind, place, message);
    }
    for shared in &report.shared.listed {
        let place = places.offset(&shared.record());
        let (kind, message) = (FindingKind::SharedNewChunk, shared_text(shared));
        findings.add(Severity::Corruption, kind, place, message);
    }
    for repeated in &report.identical.listed {
        let message = format!("the record of chunk {} stands twice", repeated.old);
        let (kind, place) = (FindingKind::RepeatedRecord, places.offset(repeated));
        findings.add(Severity::Repairable, kind, place, message);
    }
    findings.add_uncounted(Severity::Corruption, report.conflicts.unlisted());
    findings.add_uncounted(Severity::Corruption, report.shared.unlisted());
    findings.add_uncounted(Severity::Repairable, report.identical.unlisted());
}

/// Damaged descriptor slots. Whether there may be data past the end because of them.
fn check_descriptor(
    preamble: &Preamble,
    past: Option<(u64, u64)>,
    findings: &mut Findings,
) -> bool {
    let may_be_longer = preamble.descriptor.is_some() && past.is_some();
    let severity = if preamble.descriptor.is_none() || may_be_longer {
        Severity::Corruption
    } else {
        Severity::Repairable
    };
    for damage in &preamble.damage {
        let other = match severity {
            Severity::Repairable => "; the other one, which counts, may be older",
            _ => "",
        };
        let (offset, message) = (Some(damage.offset), format!("{damage}{other}"));
        findings.add(severity, FindingKind::Descriptor, offset, message);
    }
    may_be_longer && !preamble.damage.is_empty()
}

/// How many exceptions lie past the end of the disk, if any, and its size.
fn past_end(closed: &Closed, geometry: Geometry, size: Option<u64>) -> Option<(u64, u64)> {
    let size = size?;
    let end = geometry.chunk_size().count_for(size);
    let past: u64 = closed
        .table
        .iter()
        .filter(|run| run.old.0 + run.len > end)
        .map(|run| run.old.0 + run.len - run.old.0.max(end))
        .sum();
    let past = past + closed.strays.len() as u64;
    (past > 0).then_some((past, size))
}

/// Exceptions past the end. Where the size is ours they are the trace of an interrupted shrink, or data if a damaged descriptor slot may
/// have said another size; in a bare store only worth a note.
fn check_end(
    past: Option<(u64, u64)>,
    size_is_ours: bool,
    may_be_longer: bool,
    findings: &mut Findings,
) {
    let Some((past, size)) = past else {
        return;
    };
    let (severity, what) = match (size_is_ours, may_be_longer) {
        (true, true) => (
            Severity::Corruption,
            "; a descriptor slot is damaged, so the disk may have been larger and these are data",
        ),
        (true, false) => (Severity::Repairable, ""),
        (false, _) => (Severity::Note, ""),
    };
    let lie = if past == 1 {
        "exception lies"
    } else {
        "exceptions lie"
    };
    let message = format!("{past} {lie} past the end of the disk at {size} bytes{what}");
    findings.add(severity, FindingKind::PastEnd, None, message);
}
