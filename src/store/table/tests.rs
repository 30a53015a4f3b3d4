use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::format::Exception;
use proptest::prelude::*;

type Model = BTreeMap<u64, u64>;

fn put(table: &mut ExceptionTable, old: u64, new: u64, len: u64) {
    table.insert_run(OriginChunk(old), CowChunk(new), len);
}

fn runs(table: &ExceptionTable) -> Vec<(u64, u64, u64)> {
    table
        .iter()
        .map(|run| (run.old.0, run.new.0, run.len))
        .collect()
}

/// Numbers 0 to `count` - 1 in an order that looks random and is the same each time.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    let prime = 1_000_003;
    assert!(!count.is_multiple_of(prime));
    (0..count).map(move |i| i * prime % count)
}

fn model_runs(model: &Model) -> Vec<(u64, u64, u64)> {
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for (&old, &new) in model {
        match runs.last_mut() {
            Some(run) if run.0 + run.2 == old && run.1 + run.2 == new => run.2 += 1,
            _ => runs.push((old, new, 1)),
        }
    }
    runs
}

fn model_lookup(model: &Model, old: u64, max_len: u64) -> Run {
    match model.get(&old) {
        Some(&new) => {
            let same = |i: &u64| model.get(&(old + i)) == Some(&(new + i));
            let len = (0..max_len).take_while(same).count() as u64;
            Run::Mapped {
                new: CowChunk(new),
                len,
            }
        }
        None => {
            let next = model
                .range(old..)
                .next()
                .map_or(u64::MAX, |(&next, _)| next);
            Run::Unmapped {
                len: max_len.min(next - old),
            }
        }
    }
}

fn leaves(table: &ExceptionTable) -> Vec<&Leaf> {
    table.nodes.values().flat_map(Node::leaves).collect()
}

/// No node or leaf is empty or too large, and entries are sorted and lie in the part of their leaf.
fn check_shape(table: &ExceptionTable) {
    let mut end = 0;
    for (&base, node) in &table.nodes {
        let segment = segment_start(base);
        assert!((1..=node::NODE_LEAVES).contains(&node.leaves().len()));
        assert!(base >= end, "a node reaches into the next one's part");
        end = base;
        for (index, leaf) in node.leaves().iter().enumerate() {
            assert!((1..=leaf::LEAF_ENTRIES).contains(&leaf.entries().len()));
            for entry in leaf.entries() {
                assert!(segment + entry.old() >= end && entry.end() <= SEGMENT);
                end = segment + entry.end();
                assert_eq!(node.find(entry.old()).0, index);
                assert_eq!(node.find(entry.end() - 1).0, index);
            }
        }
    }
}

#[test]
fn test_empty_table() {
    let table = ExceptionTable::default();
    assert_eq!(table.len(), 0);
    assert_eq!(table.last_old(), None);
    assert_eq!(table.iter().next(), None);
    assert_eq!(
        table.lookup_run(OriginChunk(7), 9),
        Run::Unmapped { len: 9 }
    );
    assert_eq!(
        table.lookup_run(OriginChunk(u64::MAX), u64::MAX),
        Run::Unmapped { len: u64::MAX }
    );
}

#[test]
fn test_runs_join_on_both_sides() {
    let mut table = ExceptionTable::default();
    put(&mut table, 10, 2, 2);
    put(&mut table, 14, 6, 2);
    put(&mut table, 16, 99, 1);
    put(&mut table, 12, 4, 2);
    assert_eq!(runs(&table), [(10, 2, 6), (16, 99, 1)]);
    assert_eq!(
        leaves(&table)
            .iter()
            .map(|leaf| leaf.entries().len())
            .sum::<usize>(),
        2
    );
    assert_eq!((table.len(), table.last_old()), (7, Some(OriginChunk(16))));
}

#[test]
fn test_a_long_run_takes_hardly_any_memory_and_reads_as_one() {
    let mut table = ExceptionTable::default();
    put(&mut table, 5, 1_000_000, 10_000_000);
    let whole = Run::Mapped {
        new: CowChunk(1_000_001),
        len: 9_999_999,
    };
    assert_eq!(table.lookup_run(OriginChunk(6), u64::MAX), whole);
    assert!(table.heap_bytes() < 4096);
    check_shape(&table);
}

