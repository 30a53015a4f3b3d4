//! Look-ups in a store, and pins.

use std::ffi::c_int;
use std::mem::offset_of;

use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, range};
use super::store::{dmsnap_store, shared};
use super::values::dmsnap_target;
use crate::store::{Extent, Pin, Target, WriteExtent, WriteTarget};

/// Where a run of bytes lives. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_mapping {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Where the bytes are read from or written to.
    pub target: dmsnap_target,
    /// Number of bytes from the start of the range for which this holds, at least 1.
    pub len: u64,
    /// First byte in the target; for `UNMAPPED` and `WAIT` what was asked for.
    pub offset: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_mapping {
    const LEAST: usize = offset_of!(dmsnap_mapping, offset) + size_of::<u64>();
}

/// Finds where the first bytes of the range are read from, and how many of them lie there in one
/// run. What is in flight still reads as the origin.
///
/// `-EINVAL` for an empty range or one that ends past the disk, `-EIO` if the snapshot is invalid.
/// Allocates nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_map(
    store: Option<&dmsnap_store>,
    offset: u64,
    len: u64,
    out: *mut dmsnap_mapping,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let Extent { target, len } = store.map(range(offset, len)?)?;
        let (target, offset) = match target {
            Target::Cow { offset } => (dmsnap_target::Cow, offset),
            Target::Origin => (dmsnap_target::Origin, offset),
        };
        out.write(dmsnap_mapping {
            struct_size: 0,
            target,
            len,
            offset,
        });
        Ok(())
    })
}

/// Finds where the first bytes of the range are written to, and how many of them go there in one
/// run.
///
/// Errors as `dmsnap_store_map`, and `-EROFS`, `-ENOSPC` (overflow in mode PO) or `-EIO` (an
/// earlier failure) if writing is not possible. Allocates nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_map_write(
    store: Option<&dmsnap_store>,
    offset: u64,
    len: u64,
    out: *mut dmsnap_mapping,
) -> c_int {
    guard(|| {
        let store = shared(store)?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let WriteExtent { target, len } = store.map_write(range(offset, len)?)?;
        let (target, offset) = match target {
            WriteTarget::Cow { offset } => (dmsnap_target::Cow, offset),
            WriteTarget::Unmapped => (dmsnap_target::Unmapped, offset),
            WriteTarget::Origin => (dmsnap_target::Origin, offset),
            WriteTarget::Wait => (dmsnap_target::Wait, offset),
        };
        out.write(dmsnap_mapping {
            struct_size: 0,
            target,
            len,
            offset,
        });
        Ok(())
    })
}

/// Takes a pin: what was mapped under the same (shared) lock stays where it is until the pin is
/// released. One pin serves any number of ranges. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_pin(store: Option<&dmsnap_store>) -> u64 {
    guard_or(0, || store.map_or(0, |store| store.pins.pin().into_raw()))
}

/// Releases a pin, once. May be called at any time, also while an exclusive call runs. Returns
/// whether the host should wake those who were told to wait.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_unpin(store: Option<&dmsnap_store>, pin: u64) -> bool {
    guard_or(false, || {
        store.is_some_and(|store| store.pins.unpin(Pin::from_raw(pin)))
    })
}
