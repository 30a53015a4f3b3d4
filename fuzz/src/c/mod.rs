//! A host that uses the C ABI as C does, in legal orders.

pub mod host;
pub mod image;
mod plans;
pub mod store;

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use dmsnap::ffi;

/// The errno of a call that failed, which has told why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed(pub c_int);

/// 0, or a negative errno with a message and a kind.
pub fn check(result: c_int) -> Result<(), Failed> {
    assert!(
        result <= 0 && result > -4096,
        "{result} is neither 0 nor a negative errno"
    );
    if result == 0 {
        return Ok(());
    }
    assert!(
        ffi::dmsnap_last_error_kind() as u32 != 0,
        "an error has a kind"
    );
    let message = ffi::dmsnap_last_error_message();
    assert!(!message.is_null(), "an error has a message");
    // SAFETY: a string that holds until the next call on this thread.
    let message = unsafe { CStr::from_ptr(message) };
    assert!(!message.to_bytes().is_empty() && message.to_str().is_ok());
    Err(Failed(result))
}

/// What a call gives out where it succeeds.
pub fn made<T>(call: impl FnOnce(Option<&mut MaybeUninit<T>>) -> c_int) -> Result<T, Failed> {
    let mut out = MaybeUninit::uninit();
    check(call(Some(&mut out)))?;
    // SAFETY: outputs are written where a call succeeds.
    Ok(unsafe { out.assume_init() })
}

/// A structure that begins with its size, which a call fills in where it succeeds.
pub fn filled<T>(call: impl FnOnce(*mut T) -> c_int) -> Result<T, Failed> {
    let mut out = MaybeUninit::<T>::zeroed();
    // SAFETY: all structures of the ABI begin with their size.
    unsafe { out.as_mut_ptr().cast::<usize>().write(size_of::<T>()) };
    let before = bytes_of(&out);
    let result = check(call(out.as_mut_ptr()));
    if let Err(failed) = result {
        assert!(
            bytes_of(&out) == before,
            "an output was written by a call that failed"
        );
        return Err(failed);
    }
    // SAFETY: filled in.
    Ok(unsafe { out.assume_init() })
}

fn bytes_of<T>(place: &MaybeUninit<T>) -> Vec<u8> {
    // SAFETY: it was zeroed; where a call has written its padding, that was copied from zeros or is not looked at.
    unsafe { std::slice::from_raw_parts(place.as_ptr().cast(), size_of::<T>()) }.to_vec()
}
