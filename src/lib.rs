//! VM disk layers in the Linux device-mapper persistent snapshot format.

pub mod error;
pub mod format;
pub mod storage;
pub mod units;
