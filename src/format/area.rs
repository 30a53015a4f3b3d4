//! Where metadata areas and data chunks lie. Areas are not linked: arithmetic alone finds them.
//!
//! With `E` exceptions in an area, chunk 0 is the header, chunk 1 is area 0, then come the `E` data chunks that area 0 describes, then
//! area 1, and so on. A log is *compact* when its exceptions use the data chunks in order, without holes.

use crate::units::{ChunkSize, CowChunk, EXCEPTION_SIZE};

/// Chunk of the first metadata area.
const FIRST_AREA_CHUNK: u64 = 1;
/// First chunk that can hold data.
const FIRST_DATA_CHUNK: u64 = 2;

/// The layout that follows from a chunk size.
///
/// `None` stands for a number that does not fit 64 bits or, where bytes are counted, the longest file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    chunk: ChunkSize,
}

impl Geometry {
    /// The layout of a store with this chunk size.
    pub const fn new(chunk: ChunkSize) -> Geometry {
        Geometry { chunk }
    }

    /// Size of a chunk.
    pub const fn chunk_size(self) -> ChunkSize {
        self.chunk
    }

    /// Exceptions that fill one area.
    pub const fn exceptions_per_area(self) -> u64 {
        self.chunk.exceptions_per_area()
    }

    /// Chunks from one area to the next.
    pub const fn stride(self) -> u64 {
        self.exceptions_per_area() + 1
    }

    /// Chunk that holds area number `area`.
    pub const fn area_chunk(self, area: u64) -> Option<CowChunk> {
        let Some(before) = area.checked_mul(self.stride()) else {
            return None;
        };
        match before.checked_add(FIRST_AREA_CHUNK) {
            Some(chunk) => Some(CowChunk(chunk)),
            None => None,
        }
    }

    /// Whether `chunk` is a metadata area.
    pub const fn is_area_chunk(self, chunk: CowChunk) -> bool {
        chunk.0 % self.stride() == FIRST_AREA_CHUNK
    }

    /// Whether `chunk` is neither the header nor a metadata area.
    pub const fn is_data_chunk(self, chunk: CowChunk) -> bool {
        chunk.0 >= FIRST_DATA_CHUNK && !self.is_area_chunk(chunk)
    }

    /// Number of the area that `chunk` holds, if it is an area.
    pub const fn area_of(self, chunk: CowChunk) -> Option<u64> {
        if self.is_area_chunk(chunk) {
            Some(chunk.0 / self.stride())
        } else {
            None
        }
    }

    /// Area and slot of the log's record `index`, counted from 0.
    pub const fn area_and_slot(self, index: u64) -> (u64, u64) {
        (
            index / self.exceptions_per_area(),
            index % self.exceptions_per_area(),
        )
    }

    /// The new chunk of record `index` in a compact log.
    pub const fn compact_chunk(self, index: u64) -> Option<CowChunk> {
        // The same sum as "next free behind `index` records": a compact log hands out data chunks in order.
        match self.chunks_for(index) {
            Some(chunk) => Some(CowChunk(chunk)),
            None => None,
        }
    }

    /// The record that has `chunk` as its new chunk in a compact log, if `chunk` can hold data.
    pub const fn record_of(self, chunk: CowChunk) -> Option<u64> {
        if !self.is_data_chunk(chunk) {
            return None;
        }
        let behind_first = chunk.0 - FIRST_DATA_CHUNK;
        Some(behind_first - behind_first / self.stride())
    }

    /// The first data chunk that a compact log of `records` exceptions leaves free.
    pub const fn compact_next_free(self, records: u64) -> Option<CowChunk> {
        self.compact_chunk(records)
    }

    /// `chunk`, or the one behind it if `chunk` is an area.
    pub const fn skip_area(self, chunk: CowChunk) -> CowChunk {
        // No overflow: 2^64 - 1 is an area for no chunk size, as a test shows.
        if self.is_area_chunk(chunk) {
            CowChunk(chunk.0 + 1)
        } else {
            chunk
        }
    }

