//! Which records of a damaged log can be believed: those that are legal and that no other record contradicts.

use super::areas::Scan;
use super::memory;
use super::raw::RawMetadata;
use super::table::MAX_NEW_CHUNK;
use crate::error::Result;
use crate::format::Exception;
use crate::units::{ChunkSize, CowChunk, MAX_FILE_SIZE, OriginChunk};

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doubt {
    /// Its COW chunk lies outside the file, or no file can have it.
    OutOfRange,
    /// The file ends inside its COW chunk.
    Truncated,
    /// Its COW chunk holds metadata.
    Metadata,
    /// Its chunk has another exception too, with other data.
    DuplicateOldChunk,
    /// Another record has its COW chunk too.
    SharedNewChunk,
    /// Its chunk lies past the end of the disk, so it shows nothing.
    PastEnd,
    /// Its COW chunk cannot be read.
    Unreadable,
}

/// A record that is left out of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its number in the log.
    pub index: u64,
    /// The record.
    pub record: Exception,
    /// Why.
    pub doubt: Doubt,
}

/// A log, sorted out.
#[derive(Clone, Debug, Default)]
pub struct Sifted {
    /// Records that are believed, with their numbers, in the order of the disk.
    pub good: Vec<(u64, Exception)>,
    /// Those that are not, in the order of the log.
    pub left_out: Vec<LeftOut>,
    /// Records that repeat a believed one, the trace of an interrupted operation: nothing is lost with them.
    pub repeated: u64,
}

/// One record on its way, and what was found out about it.
#[derive(Clone, Copy)]
struct Candidate {
    index: u64,
    record: Exception,
    doubt: Option<Doubt>,
    repeats: bool,
}

impl Sifted {
    /// Sorts out the log of `metadata` in a file of `cow_size` bytes. `disk_size` is the size of the disk in bytes, where it is known.
    ///
    /// # Errors
    /// [`ErrorKind::NoMemory`](crate::ErrorKind::NoMemory).
    pub fn new(metadata: &RawMetadata, cow_size: u64, disk_size: Option<u64>) -> Result<Sifted> {
        let geometry = metadata.geometry();
        let scan = Scan { geometry, cow_size };
        let disk_end = disk_end(geometry.chunk_size(), disk_size);
        let mut all = memory::collect(metadata.log().map(|(index, record)| Candidate {
            index,
            record,
            doubt: scan.doubt(record.new),
            repeats: false,
        }))?;
        find_shared(&mut all);
        find_duplicates(&mut all);
        let mut sifted = Sifted::default();
        for candidate in &all {
            let Candidate { index, record, .. } = *candidate;
            let past_end = (record.old.0 >= disk_end).then_some(Doubt::PastEnd);
            match past_end.or(candidate.doubt) {
                Some(doubt) => {
                    let left = LeftOut {
                        index,
                        record,
                        doubt,
                    };
                    memory::push(&mut sifted.left_out, left)?;
                }
                None if candidate.repeats => sifted.repeated += 1,
                None => memory::push(&mut sifted.good, (index, record))?,
            }
        }
        sifted.good.sort_unstable_by_key(|(_, record)| record.old);
        sifted.left_out.sort_unstable_by_key(|left| left.index);
        Ok(sifted)
    }
}

/// The first chunk that the disk does not have.
fn disk_end(chunk: ChunkSize, disk_size: Option<u64>) -> u64 {
    let most = chunk.index_of(MAX_FILE_SIZE);
    disk_size.map_or(most, |size| chunk.count_for(size).min(most))
}

impl Scan {
    /// What is wrong with a new chunk by itself.
    fn doubt(&self, new: CowChunk) -> Option<Doubt> {
        let whole = self.geometry.whole_chunks(self.cow_size);
        if !self.geometry.is_data_chunk(new) {
            Some(Doubt::Metadata)
        } else if self.is_cut(new) {
            Some(Doubt::Truncated)
        } else if new.0 >= whole || new.0 > MAX_NEW_CHUNK {
            Some(Doubt::OutOfRange)
        } else {
            None
        }
    }
}

/// The bit of a new chunk by which [`LeftOut::marked`] records are told. No file has a chunk of such a number.
const MARK: u64 = 1 << 63;

impl LeftOut {
    /// The record made illegal, so that it is left out wherever a recovery in place stops, and yet casts the same doubt on others.
    pub(crate) fn marked(&self) -> Exception {
        Exception {
            new: CowChunk(self.record.new.0 | MARK),
            ..self.record
        }
    }
}

impl Candidate {
    /// The COW chunk, also where the record was marked.
    fn chunk(&self) -> u64 {
        self.record.new.0 & !MARK
    }
}

/// Marks records of legal COW chunks that another one has, too. A record that is in doubt for another reason counts: its word may be the true one.
fn find_shared(all: &mut [Candidate]) {
    all.sort_unstable_by_key(|candidate| {
        (candidate.chunk(), candidate.record.old, candidate.index)
    });
    for group in all.chunk_by_mut(|one, other| one.chunk() == other.chunk()) {
        let olds = |candidate: &Candidate| -> OriginChunk { candidate.record.old };
        let differ = group.first().map(olds) != group.last().map(olds);
        for candidate in group.iter_mut().filter(|_| differ) {
            candidate.doubt.get_or_insert(Doubt::SharedNewChunk);
        }
    }
}

/// Marks records of chunks that have several exceptions, unless all say the same: then the first one counts.
fn find_duplicates(all: &mut [Candidate]) {
    all.sort_unstable_by_key(|candidate| {
        (candidate.record.old, candidate.record.new, candidate.index)
    });
    for group in all.chunk_by_mut(|one, other| one.record.old == other.record.old) {
        let news = |candidate: &Candidate| -> CowChunk { candidate.record.new };
        let differ = group.first().map(news) != group.last().map(news);
        for candidate in group.iter_mut().filter(|_| differ) {
            candidate.doubt.get_or_insert(Doubt::DuplicateOldChunk);
        }
        for candidate in group.iter_mut().skip(1) {
            candidate.repeats = true;
        }
    }
}
