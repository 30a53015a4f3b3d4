//! The exception store as a state machine: it decides, and leaves all I/O to its caller.
//!
//! A host loads a store through a [`Loader`], looks ranges up, does data I/O itself, and runs the [`Plan`]s it is handed. Every prefix of
//! a plan is a state that a crash may leave and that the next load understands.
#![forbid(unsafe_code)]

mod alloc;
mod areas;
mod check;
mod chunk_set;
mod commit;
mod create;
mod descriptor_job;
mod drop_job;
mod empty_job;
mod exceptions;
mod invalidate_job;
mod job;
mod load;
mod locate;
mod log;
mod lookup;
pub(crate) mod memory;
mod merge_job;
mod pins;
mod plan;
mod raw;
mod records;
mod resize_job;
mod sift;
mod state;
#[allow(clippy::module_inception)]
mod store;
mod table;

pub use check::{CheckReader, CheckReport, Finding, FindingKind, Severity};
pub use create::{FormatOptions, Measure, format_plan, measure};
pub use load::{LoadOptions, Loader};
pub use pins::{Pin, Pins};
pub use plan::{Device, Plan, Purpose, Step};
pub use raw::{RawArea, RawMetadata, RawRun, RawSlot};
pub use sift::{Doubt, LeftOut, Sifted};
pub use state::{
    Commit, ExceptionId, Extent, NewException, OverflowMode, Prepared, Progress, State, Status,
    Target, Usage, WriteExtent, WriteTarget,
};
pub use store::Store;

#[cfg(feature = "test-util")]
pub(crate) use table::{ExceptionTable, TableBuilder};
