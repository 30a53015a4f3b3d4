//! Pointers from C: what may be NULL, strings, buffers, and structures that grow from release to
//! release.

use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::format::Uuid;
use crate::units::ByteRange;

/// What C may hand from thread to thread and use from several at once, as the header says, must
/// allow that in Rust.
const fn for_any_thread<T: Send + Sync>() {}
const _: () = {
    for_any_thread::<crate::image::Image>();
    for_any_thread::<crate::image::Merge>();
    for_any_thread::<crate::storage::SharedStorage>();
    for_any_thread::<crate::store::Store>();
    for_any_thread::<crate::store::Plan>();
    for_any_thread::<crate::store::Loader>();
    for_any_thread::<crate::store::CheckReader>();
};

/// What must not be NULL.
pub(super) fn need<T>(pointer: Option<T>, what: &str) -> Result<T> {
    pointer.ok_or_else(|| null(what))
}

#[cold]
fn null(what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{what} is NULL"))
}

/// Takes a handle over whose end depends on a check, for the calls whose signature cannot say so.
///
/// # Safety
/// `handle` was given out as a `Box` and is not used again.
pub(super) unsafe fn take<T>(handle: *mut T) -> Box<T> {
    // SAFETY: the caller's promise.
    unsafe { Box::from_raw(handle) }
}

/// A range of bytes as two numbers.
pub(super) fn range(offset: u64, len: u64) -> Result<ByteRange> {
    ByteRange::checked(offset, len).ok_or_else(|| {
        let message = format!("{len} bytes at offset {offset} end behind any file");
        Error::new(ErrorKind::OutOfBounds, message)
    })
}

/// A file name.
///
/// # Safety
/// `pointer` is NULL or a string that ends with a NUL and stays as it is for `'a`.
pub(super) unsafe fn path<'a>(pointer: *const c_char, what: &str) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { c_string(pointer, what) }?.to_bytes();
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// A text that is stored in a file or shown.
///
/// # Safety
/// As [`path`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let text = unsafe { c_string(pointer, what) }?;
    text.to_str().map_err(|error| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} is not UTF-8: {error}"),
        )
    })
}

/// # Safety
/// As [`path`].
unsafe fn c_string<'a>(pointer: *const c_char, what: &str) -> Result<&'a CStr> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// A UUID, 16 bytes; none where it is NULL or zero, which means unknown.
///
/// # Safety
/// `pointer` is NULL or points at 16 bytes.
pub(super) unsafe fn uuid(pointer: *const u8) -> Option<Uuid> {
    // SAFETY: the caller's promise; bytes need no alignment.
    let bytes = unsafe { pointer.cast::<[u8; 16]>().as_ref() }?;
    Some(Uuid(*bytes)).filter(|uuid| !uuid.is_nil())
}

/// A text as C takes it. What we hand out comes from files and names, where a NUL cannot be kept.
pub(super) fn to_c(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}

/// A buffer to read from. NULL is allowed if it has no bytes.
///
/// # Safety
/// `pointer` is NULL or points at `len` bytes that stay as they are for `'a`.
pub(super) unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_buffer(pointer, len)?;
    // SAFETY: not NULL, not longer than an object can be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// A buffer to write to. NULL is allowed if it has no bytes.
///
/// # Safety
/// `pointer` is NULL or points at `len` bytes that nothing else uses for `'a`.
pub(super) unsafe fn bytes_mut<'a>(pointer: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_buffer(pointer, len)?;
    // SAFETY: not NULL, not longer than an object can be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) })
}

