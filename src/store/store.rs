//! The store's state and what can be asked of it without changing it.

use crate::sync::Arc;
use std::collections::BTreeMap;

use super::alloc::{Allocator, Reclaim, Reservation};
use super::chunk_set::ChunkSet;
use super::commit::PendingCommit;
use super::job::Job;
use super::load::{LoadOptions, Loaded, Preamble};
use super::log::Log;
use super::pins::Pins;
use super::plan::{Plan, Purpose, Step};
use super::state::{OverflowMode, State, Status, Usage};
use super::table::ExceptionTable;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, Geometry, Header, SlotDamage};
use crate::units::{ChunkSize, CowChunk, MAX_FILE_SIZE, OriginChunk, SECTOR_SIZE, check_disk_size};

/// A run of exceptions that is not on disk yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunInFlight {
    pub(crate) old: u64,
    pub(crate) new: u64,
    pub(crate) count: u64,
}

/// The exception store of one layer: decides, does no I/O.
///
/// A host looks ranges up ([`Store::map`], [`Store::map_write`]), does the I/O itself, and runs the [`Plan`]s it is given. Calls that take
/// `&self` may run at the same time; the host serialises the others. What a look-up returned stays good for as long as the host
/// holds a pin that it took under the same lock ([`Store::pins`]).
#[derive(Debug)]
pub struct Store {
    pub(crate) geometry: Geometry,
    pub(crate) header: Header,
    pub(crate) descriptor: Option<Descriptor>,
    /// The descriptor slot that counts.
    pub(crate) slot: usize,
    /// Descriptor slots that were written and are no good.
    pub(crate) damage: Vec<SlotDamage>,
    pub(crate) writable: bool,
    /// Whether the loader looked for stale slots.
    looked_behind: bool,
    pub(crate) overflow: OverflowMode,
    pub(crate) virtual_size: u64,
    pub(crate) state: State,
    /// Complete and committed exceptions.
    pub(crate) table: ExceptionTable,
    /// Exceptions in flight, by their first old chunk.
    pub(crate) in_flight: BTreeMap<u64, RunInFlight>,
    pub(crate) in_flight_chunks: u64,
    /// Complete, not committed.
    pub(crate) completed: Vec<RunInFlight>,
    pub(crate) completed_chunks: u64,
    pub(crate) log: Log,
    pub(crate) alloc: Allocator,
    pub(crate) pins: Arc<Pins>,
    /// How often the pins' phase was flipped; freed chunks wait for two flips.
    pub(crate) epoch: u64,
    /// First writes wait for this epoch: until then a write from a merge may be on its way to the origin they copy from.
    pub(crate) settled_at: u64,
    pub(crate) freed: ChunkSet,
    pub(crate) draining: ChunkSet,
    /// Records on disk that repeat another one.
    pub(crate) repeated: u64,
    /// Exceptions for old chunks that no disk can have, with their new chunks.
    pub(crate) strays: BTreeMap<u64, u64>,
    pub(crate) reserve: Option<(u64, Reservation)>,
    pub(crate) commit: Option<PendingCommit>,
    pub(crate) reclaim: Option<(u64, Reclaim)>,
    pub(crate) job: Option<Job>,
    /// The job is a repair that a first write began.
    pub(crate) repairs_for_writes: bool,
    /// The job's plan that the host has.
    pub(crate) job_plan: Option<u64>,
    /// The job's last plan was to change metadata and failed for want of space.
    pub(crate) job_unsure: bool,
    /// The job is over once that plan has succeeded.
    pub(crate) cancel_due: bool,
    /// The last merge failed, whatever else did.
    pub(crate) merge_failed: bool,
    /// Old chunks that a merge is copying, sorted.
    pub(crate) merging: Vec<u64>,
    pub(crate) invalidation_due: bool,
    next_plan: u64,
}

impl Store {
    pub(crate) fn from_loaded(
        options: &LoadOptions,
        preamble: Preamble,
        loaded: Loaded,
    ) -> Result<Store> {
        let geometry = Geometry::new(preamble.header.chunk_size);
        let fill_holes = options.overflow == OverflowMode::NoSpace;
        let mut alloc = Allocator::new(geometry, options.growable, fill_holes, options.cow_size);
        alloc.set_loaded(loaded.next_free, loaded.holes);
        let end = loaded
            .table
            .last_old()
            .map_or(0, |old| old.0.saturating_add(1));
        let end = end
            .saturating_mul(geometry.chunk_size().bytes())
            .min(MAX_FILE_SIZE / 512 * 512);
        let virtual_size = match (&preamble.descriptor, options.origin_size) {
            (Some(descriptor), _) => descriptor.virtual_size,
            (None, Some(size)) => check_disk_size(size).map(|()| size)?,
            (None, None) => end,
        };
        Ok(Store {
            geometry,
            header: preamble.header,
            descriptor: preamble.descriptor,
            slot: preamble.slot,
            damage: preamble.damage,
            writable: options.writable,
            looked_behind: options.writable,
            overflow: options.overflow,
            virtual_size,
            state: State::Active,
            table: loaded.table,
            in_flight: BTreeMap::new(),
            in_flight_chunks: 0,
            completed: Vec::new(),
            completed_chunks: 0,
            log: loaded.log,
            alloc,
            pins: Arc::default(),
            epoch: 0,
            settled_at: 0,
            freed: ChunkSet::default(),
            draining: ChunkSet::default(),
            repeated: loaded.repeated,
            strays: loaded.strays,
            reserve: None,
            commit: None,
            reclaim: None,
            job: None,
            repairs_for_writes: false,
            job_plan: None,
            job_unsure: false,
            cancel_due: false,
            merge_failed: false,
            merging: Vec::new(),
            invalidation_due: false,
            next_plan: 1,
        })
    }

