//! Getting back what a damaged or invalidated store still holds with certainty.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};

use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need, path, text};
use super::job::dmsnap_progress;
use super::values::{dmsnap_doubt, dmsnap_header_state, format};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    HeaderFound, RecoverOptions, RecoverProgress, RecoverReport, recover, recover_in_place,
};
use crate::units::ChunkSize;

/// How a damaged layer is recovered. Copied by the call that takes it. For one thread at a time.
pub struct dmsnap_recover_options {
    options: RecoverOptions,
}

/// What a recovery found and did. Does not change; may be used by several threads at once.
pub struct dmsnap_recover_report {
    report: RecoverReport,
}

fn change(
    options: Option<&mut dmsnap_recover_options>,
    change: impl FnOnce(RecoverOptions) -> Result<RecoverOptions>,
) -> Result<()> {
    let options = need(options, "options")?;
    options.options = change(options.options.clone())?;
    Ok(())
}

/// Options: size, origin and chunk size are what the damaged file says. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_new() -> Option<Box<dmsnap_recover_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_recover_options {
            options: RecoverOptions::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_free(options: Option<Box<dmsnap_recover_options>>) {
    guard_or((), || drop(options));
}

/// Size of the disk in bytes, a multiple of 512. A kernel that invalidates a store wipes what its
/// descriptor said.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_set_size(
    options: Option<&mut dmsnap_recover_options>,
    size: u64,
) -> c_int {
    guard(|| change(options, |options| Ok(options.size(size))))
}

/// The origin to record, by a name (UTF-8) as in `dmsnap_create_options_set_origin`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_recover_options_set_origin(
    options: Option<&mut dmsnap_recover_options>,
    name: *const c_char,
    format: u32,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let name = unsafe { text(name, "name") }?;
        let format = self::format(format)?;
        change(options, |options| Ok(options.origin(name, format)))
    })
}

/// Bytes in a chunk, where the header does not tell it any more.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_set_chunk_size(
    options: Option<&mut dmsnap_recover_options>,
    bytes: u64,
) -> c_int {
    guard(|| {
        change(options, |options| {
            Ok(options.chunk_size(ChunkSize::from_bytes(bytes)?))
        })
    })
}

/// Whether the result is a store without a descriptor, whatever is known of size and origin.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_set_bare(
    options: Option<&mut dmsnap_recover_options>,
    bare: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.bare(bare))))
}

/// Whether the damaged file is locked against other programs, the default. Recovering in place
/// always locks.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_options_set_lock(
    options: Option<&mut dmsnap_recover_options>,
    lock: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.lock(lock))))
}

/// Makes a new layer at `new_path`, which must not exist, of what the damaged one at `path` still
/// holds with certainty; that one is only read. With `new_path` NULL the damaged file itself is
/// made a good store: what is left out is lost for good then. NULL options are the defaults.
///
/// `callback` may be NULL. It is called between the copies, with `opaque` and how far the recovery
/// is in exceptions; `false` from it stops, with `-ECANCELED` and nothing left at `new_path`. In
/// place it is not called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_recover_report_open(
    path: *const c_char,
    new_path: *const c_char,
    options: Option<&dmsnap_recover_options>,
    callback: Option<
        unsafe extern "C" fn(opaque: *mut c_void, progress: *const dmsnap_progress) -> bool,
    >,
    opaque: *mut c_void,
    out: Option<&mut MaybeUninit<Box<dmsnap_recover_report>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let out = need(out, "out")?;
        let options = options.map_or_else(RecoverOptions::new, |options| options.options.clone());
        let report = if new_path.is_null() {
            recover_in_place(path, &options)?
        } else {
            // SAFETY: the contract with C.
            let new = unsafe { self::path(new_path, "new_path") }?;
            recover(path, new, &options, &mut |progress| {
                let Some(callback) = callback else {
                    return true;
                };
                let progress = dmsnap_progress::from(progress);
                // SAFETY: the contract of the callback.
                unsafe { callback(opaque, &raw const progress) }
            })?
        };
        out.write(Box::new(dmsnap_recover_report { report }));
        Ok(())
    })
}

