//! Locks on byte ranges, held for one transfer each.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Held {
    ticket: u64,
    range: Range<u64>,
    exclusive: bool,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Held>,
    next_ticket: u64,
    waiting: usize,
}

/// Shared and exclusive locks on byte ranges. As many are held as calls are under way, so a list is searched.
#[derive(Debug, Default)]
pub(super) struct RangeLocks {
    state: Mutex<State>,
    released: Condvar,
}

/// A lock on a range until dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    ticket: u64,
}

impl RangeLocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing that overlaps `range` is held, other than shared locks if this one is shared too.
    pub(super) fn acquire(&self, range: Range<u64>, exclusive: bool) -> RangeGuard<'_> {
        let mut state = self.state();
        while state.held.iter().any(|held| {
            (exclusive || held.exclusive)
                && held.range.start < range.end
                && range.start < held.range.end
        }) {
            state.waiting += 1;
            state = self
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.held.push(Held {
            ticket,
            range,
            exclusive,
        });
        RangeGuard {
            locks: self,
            ticket,
        }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        state.held.retain(|held| held.ticket != self.ticket);
        if state.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    #[test]
    fn test_exclusive_waits_for_overlap_only() {
        let locks = RangeLocks::default();
        let first = locks.acquire(0..4096, false);
        let _same = locks.acquire(0..4096, false);
        let _other = locks.acquire(4096..8192, true);
        drop(first);
        assert_eq!(locks.state().held.len(), 2);
    }

    #[test]
    fn test_exclusive_holders_never_meet() {
        let locks = RangeLocks::default();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let (locks, inside) = (&locks, &inside);
                scope.spawn(move || {
                    for round in 0..500 {
                        let exclusive = (round + thread) % 3 == 0;
                        let _guard = locks.acquire(thread..thread + 8, exclusive);
                        let add = if exclusive { 1000 } else { 1 };
                        let before = inside.fetch_add(add, Ordering::SeqCst);
                        assert!(before == 0 || (!exclusive && before < 1000), "{before}");
                        inside.fetch_sub(add, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
