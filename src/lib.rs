//! VM disk layers in the Linux device-mapper persistent snapshot format.
//!
//! A layer is a file that holds what differs from an *origin*, a raw file or another layer: the very file that an unmodified Linux
//! kernel attaches as the COW device of its `snapshot` target. `docs/format.md` in the repository describes the bytes.
//!
//! [`Image`] is the blocking half: it opens a chain of layers and does the I/O. It is thread-safe, and durable when flushed, as a
//! disk is. [`store::Store`] is the half without I/O, for hosts that have an I/O engine of their own.
//!
//! ```
//! use dmsnap::{CreateOptions, Format, Image, OpenOptions, OriginChoice};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = |name: &str| directory.path().join(name);
//! std::fs::write(path("base.raw"), vec![b'.'; 1 << 20])?;
//! let new = CreateOptions::new().origin("base.raw", Format::Raw);
//! Image::create(path("layer.dms"), &new)?;
//!
//! // No file is opened because an image names it, unless the caller says so.
//! let options = OpenOptions::new().writable(true).origin(OriginChoice::FromImage);
//! let image = Image::open(path("layer.dms"), &options)?;
//! image.write(b"hello", 4096)?;
//! image.flush()?; // durable from here on
//!
//! image.snapshot(path("top.dms"), None)?; // layer.dms is frozen, writes go to top.dms
//! image.write(b"again", 8192)?;
//! image.merge(&mut |_progress| true)?; // top.dms into layer.dms
//!
//! let mut bytes = [0; 6];
//! image.read(&mut bytes, 8191)?;
//! assert_eq!(&bytes, b".again");
//! image.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Errors
//!
//! Every fallible call returns [`Error`]: a stable [`ErrorKind`], the file, the offset, what was found and what was expected. Running out
//! of space loses nothing and can be tried again; after a failed flush an image takes no more writes until it is opened again.
//!
//! # Features
//!
//! `capi` exports the C interface, `cli` builds the tool. Both are on by default; Rust programs want neither.

pub mod error;
#[cfg(feature = "capi")]
#[doc(hidden)]
pub mod ffi;
pub mod format;
pub mod image;
pub mod storage;
pub mod store;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod units;

pub use error::{Error, ErrorKind, Result};
pub use image::{
    Amend, CheckOptions, CheckOutcome, CreateOptions, ExtentKind, Format, HeaderFound, Image,
    ImageExtent, ImageInfo, LayerInfo, Merge, MergeProgress, MetadataOptions, OpenOptions,
    OriginChoice, RecoverOptions, RecoverProgress, RecoverReport, Repair, RestoreOptions,
    Treatment, check, check_storage, inspect, inspect_storage, read_metadata, recover,
    recover_in_place, recover_storage, recover_storage_in_place, write_metadata,
};
pub use units::{ByteRange, ChunkSize, CowChunk, OriginChunk};

/// The Rust examples of the README, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
