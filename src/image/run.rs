//! Running the plans that a store makes.

use std::io::{IoSlice, IoSliceMut};

use super::copy::{self, Scratch};
use super::node::Node;
use super::tracked::Tracked;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::store::{Device, Plan, Step};
use crate::units::ByteRange;

/// Runs the steps of `plan` in order. What it reads is supplied to it.
pub(crate) fn run(plan: &mut Plan, cow: &Tracked, origin: &Node) -> Result<()> {
    let mut devices = Devices {
        cow,
        origin,
        scratch: Scratch::default(),
    };
    for index in 0..plan.steps().len() {
        let Some(step) = plan.steps().get(index).cloned() else {
            break;
        };
        if let Step::Read { device, range } = step {
            devices.read(device, range.start, plan.buffer(index)?)?;
        } else {
            devices.run(&step)?;
        }
    }
    Ok(())
}

struct Devices<'a> {
    cow: &'a Tracked,
    origin: &'a Node,
    scratch: Scratch,
}

impl Devices<'_> {
    fn read(&self, device: Device, offset: u64, bytes: &mut [u8]) -> Result<()> {
        match device {
            Device::Cow => self.cow.read_at(bytes, offset),
            Device::Origin => self.origin.read(&mut [IoSliceMut::new(bytes)], offset),
        }
    }

    fn run(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Read { .. } => Ok(()),
            Step::Copy {
                from,
                from_offset,
                to,
                to_offset,
                len,
            } => self.copy((*from, *from_offset), (*to, *to_offset), *len),
            Step::Write { device, .. }
            | Step::WriteZeroes { device, .. }
            | Step::Discard { device, .. }
            | Step::SetSize { device, .. }
            | Step::Flush { device } => match device {
                Device::Cow => run_on_cow(self.cow, step),
                Device::Origin => run_on_origin(self.origin, step),
            },
        }
    }

    fn copy(&mut self, from: (Device, u64), to: (Device, u64), len: u64) -> Result<()> {
        let (cow, origin, scratch) = (self.cow, self.origin, &mut self.scratch);
        match (from, to) {
            ((Device::Cow, from), (Device::Cow, to)) => {
                copy::copy((cow, from), (cow, to), len, false, scratch)
            }
            ((Device::Origin, from), (Device::Cow, to)) => {
                origin.copy_out(ByteRange::new(from, len), (cow, to), false, scratch)
            }
            ((Device::Cow, from), (Device::Origin, to)) => {
                copy::copy((cow, from), (origin, to), len, false, scratch)
            }
            ((Device::Origin, _), (Device::Origin, _)) => Err(Error::new(
                ErrorKind::Internal,
                "a plan copies the origin onto itself",
            )),
        }
    }
}

fn run_on_cow(cow: &dyn Storage, step: &Step) -> Result<()> {
    match step {
        Step::Write { offset, data, .. } => cow.write_at(data, *offset),
        Step::WriteZeroes { range, unmap, .. } => cow.write_zeroes(*range, *unmap),
        Step::Discard { range, .. } => cow.discard(*range),
        Step::SetSize { size, .. } => cow.set_size(*size),
        Step::Flush { .. } => cow.flush(),
        Step::Read { .. } | Step::Copy { .. } => Ok(()),
    }
}

fn run_on_origin(origin: &Node, step: &Step) -> Result<()> {
    match step {
        Step::Write { offset, data, .. } => origin.write(&[IoSlice::new(data)], *offset),
        Step::WriteZeroes { range, unmap, .. } => origin.write_zeroes(*range, *unmap),
        Step::Discard { range, .. } => origin.discard(*range),
        Step::SetSize { size, .. } => origin.set_size(*size),
        Step::Flush { .. } => origin.flush(),
        Step::Read { .. } | Step::Copy { .. } => Ok(()),
    }
}