    /// Data chunks among the first `chunks` chunks of a file.
    pub const fn fit(self, chunks: u64) -> u64 {
        // The header aside.
        let rest = chunks.saturating_sub(1);
        rest - rest.div_ceil(self.stride())
    }

    /// Exceptions that a file of `chunks` chunks can keep.
    ///
    /// One less than [`fit`](Geometry::fit) where the file ends right behind the last data chunk of an area: filling an area needs
    /// the next one, which terminates the log.
    pub const fn capacity(self, chunks: u64) -> u64 {
        let ends_behind_full_area = chunks > 1 && (chunks - 1).is_multiple_of(self.stride());
        self.fit(chunks) - ends_behind_full_area as u64
    }

    /// Chunks that a file needs for `records` exceptions: header, data, and an area behind each full one.
    pub const fn chunks_for(self, records: u64) -> Option<u64> {
        let Some(with_areas) = records.checked_add(records / self.exceptions_per_area()) else {
            return None;
        };
        with_areas.checked_add(FIRST_DATA_CHUNK)
    }

    /// Byte at which `chunk` starts.
    pub fn byte_offset(self, chunk: CowChunk) -> Option<u64> {
        self.chunk.start_of(chunk.0)
    }

    /// Byte of the slot of the log's record `index`.
    pub fn slot_offset(self, index: u64) -> Option<u64> {
        let (area, slot) = self.area_and_slot(index);
        let start = self.byte_offset(self.area_chunk(area)?)?;
        // The slot lies inside a chunk of at most 2^30 bytes, and `start` is at most 2^63.
        Some(start + slot * EXCEPTION_SIZE)
    }

    /// Whole chunks in a file of `bytes` bytes; a partial one at the end is never used.
    pub const fn whole_chunks(self, bytes: u64) -> u64 {
        self.chunk.index_of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sectors(count: u32) -> Geometry {
        Geometry::new(ChunkSize::from_sectors(count).unwrap())
    }

    #[test]
    fn test_first_area_chunks() {
        for (chunk, bytes, exceptions, areas) in [
            (1, 512, 32, vec![1, 34, 67, 100]),
            (2, 1024, 64, vec![1, 66, 131]),
            (8, 4096, 256, vec![1, 258, 515]),
            (16, 8192, 512, vec![1, 514, 1027]),
            (32, 16384, 1024, vec![1, 1026, 2051]),
            (256, 131_072, 8192, vec![1, 8194]),
            (1024, 524_288, 32768, vec![1, 32770]),
        ] {
            let geometry = sectors(chunk);
            assert_eq!(geometry.chunk_size().bytes(), bytes);
            assert_eq!(geometry.exceptions_per_area(), exceptions);
            assert_eq!(geometry.stride(), exceptions + 1);
            for (area, wanted) in areas.into_iter().enumerate() {
                assert_eq!(geometry.area_chunk(area as u64), Some(CowChunk(wanted)));
                assert_eq!(geometry.area_of(CowChunk(wanted)), Some(area as u64));
                assert!(!geometry.is_area_chunk(CowChunk(wanted - 1)));
                assert!(!geometry.is_area_chunk(CowChunk(wanted + 1)));
            }
        }
    }

    #[test]
    fn test_header_is_neither_area_nor_data() {
        let geometry = sectors(1);
        assert!(!geometry.is_area_chunk(CowChunk(0)));
        assert!(!geometry.is_data_chunk(CowChunk(0)));
        assert_eq!(geometry.record_of(CowChunk(0)), None);
        assert_eq!(geometry.record_of(CowChunk(34)), None);
    }

    #[test]
    fn test_capacity_of_small_devices() {
        // Seen with the kernel: chunks of the device, data chunks that fit, exceptions it keeps, chunk size of one sector.
        for (chunks, fit, capacity) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (3, 1, 1),
            (33, 31, 31),
            (34, 32, 31),
            (35, 32, 32),
            (36, 33, 33),
            (67, 64, 63),
            (68, 64, 64),
        ] {
            assert_eq!(sectors(1).fit(chunks), fit, "{chunks}");
            assert_eq!(sectors(1).capacity(chunks), capacity, "{chunks}");
        }
        assert_eq!(sectors(8).capacity(258), 255);
        assert_eq!(sectors(8).capacity(259), 256);
    }

