//! What a check finds.

use std::ffi::{CString, c_char, c_int};
use std::mem::{MaybeUninit, offset_of};

use super::descriptor::dmsnap_descriptor;
use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need, range, to_c};
use super::load::dmsnap_load_options;
use super::plan::{Owner, dmsnap_plan};
use super::values::{dmsnap_finding_kind, dmsnap_severity};
use crate::error::{Error, ErrorKind};
use crate::format::Geometry;
use crate::image::CheckOutcome;
use crate::store::{CheckReader, CheckReport};
use crate::units::ByteRange;

/// Reads a store for a check: used as a loader, but goes on where that one refuses. For one thread
/// at a time.
pub struct dmsnap_check_reader {
    reader: CheckReader,
    owner: Owner,
}

/// What a check found, and what a repair changed. Does not change; may be used by several threads
/// at once.
pub struct dmsnap_check_report {
    report: CheckReport,
    messages: Vec<CString>,
    outcome: Repaired,
}

/// What only the blocking half knows.
#[derive(Clone, Copy, Debug, Default)]
struct Repaired {
    leaks: u64,
    leaked_bytes: u64,
    repaired: u64,
    repaired_leaks: u64,
    remaining_leaks: u64,
    remaining_repairable: u64,
    remaining_corruptions: u64,
}

impl dmsnap_check_report {
    fn new(report: CheckReport, outcome: Repaired) -> Box<dmsnap_check_report> {
        let messages = report
            .findings
            .iter()
            .map(|finding| to_c(&finding.message))
            .collect();
        Box::new(dmsnap_check_report {
            report,
            messages,
            outcome,
        })
    }

    fn of_store(report: CheckReport) -> Box<dmsnap_check_report> {
        let outcome = Repaired {
            remaining_repairable: report.repairable,
            remaining_corruptions: report.corruptions,
            ..Repaired::default()
        };
        dmsnap_check_report::new(report, outcome)
    }

    pub(super) fn of_image(outcome: CheckOutcome) -> Box<dmsnap_check_report> {
        let repaired = Repaired {
            leaks: outcome.leaks,
            leaked_bytes: outcome.leaked_bytes,
            repaired: outcome.repaired,
            repaired_leaks: outcome.repaired_leaks,
            remaining_leaks: outcome.remaining_leaks,
            remaining_repairable: outcome.remaining_repairable,
            remaining_corruptions: outcome.remaining_corruptions,
        };
        dmsnap_check_report::new(outcome.report, repaired)
    }
}

/// The figures of a check. Set `struct_size` before the call. Those about leaks and repairs are of
/// the blocking half: a host of the store half finds leaks itself, see `dmsnap_check_report_hole`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_check_summary {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Findings that are listed, at most 1000 of a kind.
    pub findings: u64,
    /// Ranges below `next_free` that no record uses.
    pub holes: u64,
    /// Findings that are corruptions.
    pub corruptions: u64,
    /// Findings that a repair can mend.
    pub repairable: u64,
    /// Exceptions that are legal.
    pub exceptions: u64,
    /// Metadata areas in use.
    pub areas: u64,
    /// The chunk behind the highest one in use.
    pub next_free: u64,
    /// Bytes in a chunk.
    pub chunk_size: u64,
    /// Chunks that no record refers to and that occupy space.
    pub leaks: u64,
    /// The bytes they occupy.
    pub leaked_bytes: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Leaked chunks whose space was given back.
    pub repaired_leaks: u64,
    /// Leaks that are left.
    pub remaining_leaks: u64,
    /// Repairable findings that are left.
    pub remaining_repairable: u64,
    /// Corruptions that are left; no repair touches them.
    pub remaining_corruptions: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_check_summary {
    const LEAST: usize = offset_of!(dmsnap_check_summary, remaining_corruptions) + size_of::<u64>();
}

/// One finding. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_finding {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// How bad it is.
    pub severity: dmsnap_severity,
    /// What it is.
    pub kind: dmsnap_finding_kind,
    /// Byte in the COW file that it is about; `UINT64_MAX` if it is about none.
    pub offset: u64,
    /// The details. Belongs to the report.
    pub message: *const c_char,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_finding {
    const LEAST: usize = offset_of!(dmsnap_finding, message) + size_of::<*const c_char>();
}

/// The figures of a report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_check_report_summary(
    report: Option<&dmsnap_check_report>,
    out: *mut dmsnap_check_summary,
) -> c_int {
    guard(|| {
        let dmsnap_check_report {
            report, outcome, ..
        } = need(report, "report")?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_check_summary {
            struct_size: 0,
            findings: report.findings.len() as u64,
            holes: report.holes.len() as u64,
            corruptions: report.corruptions,
            repairable: report.repairable,
            exceptions: report.exceptions,
            areas: report.areas,
            next_free: report.next_free,
            chunk_size: report.chunk_size.bytes(),
            leaks: outcome.leaks,
            leaked_bytes: outcome.leaked_bytes,
            repaired: outcome.repaired,
            repaired_leaks: outcome.repaired_leaks,
            remaining_leaks: outcome.remaining_leaks,
            remaining_repairable: outcome.remaining_repairable,
            remaining_corruptions: outcome.remaining_corruptions,
        });
        Ok(())
    })
}

