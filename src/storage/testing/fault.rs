//! A storage that fails when told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hooked::{Call, CallKinds, Hook, Hooked, Verdict};
use crate::storage::SharedStorage;

/// When and how a call fails. By default the next call of kind [`CallKinds::IO`], once, with EIO, before it has done anything.
#[derive(Clone, Debug)]
pub struct Fault {
    kinds: CallKinds,
    passes: u64,
    errno: i32,
    forever: bool,
    after: u64,
}

impl Fault {
    /// The next call of these kinds fails.
    pub fn on(kinds: CallKinds) -> Fault {
        Fault {
            kinds,
            passes: 0,
            errno: libc::EIO,
            forever: false,
            after: 0,
        }
    }

    /// The `n`-th call of the kinds fails, counted from 1 when the fault is armed.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Fault {
        self.passes = n.saturating_sub(1);
        self
    }

    /// The error that the call reports.
    #[must_use]
    pub fn errno(mut self, errno: i32) -> Fault {
        self.errno = errno;
        self
    }

    /// All later calls of the kinds fail too.
    #[must_use]
    pub fn forever(mut self) -> Fault {
        self.forever = true;
        self
    }

    /// The first `bytes` of a write or a write of zeroes reach the storage nevertheless.
    #[must_use]
    pub fn after_bytes(mut self, bytes: u64) -> Fault {
        self.after = bytes;
        self
    }
}

/// The faults that wait for their call.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Mutex<Vec<Fault>>,
    fired: AtomicU64,
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hook for Faults {
    fn before(&self, call: &Call) -> Verdict {
        let mut armed = self.armed();
        let mut verdict = Verdict::Proceed;
        // Every fault counts the call; the one that was armed first and is due decides.
        armed.retain_mut(|fault| {
            if !fault.kinds.contains(call.kind) {
                return true;
            }
            if fault.passes > 0 {
                fault.passes -= 1;
                return true;
            }
            if verdict == Verdict::Proceed {
                verdict = Verdict::Fail {
                    errno: fault.errno,
                    after: fault.after,
                };
                self.fired.fetch_add(1, Ordering::Relaxed);
                return fault.forever;
            }
            true
        });
        verdict
    }
}

/// A storage that fails the calls that armed [`Fault`]s choose.
pub type FaultStorage = Hooked<Faults>;

impl FaultStorage {
    /// Passes everything on to `inner` until a fault is armed.
    pub fn new(inner: SharedStorage) -> FaultStorage {
        Hooked::with_hook(inner, Faults::default())
    }

    /// Arms a fault; its count of calls starts now.
    pub fn arm(&self, fault: Fault) {
        self.hook.armed().push(fault);
    }

    /// Removes all faults.
    pub fn disarm(&self) {
        self.hook.armed().clear();
    }

    /// Calls that have failed so far.
    pub fn fired(&self) -> u64 {
        self.hook.fired.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::{MemoryStorage, Storage};
    use crate::units::ByteRange;
    use std::sync::Arc;

    fn faulty() -> FaultStorage {
        FaultStorage::new(Arc::new(MemoryStorage::with_size(4096)))
    }

    #[test]
    fn test_the_nth_call_of_the_kinds_fails_once() {
        let storage = faulty();
        storage.arm(
            Fault::on(CallKinds::WRITE | CallKinds::FLUSH)
                .nth(3)
                .errno(libc::ENOSPC),
        );
        storage.write_at(&[1; 8], 0).unwrap();
        storage.read_at(&mut [0; 8], 0).unwrap();
        storage.flush().unwrap();
        let error = storage.write_at(&[2; 8], 16).unwrap_err();
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::NoSpace, libc::ENOSPC)
        );
        assert_eq!((error.path(), error.offset()), (Some("memory"), Some(16)));
        let mut back = [9; 8];
        storage.read_at(&mut back, 16).unwrap();
        assert_eq!(back, [0; 8], "nothing was written");
        storage.write_at(&[2; 8], 16).unwrap();
        assert_eq!(storage.fired(), 1);
    }

    #[test]
    fn test_a_fault_for_ever_lasts_until_disarmed() {
        let storage = faulty();
        storage.arm(Fault::on(CallKinds::IO).nth(2).forever());
        storage.flush().unwrap();
        for _ in 0..3 {
            assert_eq!(storage.flush().unwrap_err().kind(), ErrorKind::Io);
            assert!(storage.read_at(&mut [0; 1], 0).is_err());
        }
        storage.size().unwrap();
        storage.disarm();
        storage.flush().unwrap();
        assert_eq!(storage.fired(), 6);
    }

    #[test]
    fn test_a_fault_can_let_a_beginning_through() {
        let storage = faulty();
        storage.write_at(&[1; 2000], 0).unwrap();
        storage.arm(Fault::on(CallKinds::WRITE).after_bytes(512));
        storage.arm(Fault::on(CallKinds::WRITE_ZEROES).after_bytes(100));
        assert!(storage.write_at(&[2; 1500], 100).is_err());
        assert!(storage.write_zeroes(ByteRange::new(0, 1000), true).is_err());
        let mut back = [0; 2000];
        storage.read_at(&mut back, 0).unwrap();
        let expected = [vec![0; 100], vec![2; 512], vec![1; 1388]].concat();
        assert!(back[..] == expected);
    }
}
