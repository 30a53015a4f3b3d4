//! The metadata as it lies in a file, whatever it says: what a dump shows, a restore writes and a recovery starts from.

use super::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DESCRIPTOR_SLOT_SIZE, Descriptor, Exception, Geometry, HEADER_SIZE};
use crate::units::{ChunkSize, CowChunk, EXCEPTION_SIZE, OriginChunk};

/// Records in slots next to each other that go up by one on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRun {
    /// Slot of the first one, counted from the start of its area.
    pub slot: u64,
    /// The first one.
    pub first: Exception,
    /// How many there are, at least 1.
    pub count: u64,
}

/// One metadata area: the slots that are not zero, also those behind the end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawArea {
    /// Its number, counted from 0.
    pub number: u64,
    /// How many slots the file has of it: fewer than an area has where the file ends inside.
    pub slots: u64,
    /// The records, in the order of their slots.
    pub runs: Vec<RawRun>,
}

/// A slot of the image descriptor, with its bytes as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSlot {
    /// Byte in the file at which it starts.
    pub offset: u64,
    /// Its bytes.
    pub bytes: [u8; DESCRIPTOR_SLOT_SIZE],
}

/// The metadata of a store as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMetadata {
    /// The header's bytes.
    pub header: [u8; HEADER_SIZE],
    /// Size of a chunk, which the header may not tell.
    pub chunk_size: ChunkSize,
    /// The slots of the descriptor, as far as the chunk and the file have room for them.
    pub slots: Vec<RawSlot>,
    /// The areas, in order.
    pub areas: Vec<RawArea>,
    /// The area that the log goes on in but the file does not have, if it runs off the end.
    pub missing_area: Option<u64>,
}

impl RawSlot {
    /// The slot at this byte, without anything in it.
    pub fn blank(offset: u64) -> RawSlot {
        RawSlot {
            offset,
            bytes: [0; DESCRIPTOR_SLOT_SIZE],
        }
    }
}

impl RawArea {
    /// An area of which nothing was read yet.
    pub(crate) fn new(number: u64) -> RawArea {
        RawArea {
            number,
            slots: 0,
            runs: Vec::new(),
        }
    }

    /// Takes in the next bytes of the area.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        for record in Exception::decode_slice(bytes) {
            let slot = self.slots;
            self.slots += 1;
            if record == Exception::END {
                continue;
            }
            match self.runs.last_mut() {
                Some(run) if run.slot + run.count == slot && run.is_followed_by(record) => {
                    run.count += 1;
                }
                _ => {
                    let run = RawRun {
                        slot,
                        first: record,
                        count: 1,
                    };
                    memory::push(&mut self.runs, run)?;
                }
            }
        }
        Ok(())
    }

    /// The slot that ends the log: the first whose new chunk is 0, if there is one.
    pub fn terminator(&self) -> Option<u64> {
        let mut slot = 0;
        for run in &self.runs {
            if run.slot > slot || run.first.is_end() {
                break;
            }
            slot = run.slot + run.count;
        }
        (slot < self.slots).then_some(slot)
    }

    /// The bytes of `count` slots from `slot` on.
    pub(crate) fn encode(&self, slot: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; (count * EXCEPTION_SIZE) as usize];
        let behind = self
            .runs
            .partition_point(|run| run.slot + run.count <= slot);
        for run in self.runs[behind..]
            .iter()
            .take_while(|run| run.slot < slot + count)
        {
            let from = slot.max(run.slot);
            let end = (slot + count).min(run.slot + run.count);
            let first = run.record(from - run.slot);
            let place = ((from - slot) * EXCEPTION_SIZE) as usize;
            let places = bytes[place..].chunks_exact_mut(EXCEPTION_SIZE as usize);
            for (place, record) in places.zip(first.run(end - from)) {
                place.copy_from_slice(&record.encode());
            }
        }
        bytes
    }

    /// Refuses slots that the area does not have, or has twice, and numbers that do not fit.
    fn check(&self, geometry: Geometry) -> std::result::Result<(), String> {
        let most = geometry.exceptions_per_area();
        if self.slots > most {
            return Err(format!("{} slots, there are {most}", self.slots));
        }
        let mut next = 0;
        for run in &self.runs {
            let end = run.slot.checked_add(run.count);
            let Some(end) = end.filter(|end| run.slot >= next && *end <= self.slots) else {
                return Err(format!(
                    "the run of {} at slot {} is out of order or place: slots {next} to {} are free",
                    run.count, run.slot, self.slots
                ));
            };
            let last = run.count.wrapping_sub(1);
            let (old, new) = (run.first.old.0, run.first.new.0);
            let fits = old.checked_add(last).is_some() && new.checked_add(last).is_some();
            if run.count == 0 || !fits || (run.count > 1 && run.first.is_end()) {
                return Err(format!(
                    "the run at slot {} of {} records is impossible",
                    run.slot, run.count
                ));
            }
            next = end;
        }
        Ok(())
    }
}

impl RawRun {
    /// The record that is `index` behind the first one.
    fn record(&self, index: u64) -> Exception {
        Exception {
            old: OriginChunk(self.first.old.0 + index),
            new: CowChunk(self.first.new.0 + index),
        }
    }

    fn is_followed_by(&self, record: Exception) -> bool {
        !self.first.is_end()
            && self.first.old.0.checked_add(self.count) == Some(record.old.0)
            && self.first.new.0.checked_add(self.count) == Some(record.new.0)
    }
}

