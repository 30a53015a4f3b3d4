//! Which layer holds what.

use super::Image;
use crate::error::Result;
use crate::units::ByteRange;

/// What a range of the disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that have to be read.
    Data,
    /// Known to read as zeros.
    Zero,
}

/// A run of the disk that one layer answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageExtent {
    /// Where in the image.
    pub range: ByteRange,
    /// The layer that answers: 0 is the top, 1 its origin, and so on.
    pub depth: u32,
    /// Whether it is known to be zeros.
    pub kind: ExtentKind,
    /// Whether that layer holds the range. If not, no layer does, and it reads as zeros.
    pub present: bool,
    /// Whether the bytes occupy space in that layer's file.
    pub allocated: bool,
    /// Offset in that layer's file, if it holds the range.
    pub offset: Option<u64>,
}

/// Extents of a range, in order, neighbours of one kind joined.
#[derive(Debug)]
pub struct Extents<'a> {
    image: &'a Image,
}

impl Iterator for Extents<'_> {
    type Item = Result<ImageExtent>;

    fn next(&mut self) -> Option<Result<ImageExtent>> {
        let _ = self.image;
        unimplemented!()
    }
}

impl Image {
    /// The first extent of `range`, which must not be empty.
    pub fn next_extent(&self, range: ByteRange) -> Result<ImageExtent> {
        let _ = range;
        unimplemented!()
    }

    /// All extents of `range`.
    pub fn extents(&self, range: ByteRange) -> Result<Extents<'_>> {
        let _ = range;
        unimplemented!()
    }
}
