//! What a disk may show after a power cut: for every sector the versions since the last flush that was over.

use dmsnap::ByteRange;

pub(crate) const SECTOR: usize = 512;

/// A value from some moment on. When it begins and ends to come about counts, since a power cut may fall between the two.
#[derive(Debug)]
struct Version<T> {
    /// Changes of files before the call that made it.
    started: usize,
    /// When that call was over; `u64::MAX` until then.
    ended: u64,
    value: T,
}

/// The values that something had, in order.
#[derive(Debug)]
pub(crate) struct History<T>(Vec<Version<T>>);

impl<T> History<T> {
    pub(crate) fn new(value: T) -> History<T> {
        History(vec![Version {
            started: 0,
            ended: 0,
            value,
        }])
    }

    pub(crate) fn begin(&mut self, started: usize, value: T) {
        self.0.push(Version {
            started,
            ended: u64::MAX,
            value,
        });
    }

    pub(crate) fn end(&mut self, tick: u64) {
        if let Some(last) = self.0.last_mut() {
            last.ended = tick;
        }
    }

    pub(crate) fn last(&self) -> &T {
        &self.0[self.0.len() - 1].value
    }

    /// What a power cut after `position` changes may have left, if all that had ended before `floor` was durable.
    pub(crate) fn allowed(&self, floor: u64, position: usize) -> impl Iterator<Item = &T> {
        let durable = self.0.iter().rposition(|version| version.ended < floor);
        let possible = self.0[durable.unwrap_or(0)..].iter().enumerate();
        possible
            .filter(move |(index, version)| *index == 0 || version.started < position)
            .map(|(_, version)| &version.value)
    }
}

/// The values that something had that is durable when the call that changed it returns.
#[derive(Debug)]
pub(crate) struct Durable<T>(Vec<Step<T>>);

#[derive(Debug)]
struct Step<T> {
    /// Changes of files before that call, and when it had returned.
    started: usize,
    over: usize,
    value: T,
}

impl<T> Durable<T> {
    pub(crate) fn new(value: T) -> Durable<T> {
        let mut values = Durable(Vec::new());
        values.push(0, 0, value);
        values
    }

    pub(crate) fn push(&mut self, started: usize, over: usize, value: T) {
        self.0.push(Step {
            started,
            over,
            value,
        });
    }

    /// Where two positions have the same of this, the same may be there.
    pub(crate) fn epoch(&self, position: usize) -> (usize, usize) {
        let over = self.0.iter().filter(|step| step.over <= position);
        let started = self.0.iter().filter(|step| step.started < position);
        (over.count(), started.count())
    }

    /// What a power cut after `position` changes may have left.
    pub(crate) fn allowed(&self, position: usize) -> impl Iterator<Item = &T> {
        let last = self.0.iter().rposition(|step| step.over <= position);
        let possible = self.0[last.unwrap_or(0)..].iter().enumerate();
        possible
            .filter(move |(index, step)| *index == 0 || step.started < position)
            .map(|(_, step)| &step.value)
    }
}

/// A flush, or another call that makes durable what came before it.
#[derive(Debug)]
struct Flush {
    began: u64,
    /// Changes of files when it had returned.
    over: usize,
}

/// The model of a disk and its past.
#[derive(Debug)]
pub(crate) struct Truth {
    sectors: Vec<History<[u8; SECTOR]>>,
    /// Bytes of the disk.
    size: History<u64>,
    /// Layers that it needs.
    layers: History<usize>,
    flushes: Vec<Flush>,
    /// Changes of files before each call that changed the disk, in order.
    begun: Vec<usize>,
    clock: u64,
}

