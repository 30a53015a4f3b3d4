//! Durability: commits of what the store has pending, shared by those who flush at the same time.

use crate::sync::atomic::Ordering;
use crate::sync::{Condvar, Mutex, PoisonError};

use super::layer::Layer;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::store::{Commit, Purpose};

/// Rounds of flushing. A caller is served by any round that began after it called; callers who come while a round runs share the next.
#[derive(Debug, Default)]
pub(crate) struct FlushRounds {
    state: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    running: bool,
    /// How the last round ended.
    error: Option<Error>,
}

impl FlushRounds {
    pub(crate) fn join(&self, round: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = state.begun + 1;
        while state.running {
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            if state.ended >= wanted {
                return state
                    .error
                    .as_ref()
                    .map_or(Ok(()), |error| Err(error.duplicate()));
            }
        }
        state.begun += 1;
        state.running = true;
        drop(state);
        let running = Running {
            rounds: self,
            told: false,
        };
        let result = round();
        running.end(result.as_ref().err().map(Error::duplicate));
        result
    }
}

/// Ends the round even if it panics. Those who wait for it are not told that all is well then.
struct Running<'a> {
    rounds: &'a FlushRounds,
    told: bool,
}

impl Running<'_> {
    fn end(mut self, error: Option<Error>) {
        self.told = true;
        self.rounds
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .error = error;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self
            .rounds
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.told {
            let message = "a thread panicked while it flushed for others";
            state.error = Some(Error::new(ErrorKind::Internal, message));
        }
        state.running = false;
        state.ended = state.begun;
        drop(state);
        self.rounds.ended.notify_all();
    }
}

impl Layer {
    /// Returns once everything written before is durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_rounds.join(|| self.flush_round())
    }

    fn flush_round(&self) -> Result<()> {
        if self.origin_written.load(Ordering::Acquire) {
            self.latching(self.origin.flush())?;
        }
        // A plan that failed for want of space comes back as it was; what completed since needs a second one. More are not needed: what
        // completes while they run belongs to a later flush.
        let (mut plans, mut freed) = (0, false);
        while plans < 2 {
            let seen = self.changed.generation();
            let commit = self.store_mut()?.commit_exceptions();
            match commit.map_err(|error| self.named(error))? {
                Commit::Plan(plan) => {
                    // What a cancelled job has to finish first does not count.
                    let is_commit = plan.purpose() == Purpose::Commit;
                    self.run(plan)?;
                    plans += u32::from(is_commit);
                    freed |= !is_commit;
                }
                Commit::Wait if self.facts().is_out_of_space() => {
                    return Err(self.out_of_space());
                }
                Commit::Wait => self.changed.wait(seen),
                Commit::Clean if plans > 0 => break,
                Commit::Clean => {
                    self.latching(self.cow.flush())?;
                    break;
                }
            }
        }
        if freed {
            self.reclaim();
        }
        Ok(())
    }

    /// After a failed flush nobody knows what is durable, and the next one that succeeds would not tell: the store takes no more writes.
    fn latching(&self, flushed: Result<()>) -> Result<()> {
        flushed.inspect_err(|error| {
            if let Ok(mut store) = self.store_mut() {
                store.fail(error);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    /// One thread's round panics; none of those who waited for it may take their data for durable.
    #[test]
    fn test_a_round_that_panics_is_no_success_for_those_who_waited() {
        const THREADS: usize = 4;
        let served = AtomicUsize::new(0);
        for _ in 0..200 {
            let (rounds, start) = (FlushRounds::default(), Barrier::new(THREADS));
            let flush = || {
                start.wait();
                let round = || {
                    // Time for the others to come.
                    (0..100).for_each(|_| thread::yield_now());
                    panic!("on purpose");
                };
                match catch_unwind(AssertUnwindSafe(|| rounds.join(round))) {
                    Ok(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Internal);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Ok(())) => unreachable!("no round ended well"),
                    Err(_) => {}
                }
            };
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(flush);
                }
            });
        }
        assert!(served.load(Ordering::Relaxed) > 0, "nobody waited");
    }
}
