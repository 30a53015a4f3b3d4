//! Getting back what a damaged or invalidated store still holds with certainty.

use std::path::Path;

use super::create::{OriginFacts, create_file};
use super::metadata::{self, MetadataOptions};
use super::open::open_file;
use super::recover_copy::copy;
use super::{CreateOptions, Format, Image, OpenOptions, OriginChoice, names};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, Exception, Header, HeaderState, SlotDamage};
use crate::storage::{Hold, LockMode, SharedStorage, Storage, remove_if};
use crate::store::{Doubt, LeftOut, RawMetadata, Sifted};
use crate::units::{ChunkSize, SECTOR_SIZE, check_disk_size};

/// How many left out records a report lists; the others are counted.
const MAX_LISTED: usize = 1000;

/// How to recover.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    pub(super) size: Option<u64>,
    pub(super) origin: Option<(String, Format)>,
    pub(super) chunk_size: Option<ChunkSize>,
    pub(super) bare: bool,
    pub(super) lock: bool,
}

impl Default for RecoverOptions {
    fn default() -> RecoverOptions {
        RecoverOptions {
            size: None,
            origin: None,
            chunk_size: None,
            bare: false,
            lock: true,
        }
    }
}

impl RecoverOptions {
    /// Size, origin and chunk size are what the damaged file says.
    pub fn new() -> RecoverOptions {
        RecoverOptions::default()
    }

    /// Size of the disk in bytes, a multiple of 512. A kernel that invalidates a store wipes what the descriptor said.
    #[must_use]
    pub fn size(mut self, size: u64) -> RecoverOptions {
        self.size = Some(size);
        self
    }

    /// The origin to record, by a name that is stored as given; a relative one starts at the directory of the store that results. Its size
    /// is the disk's, if neither the caller nor the damaged file says another.
    #[must_use]
    pub fn origin(mut self, name: impl Into<String>, format: Format) -> RecoverOptions {
        self.origin = Some((name.into(), format));
        self
    }

    /// Size of a chunk, where the header does not tell it any more.
    #[must_use]
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> RecoverOptions {
        self.chunk_size = Some(chunk_size);
        self
    }

    /// A store without a descriptor, whatever is known of size and origin.
    #[must_use]
    pub fn bare(mut self, bare: bool) -> RecoverOptions {
        self.bare = bare;
        self
    }

    /// Whether the damaged file is locked against other programs, the default. Recovering in place always locks.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> RecoverOptions {
        self.lock = lock;
        self
    }
}

/// What the header of a damaged store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFound {
    /// It is good, and so is the store, as far as the header goes.
    Valid,
    /// The store was invalidated. What its log holds is complete only if no write to the origin was the cause: the data that such a write
    /// replaced were not saved, and the store does not tell.
    Invalidated,
    /// It is no header, with the reason.
    Damaged(String),
}

/// What a recovery found and did.
#[derive(Clone, Debug)]
pub struct RecoverReport {
    /// What the header said.
    pub header: HeaderFound,
    /// Slots of the descriptor that are no good.
    pub descriptor_damage: Vec<SlotDamage>,
    /// Size of a chunk.
    pub chunk_size: ChunkSize,
    /// Size of the disk in bytes; `None` if nothing says it, the result is a bare store then.
    pub size: Option<u64>,
    /// Exceptions that were recovered.
    pub recovered: u64,
    /// Records that were left out, up to 1000 of them, in the order of the log.
    pub left_out: Vec<LeftOut>,
    /// How many of them there are, without those past the end of the disk.
    pub lost: u64,
    /// Records of chunks past the end of the disk, which show nothing.
    pub past_end: u64,
    /// Records that stood twice.
    pub repeated: u64,
    /// Records behind the end of the log, which were not looked at: rests of a merge, or what a torn write cut off.
    pub stale: u64,
    /// The metadata area from which on the log is missing: how many exceptions it held is not known.
    pub missing_area: Option<u64>,
    /// Whether recovering in place changed the file.
    pub changed: bool,
}

