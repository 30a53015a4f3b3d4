//! A disk in memory that can lose power, and the steps of plans on two of them.

use std::cell::Cell;
use std::rc::Rc;

use dmsnap::store::{Device, Step};

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
pub enum Change {
    Write(u64, Vec<u8>),
    SetSize(u64),
}

/// Bytes, and what a power cut may undo.
#[derive(Clone, Debug)]
pub struct Disk {
    pub bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    pub growable: bool,
    pub flushes: u64,
    /// How many changes are still taken; power is gone at 0.
    pub fuse: Rc<Cell<Option<u64>>>,
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

    pub fn with_bytes(bytes: Vec<u8>) -> Disk {
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

    pub fn change(&mut self, change: Change) {
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
    pub fn lose_power(&mut self, rng: &mut Rng) {
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
/// Runs the first `most` steps; returns what was read.
pub fn run_steps(
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
