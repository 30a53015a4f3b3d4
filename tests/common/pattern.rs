//! Deterministic disk content: every sector of every seed is different, and compresses well.
//!
//! Sector `n` of seed `s` holds the 64-bit little-endian word `w = s << 48 | n`, 64 times, the
//! first time inverted so that content shifted within a sector is noticed too.

pub(crate) const SECTOR: usize = 512;

/// The content of one sector.
pub(crate) fn sector(seed: u16, number: u64) -> [u8; SECTOR] {
    let word = (u64::from(seed) << 48) | number;
    let mut bytes = [0; SECTOR];
    for slot in bytes.chunks_exact_mut(8) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes[..8].copy_from_slice(&(!word).to_le_bytes());
    bytes
}

/// Sectors `first..first + count`.
pub(crate) fn sectors(seed: u16, first: u64, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in first..first + count {
        bytes.extend_from_slice(&sector(seed, number));
    }
    bytes
}
