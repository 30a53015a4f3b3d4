//! Every command of the tool that writes, killed at any moment: what was there is there, and what was to be made is whole or not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dmsnap::{CowChunk, Image, OpenOptions, OriginChoice, OriginChunk};

use crate::budget::{Budget, Random, count};
use crate::harness::{Scratch, content};
use crate::kill::Moments;

const SIZE: u64 = 3 << 20;
const GROWN: u64 = SIZE + (1 << 20);

/// A command, and what has to hold when it was killed.
struct Victim {
    args: &'static [&'static str],
    /// Looks at what is left, and carries on with it.
    look: fn(&Ground),
}

const VICTIMS: &[Victim] = &[
    Victim {
        args: &["create", "-b", "base.raw", "-F", "raw", "new.dms"],
        look: |ground| ground.is_new_or_not_there("base.raw"),
    },
    Victim {
        args: &["create", "-b", "base.raw", "-F", "raw", "old"],
        look: |ground| ground.is_new_or_precious("base.raw"),
    },
    Victim {
        args: &["convert", "-O", "dmsnap", "layer.dms", "new.dms"],
        look: |ground| ground.is_new_or_not_there("view"),
    },
    Victim {
        args: &[
            "convert",
            "-O",
            "dmsnap",
            "-B",
            "base.raw",
            "-F",
            "raw",
            "layer.dms",
            "old",
        ],
        look: |ground| ground.is_new_or_precious("view"),
    },
    Victim {
        args: &["convert", "-O", "raw", "layer.dms", "old"],
        look: Ground::is_raw_or_precious,
    },
    Victim {
        args: &["snapshot", "layer.dms", "new.dms"],
        look: Ground::has_a_layer_more_or_not,
    },
    Victim {
        args: &["merge", "-q", "layer.dms"],
        look: Ground::can_be_merged,
    },
    Victim {
        args: &["resize", "layer.dms", "4M"],
        look: |ground| ground.has_size([SIZE, GROWN]),
    },
    Victim {
        args: &["resize", "--shrink", "layer.dms", "1M"],
        look: |ground| ground.has_size([SIZE, 1 << 20]),
    },
    Victim {
        args: &["amend", "-b", "copy.raw", "-F", "raw", "layer.dms"],
        look: |ground| ground.shows("layer.dms", "view"),
    },
    Victim {
        args: &["amend", "--remove-descriptor", "layer.dms"],
        look: |ground| ground.shows_over("base.raw", "layer.dms", "view"),
    },
    Victim {
        args: &[
            "amend",
            "--add-descriptor",
            "3M",
            "-b",
            "base.raw",
            "-F",
            "raw",
            "bare.dms",
        ],
        look: |ground| ground.shows_over("base.raw", "bare.dms", "view"),
    },
    Victim {
        args: &[
            "io",
            "layer.dms",
            "-c",
            "writez 0 3M",
            "-c",
            "flush",
            "-c",
            "write -P 0x77 0 3M",
            "-c",
            "flush",
        ],
        look: Ground::has_sectors_of_one_kind_each,
    },
    Victim {
        args: &["check", "-r", "all", "stale.dms"],
        look: |ground| ground.can_be_repaired("stale.dms"),
    },
    Victim {
        args: &["check", "-r", "leaks", "leaky.dms"],
        look: |ground| ground.can_be_repaired("leaky.dms"),
    },
    Victim {
        args: &["recover", "-q", "invalid.dms", "new.dms"],
        look: |ground| {
            ground.is_as_before("invalid.dms");
            ground.is_new_or_not_there("view");
        },
    },
    Victim {
        args: &["recover", "-q", "--in-place", "wrecked.dms"],
        look: Ground::can_be_recovered,
    },
    Victim {
        args: &["restore", "-q", "--overwrite", "meta.json", "lost.dms"],
        look: Ground::can_be_restored,
    },
];

/// A directory with everything that the commands are given, and how it was.
struct Ground {
    scratch: Scratch,
    before: BTreeMap<PathBuf, Vec<u8>>,
    /// The exceptions of wrecked.dms.
    wrecked: Vec<Run>,
}

/// Old chunk, new chunk and number.
type Run = (OriginChunk, CowChunk, u64);

