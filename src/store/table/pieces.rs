//! The runs of a log on their way into the table, sorted in parts that fit a processor's cache.

use super::leaf::ENTRY_LEN;
use crate::error::Result;
use crate::store::memory;

/// So many pieces are sorted as they are; more are spread over buckets as they come.
const FEW: usize = 1 << 16;
const BUCKETS: u64 = 512;
/// Pieces in a block of a bucket: small enough to be used for leaves again when it has been emptied.
const BLOCK: usize = 256;
/// Most bits of a digit when sorting; its counters and the ends of its runs stay in the cache.
const DIGIT: u32 = 11;

/// Exceptions that follow each other in the log and on both sides; 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) old: u64,
    /// The new chunk in the upper 48 bits, the length in the others.
    new_and_len: u64,
}

impl Piece {
    pub(super) fn new(old: u64, new: u64, len: u64) -> Piece {
        Piece {
            old,
            new_and_len: new << 16 | len,
        }
    }

    pub(super) fn new_chunk(self) -> u64 {
        self.new_and_len >> 16
    }

    pub(super) fn len(self) -> u64 {
        self.new_and_len & ENTRY_LEN
    }

    pub(super) fn end(self) -> u64 {
        self.old + self.len()
    }

    /// Its exceptions as old chunk, `place`, new chunk.
    pub(super) fn singles(self, place: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        (0..self.len()).map(move |i| (self.old + i, place, self.new_chunk() + i))
    }

    /// The parts before and behind old chunk `at`, which lies inside.
    fn split(self, at: u64) -> (Piece, Piece) {
        let len = at - self.old;
        let behind = Piece::new(at, self.new_chunk() + len, self.len() - len);
        (Piece::new(self.old, self.new_chunk(), len), behind)
    }
}

/// Pieces in the order of the log, or spread over buckets by old chunk and in that order within each. No piece lies in two buckets.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    few: Vec<Piece>,
    buckets: Vec<Vec<Vec<Piece>>>,
    /// Old chunks of a bucket, as a power of two. The last bucket has all that are too high for the others.
    shift: u32,
}

impl Pieces {
    #[inline]
    pub(super) fn push(&mut self, piece: Piece) {
        if !self.buckets.is_empty() {
            self.put(piece);
        } else if self.few.len() < FEW {
            self.few.push(piece);
        } else {
            self.spread();
            self.put(piece);
        }
    }

    /// Makes buckets. The pieces so far tell how high old chunks go.
    #[cold]
    fn spread(&mut self) {
        let end = self.few.iter().map(|piece| piece.end()).max().unwrap_or(0);
        self.shift = end.div_ceil(BUCKETS).next_power_of_two().trailing_zeros();
        self.buckets.resize_with(BUCKETS as usize, Vec::new);
        for piece in std::mem::take(&mut self.few) {
            self.put(piece);
        }
    }

    #[inline]
    fn put(&mut self, mut piece: Piece) {
        loop {
            let index = (piece.old >> self.shift).min(BUCKETS - 1);
            let end = (index + 1) << self.shift;
            if piece.end() <= end || index == BUCKETS - 1 {
                return self.put_in(index as usize, piece);
            }
            let (before, behind) = piece.split(end);
            self.put_in(index as usize, before);
            piece = behind;
        }
    }

    #[inline]
    fn put_in(&mut self, index: usize, piece: Piece) {
        let Some(blocks) = self.buckets.get_mut(index) else {
            return;
        };
        match blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(piece),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(piece);
                blocks.push(block);
            }
        }
    }

    /// Hands out the pieces in parts. Those of a part are in the order of the log; their old chunks are lower than those of later parts.
    pub(super) fn for_each_part(
        self,
        mut work: impl FnMut(&mut Vec<Piece>) -> Result<()>,
    ) -> Result<()> {
        let mut part = self.few;
        work(&mut part)?;
        for blocks in self.buckets {
            part.clear();
            memory::reserve(&mut part, blocks.iter().map(Vec::len).sum())?;
            for block in blocks {
                part.extend_from_slice(&block);
            }
            work(&mut part)?;
        }
        Ok(())
    }
}

