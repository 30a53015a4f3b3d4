//! Everything that only reads, on a store that may be anything.

use std::sync::Arc;

use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::store::{CheckReport, FindingKind};
use dmsnap::{
    ByteRange, CheckOptions, Error, ErrorKind, Image, MetadataOptions, OpenOptions, RecoverOptions,
    RestoreOptions, check_storage, inspect_storage, read_metadata, recover_storage,
    recover_storage_in_place, write_metadata,
};

use crate::reference::Reference;
use crate::session::{MODEL_BYTES, Options, contents, open_to_read};
use crate::watch::Watched;

/// Checks, inspects and reads; returns the content if it was opened and is not too long.
pub fn examine(cow: &Watched, origin: &Watched, options: Options) -> Option<Vec<u8>> {
    let found = check_storage(&cow.shared(), &CheckOptions::new());
    let _ = inspect_storage(&cow.shared());
    // By itself an image opens nothing else.
    if let Ok(image) = Image::open_storage(cow.shared(), &OpenOptions::new()) {
        assert!(
            image
                .descriptor()
                .is_some_and(|descriptor| descriptor.origin_name.is_none())
        );
        look_around(&image);
    }
    salvage(cow);
    let opened = open_to_read(cow, origin, options);
    if let Ok(outcome) = &found {
        agree(&opened, &outcome.report, options);
    }
    let image = opened.ok()?;
    assert!(found.is_ok(), "opened, but not checked: {found:?}");
    look_around(&image);
    let bytes = contents(&image)?;
    let mut odd = vec![0; bytes.len().min(777)];
    for (index, part) in bytes.chunks(777).enumerate() {
        image
            .read(&mut odd[..part.len()], index as u64 * 777)
            .expect("a part can be read");
        assert_eq!(&odd[..part.len()], part, "read in parts");
    }
    compare(cow, origin, &image, &bytes);
    Some(bytes)
}

/// Dumps, restores and recovers what is there; the file itself is only read.
fn salvage(cow: &Watched) {
    let options = MetadataOptions::new();
    let dump = read_metadata(&cow.shared(), &options);
    // An area is as long as a chunk, and what is recovered has one: in memory, here.
    let is_large = dump
        .as_ref()
        .is_ok_and(|dump| dump.chunk_size.bytes() > 1 << 20);
    if is_large || cow.size() > 4 * MODEL_BYTES {
        return;
    }
    let file = cow.memory.to_vec();
    let copy = || -> SharedStorage { Arc::new(MemoryStorage::from_bytes(&file)) };
    if let Ok(dump) = dump {
        let all = read_metadata(&cow.shared(), &options.all_areas(true)).expect("more of it");
        assert!(all.areas.len() >= dump.areas.len());
        let (target, options) = (copy(), RestoreOptions::new());
        write_metadata(&target, &all, &options.overwrite(true).damaged(true)).expect("as it was");
        let mut bytes = vec![0; file.len()];
        target.read_at(&mut bytes, 0).expect("as long as it was");
        assert!(bytes == file, "a restore of what is there has changed it");
    }
    let checked = |storage: &SharedStorage| {
        check_storage(storage, &CheckOptions::new()).expect("what was recovered")
    };
    let new: SharedStorage = Arc::new(MemoryStorage::new());
    let options = RecoverOptions::new();
    let recovered = recover_storage(&cow.shared(), &new, &options, &mut |_| true);
    if recovered.is_ok() {
        let outcome = checked(&new);
        assert!(outcome.is_clean(), "{:?}", outcome.report.findings);
    }
    let target = copy();
    let in_place = recover_storage_in_place(&target, &options);
    assert_eq!(
        in_place.is_ok(),
        recovered.is_ok(),
        "{in_place:?} {recovered:?}"
    );
    if in_place.is_ok() {
        let report = checked(&target).report;
        assert_eq!(
            (report.corruptions, report.repairable),
            (0, 0),
            "{report:?}"
        );
        let again = recover_storage_in_place(&target, &options).expect("a good store");
        assert!(!again.changed && again.is_complete(), "{again:?}");
    }
}

/// Opening and checking see the same corruptions, except that of a descriptor with one good slot opening warns only.
fn agree(opened: &Result<Image, Error>, report: &CheckReport, options: Options) {
    let mut kinds = report.findings.iter().map(|finding| finding.kind);
    match opened {
        Ok(image) if kinds.any(|kind| kind == FindingKind::Descriptor) => {
            assert!(!image.warnings().is_empty(), "no word of the descriptor");
        }
        Ok(_) => {
            let clean = report.corruptions == 0 || options.ignore_damage;
            assert!(clean, "opened in spite of {:?}", report.findings);
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            assert!(report.corruptions > 0, "a check finds nothing, but {error}");
        }
        Err(_) => {}
    }
}

/// Facts, extents and some reads of an image of any size.
fn look_around(image: &Image) {
    let size = image.size();
    image.info().expect("facts");
    let _ = (
        image.status().to_string(),
        image.usage(),
        image.heap_bytes(),
    );
    let chunk = image.chunk_size();
    let mut bytes = [0; 64];
    for (old, _, count) in image.exceptions().into_iter().take(64) {
        for chunk_number in [old.0, old.0 + count - 1] {
            let at = chunk_number.saturating_mul(chunk.bytes());
            let len = size.saturating_sub(at).min(64) as usize;
            if len > 0 {
                image
                    .read(&mut bytes[..len], at)
                    .expect("a mapped chunk can be read");
            }
        }
    }
    assert!(
        image.read(&mut bytes, size.saturating_sub(63)).is_err(),
        "read past the end"
    );
    assert!(
        image.read(&mut bytes, u64::MAX - 20).is_err(),
        "read past the end of all"
    );
    let mut at = 0;
    for _ in 0..100 {
        if at >= size {
            break;
        }
        let extent = image
            .next_extent(ByteRange::new(at, size - at))
            .expect("an extent");
        assert!(
            extent.range.start == at && extent.range.len > 0 && extent.range.end() <= size,
            "{extent:?}"
        );
        at = extent.range.end();
    }
    assert!(
        image.write(b"x", 0).is_err() || image.is_writable(),
        "written, though only read"
    );
}

/// What the plain rules of the format show is shown.
fn compare(cow: &Watched, origin: &Watched, image: &Image, bytes: &[u8]) {
    if cow.size() > 4 * MODEL_BYTES {
        return;
    }
    let file = cow.memory.to_vec();
    let mut store = Reference::load(&file).expect("what was opened is a store");
    let chunks = image.size().div_ceil(store.chunk * 512);
    store.records.retain(|&(old, _)| old < chunks);
    let mut seen = std::collections::HashSet::new();
    // A record that stands twice is an operation that was interrupted.
    store.records.retain(|record| seen.insert(*record));
    let mut disk = origin.memory.to_vec();
    disk.truncate(origin.size() as usize);
    disk.resize(bytes.len(), 0);
    let expected = store
        .view(&disk, &file)
        .expect("what was opened has a content");
    assert!(expected == bytes, "the plain rules show something else");
}
