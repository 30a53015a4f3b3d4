//! Plans: what the store asks its host to do, and in which order.

use std::sync::Arc;

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
        let wanted = match self.steps.get(index) {
            Some(Step::Read { range, .. }) => range.len,
            _ => {
                let message = format!("step {index} of the plan is not a read");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        if bytes.len() as u64 != wanted {
            let message = format!(
                "step {index} reads {wanted} bytes, {} supplied",
                bytes.len()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.supplied.resize_with(self.steps.len(), || None);
        if let Some(slot) = self.supplied.get_mut(index) {
            *slot = Some(bytes);
        }
        Ok(())
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