#[test]
fn test_runs_cross_segments() {
    let mut table = ExceptionTable::default();
    let start = SEGMENT - 3;
    put(&mut table, start, 50, 6);
    assert_eq!(runs(&table), [(start, 50, 6)]);
    let across = Run::Mapped {
        new: CowChunk(51),
        len: 5,
    };
    assert_eq!(table.lookup_run(OriginChunk(start + 1), 10), across);
    assert_eq!(table.remove(OriginChunk(SEGMENT - 1), 2), 2);
    assert_eq!(runs(&table), [(start, 50, 2), (SEGMENT + 1, 54, 2)]);
    let gap = Run::Unmapped { len: SEGMENT - 3 };
    assert_eq!(table.lookup_run(OriginChunk(0), u64::MAX), gap);
    check_shape(&table);

    let mut builder = TableBuilder::default();
    builder.push_run(OriginChunk(start), CowChunk(50), 6);
    assert_eq!(runs(&builder.finish().unwrap().0), [(start, 50, 6)]);
}

#[test]
fn test_largest_numbers() {
    let mut table = ExceptionTable::default();
    put(&mut table, MAX_OLD_CHUNK, MAX_NEW_CHUNK, 1);
    let found = Run::Mapped {
        new: CowChunk(MAX_NEW_CHUNK),
        len: 1,
    };
    assert_eq!(
        table.lookup_run(OriginChunk(MAX_OLD_CHUNK), u64::MAX),
        found
    );
    let mut builder = TableBuilder::default();
    builder.push_run(OriginChunk(MAX_OLD_CHUNK), CowChunk(MAX_NEW_CHUNK), 1);
    builder.push_run(OriginChunk(0), CowChunk(2), 1);
    assert_eq!(
        runs(&builder.finish().unwrap().0),
        [(0, 2, 1), (MAX_OLD_CHUNK, MAX_NEW_CHUNK, 1)]
    );
    assert_eq!(table.remove(OriginChunk(0), u64::MAX), 1);
    assert!(table.len() == 0 && table.nodes.is_empty());
}

#[test]
fn test_scattered_inserts_stay_below_16_bytes_an_exception() {
    let count = 100_000;
    let mut table = ExceptionTable::default();
    for (new, old) in (2..).zip(scattered(count)) {
        put(&mut table, old * 3, new, 1);
    }
    check_shape(&table);
    assert_eq!(table.len(), count);
    assert!(
        table.heap_bytes() as u64 <= 14 * count,
        "{}",
        table.heap_bytes()
    );
    for (new, old) in (2..).zip(scattered(count)) {
        let found = Run::Mapped {
            new: CowChunk(new),
            len: 1,
        };
        assert_eq!(table.lookup_run(OriginChunk(old * 3), 2), found);
        let gap = Run::Unmapped {
            len: 2.min(3 * count - 3 * old),
        };
        assert_eq!(table.lookup_run(OriginChunk(old * 3 + 1), 2), gap);
    }
    for old in scattered(count) {
        assert_eq!(table.remove(OriginChunk(old * 3), 2), 1);
    }
    assert!(table.nodes.is_empty());
}

#[test]
fn test_ordered_inserts_fill_leaves() {
    let count = 100 * leaf::LEAF_ENTRIES as u64;
    for descending in [false, true] {
        let mut table = ExceptionTable::default();
        for i in 0..count {
            put(
                &mut table,
                2 * if descending { count - i } else { i },
                i + 2,
                1,
            );
        }
        check_shape(&table);
        // Ascending ones fill them, descending ones leave them half full.
        assert!(leaves(&table).len() <= if descending { 200 } else { 100 });
    }
}

