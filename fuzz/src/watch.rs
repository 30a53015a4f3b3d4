//! A storage in memory that panics when it is used as no storage may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use dmsnap::storage::testing::{Call, CallKinds, FaultStorage, Hook, Hooked, Verdict};
use dmsnap::storage::{MemoryStorage, SharedStorage, Storage};

#[derive(Debug)]
struct Watch {
    storage: Arc<MemoryStorage>,
    may_write: Arc<AtomicBool>,
    /// Where writes have to end.
    end: Arc<AtomicU64>,
}

impl Hook for Watch {
    fn before(&self, call: &Call) -> Verdict {
        let range = call.range;
        let end = range
            .start
            .checked_add(range.len)
            .expect("a range that ends");
        let size = self.storage.size().expect("memory has a size");
        match call.kind {
            CallKinds::READ => assert!(end <= size, "a read up to {end} of {size}"),
            CallKinds::WRITE
            | CallKinds::WRITE_ZEROES
            | CallKinds::SET_SIZE
            | CallKinds::DISCARD => {
                assert!(
                    self.may_write.load(Relaxed),
                    "changed, though only read: {call:?}"
                );
                let most = self.end.load(Relaxed).max(size);
                assert!(end <= most, "{call:?} ends past {most}");
            }
            _ => {}
        }
        Verdict::Proceed
    }
}

/// A watched storage, which fails on demand too.
#[derive(Clone, Debug)]
pub struct Watched {
    pub memory: Arc<MemoryStorage>,
    pub faults: Arc<FaultStorage>,
    may_write: Arc<AtomicBool>,
    end: Arc<AtomicU64>,
}

impl Watched {
    /// Nothing may be written until [`Watched::allow`] says so.
    pub fn new(memory: MemoryStorage) -> Watched {
        Watched::over(Arc::new(memory))
    }

    /// The same with a storage that exists.
    pub fn over(memory: Arc<MemoryStorage>) -> Watched {
        let (may_write, end) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let watch = Watch {
            storage: Arc::clone(&memory),
            may_write: Arc::clone(&may_write),
            end: Arc::clone(&end),
        };
        let hooked: SharedStorage = Arc::new(Hooked::with_hook(
            Arc::clone(&memory) as SharedStorage,
            watch,
        ));
        Watched {
            memory,
            faults: Arc::new(FaultStorage::new(hooked)),
            may_write,
            end,
        }
    }

    /// Allows changes up to byte `end`, or below the present size.
    pub fn allow(&self, end: u64) {
        self.may_write.store(true, Relaxed);
        self.end.store(end, Relaxed);
    }

    pub fn forbid(&self) {
        self.may_write.store(false, Relaxed);
    }

    pub fn shared(&self) -> SharedStorage {
        Arc::clone(&self.faults) as SharedStorage
    }

    pub fn size(&self) -> u64 {
        self.memory.size().expect("memory has a size")
    }
}