impl RecoverReport {
    /// Whether everything that the log held was recovered. Of an invalidated store the log itself may not be all: see
    /// [`HeaderFound::Invalidated`].
    pub fn is_complete(&self) -> bool {
        self.lost == 0
            && self.missing_area.is_none()
            && !matches!(self.header, HeaderFound::Damaged(_))
    }
}

/// How far a recovery is, in exceptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoverProgress {
    /// Those that were copied or left out.
    pub done: u64,
    /// All of them.
    pub total: u64,
}

/// Makes a new layer at `new`, which must not exist, of what the damaged one at `path` still holds with certainty. `path` is only read.
///
/// A record counts if it is legal and no other record contradicts it; the others are left out and listed. The layer is durable when this
/// returns; after a failure nothing is left at `new`.
///
/// `progress` is told how far it is; if it returns `false`, the recovery stops with [`ErrorKind::Cancelled`].
///
/// # Errors
/// As [`read_metadata`](super::read_metadata), as [`Image::create`], and what the files report.
pub fn recover(
    path: impl AsRef<Path>,
    new: impl AsRef<Path>,
    options: &RecoverOptions,
    progress: &mut dyn FnMut(RecoverProgress) -> bool,
) -> Result<RecoverReport> {
    let (path, new) = (path.as_ref(), new.as_ref());
    let storage = open_file(path, false, false)?;
    let (hold, mut finds) = look(&storage, options, (Some(path), Some(new)))?;
    let layer = finds.create(new)?;
    let copied = Image::open_storage(layer.clone(), &finds.open_options())
        .and_then(|image| copy(&**hold.storage(), image, &mut finds, progress));
    // By now another file may have the name.
    copied.inspect_err(|_| remove_if(new, layer.file_id()))?;
    Ok(finds.report())
}

/// As [`recover`], from one storage into another one, whose content is lost. Names of origins are taken as they are.
///
/// # Errors
/// As [`recover`]; what was written to `new` stays there after a failure.
pub fn recover_storage(
    storage: &SharedStorage,
    new: &SharedStorage,
    options: &RecoverOptions,
    progress: &mut dyn FnMut(RecoverProgress) -> bool,
) -> Result<RecoverReport> {
    let (hold, mut finds) = look(storage, options, (None, None))?;
    Image::create_on(new, &finds.create_options())?;
    let image = Image::open_storage(new.clone(), &finds.open_options())?;
    copy(&**hold.storage(), image, &mut finds, progress)?;
    Ok(finds.report())
}

fn look(
    storage: &SharedStorage,
    options: &RecoverOptions,
    names: (Option<&Path>, Option<&Path>),
) -> Result<(Hold, Finds)> {
    let hold = Hold::take(storage, LockMode::reader_if(options.lock))?;
    let named = |error: Error| error.with_path(storage.name());
    let finds = Finds::read(&**hold.storage(), options, names).map_err(named)?;
    Ok((hold, finds))
}

/// What is known of the disk.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) size: Option<u64>,
    /// What the result gets; without one it is bare.
    pub(super) descriptor: Option<Descriptor>,
}

/// What a damaged store was found to hold.
pub(super) struct Finds {
    pub(super) metadata: RawMetadata,
    pub(super) header: HeaderFound,
    pub(super) damage: Vec<SlotDamage>,
    pub(super) facts: Facts,
    pub(super) sifted: Sifted,
    /// How many good records there were at first.
    pub(super) total: u64,
}

