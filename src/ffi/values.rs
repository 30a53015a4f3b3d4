//! Enums. Numbers are written out and never given to something else.

use crate::error::{Error, ErrorKind, Result};
use crate::image::{ExtentKind, Format, OriginChoice, Repair};
use crate::storage::LockMode;
use crate::store::{Device, Doubt, FindingKind, OverflowMode, Purpose, Severity, State};

/// Format of a file in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_format {
    /// The bytes of the disk.
    Raw = 1,
    /// A COW layer in the snapshot format.
    Dmsnap = 2,
}

/// Where the content of chunks without an exception comes from, as far as no file is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_origin_choice {
    /// Open no file that an image names: an image that names one, or a bare store, is refused with
    /// `-EACCES`. The default.
    Refuse = 0,
    /// Follow the names that the images store. Only for images from somebody you trust with every
    /// file you can read.
    FromImage = 1,
    /// No origin, whatever the image says: zeros.
    Zeros = 2,
    /// Follow the names that the images store, but only relative ones without `..`; others are refused
    /// with `-EACCES`. For images that a guest may have written.
    FromImageInside = 3,
}

/// What happens when a COW device of fixed size has no chunk left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_overflow_mode {
    /// First writes fail with `-ENOSPC`; everything else goes on. The default.
    NoSpace = 0,
    /// As the kernel's P: the snapshot is invalidated, on disk too.
    Persistent = 1,
    /// As the kernel's PO: every write fails from then on, reads go on; reopening ends it.
    PersistentOverflow = 2,
}

/// Lock on a file, by the rules of QEMU's file driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_lock_mode {
    /// None: for readers that only inspect.
    None = 0,
    /// Reads, and keeps others from writing and resizing.
    Reader = 1,
    /// Reads and writes, and keeps others from writing.
    Writer = 2,
}

/// What a check repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_repair {
    /// Nothing: the file is only read.
    None = 0,
    /// Leaks: space that nothing refers to is given back.
    Leaks = 1,
    /// Leaks and every finding that is repairable.
    All = 2,
}

/// What a store can do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_state {
    /// Reads and writes.
    Active = 1,
    /// A merge is under way: no new exceptions, first writes go to the origin.
    Merging = 2,
    /// A merge stopped on an error. COW and origin together are whole and are used as during a
    /// merge.
    MergeFailed = 3,
    /// Full in mode PO: reads only.
    Overflow = 4,
    /// Invalidated: neither reads nor writes.
    Invalid = 5,
    /// A metadata write or a flush failed: reads only, until opened again.
    Failed = 6,
}

/// The kernel's status of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_status_kind {
    /// In use; the figures count.
    Active = 1,
    /// "Invalid".
    Invalid = 2,
    /// "Merge failed".
    MergeFailed = 3,
    /// "Overflow".
    Overflow = 4,
}

/// What a range of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_extent_kind {
    /// Bytes that have to be read.
    Data = 1,
    /// Known to read as zeros.
    Zero = 2,
}

/// Where bytes are read from or written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_target {
    /// The COW file, at the offset that is told.
    Cow = 1,
    /// The origin, at the offset that was asked for. Reads past the origin's end give zeros.
    Origin = 2,
    /// Writes only: a new exception is needed, see `dmsnap_store_prepare_exception`.
    Unmapped = 3,
    /// Writes only: nowhere yet; another write prepares the first chunk, or a merge copies it. Wait
    /// and ask again.
    Wait = 4,
}

/// Answer of a call that may have something for the host to do first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_answer {
    /// Chunks were allocated: fill them wholly, then complete or abort the exception.
    Ready = 1,
    /// Run this plan, finish it, then ask again.
    Plan = 2,
    /// Something is under way elsewhere: wait until an exception was completed or aborted, a plan
    /// was finished, or an unpin said so; then ask again.
    Wait = 3,
    /// The first chunk needs no exception any more: map it again.
    Retry = 4,
    /// No record is missing on disk. Flush the COW file for the data's sake.
    Clean = 5,
    /// The job is done.
    Done = 6,
}

