//! What several test targets share.
#![allow(dead_code, reason = "each target uses its own part")]
#![allow(unused_imports, reason = "each target uses its own part")]
#![allow(unreachable_pub, reason = "a test target has no outside")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

pub mod plans;
pub mod raw_store;
pub mod toy_crash;
pub mod toy_disk;
pub mod toy_host;
pub mod toy_jobs;
