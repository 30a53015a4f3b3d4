//! Workloads of which every call is to fail once.

use crate::acts::Act;
use crate::bench::Bench;
use crate::budget::Random;
use crate::world::{Op, Shape};

/// Something to do, after something was done without faults.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) before: Vec<Act>,
    pub(crate) acts: Vec<Act>,
}

impl Workload {
    /// Ready for the acts.
    pub(crate) fn bench(&self) -> Bench {
        let mut bench = Bench::new(&self.shape);
        bench.apply(&self.before, None);
        bench
    }
}

pub(crate) fn shape(chunk: u64) -> Shape {
    Shape {
        base_len: 90_000,
        sectors: 250,
        chunk,
        files: false,
        direct: false,
    }
}

/// Makes operations with bytes of their own.
pub(crate) struct Acts<'a>(pub(crate) &'a mut Random);

impl Acts<'_> {
    fn write(&mut self, at: u64, len: u64) -> Act {
        let seed = self.0.next();
        Act::Do(Op::Write { at, len, seed })
    }

    pub(crate) fn anywhere(&mut self, count: usize) -> Vec<Act> {
        let mut write = || {
            let (at, len) = (self.0.below(125_000), 1 + self.0.below(9000));
            self.write(at, len)
        };
        (0..count).map(|_| write()).collect()
    }

    fn partial(&mut self, chunk: u64) -> Vec<Act> {
        [
            (100, 10),
            (3 * chunk - 7, 20),
            (8 * chunk, chunk - 1),
            (70_000, 2 * chunk),
        ]
        .map(|(at, len)| self.write(at, len))
        .to_vec()
    }

    /// So many exceptions of one chunk each, none beside another.
    fn many(&mut self, chunk: u64, count: u64) -> Vec<Act> {
        (0..count)
            .map(|index| self.write(2 * index * chunk, chunk))
            .collect()
    }

    /// Three layers with something in each, the last of it not flushed.
    pub(crate) fn chain(&mut self) -> Vec<Act> {
        let mut all = self.anywhere(3);
        for chunk in [4096, 8192] {
            all.push(Act::Do(Op::Snapshot { chunk }));
            all.extend(self.anywhere(3));
        }
        all
    }
}

fn then(mut acts: Vec<Act>, more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    acts.extend(more);
    acts
}

fn op(op: Op) -> Act {
    Act::Do(op)
}

const READ_ALL: Act = Act::Do(Op::Read { at: 0, len: 0 });
const FLUSH: Act = Act::Do(Op::Flush);

/// All of them, with contents and places that follow from a seed.
pub(crate) fn all(seed: u64) -> Vec<Workload> {
    let mut random = Random(seed);
    let mut acts = Acts(&mut random);
    let zero = |at, len, unmap| op(Op::Zero { at, len, unmap });
    let resize = |sectors| op(Op::Resize { sectors });
    let table = [
        (
            "random writes",
            4096,
            acts.anywhere(2),
            then(acts.anywhere(6), [FLUSH]),
        ),
        (
            "partial chunks",
            16384,
            vec![],
            then(acts.partial(16384), [FLUSH, READ_ALL]),
        ),
        (
            "partial chunks over partial ones",
            8192,
            acts.partial(4096),
            then(acts.partial(8192), [FLUSH]),
        ),
        // An area of a chunk of 512 bytes holds 32 records.
        (
            "area roll-over",
            512,
            then(acts.many(512, 30), [FLUSH]),
            then(acts.many(512, 70), [FLUSH]),
        ),
        (
            "a flush of many exceptions",
            512,
            acts.many(512, 120),
            vec![FLUSH],
        ),
        (
            "flushes of few exceptions",
            4096,
            vec![],
            then(acts.anywhere(1), [FLUSH, acts.write(9, 9), FLUSH, FLUSH]),
        ),
        (
            "write zeroes",
            4096,
            acts.anywhere(4),
            vec![zero(3000, 40_000, true), zero(60_000, 40_000, false), FLUSH],
        ),
        (
            "discard",
            4096,
            then(acts.anywhere(4), [FLUSH]),
            vec![
                op(Op::Discard {
                    at: 0,
                    len: 100_000,
                }),
                FLUSH,
            ],
        ),
        ("grow", 4096, acts.anywhere(4), vec![resize(333), READ_ALL]),
        (
            "shrink",
            4096,
            acts.anywhere(6),
            vec![resize(101), READ_ALL],
        ),
        (
            "shrink, then grow",
            8192,
            then(acts.anywhere(6), [FLUSH]),
            vec![resize(60), resize(250)],
        ),
        (
            "snapshot",
            4096,
            acts.anywhere(4),
            then(vec![op(Op::Snapshot { chunk: 8192 })], acts.anywhere(2)),
        ),
        ("amend", 4096, acts.anywhere(2), vec![Act::Amend]),
        (
            "make empty",
            4096,
            acts.anywhere(6),
            vec![op(Op::MakeEmpty), READ_ALL],
        ),
        (
            "merge",
            4096,
            acts.anywhere(6),
            vec![op(Op::Merge), READ_ALL],
        ),
        (
            "merge of a bare store",
            512,
            acts.many(512, 100),
            vec![op(Op::Merge), FLUSH],
        ),
        (
            "merge with writes meanwhile",
            4096,
            acts.anywhere(8),
            vec![Act::MergeAndWrite, FLUSH],
        ),
        (
            "part of a merge",
            4096,
            acts.anywhere(8),
            vec![op(Op::MergeSteps { steps: 1, seed }), FLUSH],
        ),
        ("close", 4096, acts.anywhere(4), vec![Act::Close]),
        ("drop", 4096, acts.anywhere(4), vec![Act::Drop]),
        (
            "reads of a chain",
            4096,
            acts.chain(),
            vec![READ_ALL, FLUSH],
        ),
        (
            "writes to a chain",
            4096,
            acts.chain(),
            then(acts.anywhere(3), [FLUSH]),
        ),
        (
            "merge in a chain",
            4096,
            acts.chain(),
            vec![op(Op::Merge), READ_ALL],
        ),
        (
            "merge with writes in a chain",
            4096,
            acts.chain(),
            vec![Act::MergeAndWrite, FLUSH],
        ),
        (
            "resize in a chain",
            4096,
            acts.chain(),
            vec![resize(400), op(Op::Merge)],
        ),
        ("close a chain", 4096, acts.chain(), vec![Act::Close]),
    ];
    let make = |(name, chunk, before, acts)| Workload {
        name,
        shape: shape(chunk),
        before,
        acts,
    };
    table.into_iter().map(make).collect()
}
