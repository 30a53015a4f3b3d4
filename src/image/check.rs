//! Checking a layer, and repairing what can be repaired without guessing.

use std::path::Path;

use crate::error::Result;
use crate::storage::SharedStorage;
use crate::store::CheckReport;

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

/// What a check found, and what a repair changed.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    /// The findings. After a repair: those that were there before it.
    pub report: CheckReport,
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
pub fn check(path: impl AsRef<Path>, options: &CheckOptions) -> Result<CheckOutcome> {
    let _ = (path.as_ref(), options);
    unimplemented!()
}

/// Checks the layer in `storage`.
pub fn check_storage(storage: &SharedStorage, options: &CheckOptions) -> Result<CheckOutcome> {
    let _ = (storage, options);
    unimplemented!()
}
