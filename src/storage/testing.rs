//! Storages for tests: they record, count, hold or fail what passes through them. Only with the feature `test-util`.
#![forbid(unsafe_code)]

mod counting;
mod fault;
mod gate;
mod hooked;
mod operation;
mod power_cut;
mod recording;

pub use counting::{Counting, CountingStorage};
pub use fault::{Fault, FaultStorage, Faults};
pub use gate::{Gate, GateStorage, Gates};
pub use hooked::{Call, CallKinds, Hook, Hooked, Verdict};
pub use operation::Operation;
pub use power_cut::{Kept, PowerCut};
pub use recording::{Recorder, RecordingStorage};
