//! What a test asks of the kernel, and what it gets back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file that the guest sees as a SCSI disk; the guest writes straight into it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Shell variable that holds the disk's path in the guest.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// Logical block size in bytes: 512 or 4096.
    pub(crate) block_size: u32,
}

impl Disk {
    pub(crate) fn new(name: &str, path: &Path) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            read_only: false,
            block_size: 512,
        }
    }

    pub(crate) fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    pub(crate) fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }
}

/// Some disks and a shell script over them; `guest/lib.sh` lists what scripts can call.
///
/// A command that fails ends the scenario. Device-mapper devices left over are removed.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) disks: Vec<Disk>,
    pub(crate) script: String,
    /// Programs by name; the script finds them in the directory `$1`.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// The guest kills a script that takes longer.
    pub(crate) limit_seconds: u32,
}

impl Scenario {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            disks: Vec::new(),
            script: String::new(),
            files: Vec::new(),
            limit_seconds: 120,
        }
    }

    /// Adds a writable disk with blocks of 512 bytes; the script finds its path in `$name`.
    pub(crate) fn disk(self, name: &str, path: &Path) -> Self {
        self.with_disk(Disk::new(name, path))
    }

    pub(crate) fn with_disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    pub(crate) fn file(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.files.push((name.into(), bytes));
        self
    }

    /// Appends commands to the script.
    pub(crate) fn script(mut self, commands: &str) -> Self {
        self.script.push_str(commands);
        self.script.push('\n');
        self
    }
}

/// The named results of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, String>,
    /// What went wrong, with the scenario's logs.
    pub(crate) failure: Option<String>,
}

impl Outcome {
    /// The value that the script gave with `field KEY VALUE`.
    #[track_caller]
    pub(crate) fn field(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| {
            panic!(
                "scenario {} gave no field {key}, only {:?}",
                self.name,
                self.fields.keys()
            )
        })
    }
}