fn check_buffer(pointer: *const c_void, len: usize) -> Result<()> {
    if pointer.is_null() {
        return Err(null("the buffer"));
    }
    if len > isize::MAX as usize {
        let message = format!("no buffer can have {len} bytes");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// No structure of ours gets larger; what says so was not initialised.
const MAX_STRUCT_SIZE: usize = 4096;

/// A structure that begins with its own size in bytes and may grow at its end.
///
/// # Safety
/// The type is `repr(C)`, its first field is the `usize` for its size, and all its bytes may be
/// zero. `LEAST` is the size that the first release had, at most the present one.
pub(super) unsafe trait Growing: Copy {
    /// Size in bytes of the first release's structure.
    const LEAST: usize;
}

/// Reads and checks the size at the start of a structure.
///
/// # Safety
/// `place` is NULL or points at a structure of the size that it begins with.
unsafe fn struct_size<T: Growing>(place: *const T, what: &str) -> Result<usize> {
    if place.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and every such structure begins with its size.
    let size = unsafe { place.cast::<usize>().read() };
    if !(T::LEAST..=MAX_STRUCT_SIZE).contains(&size) {
        let message = format!(
            "{what} has struct_size {size}, wanted at least {}: set it to the structure's size",
            T::LEAST
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(size)
}

/// A place for a structure, checked before anything is done, so that writing to it cannot fail.
pub(super) struct Output<T: Growing> {
    place: *mut T,
    size: usize,
}

impl<T: Growing> Output<T> {
    /// # Safety
    /// `place` is NULL or points at a structure of the size that it begins with, which nothing else
    /// uses as long as this lives.
    pub(super) unsafe fn new(place: *mut T, what: &str) -> Result<Output<T>> {
        // SAFETY: the caller's promise.
        let size = unsafe { struct_size(place, what) }?;
        Ok(Output { place, size })
    }

    /// Fills in as much as the caller's structure has, and zeros behind what this library knows.
    /// The size stays.
    pub(super) fn write(self, value: T) {
        let known = self.size.min(size_of::<T>());
        let start = size_of::<usize>();
        let from = (&raw const value).cast::<u8>();
        let to = self.place.cast::<u8>();
        // SAFETY: `new` was promised `size` bytes; `known` is within them and within `value`.
        unsafe {
            std::ptr::copy_nonoverlapping(from.add(start), to.add(start), known - start);
            to.add(known).write_bytes(0, self.size - known);
        }
    }
}

/// Takes a copy of a structure. What an older caller does not have is zero; what this library does
/// not know must be.
///
/// # Safety
/// `place` is NULL or points at a structure of the size that it begins with.
#[cfg(test)]
unsafe fn input<T: Growing>(place: *const T, what: &str) -> Result<T> {
    // SAFETY: the caller's promise.
    let (value, known) = unsafe { input_known(place, what) }?;
    known.map(|()| value)
}

/// As `input`, but gives what is known of a structure also if the caller uses more than that, for
/// ending what it refers to.
///
/// # Safety
/// `place` is NULL or points at a structure of the size that it begins with.
pub(super) unsafe fn input_known<T: Growing>(
    place: *const T,
    what: &str,
) -> Result<(T, Result<()>)> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(place, what) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: the structure has `size` bytes.
    let unknown =
        unsafe { std::slice::from_raw_parts(place.cast::<u8>().add(known), size - known) };
    let verdict = if unknown.iter().any(|&byte| byte != 0) {
        let message = format!(
            "{what} uses fields that this library, whose structure has {} bytes, does not know",
            size_of::<T>()
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    } else {
        Ok(())
    };
    let mut copy = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are there on both sides, and zeros are a value of `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(place.cast::<u8>(), copy.as_mut_ptr().cast(), known);
        Ok((copy.assume_init(), verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Grown {
        struct_size: usize,
        first: u64,
        later: u64,
    }

    // SAFETY: as the trait asks.
    unsafe impl Growing for Grown {
        const LEAST: usize = 16;
    }

    fn fill(words: &mut [u64]) -> Result<()> {
        let value = Grown {
            struct_size: 0,
            first: 7,
            later: 8,
        };
        // SAFETY: the words begin with a size within their length, or one that is refused.
        unsafe { Output::<Grown>::new(words.as_mut_ptr().cast(), "out") }?.write(value);
        Ok(())
    }

    #[test]
    fn test_output_serves_older_and_newer_callers() {
        let mut older = [16, 0, 99];
        fill(&mut older).unwrap();
        assert_eq!(
            older,
            [16, 7, 99],
            "an older caller's memory ends after one field"
        );
        let mut newer = [32, 0, 0, 99, 99];
        fill(&mut newer).unwrap();
        assert_eq!(newer, [32, 7, 8, 0, 99], "unknown fields are zero");
    }

    #[test]
    fn test_output_refuses_sizes_that_were_not_set() {
        for size in [0, 8, 15, 1 << 40] {
            let mut words = [size, 1, 2];
            let error = fill(&mut words).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(words, [size, 1, 2]);
        }
    }

    #[test]
    fn test_input_completes_older_structures_and_refuses_unknown_fields() {
        // SAFETY: the words begin with a size within their length.
        let take = |words: &[u64]| unsafe { input::<Grown>(words.as_ptr().cast(), "ops") };
        let older = Grown {
            struct_size: 16,
            first: 7,
            later: 0,
        };
        assert_eq!(take(&[16, 7, 99]).unwrap(), older);
        assert!(take(&[32, 7, 8, 0]).is_ok());
        assert_eq!(
            take(&[32, 7, 8, 1]).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn test_buffers() {
        let null = std::ptr::null();
        // SAFETY: NULL is allowed.
        unsafe {
            assert!(bytes(null, 0).unwrap().is_empty());
            assert_eq!(
                bytes(null, 1).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
            assert!(bytes(c"".as_ptr().cast(), usize::MAX).is_err());
            assert!(path(std::ptr::null(), "path").is_err());
            assert!(text(c"\xff".as_ptr(), "name").is_err());
            assert_eq!(text(c"a".as_ptr(), "name").unwrap(), "a");
        }
    }
}
