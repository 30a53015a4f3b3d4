//! For each byte of a disk what it may read as: now, and once the image was closed without a flush and opened again.

/// Up to seven values that a byte may have, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell([u8; 8]);

const MOST: u8 = 7;

impl Cell {
    pub const ANY: Cell = Cell([u8::MAX; 8]);

    pub fn one(value: u8) -> Cell {
        let mut cell = [value; 8];
        cell[7] = 1;
        Cell(cell)
    }

    pub fn holds(&self, value: u8) -> bool {
        let count = self.0[7];
        count > MOST || self.0[..usize::from(count)].contains(&value)
    }

    pub fn add(&mut self, value: u8) {
        if self.holds(value) {
            return;
        }
        match self.0[7] {
            count @ ..MOST => {
                self.0[usize::from(count)] = value;
                self.0[7] = count + 1;
            }
            _ => *self = Cell::ANY,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    now: Vec<Cell>,
    /// What a flush has left, and everything since.
    later: Vec<Cell>,
}

impl Model {
    pub fn of(bytes: &[u8]) -> Model {
        let now: Vec<Cell> = bytes.iter().map(|&byte| Cell::one(byte)).collect();
        Model {
            later: now.clone(),
            now,
        }
    }

    pub fn len(&self) -> usize {
        self.now.len()
    }

    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// A range was given this value.
    pub fn write(&mut self, range: std::ops::Range<usize>, value: u8) {
        self.now[range.clone()].fill(Cell::one(value));
        self.doubt_later(range, value);
    }

    /// A range was given this value, or not, or in part.
    pub fn doubt(&mut self, range: std::ops::Range<usize>, value: u8) {
        for cell in &mut self.now[range.clone()] {
            cell.add(value);
        }
        self.doubt_later(range, value);
    }

    fn doubt_later(&mut self, range: std::ops::Range<usize>, value: u8) {
        for cell in &mut self.later[range] {
            cell.add(value);
        }
    }

    pub fn flushed(&mut self) {
        self.later.clone_from(&self.now);
    }

    /// New bytes are zeros.
    pub fn resize(&mut self, size: usize) {
        self.now.resize(size, Cell::one(0));
        self.later.resize(size, Cell::one(0));
    }

    /// A change of size failed: what lies past the smaller of the two sizes may be anything.
    pub fn doubt_size(&mut self, found: usize, asked: usize) {
        let sure = found.min(asked).min(self.len());
        self.resize(found);
        self.now[sure..].fill(Cell::ANY);
        self.later[sure..].fill(Cell::ANY);
    }

    /// What is known of the disk after it was opened again.
    pub fn reopened(&mut self) {
        self.now.clone_from(&self.later);
    }

    /// Compares what was read, and remembers that: it cannot change any more without a write.
    pub fn read(&mut self, start: usize, bytes: &[u8], what: &str) {
        for (index, &byte) in bytes.iter().enumerate() {
            let cell = &mut self.now[start + index];
            assert!(
                cell.holds(byte),
                "{what}: byte {} of {} is {byte:#04x}, not one of {cell:?}",
                start + index,
                self.later.len()
            );
            *cell = Cell::one(byte);
        }
    }
}
