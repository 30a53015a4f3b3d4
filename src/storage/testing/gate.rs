//! A storage that holds chosen calls until they are released.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::hooked::{Call, CallKinds, Hook, Hooked, Verdict};
use crate::storage::SharedStorage;
use crate::units::ByteRange;

/// No test waits this long unless it would wait for ever.
const FOR_EVER: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    arrived: usize,
}

#[derive(Debug)]
struct Barrier {
    kinds: CallKinds,
    range: ByteRange,
    is_behind: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Barrier {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn concerns(&self, call: &Call) -> bool {
        let (mine, theirs) = (self.range, call.range);
        let overlaps = theirs.start < mine.end() && mine.start < theirs.start + theirs.len.max(1);
        self.kinds.contains(call.kind) && (call.kind == CallKinds::FLUSH || overlaps)
    }

    fn pass(&self) {
        let mut state = self.state();
        state.arrived += 1;
        self.changed.notify_all();
        let (state, waited) = self
            .changed
            .wait_timeout_while(state, FOR_EVER, |state| !state.is_open)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        assert!(!waited.timed_out(), "a held call was never released");
    }
}

/// Holds calls until it is released or dropped.
#[derive(Debug)]
#[must_use]
pub struct Gate(Arc<Barrier>);

impl Gate {
    /// Waits until `count` calls have come to the gate.
    ///
    /// # Panics
    /// If they do not come within two minutes.
    pub fn wait_for(&self, count: usize) {
        let state = self.0.state();
        let (state, waited) = self
            .0
            .changed
            .wait_timeout_while(state, FOR_EVER, |state| state.arrived < count)
            .unwrap_or_else(PoisonError::into_inner);
        let arrived = state.arrived;
        drop(state);
        assert!(
            !waited.timed_out(),
            "{arrived} of {count} calls came to the gate"
        );
    }

    /// Calls that have come to the gate so far.
    pub fn arrived(&self) -> usize {
        self.0.state().arrived
    }

    /// Lets all calls pass, now and later.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.state().is_open = true;
        self.0.changed.notify_all();
    }
}

/// The gates of a storage.
#[derive(Debug, Default)]
pub struct Gates(Mutex<Vec<Arc<Barrier>>>);

impl Gates {
    fn pass(&self, call: &Call, is_behind: bool) {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |gate: &&Arc<Barrier>| gate.is_behind == is_behind && gate.concerns(call);
        let mine: Vec<_> = gates.iter().filter(mine).cloned().collect();
        drop(gates);
        mine.iter().for_each(|gate| gate.pass());
    }
}

impl Hook for Gates {
    fn before(&self, call: &Call) -> Verdict {
        self.pass(call, false);
        Verdict::Proceed
    }

    fn after(&self, call: &Call) {
        self.pass(call, true);
    }
}

/// A storage that can hold calls.
pub type GateStorage = Hooked<Gates>;

impl GateStorage {
    /// Passes everything on to `inner` until a gate is set up.
    pub fn new(inner: SharedStorage) -> GateStorage {
        Hooked::with_hook(inner, Gates::default())
    }

    /// Holds calls of these kinds that touch `range` (flushes always) before they have done anything.
    pub fn hold(&self, kinds: CallKinds, range: ByteRange) -> Gate {
        self.add(kinds, range, false)
    }

    /// Holds such calls after they have done all, but before their caller learns of it.
    pub fn hold_return(&self, kinds: CallKinds, range: ByteRange) -> Gate {
        self.add(kinds, range, true)
    }

    fn add(&self, kinds: CallKinds, range: ByteRange, is_behind: bool) -> Gate {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let gate = Arc::new(Barrier {
            kinds,
            range,
            is_behind,
            state,
            changed,
        });
        let mut gates = self.hook.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|gate| !gate.state().is_open);
        gates.push(Arc::clone(&gate));
        Gate(gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Storage};
    use std::thread;

    #[test]
    fn test_a_held_write_waits_while_others_pass() {
        let storage = GateStorage::new(Arc::new(MemoryStorage::with_size(8192)));
        let gate = storage.hold(CallKinds::WRITE, ByteRange::new(0, 4096));
        thread::scope(|scope| {
            let held = scope.spawn(|| storage.write_at(&[1; 10], 4090));
            gate.wait_for(1);
            storage.write_at(&[2; 10], 4096).unwrap();
            let mut back = [9; 20];
            storage.read_at(&mut back, 4086).unwrap();
            assert_eq!((back[4], back[10], back[19]), (0, 2, 2));
            assert!(!held.is_finished());
            gate.release();
            held.join().unwrap().unwrap();
            storage.read_at(&mut back, 4086).unwrap();
            assert_eq!((back[4], back[10], back[19]), (1, 1, 2));
        });
        storage.write_at(&[3; 10], 0).unwrap();
    }

    #[test]
    fn test_a_call_can_be_held_after_it_was_done() {
        let storage = GateStorage::new(Arc::new(MemoryStorage::with_size(8192)));
        let gate = storage.hold_return(CallKinds::WRITE | CallKinds::FLUSH, ByteRange::new(0, 1));
        thread::scope(|scope| {
            let write = scope.spawn(|| storage.write_at(&[1; 10], 0));
            let flush = scope.spawn(|| storage.flush());
            gate.wait_for(2);
            let mut back = [9; 10];
            storage.read_at(&mut back, 0).unwrap();
            assert_eq!(back, [1; 10]);
            assert!(!write.is_finished() && !flush.is_finished());
            assert_eq!(gate.arrived(), 2);
            drop(gate);
            write.join().unwrap().unwrap();
            flush.join().unwrap().unwrap();
        });
    }
}
