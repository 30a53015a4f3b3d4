//! The system calls that `std` does not offer. All unsafe code of the storages is in this file.
//!
//! Each function is one call, with its errno as `io::Error`; retries and meaning are left to the callers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_uint, c_void};

/// Most slices that one `preadv` or `pwritev` takes on Linux.
pub(super) const MAX_SLICES: usize = libc::UIO_MAXIOV as usize;

/// Type letter of the block layer's requests.
const BLOCK: c_uint = 0x12;
/// Size of a block device in bytes, as a 64-bit number on every architecture (the kernel declares it with the width of `size_t`).
const BLKGETSIZE64: libc::Ioctl = libc::_IOR::<usize>(BLOCK, 114);
const BLKDISCARD: libc::Ioctl = libc::_IO(BLOCK, 119);
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// `preadv` into the first [`MAX_SLICES`] slices.
pub(super) fn preadv(file: &File, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let count = bufs.len().min(MAX_SLICES);
    // SAFETY: `IoSliceMut` has the layout of `iovec`, the first `count` of them are borrowed mutably for the call, and each
    // describes memory that may be written.
    check_len(unsafe {
        libc::preadv(
            file.as_raw_fd(),
            bufs.as_mut_ptr().cast(),
            count as c_int,
            offset,
        )
    })
}

/// `pwritev` from the first [`MAX_SLICES`] slices.
pub(super) fn pwritev(file: &File, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let count = bufs.len().min(MAX_SLICES);
    // SAFETY: `IoSlice` has the layout of `iovec`, and the first `count` of them describe memory borrowed for the call.
    check_len(unsafe {
        libc::pwritev(
            file.as_raw_fd(),
            bufs.as_ptr().cast(),
            count as c_int,
            offset,
        )
    })
}

/// `fallocate` with `mode` flags.
pub(super) fn fallocate(file: &File, mode: c_int, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }).map(drop)
}

/// `posix_fadvise` with `POSIX_FADV_WILLNEED`: starts reading into the page cache. A failure makes nothing worse.
pub(super) fn will_need(file: &File, offset: u64, len: u64) {
    if let (Ok(offset), Ok(len)) = (file_offset(offset), file_offset(len)) {
        // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
    }
}

/// `lseek` with `SEEK_DATA` or `SEEK_HOLE`. Moves the position of the descriptor.
pub(super) fn seek(file: &File, offset: u64, whence: c_int) -> io::Result<u64> {
    let offset = file_offset(offset)?;
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// `copy_file_range` between two files. `target` is a descriptor that its owner keeps open for the call.
pub(super) fn copy_file_range(
    source: &File,
    from: u64,
    target: RawFd,
    to: u64,
    len: u64,
) -> io::Result<u64> {
    let mut from = libc::loff_t::try_from(from).map_err(io::Error::other)?;
    let mut to = libc::loff_t::try_from(to).map_err(io::Error::other)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
    // SAFETY: both offsets are valid for reads and writes for the whole call. A descriptor that is not open gives EBADF.
    check_len(unsafe {
        libc::copy_file_range(source.as_raw_fd(), &mut from, target, &mut to, len, 0)
    })
    .map(|copied| copied as u64)
}

/// Status flags of the descriptor: access mode, `O_DIRECT`, `O_APPEND`.
pub(super) fn status_flags(file: &File) -> io::Result<c_int> {
    // SAFETY: F_GETFL takes no further argument.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })
}

/// Bytes in a block device.
pub(super) fn device_size(file: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: the request stores a 64-bit number at the address given.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

/// Bytes in a logical block of a block device.
pub(super) fn device_block_size(file: &File) -> io::Result<u64> {
    let mut size: c_int = 0;
    // SAFETY: the request stores an int at the address given.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut size) })?;
    u64::try_from(size).map_err(io::Error::other)
}

/// `BLKDISCARD`: tells a block device that a range is not needed any more.
pub(super) fn device_discard(file: &File, start: u64, len: u64) -> io::Result<()> {
    let range = [start, len];
    // SAFETY: the request reads two 64-bit numbers from the address given.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) }).map(drop)
}

/// What `O_DIRECT` asks of memory and of offsets, in bytes: (memory, offset). `None` where the file system does not say.
pub(super) fn direct_alignment(file: &File) -> Option<(u64, u64)> {
    const EMPTY: &CStr = c"";
    let mut result = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `EMPTY` is a C string and `result` has room for the structure.
    let status = unsafe {
        libc::statx(
            file.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            result.as_mut_ptr(),
        )
    };
    if status != 0 {
        return None;
    }
    // SAFETY: the structure holds integers only and was zeroed before the call.
    let found = unsafe { result.assume_init() };
    let told = found.stx_mask & libc::STATX_DIOALIGN != 0;
    told.then(|| {
        (
            u64::from(found.stx_dio_mem_align),
            u64::from(found.stx_dio_offset_align),
        )
    })
}

fn lock_of(kind: c_int, byte: u64) -> io::Result<libc::flock> {
    // SAFETY: the structure holds integers only, for which zero is a value.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = file_offset(byte)?;
    lock.l_len = 1;
    Ok(lock)
}

/// Sets (`shared`) or clears an open file description's read lock of one byte.
pub(super) fn set_read_lock(file: &File, byte: u64, shared: bool) -> io::Result<()> {
    let lock = lock_of(if shared { libc::F_RDLCK } else { libc::F_UNLCK }, byte)?;
    // SAFETY: the command reads the structure at the address given.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }).map(drop)
}

/// Whether another open file description holds any lock on the byte.
pub(super) fn is_locked_by_other(file: &File, byte: u64) -> io::Result<bool> {
    let mut lock = lock_of(libc::F_WRLCK, byte)?;
    // SAFETY: the command reads and writes the structure at the address given.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    Ok(c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// The beginning of the kernel's `struct loop_info64`, and room for its rest.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rest: [u64; 27],
}

/// Device and inode of the file behind a loop device.
pub(super) fn loop_backing(device: &File) -> io::Result<(u64, u64)> {
    let mut info = LoopInfo {
        device: 0,
        inode: 0,
        rest: [0; 27],
    };
    let address = (&raw mut info).cast::<c_void>();
    // SAFETY: the request stores at most the 232 bytes of `struct loop_info64`, which `LoopInfo` has.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, address) })?;
    let _ = info.rest;
    Ok((info.device, info.inode))
}

/// Bytes in a page of memory.
pub(super) fn page_size() -> u64 {
    // SAFETY: takes a number and returns one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .unwrap_or(4096)
        .max(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_loop_info_has_the_kernels_size() {
        // 3 + 2 u64 fields, 4 u32, two names of 64 bytes, a key of 32 and two u64.
        assert_eq!(size_of::<LoopInfo>(), 5 * 8 + 4 * 4 + 2 * 64 + 32 + 2 * 8);
    }
}
