//! A second opinion on the format: replays a COW file over its origin by the plain rules.
//!
//! Everything is in memory and nothing is shared with the library, on purpose: a mistake in one of
//! the two shows up as a difference. Kernels agree with it on every golden file.

use std::collections::HashSet;

const SECTOR: u64 = 512;
const RECORD: usize = 16;

/// What a store's header and areas say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// False if the store was given up; then there are no records.
    pub(crate) valid: bool,
    /// Sectors per chunk.
    pub(crate) chunk: u64,
    /// (old chunk, new chunk), oldest first.
    pub(crate) records: Vec<(u64, u64)>,
    /// Size of the COW file in sectors.
    total: u64,
}

impl Reference {
    /// Reads the header and follows the areas to the first record whose new chunk is 0.
    pub(crate) fn load(cow: &[u8]) -> Result<Self, String> {
        let header = cow.get(..RECORD).ok_or("too short for a header")?;
        if &header[..4] != b"SnAp" {
            return Err(format!("magic {:02x?}", &header[..4]));
        }
        let (valid, version, chunk) = (le32(header, 4), le32(header, 8), le32(header, 12));
        if version != 1 || !chunk.is_power_of_two() || chunk > 1 << 21 {
            return Err(format!("version {version}, chunk size {chunk}"));
        }
        let total = cow.len() as u64 / SECTOR;
        let mut store = Self {
            valid: valid != 0,
            chunk: chunk.into(),
            records: Vec::new(),
            total,
        };
        if store.valid {
            store.read_areas(cow)?;
        }
        Ok(store)
    }

    fn read_areas(&mut self, cow: &[u8]) -> Result<(), String> {
        for area in 0.. {
            let chunk = self.area_chunk(area);
            let bytes = self
                .chunk_of(cow, chunk)
                .ok_or(format!("area {area} is past the end"))?;
            for record in bytes.chunks_exact(RECORD) {
                let (old, new) = (le64(record, 0), le64(record, 8));
                if new == 0 {
                    return Ok(());
                }
                self.records.push((old, new));
            }
        }
        unreachable!("areas end with the file")
    }

    /// What the snapshot device shows over `origin`.
    pub(crate) fn view(&self, origin: &[u8], cow: &[u8]) -> Result<Vec<u8>, String> {
        if !self.valid {
            return Err("the store is invalid".into());
        }
        let mut view = origin.to_vec();
        let mut seen = (HashSet::new(), HashSet::new());
        for &(old, new) in &self.records {
            if !seen.0.insert(old) || !seen.1.insert(new) {
                return Err(format!("old chunk {old} or new chunk {new} is used twice"));
            }
            if new < 2 || new % self.stride() == 1 {
                return Err(format!("new chunk {new} holds metadata"));
            }
            let data = self
                .chunk_of(cow, new)
                .ok_or(format!("chunk {new} is past the end"))?;
            let at =
                usize::try_from(old * self.chunk * SECTOR).map_err(|error| error.to_string())?;
            let place = view
                .get_mut(at..)
                .ok_or(format!("old chunk {old} is past the end"))?;
            let length = place.len().min(data.len());
            place[..length].copy_from_slice(&data[..length]);
        }
        Ok(view)
    }

    /// The kernel's status of a freshly loaded store.
    pub(crate) fn status(&self) -> String {
        if !self.valid {
            return "Invalid".into();
        }
        let area = self.records.len() as u64 / self.per_area();
        let mut next = self
            .records
            .iter()
            .map(|&(_, new)| new + 1)
            .max()
            .unwrap_or(2);
        if next % self.stride() == 1 {
            next += 1;
        }
        format!(
            "{}/{} {}",
            next * self.chunk,
            self.total,
            (area + 2) * self.chunk
        )
    }

    pub(crate) fn per_area(&self) -> u64 {
        self.chunk * SECTOR / RECORD as u64
    }

    fn stride(&self) -> u64 {
        self.per_area() + 1
    }

    fn area_chunk(&self, area: u64) -> u64 {
        1 + area * self.stride()
    }

    /// One whole chunk of the file.
    fn chunk_of<'a>(&self, cow: &'a [u8], chunk: u64) -> Option<&'a [u8]> {
        let size = usize::try_from(self.chunk * SECTOR).ok()?;
        let start = usize::try_from(chunk).ok()?.checked_mul(size)?;
        cow.get(start..start.checked_add(size)?)
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
