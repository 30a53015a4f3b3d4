//! Dumps, restores and recoveries of damaged stores.

use std::sync::Arc;

use dmsnap::storage::testing::RecordingStorage;
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::store::{Doubt, LeftOut};
use dmsnap::{
    CheckOptions, ErrorKind, HeaderFound, Image, MetadataOptions, OpenOptions, OriginChoice,
    RecoverOptions, RestoreOptions, check_storage, read_metadata, recover_storage,
    recover_storage_in_place, write_metadata,
};

use crate::budget::Random;
use crate::image_common::{bytes_of, contents, memory, memory_with};
use crate::judge::judge;
use crate::repair::{chunk, same_data};
use crate::world::World;

/// A wrong chunk size in an otherwise good header: nobody knows better than the header.
fn is_of_another_size(world: &World, bytes: &[u8]) -> bool {
    let sectors = (world.chunk / 512) as u32;
    bytes.len() < 16 || bytes[12..16] != sectors.to_le_bytes()
}

/// The metadata comes back as it was, wherever the file holds something else by now.
pub(crate) fn dumps_and_restores(world: &World, bytes: &[u8], seed: u64) {
    let options = MetadataOptions::new()
        .chunk_size(world.chunk_size())
        .all_areas(seed.is_multiple_of(2));
    let Ok(dump) = read_metadata(&memory_with(bytes), &options) else {
        assert!(is_of_another_size(world, bytes), "seed {seed}: not dumped");
        return;
    };
    let mut spoilt = bytes.to_vec();
    spoilt[..16].fill(0xa5);
    for slot in &dump.slots {
        spoilt[slot.offset as usize..][..slot.bytes.len()].fill(0xa5);
    }
    for area in &dump.areas {
        spoilt[world.area(area.number) as usize..][..16 * area.slots as usize].fill(0xa5);
    }
    let storage = memory_with(&spoilt);
    let judgement = judge(world, bytes);
    let written = write_metadata(&storage, &dump, &RestoreOptions::new());
    // That it says it is invalid may be just what was dumped.
    let is_sound = judgement.has_header && !judgement.is_corrupt_though_valid;
    match written {
        Ok(()) => assert!(is_sound, "seed {seed}: damaged, and restored"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error}");
            assert!(!is_sound, "seed {seed}: {error}");
            assert!(
                bytes_of(&storage) == spoilt,
                "seed {seed}: refused and written"
            );
            write_metadata(&storage, &dump, &RestoreOptions::new().damaged(true)).unwrap();
        }
    }
    assert!(
        bytes_of(&storage) == bytes,
        "seed {seed}: not what was dumped"
    );
    let again = write_metadata(&storage, &dump, &RestoreOptions::new().damaged(true));
    assert_eq!(
        again.is_err(),
        judgement.is_valid,
        "seed {seed}: over a valid store"
    );
    assert!(bytes_of(&storage) == bytes, "seed {seed}: restored twice");
}

/// A new layer shows what good records show, and nothing else.
pub(crate) fn recovers(world: &World, bytes: &[u8], seed: u64) -> bool {
    let (damaged, new) = (memory_with(bytes), memory());
    let recovered = recover_storage(&damaged, &new, &world.knowledge(), &mut |_| true);
    assert!(
        bytes_of(&damaged) == bytes,
        "seed {seed}: the damaged file was written"
    );
    let report = match recovered {
        Ok(report) => report,
        Err(error) => {
            assert!(is_of_another_size(world, bytes), "seed {seed}: {error}");
            return false;
        }
    };
    let judgement = judge(world, bytes);
    assert_eq!(
        report.recovered,
        judgement.good.len() as u64,
        "seed {seed}: {report:#?}"
    );
    let found = match report.header {
        HeaderFound::Valid => judgement.is_valid,
        HeaderFound::Invalidated => judgement.has_header && !judgement.is_valid,
        HeaderFound::Damaged(_) => !judgement.has_header,
    };
    assert!(found, "seed {seed}: {report:#?}");
    let all = judgement.records.len() as u64;
    let counted = report.recovered + report.lost + report.past_end + report.repeated;
    assert_eq!(counted, all, "seed {seed}: {report:#?}");
    let past_end = |old: u64| old >= world.disk_chunks;
    let beyond = judgement.records.iter().filter(|record| past_end(record.0));
    assert_eq!(
        beyond.count() as u64,
        report.past_end,
        "seed {seed}: {report:#?}"
    );
    assert_eq!(
        report.missing_area.is_some(),
        !judgement.has_terminator,
        "seed {seed}: {report:#?}"
    );
    let is_whole = judgement.has_header && judgement.has_terminator && report.lost == 0;
    assert_eq!(report.is_complete(), is_whole, "seed {seed}: {report:#?}");
    for left in &report.left_out {
        let record = (left.record.old.0, left.record.new.0);
        assert_eq!(
            judgement.records[left.index as usize], record,
            "seed {seed}"
        );
        let is_past_end = left.doubt == Doubt::PastEnd;
        assert_eq!(is_past_end, past_end(record.0), "seed {seed}: {left:?}");
    }
    shows(world, &new, bytes, &[], &format!("seed {seed}"));
    recovers_without_a_size(world, bytes, report.past_end > 0, seed);
    let outcome = check_storage(&new, &CheckOptions::new()).unwrap();
    assert!(outcome.is_clean(), "seed {seed}: {outcome:#?}");
    true
}

