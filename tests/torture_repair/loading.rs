//! What comes out of repairs, restores and recoveries is for the kernel to load.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dmsnap::storage::{FileOptions, SharedStorage};
use dmsnap::{
    CheckOptions, MetadataOptions, RecoverOptions, Repair, RestoreOptions, check, read_metadata,
    recover, recover_in_place, write_metadata,
};

use crate::budget::Random;
use crate::damage;
use crate::golden::{self, Golden};
use crate::guest::{Guest, hash};
use crate::judge::judge;
use crate::library::sha256;
use crate::pattern;
use crate::reference::Reference;
use crate::verdict::{self, Lying};
use crate::world::World;

/// A store that a kernel is to load, and what it has to show.
pub(crate) struct Load {
    name: String,
    store: Lying,
    view: Vec<u8>,
}

impl Load {
    /// The store at `cow` over `origin`.
    fn new(name: String, cow: &Path, origin: Vec<u8>, view: Vec<u8>) -> Load {
        let mut cow = fs::read(cow).unwrap();
        // A loop device would drop an odd end; nothing of a good store is there.
        cow.truncate(cow.len() / 512 * 512);
        let chunk = Reference::load(&cow).unwrap().chunk;
        let store = Lying { cow, origin, chunk };
        Load { name, store, view }
    }
}

/// Lets the kernel load all of them. How many there were.
pub(crate) fn load(guest: &mut Guest, loads: &[Load]) -> u64 {
    let stores: Vec<Lying> = loads.iter().map(|load| load.store.clone()).collect();
    for (verdict, Load { name, store, view }) in verdict::on(guest, &stores).iter().zip(loads) {
        let status = Reference::load(&store.cow).unwrap().status();
        assert_eq!(verdict.status, Ok(status), "{name}: loaded by the kernel");
        assert_eq!(
            verdict.view,
            Some(hash(view)),
            "{name}: what the kernel shows"
        );
        assert!(verdict.untouched, "{name}: changed by the kernel");
    }
    loads.len() as u64
}

/// Stores that a kernel invalidated, and whole ones that somebody damaged.
pub(crate) fn golden(directory: &Path) -> Vec<Load> {
    let mut loads = Vec::new();
    for name in ["overflow-p", "overflow-origin"] {
        loads.push(invalidated(directory, name, false));
        loads.push(invalidated(directory, name, true));
    }
    loads.push(changed(
        directory,
        "several-areas",
        "stale slots repaired",
        |cow, store| {
            // Behind the end of the log, and the last record once more.
            let end = slot(store, store.records.len() as u64);
            let bytes = &mut fs::read(cow).unwrap();
            bytes.copy_within(end - 16..end, end);
            bytes[end + 32] = 9;
            fs::write(cow, bytes).unwrap();
            let outcome = check(cow, &CheckOptions::new().repair(Repair::All)).unwrap();
            assert!(outcome.is_clean() && outcome.repaired == 2, "{outcome:#?}");
        },
    ));
    loads.push(changed(directory, "full-area", "restored", |cow, store| {
        let storage = open(cow);
        let dump = read_metadata(&storage, &MetadataOptions::new()).unwrap();
        let bytes = &mut fs::read(cow).unwrap();
        bytes[slot(store, 0)..][..(store.chunk * 512) as usize].fill(0x55);
        bytes[..16].fill(0);
        fs::write(cow, bytes).unwrap();
        write_metadata(&storage, &dump, &RestoreOptions::new()).unwrap();
    }));
    loads.push(changed(
        directory,
        "chunk-32",
        "recovered without a header",
        |cow, store| {
            let bytes = &mut fs::read(cow).unwrap();
            bytes[..16].fill(0);
            fs::write(cow, bytes).unwrap();
            let chunk_size = dmsnap::ChunkSize::from_sectors(store.chunk as u32).unwrap();
            recover_in_place(cow, &RecoverOptions::new().chunk_size(chunk_size)).unwrap();
        },
    ));
    loads
}

fn open(path: &Path) -> SharedStorage {
    Arc::new(FileOptions::new().writable(true).open(path).unwrap())
}

/// Byte of a record of the log.
fn slot(store: &Reference, index: u64) -> usize {
    let area = 1 + index / store.per_area() * (store.per_area() + 1);
    (area * store.chunk * 512 + index % store.per_area() * 16) as usize
}

/// A store that the kernel invalidated, recovered. What its log holds is all there is: see format.md 7.
fn invalidated(directory: &Path, name: &str, in_place: bool) -> Load {
    let Golden {
        origin, mut cow, ..
    } = golden::named(name);
    assert_eq!(cow[4..8], [0; 4], "{name} is invalid");
    let damaged = directory.join(format!("{name}-{in_place}.damaged"));
    fs::write(&damaged, &cow).unwrap();
    let options = RecoverOptions::new().size(origin.len() as u64).bare(true);
    let result = if in_place {
        recover_in_place(&damaged, &options).unwrap();
        damaged
    } else {
        let new = directory.join(format!("{name}.new"));
        recover(&damaged, &new, &options, &mut |_| true).unwrap();
        assert!(
            fs::read(&damaged).unwrap() == cow,
            "{name}: the damaged file was written"
        );
        new
    };
    cow[4] = 1;
    let view = Reference::load(&cow).unwrap().view(&origin, &cow).unwrap();
    let how = if in_place {
        "in place"
    } else {
        "into a new file"
    };
    Load::new(format!("{name}, recovered {how}"), &result, origin, view)
}

/// A good store to which something happens that changes nothing of what it shows.
fn changed(
    directory: &Path,
    name: &str,
    what: &str,
    change: impl FnOnce(&Path, &Reference),
) -> Load {
    let store = golden::named(name);
    let path = directory.join(format!("{name}.cow"));
    fs::write(&path, &store.cow).unwrap();
    let reference = Reference::load(&store.cow).unwrap();
    let view = reference.view(&store.origin, &store.cow).unwrap();
    assert_eq!(store.view, Some(sha256(&view)), "{name}");
    change(&path, &reference);
    Load::new(format!("{name}, {what}"), &path, store.origin, view)
}

/// A damaged store by chance, recovered in place or into a new file.
pub(crate) fn random(directory: &Path, seed: u64) -> Option<Load> {
    let random = &mut Random(seed);
    let world = World::random(random);
    let bytes = damage::spoil(&world, random);
    let path = directory.join(format!("{seed}.damaged"));
    fs::write(&path, &bytes).unwrap();
    let good = judge(&world, &bytes).good;
    let result = if seed % 2 == 0 {
        recover_in_place(&path, &world.knowledge()).ok()?;
        path
    } else {
        let new = directory.join(format!("{seed}.new"));
        recover(&path, &new, &world.knowledge(), &mut |_| true).ok()?;
        new
    };
    let chunk = world.chunk as usize;
    let origin = pattern::sectors(seed as u16, 0, world.disk_size() / 512);
    let mut view = origin.clone();
    for (old, new) in good {
        let data = &bytes[new as usize * chunk..][..chunk];
        view[old as usize * chunk..][..chunk].copy_from_slice(data);
    }
    Some(Load::new(format!("seed {seed}"), &result, origin, view))
}