/// Which device a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_device {
    /// The COW file.
    Cow = 1,
    /// What lies below: a raw file or another layer.
    Origin = 2,
}

/// What a step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_step_type {
    /// Read `len` bytes at `offset`, into what `dmsnap_plan_buffer` gives, or hand them to
    /// `dmsnap_plan_supply`.
    Read = 1,
    /// Write the `len` bytes at `data` to `offset`.
    Write = 2,
    /// Make `len` bytes at `offset` read as zeros. With `unmap` space may be given back, else the
    /// range shall end up with space.
    WriteZeroes = 3,
    /// Copy `len` bytes from `offset` of `device` to `to_offset` of `to_device`.
    Copy = 4,
    /// Give space back; nothing depends on whether that happens.
    Discard = 5,
    /// Make the device `len` bytes long. A barrier. New bytes read as zeros, as those of a file
    /// do: a host whose device keeps old content there zeroes them.
    SetSize = 6,
    /// Wait until everything written to the device before is durable. A barrier.
    Flush = 7,
}

/// What a plan is for; of interest to traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_purpose {
    /// Create a store.
    Format = 1,
    /// Read header, descriptor and metadata areas.
    ReadMetadata = 2,
    /// Make room for further exceptions: extend the file, zero the next metadata areas.
    Reserve = 3,
    /// Make completed exceptions durable.
    Commit = 4,
    /// Copy exceptions into the origin and clear their records.
    Merge = 5,
    /// Remove records from the log, or empty it.
    Drop = 6,
    /// Zero what growing uncovers.
    Grow = 7,
    /// Write the image descriptor.
    Descriptor = 8,
    /// Invalidate the store.
    Invalidate = 9,
    /// Give back the space of chunks that nothing refers to.
    Reclaim = 10,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_severity {
    /// Worth knowing, harmless.
    Note = 1,
    /// Space that nothing uses.
    Leak = 2,
    /// The trace of an interrupted operation; a repair finishes it.
    Repairable = 3,
    /// Data is lost or may be wrong.
    Corruption = 4,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_finding_kind {
    /// The header says that the snapshot is invalid.
    Invalid = 1,
    /// The image descriptor is damaged.
    Descriptor = 2,
    /// A record names a COW chunk outside the file, one that holds metadata, or one that no file
    /// can have.
    IllegalNewChunk = 3,
    /// Two records for one chunk.
    DuplicateOldChunk = 4,
    /// One COW chunk in two records.
    SharedNewChunk = 5,
    /// A record stands twice.
    RepeatedRecord = 6,
    /// An exception for a chunk past the end of the disk.
    PastEnd = 7,
    /// Something other than zeros behind the last record.
    StaleSlots = 8,
    /// A full area without the next one.
    MissingArea = 9,
    /// Space that no record uses.
    Leak = 10,
    /// The file ends inside the COW chunk of a record.
    TruncatedData = 11,
}

/// What the header of a damaged store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_header_state {
    /// It is good, and so is the store, as far as the header goes.
    Valid = 1,
    /// The store was invalidated.
    Invalidated = 2,
    /// It is no header.
    Damaged = 3,
}

/// Why a record is left out of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_doubt {
    /// Its COW chunk lies outside the file, or no file can have it.
    OutOfRange = 1,
    /// The file ends inside its COW chunk.
    Truncated = 2,
    /// Its COW chunk holds metadata.
    Metadata = 3,
    /// Its chunk has another exception too, with other data.
    DuplicateOldChunk = 4,
    /// Another record has its COW chunk too.
    SharedNewChunk = 5,
    /// Its chunk lies past the end of the disk, so it shows nothing.
    PastEnd = 6,
    /// Its COW chunk cannot be read.
    Unreadable = 7,
}

#[cold]
fn unknown(what: &str, number: u32) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{number} is no {what}"))
}

