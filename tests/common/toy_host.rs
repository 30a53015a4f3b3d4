//! A host for the store half that keeps both devices in memory and can lose power.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::store::{
    Commit, Device, ExceptionId, FormatOptions, LoadOptions, Loader, NewException, OverflowMode,
    Plan, Prepared, Progress, State, Step, Store, Target, WriteTarget, format_plan,
};
use dmsnap::{ByteRange, ChunkSize, ErrorKind, OriginChunk};

pub const SECTOR: u64 = 512;

/// xorshift64*: enough for choosing, and the same everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetSize(u64),
}

/// Bytes, and what a power cut may undo.
#[derive(Clone, Debug)]
pub struct Disk {
    pub bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    growable: bool,
    pub flushes: u64,
    /// How many changes are still taken; power is gone at 0.
    fuse: Rc<Cell<Option<u64>>>,
}

impl Disk {
    pub fn growable() -> Disk {
        Disk {
            bytes: Vec::new(),
            durable: Vec::new(),
            pending: Vec::new(),
            growable: true,
            flushes: 0,
            fuse: Rc::default(),
        }
    }

    pub fn fixed_with_garbage(size: u64, seed: u64) -> Disk {
        let mut rng = Rng::new(seed);
        let bytes: Vec<u8> = (0..size / 8)
            .flat_map(|_| rng.next().to_le_bytes())
            .collect();
        Disk {
            durable: bytes.clone(),
            bytes,
            pending: Vec::new(),
            growable: false,
            flushes: 0,
            fuse: Rc::default(),
        }
    }

    fn with_bytes(bytes: Vec<u8>) -> Disk {
        Disk {
            durable: bytes.clone(),
            bytes,
            pending: Vec::new(),
            growable: true,
            flushes: 0,
            fuse: Rc::default(),
        }
    }

    pub fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let end = (at + len) as usize;
        assert!(
            end <= self.bytes.len(),
            "read of {len} at {at} past {}",
            self.bytes.len()
        );
        self.bytes[at as usize..end].to_vec()
    }

    pub fn write(&mut self, at: u64, data: &[u8]) {
        self.change(Change::Write(at, data.to_vec()));
    }

    /// Counts a change. Whether there is still power for it.
    fn powered(&self) -> bool {
        match self.fuse.get() {
            None => true,
            Some(0) => false,
            Some(left) => {
                self.fuse.set(Some(left - 1));
                left > 1
            }
        }
    }

    fn change(&mut self, change: Change) {
        if !self.growable
            && let Change::Write(at, data) = &change
        {
            assert!(
                at + data.len() as u64 <= self.bytes.len() as u64,
                "write past a fixed device"
            );
        }
        // Without power nothing arrives, though the host sees its own writes until it notices.
        apply(&mut self.bytes, &change, |_| true);
        if self.powered() {
            self.pending.push(change);
        }
    }

    pub fn flush(&mut self) {
        if !self.powered() {
            return;
        }
        self.flushes += 1;
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change, |_| true);
        }
    }

    /// Keeps a random part of what was not flushed, sector by sector.
    fn lose_power(&mut self, rng: &mut Rng) {
        let mut bytes = std::mem::take(&mut self.durable);
        let kept = rng.below(101);
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::SetSize(_) if rng.below(100) >= kept => {}
                _ => apply(&mut bytes, &change, |_| rng.below(100) < kept),
            }
        }
        self.durable = bytes.clone();
        self.bytes = bytes;
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change, mut keep: impl FnMut(u64) -> bool) {
    match change {
        Change::SetSize(size) => bytes.resize(*size as usize, 0),
        Change::Write(at, data) => {
            for (index, sector) in data.chunks(SECTOR as usize).enumerate() {
                let start = *at as usize + index * SECTOR as usize;
                if keep(index as u64) {
                    let end = start + sector.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[start..end].copy_from_slice(sector);
                }
            }
        }
    }
}

/// What a sector may show: its number now, and all it had since the last flush.
#[derive(Clone, Debug, Default)]
struct SectorModel {
    now: u64,
    allowed: Vec<u64>,
}

pub struct Host {
    pub cow: Disk,
    pub origin: Disk,
    pub store: Store,
    chunk: u64,
    overflow: OverflowMode,
    model: Vec<SectorModel>,
    /// A size that a crash may have made durable.
    other_size: Option<Vec<SectorModel>>,
    stamp: u64,
    held: BTreeMap<u64, (NewException, u64, u64)>,
    merging: bool,
    described: bool,
}

