//! Storages: files, descriptors, memory, host callbacks.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::guard::{guard, guard_or};
use super::handle::{need, path, text};
use super::storage_ops::{HostOps, dmsnap_storage_ops};
use super::values::lock_mode;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{CallbackStorage, FileOptions, MemoryStorage, SharedStorage};

/// Where bytes live: a file, a block device, memory, or a host's callbacks. May be used by several
/// threads at once. What uses a storage holds a reference of its own, so it can be freed right
/// after it was handed over.
///
/// Images, checks and new images that use one storage meet as programs do that lock one file: who
/// writes is alone, others get `-EBUSY`. Several can share what they only read, such as the origin
/// of several layers, until one of these wants to merge into it.
pub struct dmsnap_storage {
    storage: SharedStorage,
}

impl dmsnap_storage {
    pub(super) fn give(storage: SharedStorage) -> Box<dmsnap_storage> {
        Box::new(dmsnap_storage { storage })
    }

    pub(super) fn share(&self) -> SharedStorage {
        Arc::clone(&self.storage)
    }
}

/// How a file is opened. For one thread at a time.
pub struct dmsnap_file_options {
    options: FileOptions,
}

/// Options for reading through the page cache under a reader's lock. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_new() -> Option<Box<dmsnap_file_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_file_options {
            options: FileOptions::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_free(options: Option<Box<dmsnap_file_options>>) {
    guard_or((), || drop(options));
}

fn change(
    options: Option<&mut dmsnap_file_options>,
    change: impl FnOnce(FileOptions) -> Result<FileOptions>,
) -> Result<()> {
    let options = need(options, "options")?;
    options.options = change(options.options.clone())?;
    Ok(())
}

/// Whether the file is opened for writing too, under a writer's lock.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_set_writable(
    options: Option<&mut dmsnap_file_options>,
    writable: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.writable(writable))))
}

/// Whether I/O bypasses the page cache (`O_DIRECT`). Any range and buffer can be used all the same.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_set_direct(
    options: Option<&mut dmsnap_file_options>,
    direct: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.direct(direct))))
}

/// Whether the file is created, for writing; `-EEXIST` if there is one.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_set_create(
    options: Option<&mut dmsnap_file_options>,
    create: bool,
) -> c_int {
    guard(|| change(options, |options| Ok(options.create_new(create))))
}

/// The lock to take instead of the one that follows from the access: a `dmsnap_lock_mode`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_file_options_set_lock(
    options: Option<&mut dmsnap_file_options>,
    mode: u32,
) -> c_int {
    guard(|| change(options, |options| Ok(options.lock(lock_mode(mode)?))))
}

fn file_options(options: Option<&dmsnap_file_options>) -> FileOptions {
    options.map_or_else(FileOptions::new, |options| options.options.clone())
}

/// Opens the file or block device at `path`. NULL options are the defaults. `-EBUSY` if somebody
/// else's lock forbids it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_storage_open(
    path: *const c_char,
    options: Option<&dmsnap_file_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_storage>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let out = need(out, "out")?;
        let file = file_options(options).open(path)?;
        out.write(dmsnap_storage::give(Arc::new(file)));
        Ok(())
    })
}

/// Uses the open file or block device `fd`, of which the library makes a duplicate: the caller
/// keeps its descriptor and may close it at any time. `name` is what errors call it; NULL stands
/// for "fd N". NULL options are the defaults.
///
/// A descriptor that can only read, where writing is asked for, is opened once more through
/// `/proc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_storage_open_fd(
    fd: c_int,
    name: *const c_char,
    options: Option<&dmsnap_file_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_storage>>>,
) -> c_int {
    guard(|| {
        if fd < 0 {
            let message = format!("{fd} is no file descriptor");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        // SAFETY: the contract with C.
        let name = unsafe { name_or(name, || format!("fd {fd}")) }?;
        let out = need(out, "out")?;
        // SAFETY: not -1; the caller keeps it open for the duration of the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let file = file_options(options).open_borrowed_fd(fd, name)?;
        out.write(dmsnap_storage::give(Arc::new(file)));
        Ok(())
    })
}

/// # Safety
/// `name` is NULL or a string.
unsafe fn name_or(name: *const c_char, other: impl FnOnce() -> String) -> Result<String> {
    if name.is_null() {
        return Ok(other());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { text(name, "name") }?.to_owned())
}

/// A storage whose I/O the host does. `ops` is copied; see there for who calls what. `name` is what
/// errors call it; NULL stands for "host".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_storage_open_ops(
    ops: *const dmsnap_storage_ops,
    name: *const c_char,
    out: Option<&mut MaybeUninit<Box<dmsnap_storage>>>,
) -> c_int {
    guard(|| {
        // First of all, so that `free` runs whatever fails. SAFETY: the contract with C.
        let host = unsafe { HostOps::take(ops) }?;
        // SAFETY: the contract with C.
        let name = unsafe { name_or(name, || "host".to_owned()) }?;
        let out = need(out, "out")?;
        let storage = CallbackStorage::new(name, Box::new(host))?;
        out.write(dmsnap_storage::give(Arc::new(storage)));
        Ok(())
    })
}

/// A storage in memory of `size` zero bytes. It can grow, or has this size for ever, as a device.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_storage_open_memory(
    size: u64,
    growable: bool,
    out: Option<&mut MaybeUninit<Box<dmsnap_storage>>>,
) -> c_int {
    guard(|| {
        let out = need(out, "out")?;
        let storage = match growable {
            true => MemoryStorage::with_size(size),
            false => MemoryStorage::fixed(size),
        };
        out.write(dmsnap_storage::give(Arc::new(storage)));
        Ok(())
    })
}

/// Gives up this reference; the last one closes the storage. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_storage_free(storage: Option<Box<dmsnap_storage>>) {
    guard_or((), || drop(storage));
}
