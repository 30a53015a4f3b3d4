//! A host for the store half that keeps both devices in memory and can lose power: opening, writing, flushing.

use std::collections::BTreeMap;

use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::store::{
    Commit, ExceptionId, FormatOptions, LoadOptions, Loader, NewException, OverflowMode, Plan,
    Prepared, Step, Store, WriteTarget, format_plan,
};
use dmsnap::{ByteRange, ChunkSize, ErrorKind, OriginChunk};

use super::toy_disk::run_steps;
pub use super::toy_disk::{Disk, Rng, SECTOR};

/// What a sector may show: its number now, and all it had since the last flush.
#[derive(Clone, Debug, Default)]
pub struct SectorModel {
    pub now: u64,
    pub allowed: Vec<u64>,
}

pub struct Host {
    pub cow: Disk,
    pub origin: Disk,
    pub store: Store,
    pub chunk: u64,
    pub overflow: OverflowMode,
    pub model: Vec<SectorModel>,
    /// A size that a crash may have made durable.
    pub other_size: Option<Vec<SectorModel>>,
    pub stamp: u64,
    pub held: BTreeMap<u64, (NewException, u64, u64)>,
    pub merging: bool,
    pub described: bool,
    /// How often power was lost.
    pub power_cuts: u64,
}

fn sector_bytes(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(64)
}

pub fn stamp_of(sector: &[u8]) -> u64 {
    let stamp = u64::from_le_bytes(sector[..8].try_into().unwrap());
    assert!(
        sector.chunks(8).all(|word| word == stamp.to_le_bytes()),
        "torn or mixed sector"
    );
    stamp
}

impl Host {
    pub fn new(
        chunk: u64,
        origin_sectors: u64,
        sectors: u64,
        cow: Disk,
        overflow: OverflowMode,
    ) -> Host {
        // Numbers above 2^32 are the origin's.
        let stamps = (0..origin_sectors).map(|sector| (1 << 32) + sector);
        let origin = Disk::with_bytes(stamps.clone().flat_map(sector_bytes).collect());
        let chunk_size = ChunkSize::from_bytes(chunk).unwrap();
        let described = chunk >= 4096;
        let descriptor = described.then(|| Descriptor {
            generation: 1,
            incompatible: IncompatibleFeatures::empty(),
            compatible: 0,
            virtual_size: sectors * SECTOR,
            uuid: Uuid([7; 16]),
            origin_uuid: None,
            origin_size: 0,
            origin_name: None,
            origin_format: None,
        });
        let mut cow = cow;
        let options = FormatOptions {
            chunk_size,
            descriptor,
            fixed_size: !cow.growable,
        };
        let mut origin = origin;
        run_steps(
            &mut cow,
            &mut origin,
            format_plan(&options).unwrap().steps(),
            u64::MAX,
        );
        let size = if described { sectors } else { origin_sectors };
        origin.fuse = cow.fuse.clone();
        let model = (0..size)
            .map(|sector| {
                let now = if sector < origin_sectors {
                    (1 << 32) + sector
                } else {
                    0
                };
                SectorModel {
                    now,
                    allowed: vec![now],
                }
            })
            .collect();
        let store = load(&cow, &origin, overflow);
        Host {
            cow,
            origin,
            store,
            chunk,
            overflow,
            model,
            other_size: None,
            stamp: 0,
            held: BTreeMap::new(),
            merging: false,
            described,
            power_cuts: 0,
        }
    }

    fn clip(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.model.len() as u64;
        (at < size).then(|| ByteRange::new(at * SECTOR, len.min(size - at) * SECTOR))
    }

    pub fn run(&mut self, plan: &mut Plan, most: u64) {
        let steps = plan.steps().to_vec();
        let reads = run_steps(&mut self.cow, &mut self.origin, &steps, most);
        for (index, bytes) in reads {
            plan.supply(index, bytes).unwrap();
        }
    }

    pub fn finish_plan(&mut self, mut plan: Plan) {
        self.run(&mut plan, u64::MAX);
        self.store.finish_plan(plan, Ok(())).unwrap();
    }

    /// Sets the number of a written range.
    fn stamp_range(&mut self, range: ByteRange, stamp: u64) {
        for sector in range.start / SECTOR..range.end() / SECTOR {
            let model = &mut self.model[sector as usize];
            model.now = stamp;
            model.allowed.push(stamp);
        }
    }

    pub fn write(&mut self, at: u64, len: u64) {
        let Some(mut range) = self.clip(at, len) else {
            return;
        };
        self.stamp += 1;
        while !range.is_empty() {
            let done = self.write_some(range);
            range = ByteRange::new(range.start + done, range.len - done);
        }
    }

    /// Writes the first run of a range; returns its bytes. What waits for something held is left out.
    fn write_some(&mut self, range: ByteRange) -> u64 {
        let extent = self.store.map_write(range).unwrap();
        let part = ByteRange::new(range.start, extent.len);
        let data = sector_bytes(self.stamp).repeat((part.len / SECTOR) as usize);
        match extent.target {
            WriteTarget::Cow { offset } => self.cow.write(offset, &data),
            WriteTarget::Origin => self.origin.write(part.start, &data),
            WriteTarget::Wait => return part.len,
            WriteTarget::Unmapped => match self.prepare(part) {
                Some(new) => {
                    let part = self.fill(part, new);
                    self.store.complete_exception(new.id).unwrap();
                    self.stamp_range(part, self.stamp);
                    return part.len;
                }
                None => return part.len,
            },
        }
        self.stamp_range(part, self.stamp);
        part.len
    }

