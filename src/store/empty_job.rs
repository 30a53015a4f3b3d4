//! Dropping all exceptions at once: the first record becomes the terminator.

use super::job::Job;
use super::log::{Log, zero_steps};
use super::plan::{Device, Purpose, Step};
use super::state::Progress;
use super::store::Store;
use super::table::ExceptionTable;
use crate::error::Result;
use crate::units::{ByteRange, CowChunk, EXCEPTION_SIZE};

#[derive(Debug)]
pub(crate) struct EmptyJob {
    began: bool,
    finished: bool,
}

impl Store {
    /// Begins to drop every exception, so that the origin shows through everywhere. Exceptions in flight are waited for, and until the job
    /// is over new ones have to wait. A write that runs beside it may come before or after.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) while another job is under way;
    /// [`ErrorKind::MergeFailed`](crate::error::ErrorKind::MergeFailed) after a merge that failed.
    pub fn make_empty(&mut self) -> Result<()> {
        self.begin_job(Job::Empty(EmptyJob {
            began: false,
            finished: false,
        }))
    }
}

impl EmptyJob {
    pub(crate) fn edits_log(&self) -> bool {
        self.began && !self.finished
    }

    /// An exception that completed while the records are cleared would keep a chunk that counts as free.
    pub(crate) fn holds_first_writes(&self) -> bool {
        !self.finished
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        if self.finished {
            return Ok(Progress::Done);
        }
        if !store.in_flight.is_empty() {
            return Ok(Progress::Wait);
        }
        if !self.began
            && let Some(progress) = store.quiesce()?
        {
            return Ok(progress);
        }
        self.began = true;
        let start = store.chunk_size().bytes();
        let block = store.log.block();
        let used = store.log.end_in_area(0) * EXCEPTION_SIZE;
        let mut steps = Vec::new();
        // The first block ends the log, whichever of the others a crash leaves.
        steps.extend(zero_steps(ByteRange::new(start, block)));
        steps.push(Step::Flush {
            device: Device::Cow,
        });
        if used > block {
            let rest = used.next_multiple_of(block) - block;
            steps.extend(zero_steps(ByteRange::new(start + block, rest)));
            steps.push(Step::Flush {
                device: Device::Cow,
            });
        }
        Ok(store.job_plan(Purpose::Drop, steps))
    }

    pub(crate) fn done(&mut self, store: &mut Store) {
        let table = std::mem::take(&mut store.table);
        for run in table.iter() {
            store.free_when_unpinned(run.new, run.len);
        }
        store.table = ExceptionTable::default();
        store.log = Log::new(store.geometry, 0, Vec::new(), false);
        store.repeated = 0;
        for (_, new) in std::mem::take(&mut store.strays) {
            store.free_when_unpinned(CowChunk(new), 1);
        }
        store.release_unpinned();
        self.finished = true;
    }
}
