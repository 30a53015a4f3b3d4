//! A storage made of the host's callbacks.

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, offset_of};

use libc::iovec;

use super::handle::{Growing, input_known};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostAlignment, HostCallbacks, StorageExtent};
use crate::units::ByteRange;

/// I/O that a host does for a storage. Set `struct_size`, and all that is not used to zero or NULL.
///
/// Callbacks run only on threads that are inside a call of this library on that host's behalf,
/// several at once if the host calls from several threads, and never while the library holds a lock
/// that another call needs, with one exception: where `request_alignment` is above 1, writers of
/// the same blocks wait for each other. So while `pwritev` runs, or `preadv` for the rest of a
/// block that is written in part, or `write_zeroes`, or `discard`, others who change those blocks
/// wait, and while `set_size` runs or waits all who change the storage do: who comes first is served
/// first. Reads and flushes never wait. A callback must not wait for another change to its own
/// storage. Callbacks must not use the image that they are called for: that gives `-EDEADLK`. They
/// must return, neither throwing nor jumping. What they are given is theirs for the duration of the
/// call. They return 0, or a number of bytes, or a negative errno. `-EINTR` has them called again.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_storage_ops {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Handed to every callback.
    pub opaque: *mut c_void,
    /// Fills the buffers, or a beginning of them, from `offset`. Returns how many bytes that was; 0
    /// only at the end. Required.
    pub preadv: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            iov: *const iovec,
            iovcnt: c_int,
            offset: u64,
        ) -> i64,
    >,
    /// Writes the buffers, or a beginning of them, at `offset`, past the end too if there is
    /// `set_size`. Returns how many bytes that was, at least 1. Required.
    pub pwritev: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            iov: *const iovec,
            iovcnt: c_int,
            offset: u64,
        ) -> i64,
    >,
    /// Makes durable what was written before. Required. `-ENOSPC` and `-EDQUOT` promise that nothing
    /// of it is lost, so that flushing again helps once there is space; `fdatasync` promises no such
    /// thing. A host that cannot promise it returns `-EIO`.
    pub flush: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Tells the size in bytes. Required.
    pub size: Option<unsafe extern "C" fn(opaque: *mut c_void, size: *mut u64) -> c_int>,
    /// Changes the size; new bytes read as zeros. `size` need not be a multiple of `request_alignment`:
    /// a host that knows no other sizes takes the next larger one. NULL: the size is fixed, as a
    /// device's.
    pub set_size: Option<unsafe extern "C" fn(opaque: *mut c_void, size: u64) -> c_int>,
    /// Makes a range read as zeros; with `unmap` space may be given back. NULL, or `-ENOTSUP`:
    /// zeros are written.
    pub write_zeroes: Option<
        unsafe extern "C" fn(opaque: *mut c_void, offset: u64, len: u64, unmap: bool) -> c_int,
    >,
    /// Takes note that nobody needs the content of a range any more. May be NULL.
    pub discard: Option<unsafe extern "C" fn(opaque: *mut c_void, offset: u64, len: u64) -> c_int>,
    /// Tells how many bytes from `offset`, which lies inside, are equally allocated, and whether
    /// they are. What is not allocated reads as zeros. NULL: everything is allocated.
    pub extents: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            offset: u64,
            len: *mut u64,
            allocated: *mut bool,
        ) -> c_int,
    >,
    /// Called once with `opaque`, when the last user of the storage is gone; also if the call that
    /// was to take it fails, unless it fails because the structure is NULL or its `struct_size` is
    /// none (`-EINVAL`): of a structure with fields that this library does not know (`-ENOTSUP`)
    /// this one is known all the same. No other callback runs after it. May be NULL.
    pub free: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Offsets and lengths of transfers, and the size, are multiples of this; a power of two up to
    /// 1 MiB. 0 is as good as 1.
    pub request_alignment: u32,
    /// Buffers start at multiples of this; a power of two up to 1 MiB. 0 is as good as 1.
    pub memory_alignment: u32,
}

// SAFETY: repr(C), begins with its size; zero is NULL or a number.
unsafe impl Growing for dmsnap_storage_ops {
    const LEAST: usize = offset_of!(dmsnap_storage_ops, memory_alignment) + size_of::<u32>();
}

/// The host's callbacks, owned: dropping it calls `free`.
pub(super) struct HostOps {
    ops: dmsnap_storage_ops,
}

// SAFETY: the contract of the callbacks says that any thread may call them, several at once.
unsafe impl Send for HostOps {}
// SAFETY: as above.
unsafe impl Sync for HostOps {}

impl HostOps {
    /// Takes over what the host offers. From here on `free` is called whatever happens.
    ///
    /// # Safety
    /// `ops` is NULL or a structure of the size it begins with, whose callbacks keep their
    /// contract.
    pub(super) unsafe fn take(ops: *const dmsnap_storage_ops) -> Result<HostOps> {
        // SAFETY: the caller's promise.
        let (ops, known) = unsafe { input_known(ops, "ops") }?;
        let taken = HostOps { ops };
        known?;
        taken.check()?;
        Ok(taken)
    }

    fn check(&self) -> Result<()> {
        let ops = &self.ops;
        let required = [
            ("preadv", ops.preadv.is_some()),
            ("pwritev", ops.pwritev.is_some()),
            ("flush", ops.flush.is_some()),
            ("size", ops.size.is_some()),
        ];
        match required.iter().find(|(_, present)| !present) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("the callback {name} is NULL");
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        }
    }
}

