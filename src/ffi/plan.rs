//! Plans and their steps.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, bytes, need};
use super::values::{dmsnap_device, dmsnap_purpose, dmsnap_step_type};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Plan, Step};

/// Steps that the store half asks its host to run, and their order.
///
/// `DMSNAP_STEP_TYPE_FLUSH` and `DMSNAP_STEP_TYPE_SET_SIZE` are barriers: they begin when every
/// step before them has ended, and steps behind them begin when they have ended. Steps between two
/// barriers touch different bytes and may run in any order or at once. A plan owns its bytes.
/// Running it twice, or again after it failed half-way, does no harm.
///
/// A plan goes back to what gave it out, by the `finish_plan` of that type, also when a step
/// failed. One thread at a time may use it, but its steps may be carried out by many.
pub struct dmsnap_plan {
    plan: Plan,
    owner: Owner,
}

/// What gave a plan out. Plans are numbered by their owner, so one that goes to the wrong owner
/// could be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

impl Owner {
    /// Of plans that need not go back.
    pub(super) const NOBODY: Owner = Owner(0);

    pub(super) fn new() -> Owner {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Owner(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn give(self, plan: Plan) -> Box<dmsnap_plan> {
        Box::new(dmsnap_plan { plan, owner: self })
    }

    /// Takes a plan back that this owner gave out.
    pub(super) fn take(self, plan: Option<Box<dmsnap_plan>>) -> Result<Plan> {
        let plan = need(plan, "plan")?;
        if plan.owner != self {
            let message = "this plan was given out by another object";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(plan.plan)
    }
}

/// One step of a plan. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_step {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// What to do.
    pub r#type: dmsnap_step_type,
    /// Where; for a copy, its source.
    pub device: dmsnap_device,
    /// Where a copy goes. Else as `device`.
    pub to_device: dmsnap_device,
    /// Zeroing only: whether space may be given back. If not, the range shall end up with space of
    /// its own.
    pub unmap: bool,
    /// Whether this step is a barrier.
    pub barrier: bool,
    /// First byte; for a copy, in its source.
    pub offset: u64,
    /// Number of bytes; for a change of size, the new size.
    pub len: u64,
    /// First byte of a copy in its target.
    pub to_offset: u64,
    /// The bytes of a write, NULL for all others. They belong to the plan.
    pub data: *const u8,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_step {
    const LEAST: usize = offset_of!(dmsnap_step, data) + size_of::<*const u8>();
}

/// Number of steps. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_plan_step_count(plan: Option<&dmsnap_plan>) -> usize {
    guard_or(0, || plan.map_or(0, |plan| plan.plan.steps().len()))
}

/// What the plan is for.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_plan_purpose(
    plan: Option<&dmsnap_plan>,
    out: Option<&mut std::mem::MaybeUninit<dmsnap_purpose>>,
) -> c_int {
    guard(|| {
        let purpose = need(plan, "plan")?.plan.purpose();
        need(out, "out")?.write(purpose.into());
        Ok(())
    })
}

/// Step `index`, counted from 0. Its `data` belongs to the plan and holds until the plan is
/// finished or freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_plan_step(
    plan: Option<&dmsnap_plan>,
    index: usize,
    out: *mut dmsnap_step,
) -> c_int {
    guard(|| {
        let steps = need(plan, "plan")?.plan.steps();
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let step = steps.get(index).ok_or_else(|| {
            let message = format!("no step {index} in a plan of {}", steps.len());
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        out.write(describe(step));
        Ok(())
    })
}

fn describe(step: &Step) -> dmsnap_step {
    use dmsnap_step_type as Type;
    let of = |r#type, device: crate::store::Device, offset, len| dmsnap_step {
        struct_size: 0,
        r#type,
        device: device.into(),
        to_device: device.into(),
        unmap: false,
        barrier: matches!(r#type, Type::SetSize | Type::Flush),
        offset,
        len,
        to_offset: 0,
        data: std::ptr::null(),
    };
    match step {
        Step::Read { device, range } => of(Type::Read, *device, range.start, range.len),
        Step::Write {
            device,
            offset,
            data,
        } => dmsnap_step {
            data: data.as_ptr(),
            ..of(Type::Write, *device, *offset, data.len() as u64)
        },
        Step::WriteZeroes {
            device,
            range,
            unmap,
        } => dmsnap_step {
            unmap: *unmap,
            ..of(Type::WriteZeroes, *device, range.start, range.len)
        },
        Step::Copy {
            from,
            from_offset,
            to,
            to_offset,
            len,
        } => dmsnap_step {
            to_device: (*to).into(),
            to_offset: *to_offset,
            ..of(Type::Copy, *from, *from_offset, *len)
        },
        Step::Discard { device, range } => of(Type::Discard, *device, range.start, range.len),
        Step::SetSize { device, size } => of(Type::SetSize, *device, 0, *size),
        Step::Flush { device } => of(Type::Flush, *device, 0, 0),
    }
}

/// Gives the plan's own place for the bytes that step `index`, a read, asks for: as many as its
/// `len`, zeros at first. What is read straight into it need not be supplied, which saves a copy.
/// It belongs to the plan and holds until the plan is finished or freed, or that step is supplied;
/// asked for again, it is the same. Several threads may fill the places of several steps at once.
///
/// A plan whose read failed then does not go back to a loader or a check reader, which would take
/// the zeros for what was read: free it.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_plan_buffer(
    plan: Option<&mut dmsnap_plan>,
    index: usize,
    out: Option<&mut std::mem::MaybeUninit<*mut c_void>>,
) -> c_int {
    guard(|| {
        let plan = need(plan, "plan")?;
        let out = need(out, "out")?;
        out.write(plan.plan.buffer(index)?.as_mut_ptr().cast());
        Ok(())
    })
}

/// Hands over the `len` bytes that step `index`, a read, asked for. They are copied; see
/// `dmsnap_plan_buffer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_plan_supply(
    plan: Option<&mut dmsnap_plan>,
    index: usize,
    data: *const c_void,
    len: usize,
) -> c_int {
    guard(|| {
        let plan = need(plan, "plan")?;
        // SAFETY: the contract with C.
        let data = unsafe { bytes(data, len) }?;
        plan.plan.supply_copy(index, data)
    })
}

/// Ends a plan that need not go back: one of a loader or a check reader that is given up, or one of
/// `dmsnap_store_format`. NULL is allowed. A plan of a store goes to `dmsnap_store_finish_plan`
/// instead, or the store waits for it for ever.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_plan_free(plan: Option<Box<dmsnap_plan>>) {
    guard_or((), || drop(plan));
}
