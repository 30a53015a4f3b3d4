//! A storage that counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hooked::{Call, CallKinds, Hook, Hooked, Verdict};
use crate::storage::SharedStorage;

const KINDS: usize = CallKinds::all().bits().trailing_ones() as usize;

/// Calls and bytes by kind.
#[derive(Debug, Default)]
pub struct Counting {
    calls: [AtomicU64; KINDS],
    bytes: [AtomicU64; KINDS],
}

impl Counting {
    fn sum(counters: &[AtomicU64; KINDS], kinds: CallKinds) -> u64 {
        let chosen = counters
            .iter()
            .enumerate()
            .filter(|&(bit, _)| kinds.bits() >> bit & 1 == 1);
        chosen
            .map(|(_, counter)| counter.load(Ordering::Relaxed))
            .sum()
    }
}

impl Hook for Counting {
    fn before(&self, call: &Call) -> Verdict {
        let bit = call.kind.bits().trailing_zeros() as usize;
        self.calls[bit].fetch_add(1, Ordering::Relaxed);
        self.bytes[bit].fetch_add(call.range.len, Ordering::Relaxed);
        Verdict::Proceed
    }
}

/// A storage that counts the calls that pass through it.
pub type CountingStorage = Hooked<Counting>;

impl CountingStorage {
    /// Passes everything on to `inner` and counts from 0.
    pub fn new(inner: SharedStorage) -> CountingStorage {
        Hooked::with_hook(inner, Counting::default())
    }

    /// Calls of these kinds since the beginning or the last reset, failed ones included.
    pub fn calls(&self, kinds: CallKinds) -> u64 {
        Counting::sum(&self.hook.calls, kinds)
    }

    /// Bytes that calls of these kinds were about.
    pub fn bytes(&self, kinds: CallKinds) -> u64 {
        Counting::sum(&self.hook.bytes, kinds)
    }

    /// Counts from 0 again.
    pub fn reset(&self) {
        for counter in self.hook.calls.iter().chain(&self.hook.bytes) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Storage};
    use crate::units::ByteRange;
    use std::sync::Arc;

    #[test]
    fn test_calls_and_bytes_are_counted_by_kind() {
        let storage = CountingStorage::new(Arc::new(MemoryStorage::new()));
        storage.write_at(&[1; 100], 0).unwrap();
        storage.write_at(&[1; 50], 0).unwrap();
        storage.write_zeroes(ByteRange::new(0, 7), true).unwrap();
        storage.read_at(&mut [0; 3], 0).unwrap();
        storage.flush().unwrap();
        assert_eq!(storage.calls(CallKinds::WRITE), 2);
        assert_eq!(storage.bytes(CallKinds::WRITE), 150);
        assert_eq!(storage.bytes(CallKinds::MUTATING), 157);
        assert_eq!(
            (
                storage.calls(CallKinds::READ),
                storage.bytes(CallKinds::READ)
            ),
            (1, 3)
        );
        assert_eq!(storage.calls(CallKinds::all()), 5);
        storage.reset();
        assert_eq!(storage.calls(CallKinds::all()), 0);
    }
}
