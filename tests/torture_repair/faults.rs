//! Calls fail while a store is recovered or restored, each in turn: nothing of the damaged file is lost, and done again it succeeds.

use std::sync::Arc;

use dmsnap::storage::SharedStorage;
use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage};
use dmsnap::store::{Doubt, RawMetadata};
use dmsnap::{
    Error, MetadataOptions, RecoverReport, RestoreOptions, read_metadata, recover_storage,
    recover_storage_in_place, write_metadata,
};

use crate::image_common::{bytes_of, memory, memory_with};
use crate::judge::judge;
use crate::recovery::{is_whole, shows};
use crate::world::World;

const KINDS: [CallKinds; 6] = [
    CallKinds::READ,
    CallKinds::WRITE,
    CallKinds::WRITE_ZEROES,
    CallKinds::FLUSH,
    CallKinds::SET_SIZE,
    CallKinds::SIZE,
];

/// Errors, and how many bytes of a write get through nevertheless.
const WAYS: [(i32, u64); 4] = [
    (libc::EIO, 0),
    (libc::ENOSPC, 0),
    (libc::EIO, 700),
    (libc::EIO, u64::MAX),
];

/// A storage whose calls can fail, and a name for messages.
struct Faulty {
    storage: Arc<FaultStorage>,
    errno: i32,
}

impl Faulty {
    fn shared(&self) -> SharedStorage {
        self.storage.clone()
    }

    /// The same storage, of which no call fails any more.
    fn calm(&self) -> SharedStorage {
        self.storage.disarm();
        self.shared()
    }

    /// Whether a call failed; from now on none does.
    fn struck(&self) -> bool {
        self.storage.disarm();
        self.storage.fired() > 0
    }

    /// That it failed is told with the cause, and nothing fails without one.
    fn assert_told(&self, error: &Error, what: &str) {
        assert!(self.struck(), "{what}: failed without a fault: {error}");
        let cause = format!("os error {}", self.errno);
        assert!(error.to_string().contains(&cause), "{what}: {error}");
    }
}

/// Fails each call of a storage with these bytes in every way. Returns how many failed.
fn each_call(bytes: &[u8], seed: u64, act: &str, attempt: impl Fn(&Faulty, &str)) -> u64 {
    let mut faults = 0;
    for kinds in KINDS {
        for (errno, after) in WAYS {
            for forever in [false, true] {
                for nth in 1.. {
                    let fault = Fault::on(kinds).nth(nth).errno(errno).after_bytes(after);
                    let fault = if forever { fault.forever() } else { fault };
                    let what = format!("seed {seed}: {act}: {fault:?}");
                    let faulty = Faulty {
                        storage: Arc::new(FaultStorage::new(memory_with(bytes))),
                        errno,
                    };
                    faulty.storage.arm(fault);
                    attempt(&faulty, &what);
                    if !faulty.struck() {
                        break;
                    }
                    faults += 1;
                }
            }
        }
    }
    faults
}

/// All calls of a recovery, of one in place and of a restore. How many faults were tried.
pub(crate) fn survives_faults(world: &World, bytes: &[u8], seed: u64) -> u64 {
    let options = MetadataOptions::new().chunk_size(world.chunk_size());
    // A good header with another size of chunks has the last word.
    let Ok(dump) = read_metadata(&memory_with(bytes), &options) else {
        return 0;
    };
    let options = world.knowledge();
    let from_damaged = each_call(bytes, seed, "from the damaged file", |damaged, what| {
        let new = memory();
        match recover_storage(&damaged.shared(), &new, &options, &mut |_| true) {
            Ok(report) => shows_all_but_unreadable(world, &new, bytes, &report, what),
            Err(error) => damaged.assert_told(&error, what),
        }
        assert!(bytes_of(&damaged.calm()) == bytes, "{what}: was written");
    });
    let into_new = each_call(&[], seed, "into the new file", |new, what| {
        let damaged = memory_with(bytes);
        match recover_storage(&damaged, &new.shared(), &options, &mut |_| true) {
            Ok(report) => {
                shows_all_but_unreadable(world, &new.calm(), bytes, &report, what);
            }
            Err(error) => new.assert_told(&error, what),
        }
    });
    let in_place = each_call(bytes, seed, "in place", |storage, what| {
        let shared = storage.shared();
        if let Err(error) = recover_storage_in_place(&shared, &options) {
            storage.assert_told(&error, what);
            let (was, is) = (judge(world, bytes), judge(world, &bytes_of(&shared)));
            assert!(
                !is.is_valid || was.good == is.good,
                "{what}: a part of it seems to be all"
            );
            recover_storage_in_place(&shared, &options).unwrap();
        }
        is_whole(world, bytes, &bytes_of(&storage.calm()), seed);
    });
    from_damaged + into_new + in_place + restores(world, bytes, &dump, seed)
}

fn shows_all_but_unreadable(
    world: &World,
    new: &SharedStorage,
    damaged: &[u8],
    report: &RecoverReport,
    what: &str,
) {
    let unreadable: Vec<u64> = report
        .left_out
        .iter()
        .filter(|left| left.doubt == Doubt::Unreadable)
        .map(|left| left.record.old.0)
        .collect();
    let all = judge(world, damaged).good.len() as u64;
    assert_eq!(
        report.recovered + unreadable.len() as u64,
        all,
        "{what}: {report:#?}"
    );
    shows(world, new, damaged, &unreadable, what);
}

fn restores(world: &World, bytes: &[u8], dump: &RawMetadata, seed: u64) -> u64 {
    let options = RestoreOptions::new().overwrite(true).damaged(true);
    let mut spoilt = bytes.to_vec();
    for area in &dump.areas {
        spoilt[world.area(area.number) as usize..][..16 * area.slots as usize].fill(0xa5);
    }
    each_call(&spoilt, seed, "restore", |storage, what| {
        let shared = storage.shared();
        if let Err(error) = write_metadata(&shared, dump, &options) {
            storage.assert_told(&error, what);
            let left = bytes_of(&shared);
            assert!(
                left == bytes || left == spoilt || !judge(world, &left).is_valid,
                "{what}: a part of it seems to be all"
            );
            write_metadata(&shared, dump, &options).unwrap();
        }
        assert!(
            bytes_of(&storage.calm()) == bytes,
            "{what}: not what was dumped"
        );
    })
}