fn sector_bytes(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(64)
}

fn stamp_of(sector: &[u8]) -> u64 {
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
        }
    }

    fn clip(&self, at: u64, len: u64) -> Option<ByteRange> {
        let size = self.model.len() as u64;
        (at < size).then(|| ByteRange::new(at * SECTOR, len.min(size - at) * SECTOR))
    }

    fn run(&mut self, plan: &mut Plan, most: u64) {
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
    fn below(&self, start: u64, len: u64) -> Vec<u8> {
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

    fn flushed(&mut self) {
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

    fn drive(&mut self, mut most: u64) -> bool {
        while most > 0 {
            match self.store.next_plan().unwrap() {
                Progress::Plan(plan) => self.finish_plan(plan),
                Progress::Wait if self.held.is_empty() => panic!("nothing to wait for"),
                Progress::Wait => return false,
                Progress::Done => return true,
            }
            most -= 1;
        }
        false
    }

    pub fn merge(&mut self, plans: u64) {
        if !self.merging {
            let size = self.store.virtual_size();
            if (self.origin.bytes.len() as u64) < size {
                self.origin.change(Change::SetSize(size));
            }
            self.store
                .prepare_merge(self.origin.bytes.len() as u64)
                .unwrap();
            self.merging = true;
        }
        if self.drive(plans) {
            self.merging = false;
            assert_eq!(self.store.exceptions(), 0);
            assert_eq!(self.store.state(), State::Active);
        }
    }

    /// Runs the job that was prepared to its end.
    pub fn merge_on(&mut self) {
        assert!(self.drive(u64::MAX));
        self.merging = false;
    }

    /// What another process would load now.
    pub fn load(&self) -> Store {
        load(&self.cow, &self.origin, self.overflow)
    }

    pub fn cancel_merge(&mut self) {
        self.store.cancel().unwrap();
        self.merging = false;
    }

    pub fn resize(&mut self, sectors: u64, plans: u64) {
        if !self.described || self.merging || !self.held.is_empty() {
            return;
        }
        let mut resized = self.model.clone();
        let zero = SectorModel {
            now: 0,
            allowed: vec![0],
        };
        resized.resize(sectors as usize, zero);
        let origin_size = self.origin.bytes.len() as u64;
        self.store
            .prepare_resize(sectors * SECTOR, origin_size)
            .unwrap();
        match self.try_drive(plans) {
            Some(true) if !self.has_power() => self.other_size = Some(resized),
            Some(true) => {
                self.model = resized;
                assert_eq!(self.store.virtual_size(), sectors * SECTOR);
            }
            Some(false) => self.other_size = Some(resized),
            None => {
                // No room for zeros: the size stays.
                assert!(!self.cow.growable);
                self.store.cancel().unwrap();
                assert_eq!(self.store.virtual_size(), self.model.len() as u64 * SECTOR);
            }
        }
    }

    fn try_drive(&mut self, mut most: u64) -> Option<bool> {
        while most > 0 {
            match self.store.next_plan() {
                Ok(Progress::Plan(plan)) => self.finish_plan(plan),
                Ok(Progress::Wait) => panic!("nothing to wait for"),
                Ok(Progress::Done) => return Some(true),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace);
                    return None;
                }
            }
            most -= 1;
        }
        Some(false)
    }

    pub fn make_empty(&mut self) {
        if self.merging || !self.held.is_empty() {
            return;
        }
        self.store.make_empty().unwrap();
        assert!(self.drive(u64::MAX));
        let origin = self.below(0, self.model.len() as u64 * SECTOR);
        for (model, sector) in self.model.iter_mut().zip(origin.chunks(SECTOR as usize)) {
            model.now = stamp_of(sector);
            model.allowed.push(model.now);
        }
        self.origin.flush();
        self.flushed();
    }

    pub fn reclaim(&mut self) {
        while let Some(plan) = self.store.reclaim() {
            self.finish_plan(plan);
        }
    }

    /// As if the process had ended: nothing is lost but what was never written.
    pub fn reopen(&mut self) {
        self.load_again();
    }

    pub fn crash(&mut self, rng: &mut Rng) {
        self.cow.fuse.set(None);
        self.cow.lose_power(rng);
        self.origin.lose_power(rng);
        self.load_again();
    }

    pub fn crash_in_commit(&mut self, steps: u64, rng: &mut Rng) {
        if let Commit::Plan(mut plan) = self.store.commit_exceptions().unwrap() {
            self.run(&mut plan, steps);
        }
        self.crash(rng);
    }

    fn load_again(&mut self) {
        self.held.clear();
        self.merging = false;
        self.store = load(&self.cow, &self.origin, self.overflow);
        if let Some(resized) = self.other_size.take()
            && self.store.virtual_size() == resized.len() as u64 * SECTOR
        {
            self.model = resized;
        }
        if self.store.wants_repair() {
            self.store.prepare_repair().unwrap();
            assert!(self.drive(u64::MAX));
            assert!(!self.store.wants_repair());
        }
        let seen = self.view();
        for (index, (model, sector)) in self
            .model
            .iter_mut()
            .zip(seen.chunks(SECTOR as usize))
            .enumerate()
        {
            let stamp = stamp_of(sector);
            let allowed = &model.allowed;
            assert!(
                allowed.contains(&stamp),
                "sector {index} shows {stamp:#x}, not of {allowed:x?}"
            );
            model.now = stamp;
        }
    }

    pub fn view(&self) -> Vec<u8> {
        let mut view = Vec::new();
        let size = self.store.virtual_size();
        while (view.len() as u64) < size {
            let at = view.len() as u64;
            let extent = self.store.map(ByteRange::new(at, size - at)).unwrap();
            assert!(extent.len > 0);
            view.extend(match extent.target {
                Target::Cow { offset } => self.cow.read(offset, extent.len),
                Target::Origin => self.below(at, extent.len),
            });
        }
        view
    }

    /// Every sector shows its last write, and the figures add up.
    pub fn verify(&self) {
        let size = self.store.virtual_size();
        assert_eq!(size, self.model.len() as u64 * SECTOR);
        for (index, (model, sector)) in self
            .model
            .iter()
            .zip(self.view().chunks(SECTOR as usize))
            .enumerate()
        {
            assert_eq!(stamp_of(sector), model.now, "sector {index}");
        }
        assert!(self.cow.growable || self.store.cow_size() == self.cow.bytes.len() as u64);
    }

    /// Flush, reopen, merge to the end: the view stays, the file is as small as a new one and the origin holds all.
    pub fn finish(&mut self) {
        while !self.held.is_empty() {
            self.release(true);
        }
        if self.merging {
            self.merge(u64::MAX);
        }
        self.flush();
        self.verify();
        self.crash(&mut Rng::new(7));
        self.verify();
        self.merge(u64::MAX);
        self.reclaim();
        self.verify();
        let whole = self.view();
        assert_eq!(
            whole,
            self.below(0, whole.len() as u64),
            "the origin shows the disk"
        );
        let growable = self.cow.growable;
        let size = self.cow.bytes.len() as u64;
        assert!(
            !growable || size <= 2 * self.chunk,
            "{size} bytes are left after a merge"
        );
        self.crash(&mut Rng::new(8));
        self.verify();
    }
}