impl Ground {
    fn new() -> Ground {
        let scratch = Scratch::fast();
        let base = content(1, SIZE as usize);
        let mut view = base.clone();
        for (at, byte) in content(2, SIZE as usize / 2).into_iter().enumerate() {
            // Runs of chunks, and lone sectors between them.
            if at / 8192 % 3 == 0 || at % 32768 == 12289 {
                view[at] = byte;
            }
        }
        scratch.write("base.raw", &base);
        scratch.write("copy.raw", &base);
        scratch.write("view", &view);
        scratch.write("old", b"precious");
        let make = |options: &str, name: &str| {
            scratch
                .dmsnap(&format!(
                    "convert -q -f raw -O dmsnap -o {options} -B base.raw -F raw view {name}"
                ))
                .succeeds();
        };
        make("chunk_size=4K", "layer.dms");
        make("chunk_size=4K", "stale.dms");
        make("chunk_size=4K", "leaky.dms");
        make("chunk_size=4K,bare=on", "bare.dms");
        spoil(&scratch);
        let wrecked = lose(&scratch);
        Ground {
            before: scratch.contents(),
            scratch,
            wrecked,
        }
    }

    /// Makes everything as it was, so that a victim meets nothing of the one before.
    fn restore(&self) {
        let now = self.scratch.contents();
        for path in now.keys().filter(|path| !self.before.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, content) in &self.before {
            if now.get(path) != Some(content) {
                fs::write(path, content).unwrap();
            }
        }
    }

    /// The files that a command was not to touch, and no others but unfinished ones under names of their own.
    fn others_are_untouched(&self, args: &[&str]) {
        for (path, content) in self.scratch.contents() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let unfinished = name.starts_with(".dmsnap-") && name.ends_with(".tmp");
            // A merge writes to the backing.
            let its_own = args.contains(&name) || (args[0] == "merge" && name == "base.raw");
            if !its_own && !unfinished {
                assert!(self.before.get(&path) == Some(&content), "{name} changed");
            }
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.scratch.path(name).exists()
    }

    /// The layer is sound and shows what the file `expected` holds, each read by the tool.
    #[track_caller]
    fn shows(&self, layer: &str, expected: &str) {
        self.is_sound(layer);
        self.scratch
            .dmsnap(&format!("compare -s -F raw {layer} {expected}"))
            .succeeds();
    }

    #[track_caller]
    fn shows_over(&self, origin: &str, layer: &str, expected: &str) {
        self.is_sound(layer);
        let line = format!("compare -s --origin {origin} -F raw {layer} {expected}");
        self.scratch.dmsnap(&line).succeeds();
    }

    #[track_caller]
    fn is_sound(&self, layer: &str) {
        let run = self.scratch.dmsnap(&format!("check {layer}"));
        assert!([0, 3].contains(&run.code), "{run:#?}");
    }

    fn is_new_or_not_there(&self, expected: &str) {
        if self.exists("new.dms") {
            self.shows("new.dms", expected);
        }
    }

    fn is_new_or_precious(&self, expected: &str) {
        if self.scratch.read("old") != b"precious" {
            self.shows("old", expected);
        }
    }

    fn is_raw_or_precious(&self) {
        let old = self.scratch.read("old");
        assert!(old == b"precious" || old == self.scratch.read("view"));
    }

    /// A layer that is being made is no image before it is whole; the one below has been flushed and stays.
    fn has_a_layer_more_or_not(&self) {
        self.shows("layer.dms", "view");
        if self.exists("new.dms") && self.scratch.read("new.dms").starts_with(b"SnAp") {
            self.shows("new.dms", "view");
        }
    }

    fn can_be_merged(&self) {
        self.shows("layer.dms", "view");
        self.scratch.dmsnap("merge -q layer.dms").succeeds();
        assert!(
            self.scratch.read("base.raw") == self.scratch.read("view"),
            "merged at last"
        );
    }

