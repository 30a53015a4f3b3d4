//! Zeros written by hand, where nothing better exists.
#![forbid(unsafe_code)]

use std::io::IoSlice;

use super::Storage;
use crate::error::Result;
use crate::units::ByteRange;

const PAGE: usize = 64 << 10;
const PAGES_AT_A_TIME: usize = 16;

/// Aligned so that direct I/O takes it as it is.
#[repr(align(4096))]
struct Zeros([u8; PAGE]);

static ZEROS: Zeros = Zeros([0; PAGE]);

/// Writes zeros over `range`, a mebibyte at a time.
pub(super) fn write(storage: &dyn Storage, range: ByteRange) -> Result<()> {
    let mut at = range.start;
    while at < range.end() {
        let mut left = (range.end() - at).min((PAGE * PAGES_AT_A_TIME) as u64);
        let mut bufs = [IoSlice::new(&[]); PAGES_AT_A_TIME];
        let start = at;
        let mut used = 0;
        for buf in &mut bufs {
            let len = left.min(PAGE as u64);
            *buf = IoSlice::new(&ZEROS.0[..len as usize]);
            left -= len;
            at += len;
            used += usize::from(len > 0);
        }
        storage.write_vectored_at(&bufs[..used], start)?;
    }
    Ok(())
}