pub(super) fn format(number: u32) -> Result<Format> {
    match number {
        1 => Ok(Format::Raw),
        2 => Ok(Format::Dmsnap),
        _ => Err(unknown("dmsnap_format", number)),
    }
}

pub(super) fn origin_choice(number: u32) -> Result<OriginChoice> {
    match number {
        0 => Ok(OriginChoice::Refuse),
        1 => Ok(OriginChoice::FromImage),
        2 => Ok(OriginChoice::Zeros),
        3 => Ok(OriginChoice::FromImageInside),
        _ => Err(unknown("dmsnap_origin_choice", number)),
    }
}

pub(super) fn overflow_mode(number: u32) -> Result<OverflowMode> {
    match number {
        0 => Ok(OverflowMode::NoSpace),
        1 => Ok(OverflowMode::Persistent),
        2 => Ok(OverflowMode::PersistentOverflow),
        _ => Err(unknown("dmsnap_overflow_mode", number)),
    }
}

pub(super) fn lock_mode(number: u32) -> Result<LockMode> {
    match number {
        0 => Ok(LockMode::None),
        1 => Ok(LockMode::Reader),
        2 => Ok(LockMode::Writer),
        _ => Err(unknown("dmsnap_lock_mode", number)),
    }
}

pub(super) fn repair(number: u32) -> Result<Repair> {
    match number {
        0 => Ok(Repair::None),
        1 => Ok(Repair::Leaks),
        2 => Ok(Repair::All),
        _ => Err(unknown("dmsnap_repair", number)),
    }
}

impl From<Format> for dmsnap_format {
    fn from(format: Format) -> dmsnap_format {
        match format {
            Format::Raw => dmsnap_format::Raw,
            Format::Dmsnap => dmsnap_format::Dmsnap,
        }
    }
}

impl From<State> for dmsnap_state {
    fn from(state: State) -> dmsnap_state {
        match state {
            State::Active => dmsnap_state::Active,
            State::Merging => dmsnap_state::Merging,
            State::MergeFailed => dmsnap_state::MergeFailed,
            State::Overflow => dmsnap_state::Overflow,
            State::Invalid => dmsnap_state::Invalid,
            State::Failed => dmsnap_state::Failed,
        }
    }
}

impl From<ExtentKind> for dmsnap_extent_kind {
    fn from(kind: ExtentKind) -> dmsnap_extent_kind {
        match kind {
            ExtentKind::Data => dmsnap_extent_kind::Data,
            ExtentKind::Zero => dmsnap_extent_kind::Zero,
        }
    }
}

impl From<Device> for dmsnap_device {
    fn from(device: Device) -> dmsnap_device {
        match device {
            Device::Cow => dmsnap_device::Cow,
            Device::Origin => dmsnap_device::Origin,
        }
    }
}

impl From<Purpose> for dmsnap_purpose {
    fn from(purpose: Purpose) -> dmsnap_purpose {
        match purpose {
            Purpose::Format => dmsnap_purpose::Format,
            Purpose::ReadMetadata => dmsnap_purpose::ReadMetadata,
            Purpose::Reserve => dmsnap_purpose::Reserve,
            Purpose::Commit => dmsnap_purpose::Commit,
            Purpose::Merge => dmsnap_purpose::Merge,
            Purpose::Drop => dmsnap_purpose::Drop,
            Purpose::Grow => dmsnap_purpose::Grow,
            Purpose::Descriptor => dmsnap_purpose::Descriptor,
            Purpose::Invalidate => dmsnap_purpose::Invalidate,
            Purpose::Reclaim => dmsnap_purpose::Reclaim,
        }
    }
}

impl From<Severity> for dmsnap_severity {
    fn from(severity: Severity) -> dmsnap_severity {
        match severity {
            Severity::Note => dmsnap_severity::Note,
            Severity::Leak => dmsnap_severity::Leak,
            Severity::Repairable => dmsnap_severity::Repairable,
            Severity::Corruption => dmsnap_severity::Corruption,
        }
    }
}

