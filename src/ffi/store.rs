//! The store without I/O: the handle and facts.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;
use std::sync::Arc;

use super::descriptor::dmsnap_descriptor;
use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need};
use super::plan::Owner;
use super::values::{dmsnap_state, dmsnap_status_kind};
use crate::error::Result;
use crate::store::{Pins, Status, Store, Usage};
use crate::units::OriginChunk;

/// The exception store of one layer. It decides and does no I/O: the host does that, and runs the
/// plans it is given.
///
/// Calls that take a `const` store may run at the same time as each other. The host keeps all other
/// calls apart, from each other and from those, as with a read-write lock. `dmsnap_store_unpin`
/// alone may be called at any time.
pub struct dmsnap_store {
    /// Apart from the store, so that a pin can be released while an exclusive call runs.
    pub(super) pins: Arc<Pins>,
    pub(super) owner: Owner,
    store: UnsafeCell<Store>,
}

impl dmsnap_store {
    pub(super) fn give(store: Store) -> Box<dmsnap_store> {
        let pins = Arc::clone(store.pins());
        Box::new(dmsnap_store {
            pins,
            owner: Owner::new(),
            store: UnsafeCell::new(store),
        })
    }
}

/// The store, for a call that may run at the same time as others of its kind.
pub(super) fn shared(store: Option<&dmsnap_store>) -> Result<&Store> {
    let store = need(store, "store")?;
    // SAFETY: the host lets no exclusive call run meanwhile; see the type.
    Ok(unsafe { &*store.store.get() })
}

/// The store, for a call that the host keeps apart from all others, and the name of its plans.
///
/// # Safety
/// The pointer is a store that no other call uses, except for its pins.
pub(super) unsafe fn exclusive<'a>(
    store: Option<NonNull<dmsnap_store>>,
) -> Result<(&'a mut Store, Owner)> {
    let store = need(store, "store")?;
    // SAFETY: the caller's promise. The handle itself is only borrowed as shared.
    let (store, owner) = unsafe { (store.as_ref().store.get(), store.as_ref().owner) };
    // SAFETY: the caller's promise.
    Ok((unsafe { &mut *store }, owner))
}

/// Frees a store. What was not committed is lost. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_free(store: Option<Box<dmsnap_store>>) {
    guard_or((), || drop(store));
}

/// Makes a store writable that was loaded for reading, or the other way round, as when a block
/// device is reopened. Nothing is read again: nobody else may have written to the COW file since
/// the store was loaded. What the loader did not look at is cleared by the first commit. `-EBUSY` if
/// a store is to take no more writes while exceptions are in flight or not committed, or a plan or a
/// job is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_set_writable(
    store: Option<NonNull<dmsnap_store>>,
    writable: bool,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.set_writable(writable)
    })
}

/// Facts about a store. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_store_facts {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Size of the disk that the layer shows, in bytes.
    pub virtual_size: u64,
    /// Bytes in a chunk.
    pub chunk_size: u64,
    /// Size of the COW file in bytes, as far as the store knows.
    pub cow_size: u64,
    /// Exceptions that reads see.
    pub exceptions: u64,
    /// Exceptions that reads see and that are not on disk yet.
    pub pending: u64,
    /// Bytes of memory that the exceptions take.
    pub heap_bytes: u64,
    /// What can be done at the moment.
    pub state: dmsnap_state,
    /// The header's word on validity: 0 if the snapshot was invalidated.
    pub valid: u32,
    /// Whether the store takes writes.
    pub writable: bool,
    /// Whether it is a bare store, without an image descriptor.
    pub bare: bool,
    /// Whether an interrupted operation waits to be finished by `dmsnap_store_prepare_repair`.
    pub wants_repair: bool,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_store_facts {
    const LEAST: usize = offset_of!(dmsnap_store_facts, wants_repair) + size_of::<bool>();
}

/// Facts about the store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_info(
    store: Option<&dmsnap_store>,
    out: *mut dmsnap_store_facts,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_store_facts {
            struct_size: 0,
            virtual_size: store.virtual_size(),
            chunk_size: store.chunk_size().bytes(),
            cow_size: store.cow_size(),
            exceptions: store.exceptions(),
            pending: store.pending(),
            heap_bytes: store.heap_bytes() as u64,
            state: store.state().into(),
            valid: store.header().valid,
            writable: store.is_writable(),
            bare: store.descriptor().is_none(),
            wants_repair: store.wants_repair(),
        });
        Ok(())
    })
}

