//! The shapes of kernel-made stores: sizes and the shell script that fills them.
//!
//! In a script each COW disk is attached under its own name (`snapshot cow $origin $cow P 8`), and
//! left with `leave cow`, which reports what the live device showed.

use std::fmt::Write;

use crate::budget::Random;
use crate::vm::PATTERN_SECTORS;

/// A COW disk of a shape.
pub(crate) struct Cow {
    /// Name of the disk and of the snapshot device.
    pub(crate) name: &'static str,
    pub(crate) sectors: u64,
    /// Sectors per chunk.
    pub(crate) chunk: u32,
    /// Seed of what the disk holds, its first 4096 bytes apart, before the kernel formats it.
    pub(crate) garbage: Option<u16>,
}

impl Cow {
    fn new(name: &'static str, chunk: u32, sectors: u64) -> Self {
        Self {
            name,
            sectors,
            chunk,
            garbage: None,
        }
    }
}

/// One scenario that leaves one or more stores over one origin.
pub(crate) struct Shape {
    pub(crate) name: String,
    /// Seed of the origin's content.
    pub(crate) seed: u16,
    pub(crate) origin_sectors: u64,
    pub(crate) cows: Vec<Cow>,
    pub(crate) script: String,
}

impl Shape {
    /// A shape with a single COW disk `cow`.
    fn new(name: &str, origin_sectors: u64, chunk: u32, cow_sectors: u64) -> Self {
        let cows = vec![Cow::new("cow", chunk, cow_sectors)];
        // From the name, so that a new shape changes no other.
        let seed = name
            .bytes()
            .fold(0, |seed: u16, byte| seed.rotate_left(5) ^ u16::from(byte));
        Self {
            name: name.into(),
            seed,
            origin_sectors,
            cows,
            script: String::new(),
        }
    }

    fn script(mut self, commands: &str) -> Self {
        self.script.push_str(commands);
        self.script.push('\n');
        self
    }

    pub(crate) fn store_name(&self, cow: &Cow) -> String {
        match self.cows.len() {
            1 => self.name.clone(),
            _ => format!("{}-{}", self.name, cow.name),
        }
    }
}

/// All shapes.
pub(crate) fn all() -> Vec<Shape> {
    let mut shapes = sizes();
    shapes.extend(areas());
    shapes.extend(origins());
    shapes.extend(ends());
    shapes.extend(merges());
    shapes
}

/// Every chunk size, with scattered writes of all alignments.
fn sizes() -> Vec<Shape> {
    let sizes = [
        ("chunk-1", 700, 1, 900, 24, 12),
        ("chunk-2", 700, 2, 1000, 20, 12),
        ("chunk-8", 2100, 8, 3000, 24, 100),
        ("chunk-32", 3000, 32, 4000, 20, 90),
        ("chunk-128", 4000, 128, 6000, 12, 200),
        ("chunk-2048", 3 * 2048 + 777, 2048, 7 * 2048, 3, 300),
    ];
    let shape = |(name, origin, chunk, cow, writes, longest): (_, u64, u32, u64, u32, u64)| {
        Shape::new(name, origin, chunk, cow)
            .script(&format!("snapshot cow $origin $cow P {chunk}"))
            .script(&scattered("cow", chunk.into(), writes, origin, longest))
            .script("leave cow")
    };
    sizes.into_iter().map(shape).collect()
}

/// Numbers of records around the capacity of an area.
fn areas() -> Vec<Shape> {
    let one = |name, cow, script: &str| {
        Shape::new(name, 256, 1, cow)
            .script("snapshot cow $origin $cow P 1")
            .script(script)
            .script("leave cow")
    };
    let mut garbage = one(
        "garbage",
        200,
        "put cow 9 20 0; put cow 200 13 50; put cow 100 10 70",
    );
    garbage.cows[0].garbage = Some(0xbad);
    vec![
        Shape::new("empty", 100, 32, 500).script("snapshot cow $origin $cow P 0; leave cow"),
        garbage,
        one(
            "several-areas",
            200,
            "put cow 128 50 7; put cow 3 40 1000; put cow 240 16 600",
        ),
        one("full-area", 100, "put cow 64 32 500"),
        one(
            "full-area-at-end",
            35,
            "put cow 10 20 3; put cow 100 12 400",
        ),
        Shape::new("several-areas-8", 2400, 8, 2500).script(
            "snapshot cow $origin $cow P 8
             put cow 1200 1200 300; put cow 3 1190 4000
             leave cow",
        ),
        Shape::new("full-area-8", 2048, 8, 2200)
            .script("snapshot cow $origin $cow P 8; put cow 0 2048 5000; leave cow"),
    ]
}