impl From<FindingKind> for dmsnap_finding_kind {
    fn from(kind: FindingKind) -> dmsnap_finding_kind {
        use dmsnap_finding_kind as C;
        match kind {
            FindingKind::Invalid => C::Invalid,
            FindingKind::Descriptor => C::Descriptor,
            FindingKind::IllegalNewChunk => C::IllegalNewChunk,
            FindingKind::DuplicateOldChunk => C::DuplicateOldChunk,
            FindingKind::SharedNewChunk => C::SharedNewChunk,
            FindingKind::RepeatedRecord => C::RepeatedRecord,
            FindingKind::PastEnd => C::PastEnd,
            FindingKind::StaleSlots => C::StaleSlots,
            FindingKind::MissingArea => C::MissingArea,
            FindingKind::Leak => C::Leak,
            FindingKind::TruncatedData => C::TruncatedData,
        }
    }
}

impl From<Doubt> for dmsnap_doubt {
    fn from(doubt: Doubt) -> dmsnap_doubt {
        match doubt {
            Doubt::OutOfRange => dmsnap_doubt::OutOfRange,
            Doubt::Truncated => dmsnap_doubt::Truncated,
            Doubt::Metadata => dmsnap_doubt::Metadata,
            Doubt::DuplicateOldChunk => dmsnap_doubt::DuplicateOldChunk,
            Doubt::SharedNewChunk => dmsnap_doubt::SharedNewChunk,
            Doubt::PastEnd => dmsnap_doubt::PastEnd,
            Doubt::Unreadable => dmsnap_doubt::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_numbers_that_come_in_are_those_of_the_header() {
        assert_eq!(format(dmsnap_format::Raw as u32).unwrap(), Format::Raw);
        assert_eq!(
            format(dmsnap_format::Dmsnap as u32).unwrap(),
            Format::Dmsnap
        );
        let choice = |choice| origin_choice(choice as u32).unwrap();
        assert!(matches!(
            choice(dmsnap_origin_choice::Refuse),
            OriginChoice::Refuse
        ));
        assert!(matches!(
            choice(dmsnap_origin_choice::FromImage),
            OriginChoice::FromImage
        ));
        assert!(matches!(
            choice(dmsnap_origin_choice::Zeros),
            OriginChoice::Zeros
        ));
        assert!(matches!(
            choice(dmsnap_origin_choice::FromImageInside),
            OriginChoice::FromImageInside
        ));
        let mode = |mode| overflow_mode(mode as u32).unwrap();
        assert_eq!(mode(dmsnap_overflow_mode::NoSpace), OverflowMode::NoSpace);
        assert_eq!(
            mode(dmsnap_overflow_mode::Persistent),
            OverflowMode::Persistent
        );
        let expected = OverflowMode::PersistentOverflow;
        assert_eq!(mode(dmsnap_overflow_mode::PersistentOverflow), expected);
        let lock = |mode| lock_mode(mode as u32).unwrap();
        assert_eq!(lock(dmsnap_lock_mode::None), LockMode::None);
        assert_eq!(lock(dmsnap_lock_mode::Reader), LockMode::Reader);
        assert_eq!(lock(dmsnap_lock_mode::Writer), LockMode::Writer);
        assert_eq!(repair(dmsnap_repair::None as u32).unwrap(), Repair::None);
        assert_eq!(repair(dmsnap_repair::Leaks as u32).unwrap(), Repair::Leaks);
        assert_eq!(repair(dmsnap_repair::All as u32).unwrap(), Repair::All);
    }

    #[test]
    fn test_unknown_numbers_are_refused() {
        let kinds = [
            format(0).map(|_| ()),
            format(3).map(|_| ()),
            origin_choice(4).map(|_| ()),
            overflow_mode(3).map(|_| ()),
            lock_mode(3).map(|_| ()),
            repair(u32::MAX).map(|_| ()),
        ];
        for kind in kinds.map(|result| result.unwrap_err().kind()) {
            assert_eq!(kind, ErrorKind::InvalidArgument);
        }
    }
}
