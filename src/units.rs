//! Units of the snapshot format: sectors, chunks and byte ranges.
//!
//! Every address space has its own type, so an origin chunk cannot be mistaken for a COW chunk. Conversions are methods
//! and check for overflow where a value may come from a file or a caller.
#![forbid(unsafe_code)]

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Bytes in a sector. Fixed by the format, independent of any device's block size.
pub const SECTOR_SIZE: u64 = 512;

/// Bytes of one exception on disk.
pub const EXCEPTION_SIZE: u64 = 16;

/// Size of a chunk: a power of two from 512 bytes to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize {
    shift: u32,
}

impl ChunkSize {
    /// The smallest chunk the format allows, 512 bytes.
    pub const MIN: ChunkSize = ChunkSize { shift: 9 };
    /// The largest chunk the kernel accepts, 1 GiB.
    pub const MAX: ChunkSize = ChunkSize { shift: 30 };
    /// What `create` uses unless told otherwise, 16 KiB.
    pub const DEFAULT: ChunkSize = ChunkSize { shift: 14 };

    /// A chunk size from a count of bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] unless `bytes` is a power of two from 512 bytes to 1 GiB.
    pub fn from_bytes(bytes: u64) -> Result<ChunkSize> {
        let shift = bytes.trailing_zeros();
        let legal = bytes.is_power_of_two() && (Self::MIN.shift..=Self::MAX.shift).contains(&shift);
        if !legal {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("chunk size {bytes} is not a power of two from 512 bytes to 1 GiB"),
            ));
        }
        Ok(ChunkSize { shift })
    }

    /// A chunk size from the count of sectors in a header.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] unless it is a power of two from 1 to 2 097 152.
    pub fn from_sectors(sectors: u32) -> Result<ChunkSize> {
        Self::from_bytes(u64::from(sectors) * SECTOR_SIZE)
    }

    /// Bytes in a chunk.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// Sectors in a chunk.
    pub const fn sectors(self) -> u64 {
        self.bytes() / SECTOR_SIZE
    }

    /// Base-two logarithm of the chunk's bytes.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// Exceptions that fill one metadata area.
    pub const fn exceptions_per_area(self) -> u64 {
        self.bytes() / EXCEPTION_SIZE
    }

    /// Number of the chunk that holds byte `offset`.
    pub const fn index_of(self, offset: u64) -> u64 {
        offset >> self.shift
    }

    /// Position of byte `offset` in its chunk.
    pub const fn offset_in_chunk(self, offset: u64) -> u64 {
        offset & (self.bytes() - 1)
    }

    /// Chunks that cover `bytes`, the last one perhaps in part.
    pub const fn count_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// Byte at which chunk `index` starts, if a file can be that long.
    pub fn start_of(self, index: u64) -> Option<u64> {
        let start = index.checked_mul(self.bytes())?;
        (start <= MAX_FILE_SIZE).then_some(start)
    }
}

impl fmt::Debug for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkSize({})", self.bytes())
    }
}

/// The longest file an offset can address, `i64::MAX` bytes as everywhere in POSIX.
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// Refuses a size that no disk can have.
pub(crate) fn check_disk_size(size: u64) -> Result<()> {
    if size.is_multiple_of(SECTOR_SIZE) && size <= MAX_FILE_SIZE {
        return Ok(());
    }
    let message = format!(
        "a disk of {size} bytes: must be a multiple of {SECTOR_SIZE}, at most {MAX_FILE_SIZE}"
    );
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// Number of a chunk of the origin, which is also its number in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginChunk(pub u64);

/// Number of a chunk of the COW file. 0 is the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CowChunk(pub u64);

impl fmt::Display for OriginChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CowChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `len` bytes from byte `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// A range. `start + len` must not overflow; see [`ByteRange::checked`] for values from outside.
    pub const fn new(start: u64, len: u64) -> ByteRange {
        ByteRange { start, len }
    }

    /// A range whose end is known to fit a file offset, or `None`.
    pub fn checked(start: u64, len: u64) -> Option<ByteRange> {
        let end = start.checked_add(len)?;
        (end <= MAX_FILE_SIZE).then_some(ByteRange { start, len })
    }

    /// First byte behind the range.
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// Whether the range has no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {}", self.len, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_chunk_size_accepts_every_legal_size_and_no_other() {
        for shift in 9..=30 {
            let chunk = ChunkSize::from_bytes(1 << shift).unwrap();
            assert_eq!(chunk.bytes(), 1 << shift);
            assert_eq!(
                ChunkSize::from_sectors(chunk.sectors() as u32).unwrap(),
                chunk
            );
        }
        for bytes in [0, 1, 256, 511, 513, 768, 1 << 31, u64::MAX] {
            let error = ChunkSize::from_bytes(bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bytes}");
        }
        assert!(ChunkSize::from_sectors(0).is_err());
        assert!(ChunkSize::from_sectors(3).is_err());
        assert!(ChunkSize::from_sectors(1 << 22).is_err());
    }

    #[test]
    fn test_chunk_arithmetic() {
        let chunk = ChunkSize::from_bytes(4096).unwrap();
        assert_eq!(chunk.exceptions_per_area(), 256);
        assert_eq!(chunk.index_of(8191), 1);
        assert_eq!(chunk.offset_in_chunk(8191), 4095);
        assert_eq!(chunk.count_for(8193), 3);
        assert_eq!(chunk.start_of(3), Some(12288));
        assert_eq!(chunk.start_of(u64::MAX >> 12), None);
    }

    #[test]
    fn test_byte_range_checked_refuses_what_no_file_can_hold() {
        assert_eq!(ByteRange::checked(u64::MAX, 1), None);
        assert_eq!(ByteRange::checked(MAX_FILE_SIZE, 1), None);
        assert_eq!(ByteRange::checked(1, 2).map(ByteRange::end), Some(3));
    }
}