/// The same by somebody who does not know how long the disk is: nothing is given up for a guess.
fn recovers_without_a_size(world: &World, bytes: &[u8], has_more: bool, seed: u64) {
    let options = RecoverOptions::new().chunk_size(world.chunk_size());
    let new = memory();
    match recover_storage(&memory_with(bytes), &new, &options, &mut |_| true) {
        Err(error) => {
            let kinds = judge(world, bytes).kinds;
            assert!(has_more, "seed {seed}: {error}");
            assert!(
                kinds.contains("descriptor") || !judge(world, bytes).is_valid,
                "seed {seed}: {error}"
            );
            let says_what_to_do = error.to_string().contains("say the size of the disk");
            assert!(says_what_to_do, "seed {seed}: {error}");
        }
        Ok(report) if report.size.is_some() => {
            assert_eq!(report.size, Some(world.disk_size()), "seed {seed}");
            shows(world, &new, bytes, &[], &format!("seed {seed}, no size"));
        }
        Ok(report) => {
            let is_known = |left: &LeftOut| {
                left.doubt == Doubt::PastEnd && left.record.old.0 < (1 << 63) / world.chunk
            };
            assert!(
                !report.left_out.iter().any(is_known),
                "seed {seed}: {report:#?}"
            );
            let good = judge(world, bytes).good.len() as u64;
            assert!(report.recovered >= good, "seed {seed}: {report:#?}");
        }
    }
}

/// What good records of the damaged store show, but for chunks that were left out.
pub(crate) fn shows(
    world: &World,
    storage: &SharedStorage,
    damaged: &[u8],
    left_out: &[u64],
    what: &str,
) {
    let options = OpenOptions::new()
        .origin(OriginChoice::Zeros)
        .bare_size(world.disk_size());
    let image = Image::open_storage(storage.clone(), &options).unwrap();
    let shown = contents(&image);
    assert_eq!(shown.len() as u64, world.disk_size(), "{what}");
    let mut good = judge(world, damaged).good;
    good.retain(|old, _| !left_out.contains(old));
    for old in 0..world.disk_chunks {
        let found = chunk(world, &shown, old);
        let is_right = match good.get(&old) {
            Some(new) => found == chunk(world, damaged, *new),
            None => found.iter().all(|byte| *byte == 0),
        };
        assert!(is_right, "{what}: chunk {old} of the recovered layer");
    }
}

/// The same in the damaged file, where no data move.
pub(crate) fn recovers_in_place(world: &World, bytes: &[u8], seed: u64) -> bool {
    let storage = memory_with(bytes);
    let report = match recover_storage_in_place(&storage, &world.knowledge()) {
        Ok(report) => report,
        Err(error) => {
            assert!(is_of_another_size(world, bytes), "seed {seed}: {error}");
            assert!(
                bytes_of(&storage) == bytes,
                "seed {seed}: failed and written"
            );
            return false;
        }
    };
    let after = bytes_of(&storage);
    assert_eq!(report.changed, after != bytes, "seed {seed}: {report:#?}");
    is_whole(world, bytes, &after, seed);
    let again = recover_storage_in_place(&storage, &world.knowledge()).unwrap();
    assert!(
        !again.changed && again.is_complete(),
        "seed {seed}: {again:#?}"
    );
    assert!(bytes_of(&storage) == after, "seed {seed}: recovered twice");
    true
}

/// `after` is a good store with the good records of `bytes`.
pub(crate) fn is_whole(world: &World, bytes: &[u8], after: &[u8], seed: u64) {
    let (before, now) = (judge(world, bytes), judge(world, after));
    let kinds = &now.kinds;
    assert!(
        now.is_valid && now.has_end && kinds.is_empty(),
        "seed {seed}: {kinds:?}"
    );
    assert_eq!(
        now.records.len(),
        now.good.len(),
        "seed {seed}: more than the good ones"
    );
    same_data(world, &before, bytes, &now, after, seed);
    assert_eq!(now.good, before.good, "seed {seed}: data moved");
    let outcome = check_storage(&memory_with(after), &CheckOptions::new()).unwrap();
    let report = &outcome.report;
    assert_eq!(
        (report.corruptions, report.repairable),
        (0, 0),
        "seed {seed}: {report:#?}"
    );
}

/// Power cuts while a store is recovered in place. How many were tried.
pub(crate) fn survives_power_cuts(
    world: &World,
    bytes: &[u8],
    random: &mut Random,
    seed: u64,
) -> u64 {
    let recording = RecordingStorage::new(&MemoryStorage::from_bytes(bytes));
    let recorder = recording.recorder().clone();
    let storage: SharedStorage = Arc::new(recording);
    if recover_storage_in_place(&storage, &world.knowledge()).is_err() {
        return 0;
    }
    let mut tried = 0;
    for position in 0..=recorder.position() {
        // The last one of a position is one that chance chose.
        let mut cuts: Vec<_> = recorder.states(position).take(12).collect();
        cuts.push(recorder.sample(position, random.next()));
        for cut in cuts {
            let left = recorder.rebuild(&cut).unwrap().remove(0);
            let state = left.to_vec();
            let storage: SharedStorage = Arc::new(left);
            recover_storage_in_place(&storage, &world.knowledge())
                .unwrap_or_else(|error| panic!("seed {seed}, {cut:?}: {error}"));
            let after = bytes_of(&storage);
            let was = judge(world, &state);
            assert!(
                !was.is_valid || was.good == judge(world, bytes).good,
                "seed {seed}, {cut:?}: half of it seems valid"
            );
            is_whole(world, bytes, &after, seed);
            tried += 1;
        }
    }
    tried
}
