//! The exception store: decides, does no I/O.

mod pins;
mod plan;
mod stub;

pub use pins::{Pin, Pins};
pub use plan::{Device, Plan, Purpose, Step};
pub use stub::*;
