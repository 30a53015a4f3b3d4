//! Helpers of the storage tests: loop devices, small file systems, and the battery of behaviours that every storage has.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod battery;
pub(crate) mod devices;
pub(crate) mod host;

/// Bytes that differ from place to place and from `seed` to `seed`.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed)
        .collect()
}
