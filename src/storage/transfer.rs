//! Transfers of all bytes over something that may move fewer at a time.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::io::{self, IoSlice, IoSliceMut};

use crate::error::{Error, ErrorKind, Result};

/// One attempt at a transfer, which may be short.
pub(super) trait Transport {
    /// Fills a beginning of `bufs` from `offset`; 0 at the end.
    fn read_some(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize>;

    /// Writes a beginning of `bufs` at `offset`.
    fn write_some(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Size in bytes.
    fn size(&self) -> Result<u64>;

    /// Writes exactly these bytes, aligned or not. `None` if there is no such way.
    fn write_exactly(&self, buf: &[u8], offset: u64) -> Option<Result<()>> {
        let _ = (buf, offset);
        None
    }
}

/// Sum of the lengths of what is to be filled.
pub(super) fn total_mut(bufs: &[IoSliceMut<'_>]) -> usize {
    bufs.iter().map(|buf| buf.len()).sum()
}

/// Sum of the lengths of what is to be written.
pub(super) fn total(bufs: &[IoSlice<'_>]) -> usize {
    bufs.iter().map(|buf| buf.len()).sum()
}

/// Repeats what a signal interrupted, and refuses an answer of more bytes than were asked for.
pub(super) fn attempt(
    operation: &'static str,
    offset: u64,
    wanted: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Result<usize> {
    loop {
        match call() {
            Ok(moved) if moved <= wanted => return Ok(moved),
            Ok(moved) => return Err(oversized(operation, offset, wanted, moved)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(operation, error).with_offset(offset)),
        }
    }
}

/// Fills all of `bufs`.
#[inline]
pub(super) fn read_all<T: Transport + ?Sized>(
    transport: &T,
    bufs: &mut [IoSliceMut<'_>],
    offset: u64,
) -> Result<()> {
    let wanted = total_mut(bufs);
    let moved = attempt("read", offset, wanted, || transport.read_some(bufs, offset))?;
    if moved == wanted {
        Ok(())
    } else {
        read_rest(transport, bufs, offset, moved, wanted)
    }
}

#[cold]
fn read_rest<T: Transport + ?Sized>(
    transport: &T,
    bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    mut moved: usize,
    wanted: usize,
) -> Result<()> {
    let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
    let mut rest = slices.as_mut_slice();
    let mut done = 0;
    loop {
        if moved == 0 {
            return Err(past_end(transport, offset, wanted, done));
        }
        done += moved;
        IoSliceMut::advance_slices(&mut rest, moved);
        if done == wanted {
            return Ok(());
        }
        let at = offset + done as u64;
        moved = attempt("read", at, wanted - done, || transport.read_some(rest, at))?;
    }
}

/// Writes all of `bufs`.
#[inline]
pub(super) fn write_all<T: Transport + ?Sized>(
    transport: &T,
    bufs: &[IoSlice<'_>],
    offset: u64,
) -> Result<()> {
    let wanted = total(bufs);
    let moved = attempt("write", offset, wanted, || {
        transport.write_some(bufs, offset)
    })?;
    if moved == wanted {
        Ok(())
    } else {
        write_rest(transport, bufs, offset, moved, wanted)
    }
}

#[cold]
fn write_rest<T: Transport + ?Sized>(
    transport: &T,
    bufs: &[IoSlice<'_>],
    offset: u64,
    mut moved: usize,
    wanted: usize,
) -> Result<()> {
    let mut slices = bufs.to_vec();
    let mut rest = slices.as_mut_slice();
    let mut done = 0;
    loop {
        if moved == 0 {
            return Err(no_progress(offset + done as u64));
        }
        done += moved;
        IoSlice::advance_slices(&mut rest, moved);
        if done == wanted {
            return Ok(());
        }
        let at = offset + done as u64;
        moved = attempt("write", at, wanted - done, || {
            transport.write_some(rest, at)
        })?;
    }
}

/// The error of a read of `wanted` bytes at `offset` that got only `done`.
#[cold]
pub(super) fn past_end<T: Transport + ?Sized>(
    transport: &T,
    offset: u64,
    wanted: usize,
    done: usize,
) -> Error {
    match transport.size() {
        Ok(size) => past_end_of(size, offset, wanted, done),
        Err(error) => error.with_offset(offset),
    }
}

/// The error of a read of `wanted` bytes at `offset` in a storage of `size` bytes.
#[cold]
pub(super) fn past_end_of(size: u64, offset: u64, wanted: usize, done: usize) -> Error {
    let text = format!("read of {wanted} bytes met the end after {done}; the size is {size} bytes");
    Error::new(ErrorKind::Io, text).with_offset(offset)
}

#[cold]
pub(super) fn no_progress(offset: u64) -> Error {
    let source = io::Error::new(io::ErrorKind::WriteZero, "no bytes were taken");
    Error::io("write", source).with_offset(offset)
}

#[cold]
fn oversized(operation: &'static str, offset: u64, wanted: usize, moved: usize) -> Error {
    let text = format!("{moved} bytes moved where {wanted} were asked for");
    Error::io(operation, io::Error::other(text)).with_offset(offset)
}

/// What a storage of fixed size answers to a change of it.
pub(super) fn keep_size(fixed: u64, wanted: u64) -> Result<()> {
    let kind = match wanted.cmp(&fixed) {
        Ordering::Equal => return Ok(()),
        Ordering::Greater => ErrorKind::NoSpace,
        Ordering::Less => ErrorKind::Unsupported,
    };
    Err(Error::new(
        kind,
        format!("the size is fixed at {fixed} bytes, {wanted} are wanted"),
    ))
}
