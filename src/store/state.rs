//! The vocabulary of a store's state: modes, status words and figures, results of look-ups.

use std::fmt;

use super::plan::Plan;
use crate::units::{CowChunk, OriginChunk};

/// What happens when a COW device of fixed size has no chunk left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowMode {
    /// First writes fail with [`ErrorKind::NoSpace`](crate::error::ErrorKind::NoSpace); everything else goes on. Ours, and the default.
    #[default]
    NoSpace,
    /// As the kernel's `P`: the snapshot is invalidated, on disk too.
    Persistent,
    /// As the kernel's `PO`: every write fails from then on, reads go on; reopening ends it.
    PersistentOverflow,
}

/// What a store can do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Reads and writes.
    Active,
    /// A merge is under way: no new exceptions, first writes go to the origin.
    Merging,
    /// A merge stopped on an error. The pair of COW and origin is whole and is used as during a merge.
    MergeFailed,
    /// Full in mode `PO`: reads only.
    Overflow,
    /// Invalidated: neither reads nor writes.
    Invalid,
    /// A metadata write or a flush failed: reads only, until reopened.
    Failed,
}

/// Figures of a store in sectors, as the kernel computes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Sectors handed out, with header, metadata areas and holes.
    pub sectors_allocated: u64,
    /// Size of the COW device.
    pub total_sectors: u64,
    /// Header and metadata areas up to the current one.
    pub metadata_sectors: u64,
}

/// The kernel's status of a snapshot. `Display` gives the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Figures.
    Active(Usage),
    /// `Invalid`
    Invalid,
    /// `Merge failed`
    MergeFailed,
    /// `Overflow`
    Overflow,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Active(usage) => write!(
                f,
                "{}/{} {}",
                usage.sectors_allocated, usage.total_sectors, usage.metadata_sectors
            ),
            Status::Invalid => f.write_str("Invalid"),
            Status::MergeFailed => f.write_str("Merge failed"),
            Status::Overflow => f.write_str("Overflow"),
        }
    }
}

/// Where bytes are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The COW file, at this byte.
    Cow {
        /// Byte in the COW file.
        offset: u64,
    },
    /// The origin, at the offset that was asked for; past its end there are zeros.
    Origin,
}

/// A run of bytes with one source, from the start of the range that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where they are.
    pub target: Target,
    /// How many.
    pub len: u64,
}

/// Where bytes are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteTarget {
    /// In place in the COW file, at this byte.
    Cow {
        /// Byte in the COW file.
        offset: u64,
    },
    /// To a new exception: [`Store::prepare_exception`](super::Store::prepare_exception).
    Unmapped,
    /// To the origin: a merge is under way.
    Origin,
    /// Nowhere yet: another write prepares the first chunk, or a merge copies it.
    Wait,
}

/// A run of bytes with one target, from the start of the range that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteExtent {
    /// Where they go.
    pub target: WriteTarget,
    /// How many.
    pub len: u64,
}

/// Name of an exception in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExceptionId(pub u64);

/// A run of exceptions in flight: chunks `old..old + count` shall live in `new..new + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewException {
    /// Its name, for completing or aborting it.
    pub id: ExceptionId,
    /// First chunk of the snapshot.
    pub old: OriginChunk,
    /// First chunk of the COW file.
    pub new: CowChunk,
    /// Number of chunks.
    pub count: u64,
    /// Byte at which `new` starts.
    pub cow_offset: u64,
    /// Whether the chunks read as zeros already, so that zeros need not be written.
    pub reads_zero: bool,
}

/// Answer to a request for an exception.
#[derive(Debug)]
pub enum Prepared {
    /// Fill the chunks wholly, then complete or abort.
    Exception(NewException),
    /// Run this plan, finish it, ask again.
    Reserve(Plan),
    /// Wait for another request or plan, ask again.
    Wait,
    /// The first chunk needs no exception any more: look it up again.
    Retry,
}

/// Answer to a request to make completed exceptions durable.
#[derive(Debug)]
pub enum Commit {
    /// Run this plan, which holds all flushes of the COW file that are needed, and finish it.
    Plan(Plan),
    /// No record is missing on disk. Flush the COW file for the data's sake.
    Clean,
    /// A plan is outstanding. Wait for it and ask again.
    Wait,
}

/// The next thing to do for a job.
#[derive(Debug)]
pub enum Progress {
    /// Run this plan, finish it, ask again.
    Plan(Plan),
    /// Wait for I/O that is under way elsewhere, ask again.
    Wait,
    /// The job is done.
    Done,
}
