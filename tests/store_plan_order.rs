//! The order of plans that change the size of the disk or the descriptor.
//!
//! A store asks its host to do I/O and says by flushes what must be durable before what. Here the host is a byte array, and after
//! every single step each crash state that one torn descriptor write can leave must still open, as the old image or as the new one.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use dmsnap::ChunkSize;
use dmsnap::format::{Descriptor, IncompatibleFeatures, Uuid};
use dmsnap::store::{
    Commit, Device, FormatOptions, LoadOptions, Loader, Plan, Prepared, Progress, Step, Store,
    format_plan,
};
use dmsnap::units::OriginChunk;

const CHUNK: u64 = 4096;
const SECTOR: usize = 512;

/// A COW file: what is durable, and the writes since the last flush in pieces of a sector.
#[derive(Clone, Default)]
struct Disk {
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn now(&self) -> Vec<u8> {
        self.with_pending(|_| true)
    }

    fn with_pending(&self, survives: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (index, (offset, data)) in self.pending.iter().enumerate() {
            if survives(index) {
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
        bytes
    }

    /// Every subset of the unflushed sectors.
    fn crash_states(&self) -> Vec<Vec<u8>> {
        assert!(self.pending.len() <= 12, "too many subsets to try");
        (0..1_usize << self.pending.len())
            .map(|subset| self.with_pending(|index| subset >> index & 1 == 1))
            .collect()
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (index, sector) in data.chunks(SECTOR).enumerate() {
            let at = usize::try_from(offset).unwrap() + index * SECTOR;
            self.pending.push((at, sector.to_vec()));
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Write { offset, data, .. } => self.write(*offset, data),
            Step::WriteZeroes { range, .. } => {
                self.write(range.start, &vec![0; usize::try_from(range.len).unwrap()]);
            }
            Step::SetSize { size, .. } => {
                self.durable = self.now();
                self.pending.clear();
                self.durable.resize(usize::try_from(*size).unwrap(), 0);
            }
            Step::Flush {
                device: Device::Cow,
            } => {
                self.durable = self.now();
                self.pending.clear();
            }
            other => panic!("a plan of these tests has no {other:?}"),
        }
    }
}

fn supply(plan: &mut Plan, bytes: &[u8]) {
    let steps = plan.steps().to_vec();
    for (index, step) in steps.iter().enumerate() {
        if let Step::Read { range, .. } = step {
            let start = usize::try_from(range.start).unwrap();
            let end = usize::try_from(range.end()).unwrap();
            plan.supply(index, bytes[start..end].to_vec()).unwrap();
        }
    }
}

fn load(bytes: &[u8]) -> dmsnap::Result<Store> {
    let mut loader = Loader::new(LoadOptions {
        cow_size: bytes.len() as u64,
        growable: true,
        writable: true,
        ..LoadOptions::default()
    })?;
    while let Some(mut plan) = loader.next_plan()? {
        supply(&mut plan, bytes);
        loader.finish_plan(plan)?;
    }
    loader.finish()
}

/// A descriptor whose record fills more than two sectors of its slot.
fn descriptor(virtual_size: u64) -> Descriptor {
    Descriptor {
        generation: 1,
        incompatible: IncompatibleFeatures::empty(),
        compatible: 0,
        virtual_size,
        uuid: Uuid([7; 16]),
        origin_uuid: None,
        origin_size: virtual_size,
        origin_name: Some("n".repeat(1000)),
        origin_format: Some("raw".to_owned()),
    }
}

fn new_disk(descriptor: Option<Descriptor>) -> Disk {
    let options = FormatOptions {
        chunk_size: ChunkSize::from_bytes(CHUNK).unwrap(),
        descriptor,
        fixed_size: false,
    };
    let mut disk = Disk::default();
    for step in format_plan(&options).unwrap().steps() {
        disk.run(step);
    }
    disk
}

/// Runs the store's job to its end; `look` sees the disk after each step.
fn run_job(store: &mut Store, disk: &mut Disk, mut look: impl FnMut(&Disk)) {
    loop {
        match store.next_plan().unwrap() {
            Progress::Plan(mut plan) => {
                supply(&mut plan, &disk.now());
                for step in plan.steps().to_vec() {
                    if !matches!(step, Step::Read { .. }) {
                        disk.run(&step);
                        look(disk);
                    }
                }
                store.finish_plan(plan, Ok(())).unwrap();
            }
            Progress::Done => return,
            Progress::Wait => panic!("nothing is under way that the job could wait for"),
        }
    }
}

/// Makes chunk 0 of the disk an exception, filled with `fill`, and returns where it is.
fn write_first_chunk(store: &mut Store, disk: &mut Disk, fill: u8) -> u64 {
    let exception = loop {
        match store.prepare_exception(OriginChunk(0), 1).unwrap() {
            Prepared::Exception(exception) => break exception,
            Prepared::Reserve(plan) => {
                plan.steps().iter().for_each(|step| disk.run(step));
                store.finish_plan(plan, Ok(())).unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    disk.write(
        exception.cow_offset,
        &vec![fill; usize::try_from(CHUNK).unwrap()],
    );
    store.complete_exception(exception.id).unwrap();
    let Commit::Plan(plan) = store.commit_exceptions().unwrap() else {
        panic!("nothing to commit")
    };
    plan.steps().iter().for_each(|step| disk.run(step));
    store.finish_plan(plan, Ok(())).unwrap();
    exception.cow_offset
}

#[test]
fn test_growing_makes_the_tail_zero_before_the_new_size_is_durable() {
    let old_size = CHUNK / 2;
    let mut disk = new_disk(Some(descriptor(old_size)));
    let mut store = load(&disk.now()).unwrap();
    let offset = usize::try_from(write_first_chunk(&mut store, &mut disk, 0xaa)).unwrap();
    let tail =
        offset + usize::try_from(old_size).unwrap()..offset + usize::try_from(CHUNK).unwrap();

    store.prepare_resize(CHUNK, 0).unwrap();
    let mut grown = 0;
    run_job(&mut store, &mut disk, |disk| {
        for bytes in disk.crash_states() {
            if load(&bytes).unwrap().virtual_size() == CHUNK {
                grown += 1;
                assert!(
                    bytes[tail.clone()].iter().all(|byte| *byte == 0),
                    "garbage shows"
                );
            }
        }
    });
    assert!(grown > 0);
}

#[test]
fn test_adding_and_removing_a_descriptor_leaves_an_image_at_every_crash() {
    let mut disk = new_disk(None);
    for wanted in [Some(descriptor(1 << 20)), None] {
        let mut store = load(&disk.now()).unwrap();
        let before = store.descriptor().is_some();
        assert_ne!(before, wanted.is_some());
        store.prepare_descriptor(wanted.clone()).unwrap();
        run_job(&mut store, &mut disk, |disk| {
            for bytes in disk.crash_states() {
                let store = load(&bytes).unwrap();
                assert_eq!(store.descriptor_damage(), []);
                if let Some(found) = store.descriptor() {
                    assert_eq!(found.origin_name, descriptor(0).origin_name);
                }
            }
        });
        let store = load(&disk.durable).unwrap();
        assert_eq!(store.descriptor().is_some(), wanted.is_some());
    }
}

/// A slot that is neither good nor blank was damaged by something else than a power cut: that is what a store concludes from one.
#[test]
fn test_replacing_a_descriptor_never_looks_like_damage() {
    let named = |origin_size: u64, name: &str| Descriptor {
        origin_name: Some(name.to_owned()),
        origin_size,
        ..descriptor(CHUNK)
    };
    let long = descriptor(CHUNK);
    let mut disk = new_disk(Some(long.clone()));
    let lengths = [1000, 1, 1000, 1000, 400, 412, 500, 1, 1, 1000];
    for (round, len) in (2..).zip(lengths) {
        let mut store = load(&disk.now()).unwrap();
        let before = store.descriptor().cloned().unwrap();
        let wanted = named(round * CHUNK, &"m".repeat(len));
        store.prepare_descriptor(Some(wanted.clone())).unwrap();
        run_job(&mut store, &mut disk, |disk| {
            for bytes in disk.crash_states() {
                let store = load(&bytes).unwrap();
                assert_eq!(store.descriptor_damage(), [], "{len} after {round}");
                let found = store.descriptor().unwrap();
                let (name, size) = (&found.origin_name, found.origin_size);
                let is_old = *name == before.origin_name && size == before.origin_size;
                let is_new = *name == wanted.origin_name && size == wanted.origin_size;
                assert!(is_old || is_new);
            }
        });
        let found = load(&disk.durable).unwrap();
        let found = found.descriptor().unwrap();
        assert_eq!(found.origin_size, wanted.origin_size);
    }
}
