//! Checks and repairs of damaged stores.

use std::collections::BTreeSet;

use dmsnap::store::Severity;
use dmsnap::{CheckOptions, CheckOutcome, ErrorKind, Repair, Treatment, check_storage};

use crate::image_common::{bytes_of, memory_with};
use crate::judge::{Judgement, judge, name};
use crate::world::World;

fn check(bytes: &[u8], repair: Repair) -> (dmsnap::Result<CheckOutcome>, Vec<u8>) {
    let storage = memory_with(bytes);
    let outcome = check_storage(&storage, &CheckOptions::new().repair(repair));
    (outcome, bytes_of(&storage))
}

/// No false alarm.
pub(crate) fn accepts_undamaged(world: &World, seed: u64) {
    let (outcome, after) = check(&world.bytes, Repair::None);
    let outcome = outcome.unwrap();
    let judgement = judge(world, &world.bytes);
    assert_eq!(judgement.kinds, BTreeSet::new(), "seed {seed}: the judge");
    assert_eq!(
        judgement.good.len(),
        world.records.len(),
        "seed {seed}: the judge"
    );
    let mut findings = outcome.report.findings.iter();
    // Holes are leaks where a file has space for them.
    let is_alarm = |severity| severity != Severity::Leak || world.is_compact;
    let alarm = findings.find(|finding| is_alarm(finding.severity));
    assert!(alarm.is_none(), "seed {seed}: {alarm:?}");
    assert!(after == world.bytes, "seed {seed}: a check writes");
}

/// All that is damaged is found, by its kind. Returns `None` if it is no store any more.
pub(crate) fn finds_damage(world: &World, bytes: &[u8], seed: u64) -> Option<Judgement> {
    let (outcome, after) = check(bytes, Repair::None);
    assert!(after == bytes, "seed {seed}: a check writes");
    let judgement = judge(world, bytes);
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let kinds = [
                ErrorKind::InvalidFormat,
                ErrorKind::Corrupt,
                ErrorKind::Unsupported,
            ];
            assert!(
                kinds.contains(&error.kind()) && !judgement.has_header,
                "seed {seed}: {error}"
            );
            return None;
        }
    };
    if !judgement.has_header {
        // A flipped bit in the chunk size makes another store of it, in which areas lie elsewhere.
        return None;
    }
    let findings = &outcome.report.findings;
    let serious = findings
        .iter()
        .filter(|found| found.severity != Severity::Leak);
    let found: BTreeSet<&str> = serious.map(|found| name(found.kind)).collect();
    assert_eq!(found, judgement.kinds, "seed {seed}: {findings:#?}");
    assert_eq!(
        outcome.report.corruptions > 0,
        judgement.is_corrupt,
        "seed {seed}: {findings:#?}"
    );
    assert_eq!(outcome.treatments.len(), findings.len(), "seed {seed}");
    let listed = findings
        .iter()
        .filter(|found| found.severity == Severity::Corruption)
        .count() as u64;
    assert_eq!(
        listed,
        outcome.report.corruptions.min(listed.max(1000)),
        "seed {seed}"
    );
    Some(judgement)
}

/// Whether there was something to repair, and was repaired.
pub(crate) fn repairs(
    world: &World,
    bytes: &[u8],
    judgement: Option<Judgement>,
    seed: u64,
) -> bool {
    let Some(before) = judgement else {
        let (_, after) = check(bytes, Repair::All);
        assert!(after == bytes, "seed {seed}: what is no store was written");
        return false;
    };
    let (outcome, after) = check(bytes, Repair::All);
    let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let left = |treatment: &&Treatment| matches!(treatment, Treatment::Left(_));
    if before.is_corrupt {
        assert!(after == bytes, "seed {seed}: written beside a corruption");
        let all = outcome.treatments.len();
        assert_eq!(
            outcome.treatments.iter().filter(left).count(),
            all,
            "seed {seed}: {outcome:#?}"
        );
        return false;
    }
    let remaining = (outcome.remaining_corruptions, outcome.remaining_repairable);
    assert_eq!(remaining, (0, 0), "seed {seed}: {outcome:#?}");
    let now = judge(world, &after);
    assert_eq!(now.kinds, BTreeSet::new(), "seed {seed}: after the repair");
    same_data(world, &before, bytes, &now, &after, seed);
    let (again, unchanged) = check(&after, Repair::All);
    assert_eq!(again.unwrap().repaired, 0, "seed {seed}: checked again");
    assert!(unchanged == after, "seed {seed}: repaired twice");
    if seed.is_multiple_of(8) {
        repairs_file(world, bytes, &before, seed);
    }
    !before.kinds.is_empty()
}

/// A file gives leaked space back, too: nothing is left to complain about.
fn repairs_file(world: &World, bytes: &[u8], before: &Judgement, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    std::fs::write(&path, bytes).unwrap();
    let outcome = dmsnap::check(&path, &CheckOptions::new().repair(Repair::All)).unwrap();
    assert!(outcome.is_clean(), "seed {seed}: {outcome:#?}");
    let after = std::fs::read(&path).unwrap();
    same_data(world, before, bytes, &judge(world, &after), &after, seed);
    let again = dmsnap::check(&path, &CheckOptions::new()).unwrap();
    assert!(again.is_clean(), "seed {seed}: {again:#?}");
}

/// What good records showed they show, wherever it is now.
pub(crate) fn same_data(
    world: &World,
    before: &Judgement,
    bytes: &[u8],
    now: &Judgement,
    after: &[u8],
    seed: u64,
) {
    let olds = |judgement: &Judgement| judgement.good.keys().copied().collect::<Vec<u64>>();
    assert_eq!(olds(now), olds(before), "seed {seed}: what has exceptions");
    for (old, new) in &before.good {
        let shown = chunk(world, after, now.good[old]);
        assert!(
            shown == chunk(world, bytes, *new),
            "seed {seed}: chunk {old} shows something else"
        );
    }
}

pub(crate) fn chunk<'a>(world: &World, bytes: &'a [u8], number: u64) -> &'a [u8] {
    &bytes[(number * world.chunk) as usize..][..world.chunk as usize]
}