impl Finds {
    /// Looks at the damaged store, which is called `path`; the result will be called `new`.
    pub(super) fn read(
        storage: &dyn Storage,
        options: &RecoverOptions,
        names: (Option<&Path>, Option<&Path>),
    ) -> Result<Finds> {
        if let Some(size) = options.size {
            check_disk_size(size)?;
        }
        let wanted = MetadataOptions {
            chunk_size: options.chunk_size,
            ..MetadataOptions::new()
        };
        let metadata = metadata::read(storage, &wanted)?;
        let header = match Header::decode(&metadata.header) {
            Ok(HeaderState::Store(header)) if header.is_valid() => HeaderFound::Valid,
            Ok(HeaderState::Store(_)) => HeaderFound::Invalidated,
            Ok(HeaderState::Blank) => HeaderFound::Damaged("it is blank".to_owned()),
            Err(error) => HeaderFound::Damaged(error.message().to_owned()),
        };
        let (stored, damage) = descriptor(&metadata)?;
        let end = DiskEnd::of(options, stored.as_ref(), &damage);
        let facts = Facts::new(options, stored, metadata.chunk_size, names)?;
        let sifted = Sifted::new(&metadata, storage.size()?, facts.size)?;
        end.refuse_if_doubtful(&sifted, metadata.chunk_size)?;
        let total = sifted.good.len() as u64;
        Ok(Finds {
            metadata,
            header,
            damage,
            facts,
            sifted,
            total,
        })
    }

    pub(super) fn report(self) -> RecoverReport {
        let Finds {
            sifted, metadata, ..
        } = self;
        let is_past_end = |left: &&LeftOut| left.doubt == Doubt::PastEnd;
        let past_end = sifted.left_out.iter().filter(is_past_end).count() as u64;
        let lost = sifted.left_out.len() as u64 - past_end;
        let mut left_out = sifted.left_out;
        left_out.truncate(MAX_LISTED);
        RecoverReport {
            header: self.header,
            descriptor_damage: self.damage,
            chunk_size: metadata.chunk_size,
            size: self.facts.size,
            recovered: sifted.good.len() as u64,
            left_out,
            lost,
            past_end,
            repeated: sifted.repeated,
            stale: metadata.stale(),
            missing_area: metadata.missing_area,
            changed: false,
        }
    }

    fn create(&self, new: &Path) -> Result<SharedStorage> {
        let hold = create_file(new, self.create_options().format(None)?, false)?;
        Ok(SharedStorage::clone(hold.storage()))
    }

    fn create_options(&self) -> CreateOptions {
        CreateOptions {
            chunk_size: Some(self.metadata.chunk_size),
            bare: self.facts.descriptor.is_none(),
            given: self.facts.descriptor.clone(),
            ..CreateOptions::new()
        }
    }

    /// How the new layer is opened to be filled: no byte of an origin is needed for that.
    fn open_options(&self) -> OpenOptions {
        let options = OpenOptions::new()
            .writable(true)
            .origin(OriginChoice::Zeros);
        if self.facts.descriptor.is_some() {
            return options;
        }
        let bytes = self.metadata.chunk_size.bytes();
        let last = self.sifted.good.last();
        let end = last.map_or(0, |(_, record)| (record.old.0 + 1) * bytes);
        options.bare_size(self.facts.size.unwrap_or(end))
    }

    /// Leaves out records that turn out to have no data.
    pub(super) fn leave_out(&mut self, mut unreadable: Vec<(u64, Exception)>) {
        if unreadable.is_empty() {
            return;
        }
        unreadable.sort_unstable_by_key(|(index, _)| *index);
        let is_lost = |index: &u64| {
            unreadable
                .binary_search_by_key(index, |(lost, _)| *lost)
                .is_ok()
        };
        self.sifted.good.retain(|(index, _)| !is_lost(index));
        let lost = unreadable.iter().map(|&(index, record)| LeftOut {
            index,
            record,
            doubt: Doubt::Unreadable,
        });
        self.sifted.left_out.extend(lost);
        self.sifted.left_out.sort_unstable_by_key(|left| left.index);
    }
}

/// Where the end of the disk is known from.
enum DiskEnd {
    /// The caller, or a descriptor that nothing contradicts.
    Sure,
    /// A slot of the descriptor, where the other one is damaged and may have said another size.
    OneSlot,
    /// The origin, over which the layer may have grown.
    Origin,
}

impl DiskEnd {
    fn of(options: &RecoverOptions, stored: Option<&Descriptor>, damage: &[SlotDamage]) -> DiskEnd {
        match stored {
            _ if options.size.is_some() => DiskEnd::Sure,
            None => DiskEnd::Origin,
            Some(_) if damage.is_empty() => DiskEnd::Sure,
            Some(_) => DiskEnd::OneSlot,
        }
    }

