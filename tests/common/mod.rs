//! What several test targets share.
#![allow(dead_code, reason = "each target uses its own part")]
#![allow(unreachable_pub, reason = "a test target has no outside")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

pub mod toy_host;