    fn has_size(&self, sizes: [u64; 2]) {
        self.is_sound("layer.dms");
        self.scratch
            .dmsnap("convert -O raw layer.dms seen")
            .succeeds();
        let (seen, mut view) = (self.scratch.read("seen"), self.scratch.read("view"));
        fs::remove_file(self.scratch.path("seen")).unwrap();
        assert!(sizes.contains(&(seen.len() as u64)), "{} bytes", seen.len());
        view.resize(seen.len(), 0);
        assert!(seen == view, "another content");
    }

    /// What was written over is what it was, zeros or the pattern. Once a flush has ended there may be no older bytes; which one has ended
    /// is not known here.
    fn has_sectors_of_one_kind_each(&self) {
        self.is_sound("layer.dms");
        self.scratch
            .dmsnap("convert -O raw layer.dms seen")
            .succeeds();
        let (seen, view) = (self.scratch.read("seen"), self.scratch.read("view"));
        fs::remove_file(self.scratch.path("seen")).unwrap();
        for (at, (found, old)) in seen.chunks(512).zip(view.chunks(512)).enumerate() {
            let whole = found == old || found == [0; 512] || found == [0x77; 512];
            assert!(whole, "sector {at} is {found:x?}");
        }
        // All zeros were durable before the first of the pattern was written.
        if seen.contains(&0x77) && seen.chunks(512).any(|sector| sector == [0x77; 512]) {
            let of_new = |sector: &[u8]| sector == [0; 512] || sector == [0x77; 512];
            assert!(seen.chunks(512).all(of_new), "older than what was flushed");
        }
    }

    fn can_be_repaired(&self, layer: &str) {
        self.shows(layer, "view");
        self.scratch
            .dmsnap(&format!("check -r all {layer}"))
            .succeeds();
        self.scratch.dmsnap(&format!("check {layer}")).succeeds();
        self.shows(layer, "view");
    }

    fn is_as_before(&self, name: &str) {
        let before = &self.before[&self.scratch.path(name)];
        assert!(self.scratch.read(name) == *before, "{name} changed");
    }

    /// It says that it is good only when it is, and a second recovery loses nothing either.
    fn can_be_recovered(&self) {
        let is_whole = || {
            self.shows("wrecked.dms", "view");
            let found = exceptions(&self.scratch, "wrecked.dms");
            assert_eq!(found, self.wrecked, "other exceptions");
        };
        if is_valid(&self.scratch.read("wrecked.dms")) {
            is_whole();
        }
        let again = self.scratch.dmsnap("recover -q --in-place wrecked.dms");
        // What the first one has left out is not there for the second.
        assert!([0, 2].contains(&again.code), "{again:#?}");
        is_whole();
    }

    /// It says that it is good only when it is, and a second restoration gives all bytes.
    fn can_be_restored(&self) {
        self.is_as_before("meta.json");
        let is_whole = || self.scratch.read("lost.dms") == self.scratch.read("layer.dms");
        assert!(!is_valid(&self.scratch.read("lost.dms")) || is_whole());
        self.scratch
            .dmsnap("restore -q --overwrite meta.json lost.dms")
            .succeeds();
        assert!(is_whole(), "restored at last");
    }

    /// One command, killed once. Gives whether it was alive.
    fn kill(&self, victim: &Victim, moments: &Moments, random: &mut Random) -> bool {
        self.restore();
        let killed = moments.kill(self.scratch.command(victim.args), random);
        self.others_are_untouched(victim.args);
        (victim.look)(self);
        killed
    }
}

const CHUNK: usize = 4096;

/// The first metadata area of a layer, and how many records there are in it.
fn records(scratch: &Scratch, layer: &str) -> (Vec<u8>, usize) {
    let area = scratch.read(layer)[CHUNK..2 * CHUNK].to_vec();
    let used = area
        .chunks(16)
        .take_while(|slot| slot[8..] != [0; 8])
        .count();
    assert!((2..250).contains(&used), "{used} records");
    (area, used)
}

