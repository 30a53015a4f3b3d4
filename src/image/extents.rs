//! Which layer holds what.

use super::Image;
use super::layer::Layer;
use super::node::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Storage, StorageExtent};
use crate::store::Target;
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
    /// The layer that answers: 0 is the top, 1 its origin, and so on. Where none does, the last one that was asked.
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

/// An extent without its place in the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) len: u64,
    pub(crate) depth: u32,
    pub(crate) kind: ExtentKind,
    allocated: bool,
    offset: Option<u64>,
}

impl Located {
    fn nowhere(len: u64, depth: u32) -> Located {
        Located {
            len,
            depth,
            kind: ExtentKind::Zero,
            allocated: false,
            offset: None,
        }
    }

    fn in_storage(
        storage: &dyn Storage,
        offset: u64,
        len: u64,
        depth: u32,
        seen: &mut Seen,
    ) -> Result<Located> {
        let extent = seen.extent_at(storage, offset, depth)?;
        let kind = if extent.allocated {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Located {
            len: extent.len.clamp(1, len),
            depth,
            kind,
            allocated: extent.allocated,
            offset: Some(offset),
        })
    }
}

/// What files were found to hold, by depth. Asking a file for the end of its data takes as long as the data is, and scattered chunks lie
/// in the same data.
///
/// Only data is remembered: a hole may be filled by somebody at any moment, and must not be taken for zeros then. What was data and is
/// none any more, or lies one layer deeper since a snapshot, is merely read for nothing.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<Option<ByteRange>>);

impl Seen {
    fn extent_at(
        &mut self,
        storage: &dyn Storage,
        offset: u64,
        depth: u32,
    ) -> Result<StorageExtent> {
        let depth = depth as usize;
        let data = self.0.get(depth).copied().flatten();
        if let Some(data) = data.filter(|data| (data.start..data.end()).contains(&offset)) {
            let len = data.end() - offset;
            return Ok(StorageExtent {
                len,
                allocated: true,
            });
        }
        let extent = storage.extent_at(offset)?;
        if self.0.len() <= depth {
            self.0.resize(depth + 1, None);
        }
        if let Some(place) = self.0.get_mut(depth) {
            *place = extent
                .allocated
                .then(|| ByteRange::checked(offset, extent.len))
                .flatten();
        }
        Ok(extent)
    }
}

impl Layer {
    /// What the start of `range`, which lies inside, is.
    pub(crate) fn locate(&self, range: ByteRange, depth: u32, seen: &mut Seen) -> Result<Located> {
        let (extent, _pin) = self.look_up(range)?;
        match extent.target {
            Target::Cow { offset } => {
                Located::in_storage(&self.cow, offset, extent.len, depth, seen)
            }
            Target::Origin => {
                let range = ByteRange::new(range.start, extent.len);
                self.origin.locate(range, depth + 1, seen)
            }
        }
    }
}

impl Node {
    /// What the start of `range` is.
    pub(crate) fn locate(&self, range: ByteRange, depth: u32, seen: &mut Seen) -> Result<Located> {
        let inside = self.end().saturating_sub(range.start).min(range.len);
        let part = ByteRange::new(range.start, inside);
        match self {
            Node::Zeros => Ok(Located::nowhere(range.len, depth.saturating_sub(1))),
            _ if inside == 0 => Ok(Located::nowhere(range.len, depth)),
            Node::Raw(raw) => Located::in_storage(&raw.storage, part.start, inside, depth, seen),
            Node::Layer(layer) => layer.locate(part, depth, seen),
        }
    }
}

/// Extents of a range, in order, neighbours of one kind joined. Ends after an error.
#[derive(Debug)]
pub struct Extents<'a> {
    image: &'a Image,
    rest: ByteRange,
    /// Read ahead to see whether it can be joined.
    next: Option<ImageExtent>,
    seen: Seen,
}

impl Extents<'_> {
    fn fetch(&mut self) -> Result<Option<ImageExtent>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let extent = self
            .image
            .extent_in(self.rest, &mut self.seen)
            .inspect_err(|_| self.rest.len = 0)?;
        let len = self.rest.len - extent.range.len;
        self.rest = ByteRange::new(extent.range.end(), len);
        Ok(Some(extent))
    }

    fn fetch_joined(&mut self) -> Result<Option<ImageExtent>> {
        let Some(mut extent) = self
            .next
            .take()
            .map_or_else(|| self.fetch(), |next| Ok(Some(next)))?
        else {
            return Ok(None);
        };
        while let Some(next) = self.fetch()? {
            if !continues(&extent, &next) {
                self.next = Some(next);
                break;
            }
            extent.range.len += next.range.len;
        }
        Ok(Some(extent))
    }
}

fn continues(extent: &ImageExtent, next: &ImageExtent) -> bool {
    let expected = extent.offset.map(|offset| offset + extent.range.len);
    let alike = |e: &ImageExtent| (e.depth, e.kind, e.present, e.allocated);
    alike(extent) == alike(next) && next.offset == expected
}

impl Iterator for Extents<'_> {
    type Item = Result<ImageExtent>;

    fn next(&mut self) -> Option<Result<ImageExtent>> {
        self.fetch_joined().transpose()
    }
}

impl Image {
    /// The first extent of `range`, which must not be empty.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`] if the range is empty or not inside, else what reading the layers gives.
    pub fn next_extent(&self, range: ByteRange) -> Result<ImageExtent> {
        self.extent_in(range, &mut Seen::default())
    }

    fn extent_in(&self, range: ByteRange, seen: &mut Seen) -> Result<ImageExtent> {
        let top = self.top();
        top.checked_range(range.start, range.len)?;
        if range.is_empty() {
            let message = "an extent was asked for of an empty range";
            return Err(top.named(Error::new(ErrorKind::OutOfBounds, message)));
        }
        let found = top.locate(range, 0, seen)?;
        Ok(ImageExtent {
            range: ByteRange::new(range.start, found.len),
            depth: found.depth,
            kind: found.kind,
            present: found.offset.is_some(),
            allocated: found.allocated,
            offset: found.offset,
        })
    }

    /// All extents of `range`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`] if the range is not inside.
    pub fn extents(&self, range: ByteRange) -> Result<Extents<'_>> {
        let top = self.top();
        let rest = top.checked_range(range.start, range.len)?;
        if !rest.is_empty() {
            top.look_up(rest)?;
        }
        Ok(Extents {
            image: self,
            rest,
            next: None,
            seen: Seen::default(),
        })
    }
}