    /// A store that says it is invalid: nothing of it but header and descriptor is looked at.
    pub(crate) fn invalid(options: &LoadOptions, preamble: Preamble) -> Result<Store> {
        let geometry = Geometry::new(preamble.header.chunk_size);
        let loaded = Loaded {
            table: ExceptionTable::default(),
            log: Log::new(geometry, 0, Vec::new(), false),
            next_free: 2,
            holes: ChunkSet::default(),
            repeated: 0,
            strays: BTreeMap::new(),
        };
        let mut store = Store::from_loaded(options, preamble, loaded)?;
        store.state = State::Invalid;
        Ok(store)
    }

    pub(crate) fn plan(&mut self, purpose: Purpose, steps: Vec<Step>) -> Plan {
        let id = self.next_plan;
        self.next_plan += 1;
        Plan::new(id, purpose, steps)
    }

    /// Size of a chunk.
    pub fn chunk_size(&self) -> ChunkSize {
        self.geometry.chunk_size()
    }

    /// Where areas and data chunks lie.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The header as it was found.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The image descriptor; a bare store has none.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    /// Descriptor slots that were written and are no good any more. While there is one, the other may be older than the last change.
    pub fn descriptor_damage(&self) -> &[SlotDamage] {
        &self.damage
    }

    /// Size of the disk that the layer shows, in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Size of the COW file in bytes, as far as the store knows.
    pub fn cow_size(&self) -> u64 {
        self.alloc.cow_size()
    }

    /// Tells that a COW device of fixed size has another size now. What is free on it is used at once.
    pub fn set_cow_size(&mut self, size: u64) {
        self.alloc.set_cow_size(size);
    }

    /// Whether the store was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Makes a store writable that was loaded for reading, or the other way round. Nothing is read again: nobody else may have written to
    /// the COW file since it was loaded. What the loader did not look at is cleared by the first commit.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it is to take no more writes while exceptions are in flight or not committed, or a plan or a job is under way.
    pub fn set_writable(&mut self, writable: bool) -> Result<()> {
        if self.writable && !writable && self.state != State::Failed && self.is_changing() {
            let message = "exceptions are in flight or not committed, or a job is under way";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if writable && !self.looked_behind {
            self.looked_behind = true;
            self.log.assume_stale();
        }
        self.writable = writable;
        Ok(())
    }

    fn is_changing(&self) -> bool {
        let exceptions = !self.in_flight.is_empty() || self.pending() > 0;
        let plans = self.commit.is_some() || self.reserve.is_some() || self.reclaim.is_some();
        exceptions || plans || self.job.is_some() || self.invalidation_due
    }

    /// What can be done at the moment.
    pub fn state(&self) -> State {
        self.state
    }

    /// Number of exceptions that reads see.
    pub fn exceptions(&self) -> u64 {
        self.table.len()
    }

    /// Number of exceptions that reads see and that are not on disk yet.
    pub fn pending(&self) -> u64 {
        let handed_out = self.commit.as_ref().map_or(0, PendingCommit::count);
        self.completed_chunks + handed_out
    }

    /// Whether so many exceptions wait for a commit that the host should make one now, to bound memory and loss.
    pub fn should_commit(&self) -> bool {
        self.completed_chunks >= super::commit::MAX_PENDING
    }

    /// Whether an interrupted operation of ours waits to be finished by [`Store::prepare_repair`]: a record that stands twice, or
    /// exceptions past the end of the disk. What could be harmed by them, first writes, merges and resizes, begins with that by itself.
    pub fn wants_repair(&self) -> bool {
        self.state == State::Active && (self.repeated > 0 || self.has_exceptions_past_end())
    }

    pub(crate) fn has_exceptions_past_end(&self) -> bool {
        self.descriptor.is_some() && self.reaches_past(self.virtual_size)
    }

    /// Whether an exception lies past the end of a disk of `size` bytes.
    pub(crate) fn reaches_past(&self, size: u64) -> bool {
        let end = self.chunk_size().count_for(size);
        let past_end = self.table.last_old().is_some_and(|old| old.0 >= end);
        past_end || !self.strays.is_empty()
    }

    /// The least size in bytes of a disk that has all exceptions.
    pub(crate) fn least_size(&self) -> u64 {
        let last = self.table.last_old().map(|old| old.0);
        let last = last.max(self.strays.keys().next_back().copied());
        let chunks = last.map_or(0, |old| old.saturating_add(1));
        chunks.saturating_mul(self.chunk_size().bytes())
    }

    /// What a bare store is said to lie over is too short for its exceptions, which is all there is to tell a wrong origin by.
    pub(crate) fn check_bare_end(&self, size: u64) -> Result<()> {
        if self.descriptor.is_some() || !self.reaches_past(size) {
            return Ok(());
        }
        let message = format!(
            "exceptions reach up to {} bytes, which is past the end of a disk of {size} bytes: either it has another size, or this \
             is not the origin",
            self.least_size()
        );
        Err(Error::new(ErrorKind::OriginMismatch, message))
    }

    /// Refuses to drop what lies past the end of a disk of `size` bytes, if a damaged slot may have said another size. An interrupted
    /// shrink leaves no damaged slot, so those exceptions are most likely data.
    pub(crate) fn check_end(&self, size: u64) -> Result<()> {
        let Some(damage) = self.damage.first() else {
            return Ok(());
        };
        if !self.reaches_past(size) {
            return Ok(());
        }
        let least = self.least_size();
        let message = format!(
            "{damage}; the disk may have been larger than {size} bytes, for exceptions reach up to \
             {least}. They would be lost, so nothing is written: open it read-only, or record its size anew by adding a descriptor"
        );
        Err(Error::new(ErrorKind::Corrupt, message).with_offset(damage.offset))
    }

    /// The exceptions that reads see, in the order of old chunks: first old chunk, first new chunk, count.
    pub fn runs(&self) -> impl Iterator<Item = (OriginChunk, CowChunk, u64)> + '_ {
        self.runs_from(OriginChunk(0))
    }