/// The image descriptor, NULL for a bare store. It is a copy and belongs to the caller.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_descriptor(
    store: Option<&dmsnap_store>,
    out: Option<&mut MaybeUninit<Option<Box<dmsnap_descriptor>>>>,
) -> c_int {
    guard(|| {
        let descriptor = shared(store)?.descriptor();
        need(out, "out")?.write(descriptor.map(dmsnap_descriptor::give));
        Ok(())
    })
}

/// Whether so many exceptions wait that the host should commit now, to bound memory and loss. Ask
/// after completing. `false` for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_should_commit(store: Option<&dmsnap_store>) -> bool {
    guard_or(false, || shared(store).is_ok_and(Store::should_commit))
}

/// The kernel's figures of a snapshot, in sectors of 512 bytes. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_usage {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Sectors handed out, with header, metadata areas and holes.
    pub sectors_allocated: u64,
    /// Size of the COW device.
    pub total_sectors: u64,
    /// Header and metadata areas up to the current one.
    pub metadata_sectors: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_usage {
    const LEAST: usize = offset_of!(dmsnap_usage, metadata_sectors) + size_of::<u64>();
}

impl From<Usage> for dmsnap_usage {
    fn from(usage: Usage) -> dmsnap_usage {
        dmsnap_usage {
            struct_size: 0,
            sectors_allocated: usage.sectors_allocated,
            total_sectors: usage.total_sectors,
            metadata_sectors: usage.metadata_sectors,
        }
    }
}

/// The kernel's status of a snapshot. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_status {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Which it is. The figures of `dmsnap_usage` have a meaning if it is
    /// `DMSNAP_STATUS_KIND_ACTIVE`.
    pub kind: dmsnap_status_kind,
    /// The kernel's words, as `dmsetup status` shows them: "80/2048 16", "Invalid", "Merge failed"
    /// or "Overflow".
    pub text: [c_char; 64],
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_status {
    const LEAST: usize = offset_of!(dmsnap_status, text) + size_of::<[c_char; 64]>();
}

impl From<Status> for dmsnap_status {
    fn from(status: Status) -> dmsnap_status {
        let kind = match status {
            Status::Active(_) => dmsnap_status_kind::Active,
            Status::Invalid => dmsnap_status_kind::Invalid,
            Status::MergeFailed => dmsnap_status_kind::MergeFailed,
            Status::Overflow => dmsnap_status_kind::Overflow,
        };
        let mut text = [0; 64];
        // Three numbers of 20 digits and two separators fit, and leave the last byte zero.
        let words = status.to_string();
        for (place, byte) in text.iter_mut().take(63).zip(words.bytes()) {
            *place = byte as c_char;
        }
        dmsnap_status {
            struct_size: 0,
            kind,
            text,
        }
    }
}

/// The kernel's figures (its `usage`). Prepared exceptions count, as in the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_usage(
    store: Option<&dmsnap_store>,
    out: *mut dmsnap_usage,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        unsafe { Output::new(out, "out") }?.write(store.usage().into());
        Ok(())
    })
}

/// The kernel's status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_status(
    store: Option<&dmsnap_store>,
    out: *mut dmsnap_status,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        unsafe { Output::new(out, "out") }?.write(store.status().into());
        Ok(())
    })
}

/// Exceptions whose old and new chunks both follow each other. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_run {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// First chunk of the snapshot.
    pub old_chunk: u64,
    /// First chunk of the COW file.
    pub new_chunk: u64,
    /// Number of chunks. 0: there are no more exceptions.
    pub count: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_run {
    const LEAST: usize = offset_of!(dmsnap_run, count) + size_of::<u64>();
}

/// The first exceptions at or behind chunk `old_chunk` of the snapshot. To see all, begin with 0
/// and go on at `old_chunk + count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_next_run(
    store: Option<&dmsnap_store>,
    old_chunk: u64,
    out: *mut dmsnap_run,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let run = store.runs_from(OriginChunk(old_chunk)).next();
        out.write(dmsnap_run::from_run(
            run.map(|(old, new, count)| (old.0, new.0, count)),
        ));
        Ok(())
    })
}

impl dmsnap_run {
    pub(super) fn from_run(run: Option<(u64, u64, u64)>) -> dmsnap_run {
        let (old_chunk, new_chunk, count) = run.unwrap_or_default();
        dmsnap_run {
            struct_size: 0,
            old_chunk,
            new_chunk,
            count,
        }
    }
}
