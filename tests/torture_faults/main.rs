//! Every call for input or output may fail: what was flushed is there, what is shown is old or new, the error says where, and nothing
//! hangs or crashes.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod acts;
mod bench;
#[path = "../storage_common/devices.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod block;
#[path = "../common/budget.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod budget;
mod commands;
mod full;
#[path = "../cli/harness.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod harness;
#[path = "../image_common/mod.rs"]
mod image_common;
mod known;
mod library;
mod memory;
mod parallel;
mod random;
mod shim;
mod tool;
mod whole;
mod workloads;
#[path = "../image_common/world.rs"]
#[allow(dead_code, reason = "only its operations are used here")]
mod world;