    /// As [`Store::runs`], from chunk `old` on; a run that begins before it is cut.
    pub fn runs_from(
        &self,
        old: OriginChunk,
    ) -> impl Iterator<Item = (OriginChunk, CowChunk, u64)> + '_ {
        let runs = self.table.iter_from(old);
        runs.map(|run| (run.old, run.new, run.len))
    }

    /// Ranges of the COW file below next free that no exception uses, as first chunk and count. Metadata areas may be among them.
    pub fn holes(&self) -> impl Iterator<Item = (CowChunk, u64)> + '_ {
        self.alloc.holes()
    }

    /// Bytes of heap that the exceptions take.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.completed.capacity() * size_of::<RunInFlight>()
    }

    /// The counters that keep what a look-up returned from being reused.
    pub fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// The kernel's figures. Prepared exceptions count, as in the kernel.
    pub fn usage(&self) -> Usage {
        let sectors = self.chunk_size().sectors();
        let records = self.log.len() + self.pending();
        let (area, fill) = self.geometry.area_and_slot(records);
        let allocated = match self.state {
            State::Merging | State::MergeFailed => {
                let chunk = self
                    .geometry
                    .area_chunk(area)
                    .map_or(u64::MAX, |chunk| chunk.0);
                chunk.saturating_add(fill + 1)
            }
            _ => self.alloc.next_free(),
        };
        Usage {
            sectors_allocated: allocated.saturating_mul(sectors),
            total_sectors: self.cow_size() / SECTOR_SIZE,
            metadata_sectors: (area + 2) * sectors,
        }
    }

    /// The kernel's status.
    pub fn status(&self) -> Status {
        match self.state {
            State::Invalid => Status::Invalid,
            State::MergeFailed => Status::MergeFailed,
            State::Failed if self.merge_failed => Status::MergeFailed,
            State::Overflow => Status::Overflow,
            State::Active | State::Merging | State::Failed => Status::Active(self.usage()),
        }
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.state {
            State::Active | State::Merging | State::MergeFailed if self.writable => Ok(()),
            _ => Err(self.not_writable()),
        }
    }

    #[cold]
    fn not_writable(&self) -> Error {
        let (kind, message) = match self.state {
            State::Invalid => return self.invalid_error(),
            State::Overflow => (
                ErrorKind::Overflow,
                "the store is full and in mode PO: it takes no write until it is opened again",
            ),
            State::Failed => (
                ErrorKind::PreviousIo,
                "a flush or a metadata write failed: open the image again to write",
            ),
            State::Active | State::Merging | State::MergeFailed => {
                (ErrorKind::ReadOnly, "the image was opened read-only")
            }
        };
        Error::new(kind, message)
    }

    #[cold]
    pub(crate) fn invalid_error(&self) -> Error {
        Error::new(
            ErrorKind::SnapshotInvalid,
            "the header says so: a kernel or a tool gave the snapshot up, after it had run full or an I/O error; \
             what was written since is missing from it",
        )
        .with_offset(4)
    }
}