/// Odd sizes of origins, and writes to origins.
fn origins() -> Vec<Shape> {
    let mut copy_out = Shape::new("copy-out", 500, 2, 700);
    copy_out.cows = vec![Cow::new("small", 2, 900), Cow::new("large", 16, 900)];
    vec![
        Shape::new("odd-origin", 803, 8, 900).script(
            "snapshot cow $origin $cow P 8
             put cow 801 2 40; put cow 0 1 41; put cow 390 30 42
             leave cow",
        ),
        copy_out.script(
            "snapshot small $origin $small P 2; snapshot large $origin $large PO 16
             origin_of o $origin
             was=$(hash $origin)
             put o 17 1 100; put o 30 70 200; put o 490 10 300
             [ \"$(hash small)$(hash large)\" = \"$was$was\" ]
             put small 18 4 400; put large 100 50 500; put o 0 120 600
             leave small; leave large; detach o",
        ),
        Shape::new("discard", 400, 8, 500).script(
            "snapshot cow $origin $cow P 8 discard_zeroes_cow
             put cow 80 80 10
             discard cow 88 16; discard cow 240 32; discard cow 115 2
             put cow 90 3 900
             leave cow",
        ),
    ]
}

/// COW disks that are too small.
fn ends() -> Vec<Shape> {
    vec![
        Shape::new("overflow-p", 400, 8, 80).script(
            "snapshot cow $origin $cow P 8
             put cow 16 48 10; put cow 100 9 60; fails put cow 203 1 70
             leave cow",
        ),
        Shape::new("overflow-po", 400, 8, 84).script(
            "snapshot cow $origin $cow PO 8
             put cow 16 48 10; fails put cow 100 40 60
             leave cow",
        ),
        Shape::new("overflow-origin", 400, 8, 80).script(
            "snapshot cow $origin $cow PO 8; origin_of o $origin
             put cow 16 48 10; put o 100 9 60; put o 203 1 70
             leave cow; detach o",
        ),
        Shape::new("end-before-area", 100, 1, 33).script(
            "snapshot cow $origin $cow PO 1
             put cow 50 31 10; fails put cow 10 1 60
             leave cow",
        ),
        Shape::new("end-behind-area", 100, 1, 34).script(
            "snapshot cow $origin $cow PO 1
             put cow 50 31 10; fails put cow 10 1 60
             leave cow",
        ),
    ]
}

/// Merges, most of them stopped by an origin that refuses one chunk.
fn merges() -> Vec<Shape> {
    let filled = |name, chunk: u32, origin, cow| {
        Shape::new(name, origin, chunk, cow).script(&format!("snapshot cow $origin $cow P {chunk}"))
    };
    let stopped = |shape: Shape, bad: u64| {
        let chunk = shape.cows[0].chunk;
        shape.script(&format!(
            "was=$(hash cow); detach cow
             with_bad_sectors weak $origin {bad} 1
             merge cow weak $cow P {chunk}
             [ \"$(wait_merge cow)\" = 'Merge failed' ]
             [ \"$(hash cow)\" = \"$was\" ]
             leave cow; detach weak"
        ))
    };
    let many = "put cow 130 10 0; put cow 20 5 90; put cow 60 30 200; put cow 3 4 700";
    vec![
        filled("merged", 8, 400, 600)
            .script("put cow 35 70 10; put cow 395 5 90; was=$(hash cow); detach cow")
            .script("merge cow $origin $cow P 8; wait_merge cow; leave cow")
            .script("[ \"$(hash $origin)\" = \"$was\" ]"),
        stopped(filled("merge-stopped-early", 1, 200, 300).script(many), 85),
        stopped(
            filled("merge-stopped-between-areas", 1, 200, 300).script(many),
            61,
        ),
        stopped(filled("merge-stopped-late", 1, 200, 300).script(many), 22),
        stopped(
            filled("merge-stopped-8", 8, 1000, 900).script("put cow 500 90 5; put cow 9 99 300"),
            505,
        ),
        stopped(
            filled("merge-stopped-then-written", 1, 200, 300).script(many),
            22,
        )
        .script("snapshot cow $origin $cow P 1; put cow 100 25 50; put cow 21 2 8; leave cow"),
    ]
}

/// Writes at random places, some of them aligned to chunks, from the pattern disk.
fn scattered(device: &str, seed: u64, writes: u32, sectors: u64, longest: u64) -> String {
    let mut random = Random(seed);
    let mut script = String::new();
    for _ in 0..writes {
        let count = 1 + random.below(longest);
        let at = random.below(sectors - count + 1);
        let from = random.below(PATTERN_SECTORS - count);
        writeln!(script, "put {device} {at} {count} {from}").unwrap();
    }
    script
}
