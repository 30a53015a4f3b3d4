//! The gate that everything which changes content passes, so that a snapshot can hold it up for a moment.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const CLOSED: u64 = 1;
const ONE: u64 = 2;

/// Counts operations under way. No lock is held while they run; a closed gate keeps new ones out.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Operations inside times two, plus one while it is closed.
    state: AtomicU64,
    mutex: Mutex<()>,
    changed: Condvar,
    closer: Mutex<()>,
}

/// An operation inside the gate.
#[derive(Debug)]
pub(crate) struct Passage<'a>(&'a Gate);

/// The gate is closed and nobody is inside. It opens when this is dropped.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
    _closer: MutexGuard<'a, ()>,
}

impl Gate {
    /// Passes, or waits until the gate is open.
    pub(crate) fn enter(&self) -> Passage<'_> {
        while self.state.fetch_add(ONE, Ordering::AcqRel) & CLOSED != 0 {
            self.leave();
            let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
            while self.state.load(Ordering::Acquire) & CLOSED != 0 {
                guard = self
                    .changed
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        Passage(self)
    }

    /// Keeps new operations out and returns when those inside have ended. The caller must not be inside.
    pub(crate) fn close(&self) -> Closed<'_> {
        let closer = self.closer.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        let closed = Closed {
            gate: self,
            _closer: closer,
        };
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        while self.state.load(Ordering::Acquire) != CLOSED {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        closed
    }

    fn leave(&self) {
        if self.state.fetch_sub(ONE, Ordering::AcqRel) == ONE | CLOSED {
            self.wake();
        }
    }

    fn wake(&self) {
        drop(self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.state.fetch_and(!CLOSED, Ordering::AcqRel);
        self.gate.wake();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn test_close_waits_for_those_inside_and_holds_up_the_others() {
        let gate = Gate::default();
        let passed = AtomicUsize::new(0);
        let inside = gate.enter();
        thread::scope(|scope| {
            let (closed_tx, closed_rx) = mpsc::channel();
            let (open_tx, open_rx) = mpsc::channel::<()>();
            let (gate, passed) = (&gate, &passed);
            scope.spawn(move || {
                let closed = gate.close();
                closed_tx.send(()).unwrap();
                open_rx.recv().unwrap();
                assert_eq!(passed.load(Ordering::SeqCst), 0);
                drop(closed);
            });
            while gate.state.load(Ordering::SeqCst) & CLOSED == 0 {
                thread::yield_now();
            }
            assert!(
                closed_rx.try_recv().is_err(),
                "closed with an operation inside"
            );
            let late = scope.spawn(move || {
                let _passage = gate.enter();
                passed.fetch_add(1, Ordering::SeqCst);
            });
            drop(inside);
            closed_rx.recv().unwrap();
            open_tx.send(()).unwrap();
            late.join().unwrap();
        });
        assert_eq!(passed.load(Ordering::SeqCst), 1);
        drop(gate.close());
    }
}
