//! Options of open and create.

use std::path::PathBuf;
use std::sync::Arc;

use super::Image;
use crate::format::{Descriptor, Uuid};
use crate::storage::SharedStorage;
use crate::store::OverflowMode;
use crate::units::ChunkSize;

/// Format of a file in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// A COW layer in the snapshot format.
    Dmsnap,
}

impl Format {
    /// The name that a descriptor records, and that users type: `raw` or `dmsnap`.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Dmsnap => "dmsnap",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Format> {
        match name {
            "raw" => Some(Format::Raw),
            "dmsnap" => Some(Format::Dmsnap),
            _ => None,
        }
    }
}

/// Where the content of unmapped chunks comes from.
#[derive(Clone, Debug, Default)]
pub enum OriginChoice {
    /// Open no file that the image names: an image that names one is refused with
    /// [`ErrorKind::OriginRefused`](crate::ErrorKind::OriginRefused), and so is a bare store, which names none. An image made without
    /// an origin opens.
    #[default]
    Refuse,
    /// Follow the names that the images store. A relative one starts at the directory of the layer that stores it; the format is what
    /// the descriptor says and is never guessed. Only for images that come from somebody you trust with every file you can read.
    FromImage,
    /// Follow the names that the images store as far as they lead to no other directory than that of the layer or one below it:
    /// relative ones without `..`. Others are refused with [`ErrorKind::OriginRefused`](crate::ErrorKind::OriginRefused). For images
    /// that a guest may have written, where all files in that directory are meant for its eyes.
    FromImageInside,
    /// No origin, whatever the image says: unmapped chunks read as zeros.
    Zeros,
    /// This file, whatever the image says. For bare stores, and to override a stored name.
    Path {
        /// The file, as the operating system takes it.
        path: PathBuf,
        /// Its format; never guessed.
        format: Format,
        /// What lies below it, if it is a layer itself.
        below: Box<OriginChoice>,
    },
    /// Raw bytes that the host supplies.
    Storage(SharedStorage),
    /// An image that is open already. It can be read through its own handle from then on, not written.
    Image(Arc<Image>),
}

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(super) writable: bool,
    pub(super) direct: bool,
    pub(super) lock: bool,
    pub(super) overflow: OverflowMode,
    pub(super) origin: OriginChoice,
    pub(super) ignore_origin_uuid: bool,
    pub(super) ignore_descriptor_damage: bool,
    pub(super) bare_size: Option<u64>,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            writable: false,
            direct: false,
            lock: true,
            overflow: OverflowMode::default(),
            origin: OriginChoice::default(),
            ignore_origin_uuid: false,
            ignore_descriptor_damage: false,
            bare_size: None,
        }
    }
}

impl OpenOptions {
    /// Read-only, buffered, locked, and [`OriginChoice::Refuse`].
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Whether the image can be written. Its origins are only ever read, except by a merge.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> OpenOptions {
        self.writable = writable;
        self
    }

    /// Whether files are opened with O_DIRECT.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> OpenOptions {
        self.direct = direct;
        self
    }

    /// Whether files are locked against other programs, the default. Without it the content may change under the reader;
    /// a writable image is always locked.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> OpenOptions {
        self.lock = lock;
        self
    }

    /// What happens when a COW device of fixed size is full.
    #[must_use]
    pub fn overflow(mut self, overflow: OverflowMode) -> OpenOptions {
        self.overflow = overflow;
        self
    }

    /// Where the origin comes from.
    #[must_use]
    pub fn origin(mut self, origin: OriginChoice) -> OpenOptions {
        self.origin = origin;
        self
    }

    /// Opens even if an origin's UUID is not the recorded one, and merges even into a raw origin whose size is not. The content is then
    /// most likely wrong.
    #[must_use]
    pub fn ignore_origin_uuid(mut self, ignore: bool) -> OpenOptions {
        self.ignore_origin_uuid = ignore;
        self
    }

    /// Opens even if slots of the top layer's descriptor are damaged, so that [`Image::amend`] can add or remove a descriptor. With no good
    /// slot the layer counts as a bare store. Where one is good and there are exceptions past the end that it gives, those are kept;
    /// without this such a layer opens read-only.
    #[must_use]
    pub fn ignore_descriptor_damage(mut self, ignore: bool) -> OpenOptions {
        self.ignore_descriptor_damage = ignore;
        self
    }

    /// Size of the disk in bytes, a multiple of 512, of a bare store. It does not record one; without this it is as long as its origin, and
    /// without an origin as long as its last exception says. Has no meaning for an image that records its size.
    #[must_use]
    pub fn bare_size(mut self, size: u64) -> OpenOptions {
        self.bare_size = Some(size);
        self
    }
}

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    pub(super) chunk_size: Option<ChunkSize>,
    pub(super) size: Option<u64>,
    pub(super) origin: Option<(String, Format)>,
    pub(super) origin_identity: Option<(Option<Uuid>, u64)>,
    pub(super) origin_path: Option<PathBuf>,
    pub(super) bare: bool,
    pub(super) uuid: Option<Uuid>,
    pub(super) on_existing: bool,
    /// The whole descriptor, where it is known already.
    pub(super) given: Option<Descriptor>,
}

impl CreateOptions {
    /// Chunks of [`ChunkSize::DEFAULT`], no origin, a random UUID.
    pub fn new() -> CreateOptions {
        CreateOptions::default()
    }

    /// Size of a chunk.
    #[must_use]
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> CreateOptions {
        self.chunk_size = Some(chunk_size);
        self
    }

    /// Size of the disk in bytes, a multiple of 512. Defaults to the origin's size, rounded up to that.
    #[must_use]
    pub fn size(mut self, size: u64) -> CreateOptions {
        self.size = Some(size);
        self
    }

    /// The origin, by a name that is stored as given; a relative one starts at the new file's directory. It must exist: its size and
    /// UUID are recorded.
    #[must_use]
    pub fn origin(mut self, name: impl Into<String>, format: Format) -> CreateOptions {
        self.origin = Some((name.into(), format));
        self
    }

    /// What to record as the origin's UUID and size in bytes, instead of opening the origin to find out. For hosts whose origins are
    /// no files: [`Image::create_on`] does not open anything.
    #[must_use]
    pub fn origin_identity(mut self, uuid: Option<Uuid>, size: u64) -> CreateOptions {
        self.origin_identity = Some((uuid, size));
        self
    }

    /// Where the origin is looked up, instead of by the name that is stored: for a new file that is reached through a symbolic link or
    /// will be moved.
    #[must_use]
    pub fn origin_path(mut self, path: impl Into<PathBuf>) -> CreateOptions {
        self.origin_path = Some(path.into());
        self
    }

    /// A store without a descriptor, as the kernel makes it: it records neither size nor origin, its user has to know them.
    #[must_use]
    pub fn bare(mut self, bare: bool) -> CreateOptions {
        self.bare = bare;
        self
    }

    /// Identity of the new image, instead of a random one.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> CreateOptions {
        self.uuid = Some(uuid);
        self
    }

    /// Allows a file or block device that exists. **Its content is lost.**
    #[must_use]
    pub fn create_on_existing(mut self, on_existing: bool) -> CreateOptions {
        self.on_existing = on_existing;
        self
    }
}
