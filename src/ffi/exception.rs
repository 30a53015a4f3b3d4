//! New exceptions of a store.

use std::ffi::c_int;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;

use super::guard::guard;
use super::handle::{Growing, Output, need};
use super::plan::dmsnap_plan;
use super::store::{dmsnap_store, exclusive};
use super::values::dmsnap_answer;
use crate::store::{ExceptionId, Prepared};
use crate::units::OriginChunk;

/// Chunks in flight: `count` chunks of the snapshot from `old_chunk` on shall live in the COW file
/// from `new_chunk` on. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_exception {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Name of this exception, for completing or aborting it.
    pub id: u64,
    /// First chunk of the snapshot.
    pub old_chunk: u64,
    /// First chunk of the COW file.
    pub new_chunk: u64,
    /// Number of chunks, at most as many as asked for.
    pub count: u64,
    /// Byte of the COW file at which `new_chunk` starts.
    pub cow_offset: u64,
    /// Whether the chunks read as zeros already, so that zeros need not be written.
    pub reads_zero: bool,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_exception {
    const LEAST: usize = offset_of!(dmsnap_exception, reads_zero) + size_of::<bool>();
}

/// Allocates chunks of the COW file for up to `count` chunks of the snapshot from `first_chunk` on,
/// which `dmsnap_store_map_write` called `UNMAPPED` (the kernel's `prepare_exception`, for a run of
/// chunks). The answer is one of
///
/// - `READY`: `exception` is filled in. Until it is completed or aborted, reads see the origin and
///   other writers of these chunks wait. Give the new chunks their whole content: what is written,
///   the origin's bytes around it, zeros past the end of the origin and of the disk.
/// - `PLAN`: a plan is given (`plan` is NULL otherwise), which goes back to
///   `dmsnap_store_finish_plan`. Then ask again. It reserves space, or, where an interrupted
///   operation left records that stand twice, removes these: then it may have reads, too.
/// - `WAIT`, `RETRY`.
///
/// `-ENOSPC` if a device of fixed size is full. Without a mode nothing else happens, and it can be
/// tried again after `dmsnap_store_set_cow_size`. In mode PO the state becomes
/// `DMSNAP_STATE_OVERFLOW`: reads go on, writes are refused until the store is loaded again. In
/// mode P the snapshot is then invalid, see `dmsnap_store_take_invalidation`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_prepare_exception(
    store: Option<NonNull<dmsnap_store>>,
    first_chunk: u64,
    count: u64,
    answer: Option<&mut MaybeUninit<dmsnap_answer>>,
    exception: *mut dmsnap_exception,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let (answer, plan) = (need(answer, "answer")?, need(plan, "plan")?);
        // SAFETY: the contract with C.
        let exception = unsafe { Output::new(exception, "exception") }?;
        let mut reserve = None;
        let told = match store.prepare_exception(OriginChunk(first_chunk), count)? {
            Prepared::Exception(new) => {
                exception.write(dmsnap_exception {
                    struct_size: 0,
                    id: new.id.0,
                    old_chunk: new.old.0,
                    new_chunk: new.new.0,
                    count: new.count,
                    cow_offset: new.cow_offset,
                    reads_zero: new.reads_zero,
                });
                dmsnap_answer::Ready
            }
            Prepared::Reserve(steps) => {
                reserve = Some(owner.give(steps));
                dmsnap_answer::Plan
            }
            Prepared::Wait => dmsnap_answer::Wait,
            Prepared::Retry => dmsnap_answer::Retry,
        };
        answer.write(told);
        plan.write(reserve);
        Ok(())
    })
}

/// Makes a prepared exception visible to reads. Its data must be in place, though not yet durable.
/// Unlike in the kernel, no record is written until `dmsnap_store_commit_exceptions`. If it fails,
/// the exception was aborted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_complete_exception(
    store: Option<NonNull<dmsnap_store>>,
    id: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.complete_exception(ExceptionId(id))
    })
}

/// Forgets a prepared exception whose data could not be written. Its chunks are used again; writers
/// that waited try again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_abort_exception(
    store: Option<NonNull<dmsnap_store>>,
    id: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.abort_exception(ExceptionId(id))
    })
}
