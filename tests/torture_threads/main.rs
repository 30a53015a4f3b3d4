//! Everything at once: many threads on one image, two processes with one lock between them, and processes killed at any moment.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

#[path = "../common/budget.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod budget;
#[path = "../cli/harness.rs"]
#[allow(dead_code, reason = "the tests of the tool use more of it")]
mod harness;
#[path = "../storage_common/host.rs"]
#[allow(dead_code, reason = "the tests of storages use more of it")]
mod host;
#[path = "../image_common/mod.rs"]
mod image_common;

mod contenders;
mod kill;
mod kill_library;
mod kill_tool;
mod media;
mod stamps;
mod stress;
