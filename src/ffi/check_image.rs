//! Checking an image, and repairing what can be repaired without guessing.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use super::check::dmsnap_check_report;
use super::guard::{guard, guard_or};
use super::handle::{need, path};
use super::storage::dmsnap_storage;
use super::values::repair;
use crate::error::Result;
use crate::image::{CheckOptions, check, check_storage};

/// How an image is checked. Copied by the calls that take it. For one thread at a time.
pub struct dmsnap_check_options {
    options: CheckOptions,
}

fn change(
    options: Option<&mut dmsnap_check_options>,
    change: impl FnOnce(CheckOptions) -> Result<CheckOptions>,
) -> Result<()> {
    let options = need(options, "options")?;
    options.options = change(options.options)?;
    Ok(())
}

/// Options: repairs nothing, with a lock. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_options_new() -> Option<Box<dmsnap_check_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_check_options {
            options: CheckOptions::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_options_free(options: Option<Box<dmsnap_check_options>>) {
    guard_or((), || drop(options));
}

/// What is repaired: a `dmsnap_repair`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_options_set_repair(
    options: Option<&mut dmsnap_check_options>,
    what: u32,
) -> c_int {
    guard(|| change(options, |options| Ok(options.repair(repair(what)?))))
}

/// Whether the file is locked against other programs, the default. A repair always locks.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_options_set_lock(
    options: Option<&mut dmsnap_check_options>,
    lock: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.lock(lock))))
}

/// Size of a bare store's origin in bytes, so that exceptions past its end are found.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_options_set_origin_size(
    options: Option<&mut dmsnap_check_options>,
    size: u64,
) -> c_int {
    guard(|| change(options, |options| Ok(options.origin_size(size))))
}

fn or_default(options: Option<&dmsnap_check_options>) -> CheckOptions {
    options.map_or_else(CheckOptions::new, |options| options.options)
}

/// Checks the layer at `path`, and nothing below it. NULL options are the defaults. Findings are no
/// error: the report has them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_check_report_open(
    path: *const c_char,
    options: Option<&dmsnap_check_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_check_report>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let out = need(out, "out")?;
        out.write(dmsnap_check_report::of_image(check(
            path,
            &or_default(options),
        )?));
        Ok(())
    })
}

/// Checks the layer in `storage`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_check_report_open_storage(
    storage: Option<&dmsnap_storage>,
    options: Option<&dmsnap_check_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_check_report>>>,
) -> c_int {
    guard(|| {
        let storage = need(storage, "storage")?.share();
        let out = need(out, "out")?;
        let outcome = check_storage(&storage, &or_default(options))?;
        out.write(dmsnap_check_report::of_image(outcome));
        Ok(())
    })
}
