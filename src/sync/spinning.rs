//! Locks of which ThreadSanitizer sees every step.
//!
//! It sees what was compiled with it, and the standard library was not. There, trying a lock and releasing it is compiled into the code
//! that does so, but waiting is not: who had to wait for a lock, or waited on a condition, would seem to use what it protects without
//! having it. So these try again until they succeed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    self, LockResult, PoisonError, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult,
};
use std::thread;

/// Tries until it is no longer taken.
fn insist<G>(mut attempt: impl FnMut() -> TryLockResult<G>) -> LockResult<G> {
    loop {
        match attempt() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let with = |guard| MutexGuard { mutex: self, guard };
        match insist(|| self.0.try_lock()) {
            Ok(guard) => Ok(with(guard)),
            Err(poisoned) => Err(PoisonError::new(with(poisoned.into_inner()))),
        }
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        insist(|| self.0.try_read())
    }

    pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        insist(|| self.0.try_write())
    }
}

/// Everybody who waits is woken by every change, which conditions allow.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    changes: AtomicU64,
}

impl Condvar {
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let seen = self.changes.load(Ordering::SeqCst);
        let mutex = guard.mutex;
        drop(guard);
        while self.changes.load(Ordering::SeqCst) == seen {
            thread::yield_now();
        }
        mutex.lock()
    }

    pub(crate) fn notify_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}
