//! Locks and atomics: those of the standard library, but for two kinds of tests.
//!
//! `--cfg shuttle` takes those of a crate that explores the orders in which threads may run (tests/interleavings). `--cfg tsan` takes
//! some of which ThreadSanitizer sees every step (ffi-tests).
#![forbid(unsafe_code)]

#[cfg(tsan)]
mod spinning;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic,
};
#[cfg(tsan)]
pub(crate) use spinning::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(any(shuttle, tsan)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{RwLockReadGuard, RwLockWriteGuard, atomic};

// None of them makes anybody wait.
pub(crate) use std::sync::{Arc, OnceLock, PoisonError};
