//! VM disk layers in the Linux device-mapper persistent snapshot format.

pub mod error;
pub mod format;
pub mod image;
pub mod storage;
pub mod store;
pub mod units;

pub use error::{Error, ErrorKind, Result};
pub use image::{
    Amend, CheckOptions, CheckOutcome, CreateOptions, ExtentKind, Format, Image, ImageExtent,
    ImageInfo, LayerInfo, Merge, MergeProgress, OpenOptions, OriginChoice, Repair, check,
    check_storage, inspect, inspect_storage,
};
pub use units::{ByteRange, ChunkSize, CowChunk, OriginChunk};

/// The Rust examples of the README, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