/// Gives one layer a stale slot behind its records, and another one a chunk that no record names.
fn spoil(scratch: &Scratch) {
    let (_, used) = records(scratch, "stale.dms");
    scratch.poke("stale.dms", (CHUNK + 16 * (used + 1)) as u64, &[9; 16]);
    // Both chunks hold the zeros that are below them, so nobody misses the one whose record is lost.
    let zeros = ["write -q -P 0 2M 4K", "flush", "write -q -P 0 2052K 4K"];
    scratch.io("leaky.dms", &zeros).succeeds();
    let (area, used) = records(scratch, "leaky.dms");
    let last = &area[16 * (used - 1)..16 * used];
    scratch.poke(
        "leaky.dms",
        (CHUNK + 16 * (used - 2)) as u64,
        &[last, &[0; 16]].concat(),
    );
    scratch.dmsnap("check leaky.dms").exits(3);
    scratch.dmsnap("check stale.dms").exits(3);
}

fn is_valid(store: &[u8]) -> bool {
    store.starts_with(b"SnAp\x01")
}

fn exceptions(scratch: &Scratch, layer: &str) -> Vec<Run> {
    let options = OpenOptions::new().origin(OriginChoice::Zeros);
    let image = Image::open(scratch.path(layer), &options).unwrap();
    image.exceptions()
}

/// Makes stores to recover and to restore: a good one that is invalid, one with a bad record and a stale slot besides, and one without
/// header and records, which are in a file. Gives the exceptions that the second is to have.
fn lose(scratch: &Scratch) -> Vec<Run> {
    let layer = scratch.read("layer.dms");
    for name in ["invalid.dms", "wrecked.dms", "lost.dms"] {
        scratch.write(name, &layer);
    }
    scratch.poke("invalid.dms", 4, &[0]);

    // Zeros over zeros, so that the record that is lost is not missed.
    let zeros = [
        "write -q -P 0 2M 4K",
        "flush",
        "write -q -P 0 2052K 4K",
        "flush",
        "write -q -P 0 2056K 4K",
    ];
    scratch.io("wrecked.dms", &zeros).succeeds();
    let (area, used) = records(scratch, "wrecked.dms");
    let slot = |index: usize| (CHUNK + 16 * index) as u64;
    // In the middle, so that the last one has to move.
    let nowhere = [&area[16 * (used - 3)..][..8], &[0xff; 8]].concat();
    scratch.poke("wrecked.dms", slot(used - 3), &nowhere);
    scratch.poke("wrecked.dms", slot(used + 1), &[9; 16]);
    scratch.poke("wrecked.dms", 4, &[0]);
    scratch.write("recovered.dms", &scratch.read("wrecked.dms"));
    scratch
        .dmsnap("recover -q --in-place recovered.dms")
        .exits(2);
    let wanted = exceptions(scratch, "recovered.dms");
    let records: u64 = wanted.iter().map(|run| run.2).sum();
    assert_eq!(records, used as u64 - 1, "one is lost");

    let dump = scratch.dmsnap("dump --raw --output json layer.dms");
    scratch.write("meta.json", dump.succeeds().as_bytes());
    scratch.poke("lost.dms", 0, &[0; 16]);
    scratch.poke("lost.dms", slot(0), &[0xff; 100]);
    wanted
}

/// The exit code of a victim that is left alive.
fn code(victim: &Victim) -> i32 {
    // One record is left out.
    if victim.args.contains(&"--in-place") {
        2
    } else {
        0
    }
}

#[test]
fn torture_a_killed_command_leaves_nothing_half_done() {
    let ground = Ground::new();
    let measured = |victim: &Victim| {
        Moments::measured(code(victim), || {
            ground.restore();
            ground.scratch.command(victim.args)
        })
    };
    let moments: Vec<Moments> = VICTIMS.iter().map(measured).collect();
    let mut alive = [false; VICTIMS.len()];
    for case in Budget::cases(8) {
        let mut random = Random(case);
        for (index, (victim, moments)) in VICTIMS.iter().zip(&moments).enumerate() {
            alive[index] |= ground.kill(victim, moments, &mut random);
        }
        count("threads", "kills", VICTIMS.len() as u64);
    }
    for (index, (victim, moments)) in VICTIMS.iter().zip(&moments).enumerate() {
        // A machine that was busy when it measured gives moments that are too late.
        let mut random = Random(index as u64);
        let alive = alive[index] || (0..100).any(|_| ground.kill(victim, moments, &mut random));
        assert!(alive, "always done before its kill: {:?}", victim.args);
    }
}
