//! An exception: "this chunk of the origin is kept in that chunk of the COW file", 16 bytes on disk.

use crate::units::{CowChunk, EXCEPTION_SIZE, OriginChunk};

const SIZE: usize = EXCEPTION_SIZE as usize;

/// One record of a metadata area: the old chunk at byte 0, the new chunk at byte 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exception {
    /// Chunk of the origin, and of the snapshot.
    pub old: OriginChunk,
    /// Chunk of the COW file; 0 ends the log, whatever the old chunk is.
    pub new: CowChunk,
}

impl Exception {
    /// The record behind the last exception.
    pub const END: Exception = Exception {
        old: OriginChunk(0),
        new: CowChunk(0),
    };

    /// Whether this record ends the log.
    pub const fn is_end(&self) -> bool {
        self.new.0 == 0
    }

    /// Reads one record.
    pub const fn decode(bytes: &[u8; SIZE]) -> Exception {
        // One load: the old chunk is the low half of a little-endian 128-bit number.
        let both = u128::from_le_bytes(*bytes);
        Exception {
            old: OriginChunk(both as u64),
            new: CowChunk((both >> 64) as u64),
        }
    }

    /// The record's bytes.
    pub const fn encode(&self) -> [u8; SIZE] {
        ((self.new.0 as u128) << 64 | self.old.0 as u128).to_le_bytes()
    }

    /// `len` exceptions from this one on that go up by one on both sides.
    pub(crate) fn run(self, len: u64) -> impl Iterator<Item = Exception> {
        (0..len).map(move |i| Exception {
            old: OriginChunk(self.old.0 + i),
            new: CowChunk(self.new.0 + i),
        })
    }

    /// Reads all records of `bytes`, [`END`](Exception::END) and what follows it included. An incomplete one at the end is left out.
    pub fn decode_slice(
        bytes: &[u8],
    ) -> impl DoubleEndedIterator<Item = Exception> + ExactSizeIterator {
        bytes.as_chunks().0.iter().map(Exception::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn test_exception_bytes_are_the_kernels() {
        // Old chunk 5 is kept in chunk 2.
        let bytes = [5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        let exception = Exception {
            old: OriginChunk(5),
            new: CowChunk(2),
        };
        assert_eq!(Exception::decode(&bytes), exception);
        assert_eq!(exception.encode(), bytes);
    }

    #[test]
    fn test_only_the_new_chunk_ends_the_log() {
        assert!(Exception::END.is_end());
        assert_eq!(Exception::END.encode(), [0; 16]);
        assert!(
            Exception {
                old: OriginChunk(77),
                new: CowChunk(0)
            }
            .is_end()
        );
        assert!(
            !Exception {
                old: OriginChunk(0),
                new: CowChunk(2)
            }
            .is_end()
        );
    }

    #[test]
    fn test_decode_slice_leaves_out_an_incomplete_record() {
        let mut bytes = [[1u8; 16], [2; 16]].concat();
        bytes.pop();
        let found: Vec<_> = Exception::decode_slice(&bytes).collect();
        assert_eq!(found, [Exception::decode(&[1; 16])]);
        assert_eq!(Exception::decode_slice(&[]).len(), 0);
    }

    proptest! {
        #[test]
        fn test_exception_round_trip(pairs in prop::collection::vec(any::<(u64, u64)>(), 0..40)) {
            let all: Vec<_> = pairs
                .iter()
                .map(|&(old, new)| Exception { old: OriginChunk(old), new: CowChunk(new) })
                .collect();
            let bytes: Vec<u8> = all.iter().flat_map(Exception::encode).collect();
            prop_assert_eq!(Exception::decode_slice(&bytes).collect::<Vec<_>>(), all);
        }
    }
}