impl Truth {
    pub(crate) fn new(disk: &[u8]) -> Truth {
        let sectors = disk.chunks_exact(SECTOR);
        Truth {
            sectors: sectors
                .map(|bytes| History::new(bytes.try_into().unwrap()))
                .collect(),
            size: History::new(disk.len() as u64),
            layers: History::new(1),
            flushes: vec![Flush { began: 1, over: 0 }],
            begun: Vec::new(),
            clock: 1,
        }
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What the disk shows when all calls are over.
    pub(crate) fn now(&self) -> Vec<u8> {
        let sectors = *self.size.last() as usize / SECTOR;
        let shown = self.sectors[..sectors].iter();
        shown.flat_map(|sector| *sector.last()).collect()
    }

    fn touched(range: ByteRange) -> std::ops::Range<usize> {
        range.start as usize / SECTOR..(range.end() as usize).div_ceil(SECTOR)
    }

    /// A call that changes these bytes begins.
    pub(crate) fn begin(&mut self, started: usize, offset: u64, bytes: &[u8]) {
        let range = ByteRange::new(offset, bytes.len() as u64);
        self.begun.push(started);
        for index in Truth::touched(range) {
            let start = (index * SECTOR) as u64;
            let mut sector = *self.sectors[index].last();
            let from = range.start.max(start);
            let part = ByteRange::new(from, range.end().min(start + SECTOR as u64) - from);
            let source = &bytes[(part.start - offset) as usize..][..part.len as usize];
            sector[(part.start - start) as usize..][..source.len()].copy_from_slice(source);
            self.sectors[index].begin(started, sector);
        }
    }

    /// That call is over.
    pub(crate) fn end(&mut self, range: ByteRange) {
        let tick = self.tick();
        for sector in &mut self.sectors[Truth::touched(range)] {
            sector.end(tick);
        }
    }

    /// The disk is being made longer or shorter. What is new reads as zeros.
    pub(crate) fn begin_resize(&mut self, started: usize, size: u64) {
        let (old, new) = (*self.size.last() as usize / SECTOR, size as usize / SECTOR);
        self.begun.push(started);
        self.size.begin(started, size);
        for index in old..new {
            match self.sectors.get_mut(index) {
                Some(sector) => sector.begin(started, [0; SECTOR]),
                None => self.sectors.push(History::new([0; SECTOR])),
            }
        }
    }

    /// That is done. What was cut off never comes back.
    pub(crate) fn end_resize(&mut self, position: usize) {
        let tick = self.tick();
        self.size.end(tick);
        let kept = *self.size.last() as usize / SECTOR;
        for sector in &mut self.sectors[..kept] {
            sector.end(tick);
        }
        for sector in &mut self.sectors[kept..] {
            sector.begin(position, [0; SECTOR]);
            sector.end(tick);
        }
    }

    pub(crate) fn layers(&self) -> usize {
        *self.layers.last()
    }

    /// A layer is being put on top.
    pub(crate) fn begin_layer(&mut self, started: usize) {
        self.begun.push(started);
        self.layers.begin(started, self.layers() + 1);
    }

    pub(crate) fn end_layer(&mut self) {
        let tick = self.tick();
        self.layers.end(tick);
    }

    /// How many layers there may be after a power cut, those that are certain first.
    pub(crate) fn possible_layers(&self, position: usize) -> Vec<usize> {
        let layers = self.layers.allowed(self.floor(position), position);
        layers.copied().collect()
    }

    /// Where two positions have the same of this, the same may be shown.
    pub(crate) fn epoch(&self, position: usize) -> (u64, usize) {
        let begun = self.begun.iter().filter(|&&started| started < position);
        (self.floor(position), begun.count())
    }

    /// All that was over at `began` is durable since `over` changes of files.
    pub(crate) fn flushed(&mut self, began: u64, over: usize) {
        self.flushes.push(Flush { began, over });
    }

    /// All that is over now is durable from here on.
    pub(crate) fn durable(&mut self, position: usize) {
        let began = self.tick();
        self.flushed(began, position);
    }

    /// What had ended before that moment a power cut after `position` changes cannot take.
    fn floor(&self, position: usize) -> u64 {
        let over = self.flushes.iter().filter(|flush| flush.over <= position);
        over.map(|flush| flush.began).max().unwrap_or(0)
    }

    /// Whether a power cut after `position` changes may have left a disk that shows this.
    pub(crate) fn judge(&self, found: &[u8], position: usize) -> Result<(), String> {
        let floor = self.floor(position);
        let mut sizes = self.size.allowed(floor, position);
        if !sizes.any(|&size| size == found.len() as u64) {
            return Err(format!("the disk has {} bytes", found.len()));
        }
        for (index, (found, sector)) in found.chunks(SECTOR).zip(&self.sectors).enumerate() {
            let whole = sector.allowed(floor, position).any(|bytes| bytes == found);
            if whole {
                continue;
            }
            for (at, byte) in found.iter().enumerate() {
                let mut allowed = sector.allowed(floor, position);
                if !allowed.any(|bytes| bytes[at] == *byte) {
                    let allowed: Vec<u8> = sector
                        .allowed(floor, position)
                        .map(|bytes| bytes[at])
                        .collect();
                    let at = index * SECTOR + at;
                    return Err(format!("byte {at} is {byte:#x}, not of {allowed:x?}"));
                }
            }
        }
        Ok(())
    }
}