/// Finding `index`, counted from 0; `-EINVAL` behind the last one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_check_report_finding(
    report: Option<&dmsnap_check_report>,
    index: u64,
    out: *mut dmsnap_finding,
) -> c_int {
    guard(|| {
        let report = need(report, "report")?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let finding = report
            .report
            .findings
            .get(index)
            .zip(report.messages.get(index));
        let (finding, message) = finding.ok_or_else(|| nothing_at("finding", index))?;
        out.write(dmsnap_finding {
            struct_size: 0,
            severity: finding.severity.into(),
            kind: finding.kind.into(),
            offset: finding.offset.unwrap_or(u64::MAX),
            message: message.as_ptr(),
        });
        Ok(())
    })
}

fn nothing_at(what: &str, index: usize) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("there is no {what} {index}"),
    )
}

/// Hole `index`, counted from 0: a range of the COW file below next free that no record uses, in
/// bytes. Metadata areas may lie in it. Where it occupies space, the parts that
/// `dmsnap_check_report_data` tells are leaks.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_report_hole(
    report: Option<&dmsnap_check_report>,
    index: u64,
    offset: Option<&mut MaybeUninit<u64>>,
    len: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard(|| {
        let holes = &need(report, "report")?.report.holes;
        let (offset, len) = (need(offset, "offset")?, need(len, "len")?);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let hole = holes.get(index).ok_or_else(|| nothing_at("hole", index))?;
        offset.write(hole.start);
        len.write(hole.len);
        Ok(())
    })
}

/// The first part of the range of `len` bytes from `offset` of the COW file that is no metadata
/// area. A length of 0 is given if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_report_data(
    report: Option<&dmsnap_check_report>,
    offset: u64,
    len: u64,
    data_offset: Option<&mut MaybeUninit<u64>>,
    data_len: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard(|| {
        let report = &need(report, "report")?.report;
        let (out_offset, out_len) = (
            need(data_offset, "data_offset")?,
            need(data_len, "data_len")?,
        );
        let wanted = range(offset, len)?;
        // One area and what lies behind it up to the next is enough to find a part.
        let stride = Geometry::new(report.chunk_size).stride();
        let window = stride.saturating_mul(report.chunk_size.bytes());
        let first = ByteRange::new(wanted.start, wanted.len.min(window));
        let found = report.data_in(first).next();
        let found = found.unwrap_or(ByteRange::new(wanted.end(), 0));
        out_offset.write(found.start);
        out_len.write(found.len);
        Ok(())
    })
}

/// The image descriptor, if there is a good one, else NULL. It belongs to the caller.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_report_descriptor(
    report: Option<&dmsnap_check_report>,
    out: Option<&mut MaybeUninit<Option<Box<dmsnap_descriptor>>>>,
) -> c_int {
    guard(|| {
        let descriptor = need(report, "report")?.report.descriptor.as_ref();
        need(out, "out")?.write(descriptor.map(dmsnap_descriptor::give));
        Ok(())
    })
}

/// Frees a report. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_report_free(report: Option<Box<dmsnap_check_report>>) {
    guard_or((), || drop(report));
}

/// Begins to check a store. Used as a loader, but goes on where that one refuses.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_reader_new(
    options: Option<&dmsnap_load_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_check_reader>>>,
) -> c_int {
    guard(|| {
        let options = need(options, "options")?.options.clone();
        let out = need(out, "out")?;
        let reader = CheckReader::new(options)?;
        out.write(Box::new(dmsnap_check_reader {
            reader,
            owner: Owner::new(),
        }));
        Ok(())
    })
}

/// Frees a check reader. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_reader_free(reader: Option<Box<dmsnap_check_reader>>) {
    guard_or((), || drop(reader));
}

/// As `dmsnap_loader_next_plan`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_reader_next_plan(
    reader: Option<&mut dmsnap_check_reader>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        let (reader, plan) = (need(reader, "reader")?, need(plan, "plan")?);
        let next = reader.reader.next_plan()?;
        plan.write(next.map(|next| reader.owner.give(next)));
        Ok(())
    })
}

/// As `dmsnap_loader_finish_plan`; fails only if the file is no store that can be checked.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_reader_finish_plan(
    reader: Option<&mut dmsnap_check_reader>,
    plan: Option<Box<dmsnap_plan>>,
) -> c_int {
    guard(|| {
        let reader = need(reader, "reader")?;
        let plan = reader.owner.take(plan)?;
        reader.reader.finish_plan(plan)
    })
}

/// Gives the report, when `dmsnap_check_reader_next_plan` gave NULL. The reader is gone after the
/// call, whatever it returns.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_reader_finish(
    reader: Option<Box<dmsnap_check_reader>>,
    out: Option<&mut MaybeUninit<Box<dmsnap_check_report>>>,
) -> c_int {
    guard(|| {
        let reader = need(reader, "reader")?;
        let out = need(out, "out")?;
        out.write(dmsnap_check_report::of_store(reader.reader.finish()?));
        Ok(())
    })
}
