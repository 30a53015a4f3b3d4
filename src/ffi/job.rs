//! Commits, jobs and space of a store.

use std::ffi::c_int;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;

use super::descriptor::dmsnap_descriptor;
use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need};
use super::plan::dmsnap_plan;
use super::store::{dmsnap_store, exclusive, shared};
use super::values::dmsnap_answer;
use crate::error::{Error, Result};
use crate::store::{Commit, Progress, Store};

/// What a host reports as 0 or a negative errno. Numbers that count bytes are a success.
fn outcome(number: c_int) -> Result<()> {
    if number >= 0 {
        return Ok(());
    }
    let code = number.checked_neg().unwrap_or(libc::EIO);
    Err(Error::io(
        "a step of the host",
        std::io::Error::from_raw_os_error(code),
    ))
}

/// Asks what has to be written so that every exception completed by now survives a crash (the
/// kernel's `commit_exception`, for many at once). What is in flight is not waited for. The answer
/// is
///
/// - `PLAN`: it holds all flushes of the COW file that are needed. Run it, finish it, and ask again
///   if what was completed meanwhile matters.
/// - `CLEAN`: just flush the COW file. Tell `dmsnap_store_fail` if that fails.
/// - `WAIT`: a plan is outstanding. One commit is outstanding at a time.
///
/// The plan may be one that a job needs which was cancelled: see `dmsnap_store_is_cancelling`. Then
/// a commit follows when the host asks again.
///
/// `plan` is NULL unless the answer is `PLAN`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_commit_exceptions(
    store: Option<NonNull<dmsnap_store>>,
    answer: Option<&mut MaybeUninit<dmsnap_answer>>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let (answer, plan) = (need(answer, "answer")?, need(plan, "plan")?);
        let (told, steps) = match store.commit_exceptions()? {
            Commit::Plan(steps) => (dmsnap_answer::Plan, Some(owner.give(steps))),
            Commit::Clean => (dmsnap_answer::Clean, None),
            Commit::Wait => (dmsnap_answer::Wait, None),
        };
        answer.write(told);
        plan.write(steps);
        Ok(())
    })
}

/// Gives a plan back to the store, with 0 if every step was done or the negative errno of one that
/// failed, which is passed on. The plan is gone after the call, whatever it returns.
///
/// `-ENOSPC` and `-EDQUOT` leave everything as it was: the store gives the same work out again when
/// it is asked. They are for writes. A flush that failed for want of space has lost what it was to
/// make durable, on Linux as elsewhere: report it as `-EIO`, unless what is below your flush
/// promises otherwise.
///
/// Any other failure of a plan that writes metadata or flushes, the COW file or the origin, ends
/// writing until the store is loaded again: `DMSNAP_STATE_FAILED`. A merge has its flush of the
/// origin in a plan of its own, and its records are cleared after that only. Where its copies or
/// reads fail, the state is `DMSNAP_STATE_MERGE_FAILED`: the pair of store and origin is whole,
/// first writes go on to the origin, and the merge can be begun again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_finish_plan(
    store: Option<NonNull<dmsnap_store>>,
    plan: Option<Box<dmsnap_plan>>,
    result: c_int,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        store.finish_plan(owner.take(plan)?, outcome(result))
    })
}

/// Tells that a flush of the COW file, which the host did by itself, failed with this negative
/// errno. Nothing can be taken for durable then: the store takes no more writes until it is loaded
/// again. `-ENOSPC` and `-EDQUOT` do not count: they say that nothing is lost, as in
/// `dmsnap_store_finish_plan`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_fail(
    store: Option<NonNull<dmsnap_store>>,
    result: c_int,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        if let Err(error) = outcome(result) {
            store.fail(&error);
        }
        Ok(())
    })
}

/// Begins a merge into an origin of `origin_size` bytes, which is at least as long as the disk (the
/// kernel's `prepare_merge`). From now on first writes go to the origin. Unlike the kernel's it
/// works in large batches, each of which copies, flushes the origin, clears the records (the
/// kernel's `commit_merge`) and flushes the COW file; `dmsnap_store_next_plan` gives them out.
///
/// After a merge that failed, a resize, `make_empty` and another descriptor are refused with
/// `DMSNAP_ERROR_KIND_MERGE_FAILED` until a merge has ended well or the store was loaded again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_prepare_merge(
    store: Option<NonNull<dmsnap_store>>,
    origin_size: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.prepare_merge(origin_size)
    })
}

/// Begins to change the size of the disk to `size` bytes, a multiple of 512, over an origin of
/// `origin_size` bytes. What growing uncovers will read as zeros. Shrinking drops exceptions; what
/// lay there is lost. A bare store cannot be resized.
///
/// When the disk shrinks the new size counts as soon as this returns, and no I/O past the new end
/// may be under way. When it grows the new size counts when the job is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_prepare_resize(
    store: Option<NonNull<dmsnap_store>>,
    size: u64,
    origin_size: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.prepare_resize(size, origin_size)
    })
}

/// Begins to store another image descriptor; the store sets its generation. NULL removes it: the
/// store becomes bare. The descriptor stays the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_prepare_descriptor(
    store: Option<NonNull<dmsnap_store>>,
    descriptor: Option<&dmsnap_descriptor>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.prepare_descriptor(descriptor.map(|descriptor| descriptor.get().clone()))
    })
}

/// Begins to finish what an interrupted operation left: stale slots, records that stand twice,
/// exceptions past the disk's end. The facts say whether that is wanted. A host that leaves it out
/// loses nothing: first writes, merges and resizes begin with what could harm them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_prepare_repair(
    store: Option<NonNull<dmsnap_store>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.prepare_repair()
    })
}

