//! Opening files: by path or by descriptor, once more for writing, and what they turn out to be.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

use super::{FileKind, FileStorage, Handles, Missing, lock, sys};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::aligned::{AlignedIo, Alignment};
use crate::storage::{LockMode, Users};

/// Alignment of direct I/O where neither file system nor device says what it needs: enough for all that exist without saying.
const DIRECT_ALIGNMENT: u64 = 4096;

/// How to open a [`FileStorage`]. By default: for reading, through the page cache, with the lock that the access needs.
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    writable: bool,
    direct: bool,
    create_new: bool,
    lock: Option<LockMode>,
}

impl FileOptions {
    /// Options for reading through the page cache, under a [`LockMode::Reader`] lock.
    pub fn new() -> FileOptions {
        FileOptions::default()
    }

    /// Opens for writing too, under a [`LockMode::Writer`] lock unless [`FileOptions::lock`] says otherwise.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> FileOptions {
        self.writable = writable;
        self
    }

    /// Bypasses the page cache (`O_DIRECT`).
    #[must_use]
    pub fn direct(mut self, direct: bool) -> FileOptions {
        self.direct = direct;
        self
    }

    /// Creates the file, for writing, and fails with [`ErrorKind::Exists`] if there is one. Nothing is left behind on failure.
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> FileOptions {
        self.create_new = create_new;
        self
    }

    /// The lock to take. [`LockMode::Writer`] implies `writable`; [`LockMode::Reader`] makes writes fail until the handle is
    /// upgraded; with [`LockMode::None`] a writable file can be written, and keeping others away is the caller's affair.
    #[must_use]
    pub fn lock(mut self, mode: LockMode) -> FileOptions {
        self.lock = Some(mode);
        self
    }

    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if the lock is held by someone else, or a block device is claimed (by device-mapper, a mount or another
    /// program), or a loop device stands on a file that is to be written. [`ErrorKind::InvalidArgument`] for what is neither a
    /// regular file nor a block device. Else what the operating system reports.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileStorage> {
        let path = path.as_ref();
        let name = path.display().to_string();
        self.open_path(path, &name)
            .map_err(|error| error.with_path(name))
    }

    /// Takes over a descriptor that the caller opened; `name` is what errors call it.
    ///
    /// A descriptor without write access, or without `O_DIRECT` where direct I/O is asked for, is opened once more through `/proc`.
    /// One that has `O_DIRECT` is direct, whatever the options say.
    ///
    /// # Errors
    /// As [`FileOptions::open`], and [`ErrorKind::InvalidArgument`] for a descriptor that is write-only or appends.
    pub fn open_fd(&self, fd: OwnedFd, name: impl Into<String>) -> Result<FileStorage> {
        let name = name.into();
        self.adopt(File::from(fd), &name)
            .map_err(|error| error.with_path(name))
    }

    /// As [`FileOptions::open_fd`] with a duplicate: the caller keeps the descriptor and may close it at any time.
    ///
    /// # Errors
    /// As [`FileOptions::open_fd`].
    pub fn open_borrowed_fd(
        &self,
        fd: BorrowedFd<'_>,
        name: impl Into<String>,
    ) -> Result<FileStorage> {
        let name = name.into();
        match fd.try_clone_to_owned() {
            Ok(owned) => self.open_fd(owned, name),
            Err(error) => Err(Error::io("duplicate", error).with_path(name)),
        }
    }

    fn wants_write(&self) -> bool {
        self.writable || self.create_new || self.lock == Some(LockMode::Writer)
    }

    fn open_path(&self, path: &Path, name: &str) -> Result<FileStorage> {
        if self.create_new {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path);
            let file = file.map_err(|error| Error::io("create", error))?;
            let made = file.metadata().map_err(|error| Error::io("create", error))?;
            let finished = self.finish(file, true, name);
            return finished.inspect_err(|_| remove_if(path, Some(identity(&made))));
        }
        // Asked first because opening a FIFO waits, and opening some devices acts.
        let found = fs::metadata(path).map_err(|error| Error::io("open", error))?;
        let kind = kind_of(&found)?;
        let file = open_as(path, kind, self.wants_write(), 0)?;
        let opened = file.metadata().map_err(|error| Error::io("open", error))?;
        // What is a device by now was opened without the care that devices need.
        if identity(&opened) != identity(&found) && kind_of(&opened)? != kind {
            let text = "became another kind of file while it was being opened";
            return Err(Error::new(ErrorKind::Busy, text));
        }
        self.finish(file, self.wants_write(), name)
    }

    fn adopt(&self, file: File, name: &str) -> Result<FileStorage> {
        let flags = sys::status_flags(&file).map_err(|error| Error::io("open", error))?;
        let mode = flags & libc::O_ACCMODE;
        if mode == libc::O_WRONLY || flags & (libc::O_APPEND | libc::O_PATH) != 0 {
            let text = "the descriptor must be open for reading, and not for appending";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let mut options = self.clone();
        options.direct |= flags & libc::O_DIRECT != 0;
        if !self.wants_write() || mode == libc::O_RDWR {
            return options.finish(file, mode == libc::O_RDWR, name);
        }
        let metadata = file.metadata().map_err(|error| Error::io("open", error))?;
        let file = reopen(&file, kind_of(&metadata)?, true, 0)?;
        options.finish(file, true, name)
    }

    /// Everything after the first descriptor. `writable` is what that one allows, not what the caller asked for.
    fn finish(&self, file: File, writable: bool, name: &str) -> Result<FileStorage> {
        let metadata = file.metadata().map_err(|error| Error::io("open", error))?;
        let kind = with_block_size(kind_of(&metadata)?, &file)?;
        let side = reopen(&file, kind, false, 0).ok();
        let direct = if self.direct {
            Some(AlignedIo::new(alignment(&file, kind)?))
        } else {
            None
        };
        let storage = FileStorage {
            name: name.to_owned(),
            id: identity(&metadata),
            kind,
            opened: handles(file, kind, writable, self.direct)?,
            reopened: OnceLock::new(),
            side,
            opened_writable: writable,
            may_write: AtomicBool::new(false),
            direct,
            lock: Mutex::new(lock::LockState::default()),
            users: Users::default(),
            missing: Missing::default(),
        };
        let default = if self.wants_write() {
            LockMode::Writer
        } else {
            LockMode::Reader
        };
        storage.take_first_lock(self.lock.unwrap_or(default), self.wants_write())?;
        Ok(storage)
    }
}