#[test]
fn test_runs_stop_at_the_parts_of_leaves_and_nodes() {
    let in_leaf = 2 * leaf::LEAF_ENTRIES as u64;
    let in_node = in_leaf * node::NODE_LEAVES as u64;
    let mut builder = TableBuilder::default();
    for old in (0..in_node + 3 * in_leaf).step_by(2) {
        builder.push_run(OriginChunk(old), CowChunk(old + 2), 1);
    }
    let (mut table, _) = builder.finish().unwrap();
    for border in [in_leaf, in_node, in_node + in_leaf] {
        assert!(
            leaves(&table)
                .iter()
                .any(|leaf| leaf.entries()[0].old() == border)
        );
        table.remove(OriginChunk(border - 9), 20);
        put(&mut table, border - 9, 1 << 40, 20);
        for i in 0..20 {
            let new = CowChunk((1 << 40) + i);
            let found = table.lookup_run(OriginChunk(border - 9 + i), 100);
            assert_eq!(found, Run::Mapped { new, len: 20 - i });
        }
    }
    check_shape(&table);
    // Without its first leaves, a node still takes what lay there.
    table.remove(OriginChunk(in_node - 500), 500 + 2 * in_leaf);
    assert_eq!(
        table.lookup_run(OriginChunk(in_node + 5), 7),
        Run::Unmapped { len: 7 }
    );
    put(&mut table, in_node + 5, 7, 1);
    put(&mut table, in_node - 5, 9, 1);
    check_shape(&table);
    let at_five = Run::Mapped {
        new: CowChunk(7),
        len: 1,
    };
    assert_eq!(table.lookup_run(OriginChunk(in_node + 5), 7), at_five);
}

#[test]
fn test_holes_in_long_runs_split_leaves() {
    let mut table = ExceptionTable::default();
    put(&mut table, 0, 2, 10_000);
    for old in (1..10_000).step_by(2) {
        assert_eq!(table.remove(OriginChunk(old), 1), 1);
    }
    check_shape(&table);
    assert_eq!(table.len(), 5000);
    let wanted: Vec<_> = (0..10_000)
        .step_by(2)
        .map(|old| (old, old + 2, 1))
        .collect();
    assert_eq!(runs(&table), wanted);
}

#[test]
fn test_removal_gives_memory_back() {
    let mut table = ExceptionTable::default();
    for (new, old) in (2..).zip(scattered(50_000)) {
        put(&mut table, old * 2, new, 1);
    }
    let full = table.heap_bytes();
    for old in scattered(50_000).take(45_000) {
        table.remove(OriginChunk(old * 2), 1);
    }
    assert!(
        table.heap_bytes() < full / 3,
        "{} of {full}",
        table.heap_bytes()
    );
}

#[test]
fn test_builder_reports_duplicates_and_keeps_the_first() {
    let mut builder = TableBuilder::default();
    // The last two: the same exception once more, and the same old chunk elsewhere.
    for (old, new) in [(9, 30), (5, 2), (6, 3), (7, 4), (6, 3), (7, 40)] {
        builder.push_run(OriginChunk(old), CowChunk(new), 1);
    }
    let (table, report) = builder.finish().unwrap();
    assert_eq!(runs(&table), [(5, 2, 3), (9, 30, 1)]);
    let identical = Exception {
        old: OriginChunk(6),
        new: CowChunk(3),
    };
    assert_eq!(
        (report.identical.count, report.identical.listed.as_slice()),
        (1, &[identical][..])
    );
    let (kept, ignored) = (CowChunk(4), CowChunk(40));
    let conflict = Conflict {
        old: OriginChunk(7),
        kept,
        ignored,
    };
    assert_eq!(
        (report.conflicts.count, report.conflicts.listed.as_slice()),
        (1, &[conflict][..])
    );
    assert_eq!(report.shared.count, 0);
}

#[test]
fn test_builder_keeps_the_first_of_overlapping_runs_in_any_order() {
    // Ascending new chunks take one path, others another.
    for news in [[100, 200, 300], [300, 200, 100]] {
        let mut builder = TableBuilder::default();
        for (old, new) in [20, 15, 0].into_iter().zip(news) {
            builder.push_run(OriginChunk(old), CowChunk(new), 10);
        }
        let (table, report) = builder.finish().unwrap();
        assert_eq!(
            runs(&table),
            [(0, news[2], 10), (15, news[1], 5), (20, news[0], 10)]
        );
        assert_eq!(report.conflicts.count, 5);
        let (kept, ignored) = (CowChunk(news[0]), CowChunk(news[1] + 5));
        assert_eq!(
            report.conflicts.listed[0],
            Conflict {
                old: OriginChunk(20),
                kept,
                ignored
            }
        );
    }
}

