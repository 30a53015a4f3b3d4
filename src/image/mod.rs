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
mod names;
mod node;
mod open;
mod options;
mod read;
mod resize;
mod run;
mod signal;
mod snapshot;
mod tracked;
mod write;

pub use amend::Amend;
pub use check::{CheckOptions, CheckOutcome, Repair, check, check_storage};
pub use extents::{ExtentKind, Extents, ImageExtent};
pub use handle::Image;
pub use info::{ImageInfo, LayerInfo, inspect, inspect_storage};
pub use merge::{Merge, MergeProgress};
pub use options::{CreateOptions, Format, OpenOptions, OriginChoice};
