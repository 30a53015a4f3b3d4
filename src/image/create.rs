//! Creating an image.

use crate::sync::Arc;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::node::Node;
use super::open::{load_store, open_file};
use super::tracked::Tracked;
use super::{CreateOptions, Format, Image, names, run};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, IncompatibleFeatures, Uuid};
use crate::storage::{FileOptions, Hold, LockMode, SharedStorage, remove_if};
use crate::store::{FormatOptions, LoadOptions, State, format_plan};
use crate::units::{ChunkSize, SECTOR_SIZE, check_disk_size};

impl Image {
    /// Creates a layer at `path`, which must not exist unless the options allow it. Durable when it returns; after a failure nothing is
    /// left at `path`, and what existed there is untouched if the options or the origin were at fault.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`]; [`ErrorKind::InvalidArgument`] for options that contradict each other; what opening the origin gives; or what the
    /// file system reports.
    pub fn create(path: impl AsRef<Path>, options: &CreateOptions) -> Result<()> {
        let path = path.as_ref();
        let named = |error: Error| error.with_path(path.display().to_string());
        let origin = OriginFacts::find(path, options).map_err(named)?;
        let format = options.format(origin.as_ref()).map_err(named)?;
        if options.on_existing && path.exists() {
            let storage = open_file(path, true, false)?;
            if origin
                .as_ref()
                .is_some_and(|origin| origin.is_file(storage.file_id()))
            {
                let message = "cannot be its own origin";
                return Err(named(Error::new(ErrorKind::InvalidArgument, message)));
            }
            return format_storage(&Hold::take(&storage, LockMode::Writer)?, format);
        }
        create_file(path, format, false).map(drop)
    }

    /// Creates a layer in `storage`, whose content is lost. Opens nothing else: an origin's size and UUID come from
    /// [`CreateOptions::origin_identity`].
    ///
    /// # Errors
    /// As [`Image::create`].
    pub fn create_on(storage: &SharedStorage, options: &CreateOptions) -> Result<()> {
        let origin = options.origin_identity.map(OriginFacts::given);
        let format = options
            .format(origin.as_ref())
            .map_err(|error| error.with_path(storage.name()))?;
        format_storage(&Hold::take(storage, LockMode::Writer)?, format)
    }
}

/// Creates a file with a new store in it, durable under its name. The file is removed if that fails.
pub(super) fn create_file(path: &Path, format: FormatOptions, direct: bool) -> Result<Hold> {
    let options = FileOptions::new().create_new(true).direct(direct);
    let storage: SharedStorage = Arc::new(options.open(path)?);
    let create = || {
        let hold = Hold::take(&storage, LockMode::Writer)?;
        format_storage(&hold, format)?;
        sync_directory(path)?;
        Ok(hold)
    };
    create().inspect_err(|_| remove_if(path, storage.file_id()))
}

/// Makes a new store of a storage. What a growable one held is cut off first.
pub(super) fn format_storage(hold: &Hold, mut format: FormatOptions) -> Result<()> {
    let storage = hold.storage();
    format.fixed_size = !storage.is_growable();
    let run = || {
        let mut plan = format_plan(&format)?;
        check_room(storage, &format)?;
        if storage.is_growable() && storage.size()? > 0 {
            storage.set_size(0)?;
        }
        run::run(&mut plan, &Tracked::new(Arc::clone(storage)), &Node::Zeros)?;
        storage.flush()
    };
    run().map_err(|error| error.with_path(storage.name()))
}

fn check_room(storage: &SharedStorage, format: &FormatOptions) -> Result<()> {
    let (size, chunk) = (storage.size()?, format.chunk_size.bytes());
    if storage.is_growable() || size >= 3 * chunk {
        return Ok(());
    }
    let message = format!(
        "{size} bytes are too few: a store needs three chunks at least, {} bytes",
        3 * chunk
    );
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// Makes a new name in a directory durable.
fn sync_directory(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|error| {
        Error::io("sync the directory", error).with_path(path.display().to_string())
    })
}

