//! Running the plans that the library hands out.

use dmsnap::ByteRange;
use dmsnap::ffi::{self, dmsnap_device, dmsnap_plan, dmsnap_step_type};
use dmsnap::storage::{MemoryStorage, Storage};

use super::{Failed, check, filled, made};

/// More than anything here may grow to.
const END: u64 = 1 << 40;

/// A new store by the plan that the library makes.
pub(super) fn format(chunk: u64, size: u64) -> MemoryStorage {
    let cow = MemoryStorage::new();
    let descriptor = (chunk >= 4096).then(|| descriptor(size).expect("a legal size"));
    let plan = made(|out| ffi::dmsnap_store_format(chunk, descriptor.as_deref(), false, out))
        .expect("a plan");
    run_steps(&plan, usize::MAX, &cow, &MemoryStorage::new());
    ffi::dmsnap_plan_free(Some(plan));
    ffi::dmsnap_descriptor_free(descriptor);
    cow
}

pub(super) fn descriptor(size: u64) -> Result<Box<ffi::dmsnap_descriptor>, Failed> {
    // SAFETY: sixteen bytes.
    made(|out| unsafe { ffi::dmsnap_descriptor_new(size, [7_u8; 16].as_ptr(), out) })
}

/// Runs up to `most` steps that write; reads are another matter.
pub(super) fn run_steps(
    plan: &dmsnap_plan,
    most: usize,
    cow: &MemoryStorage,
    origin: &MemoryStorage,
) {
    let of = |device| {
        if device == dmsnap_device::Cow {
            cow
        } else {
            origin
        }
    };
    for index in 0..ffi::dmsnap_plan_step_count(Some(plan)).min(most) {
        // SAFETY: a structure with its size.
        let step =
            filled(|out| unsafe { ffi::dmsnap_plan_step(Some(plan), index, out) }).expect("a step");
        let device = of(step.device);
        let (end, size) = (step.offset + step.len, device.size().expect("a size"));
        match step.r#type {
            dmsnap_step_type::Read => assert!(end <= size, "a read up to {end} of {size}"),
            dmsnap_step_type::Write => {
                bounded(device, end);
                // SAFETY: so many bytes, which belong to the plan.
                let data = unsafe { std::slice::from_raw_parts(step.data, step.len as usize) };
                device.write_at(data, step.offset).expect("inside");
            }
            dmsnap_step_type::WriteZeroes => {
                bounded(device, end);
                device
                    .write_zeroes(ByteRange::new(step.offset, step.len), step.unmap)
                    .expect("inside");
            }
            dmsnap_step_type::Copy => {
                let to = of(step.to_device);
                bounded(to, step.to_offset + step.len);
                assert!(end <= size, "a copy of bytes up to {end} of {size}");
                let mut bytes = vec![0; step.len as usize];
                device.read_at(&mut bytes, step.offset).expect("inside");
                to.write_at(&bytes, step.to_offset).expect("inside");
            }
            dmsnap_step_type::Discard => {
                assert!(end <= size, "a discard up to {end} of {size}");
            }
            dmsnap_step_type::SetSize => {
                assert!(step.len <= END, "a size of {}", step.len);
                device.set_size(step.len).expect("a file of another size");
            }
            dmsnap_step_type::Flush => {}
        }
    }
}

pub(super) fn bounded(device: &MemoryStorage, end: u64) {
    let size = device.size().expect("a size");
    let most = if device.is_growable() {
        END.max(size)
    } else {
        size
    };
    assert!(end <= most, "a write up to {end} of {size}");
}

/// Supplies what a plan of reads asks for.
pub(super) fn supply(plan: &mut dmsnap_plan, cow: &MemoryStorage, origin: &MemoryStorage) {
    for index in 0..ffi::dmsnap_plan_step_count(Some(plan)) {
        // SAFETY: a structure with its size.
        let step =
            filled(|out| unsafe { ffi::dmsnap_plan_step(Some(plan), index, out) }).expect("a step");
        if step.r#type != dmsnap_step_type::Read {
            continue;
        }
        let device = if step.device == dmsnap_device::Cow {
            cow
        } else {
            origin
        };
        let mut bytes = vec![0; step.len as usize];
        device
            .read_at(&mut bytes, step.offset)
            .expect("a read inside the device");
        // SAFETY: a buffer and its length.
        check(unsafe {
            ffi::dmsnap_plan_supply(Some(plan), index, bytes.as_ptr().cast(), bytes.len())
        })
        .expect("what was asked for");
    }
}
