//! Parts that are not public otherwise, for tests from outside. Only with the feature `test-util`; not part of the API.

use crate::store::{ExceptionTable as Table, TableBuilder};
use crate::units::{CowChunk, OriginChunk};

/// The table of exceptions by old chunk.
#[derive(Debug, Default)]
pub struct ExceptionTable(Table);

impl ExceptionTable {
    /// A table of exceptions that come as in a log, old and new chunk each.
    pub fn from_log(log: impl Iterator<Item = (u64, u64)>) -> ExceptionTable {
        let mut builder = TableBuilder::default();
        log.for_each(|(old, new)| builder.push_run(OriginChunk(old), CowChunk(new), 1));
        let (table, _) = builder.finish().expect("memory for a table");
        ExceptionTable(table)
    }

    /// Adds one exception; the old chunk must not have one.
    pub fn insert(&mut self, old: u64, new: u64) {
        self.0.insert_run(OriginChunk(old), CowChunk(new), 1);
    }

    /// Removes the exception of an old chunk, if there is one.
    pub fn remove(&mut self, old: u64) {
        self.0.remove(OriginChunk(old), 1);
    }

    /// Number of exceptions.
    pub fn exceptions(&self) -> u64 {
        self.0.len()
    }

    /// Bytes on the heap, as far as the table knows.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
