//! The exception store: decides, does no I/O.
#![forbid(unsafe_code)]

// Dead code allowed until the state machine that uses these two is in.
#[allow(dead_code)]
mod chunk_set;
mod pins;
mod plan;
mod stub;
#[allow(dead_code)]
mod table;

#[allow(unused_imports)]
pub(crate) use chunk_set::{ChunkRange, ChunkSet};
pub use pins::{Pin, Pins};
pub use plan::{Device, Plan, Purpose, Step};
pub use stub::*;
#[allow(unused_imports)]
pub(crate) use table::{
    BuildReport, Conflict, ExceptionRun, ExceptionTable, Findings, MAX_NEW_CHUNK, MAX_OLD_CHUNK,
    Run, SharedChunk, TableBuilder,
};