    fn prepare(&mut self, range: ByteRange) -> Option<NewException> {
        let first = range.start / self.chunk;
        let count = (range.end() - 1) / self.chunk - first + 1;
        loop {
            match self.store.prepare_exception(OriginChunk(first), count) {
                Ok(Prepared::Exception(new)) => return Some(new),
                Ok(Prepared::Reserve(plan)) => self.finish_plan(plan),
                Ok(Prepared::Wait) => return None,
                Ok(Prepared::Retry) => panic!("{first} was unmapped a moment ago"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace);
                    assert!(!self.cow.growable, "a growable file has room");
                    return None;
                }
            }
        }
    }

    /// Gives new chunks their whole content. Returns the part of `range` that they cover.
    fn fill(&mut self, range: ByteRange, new: NewException) -> ByteRange {
        let start = new.old.0 * self.chunk;
        let end = start + new.count * self.chunk;
        let part = ByteRange::new(range.start, range.end().min(end) - range.start);
        let mut content = self.below(start, end - start);
        let from = (part.start - start) as usize;
        let data = sector_bytes(self.stamp).repeat((part.len / SECTOR) as usize);
        content[from..from + data.len()].copy_from_slice(&data);
        if new.reads_zero {
            let all = self.cow.bytes.get(new.cow_offset as usize..);
            let zero = all
                .unwrap()
                .iter()
                .take(content.len())
                .all(|&byte| byte == 0);
            assert!(zero, "chunk {} was said to read as zeros", new.new);
        }
        self.cow.write(new.cow_offset, &content);
        part
    }

    /// The origin's bytes, zeros past its end and past the disk's.
    pub fn below(&self, start: u64, len: u64) -> Vec<u8> {
        let limit = self
            .store
            .virtual_size()
            .min(self.origin.bytes.len() as u64);
        (start..start + len)
            .map(|at| {
                if at < limit {
                    self.origin.bytes[at as usize]
                } else {
                    0
                }
            })
            .collect()
    }

    pub fn abort(&mut self, at: u64, len: u64) {
        self.half_write(at, len, |host, new, part| {
            // Half of the data arrives.
            host.fill(part, new);
            host.store.abort_exception(new.id).unwrap();
        });
    }

    pub fn hold(&mut self, at: u64, len: u64) {
        self.half_write(at, len, |host, new, part| {
            host.held.insert(new.id.0, (new, part.start, part.len));
        });
    }

    fn half_write(&mut self, at: u64, len: u64, then: impl Fn(&mut Host, NewException, ByteRange)) {
        let Some(range) = self.clip(at, len) else {
            return;
        };
        let extent = self.store.map_write(range).unwrap();
        if extent.target == WriteTarget::Unmapped {
            let part = ByteRange::new(range.start, extent.len);
            if let Some(new) = self.prepare(part) {
                then(self, new, part);
            }
        }
    }

    pub fn release(&mut self, done: bool) {
        let Some((id, (new, start, len))) = self.held.pop_first() else {
            return;
        };
        if done {
            self.stamp += 1;
            let part = self.fill(ByteRange::new(start, len), new);
            self.store.complete_exception(ExceptionId(id)).unwrap();
            self.stamp_range(part, self.stamp);
        } else {
            self.store.abort_exception(ExceptionId(id)).unwrap();
        }
    }

    pub fn discard(&mut self, at: u64, len: u64) {
        let Some(range) = self.clip(at, len) else {
            return;
        };
        let first = range.start.div_ceil(self.chunk);
        for chunk in first..range.end() / self.chunk {
            let whole = ByteRange::new(chunk * self.chunk, self.chunk);
            if let WriteTarget::Cow { offset } = self.store.map_write(whole).unwrap().target {
                self.cow.write(offset, &vec![0; self.chunk as usize]);
                self.stamp_range(whole, 0);
            }
        }
    }

    pub fn flush(&mut self) {
        // Whatever was complete before the flush is covered by it.
        match self.store.commit_exceptions().unwrap() {
            Commit::Plan(plan) => self.finish_plan(plan),
            Commit::Clean => self.cow.flush(),
            Commit::Wait => return,
        }
        self.origin.flush();
        self.flushed();
    }

    pub fn flushed(&mut self) {
        if self.has_power() {
            self.model
                .iter_mut()
                .for_each(|model| model.allowed = vec![model.now]);
        }
    }

    /// Power goes after this many more changes; the host notices at the end of an operation.
    pub fn cut_after(&mut self, changes: u64) {
        self.cow.fuse.set(Some(changes + 1));
    }

    pub fn has_power(&self) -> bool {
        self.cow.fuse.get() != Some(0)
    }
}

pub fn load(cow: &Disk, origin: &Disk, overflow: OverflowMode) -> Store {
    let options = LoadOptions {
        cow_size: cow.bytes.len() as u64,
        growable: cow.growable,
        writable: true,
        origin_size: Some(origin.bytes.len() as u64),
        overflow,
    };
    let mut loader = Loader::new(options).unwrap();
    while let Some(mut plan) = loader.next_plan().unwrap() {
        for (index, step) in plan.steps().to_vec().iter().enumerate() {
            let Step::Read { range, .. } = step else {
                panic!("a load only reads")
            };
            plan.supply(index, cow.read(range.start, range.len))
                .unwrap();
        }
        loader.finish_plan(plan).unwrap();
    }
    loader.finish().unwrap()
}