impl FileStorage {
    /// Opens a file or block device for reading, under a reader's lock.
    ///
    /// # Errors
    /// As [`FileOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<FileStorage> {
        FileOptions::new().open(path)
    }

    /// Opens writable descriptors unless there are some.
    pub(super) fn ensure_writable(&self) -> Result<()> {
        if self.opened_writable || self.reopened.get().is_some() {
            return Ok(());
        }
        let file = reopen(&self.opened.io, self.kind, true, 0)?;
        let fresh = handles(file, self.kind, true, self.direct.is_some())?;
        // The caller holds the lock's mutex, so nobody else can have been faster.
        let _ = self.reopened.set(fresh);
        Ok(())
    }
}

/// The descriptors for one access mode, from one that may or may not be direct.
fn handles(file: File, kind: FileKind, writable: bool, direct: bool) -> Result<Handles> {
    if !direct {
        return Ok(Handles {
            io: file,
            buffered: None,
            kind,
        });
    }
    let flags = sys::status_flags(&file).map_err(|error| Error::io("open", error))?;
    if flags & libc::O_DIRECT != 0 {
        // A caller's descriptor. Without a second one all works but writes that end inside the file's last block.
        let buffered = open_again(&file, writable, 0).ok();
        return Ok(Handles {
            io: file,
            buffered,
            kind,
        });
    }
    // The first descriptor stays open: it may hold the claim on a block device.
    let io = open_again(&file, writable, libc::O_DIRECT).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EINVAL) => Error::new(
                ErrorKind::Unsupported,
                "the file system does not do direct I/O",
            ),
            _ => Error::io("open for direct I/O", error),
        }
    })?;
    Ok(Handles {
        io,
        buffered: Some(file),
        kind,
    })
}

