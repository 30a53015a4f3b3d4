//! Merging the top layer into its origin.

use super::Image;
use crate::error::Result;

/// How far a merge is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeProgress {
    /// Exceptions merged so far.
    pub done: u64,
    /// Exceptions in all.
    pub total: u64,
    /// Bytes copied into the origin by this call of merge.
    pub bytes_copied: u64,
}

/// A merge in steps. Reads and writes of the image go on between and during the steps. Dropping it cancels what is left;
/// a later merge takes up from there.
#[derive(Debug)]
#[must_use = "a merge that is dropped is cancelled"]
pub struct Merge {}

impl Merge {
    /// Merges one bounded batch. Returns whether there is more to do.
    pub fn step(&mut self) -> Result<bool> {
        unimplemented!()
    }

    /// How far it is.
    pub fn progress(&self) -> MergeProgress {
        unimplemented!()
    }
}

impl Image {
    /// Merges the top layer into its origin. `progress` is called between the steps; `false` from it stops the merge with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), and what was merged stays merged.
    pub fn merge(&self, progress: &mut dyn FnMut(MergeProgress) -> bool) -> Result<()> {
        let _ = progress;
        unimplemented!()
    }

    /// Begins a merge that the caller drives in steps.
    pub fn start_merge(&self) -> Result<Merge> {
        unimplemented!()
    }
}