impl CreateOptions {
    /// The store to make.
    pub(super) fn format(&self, origin: Option<&OriginFacts>) -> Result<FormatOptions> {
        let chunk_size = self.chunk_size.unwrap_or(ChunkSize::DEFAULT);
        let descriptor = if self.bare {
            None
        } else if let Some(given) = &self.given {
            Some(given.clone())
        } else {
            Some(self.descriptor(chunk_size, origin)?)
        };
        Ok(FormatOptions {
            chunk_size,
            descriptor,
            fixed_size: false,
        })
    }

    fn descriptor(
        &self,
        chunk_size: ChunkSize,
        origin: Option<&OriginFacts>,
    ) -> Result<Descriptor> {
        if Descriptor::slot_offsets(chunk_size).is_none() {
            let message = format!(
                "chunks of {} bytes have no room for the image's size and origin: use chunks of 4096 bytes or more, or \
                 ask for a bare store",
                chunk_size.bytes()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let size = match (self.size, origin) {
            (Some(size), _) => size,
            (None, Some(origin)) => origin.size.next_multiple_of(SECTOR_SIZE),
            (None, None) => {
                let message = "an image without an origin needs a size";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        check_disk_size(size)?;
        let descriptor = Descriptor {
            generation: 1,
            incompatible: IncompatibleFeatures::empty(),
            compatible: 0,
            virtual_size: size,
            uuid: self.uuid.map_or_else(random_uuid, Ok)?,
            origin_uuid: origin.and_then(|origin| origin.uuid),
            origin_size: origin.map_or(0, |origin| origin.size),
            origin_name: self.origin.as_ref().map(|(name, _)| name.clone()),
            origin_format: self
                .origin
                .as_ref()
                .map(|(_, format)| format.name().to_owned()),
        };
        // Names that do not fit are found before anything is touched.
        descriptor.encode()?;
        Ok(descriptor)
    }
}

pub(super) fn random_uuid() -> Result<Uuid> {
    let mut random = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.map_err(|error| Error::io("read random bytes", error).with_path("/dev/urandom"))?;
    Ok(Uuid::from_random_bytes(random))
}

/// What a layer records about its origin.
#[derive(Debug)]
pub(super) struct OriginFacts {
    pub(super) uuid: Option<Uuid>,
    pub(super) size: u64,
    /// Held so that nobody changes the origin meanwhile.
    hold: Option<Hold>,
}

impl OriginFacts {
    fn given((uuid, size): (Option<Uuid>, u64)) -> OriginFacts {
        OriginFacts {
            uuid,
            size,
            hold: None,
        }
    }

    fn is_file(&self, id: Option<(u64, u64)>) -> bool {
        let own = self.hold.as_ref().and_then(|hold| hold.storage().file_id());
        own.is_some() && own == id
    }

    fn find(layer: &Path, options: &CreateOptions) -> Result<Option<OriginFacts>> {
        if let Some(identity) = options.origin_identity {
            return Ok(Some(OriginFacts::given(identity)));
        }
        match &options.origin {
            Some((name, format)) if !options.bare => {
                let named = names::resolve(name, Some(layer))?;
                let path = options.origin_path.as_ref().unwrap_or(&named);
                OriginFacts::of_file(path, *format).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Looks at a file that is to be an origin.
    pub(super) fn of_file(path: &Path, format: Format) -> Result<OriginFacts> {
        let storage = open_file(path, false, false)?;
        let hold = Some(Hold::take(&storage, LockMode::Reader)?);
        if format == Format::Raw {
            let size = storage.size()?;
            return Ok(OriginFacts {
                uuid: None,
                size,
                hold,
            });
        }
        let options = LoadOptions {
            cow_size: storage.size()?,
            growable: storage.is_growable(),
            ..LoadOptions::default()
        };
        let store = load_store(&storage, options)?;
        let named = |error: Error| error.with_path(storage.name());
        if store.state() == State::Invalid {
            return Err(named(store.invalid_error()));
        }
        let Some(descriptor) = store.descriptor() else {
            let message = "a bare store cannot be the origin of another layer, because it does not record its own: \
                           add a descriptor to it first";
            return Err(named(Error::new(ErrorKind::InvalidArgument, message)));
        };
        let (uuid, size) = (Some(descriptor.uuid), descriptor.virtual_size);
        Ok(OriginFacts { uuid, size, hold })
    }
}