    /// What lies past an end that is a guess may be data, and is not given up for that.
    fn refuse_if_doubtful(&self, sifted: &Sifted, chunk: ChunkSize) -> Result<()> {
        let why = match self {
            DiskEnd::Sure => return Ok(()),
            DiskEnd::OneSlot => "a slot of the image descriptor is damaged, and",
            DiskEnd::Origin => "only the origin tells how long the disk is, and",
        };
        // Chunks that no disk has are no reason to ask.
        let past_end = sifted.left_out.iter().find(|left| {
            left.doubt == Doubt::PastEnd && chunk.start_of(left.record.old.0).is_some()
        });
        let Some(left) = past_end else {
            return Ok(());
        };
        let message = format!(
            "{why} there are exceptions past that end (record {} of chunk {}): say the size of the disk",
            left.index, left.record.old
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

/// The good descriptor, if there is one, and what is wrong with the slots.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for one with unknown features: what the records mean then nobody here knows.
fn descriptor(metadata: &RawMetadata) -> Result<(Option<Descriptor>, Vec<SlotDamage>)> {
    let Some((offsets, [first, second])) = metadata.descriptor_slots() else {
        return Ok((None, Vec::new()));
    };
    let chosen = match Descriptor::choose(&first, &second) {
        // Foreign bytes in a bare store are none of ours.
        Ok(None) => return Ok((None, Vec::new())),
        Ok(Some((_, descriptor))) => Some(descriptor),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(_) => None,
    };
    let damage = Descriptor::damage([&first, &second], offsets);
    Ok((chosen, damage))
}

impl Facts {
    fn new(
        options: &RecoverOptions,
        stored: Option<Descriptor>,
        chunk_size: ChunkSize,
        (path, new): (Option<&Path>, Option<&Path>),
    ) -> Result<Facts> {
        let origin = match &options.origin {
            Some((name, format)) => {
                Some(OriginFacts::of_file(&names::resolve(name, new)?, *format)?)
            }
            None => None,
        };
        let stored_size = stored.as_ref().map(|stored| stored.virtual_size);
        let origin_size = origin.as_ref().map(|origin| origin.size);
        let origin_size = origin_size.map(|size| size.next_multiple_of(SECTOR_SIZE));
        let size = options.size.or(stored_size).or(origin_size);
        let has_room = Descriptor::slot_offsets(chunk_size).is_some() && !options.bare;
        let Some(size) = size.filter(|_| has_room) else {
            return Ok(Facts {
                size,
                descriptor: None,
            });
        };
        let mut descriptor = match stored {
            Some(stored) => moved(stored, path, new)?,
            None => super::amend::new_descriptor(size, None)?,
        };
        descriptor.virtual_size = size;
        if let (Some((name, format)), Some(found)) = (&options.origin, origin) {
            descriptor.origin_name = Some(name.clone());
            descriptor.origin_format = Some(format.name().to_owned());
            descriptor.origin_uuid = found.uuid;
            descriptor.origin_size = found.size;
        }
        // Names that do not fit are found before anything is touched.
        descriptor.encode()?;
        Ok(Facts {
            size: Some(size),
            descriptor: Some(descriptor),
        })
    }
}

/// The descriptor as it has to be in another place: a relative name starts at the file's own directory.
fn moved(stored: Descriptor, path: Option<&Path>, new: Option<&Path>) -> Result<Descriptor> {
    let (Some(name), Some(path), Some(new)) = (&stored.origin_name, path, new) else {
        return Ok(stored);
    };
    // Names that only other programs understand stay as they are.
    if names::has_protocol(name) || Path::new(name).is_absolute() || path == new {
        return Ok(stored);
    }
    if path.parent() == new.parent() {
        return Ok(stored);
    }
    let name = names::relative_name(&names::resolve(name, Some(path))?, new)?;
    Ok(Descriptor {
        origin_name: Some(name),
        ..stored
    })
}