#[test]
fn test_builder_reports_shared_new_chunks() {
    // With neighbours so far apart that no bitmap is made, and without.
    for far in [40, 1 << 40] {
        let mut builder = TableBuilder::default();
        builder.push_run(OriginChunk(0), CowChunk(10), 5);
        builder.push_run(OriginChunk(90), CowChunk(far), 1);
        builder.push_run(OriginChunk(50), CowChunk(13), 5);
        let (table, report) = builder.finish().unwrap();
        assert_eq!(table.len(), 11);
        let shared = [(13, [3, 50]), (14, [4, 51])].map(|(new, olds)| SharedChunk {
            new: CowChunk(new),
            olds: olds.map(OriginChunk),
        });
        assert_eq!(
            (report.shared.count, report.shared.listed.as_slice()),
            (2, &shared[..])
        );
        assert_eq!(report.conflicts.count, 0);
    }
}

#[test]
fn test_findings_are_counted_and_listed_up_to_a_limit() {
    let mut builder = TableBuilder::default();
    for new in 0..5000 {
        builder.push_run(OriginChunk(7), CowChunk(2 + new), 1);
    }
    let (table, report) = builder.finish().unwrap();
    assert_eq!(runs(&table), [(7, 2, 1)]);
    assert_eq!(
        (report.conflicts.count, report.conflicts.listed.len()),
        (4999, 1000)
    );
}

/// Positions near each other, at a segment's border and far away.
fn any_old() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..3000, 2 => SEGMENT - 200..SEGMENT + 200, 1 => 0..MAX_OLD_CHUNK / 2]
}

fn any_log() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let len = prop_oneof![4 => 1u64..4, 1 => 1u64..60];
    prop::collection::vec((any_old(), 2u64..3000, len), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn test_table_against_a_model(
        steps in prop::collection::vec((0u8..4, any_old(), 1u64..400), 0..300),
    ) {
        let mut table = ExceptionTable::default();
        let mut model = Model::new();
        let mut next_new = 2;
        for (kind, old, len) in steps {
            if kind == 0 {
                let before = model.len();
                model.retain(|&found, _| !(old..old + len).contains(&found));
                prop_assert_eq!(table.remove(OriginChunk(old), len), (before - model.len()) as u64);
            } else {
                let Run::Unmapped { len } = table.lookup_run(OriginChunk(old), len) else { continue };
                put(&mut table, old, next_new, len);
                model.extend((0..len).map(|i| (old + i, next_new + i)));
                // Kinds differ in whether the next run can continue this one.
                next_new += len + u64::from(kind == 1);
            }
            let found = table.lookup_run(OriginChunk(old), 50);
            prop_assert_eq!(found, model_lookup(&model, old, 50));
        }
        check_shape(&table);
        prop_assert_eq!(runs(&table), model_runs(&model));
        prop_assert_eq!(table.len(), model.len() as u64);
        for old in (0..3000).chain(SEGMENT - 250..SEGMENT + 600).step_by(11) {
            for max_len in [1, 7, 1000] {
                let found = table.lookup_run(OriginChunk(old), max_len);
                prop_assert_eq!(found, model_lookup(&model, old, max_len));
            }
        }
        for from in [0, 700, SEGMENT - 1, SEGMENT] {
            let rest: Vec<_> = table.iter_from(OriginChunk(from)).map(|r| (r.old.0, r.new.0, r.len)).collect();
            model = model.split_off(&from);
            prop_assert_eq!(rest, model_runs(&model));
        }
    }

    #[test]
    fn test_builder_against_a_model(log in any_log(), ascending in any::<bool>(), single in any::<bool>()) {
        let mut builder = TableBuilder::default();
        let mut model = Model::new();
        let (mut identical, mut conflicts) = (0, 0);
        let mut next_new = 2;
        for (old, new, len) in log {
            let new = if ascending { next_new } else { new };
            next_new += len;
            for i in 0..len {
                match model.get(&(old + i)) {
                    None => _ = model.insert(old + i, new + i),
                    Some(&kept) if kept == new + i => identical += 1,
                    Some(_) => conflicts += 1,
                }
                if single {
                    builder.push_run(OriginChunk(old + i), CowChunk(new + i), 1);
                }
            }
            if !single {
                builder.push_run(OriginChunk(old), CowChunk(new), len);
            }
        }
        let (table, report) = builder.finish().unwrap();
        check_shape(&table);
        prop_assert_eq!(runs(&table), model_runs(&model));
        let distinct: BTreeSet<u64> = model.values().copied().collect();
        prop_assert_eq!(report.shared.count, (model.len() - distinct.len()) as u64);
        prop_assert_eq!(report.identical.count, identical);
        prop_assert_eq!(report.conflicts.count, conflicts);
    }
}
