//! Signatures that other parts build against until the real store lands.
#![allow(missing_docs, unused_variables, clippy::all)]

use std::sync::Arc;

use super::{Pins, Plan};
use crate::error::{Error, Result};
use crate::format::{Descriptor, Geometry, Header};
use crate::units::{ByteRange, ChunkSize, CowChunk, OriginChunk};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowMode {
    #[default]
    NoSpace,
    Persistent,
    PersistentOverflow,
}

#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub cow_size: u64,
    pub growable: bool,
    pub writable: bool,
    pub origin_size: Option<u64>,
    pub overflow: OverflowMode,
}

#[derive(Debug)]
pub struct Loader {}

impl Loader {
    pub fn new(options: LoadOptions) -> Result<Loader> {
        unimplemented!()
    }
    pub fn next_plan(&mut self) -> Result<Option<Plan>> {
        unimplemented!()
    }
    pub fn finish_plan(&mut self, plan: Plan) -> Result<()> {
        unimplemented!()
    }
    pub fn finish(self) -> Result<Store> {
        unimplemented!()
    }
}

#[derive(Clone, Debug)]
pub struct FormatOptions {
    pub chunk_size: ChunkSize,
    pub descriptor: Option<Descriptor>,
    pub wipe: bool,
}

pub fn format_plan(options: &FormatOptions) -> Result<Plan> {
    unimplemented!()
}

#[derive(Debug)]
pub struct CheckReader {}

impl CheckReader {
    pub fn new(options: LoadOptions) -> Result<CheckReader> {
        unimplemented!()
    }
    pub fn next_plan(&mut self) -> Result<Option<Plan>> {
        unimplemented!()
    }
    pub fn finish_plan(&mut self, plan: Plan) -> Result<()> {
        unimplemented!()
    }
    pub fn finish(self) -> Result<CheckReport> {
        unimplemented!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Note,
    Leak,
    Repairable,
    Corruption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {}

#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub kind: FindingKind,
    pub offset: u64,
    pub message: String,
}

#[derive(Clone, Debug)]
pub struct CheckReport {
    pub findings: Vec<Finding>,
    pub corruptions: u64,
    pub repairable: u64,
    pub exceptions: u64,
    pub areas: u64,
    pub next_free: u64,
    pub holes: Vec<ByteRange>,
    pub chunk_size: ChunkSize,
    pub header: Header,
    pub descriptor: Option<Descriptor>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    Merging,
    MergeFailed,
    Overflow,
    Invalid,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub sectors_allocated: u64,
    pub total_sectors: u64,
    pub metadata_sectors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    pub usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub target: Target,
    pub len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Cow { offset: u64 },
    Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteExtent {
    pub target: WriteTarget,
    pub len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteTarget {
    Cow { offset: u64 },
    Unmapped,
    Origin,
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExceptionId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewException {
    pub id: ExceptionId,
    pub old: OriginChunk,
    pub new: CowChunk,
    pub count: u64,
    pub cow_offset: u64,
    pub reads_zero: bool,
}

#[derive(Debug)]
pub enum Prepared {
    Exception(NewException),
    Reserve(Plan),
    Wait,
    Retry,
}

#[derive(Debug)]
pub enum Commit {
    Plan(Plan),
    Clean,
    Wait,
}

#[derive(Debug)]
pub enum Progress {
    Plan(Plan),
    Wait,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    pub required: u64,
    pub fully_allocated: u64,
}

pub fn measure(chunk: ChunkSize, virtual_size: u64, mapped_chunks: u64) -> Measure {
    unimplemented!()
}

#[derive(Debug)]
pub struct Store {}

impl Store {
    pub fn chunk_size(&self) -> ChunkSize {
        unimplemented!()
    }
    pub fn geometry(&self) -> Geometry {
        unimplemented!()
    }
    pub fn virtual_size(&self) -> u64 {
        unimplemented!()
    }
    pub fn header(&self) -> Header {
        unimplemented!()
    }
    pub fn descriptor(&self) -> Option<&Descriptor> {
        unimplemented!()
    }
    pub fn is_writable(&self) -> bool {
        unimplemented!()
    }
    pub fn exceptions(&self) -> u64 {
        unimplemented!()
    }
    pub fn state(&self) -> State {
        unimplemented!()
    }
    pub fn usage(&self) -> Usage {
        unimplemented!()
    }
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    pub fn pending(&self) -> u64 {
        unimplemented!()
    }
    pub fn should_commit(&self) -> bool {
        unimplemented!()
    }
    pub fn cow_size(&self) -> u64 {
        unimplemented!()
    }
    pub fn set_cow_size(&mut self, size: u64) {
        unimplemented!()
    }
    pub fn heap_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn runs(&self) -> impl Iterator<Item = (OriginChunk, CowChunk, u64)> {
        std::iter::empty()
    }
    pub fn pins(&self) -> &Arc<Pins> {
        unimplemented!()
    }
    pub fn map(&self, range: ByteRange) -> Result<Extent> {
        unimplemented!()
    }
    pub fn map_write(&self, range: ByteRange) -> Result<WriteExtent> {
        unimplemented!()
    }
    pub fn prepare_exception(&mut self, first: OriginChunk, count: u64) -> Result<Prepared> {
        unimplemented!()
    }
    pub fn complete_exception(&mut self, id: ExceptionId) -> Result<()> {
        unimplemented!()
    }
    pub fn abort_exception(&mut self, id: ExceptionId) -> Result<()> {
        unimplemented!()
    }
    pub fn commit_exceptions(&mut self) -> Result<Commit> {
        unimplemented!()
    }
    pub fn finish_plan(&mut self, plan: Plan, outcome: Result<()>) -> Result<()> {
        unimplemented!()
    }
    pub fn fail(&mut self, error: &Error) {
        unimplemented!()
    }
    pub fn prepare_merge(&mut self, origin_size: u64) -> Result<()> {
        unimplemented!()
    }
    pub fn prepare_resize(&mut self, size: u64, origin_size: u64) -> Result<()> {
        unimplemented!()
    }
    pub fn prepare_descriptor(&mut self, descriptor: Option<Descriptor>) -> Result<()> {
        unimplemented!()
    }
    pub fn make_empty(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn prepare_repair(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn drop_snapshot(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn next_plan(&mut self) -> Result<Progress> {
        unimplemented!()
    }
    pub fn cancel(&mut self) {
        unimplemented!()
    }
    pub fn progress(&self) -> (u64, u64) {
        unimplemented!()
    }
    pub fn reclaim(&mut self) -> Option<Plan> {
        unimplemented!()
    }
    pub fn trim(&mut self) -> Option<Plan> {
        unimplemented!()
    }
}