fn load(cow: &Disk, origin: &Disk, overflow: OverflowMode) -> Store {
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

/// Runs the first `most` steps; returns what was read.
fn run_steps(
    cow: &mut Disk,
    origin: &mut Disk,
    steps: &[Step],
    most: u64,
) -> Vec<(usize, Vec<u8>)> {
    let mut reads = Vec::new();
    for (index, step) in steps.iter().enumerate().take(most.min(1 << 30) as usize) {
        match step {
            Step::Read { device, range } => {
                let disk = if *device == Device::Cow {
                    &*cow
                } else {
                    &*origin
                };
                reads.push((index, disk.read(range.start, range.len)));
            }
            Step::Write {
                device,
                offset,
                data,
            } => pick(cow, origin, *device).write(*offset, data),
            Step::WriteZeroes { device, range, .. } => {
                pick(cow, origin, *device).write(range.start, &vec![0; range.len as usize]);
            }
            Step::Copy {
                from,
                from_offset,
                to,
                to_offset,
                len,
            } => {
                let bytes = pick(cow, origin, *from).read(*from_offset, *len);
                pick(cow, origin, *to).write(*to_offset, &bytes);
            }
            Step::Discard { .. } => {}
            Step::SetSize { device, size } => {
                let disk = pick(cow, origin, *device);
                assert!(disk.growable);
                disk.change(Change::SetSize(*size));
            }
            Step::Flush { device } => pick(cow, origin, *device).flush(),
        }
    }
    reads
}

fn pick<'a>(cow: &'a mut Disk, origin: &'a mut Disk, device: Device) -> &'a mut Disk {
    match device {
        Device::Cow => cow,
        Device::Origin => origin,
    }
}
