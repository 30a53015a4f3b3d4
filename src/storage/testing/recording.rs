//! Storages that remember what was done to them and can show what a power cut at any moment would have left.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::operation::{Contents, Operation};
use super::power_cut::{self, Kept, PowerCut, Sectors};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::memory::MemoryStorage;
use crate::storage::transfer;
use crate::storage::{LockMode, Storage, StorageExtent, Users};
use crate::units::ByteRange;

/// One recorded storage.
#[derive(Debug)]
struct Recorded {
    name: String,
    growable: bool,
    now: Contents,
    /// What was durable after each flush, and from which position on. The first is the beginning.
    durable: Vec<(usize, Contents)>,
}

impl Recorded {
    /// The durable bytes when `position` operations had been begun, and since which position.
    fn durable_at(&self, position: usize) -> &(usize, Contents) {
        let count = self
            .durable
            .partition_point(|&(since, _)| since <= position);
        // The first one is durable since 0.
        &self.durable[count.saturating_sub(1)]
    }
}

#[derive(Debug, Default)]
struct Log {
    files: Vec<Recorded>,
    operations: Vec<(usize, Operation)>,
}

impl Log {
    /// Indices of the operations before `position` that are not durable then.
    fn pending(&self, position: usize) -> Vec<usize> {
        let since: Vec<usize> = self
            .files
            .iter()
            .map(|file| file.durable_at(position).0)
            .collect();
        let first = since.iter().copied().min().unwrap_or(position);
        let mine = |&index: &usize| {
            let (file, operation) = &self.operations[index];
            index >= since[*file] && *operation != Operation::Flush
        };
        (first..position).filter(mine).collect()
    }

    fn pending_sectors(&self, position: usize) -> Vec<Sectors> {
        let pending = self.pending(position);
        pending
            .into_iter()
            .map(|index| self.operations[index].1.sectors())
            .collect()
    }
}

/// A common log of several storages, such as an origin and its COW: a power cut hits all of them at one moment, and a flush of one
/// makes nothing of the others durable.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Log>>);

impl Recorder {
    /// A recorder without storages.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a storage that begins with what `initial` holds, all of it durable. Add all storages before the first operation.
    pub fn storage(&self, initial: &MemoryStorage) -> RecordingStorage {
        let (pages, size) = initial.share();
        let now = Contents { pages, size };
        let name = initial.name().to_owned();
        let growable = initial.is_growable();
        let mut log = self.log();
        let index = log.files.len();
        let durable = vec![(0, now.clone())];
        log.files.push(Recorded {
            name: name.clone(),
            growable,
            now,
            durable,
        });
        drop(log);
        let may_write = AtomicBool::new(true);
        RecordingStorage {
            recorder: self.clone(),
            index,
            name,
            growable,
            may_write,
            users: Users::default(),
        }
    }

    /// Operations so far.
    pub fn position(&self) -> usize {
        self.log().operations.len()
    }

    /// The `index`-th operation and the number of the storage it was done to, counted in the order they were added.
    pub fn operation(&self, index: usize) -> Option<(usize, Operation)> {
        self.log().operations.get(index).cloned()
    }

    /// Number of operations among the first `position` that were not durable then: as many as [`PowerCut::kept`] has values.
    pub fn pending(&self, position: usize) -> usize {
        self.log().pending(position).len()
    }

    /// Power cuts after `position` operations, those that most likely show a defect.
    pub fn states(&self, position: usize) -> impl Iterator<Item = PowerCut> + use<> {
        power_cut::states(position, &self.log().pending_sectors(position)).into_iter()
    }

    /// A power cut after `position` operations that follows from `seed` alone.
    pub fn sample(&self, position: usize, seed: u64) -> PowerCut {
        power_cut::sample(position, &self.log().pending_sectors(position), seed)
    }

