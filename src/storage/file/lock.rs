//! Locks in the way of QEMU's file driver, so that both keep each other out.
//!
//! A *permission* is something a user of the file does: read it consistently (0), write (1), write what reads the same afterwards (2),
//! resize (3). Byte `100 + i` is locked by whoever uses permission `i`, byte `200 + i` by whoever does not let others use it. All
//! locks are read locks of open file descriptions, so any number of processes can hold the same byte; each takes its own first and
//! then tests for those of others that contradict them. Of two that come at once both may be refused, never none.
//!
//! File systems that know no such locks at all (ENOSYS, EOPNOTSUPP, EINVAL) are used without: nobody could hold one there.
//! ENOLCK is an error: a lock service that should answer does not.

use crate::sync::atomic::Ordering;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{FileKind, FileStorage, sys};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::LockMode;

const USED: u64 = 100;
const NOT_SHARED: u64 = 200;
const READ: u64 = 0;
const WRITE: u64 = 1;
const RESIZE: u64 = 3;

/// What is held.
#[derive(Debug)]
pub(super) struct LockState {
    mode: LockMode,
    /// Cleared when the file system turns out to have no locks.
    enforced: bool,
}

impl Default for LockState {
    fn default() -> LockState {
        LockState {
            mode: LockMode::None,
            enforced: true,
        }
    }
}

/// Bytes that a mode locks.
fn held(mode: LockMode) -> &'static [u64] {
    match mode {
        LockMode::None => &[],
        LockMode::Reader => &[USED + READ, NOT_SHARED + WRITE, NOT_SHARED + RESIZE],
        LockMode::Writer => &[
            USED + READ,
            USED + WRITE,
            USED + RESIZE,
            NOT_SHARED + WRITE,
            NOT_SHARED + RESIZE,
        ],
    }
}

/// Bytes that nobody else may hold, the clearest reason first.
fn excluded(mode: LockMode) -> &'static [u64] {
    match mode {
        LockMode::None => &[],
        LockMode::Reader => &[USED + WRITE, USED + RESIZE, NOT_SHARED + READ],
        LockMode::Writer => &[
            USED + WRITE,
            USED + RESIZE,
            NOT_SHARED + READ,
            NOT_SHARED + WRITE,
            NOT_SHARED + RESIZE,
        ],
    }
}

fn conflict(byte: u64) -> Error {
    let text = match byte {
        b if b == USED + WRITE => "somebody else has it open for writing",
        b if b == USED + RESIZE => "somebody else has it open and may resize it",
        b if b == NOT_SHARED + READ => "somebody else has it open and lets nobody read",
        b if b == NOT_SHARED + WRITE => "somebody else has it open and lets nobody write",
        _ => "somebody else has it open and lets nobody resize",
    };
    Error::new(ErrorKind::Busy, format!("{text} (lock on byte {byte})"))
}

fn lock_error(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Error::new(
            ErrorKind::Busy,
            "somebody else holds an exclusive lock on it",
        ),
        _ => Error::io("lock", error).with_kind(ErrorKind::Io),
    }
}

fn knows_no_locks(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL)
    )
}

/// Takes the bytes of `to` that `from` lacks, tests, and only then lets go of what `to` does not need.
fn change(file: &File, from: LockMode, to: LockMode) -> std::result::Result<(), Refusal> {
    let fresh = held(to).iter().filter(|byte| !held(from).contains(byte));
    let result = fresh
        .clone()
        .try_for_each(|&byte| sys::set_read_lock(file, byte, true).map_err(Refusal::of));
    if let Err(refusal) = result.and_then(|()| test(file, from, to)) {
        fresh.for_each(|&byte| drop(sys::set_read_lock(file, byte, false)));
        return Err(refusal);
    }
    let stale = held(from).iter().filter(|byte| !held(to).contains(byte));
    stale.for_each(|&byte| drop(sys::set_read_lock(file, byte, false)));
    Ok(())
}

/// What `from` excludes already nobody can hold. Who tries in vain holds it for a moment, which is no reason to refuse.
fn test(file: &File, from: LockMode, to: LockMode) -> std::result::Result<(), Refusal> {
    let fresh = excluded(to)
        .iter()
        .filter(|byte| !excluded(from).contains(byte));
    for &byte in fresh {
        if sys::is_locked_by_other(file, byte).map_err(Refusal::of)? {
            return Err(Refusal::Failed(conflict(byte)));
        }
    }
    Ok(())
}

