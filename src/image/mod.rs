//! Images: a chain of COW layers over an origin, ready for reads and writes from any number of threads.
#![forbid(unsafe_code)]

mod amend;
mod check;
mod close;
mod create;
mod extents;
mod flush;
mod handle;
mod info;
mod merge;
mod open;
mod options;
mod resize;
mod snapshot;
mod write;

pub use amend::Amend;
pub use check::{CheckOptions, CheckOutcome, Repair, check, check_storage};
pub use extents::{ExtentKind, Extents, ImageExtent};
pub use handle::Image;
pub use info::{ImageInfo, LayerInfo, inspect, inspect_storage};
pub use merge::{Merge, MergeProgress};
pub use options::{CreateOptions, Format, OpenOptions, OriginChoice};
