//! Driving a job plan by plan, for tests that make one of them fail.

use dmsnap::store::{Device, OverflowMode, Plan, Progress, Step};
use dmsnap::{Error, ErrorKind};

use super::toy_host::{Disk, Host, SECTOR};

pub const CHUNK: u64 = 4096;
pub const PER_CHUNK: u64 = CHUNK / SECTOR;

/// A layer of so many chunks over an origin of that size.
pub fn host(chunks: u64) -> Host {
    let sectors = chunks * PER_CHUNK;
    Host::new(
        CHUNK,
        sectors,
        sectors,
        Disk::growable(),
        OverflowMode::NoSpace,
    )
}

pub fn io_error() -> Error {
    Error::new(ErrorKind::Io, "test")
}

pub fn no_space() -> Error {
    Error::new(ErrorKind::NoSpace, "test")
}

pub fn next(host: &mut Host) -> Plan {
    match host.store.next_plan().unwrap() {
        Progress::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

/// Carries out the plans of a job up to the first one that is wanted.
pub fn run_until(host: &mut Host, wanted: impl Fn(&Plan) -> bool) -> Plan {
    loop {
        let plan = next(host);
        if wanted(&plan) {
            return plan;
        }
        host.finish_plan(plan);
    }
}

pub fn flushes(plan: &Plan, wanted: Device) -> bool {
    let flushes = |step: &Step| matches!(step, Step::Flush { device } if *device == wanted);
    plan.steps().iter().any(flushes)
}