enum Refusal {
    NoLocksHere,
    Failed(Error),
}

impl Refusal {
    fn of(error: io::Error) -> Refusal {
        if knows_no_locks(&error) {
            Refusal::NoLocksHere
        } else {
            Refusal::Failed(lock_error(error))
        }
    }
}

impl FileStorage {
    /// Whether the lock keeps others out. Not so with [`LockMode::None`], and on file systems that know no locks.
    pub fn is_locked(&self) -> bool {
        let state = self
            .lock
            .lock()
            .unwrap_or_else(crate::sync::PoisonError::into_inner);
        state.enforced && state.mode != LockMode::None
    }

    pub(super) fn take_first_lock(&self, mode: LockMode, writable: bool) -> Result<()> {
        let mut state = self
            .lock
            .lock()
            .unwrap_or_else(crate::sync::PoisonError::into_inner);
        self.change_lock(&mut state, mode)?;
        if mode == LockMode::None {
            self.may_write.store(writable, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn change_lock(&self, state: &mut LockState, mode: LockMode) -> Result<()> {
        // Writes end before others may begin to rely on it.
        let could_write = self.may_write.swap(false, Ordering::SeqCst);
        let result = self.switch(state, mode);
        let may_write = if result.is_ok() {
            mode == LockMode::Writer
        } else {
            could_write
        };
        self.may_write.store(may_write, Ordering::SeqCst);
        result
    }

    fn switch(&self, state: &mut LockState, mode: LockMode) -> Result<()> {
        let file = self.side.as_ref().unwrap_or(&self.opened.io);
        let old = state.mode;
        if state.enforced {
            match change(file, old, mode) {
                Ok(()) => {}
                Err(Refusal::NoLocksHere) => state.enforced = false,
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        if mode == LockMode::Writer
            && let Err(error) = self.prepare_to_write()
        {
            if state.enforced {
                let _ = change(file, mode, old);
            }
            return Err(error);
        }
        state.mode = mode;
        Ok(())
    }

    fn prepare_to_write(&self) -> Result<()> {
        if self.kind == FileKind::Regular
            && let Some(device) = loop_device_over(self.id)
        {
            let text = format!("the loop device {device} stands on it; detach that first");
            return Err(Error::new(ErrorKind::Busy, text));
        }
        self.ensure_writable()
    }
}

/// A loop device whose backing file has this device and inode, as far as we are allowed to look.
fn loop_device_over(id: (u64, u64)) -> Option<String> {
    let entries = fs::read_dir("/sys/block").ok()?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut loops = names.filter(|name| name.starts_with("loop"));
    loops
        .find(|name| loop_stands_on(name, id))
        .map(|name| format!("/dev/{name}"))
}

fn loop_stands_on(name: &str, id: (u64, u64)) -> bool {
    let told = format!("/sys/block/{name}/loop/backing_file");
    // Only a bound loop device has this attribute; anybody may read it, but the path in it can be out of date.
    let Ok(path) = fs::read_to_string(told) else {
        return false;
    };
    let device = File::open(format!("/dev/{name}"));
    if let Ok(backing) = device.and_then(|device| sys::loop_backing(&device)) {
        return backing == id;
    }
    let path = path.strip_suffix('\n').unwrap_or(&path);
    let metadata = fs::metadata(Path::new(path));
    metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_modes_hold_and_exclude_what_qemu_does() {
        assert_eq!(held(LockMode::Writer), [100, 101, 103, 201, 203]);
        assert_eq!(held(LockMode::Reader), [100, 201, 203]);
        assert_eq!(excluded(LockMode::Reader), [101, 103, 200]);
        assert_eq!(excluded(LockMode::Writer), [101, 103, 200, 201, 203]);
    }

    /// A snapshot failed when another program just tried to open the image.
    #[test]
    fn test_who_tries_in_vain_does_not_disturb_a_writer_who_becomes_a_reader() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (ours, theirs) = (open(), open());
        assert!(change(&ours, LockMode::None, LockMode::Writer).is_ok());
        // As they do it: first the bytes, then a look at those of others.
        sys::set_read_lock(&theirs, USED + WRITE, true).unwrap();
        assert!(change(&ours, LockMode::Writer, LockMode::Reader).is_ok());
        // Who reads, and lets nobody write, does.
        sys::set_read_lock(&theirs, NOT_SHARED + WRITE, true).unwrap();
        assert!(change(&ours, LockMode::Reader, LockMode::Writer).is_err());
    }
}
