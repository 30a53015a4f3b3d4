//! Bytes and values: header, metadata areas, exceptions and the image descriptor. No I/O, no allocation driven by file contents.
#![forbid(unsafe_code)]

mod area;
mod descriptor;
mod exception;
mod header;
mod uuid;

pub use area::Geometry;
pub use descriptor::{
    DESCRIPTOR_MAGIC, DESCRIPTOR_SLOT_SIZE, Descriptor, IncompatibleFeatures, MAX_ORIGIN_NAME,
    SlotDamage, SlotState,
};
pub use exception::Exception;
pub use header::{DISK_VERSION, HEADER_SIZE, Header, HeaderState, SNAP_MAGIC};
pub use uuid::Uuid;

/// The `N` bytes at `offset`, or `None` where `bytes` ends before.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