/// Opens a path in the way its kind asks for. Block devices are claimed for writing.
fn open_as(path: &Path, kind: FileKind, writable: bool, flags: i32) -> Result<File> {
    let claim = if writable && kind != FileKind::Regular {
        libc::O_EXCL
    } else {
        0
    };
    let opened = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags | claim)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) if claim != 0 => {
            let text = "the block device is claimed by device-mapper, a mount or another program";
            Error::new(ErrorKind::Busy, text)
        }
        _ => Error::io(if writable { "open for writing" } else { "open" }, error),
    })
}

fn descriptor_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Opens the very same file once more, whatever its name means by now.
fn reopen(file: &File, kind: FileKind, writable: bool, flags: i32) -> Result<File> {
    open_as(Path::new(&descriptor_path(file)), kind, writable, flags)
}

/// As [`reopen`] without a claim, for a file that is claimed already or need not be.
fn open_again(file: &File, writable: bool, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(writable)
        .custom_flags(flags)
        .open(descriptor_path(file))
}

fn kind_of(metadata: &Metadata) -> Result<FileKind> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(FileKind::Regular);
    }
    if kind.is_block_device() {
        return Ok(FileKind::Block { logical_block: 512 });
    }
    let found = if kind.is_dir() {
        "a directory"
    } else {
        "a special file"
    };
    let text = format!("is {found}, not a regular file or a block device");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

fn with_block_size(kind: FileKind, file: &File) -> Result<FileKind> {
    if kind == FileKind::Regular {
        return Ok(kind);
    }
    match sys::device_block_size(file) {
        Ok(size) if size.is_power_of_two() => Ok(FileKind::Block {
            logical_block: size,
        }),
        Ok(size) => {
            let text = format!("the device says its logical block has {size} bytes");
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        Err(error) => Err(Error::io("block size", error)),
    }
}

fn alignment(file: &File, kind: FileKind) -> Result<Alignment> {
    let (memory, block) = match (sys::direct_alignment(file), kind) {
        (Some((0, _) | (_, 0)), FileKind::Regular) => {
            let text = "the file system does not do direct I/O on this file";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        (Some((memory, block)), _) if memory.is_power_of_two() && block.is_power_of_two() => {
            (memory, block)
        }
        (_, FileKind::Block { logical_block }) => (logical_block, logical_block),
        (_, FileKind::Regular) => (DIRECT_ALIGNMENT, DIRECT_ALIGNMENT),
    };
    // Unaligned bytes at a file's end go through the page cache, in pages.
    Alignment::new(memory, block, sys::page_size())
}

/// Removes a file that was made in vain, unless its name means another one by now.
pub(crate) fn remove_if(path: &Path, id: Option<(u64, u64)>) {
    let found = fs::symlink_metadata(path).map(|found| identity(&found));
    if found.ok() == id && id.is_some() {
        let _ = fs::remove_file(path);
    }
}

/// A file is known by device and inode, a block device by its number: its node may exist more than once.
fn identity(metadata: &Metadata) -> (u64, u64) {
    if metadata.file_type().is_block_device() {
        return (metadata.rdev(), 0);
    }
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_file_that_took_the_name_of_a_failed_one_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let made = File::create(&path).unwrap();
        let id = identity(&made.metadata().unwrap());
        fs::write(directory.path().join("other"), "kept").unwrap();
        fs::rename(directory.path().join("other"), &path).unwrap();
        remove_if(&path, Some(id));
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        remove_if(&path, Some(identity(&fs::metadata(&path).unwrap())));
        assert!(!path.exists());
    }
}