impl From<RecoverProgress> for dmsnap_progress {
    fn from(progress: RecoverProgress) -> dmsnap_progress {
        dmsnap_progress {
            struct_size: size_of::<dmsnap_progress>(),
            done: progress.done,
            total: progress.total,
            bytes_copied: 0,
        }
    }
}

/// Frees a report. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_recover_report_free(report: Option<Box<dmsnap_recover_report>>) {
    guard_or((), || drop(report));
}

/// The figures of a recovery. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_recover_summary {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// What the header said. Of an invalidated store the log is complete only if no write to the
    /// origin was the cause: what that replaced is lost, and the store does not tell.
    pub header: dmsnap_header_state,
    /// Whether everything that the log held was recovered.
    pub complete: bool,
    /// Whether recovering in place changed the file.
    pub changed: bool,
    /// Bytes in a chunk.
    pub chunk_size: u64,
    /// Size of the disk in bytes; `UINT64_MAX` if nothing says it, the result is a bare store then.
    pub virtual_size: u64,
    /// Exceptions that were recovered.
    pub recovered: u64,
    /// Records that were left out, without those past the end of the disk.
    pub lost: u64,
    /// Records of chunks past the end of the disk, which show nothing.
    pub past_end: u64,
    /// Records that stood twice.
    pub repeated: u64,
    /// Records behind the end of the log, which were not looked at.
    pub stale: u64,
    /// The metadata area from which on the log is missing; `UINT64_MAX` if it is all there.
    pub missing_area: u64,
    /// Left out records that are listed, at most 1000.
    pub left_out: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_recover_summary {
    const LEAST: usize = offset_of!(dmsnap_recover_summary, left_out) + size_of::<u64>();
}

/// A record that was left out. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_left_out {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Why.
    pub doubt: dmsnap_doubt,
    /// Its number in the log, counted from 0.
    pub index: u64,
    /// Its chunk of the disk.
    pub old_chunk: u64,
    /// Its chunk of the COW file.
    pub new_chunk: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_left_out {
    const LEAST: usize = offset_of!(dmsnap_left_out, new_chunk) + size_of::<u64>();
}

/// The figures of a report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_recover_report_summary(
    report: Option<&dmsnap_recover_report>,
    out: *mut dmsnap_recover_summary,
) -> c_int {
    guard(|| {
        let report = &need(report, "report")?.report;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_recover_summary {
            struct_size: 0,
            header: match report.header {
                HeaderFound::Valid => dmsnap_header_state::Valid,
                HeaderFound::Invalidated => dmsnap_header_state::Invalidated,
                HeaderFound::Damaged(_) => dmsnap_header_state::Damaged,
            },
            complete: report.is_complete(),
            changed: report.changed,
            chunk_size: report.chunk_size.bytes(),
            virtual_size: report.size.unwrap_or(u64::MAX),
            recovered: report.recovered,
            lost: report.lost,
            past_end: report.past_end,
            repeated: report.repeated,
            stale: report.stale,
            missing_area: report.missing_area.unwrap_or(u64::MAX),
            left_out: report.left_out.len() as u64,
        });
        Ok(())
    })
}

/// Left out record `index`, counted from 0; `-EINVAL` behind the last one that is listed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_recover_report_left_out(
    report: Option<&dmsnap_recover_report>,
    index: u64,
    out: *mut dmsnap_left_out,
) -> c_int {
    guard(|| {
        let report = &need(report, "report")?.report;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| report.left_out.get(index));
        let left = found.ok_or_else(|| {
            let message = format!("there is no left out record {index}");
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        out.write(dmsnap_left_out {
            struct_size: 0,
            doubt: left.doubt.into(),
            index: left.index,
            old_chunk: left.record.old.0,
            new_chunk: left.record.new.0,
        });
        Ok(())
    })
}
