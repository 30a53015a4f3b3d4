//! Loading a store: header, descriptor, then metadata areas up to the terminator (the kernel's `read_metadata`).
//!
//! The host reads what [`Loader::next_plan`] asks for. Areas are read several at a time, more of them as the log turns out longer;
//! an area of a huge chunk is read in pieces, so that memory follows the number of exceptions and not the size of a chunk.

use std::collections::BTreeMap;

use super::Store;
use super::areas::{AreaReader, Scan};
use super::chunk_set::ChunkSet;
use super::locate::SecondLook;
use super::log::Log;
use super::plan::{Device, Plan, Purpose, Step};
use super::records::Records;
use super::state::OverflowMode;
use super::table::ExceptionTable;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor, Geometry, Header, HeaderState, SlotDamage};
use crate::units::ByteRange;

/// How a store is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Size of the COW file or device in bytes.
    pub cow_size: u64,
    /// Whether the COW file can be made longer.
    pub growable: bool,
    /// Whether the store will be written.
    pub writable: bool,
    /// Size of the origin in bytes, from which a bare store takes its own: a multiple of 512 then.
    pub origin_size: Option<u64>,
    /// What a full device means.
    pub overflow: OverflowMode,
}

/// What the first bytes of a store say.
#[derive(Clone, Debug)]
pub(crate) struct Preamble {
    pub(crate) header: Header,
    pub(crate) descriptor: Option<Descriptor>,
    /// The descriptor slot that counts.
    pub(crate) slot: usize,
    /// Slots that were written and are no good.
    pub(crate) damage: Vec<SlotDamage>,
}

impl Preamble {
    fn bare(header: Header) -> Preamble {
        Preamble {
            header,
            descriptor: None,
            slot: 0,
            damage: Vec::new(),
        }
    }
}

/// Everything learned from the metadata areas.
pub(crate) struct Loaded {
    pub(crate) table: ExceptionTable,
    pub(crate) log: Log,
    pub(crate) next_free: u64,
    pub(crate) holes: ChunkSet,
    /// Records that repeat an earlier one, left by an interrupted drop.
    pub(crate) repeated: u64,
    /// Exceptions for old chunks that no disk can have. They are in no table.
    pub(crate) strays: BTreeMap<u64, u64>,
}

/// Reads the preamble: two plans at the most.
pub(crate) struct PreambleReader {
    cow_size: u64,
    header: Option<Header>,
    done: Option<Preamble>,
    /// Whether it goes on without a descriptor if both slots are damaged.
    tolerant: bool,
}

const PROBE_BYTES: u64 = 4096;

impl PreambleReader {
    pub(crate) fn new(cow_size: u64) -> PreambleReader {
        PreambleReader {
            cow_size,
            header: None,
            done: None,
            tolerant: false,
        }
    }

    /// A reader that goes on without a descriptor if that is damaged.
    pub(crate) fn tolerant(cow_size: u64) -> PreambleReader {
        PreambleReader {
            tolerant: true,
            ..PreambleReader::new(cow_size)
        }
    }

    pub(crate) fn next_steps(&self) -> Option<Vec<Step>> {
        if self.done.is_some() {
            return None;
        }
        let Some(header) = &self.header else {
            let range = ByteRange::new(0, PROBE_BYTES.min(self.cow_size));
            return Some(vec![Step::Read {
                device: Device::Cow,
                range,
            }]);
        };
        let slots = Descriptor::slot_offsets(header.chunk_size)
            .into_iter()
            .flatten();
        let reads = slots.map(|offset| Step::Read {
            device: Device::Cow,
            range: ByteRange::new(offset, DESCRIPTOR_SLOT_SIZE as u64),
        });
        Some(reads.collect())
    }

    pub(crate) fn feed(&mut self, reads: &[(ByteRange, &[u8])]) -> Result<()> {
        let Some(header) = self.header else {
            let bytes = reads.first().map_or(&[][..], |(_, bytes)| bytes);
            let header = match Header::decode(bytes)? {
                HeaderState::Store(header) => header,
                HeaderState::Blank => return Err(blank()),
            };
            let slots = Descriptor::slot_offsets(header.chunk_size);
            let last = slots.map_or(u64::MAX, |[_, last]| last + DESCRIPTOR_SLOT_SIZE as u64);
            if last > self.cow_size {
                self.done = Some(Preamble::bare(header));
            }
            self.header = Some(header);
            return Ok(());
        };
        if let [(one, first), (other, second)] = reads {
            let damage = Descriptor::damage([first, second], [one.start, other.start]);
            let mut preamble = match Descriptor::choose(first, second) {
                Ok(Some((slot, descriptor))) => Preamble {
                    slot,
                    descriptor: Some(descriptor),
                    damage,
                    ..Preamble::bare(header)
                },
                // Bytes of somebody else, in a store without a descriptor.
                Ok(None) => Preamble::bare(header),
                Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
                Err(_) if self.tolerant || !header.is_valid() => Preamble {
                    damage,
                    ..Preamble::bare(header)
                },
                Err(error) => return Err(unusable(&damage, error)),
            };
            if !header.is_valid() {
                // Whoever invalidated the store may have torn the descriptor; the header's word is the one that matters.
                preamble.damage.clear();
            }
            self.done = Some(preamble);
        }
        Ok(())
    }

    pub(crate) fn preamble(&self) -> Option<&Preamble> {
        self.done.as_ref()
    }
}

/// Turns the bytes of a COW file into a [`Store`].
pub struct Loader {
    options: LoadOptions,
    preamble: PreambleReader,
    areas: Option<AreaReader>,
    records: Records,
    /// Looks for what makes the store unusable.
    second_look: SecondLook,
    plans: PlanTurns,
}

