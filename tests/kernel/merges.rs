//! Cases of merges that are interrupted.

use std::path::Path;
use std::sync::Arc;

use dmsnap::storage::FileOptions;
use dmsnap::storage::testing::{CallKinds, Fault, FaultStorage};
use dmsnap::{ByteRange, Image, OpenOptions, OriginChoice};

use crate::library::{exceptions, sha256};
use crate::pair::Pair;
use crate::pattern;
use crate::together::Case;

const SECTOR: u64 = pattern::SECTOR as u64;

/// Merges that one side begins and the other ends.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![Case::new("merge begun by us", |desk| {
        // More exceptions than the library merges at a time.
        let mut pair = Pair::create(desk, 70_000, 1);
        pair.ours(|pair, image| {
            pair.write(image, ByteRange::new(40_000 * SECTOR, 30_000 * SECTOR));
            pair.write(image, ByteRange::new(900, 39_000 * SECTOR));
        });
        pair.ours(|_, image| {
            let mut merge = image.start_merge().unwrap();
            assert!(merge.step().unwrap(), "there is more to do");
            drop(merge);
            let left = exceptions(image).len();
            assert!((1000..20_000).contains(&left), "{left} of 69001");
        });
        let merge = "merge m $origin $cow PO 1; field merged \"$(wait_merge m)\"; detach m";
        let outcome = desk.kernel(pair.scenario().script(merge));
        assert_eq!(pair.look(), outcome.field("merged"));
        pair.assert_merged();
    })];
    cases.extend(killed_merges());
    for (sectors, bad) in [(1, 300), (8, 900), (32, 500)] {
        cases.push(Case::new(
            format!("merge begun by the kernel, {sectors}"),
            move |desk| {
                let mut pair = Pair::create(desk, 2003, sectors);
                pair.ours(|pair, image| {
                    pair.write(image, ByteRange::new(200 * SECTOR, 900 * SECTOR));
                    pair.scribble(image, 12);
                });
                let merge = format!(
                    "with_bad_sectors weak $origin {bad} 1
                 merge m weak $cow PO {sectors}
                 field merged \"$(wait_merge m)\"; field merge_view $(hash m)
                 detach m weak"
                );
                let before = pair.look();
                let view = sha256(&pair.model);
                let outcome = pair.theirs_then(desk, |_| String::new(), &merge);
                assert_eq!(outcome.field("merged"), "Merge failed");
                assert_eq!(outcome.field("merge_view"), view);
                assert_ne!(pair.look(), before, "some of it was merged");
                pair.ours(|pair, image| pair.scribble(image, 4));
                pair.ours(|_, image| image.merge(&mut |_| true).unwrap());
                pair.assert_merged();
            },
        ));
    }
    cases
}

/// Merges of ours that ended at a call that failed; the kernel finishes them.
fn killed_merges() -> Vec<Case> {
    let one = |sectors: u32, origin: bool, call: u64| {
        let file = if origin { "origin" } else { "cow" };
        Case::new(
            format!("merge killed at {file} {call}, {sectors}"),
            move |desk| {
                let mut pair = Pair::create(desk, 3000, sectors);
                pair.ours(|pair, image| {
                    pair.write(image, ByteRange::new(1500 * SECTOR, 1400 * SECTOR));
                    pair.scribble(image, 25);
                });
                let faulty = |path: &Path| {
                    let file = FileOptions::new().writable(true).open(path).unwrap();
                    Arc::new(FaultStorage::new(Arc::new(file)))
                };
                let (below, cow) = (faulty(&pair.origin), faulty(&pair.cow));
                let options = OpenOptions::new()
                    .writable(true)
                    .origin(OriginChoice::Storage(below.clone()));
                let image = Image::open_storage(cow.clone(), &options).unwrap();
                let all = exceptions(&image).len();
                let broken = if origin { &below } else { &cow };
                let kinds = CallKinds::WRITE | CallKinds::WRITE_ZEROES | CallKinds::FLUSH;
                broken.arm(Fault::on(kinds).nth(call).forever());
                image.merge(&mut |_| true).unwrap_err();
                assert!(broken.fired() > 0);
                drop(image);
                drop((options, below, cow));
                let (image, _storage) = pair.open(false);
                assert!(exceptions(&image).len() <= all);
                drop((image, _storage));
                pair.theirs_merged(desk, |pair| pair.kernel_writes(3));
            },
        )
    };
    vec![
        one(1, true, 2),
        one(1, false, 3),
        one(1, false, 8),
        one(8, true, 3),
        one(8, false, 2),
        one(8, false, 3),
    ]
}
