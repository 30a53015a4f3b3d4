//! Images: a chain of COW layers over an origin, ready for reads and writes from any number of threads.
#![forbid(unsafe_code)]

mod amend;
mod bufs;
mod check;
mod close;
mod copy;
mod create;
mod discard;
mod extents;
mod first_write;
mod flush;
mod gate;
mod handle;
mod info;
mod layer;
mod merge;
mod metadata;
mod names;
mod node;
mod open;
mod options;
mod read;
mod recover;
mod recover_in_place;
mod resize;
mod restore;
mod run;
mod signal;
mod snapshot;
mod tracked;
mod write;

pub use amend::Amend;
pub use check::{CheckOptions, CheckOutcome, Repair, Treatment, check, check_storage};
pub use extents::{ExtentKind, Extents, ImageExtent};
pub use handle::Image;
pub use info::{ImageInfo, LayerInfo, inspect, inspect_storage};
pub use merge::{Merge, MergeProgress};
pub use metadata::{MetadataOptions, read_metadata};
pub use options::{CreateOptions, Format, OpenOptions, OriginChoice};
pub use recover::{
    HeaderFound, RecoverOptions, RecoverProgress, RecoverReport, recover, recover_storage,
};
pub use recover_in_place::{recover_in_place, recover_storage_in_place};
pub use restore::{RestoreOptions, write_metadata};
