//! Pins: what is in use by I/O that the store cannot see.
//!
//! Pins are counted in two phases. A chunk that is freed waits until every pin taken before has been released; for that it is
//! enough that the phase of that time drains, and new pins are counted in the other phase meanwhile, so waiting ends under any load.

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Proof that ranges the store handed out are in use. Give it back with [`Pins::unpin`].
#[derive(Debug)]
#[must_use = "a pin that is never released keeps freed chunks from being reused"]
pub struct Pin {
    phase: usize,
}

impl Pin {
    /// The pin as a number, for hosts that keep it across a C boundary.
    pub fn into_raw(self) -> u64 {
        self.phase as u64
    }

    /// The pin again. `raw` must come from [`Pin::into_raw`] and be used once; other numbers count as phase 0 or 1 by their last bit.
    pub fn from_raw(raw: u64) -> Pin {
        Pin {
            phase: (raw & 1) as usize,
        }
    }
}

/// Counters of the pins of one store. Shared, so that a release needs no lock.
#[derive(Debug, Default)]
pub struct Pins {
    phase: AtomicUsize,
    counts: [AtomicU64; 2],
    awaited: AtomicBool,
}

impl Pins {
    /// Takes a pin. Call it under the same (shared) lock as the look-up it protects.
    pub fn pin(&self) -> Pin {
        let phase = self.phase.load(Ordering::Acquire) & 1;
        self.counts[phase].fetch_add(1, Ordering::AcqRel);
        Pin { phase }
    }

    /// Releases a pin. Returns whether the store waits for this, so that the host should wake those who got "wait".
    pub fn unpin(&self, pin: Pin) -> bool {
        let count = &self.counts[pin.phase & 1];
        let before = count.fetch_sub(1, Ordering::SeqCst);
        if before == 0 {
            // Released twice across a C boundary: a count below zero would have freed chunks wait for ever.
            count.fetch_add(1, Ordering::SeqCst);
        }
        before <= 1 && self.awaited.load(Ordering::SeqCst)
    }

    /// Sequentially consistent with the counts: who sets this and then finds a pin is told when that goes.
    pub(crate) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }

    /// Whether no pin is out in the older phase, so that it can become the current one.
    pub(crate) fn older_is_drained(&self) -> bool {
        let older = 1 - (self.phase.load(Ordering::Acquire) & 1);
        self.counts[older].load(Ordering::SeqCst) == 0
    }

    /// Makes the drained older phase the current one. Only under the store's exclusive lock.
    pub(crate) fn flip(&self) {
        self.phase.fetch_xor(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_phase_drains_only_when_its_own_pins_are_released() {
        let pins = Pins::default();
        let first = pins.pin();
        assert!(pins.older_is_drained());
        pins.flip();
        let second = pins.pin();
        assert!(!pins.older_is_drained());
        pins.set_awaited(true);
        assert!(pins.unpin(first), "the store waits for the older phase");
        assert!(pins.older_is_drained());
        pins.flip();
        assert!(!pins.older_is_drained());
        assert!(pins.unpin(second));
        assert!(pins.older_is_drained());
    }

    /// Where C keeps pins as numbers, one may be released twice, or be none.
    #[test]
    fn test_a_pin_that_is_not_out_is_not_missed() {
        let pins = Pins::default();
        for raw in [0, 1, u64::MAX] {
            assert!(!pins.unpin(Pin::from_raw(raw)));
            assert!(pins.older_is_drained());
            pins.flip();
        }
        let pin = pins.pin();
        pins.flip();
        assert!(!pins.older_is_drained());
        assert!(!pins.unpin(pin));
        assert!(pins.older_is_drained());
    }
}