    /// What the storages hold after a power cut, in the order they were added.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the position was not reached yet.
    pub fn rebuild(&self, cut: &PowerCut) -> Result<Vec<MemoryStorage>> {
        let log = self.log();
        if cut.position > log.operations.len() {
            let text = format!(
                "position {} of {} operations",
                cut.position,
                log.operations.len()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let durable = log
            .files
            .iter()
            .map(|file| file.durable_at(cut.position).1.clone());
        let mut contents: Vec<Contents> = durable.collect();
        for (index, &kept) in log.pending(cut.position).into_iter().zip(&cut.kept) {
            let (file, operation) = &log.operations[index];
            contents[*file].apply(operation, kept);
        }
        let files = log.files.iter().zip(contents);
        Ok(files
            .map(|(file, contents)| {
                MemoryStorage::from_pages(contents.pages, contents.size, file.growable)
                    .named(&file.name)
            })
            .collect())
    }
}

/// A storage in memory that logs each change to its [`Recorder`].
///
/// Discarded bytes turn into garbage at once.
#[derive(Debug)]
pub struct RecordingStorage {
    recorder: Recorder,
    index: usize,
    name: String,
    growable: bool,
    may_write: AtomicBool,
    users: Users,
}

impl RecordingStorage {
    /// A storage with a log of its own that begins with what `initial` holds.
    pub fn new(initial: &MemoryStorage) -> RecordingStorage {
        Recorder::new().storage(initial)
    }

    /// The log.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What it holds now, whether durable or not.
    pub fn snapshot(&self) -> MemoryStorage {
        let now = self.look(Contents::clone);
        MemoryStorage::from_pages(now.pages, now.size, self.growable).named(&self.name)
    }

    fn look<T>(&self, look: impl FnOnce(&Contents) -> T) -> T {
        look(&self.recorder.log().files[self.index].now)
    }

    /// Does and logs an operation, if `check` of the current size allows it.
    fn change(&self, operation: Operation, check: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        if !self.may_write.load(Ordering::Relaxed) {
            let error = Error::new(ErrorKind::ReadOnly, "not open for writing");
            return Err(error.with_path(&self.name));
        }
        let mut log = self.recorder.log();
        let now = &mut log.files[self.index].now;
        check(now.size).map_err(|error| error.with_path(&self.name))?;
        now.apply(&operation, Kept::All);
        log.operations.push((self.index, operation));
        Ok(())
    }

    /// Whether a write of this range is possible in a storage of `size` bytes.
    fn reach(&self, start: u64, len: u64, size: u64) -> Result<()> {
        match ByteRange::checked(start, len) {
            Some(range) if self.growable || range.end() <= size => Ok(()),
            _ => {
                let text = format!("{len} bytes to be written; the size is {size}");
                Err(Error::new(ErrorKind::NoSpace, text).with_offset(start))
            }
        }
    }
}

impl Storage for RecordingStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Result<u64> {
        Ok(self.look(|now| now.size))
    }

    fn is_growable(&self) -> bool {
        self.growable
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let wanted = transfer::total_mut(bufs);
        let result = self.look(|now| {
            if wanted > 0
                && offset
                    .checked_add(wanted as u64)
                    .is_none_or(|end| end > now.size)
            {
                let done = now.size.saturating_sub(offset) as usize;
                return Err(transfer::past_end_of(now.size, offset, wanted, done));
            }
            let mut at = offset;
            for buf in bufs {
                now.pages.read(buf, at);
                at += buf.len() as u64;
            }
            Ok(())
        });
        result.map_err(|error| error.with_path(&self.name))
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let data: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let len = data.len() as u64;
        let operation = Operation::Write {
            offset,
            data: data.into(),
        };
        self.change(operation, |size| {
            if len > 0 {
                self.reach(offset, len, size)
            } else {
                Ok(())
            }
        })
    }

    fn write_zeroes(&self, range: ByteRange, _unmap: bool) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let check = |size| self.reach(range.start, range.len, size);
        self.change(Operation::WriteZeroes(range), check)
    }

    fn discard(&self, range: ByteRange) -> Result<()> {
        let size = self.size()?;
        let start = range.start.min(size);
        let len = range.len.min(size - start);
        self.change(Operation::Discard(ByteRange::new(start, len)), |_| Ok(()))
    }

    fn flush(&self) -> Result<()> {
        let mut log = self.recorder.log();
        log.operations.push((self.index, Operation::Flush));
        let position = log.operations.len();
        let file = &mut log.files[self.index];
        file.durable.push((position, file.now.clone()));
        Ok(())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.change(Operation::SetSize(size), |now| {
            if self.growable {
                self.reach(size, 0, now)
            } else {
                transfer::keep_size(now, size)
            }
        })
    }

    fn extent_at(&self, offset: u64) -> Result<StorageExtent> {
        Ok(self.look(|now| now.pages.extent(offset, now.size)))
    }

    fn lock(&self, mode: LockMode) -> Result<()> {
        self.may_write
            .store(mode == LockMode::Writer, Ordering::Relaxed);
        Ok(())
    }