impl RawMetadata {
    /// Where the slots of a descriptor are in such chunks, and their bytes: zeros where the file ends before.
    pub(crate) fn descriptor_slots(&self) -> Option<([u64; 2], [[u8; DESCRIPTOR_SLOT_SIZE]; 2])> {
        let offsets = Descriptor::slot_offsets(self.chunk_size)?;
        let bytes = |offset: u64| {
            let slot = self.slots.iter().find(|slot| slot.offset == offset);
            slot.map_or([0; DESCRIPTOR_SLOT_SIZE], |slot| slot.bytes)
        };
        Some((offsets, offsets.map(bytes)))
    }

    /// Where chunks lie.
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.chunk_size)
    }

    /// The records of the log in order with their numbers, up to its end.
    pub fn log(&self) -> impl Iterator<Item = (u64, Exception)> + '_ {
        let per_area = self.geometry().exceptions_per_area();
        let ends = self.areas.iter().map(RawArea::terminator);
        let areas = 1 + ends.clone().take_while(Option::is_none).count();
        // An area list may have gaps, a log may not.
        let in_order = (0..).zip(&self.areas).take(areas);
        let in_order = in_order.take_while(|(number, area)| *number == area.number);
        in_order.flat_map(move |(number, area)| {
            let end = area.terminator().unwrap_or(area.slots);
            let runs = area.runs.iter().take_while(move |run| run.slot < end);
            runs.flat_map(move |run| {
                let index = number * per_area + run.slot;
                (index..).zip(run.first.run(run.count))
            })
        })
    }

    /// Records behind the end of the log in its last area.
    pub fn stale(&self) -> u64 {
        let last = self
            .areas
            .iter()
            .find_map(|area| Some((area, area.terminator()?)));
        last.map_or(0, |(area, end)| {
            let behind = area.runs.iter().filter(|run| run.slot >= end);
            behind.map(|run| run.count).sum()
        })
    }

    /// Refuses what no file can hold. Whether it makes a good store is another question.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with the area at fault.
    pub fn check_form(&self) -> Result<()> {
        let geometry = self.geometry();
        let mut least = 0;
        for area in &self.areas {
            let fault = match geometry
                .area_chunk(area.number)
                .and_then(|chunk| geometry.byte_offset(chunk))
            {
                None => Some("no file has an area of this number".to_owned()),
                Some(_) if area.number < least => Some("areas are not in order".to_owned()),
                Some(_) => area.check(geometry).err(),
            };
            if let Some(fault) = fault {
                let message = format!("area {}: {fault}", area.number);
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            least = area.number + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(old: u64, new: u64) -> Exception {
        Exception {
            old: OriginChunk(old),
            new: CowChunk(new),
        }
    }

    fn area(records: &[(u64, u64)]) -> RawArea {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|&(old, new)| record(old, new).encode())
            .collect();
        let mut area = RawArea::new(0);
        // In two pieces, as a large area is read.
        let (first, second) = bytes.split_at(32);
        area.append(first).unwrap();
        area.append(second).unwrap();
        assert_eq!(area.encode(0, area.slots), bytes);
        assert_eq!(area.encode(1, 2), bytes[16..48]);
        area
    }

    #[test]
    fn test_runs_are_found_and_written_back() {
        let found = area(&[
            (5, 2),
            (6, 3),
            (7, 4),
            (9, 5),
            (0, 0),
            (77, 0),
            (78, 1),
            (1, 9),
        ]);
        let runs: Vec<(u64, u64)> = found.runs.iter().map(|run| (run.slot, run.count)).collect();
        assert_eq!(runs, [(0, 3), (3, 1), (5, 1), (6, 1), (7, 1)]);
        assert_eq!(found.terminator(), Some(4));
        assert_eq!(area(&[(5, 2), (77, 0), (6, 3)]).terminator(), Some(1));
        assert_eq!(area(&[(0, 0), (0, 0), (6, 3)]).terminator(), Some(0));
        assert_eq!(area(&[(5, 2), (6, 3), (9, 9)]).terminator(), None);
        let last = u64::MAX;
        assert_eq!(area(&[(last, last), (0, 0), (0, 0)]).runs.len(), 1);
    }

    #[test]
    fn test_impossible_areas_are_refused() {
        let geometry = Geometry::new(ChunkSize::MIN);
        let run = |slot, first, count| RawRun { slot, first, count };
        let check = |slots, runs: &[RawRun]| {
            let runs = runs.to_vec();
            RawArea {
                number: 0,
                slots,
                runs,
            }
            .check(geometry)
        };
        check(32, &[run(0, record(1, 2), 31), run(31, record(9, 0), 1)]).unwrap();
        assert!(check(33, &[]).is_err());
        assert!(check(32, &[run(0, record(1, 2), 33)]).is_err());
        assert!(check(32, &[run(3, record(1, 2), 2), run(4, record(9, 9), 1)]).is_err());
        assert!(check(32, &[run(3, record(1, 2), 0)]).is_err());
        assert!(check(32, &[run(3, record(u64::MAX, 2), 2)]).is_err());
        assert!(check(32, &[run(3, record(1, 0), 2)]).is_err());
        assert!(check(32, &[run(u64::MAX, record(1, 2), 2)]).is_err());
    }
}