/// Sorts by old chunk. Equal ones may come in any order.
pub(super) fn sort_by_old(part: &mut Vec<Piece>, spare: &mut Vec<Piece>) -> Result<()> {
    let lowest = part.iter().map(|piece| piece.old).min().unwrap_or(0);
    let highest = part.iter().map(|piece| piece.old).max().unwrap_or(0);
    let bits = u64::BITS - (highest - lowest).leading_zeros();
    let passes = bits.div_ceil(DIGIT);
    if passes > 2 || part.len() < 1 << DIGIT {
        part.sort_unstable_by_key(|piece| piece.old);
        return Ok(());
    }
    memory::reserve(spare, part.len().saturating_sub(spare.len()))?;
    for pass in 0..passes {
        let digit = bits.div_ceil(passes);
        let mask = (1 << digit) - 1;
        let of = |piece: &Piece| ((piece.old - lowest) >> (pass * digit) & mask) as usize;
        let mut places = vec![0usize; 1 << digit];
        part.iter().for_each(|piece| places[of(piece)] += 1);
        let mut sum = 0;
        for place in &mut places {
            sum += std::mem::replace(place, sum);
        }
        // Every place is written below: what is there already need not be cleared.
        spare.resize(part.len(), Piece::new(0, 0, 0));
        for piece in part.iter() {
            let place = &mut places[of(piece)];
            spare[*place] = *piece;
            *place += 1;
        }
        std::mem::swap(part, spare);
        memory::reserve(spare, part.len().saturating_sub(spare.len()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below `bound` without a pattern.
    fn scattered(count: u64, bound: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(move |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) % bound)
    }

    #[test]
    fn test_sorting_by_digits_and_by_comparing_agree() {
        for (count, bound) in [
            (10_000, 1 << 20),
            (10_000, 100),
            (5_000, 1 << 40),
            (3_000, 1),
            (10, 1000),
            (0, 1),
        ] {
            let base = 1 << 41;
            let mut part: Vec<Piece> = scattered(count, bound)
                .map(|old| Piece::new(base + old, old + 2, 1))
                .collect();
            let mut expected: Vec<u64> = part.iter().map(|piece| piece.old).collect();
            expected.sort_unstable();
            sort_by_old(&mut part, &mut Vec::new()).unwrap();
            let found: Vec<u64> = part.iter().map(|piece| piece.old).collect();
            assert_eq!(found, expected, "{count} below {bound}");
            assert!(part.iter().all(|p| p.new_chunk() == p.old - base + 2));
        }
    }

    #[test]
    fn test_buckets_keep_all_pieces_in_the_order_of_the_log() {
        let few = FEW as u64;
        let mut pieces = Pieces::default();
        let mut chunks = 0;
        // More than are sorted as a whole, some of them runs across the borders of buckets, the last ones beyond all seen before.
        let olds = scattered(few + 5000, 1 << 26).chain((1 << 30..(1 << 30) + 5).rev());
        for (place, old) in (0..).zip(olds) {
            let len = if place % 1000 == 0 { 60_000 } else { 1 };
            pieces.push(Piece::new(old, 2 + place, len));
            chunks += len;
        }
        let (mut found, mut parts, mut before) = (0, 0, 0);
        let walked = pieces.for_each_part(|part| {
            parts += usize::from(!part.is_empty());
            let lowest = part.iter().map(|piece| piece.old).min();
            assert!(lowest.is_none_or(|lowest| lowest >= before), "{before}");
            before = part.iter().map(|piece| piece.end()).max().unwrap_or(before);
            found += part.iter().map(|piece| piece.len()).sum::<u64>();
            let whole = part.iter().filter(|piece| piece.len() == 1);
            assert!(
                whole.map(|piece| piece.new_chunk()).is_sorted(),
                "the order of the log"
            );
            Ok(())
        });
        walked.unwrap();
        assert_eq!(found, chunks);
        assert!(parts > 100, "{parts}");
    }
}
