//! One layer: a store, the file it lives in, and what lies below.

use crate::sync::atomic::AtomicBool;
use crate::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::path::PathBuf;

use super::flush::FlushRounds;
use super::node::{Node, Origin};
use super::run;
use super::signal::Signal;
use super::tracked::Tracked;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Hold, LockMode, Storage};
use crate::store::{OverflowMode, Pin, Pins, Plan, Progress, Store};
use crate::units::ChunkSize;

/// A COW layer.
///
/// The store's lock is held for look-ups and changes of state only, never during I/O. What a look-up returned is kept from being
/// reused by a pin.
#[derive(Debug)]
pub(crate) struct Layer {
    store: RwLock<Store>,
    pins: Arc<Pins>,
    pub(crate) chunk: ChunkSize,
    pub(crate) cow: Tracked,
    pub(crate) path: Option<PathBuf>,
    pub(crate) origin: Node,
    origin_hold: Option<Hold>,
    /// Something happened that those who were told to wait may wait for.
    pub(crate) changed: Signal,
    pub(crate) flush_rounds: FlushRounds,
    /// A merge may have written to the origin what no flush covered yet.
    pub(crate) origin_written: AtomicBool,
    /// Whether running full changes the state for good, as in the kernel's modes: then space is looked for before that.
    pub(crate) full_is_final: bool,
    /// The size that the raw origin should have had, if it has another one: then it is most likely another file.
    pub(crate) recorded_origin_size: Option<u64>,
}

/// Keeps what a look-up returned from being reused until dropped.
#[derive(Debug)]
pub(crate) struct PinGuard<'a> {
    layer: &'a Layer,
    pin: Option<Pin>,
}

impl Drop for PinGuard<'_> {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take()
            && self.layer.pins.unpin(pin)
        {
            self.layer.changed.notify();
        }
    }
}

impl Layer {
    /// A layer in the storage that is held; whoever uses the layer has to keep that hold.
    pub(crate) fn new(store: Store, hold: &Hold, path: Option<PathBuf>, origin: Origin) -> Layer {
        Layer {
            pins: Arc::clone(store.pins()),
            chunk: store.chunk_size(),
            store: RwLock::new(store),
            cow: Tracked::new(Arc::clone(hold.storage())),
            path,
            origin: origin.node,
            origin_hold: origin.hold,
            changed: Signal::default(),
            flush_rounds: FlushRounds::default(),
            origin_written: AtomicBool::new(false),
            full_is_final: false,
            recorded_origin_size: None,
        }
    }

    /// For a store in one of the kernel's modes.
    pub(crate) fn with_overflow(mut self, mode: OverflowMode) -> Layer {
        self.full_is_final = mode != OverflowMode::NoSpace && !self.cow.is_growable();
        self
    }

    /// For a layer over a raw origin that has another size than the one that is recorded, this one.
    pub(crate) fn with_doubtful_origin(mut self, recorded: Option<u64>) -> Layer {
        self.recorded_origin_size = recorded;
        self
    }

    /// Claims the origin for a merge, or goes back to reading it only.
    pub(crate) fn lock_origin(&self, mode: LockMode) -> Result<()> {
        self.origin_hold
            .as_ref()
            .map_or(Ok(()), |hold| hold.change(mode))
    }

    /// The store, for look-ups.
    #[inline]
    pub(crate) fn store(&self) -> Result<RwLockReadGuard<'_, Store>> {
        self.store.read().map_err(|_| poisoned())
    }

    /// The store, for changes.
    pub(crate) fn store_mut(&self) -> Result<RwLockWriteGuard<'_, Store>> {
        self.store.write().map_err(|_| poisoned())
    }

    /// The store, for facts that cannot be half-changed.
    pub(crate) fn facts(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.facts().virtual_size()
    }

    /// A pin. To be taken under the lock of the look-up it protects.
    #[inline]
    pub(crate) fn pin(&self) -> PinGuard<'_> {
        PinGuard {
            layer: self,
            pin: Some(self.pins.pin()),
        }
    }

    /// Names the layer's file in an error of the store, which does not know it.
    pub(crate) fn named(&self, error: Error) -> Error {
        error.with_path(self.cow.name())
    }

    /// Waits for something to happen after `seen`. A plan that ran out of space may be all there is to wait for: then it is tried again.
    pub(crate) fn wait(&self, seen: u64) -> Result<()> {
        let (is_cancelling, is_out_of_space) = {
            let store = self.facts();
            (store.is_cancelling(), store.is_out_of_space())
        };
        if is_cancelling {
            return self.flush();
        }
        if is_out_of_space {
            return Err(self.out_of_space());
        }
        self.changed.wait(seen);
        Ok(())
    }

    /// Whoever tries a job again is not to be waited for: it may be the thread that would wait.
    #[cold]
    pub(crate) fn out_of_space(&self) -> Error {
        let message = "a merge or another job ran out of space half-way and has to go on first";
        self.named(Error::new(ErrorKind::NoSpace, message))
    }

    /// Runs a plan and gives it back.
    pub(crate) fn run(&self, mut plan: Plan) -> Result<()> {
        let outcome = run::run(&mut plan, &self.cow, &self.origin);
        let result = self
            .store_mut()
            .and_then(|mut store| store.finish_plan(plan, outcome));
        self.changed.notify();
        result.map_err(|error| self.named(error))
    }

    /// Runs a job of the store from its beginning to its end.
    pub(crate) fn run_job(&self, begin: impl FnOnce(&mut Store) -> Result<()>) -> Result<()> {
        if self.facts().is_cancelling() {
            self.flush()?;
        }
        begin(&mut *self.store_mut()?).map_err(|error| self.named(error))?;
        let result = loop {
            match self.job_step() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            self.cancel_job();
        }
        self.reclaim();
        result
    }

    /// The next plan of the job under way.
    pub(crate) fn next_plan(&self) -> Result<Progress> {
        let progress = self.store_mut()?.next_plan();
        progress.map_err(|error| self.named(error))
    }

    /// One plan of the job under way. Returns whether there is more to do.
    pub(crate) fn job_step(&self) -> Result<bool> {
        loop {
            let seen = self.changed.generation();
            match self.next_plan()? {
                Progress::Plan(plan) => return self.run(plan).map(|()| true),
                Progress::Wait => self.changed.wait(seen),
                Progress::Done => {
                    self.changed.notify();
                    return Ok(false);
                }
            }
        }
    }

    pub(crate) fn cancel_job(&self) {
        if let Ok(mut store) = self.store_mut() {
            // Refused only while a plan is outstanding, and plans are run where jobs are.
            let _ = store.cancel();
        }
        self.changed.notify();
    }

    /// Gives back what space can be given back now. Nothing depends on it, so failures do not count.
    pub(crate) fn reclaim(&self) {
        // Punching first makes cutting possible.
        for _ in 0..2 {
            let plan = self.store_mut().ok().and_then(|mut store| store.reclaim());
            match plan.map(|plan| self.run(plan)) {
                Some(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// For closing: gives up what space was reserved ahead. Failures do not count.
    pub(crate) fn trim(&self) {
        self.reclaim();
        let plan = self.store_mut().ok().and_then(|mut store| store.trim());
        if let Some(plan) = plan {
            let _ = self.run(plan);
        }
    }
}

#[cold]
fn poisoned() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a thread panicked while it changed this image",
    )
}
