//! Running the plans that a store makes.

use std::io::{IoSlice, IoSliceMut};

use super::copy::{self, LONG_RUN, Scratch};
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
            let bytes = devices.read(device, range)?;
            plan.supply(index, bytes)?;
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
    fn read(&self, device: Device, range: ByteRange) -> Result<Vec<u8>> {
        let mut bytes = zeroed(range.len)?;
        match device {
            Device::Cow => self.cow.read_at(&mut bytes, range.start)?,
            Device::Origin => self
                .origin
                .read(&mut [IoSliceMut::new(&mut bytes)], range.start)?,
        }
        Ok(bytes)
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
            ((Device::Cow, from), (Device::Origin, to)) => match origin {
                Node::Raw(raw) => copy::copy((cow, from), (&raw.storage, to), len, false, scratch),
                _ => copy_into((cow, from), (origin, to), len, scratch),
            },
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

/// Copies into a layer, through that layer's own way of writing.
fn copy_into(
    (cow, from): (&dyn Storage, u64),
    (origin, to): (&Node, u64),
    len: u64,
    scratch: &mut Scratch,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let left = len - done;
        let (part, hole) = if left < LONG_RUN {
            (left, false)
        } else {
            let extent = cow.extent_at(from + done)?;
            (
                extent.len.clamp(1, left),
                !extent.allocated && extent.len > 0,
            )
        };
        if hole {
            origin.write_zeroes(ByteRange::new(to + done, part), true)?;
            done += part;
            continue;
        }
        let piece = scratch.piece(part);
        cow.read_at(piece, from + done)?;
        origin.write(&[IoSlice::new(piece)], to + done)?;
        done += piece.len() as u64;
    }
    Ok(())
}

/// A buffer whose size comes from a file: failing to get it is an error like any other.
fn zeroed(len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let fits = usize::try_from(len).is_ok_and(|len| bytes.try_reserve_exact(len).is_ok());
    if !fits {
        let message = format!("no memory for a buffer of {len} bytes");
        return Err(Error::new(ErrorKind::NoMemory, message));
    }
    bytes.resize(len as usize, 0);
    Ok(bytes)
}
