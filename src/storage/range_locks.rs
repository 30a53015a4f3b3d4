//! Locks on byte ranges, held for one transfer each.
#![forbid(unsafe_code)]

use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::ops::Range;

/// A lock that is held or waited for.
#[derive(Debug)]
struct Claim {
    ticket: u64,
    range: Range<u64>,
    exclusive: bool,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of arrival.
    claims: Vec<Claim>,
    next_ticket: u64,
    waiting: usize,
}

/// Shared and exclusive locks on byte ranges. As many are held as calls are under way, so a list is searched.
///
/// Who came first is served first: a lock waits for all earlier ones that it conflicts with, those included that wait themselves, or a
/// wide exclusive one would never come about among many short shared ones. Nobody may hold one and ask for another.
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

    /// Waits until nothing that overlaps `range` and was asked for earlier is left, other than shared locks if this one is shared too.
    pub(super) fn acquire(&self, range: Range<u64>, exclusive: bool) -> RangeGuard<'_> {
        let mut state = self.state();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.claims.push(Claim {
            ticket,
            range: range.clone(),
            exclusive,
        });
        while state.must_wait(ticket, &range, exclusive) {
            state.waiting += 1;
            state = self
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        RangeGuard {
            locks: self,
            ticket,
        }
    }
}

impl State {
    fn must_wait(&self, ticket: u64, range: &Range<u64>, exclusive: bool) -> bool {
        let earlier = self.claims.iter().take_while(|claim| claim.ticket < ticket);
        let mut conflicts = earlier.filter(|claim| exclusive || claim.exclusive);
        conflicts.any(|claim| claim.range.start < range.end && range.start < claim.range.end)
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        state.claims.retain(|claim| claim.ticket != self.ticket);
        if state.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(all(test, not(shuttle)))]
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
        assert_eq!(locks.state().claims.len(), 2);
    }

    /// Among many writers of single blocks the one who changes the file's size would wait for ever.
    #[test]
    fn test_a_later_lock_does_not_overtake_one_that_waits() {
        let locks = RangeLocks::default();
        let first = locks.acquire(0..4096, false);
        let order = Mutex::new(Vec::new());
        let wait_for = |waiting| {
            while locks.state().waiting < waiting && order.lock().unwrap().is_empty() {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let (locks, order) = (&locks, &order);
            let take = move |range, exclusive, name| {
                let _guard = locks.acquire(range, exclusive);
                order.lock().unwrap().push(name);
            };
            scope.spawn(move || take(0..u64::MAX, true, "size"));
            wait_for(1);
            scope.spawn(move || take(8192..12288, false, "late"));
            wait_for(2);
            assert_eq!(*order.lock().unwrap(), Vec::<&str>::new());
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), ["size", "late"]);
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
