//! Giving a snapshot up for ever.

use crate::sync::Arc;

use super::job::Job;
use super::plan::{Device, Purpose, Step};
use super::state::{Progress, State};
use super::store::Store;
use crate::error::Result;
use crate::format::{HEADER_SIZE, Header};
use crate::units::SECTOR_SIZE;

#[derive(Debug)]
pub(crate) struct InvalidateJob {
    finished: bool,
    /// Given up after the header may have been written: it is to be good again.
    undone: bool,
}

impl Store {
    /// Begins to invalidate the store (the kernel's `drop_snapshot`): no read or write of it succeeds afterwards.
    ///
    /// Unlike the kernel it writes the first sector only, so the descriptor survives.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) while another job is under way.
    pub fn drop_snapshot(&mut self) -> Result<()> {
        self.begin_job(Job::Invalidate(InvalidateJob {
            finished: false,
            undone: false,
        }))
    }

    pub(crate) fn invalid_header_steps(&self) -> Vec<Step> {
        let mut header = self.header;
        header.valid = 0;
        header_steps(header)
    }
}

/// One sector, which is never torn.
fn header_steps(header: Header) -> Vec<Step> {
    let mut sector = vec![0; SECTOR_SIZE as usize];
    sector[..HEADER_SIZE].copy_from_slice(&header.encode());
    let data: Arc<[u8]> = sector.into();
    vec![
        Step::Write {
            device: Device::Cow,
            offset: 0,
            data,
        },
        Step::Flush {
            device: Device::Cow,
        },
    ]
}

impl InvalidateJob {
    pub(crate) fn undo(&mut self) {
        self.undone = true;
    }

    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Progress> {
        if self.finished {
            return Ok(Progress::Done);
        }
        let steps = match self.undone {
            true => header_steps(store.header),
            false => store.invalid_header_steps(),
        };
        Ok(store.job_plan(Purpose::Invalidate, steps))
    }

    pub(crate) fn done(&mut self, store: &mut Store) {
        self.finished = true;
        if self.undone {
            return;
        }
        store.header.valid = 0;
        store.state = State::Invalid;
        // Given up with the rest.
        store.completed = Vec::new();
        store.completed_chunks = 0;
    }
}
