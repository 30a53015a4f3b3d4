//! Reads and writes of an image.

use std::ffi::{c_int, c_void};
use std::io::{IoSlice, IoSliceMut};
use std::mem::offset_of;

use libc::iovec;

use super::guard::guard;
use super::handle::{Growing, Output, bytes, bytes_mut, need, range};
use super::image::dmsnap_image;
use super::values::dmsnap_extent_kind;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageExtent;

/// Most buffers of one call, as in the operating system (`IOV_MAX`).
const MAX_BUFFERS: usize = 1024;

/// Reads `len` bytes at `offset` into `buffer`. `-EINVAL` if they reach past the end of the disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_read(
    image: Option<&dmsnap_image>,
    buffer: *mut c_void,
    len: usize,
    offset: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let buffer = unsafe { bytes_mut(buffer, len) }?;
        dmsnap_image::call(image, |image| image.read(buffer, offset))
    })
}

/// Reads into `iovcnt` buffers, at most 1024, from `offset` on. They must not overlap. All of them
/// are filled, or it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_readv(
    image: Option<&dmsnap_image>,
    iov: *const iovec,
    iovcnt: c_int,
    offset: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let iov = unsafe { buffers(iov, iovcnt) }?;
        // SAFETY: the contract with C.
        let slices = iov
            .iter()
            .map(|buf| unsafe { bytes_mut(buf.iov_base, buf.iov_len) });
        let slices: Result<Vec<_>> = slices.map(|slice| slice.map(IoSliceMut::new)).collect();
        let mut slices = slices?;
        dmsnap_image::call(image, |image| image.read_vectored(&mut slices, offset))
    })
}

/// Writes `len` bytes from `buffer` to `offset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_write(
    image: Option<&dmsnap_image>,
    buffer: *const c_void,
    len: usize,
    offset: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let buffer = unsafe { bytes(buffer, len) }?;
        dmsnap_image::call(image, |image| image.write(buffer, offset))
    })
}

/// Writes `iovcnt` buffers, at most 1024, one behind the other from `offset` on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_writev(
    image: Option<&dmsnap_image>,
    iov: *const iovec,
    iovcnt: c_int,
    offset: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let iov = unsafe { buffers(iov, iovcnt) }?;
        // SAFETY: the contract with C.
        let slices = iov
            .iter()
            .map(|buf| unsafe { bytes(buf.iov_base, buf.iov_len) });
        let slices: Result<Vec<_>> = slices.map(|slice| slice.map(IoSlice::new)).collect();
        let slices = slices?;
        dmsnap_image::call(image, |image| image.write_vectored(&slices, offset))
    })
}

/// # Safety
/// `iov` is NULL or points at `iovcnt` structures.
unsafe fn buffers<'a>(iov: *const iovec, iovcnt: c_int) -> Result<&'a [iovec]> {
    let count = usize::try_from(iovcnt)
        .ok()
        .filter(|&count| count <= MAX_BUFFERS);
    let count = count.ok_or_else(|| {
        let message = format!("{iovcnt} buffers, wanted 0 to {MAX_BUFFERS}");
        Error::new(ErrorKind::InvalidArgument, message)
    })?;
    if count == 0 {
        return Ok(&[]);
    }
    need((!iov.is_null()).then_some(()), "iov")?;
    // SAFETY: not NULL, and the caller's promise.
    let buffers = unsafe { std::slice::from_raw_parts(iov, count) };
    let total = buffers
        .iter()
        .try_fold(0usize, |sum, buf| sum.checked_add(buf.iov_len));
    if total.is_none_or(|total| total > isize::MAX as usize) {
        let message = "the buffers have more bytes together than there can be";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(buffers)
}

/// Returns once everything that was written before the call is durable.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_flush(image: Option<&dmsnap_image>) -> c_int {
    guard(|| dmsnap_image::call(image, crate::image::Image::flush))
}

/// Gives back the space of `len` bytes at `offset`: chunks that lie wholly in there and were
/// written become zeros, all else stays as it is.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_discard(
    image: Option<&dmsnap_image>,
    offset: u64,
    len: u64,
) -> c_int {
    guard(|| {
        let range = range(offset, len)?;
        dmsnap_image::call(image, |image| image.discard(range))
    })
}

/// Makes `len` bytes at `offset` read as zeros. With `unmap` space may be given back.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_write_zeroes(
    image: Option<&dmsnap_image>,
    offset: u64,
    len: u64,
    unmap: bool,
) -> c_int {
    guard(|| {
        let range = range(offset, len)?;
        dmsnap_image::call(image, |image| image.write_zeroes(range, unmap))
    })
}

/// A run of the disk that one layer answers for. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_extent {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// First byte in the image: what was asked for.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
    /// First byte in the file of the layer that answers, `UINT64_MAX` if no layer holds the range.
    pub offset: u64,
    /// The layer that answers: 0 is the top, 1 its origin, and so on.
    pub depth: u32,
    /// Whether it is known to be zeros.
    pub kind: dmsnap_extent_kind,
    /// Whether that layer holds the range. If not, no layer does, and it reads as zeros.
    pub present: bool,
    /// Whether the bytes occupy space in that layer's file.
    pub allocated: bool,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_extent {
    const LEAST: usize = offset_of!(dmsnap_extent, allocated) + size_of::<bool>();
}

/// The first extent of the range of `len` bytes, at least 1, from `offset` on. To see all, go on at
/// `start + len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_next_extent(
    image: Option<&dmsnap_image>,
    offset: u64,
    len: u64,
    out: *mut dmsnap_extent,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let range = range(offset, len)?;
        let extent: ImageExtent = dmsnap_image::call(image, |image| image.next_extent(range))?;
        out.write(dmsnap_extent {
            struct_size: 0,
            start: extent.range.start,
            len: extent.range.len,
            offset: extent.offset.unwrap_or(u64::MAX),
            depth: extent.depth,
            kind: extent.kind.into(),
            present: extent.present,
            allocated: extent.allocated,
        });
        Ok(())
    })
}