/// Begins to forget every exception: the disk reads as its origin again.
///
/// Exceptions in flight are waited for: complete or abort them. New ones have to wait until the job
/// is done. Reads may be under way, the chunks they have pinned are not used again before they are
/// unpinned. A write in place that is under way, or that comes before the job is done, may be
/// forgotten with the rest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_make_empty(store: Option<NonNull<dmsnap_store>>) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.make_empty()
    })
}

/// Begins to invalidate the store for ever (the kernel's `drop_snapshot`). Unlike the kernel it
/// writes the first sector only and keeps the descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_drop_snapshot(store: Option<NonNull<dmsnap_store>>) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.drop_snapshot()
    })
}

/// Gives the next plan of the job that was begun by `dmsnap_store_prepare_...`, `make_empty` or
/// `drop_snapshot`. One job at a time; other calls go on beside it. The answer is `PLAN`, `WAIT` or
/// `DONE`, after which the job is over; `plan` is NULL unless it is `PLAN`. After an error the job
/// waits for another call, or for `dmsnap_store_cancel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_next_plan(
    store: Option<NonNull<dmsnap_store>>,
    answer: Option<&mut MaybeUninit<dmsnap_answer>>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let (answer, plan) = (need(answer, "answer")?, need(plan, "plan")?);
        let (told, steps) = match store.next_plan()? {
            Progress::Plan(steps) => (dmsnap_answer::Plan, Some(owner.give(steps))),
            Progress::Wait => (dmsnap_answer::Wait, None),
            Progress::Done => (dmsnap_answer::Done, None),
        };
        answer.write(told);
        plan.write(steps);
        Ok(())
    })
}

/// Ends the job where it stands; what it made durable stays. Between two plans only: `-EBUSY` while
/// one is outstanding. A resize that is cancelled has the size that is on disk, the old one or the
/// new one: ask for the facts.
///
/// Where a plan found no space half-way through a change of the metadata, the job is not over at
/// once: see `dmsnap_store_is_cancelling`.
///
/// A merge that is cancelled is not over yet: writes that were sent to the origin may be under way.
/// Call `dmsnap_store_next_plan` until it says `DONE`, and flush the origin, before you let go of
/// it or make it read-only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_cancel(store: Option<NonNull<dmsnap_store>>) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.cancel()
    })
}

/// Whether a job was cancelled of which a plan found no space half-way, so that what is on disk is
/// not known until another plan has succeeded: what was begun is finished, or, where that can be
/// (a descriptor, a size, `dmsnap_store_drop_snapshot`), taken back.
///
/// `dmsnap_store_commit_exceptions` gives that plan out, and so does
/// `dmsnap_store_prepare_exception` where it needs it. Until it has succeeded other jobs are
/// `-EBUSY`, and writes to what the job was about get `WAIT`: commit then instead of waiting.
/// `false` for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_is_cancelling(store: Option<&dmsnap_store>) -> bool {
    guard_or(false, || shared(store).is_ok_and(Store::is_cancelling))
}

/// How far a job or a merge is. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_progress {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Exceptions dealt with so far.
    pub done: u64,
    /// Exceptions in all.
    pub total: u64,
    /// Bytes copied into the origin, as far as the library did that.
    pub bytes_copied: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_progress {
    const LEAST: usize = offset_of!(dmsnap_progress, bytes_copied) + size_of::<u64>();
}

/// How far the job is; zeros if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_progress(
    store: Option<&dmsnap_store>,
    out: *mut dmsnap_progress,
) -> c_int {
    guard(|| {
        let (done, total) = shared(store)?.progress();
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_progress {
            struct_size: 0,
            done,
            total,
            bytes_copied: 0,
        });
        Ok(())
    })
}

/// Gives a plan for returning the space of chunks that were freed and that no pin holds, or NULL if
/// there are none at the moment. Good after a batch of a merge, and after other jobs: what is
/// reserved for first writes to come is kept. One such plan at a time; ask again when it is
/// finished, until the answer is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_reclaim(
    store: Option<NonNull<dmsnap_store>>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let plan = need(plan, "plan")?;
        plan.write(store.reclaim().map(|steps| owner.give(steps)));
        Ok(())
    })
}

/// Gives a plan for cutting the file behind its last chunk in use and the next metadata area, so
/// that what is reserved is given up too, or NULL. For closing: after the last commit, and when
/// `dmsnap_store_reclaim` has nothing more. A cut that failed is not asked for again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_trim(
    store: Option<NonNull<dmsnap_store>>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let plan = need(plan, "plan")?;
        plan.write(store.trim().map(|steps| owner.give(steps)));
        Ok(())
    })
}

/// Gives the plan that writes the invalid header, if running full in mode P has made one due, else
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_take_invalidation(
    store: Option<NonNull<dmsnap_store>>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, owner) = unsafe { exclusive(store) }?;
        let plan = need(plan, "plan")?;
        plan.write(store.take_invalidation().map(|steps| owner.give(steps)));
        Ok(())
    })
}

/// Tells that a COW device of fixed size has `size` bytes now. What is new on it is used at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_set_cow_size(
    store: Option<NonNull<dmsnap_store>>,
    size: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let (store, _) = unsafe { exclusive(store) }?;
        store.set_cow_size(size);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn test_outcomes_of_a_host() {
        assert!(outcome(0).is_ok());
        assert!(outcome(4096).is_ok(), "a count of bytes");
        assert_eq!(
            outcome(-libc::ENOSPC).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(outcome(-libc::EIO).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(outcome(c_int::MIN).unwrap_err().errno(), libc::EIO);
    }
}
