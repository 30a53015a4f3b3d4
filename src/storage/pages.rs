//! Sparse bytes in memory whose copies share what has not changed since.
#![forbid(unsafe_code)]

use crate::sync::Arc;
use std::collections::BTreeMap;
use std::fmt;

use super::StorageExtent;
use crate::units::ByteRange;

const PAGE: usize = 16 << 10;

type Page = Arc<[u8; PAGE]>;

/// Bytes from 0 to `u64::MAX`, zero where no page is. Cloning costs a pointer per page.
#[derive(Clone, Default)]
pub(super) struct Pages(BTreeMap<u64, Page>);

/// A piece of a range that lies in one page: page number, start in the page, start in the range, length.
struct Piece {
    page: u64,
    start: usize,
    done: usize,
    len: usize,
}

/// Cuts `len` bytes from `offset` at page borders.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % PAGE as u64) as usize;
        let piece = Piece {
            page: at / PAGE as u64,
            start,
            done,
            len: (PAGE - start).min(len - done),
        };
        done += piece.len;
        Some(piece)
    })
}

impl Pages {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        for piece in pieces(offset, buf.len()) {
            let out = &mut buf[piece.done..][..piece.len];
            match self.0.get(&piece.page) {
                Some(page) => out.copy_from_slice(&page[piece.start..][..piece.len]),
                None => out.fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        for piece in pieces(offset, buf.len()) {
            let page = self
                .0
                .entry(piece.page)
                .or_insert_with(|| Arc::new([0; PAGE]));
            let target = &mut Arc::make_mut(page)[piece.start..][..piece.len];
            target.copy_from_slice(&buf[piece.done..][..piece.len]);
        }
    }

    /// Zeroes a range. Pages that lie in it wholly are dropped, the others are kept.
    pub(super) fn zero(&mut self, range: ByteRange) {
        let size = PAGE as u64;
        let (first, end) = (range.start.div_ceil(size), range.end() / size);
        if first >= end {
            return self.fill(range, 0);
        }
        self.fill(ByteRange::new(range.start, first * size - range.start), 0);
        self.fill(ByteRange::new(end * size, range.end() - end * size), 0);
        let whole: Vec<u64> = self.0.range(first..end).map(|(&page, _)| page).collect();
        for page in whole {
            self.0.remove(&page);
        }
    }

    /// Fills what exists of a range.
    pub(super) fn fill(&mut self, range: ByteRange, byte: u8) {
        if range.is_empty() {
            return;
        }
        let size = PAGE as u64;
        let pages = range.start / size..=(range.end() - 1) / size;
        for (&page, bytes) in self.0.range_mut(pages) {
            let first = range.start.saturating_sub(page * size) as usize;
            let end = (range.end() - page * size).min(size) as usize;
            Arc::make_mut(bytes)[first..end].fill(byte);
        }
    }

    /// Drops everything from `size` on, so that growing again shows zeros.
    pub(super) fn truncate(&mut self, size: u64) {
        let pages = size.div_ceil(PAGE as u64);
        self.0.split_off(&pages);
        self.fill(ByteRange::new(size, pages * PAGE as u64 - size), 0);
    }

    /// The run of present or absent pages at `offset`, in a storage of `size` bytes.
    pub(super) fn extent(&self, offset: u64, size: u64) -> StorageExtent {
        if offset >= size {
            return StorageExtent {
                len: 0,
                allocated: false,
            };
        }
        let page = PAGE as u64;
        let first = offset / page;
        let allocated = self.0.contains_key(&first);
        let end = if allocated {
            let mut end = first;
            while self.0.contains_key(&end) {
                end += 1;
            }
            end.saturating_mul(page)
        } else {
            let next = self.0.range(first..).next();
            next.map_or(size, |(&next, _)| next * page)
        };
        StorageExtent {
            len: end.min(size) - offset,
            allocated,
        }
    }

    /// Bytes that the pages occupy.
    pub(super) fn allocated(&self) -> u64 {
        self.0.len() as u64 * PAGE as u64
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} of {PAGE} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pages: &Pages, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0xee; len];
        pages.read(&mut buf, offset);
        buf
    }

    #[test]
    fn test_truncate_then_read_shows_zeros() {
        let mut pages = Pages::default();
        pages.write(&[7; 3 * PAGE], 100);
        pages.truncate(150);
        assert_eq!(bytes(&pages, 149, 2), [7, 0]);
        assert_eq!(pages.allocated(), PAGE as u64);
        pages.truncate(0);
        assert_eq!(pages.allocated(), 0);
    }

    #[test]
    fn test_zero_drops_whole_pages_and_keeps_neighbours() {
        let mut pages = Pages::default();
        pages.write(&[7; 4 * PAGE], 0);
        pages.zero(ByteRange::new(PAGE as u64 - 1, PAGE as u64 + 2));
        assert_eq!(bytes(&pages, PAGE as u64 - 2, 2), [7, 0]);
        assert_eq!(bytes(&pages, 2 * PAGE as u64, 2), [0, 7]);
        assert_eq!(pages.allocated(), 3 * PAGE as u64);
        pages.zero(ByteRange::new(0, i64::MAX as u64));
        assert_eq!(pages.allocated(), 0);
    }

    #[test]
    fn test_a_clone_keeps_what_it_was_taken_of() {
        let mut pages = Pages::default();
        pages.write(&[1; 10], 0);
        let before = pages.clone();
        pages.write(&[2; 10], 5);
        assert_eq!(bytes(&before, 4, 2), [1, 1]);
        assert_eq!(bytes(&pages, 4, 2), [1, 2]);
    }
}