    #[test]
    fn test_compact_log_skips_areas() {
        // Seen with the kernel: record 31 went to chunk 33, record 32 behind area 1 to chunk 35.
        let geometry = sectors(1);
        for (record, chunk) in [(0, 2), (31, 33), (32, 35), (33, 36), (63, 66), (64, 68)] {
            assert_eq!(geometry.compact_chunk(record), Some(CowChunk(chunk)));
            assert_eq!(geometry.record_of(CowChunk(chunk)), Some(record));
        }
        assert_eq!(geometry.compact_next_free(34), Some(CowChunk(37)));
        assert_eq!(geometry.compact_next_free(32), Some(CowChunk(35)));
        assert_eq!(geometry.chunks_for(0), Some(2));
        assert_eq!(geometry.chunks_for(31), Some(33));
        assert_eq!(geometry.chunks_for(32), Some(35));
    }

    #[test]
    fn test_skip_area_moves_only_off_areas() {
        for (chunk, wanted) in [(2, 2), (33, 33), (34, 35), (41, 41), (u64::MAX, u64::MAX)] {
            assert_eq!(sectors(1).skip_area(CowChunk(chunk)), CowChunk(wanted));
        }
        for shift in 0..=21 {
            assert!(!sectors(1 << shift).is_area_chunk(CowChunk(u64::MAX)));
        }
    }

    #[test]
    fn test_byte_offsets() {
        let small = sectors(1);
        assert_eq!(small.slot_offset(0), Some(512));
        assert_eq!(small.slot_offset(31), Some(512 + 31 * 16));
        assert_eq!(small.slot_offset(33), Some(34 * 512 + 16));
        assert_eq!(sectors(8).byte_offset(CowChunk(5)), Some(20480));
        assert_eq!(sectors(8).whole_chunks(10 * 4096 + 4095), 10);
    }

    #[test]
    fn test_numbers_past_the_end_of_any_file() {
        let small = sectors(1);
        assert_eq!(small.area_chunk(u64::MAX / 33 + 1), None);
        assert_eq!(small.area_chunk(u64::MAX), None);
        assert_eq!(small.compact_chunk(u64::MAX), None);
        assert_eq!(small.chunks_for(u64::MAX - 1), None);
        assert_eq!(small.byte_offset(CowChunk(u64::MAX)), None);
        assert_eq!(small.slot_offset(u64::MAX), None);
        assert_eq!(sectors(1 << 21).slot_offset(1 << 60), None);
    }

    proptest! {
        #[test]
        fn test_no_number_panics(shift in 0u32..=21, number: u64) {
            let geometry = sectors(1 << shift);
            let _ = geometry.slot_offset(number);
            let _ = geometry.area_of(CowChunk(number));
            let _ = geometry.skip_area(CowChunk(number));
            prop_assert!(geometry.capacity(number) <= geometry.fit(number));
            if let Some(chunk) = geometry.compact_chunk(number) {
                prop_assert!(geometry.is_data_chunk(chunk));
                prop_assert_eq!(geometry.record_of(chunk), Some(number));
            }
        }

        #[test]
        fn test_capacity_is_the_most_that_chunks_for_allows(shift in 0u32..=21, chunks in 2u64..1 << 50) {
            let geometry = sectors(1 << shift);
            let most = geometry.capacity(chunks);
            prop_assert!(geometry.chunks_for(most).is_some_and(|need| need <= chunks));
            // One more needs its data chunk and perhaps the next area.
            let (area, slot) = geometry.area_and_slot(most);
            let data = geometry.compact_chunk(most).unwrap();
            let next_area = geometry.area_chunk(area + 1).unwrap();
            let fills_area = slot + 1 == geometry.exceptions_per_area();
            prop_assert!(data.0 >= chunks || fills_area && next_area.0 >= chunks);
        }
    }
}
