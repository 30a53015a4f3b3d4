//! What stands around every exported function.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::set_last;
use crate::error::{Error, ErrorKind, Result};

/// Runs a function that can fail: 0, or a negative errno and the thread's last error.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> c_int {
    // Nothing of ours is used after a panic but what its own locks protect; the caller is told to
    // close the handle.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    match outcome.unwrap_or_else(|payload| Err(panicked(&*payload))) {
        Ok(()) => 0,
        Err(error) => {
            set_last(&error);
            -error.errno()
        }
    }
}

/// Runs a function that cannot fail, with what it returns if it panics all the same.
pub(super) fn guard_or<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        set_last(&panicked(&*payload));
        fallback
    })
}

#[cold]
fn panicked(payload: &(dyn std::any::Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let message =
        format!("{text}; this is a defect in dmsnap, please close the handle and report it");
    Error::new(ErrorKind::Internal, message)
}

/// Most handles that one thread can be inside of at once, each called from a callback of the one
/// before.
const MAX_NESTED: usize = 32;

thread_local! {
    // Constant and without Drop, as the last error.
    static INSIDE: [Cell<usize>; MAX_NESTED] = const { [const { Cell::new(0) }; MAX_NESTED] };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as inside a call on a handle until dropped.
pub(super) struct Entered;

impl Entered {
    /// Enters the handle that `identity` stands for.
    ///
    /// Fails if this thread is inside it already, that is, if one of its callbacks uses it: the
    /// call could wait for the very callback.
    pub(super) fn enter(identity: usize) -> Result<Entered> {
        let depth = DEPTH.get();
        INSIDE.with(|inside| {
            if inside
                .iter()
                .take(depth)
                .any(|entry| entry.get() == identity)
            {
                let message = "used from inside one of its own callbacks";
                return Err(Error::new(ErrorKind::Deadlock, message));
            }
            let Some(entry) = inside.get(depth) else {
                let message = format!("{MAX_NESTED} handles are in use on this thread already");
                return Err(Error::new(ErrorKind::Deadlock, message));
            };
            entry.set(identity);
            DEPTH.set(depth + 1);
            Ok(Entered)
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::error::{dmsnap_error_kind, dmsnap_last_error_kind};

    #[test]
    fn test_a_panic_becomes_an_internal_error() {
        assert_eq!(guard(|| panic!("on purpose")), -libc::EIO);
        assert_eq!(dmsnap_last_error_kind(), dmsnap_error_kind::Internal);
        assert_eq!(guard_or(7, || panic!("on purpose")), 7);
        assert_eq!(guard(|| Ok(())), 0);
    }

    #[test]
    fn test_a_handle_is_entered_once_at_a_time() {
        let outer = Entered::enter(1).unwrap();
        let inner = Entered::enter(2).unwrap();
        for identity in [1, 2] {
            let error = Entered::enter(identity).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Deadlock);
        }
        drop(inner);
        drop(Entered::enter(2).unwrap());
        drop(outer);
        assert!(Entered::enter(1).is_ok());
    }

    #[test]
    fn test_a_panic_leaves_no_handle_entered() {
        let outcome = guard(|| {
            let _entered = Entered::enter(1)?;
            panic!("on purpose");
        });
        assert_eq!(outcome, -libc::EIO);
        assert!(Entered::enter(1).is_ok());
    }

    #[test]
    fn test_nesting_is_bounded() {
        let entered: Vec<_> = (1..=MAX_NESTED)
            .map(|id| Entered::enter(id).unwrap())
            .collect();
        assert!(Entered::enter(MAX_NESTED + 1).is_err());
        drop(entered);
        assert!(Entered::enter(MAX_NESTED + 1).is_ok());
    }
}