impl Drop for HostOps {
    fn drop(&mut self) {
        if let Some(free) = self.ops.free {
            // SAFETY: the contract of the callback; nothing can call another one any more.
            unsafe { free(self.ops.opaque) }
        }
    }
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// A result of the host: what is negative is an errno.
fn counted(result: i64) -> io::Result<usize> {
    if let Ok(count) = usize::try_from(result) {
        return Ok(count);
    }
    const LARGEST_ERRNO: i64 = 4095;
    match result.checked_neg() {
        Some(code @ 1..=LARGEST_ERRNO) => Err(io::Error::from_raw_os_error(code as i32)),
        _ => Err(io::Error::other(format!(
            "the callback returned {result}, which is no errno"
        ))),
    }
}

/// A result of the host that counts nothing. A positive one is a mistake, most likely an errno without its sign: to take that for success
/// would be to call durable what was not flushed.
fn done(result: c_int) -> io::Result<()> {
    match counted(result.into())? {
        0 => Ok(()),
        _ => Err(io::Error::other(format!(
            "the callback returned {result}, which is neither 0 nor a negative errno"
        ))),
    }
}

/// Buffers as C takes them. Both slices have the layout of an array of `struct iovec`, as the
/// standard library promises.
fn as_iovecs<T>(bufs: &[T]) -> (*const iovec, c_int) {
    (
        bufs.as_ptr().cast(),
        bufs.len().try_into().unwrap_or(c_int::MAX),
    )
}

impl HostCallbacks for HostOps {
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let call = self.ops.preadv.ok_or_else(missing)?;
        let (iov, count) = as_iovecs(bufs);
        // SAFETY: the contract of the callback; the buffers are ours to be written for the call.
        counted(unsafe { call(self.ops.opaque, iov, count, offset) })
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let call = self.ops.pwritev.ok_or_else(missing)?;
        let (iov, count) = as_iovecs(bufs);
        // SAFETY: the contract of the callback.
        counted(unsafe { call(self.ops.opaque, iov, count, offset) })
    }

    fn flush(&self) -> io::Result<()> {
        let call = self.ops.flush.ok_or_else(missing)?;
        // SAFETY: the contract of the callback.
        done(unsafe { call(self.ops.opaque) })
    }

    fn size(&self) -> io::Result<u64> {
        let call = self.ops.size.ok_or_else(missing)?;
        let mut size = 0;
        // SAFETY: the contract of the callback.
        done(unsafe { call(self.ops.opaque, &raw mut size) })?;
        Ok(size)
    }

    fn is_growable(&self) -> bool {
        self.ops.set_size.is_some()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let call = self.ops.set_size.ok_or_else(missing)?;
        // SAFETY: the contract of the callback.
        done(unsafe { call(self.ops.opaque, size) })
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Option<io::Result<()>> {
        let call = self.ops.write_zeroes?;
        // SAFETY: the contract of the callback.
        Some(done(unsafe {
            call(self.ops.opaque, range.start, range.len, unmap)
        }))
    }

    fn discard(&self, range: ByteRange) -> Option<io::Result<()>> {
        let call = self.ops.discard?;
        // SAFETY: the contract of the callback.
        Some(done(unsafe {
            call(self.ops.opaque, range.start, range.len)
        }))
    }

    fn extent_at(&self, offset: u64) -> Option<io::Result<StorageExtent>> {
        let call = self.ops.extents?;
        let mut len = 0;
        // What the host writes there may be any byte, so it is not looked at as a bool.
        let mut allocated = MaybeUninit::<bool>::zeroed();
        // SAFETY: the contract of the callback.
        let result = unsafe {
            call(
                self.ops.opaque,
                offset,
                &raw mut len,
                allocated.as_mut_ptr(),
            )
        };
        // SAFETY: the byte is zero or was written.
        let allocated = unsafe { allocated.as_ptr().cast::<u8>().read() } != 0;
        Some(done(result).map(|()| StorageExtent { len, allocated }))
    }

    fn alignment(&self) -> HostAlignment {
        HostAlignment {
            request: self.ops.request_alignment.max(1),
            memory: self.ops.memory_alignment.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn test_results_of_callbacks() {
        assert_eq!(counted(4096).unwrap(), 4096);
        assert_eq!(counted(-5).unwrap_err().raw_os_error(), Some(5));
        for number in [-4096, i64::MIN] {
            let error = counted(number).unwrap_err();
            assert_eq!(error.raw_os_error(), None);
            assert!(error.to_string().contains(&number.to_string()));
        }
    }

    unsafe extern "C" fn count_free(opaque: *mut c_void) {
        // SAFETY: the test hands in a counter.
        unsafe { &*opaque.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn test_free_runs_once_even_if_callbacks_are_missing() {
        let frees = AtomicUsize::new(0);
        let ops = dmsnap_storage_ops {
            struct_size: size_of::<dmsnap_storage_ops>(),
            opaque: (&raw const frees).cast_mut().cast(),
            preadv: None,
            pwritev: None,
            flush: None,
            size: None,
            set_size: None,
            write_zeroes: None,
            discard: None,
            extents: None,
            free: Some(count_free),
            request_alignment: 0,
            memory_alignment: 0,
        };
        // SAFETY: the structure has its size.
        let error = unsafe { HostOps::take(&raw const ops) }.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("preadv"), "{error}");
        assert_eq!(frees.load(Ordering::Relaxed), 1);
    }

    /// It is most likely an errno that lacks its sign: a flush that failed would pass for one that succeeded.
    #[test]
    fn test_a_positive_answer_is_no_success() {
        done(0).unwrap();
        assert_eq!(
            done(-libc::EIO).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
        let error = done(libc::EIO).unwrap_err();
        assert!(error.to_string().contains("returned 5"), "{error}");
    }
}
