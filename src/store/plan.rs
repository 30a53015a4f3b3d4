//! Plans: what the store asks its host to do, and in which order.

use crate::sync::Arc;

use super::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::units::ByteRange;

/// Which of the two devices a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The COW file.
    Cow,
    /// What lies below: a raw file or another layer.
    Origin,
}

/// One piece of I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a range and hand its bytes to [`Plan::supply`].
    Read {
        /// Where.
        device: Device,
        /// What.
        range: ByteRange,
    },
    /// Write bytes.
    Write {
        /// Where.
        device: Device,
        /// First byte.
        offset: u64,
        /// The bytes, owned by the plan.
        data: Arc<[u8]>,
    },
    /// Make a range read as zeros.
    WriteZeroes {
        /// Where.
        device: Device,
        /// What.
        range: ByteRange,
        /// Whether space may be given back. If not, the range shall end up with space of its own.
        unmap: bool,
    },
    /// Copy bytes between the devices.
    Copy {
        /// Source.
        from: Device,
        /// First byte in the source.
        from_offset: u64,
        /// Target.
        to: Device,
        /// First byte in the target.
        to_offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Give space back; nothing depends on whether that happens.
    Discard {
        /// Where.
        device: Device,
        /// What.
        range: ByteRange,
    },
    /// Make a device this long.
    SetSize {
        /// Which.
        device: Device,
        /// Its size in bytes.
        size: u64,
    },
    /// Wait until everything written before is durable.
    Flush {
        /// Which.
        device: Device,
    },
}

impl Step {
    /// Where bytes that the step writes to the COW file end.
    pub(crate) fn cow_end(&self) -> Option<u64> {
        match self {
            Step::Write {
                device: Device::Cow,
                offset,
                data,
            } => Some(offset + data.len() as u64),
            Step::WriteZeroes {
                device: Device::Cow,
                range,
                ..
            } => Some(range.end()),
            _ => None,
        }
    }
}

/// What a plan is for; of interest to traces and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Create a store.
    Format,
    /// Read header, descriptor and metadata areas.
    ReadMetadata,
    /// Make room for further exceptions: extend the file, zero the next metadata areas.
    Reserve,
    /// Make completed exceptions durable.
    Commit,
    /// Copy exceptions into the origin and clear their records.
    Merge,
    /// Remove records from the log, or empty it.
    Drop,
    /// Zero what growing uncovers.
    Grow,
    /// Write the image descriptor.
    Descriptor,
    /// Invalidate the store.
    Invalidate,
    /// Give back the space of chunks that nothing refers to.
    Reclaim,
}

/// Steps and their order.
///
/// [`Step::Flush`] and [`Step::SetSize`] are barriers: they begin when every step before them has ended, and steps behind them begin
/// when they have ended. Steps between two barriers touch different bytes and may run in any order or at once. A plan owns its bytes,
/// and running it twice, or again after it failed half-way, does no harm. Each prefix is a state a crash may leave.
#[derive(Debug)]
#[must_use = "a plan must be run and given back to the store"]
pub struct Plan {
    pub(crate) id: u64,
    purpose: Purpose,
    steps: Vec<Step>,
    supplied: Vec<Option<Vec<u8>>>,
}

impl Plan {
    pub(crate) fn new(id: u64, purpose: Purpose, steps: Vec<Step>) -> Plan {
        Plan {
            id,
            purpose,
            steps,
            supplied: Vec::new(),
        }
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Hands over the bytes that step `index`, a [`Step::Read`], asked for.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if that step is no read or wants another number of bytes.
    pub fn supply(&mut self, index: usize, bytes: Vec<u8>) -> Result<()> {
        let slot = self.slot_for(index, bytes.len())?;
        *slot = Some(bytes);
        Ok(())
    }

    /// As [`Plan::supply`], for bytes that are borrowed. None is looked at unless they are as many as were asked for.
    ///
    /// # Errors
    /// As [`Plan::supply`], and [`ErrorKind::NoMemory`].
    pub fn supply_copy(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        self.slot_for(index, bytes.len())?;
        self.buffer(index)?.copy_from_slice(bytes);
        Ok(())
    }

    fn slot_for(&mut self, index: usize, len: usize) -> Result<&mut Option<Vec<u8>>> {
        let (wanted, slot) = self.read_slot(index)?;
        if len as u64 == wanted {
            return Ok(slot);
        }
        let message = format!("step {index} reads {wanted} bytes, {len} supplied");
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// A place of the plan's own for the bytes that step `index`, a [`Step::Read`], asks for: whoever reads straight into it need not
    /// supply them. Zeros at first; asked for again, it is the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if that step is no read, [`ErrorKind::NoMemory`].
    pub fn buffer(&mut self, index: usize) -> Result<&mut [u8]> {
        let (len, slot) = self.read_slot(index)?;
        if slot.is_none() {
            *slot = Some(zeroed(len)?);
        }
        Ok(slot.as_deref_mut().unwrap_or_default())
    }

    /// How much step `index`, which must be a read, wants, and where it belongs.
    fn read_slot(&mut self, index: usize) -> Result<(u64, &mut Option<Vec<u8>>)> {
        self.supplied.resize_with(self.steps.len(), || None);
        match (self.steps.get(index), self.supplied.get_mut(index)) {
            (Some(Step::Read { range, .. }), Some(slot)) => Ok((range.len, slot)),
            _ => {
                let message = format!("step {index} of the plan is not a read");
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        }
    }

    /// The reads with what was supplied for them, in order.
    ///
    /// Fails if a read was not supplied.
    pub(crate) fn reads(&self) -> Result<Vec<(ByteRange, &[u8])>> {
        let mut reads = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            if let Step::Read { range, .. } = step {
                let bytes = self.supplied.get(index).and_then(|bytes| bytes.as_deref());
                let bytes = bytes.ok_or_else(|| {
                    let message = format!("step {index} of the plan was not supplied");
                    Error::new(ErrorKind::InvalidArgument, message)
                })?;
                reads.push((*range, bytes));
            }
        }
        Ok(reads)
    }
}

/// A buffer whose size comes from a file: failing to get it is an error like any other.
fn zeroed(len: u64) -> Result<Vec<u8>> {
    // Memory that is zero already costs least, but only other memory can be asked for on trial.
    match usize::try_from(len) {
        Ok(len) => memory::look_for(len).map(|()| vec![0; len]),
        Err(_) => {
            let message = format!("no memory for a buffer of {len} bytes");
            Err(Error::new(ErrorKind::NoMemory, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_what_is_read_into_the_plans_buffer_is_supplied() {
        let read = |start| Step::Read {
            device: Device::Cow,
            range: ByteRange::new(start, 4),
        };
        let flush = Step::Flush {
            device: Device::Cow,
        };
        let mut plan = Plan::new(1, Purpose::ReadMetadata, vec![read(0), read(8), flush]);
        plan.buffer(1).unwrap().copy_from_slice(b"read");
        assert_eq!(plan.buffer(1).unwrap(), b"read", "the same again");
        assert!(plan.reads().is_err(), "the first read is missing");
        assert_eq!(plan.buffer(0).unwrap(), [0; 4]);
        plan.supply(0, b"copy".to_vec()).unwrap();
        let reads = plan.reads().unwrap();
        assert_eq!(reads[0].1, b"copy");
        assert_eq!(reads[1].1, b"read");
        assert!(plan.supply_copy(0, b"three").is_err());
        plan.supply_copy(0, b"four").unwrap();
        assert_eq!(plan.reads().unwrap()[0].1, b"four");
        for index in [2, 3, usize::MAX] {
            let error = plan.buffer(index).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}