/// Numbers the plans of a reader. One is outstanding at a time: the last one that was asked for.
#[derive(Default)]
pub(crate) struct PlanTurns {
    last: u64,
    outstanding: bool,
}

impl PlanTurns {
    pub(crate) fn give(&mut self, steps: Option<Vec<Step>>) -> Option<Plan> {
        self.outstanding = steps.is_some();
        self.last += 1;
        steps.map(|steps| Plan::new(self.last, Purpose::ReadMetadata, steps))
    }

    /// Takes a plan back. One that came back already, or that another one replaced, is refused.
    pub(crate) fn take(&mut self, plan: &Plan) -> Result<()> {
        if self.outstanding && plan.id == self.last {
            self.outstanding = false;
            return Ok(());
        }
        let message = "this plan is not the one that was given out last";
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}

impl Loader {
    /// Begins. No bytes have been looked at yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFormat`] if the file is too short to hold a header.
    pub fn new(options: LoadOptions) -> Result<Loader> {
        check_size(options.cow_size)?;
        let preamble = PreambleReader::new(options.cow_size);
        Ok(Loader {
            options,
            preamble,
            areas: None,
            records: Records::default(),
            second_look: SecondLook::default(),
            plans: PlanTurns::default(),
        })
    }

    /// As [`Loader::new`], but a store whose descriptor slots are both damaged is loaded as a bare one, for
    /// [`Store::prepare_descriptor`] to mend.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn without_descriptor(options: LoadOptions) -> Result<Loader> {
        let preamble = PreambleReader::tolerant(options.cow_size);
        let loader = Loader::new(options)?;
        Ok(Loader { preamble, ..loader })
    }

    /// The next reads, or `None` when everything is known. The plan takes the place of the one before, if that did not come back: it reads
    /// the same bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the next metadata area would lie outside the file; [`ErrorKind::NoMemory`].
    pub fn next_plan(&mut self) -> Result<Option<Plan>> {
        let steps = match (self.preamble.next_steps(), &mut self.areas) {
            (Some(steps), _) => Some(steps),
            (None, Some(areas)) => match areas.next_steps()? {
                Some(steps) => Some(steps),
                // Of the records that contradict each other one is told.
                None => self.second_look.next_steps(&mut self.records, |closed| {
                    let first = closed.contradiction();
                    first.into_iter().map(|(record, _)| record).collect()
                })?,
            },
            (None, None) => None,
        };
        Ok(self.plans.give(steps))
    }

    /// Ranges of the COW file that the plan handed out last and the next ones will read, unless the log ends before. Each is named once.
    /// For hosts that can read ahead; the others need not ask.
    pub fn read_ahead(&mut self) -> Vec<ByteRange> {
        let areas = self.areas.as_mut();
        areas.map_or_else(Vec::new, AreaReader::read_ahead)
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFormat`], [`ErrorKind::Unsupported`] or [`ErrorKind::Corrupt`], with what was found and expected;
    /// [`ErrorKind::InvalidArgument`] for a plan that is not the last one.
    pub fn finish_plan(&mut self, plan: Plan) -> Result<()> {
        let reads = plan.reads()?;
        self.plans.take(&plan)?;
        if self.second_look.feed(&reads)? {
            return Ok(());
        }
        if let Some(areas) = &mut self.areas {
            let records = &mut self.records;
            return areas.feed(&reads, &mut |index, first, len| {
                records.push(index, first, len)
            });
        }
        self.preamble.feed(&reads)?;
        if let Some(preamble) = self.preamble.preamble()
            && preamble.header.is_valid()
        {
            let geometry = Geometry::new(preamble.header.chunk_size);
            let scan = Scan {
                geometry,
                cow_size: self.options.cow_size,
            };
            self.areas = Some(AreaReader::new(scan, self.options.writable));
            self.records = Records::new(scan);
        }
        Ok(())
    }

    /// The store, when [`Loader::next_plan`] has returned `None`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if exceptions contradict each other; [`ErrorKind::InvalidArgument`] for a bare store over an origin of a size
    /// that no disk has.
    pub fn finish(self) -> Result<Store> {
        let Some(preamble) = self.preamble.preamble().cloned() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the header was not read yet",
            ));
        };
        let Some(areas) = self.areas else {
            return Store::invalid(&self.options, preamble);
        };
        let end = areas.end().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                "the metadata areas were not read yet",
            )
        })?;
        let log = Log::new(
            Geometry::new(preamble.header.chunk_size),
            end.len,
            end.tail,
            end.stale,
        );
        let mut second_look = self.second_look;
        let closed = second_look.take_closed(self.records)?;
        closed.check(&second_look)?;
        let loaded = Loaded {
            table: closed.table,
            log,
            next_free: closed.next_free,
            holes: closed.holes,
            repeated: closed.report.identical.count,
            strays: closed.strays,
        };
        Store::from_loaded(&self.options, preamble, loaded)
    }
}

pub(crate) fn check_size(cow_size: u64) -> Result<()> {
    if cow_size < 512 {
        let message = format!("{cow_size} bytes are too few for a header of 512");
        return Err(Error::new(ErrorKind::InvalidFormat, message));
    }
    Ok(())
}

/// No slot is good, and at least one of them was.
fn unusable(damage: &[SlotDamage], error: Error) -> Error {
    let Some(first) = damage.first() else {
        return error;
    };
    let all: Vec<String> = damage.iter().map(SlotDamage::to_string).collect();
    let message = format!("{}, and no slot is good", all.join("; "));
    Error::new(ErrorKind::Corrupt, message).with_offset(first.offset)
}

fn blank() -> Error {
    let message = "the header is blank: the file holds no store yet, a kernel would make one here";
    Error::new(ErrorKind::InvalidFormat, message).with_offset(0)
}
