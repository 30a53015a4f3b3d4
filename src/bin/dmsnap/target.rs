//! Files that are made: complete under their name, or not at all.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dmsnap::storage::{FileOptions, FileStorage, Storage};

use crate::failure::{About, Failure, Result};

/// A file to be made. It grows under a name of its own in the directory it will live in, and takes the name it was asked for when it is
/// complete and durable; dropped before that, it vanishes. So whatever ends the work leaves at the final name what was there before.
#[derive(Debug)]
pub(crate) struct Target {
    /// What the user calls it.
    name: PathBuf,
    /// Where it will be: with symbolic links followed, if there is something already.
    place: PathBuf,
    /// What is worked on: the file under its temporary name, or a block device.
    work: PathBuf,
    replaces: Replaces,
    committed: bool,
}

/// What is at the final name.
#[derive(Debug)]
enum Replaces {
    Nothing,
    /// A file that nobody else may use while it is being replaced.
    File(Box<Replaced>),
    /// A device, which is written in place.
    BlockDevice,
}

/// A file that is there already.
#[derive(Debug)]
struct Replaced {
    metadata: Metadata,
    _lock: FileStorage,
}

impl Target {
    /// Prepares for making `name`. Changes nothing that exists.
    ///
    /// `sources` are files that the new one is made from or will lie over: it may be none of them.
    pub(crate) fn prepare(name: &Path, sources: &[PathBuf]) -> Result<Target> {
        let (place, replaces) = match fs::metadata(name) {
            Ok(old) => {
                refuse_source(name, &old, sources)?;
                (
                    fs::canonicalize(name).about(name)?,
                    Replaces::existing(name, old)?,
                )
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (new_place(&follow(name)?)?, Replaces::Nothing)
            }
            Err(error) => return Err(error).about(name),
        };
        let work = match replaces {
            Replaces::BlockDevice => place.clone(),
            _ => workplace(name, &place)?,
        };
        Ok(Target {
            name: name.to_path_buf(),
            place,
            work,
            replaces,
            committed: false,
        })
    }

    /// The file or device to write to.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Whether the work is done in place, on a device of fixed size.
    pub(crate) fn is_block_device(&self) -> bool {
        matches!(self.replaces, Replaces::BlockDevice)
    }

    /// Calls the target by its real name in a failure.
    pub(crate) fn rename_in(&self, failure: Failure) -> Failure {
        failure.renamed(&self.work, &self.name)
    }

    /// Gives the complete and durable file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        match &self.replaces {
            Replaces::BlockDevice => {}
            Replaces::Nothing => self.link().about(&self.name)?,
            Replaces::File(replaced) => {
                let old = &replaced.metadata;
                fs::set_permissions(&self.work, old.permissions()).about(&self.name)?;
                // Only root can give files away; for others the file is simply theirs.
                let _ = std::os::unix::fs::chown(&self.work, Some(old.uid()), Some(old.gid()));
                fs::rename(&self.work, &self.place).about(&self.name)?;
            }
        }
        self.committed = true;
        if self.is_block_device() {
            return Ok(());
        }
        let synced = File::open(directory(&self.place)).and_then(|directory| directory.sync_all());
        synced.about(&self.name)
    }

    /// A link does not replace a file that appeared meanwhile, as a rename would; some file systems have no links.
    fn link(&self) -> io::Result<()> {
        match fs::hard_link(&self.work, &self.place) {
            Ok(()) => {
                // The file is complete and has its name. That it keeps the other one too is no failure.
                let _ = fs::remove_file(&self.work);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) => fs::rename(&self.work, &self.place),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.committed && !self.is_block_device() {
            // It may not have been created yet.
            let _ = fs::remove_file(&self.work);
        }
    }
}

impl Replaces {
    fn existing(name: &Path, old: Metadata) -> Result<Replaces> {
        let kind = old.file_type();
        if kind.is_block_device() {
            return Ok(Replaces::BlockDevice);
        }
        if !kind.is_file() {
            let what = if kind.is_dir() {
                "is a directory"
            } else {
                "is neither a file nor a block device"
            };
            return Err(Failure::at(
                name,
                format!("{what}, wanted a file or block device to write to"),
            ));
        }
        // The lock shows whether anybody uses it, and keeps them away.
        let lock = FileOptions::new().writable(true).open(name).about(name)?;
        Ok(Replaces::File(Box::new(Replaced {
            metadata: old,
            _lock: lock,
        })))
    }
}

fn refuse_source(name: &Path, old: &Metadata, sources: &[PathBuf]) -> Result<()> {
    for source in sources {
        let same = fs::metadata(source).is_ok_and(|found| {
            (found.dev(), found.ino(), found.rdev()) == (old.dev(), old.ino(), old.rdev())
        });
        if same {
            return Err(Failure::at(
                name,
                format!(
                    "is also {}, which is needed below: it cannot be overwritten",
                    source.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Where a link leads that may lead to a file which does not exist yet.
fn follow(name: &Path) -> Result<PathBuf> {
    let mut place = name.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&place) {
            Ok(next) => place = directory(&place).join(next),
            Err(_) => return Ok(place),
        }
    }
    Err(Failure::at(name, "too many levels of symbolic links"))
}

/// As Linux has it.
const MAX_LINKS: usize = 40;

/// The name under which the file grows, once it is known that one can be made there.
fn workplace(name: &Path, place: &Path) -> Result<PathBuf> {
    let directory = directory(place);
    let work = directory.join(temporary_name());
    let made = File::create_new(&work).and_then(|_| fs::remove_file(&work));
    made.map_err(|error| {
        Failure::at(
            name,
            format!(
                "no file can be made in the directory {}, in which the new one grows until it is complete: {error}",
                directory.display()
            ),
        )
    })?;
    Ok(work)
}

/// Where a file will be that does not exist yet.
fn new_place(name: &Path) -> Result<PathBuf> {
    if name.file_name().is_none() || name.to_string_lossy().ends_with('/') {
        return Err(Failure::at(name, "wanted the name of a file"));
    }
    let directory = directory(name);
    if !directory.is_dir() {
        return Err(Failure::at(
            name,
            format!("there is no directory {}", directory.display()),
        ));
    }
    Ok(name.to_path_buf())
}

/// A name that nobody else has: not even a process of this number before us that was killed.
fn temporary_name() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!(".dmsnap-{}-{}.tmp", std::process::id(), now.as_nanos())
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the raw file of `size` bytes, without content. On a device those bytes are there already: checks that they are enough.
pub(crate) fn raw_storage(target: &Target, size: u64) -> Result<FileStorage> {
    let options = FileOptions::new();
    if !target.is_block_device() {
        let storage = options
            .create_new(true)
            .open(target.work())
            .about(target.work())?;
        storage.set_size(size).about(target.work())?;
        return Ok(storage);
    }
    let storage = options
        .writable(true)
        .open(target.work())
        .about(target.work())?;
    let room = storage.size().about(target.work())?;
    if room < size {
        return Err(Failure::at(
            target.work(),
            format!("the device has {room} bytes, the image {size}"),
        ));
    }
    Ok(storage)
}
