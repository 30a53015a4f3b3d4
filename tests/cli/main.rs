//! The tool from outside: processes, files, exit codes, what is printed.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod bad_arguments;
mod bad_files;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "../storage_common/devices.rs"]
mod block;
mod commands;
mod convert;
mod crash;
mod descriptor;
mod devices;
#[path = "../common/golden.rs"]
mod golden;
mod harness;
#[path = "../common/holder.rs"]
mod holder;
mod inspect;
#[path = "../common/pattern.rs"]
mod pattern;
mod pitfalls;
mod recover;
mod table;
mod usage;
