//! Parts of vectors of buffers.

use std::io::{IoSlice, IoSliceMut};

pub(crate) fn total(bufs: &[IoSlice<'_>]) -> u64 {
    bufs.iter().map(|buf| buf.len() as u64).sum()
}

pub(crate) fn total_mut(bufs: &[IoSliceMut<'_>]) -> u64 {
    bufs.iter().map(|buf| buf.len() as u64).sum()
}

/// Calls `f` with the bytes `skip..skip + len` of `bufs`. A single buffer, the usual case, costs no allocation.
#[inline]
pub(crate) fn with_part_mut<R>(
    bufs: &mut [IoSliceMut<'_>],
    skip: u64,
    len: u64,
    f: impl FnOnce(&mut [IoSliceMut<'_>]) -> R,
) -> R {
    if let [buf] = bufs {
        let (start, end) = clamp(buf.len(), skip, skip.saturating_add(len));
        return f(&mut [IoSliceMut::new(&mut buf[start..end])]);
    }
    if skip == 0 && len == total_mut(bufs) {
        return f(bufs);
    }
    let mut parts = Vec::with_capacity(bufs.len());
    let mut at = 0;
    for buf in bufs {
        let size = buf.len();
        let (start, end) = overlap(at, size, skip, len);
        if start < end {
            parts.push(IoSliceMut::new(&mut buf[start..end]));
        }
        at += size as u64;
    }
    f(&mut parts)
}

/// As [`with_part_mut`], for bytes that are written.
#[inline]
pub(crate) fn with_part<R>(
    bufs: &[IoSlice<'_>],
    skip: u64,
    len: u64,
    f: impl FnOnce(&[IoSlice<'_>]) -> R,
) -> R {
    if let [buf] = bufs {
        let (start, end) = clamp(buf.len(), skip, skip.saturating_add(len));
        return f(&[IoSlice::new(&buf[start..end])]);
    }
    if skip == 0 && len == total(bufs) {
        return f(bufs);
    }
    f(&parts(bufs, skip, len))
}

/// The bytes `skip..skip + len` of `bufs`.
pub(crate) fn parts<'a>(bufs: &'a [IoSlice<'_>], skip: u64, len: u64) -> Vec<IoSlice<'a>> {
    let mut parts = Vec::with_capacity(bufs.len() + 2);
    let mut at = 0;
    for buf in bufs {
        let (start, end) = overlap(at, buf.len(), skip, len);
        if start < end {
            parts.push(IoSlice::new(&buf[start..end]));
        }
        at += buf.len() as u64;
    }
    parts
}

/// Which bytes of a buffer that stands at `at` belong to `skip..skip + len`.
fn overlap(at: u64, size: usize, skip: u64, len: u64) -> (usize, usize) {
    let end = skip.saturating_add(len);
    clamp(size, skip.saturating_sub(at), end.saturating_sub(at))
}

fn clamp(size: usize, start: u64, end: u64) -> (usize, usize) {
    let end = end.min(size as u64);
    (start.min(end) as usize, end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_parts_are_cut_across_buffers() {
        let bufs = [
            IoSlice::new(b"abc"),
            IoSlice::new(b""),
            IoSlice::new(b"defgh"),
        ];
        let flat = |skip, len| {
            with_part(&bufs, skip, len, |part| {
                part.iter()
                    .flat_map(|buf| buf.to_vec())
                    .collect::<Vec<u8>>()
            })
        };
        assert_eq!(flat(0, 8), b"abcdefgh");
        assert_eq!(flat(2, 3), b"cde");
        assert_eq!(flat(4, 4), b"efgh");
        assert_eq!(flat(3, 0), b"");
        let (mut one, mut two) = ([0u8; 3], [0u8; 4]);
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        with_part_mut(&mut bufs, 1, 4, |part| {
            for buf in part {
                buf.fill(7);
            }
        });
        assert_eq!((one, two), ([0, 7, 7], [7, 7, 0, 0]));
    }
}