    fn users(&self) -> &Users {
        &self.users
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn after(recorder: &Recorder, cut: &PowerCut) -> Vec<u8> {
        recorder.rebuild(cut).unwrap()[0].to_vec()
    }

    #[test]
    fn test_states_are_all_mixtures_since_the_flush_and_nothing_else() {
        let storage = RecordingStorage::new(&MemoryStorage::fixed(1536));
        storage.write_at(&[1; 512], 0).unwrap();
        storage.flush().unwrap();
        storage.write_at(&[2; 1024], 0).unwrap();
        storage.write_at(&[3; 1024], 512).unwrap();
        let recorder = storage.recorder();
        let states: HashSet<[u8; 3]> = recorder
            .states(recorder.position())
            .map(|cut| {
                let bytes = after(recorder, &cut);
                [bytes[0], bytes[512], bytes[1024]]
            })
            .collect();
        for state in &states {
            assert!(
                [1, 2].contains(&state[0]),
                "the flushed sector is there, or its successor"
            );
            assert!(
                [0, 2, 3].contains(&state[1]) && [0, 3].contains(&state[2]),
                "{state:?}"
            );
        }
        let expected = [
            [1, 0, 0],
            [2, 2, 0],
            [1, 3, 3],
            [2, 3, 3],
            [2, 0, 0],
            [2, 2, 3],
            [1, 0, 3],
        ];
        for state in expected {
            assert!(
                states.contains(&state),
                "{state:?} is missing in {states:?}"
            );
        }
    }

    #[test]
    fn test_a_flush_covers_its_own_storage_only() {
        let recorder = Recorder::new();
        let origin = recorder.storage(&MemoryStorage::fixed(512).named("origin"));
        let cow = recorder.storage(&MemoryStorage::new().named("cow"));
        cow.write_at(&[5; 512], 0).unwrap();
        origin.write_at(&[6; 512], 0).unwrap();
        cow.flush().unwrap();
        let cut = PowerCut {
            position: recorder.position(),
            kept: vec![Kept::Nothing],
        };
        assert_eq!(recorder.pending(cut.position), 1);
        let left = recorder.rebuild(&cut).unwrap();
        assert_eq!((left[0].name(), left[0].to_vec()), ("origin", vec![0; 512]));
        assert_eq!((left[1].name(), left[1].to_vec()), ("cow", vec![5; 512]));
        assert!(!left[0].is_growable() && left[1].is_growable());
    }

    #[test]
    fn test_every_earlier_position_can_be_rebuilt() {
        let storage = RecordingStorage::new(&MemoryStorage::new());
        let mut models = vec![Vec::new()];
        for step in 0..40u8 {
            match step % 5 {
                0 => storage
                    .write_at(&[step + 1; 700], u64::from(step) * 100)
                    .unwrap(),
                1 => storage.set_size(u64::from(step) * 130).unwrap(),
                2 => storage
                    .write_zeroes(ByteRange::new(300, 600), true)
                    .unwrap(),
                3 => storage.discard(ByteRange::new(100, 50)).unwrap(),
                _ => storage.flush().unwrap(),
            }
            models.push(storage.snapshot().to_vec());
        }
        let recorder = storage.recorder();
        for (position, model) in models.iter().enumerate() {
            let kept = vec![Kept::All; recorder.pending(position)];
            assert!(
                after(recorder, &PowerCut { position, kept }) == *model,
                "position {position}"
            );
            let seeds = (0..20).map(|seed| recorder.sample(position, seed));
            for cut in seeds {
                assert_eq!(cut.kept.len(), recorder.pending(position));
                recorder.rebuild(&cut).unwrap();
            }
        }
        assert!(
            recorder
                .rebuild(&PowerCut {
                    position: 41,
                    kept: Vec::new()
                })
                .is_err()
        );
    }

    #[test]
    fn test_a_dropped_resize_leaves_the_old_size() {
        let storage = RecordingStorage::new(&MemoryStorage::from_bytes(&[1; 1000]));
        storage.set_size(10).unwrap();
        storage.set_size(5000).unwrap();
        let of = |kept: &[Kept]| {
            after(
                storage.recorder(),
                &PowerCut {
                    position: 2,
                    kept: kept.to_vec(),
                },
            )
        };
        assert_eq!(of(&[Kept::Nothing, Kept::Nothing]), [1; 1000]);
        assert_eq!(of(&[Kept::All, Kept::Nothing]), [1; 10]);
        let grown = of(&[Kept::Nothing, Kept::All]);
        assert!(grown.len() == 5000 && grown[999] == 1 && grown[1000] == 0);
        assert_eq!(of(&[Kept::All, Kept::All])[10], 0);
    }
}
