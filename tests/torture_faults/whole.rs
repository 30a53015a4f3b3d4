//! What is done without an open image fails, call by call: opening, creating, checking and repairing.

use std::sync::atomic::{AtomicU64, Ordering};

use dmsnap::storage::testing::CallKinds;
use dmsnap::storage::{LockMode, SharedStorage, Storage};
use dmsnap::{
    CheckOptions, CreateOptions, ErrorKind, Image, OpenOptions, OriginChoice, Repair, check_storage,
};

use crate::acts::Act;
use crate::bench::{Bench, NAMES, Trouble, assert_sound, mixture, open_chain};
use crate::budget::{Budget, Random, count};
use crate::image_common::{assert_same, bytes_of, chunk, contents};
use crate::library::{KINDS, each_call};
use crate::parallel::for_each;
use crate::workloads::{Acts, shape};

/// A chain of three layers, not open.
fn closed_chain(seed: u64) -> Bench {
    let mut bench = Bench::new(&shape(4096));
    bench.apply(&Acts(&mut Random(seed)).chain(), None);
    bench.close();
    bench
}

/// Opens for reading or writing, reads, and flushes what an open for writing has to mend.
fn open_under(seed: u64, trouble: &Trouble, writable: bool) -> bool {
    let mut bench = closed_chain(seed);
    let files = |bench: &Bench| bench.chain().iter().map(bytes_of).collect::<Vec<_>>();
    let before = files(&bench);
    let (_, fired) = bench.under(trouble, |bench| {
        let image = open_chain(&bench.chain(), None, writable)?;
        let mut found = vec![0; image.size() as usize];
        image.read(&mut found, 0)?;
        assert_same(&found, &bench.disk, "opened");
        if writable {
            image.flush()?;
            return image.close();
        }
        Ok(())
    });
    assert!(
        writable || files(&bench) == before,
        "a reader has changed a file"
    );
    if fired {
        bench.cut_power();
        bench.reopen(false);
        bench.finish();
    }
    fired
}

/// What a storage shows as a layer without an origin; nothing if it is no layer.
fn shown(storage: &SharedStorage) -> Option<Vec<u8>> {
    let options = OpenOptions::new().origin(OriginChoice::Zeros);
    match Image::open_storage(storage.clone(), &options) {
        Ok(image) => Some(contents(&image)),
        Err(error) => {
            let kind = error.kind();
            assert_eq!(kind, ErrorKind::InvalidFormat, "{error}");
            None
        }
    }
}

/// Creates a layer where nothing or another one is: afterwards there is that one, nothing, or the new one.
fn create_under(seed: u64, trouble: &Trouble, over_old: bool) -> bool {
    let mut bench = if over_old {
        let mut bench = Bench::new(&shape(16_384));
        bench.apply(&Acts(&mut Random(seed)).anywhere(4), None);
        bench.close();
        bench
    } else {
        Bench::new(&shape(4096))
    };
    let index = if over_old { 1 } else { 2 };
    let trouble = Trouble {
        storage: index,
        ..trouble.clone()
    };
    let storage: SharedStorage = bench.storages[index].clone();
    let old = over_old.then(|| shown(&storage).unwrap());
    let options = CreateOptions::new().chunk_size(chunk(8192)).size(70 << 10);
    let (result, fired) = bench.under(&trouble, |_| Image::create_on(&storage, &options));
    let new = vec![0; 70 << 10];
    let is_known = |found: Option<Vec<u8>>, what: &str| {
        let is_new = found.as_ref() == Some(&new);
        assert!(
            is_new || result.is_err() && (found.is_none() || found == old),
            "{what}"
        );
    };
    is_known(shown(&storage), "what is left");
    for (left, what) in bench.after_power_cuts() {
        is_known(shown(&left[index]), &what);
    }
    Image::create_on(&storage, &options).unwrap();
    assert_eq!(shown(&storage), Some(new));
    assert_sound(&storage, "created");
    fired
}

/// A layer with an interrupted drop: an earlier record became a copy of the last one, and its chunk is leaked.
fn damaged(seed: u64) -> Bench {
    const CHUNK: u64 = 4096;
    let mut bench = Bench::new(&shape(CHUNK));
    let acts = Acts(&mut Random(seed)).anywhere(8);
    bench.apply(&acts, None);
    bench.apply(&[Act::Close], None);
    bench.close();
    let storage = &bench.storages[1];
    let bytes = bytes_of(&(storage.clone() as SharedStorage));
    let record = |index: u64| (CHUNK + 16 * index) as usize;
    let is_used = |index: &u64| bytes[record(*index)..][..16].iter().any(|&byte| byte != 0);
    let count = (0..CHUNK / 16).take_while(is_used).count() as u64;
    let last = &bytes[record(count - 1)..][..16];
    storage.lock(LockMode::Writer).unwrap();
    storage.write_at(last, record(count - 3) as u64).unwrap();
    // What a crash leaves behind the terminator.
    storage
        .write_at(&[5; 32], record(count + 2) as u64)
        .unwrap();
    storage.flush().unwrap();
    storage.lock(LockMode::None).unwrap();
    bench.look_again();
    bench
}

/// Checks and repairs: the disk stays as it is, and a repair without faults finds all that was left.
fn repair_under(seed: u64, trouble: &Trouble) -> bool {
    let mut bench = damaged(seed);
    let before = bench.disk.clone();
    let storage = bench.chain()[1].clone();
    let repair = CheckOptions::new().repair(Repair::All);
    let trouble = Trouble {
        storage: 1,
        ..trouble.clone()
    };
    let (_, fired) = bench.under(&trouble, |_| check_storage(&storage, &repair).map(drop));
    let show = |chain: &[SharedStorage]| contents(&open_chain(chain, None, false).unwrap());
    mixture(&show(&bench.chain()), &[&before], "after a repair");
    for (left, what) in bench.after_power_cuts() {
        mixture(&show(&left[..2]), &[&before], &what);
        assert_sound(&left[1], &what);
    }
    let outcome = check_storage(&storage, &repair).unwrap();
    // What this storage discards stays allocated, so that leaks are still there.
    let left = (outcome.remaining_repairable, outcome.remaining_corruptions);
    assert_eq!(left, (0, 0), "{outcome:?}");
    assert_same(&show(&bench.chain()), &before, "repaired");
    fired
}

#[test]
fn torture_opening_creating_and_repairing_fail() {
    for seed in Budget::cases(1) {
        let faults = AtomicU64::new(0);
        let mut jobs: Vec<(usize, CallKinds)> = Vec::new();
        for storage in 0..NAMES.len() {
            jobs.extend(KINDS.map(|kinds| (storage, kinds)));
        }
        for_each(&jobs, |&(storage, kinds)| {
            let each = |name: &str, attempt: &dyn Fn(&Trouble) -> bool| {
                let what = format!("DMSNAP_SEED={seed}: {name}");
                let more = each_call(storage, kinds, &what, attempt);
                faults.fetch_add(more, Ordering::Relaxed);
            };
            each("open for reading", &|trouble| {
                open_under(seed, trouble, false)
            });
            each("open for writing", &|trouble| {
                open_under(seed, trouble, true)
            });
            if storage == 1 {
                each("create", &|trouble| create_under(seed, trouble, false));
                each("create over another", &|trouble| {
                    create_under(seed, trouble, true)
                });
                each("repair", &|trouble| repair_under(seed, trouble));
            }
        });
        count("faults", "workloads", 5);
        count("faults", "faults", faults.into_inner());
    }
}
