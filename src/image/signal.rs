//! Waiting for something to change, without a lock around what changes.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, PoisonError};

/// A counter of changes that threads can wait on.
///
/// Take [`Signal::generation`] first, then try; if the answer is "wait", wait until the generation is another. A change between the
/// two is then never missed.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    generation: AtomicU64,
    waiting: AtomicU64,
    mutex: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Tells everybody that trying again may help.
    pub(crate) fn notify(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        // A waiter announces itself before it looks at the generation, so one of the two sees the other.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Blocks while the generation is still `seen`.
    pub(crate) fn wait(&self, seen: u64) {
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.generation.load(Ordering::SeqCst) == seen {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
