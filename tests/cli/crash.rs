//! Killed or stopped at any moment, with nothing lost and nothing half-written.
//!
//! The moments are drawn from a seed, which is printed on failure; `DMSNAP_SEED` chooses another.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::harness::{Random, Scratch, content};

fn random() -> Random {
    let seed = std::env::var("DMSNAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261);
    eprintln!("DMSNAP_SEED={seed}");
    Random(seed)
}

fn signal(child: &Child, name: &str) {
    // The shell's own kill: not every machine has the program. The child may have ended meanwhile, which is no failure.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill {name} {}", child.id())])
        .stderr(Stdio::null())
        .status()
        .expect("sh runs");
}

/// A bare layer in chunks of 512 bytes, because a merge takes 65536 records at a time; with what it shows.
fn scattered(scratch: &Scratch, random: &mut Random) -> Vec<u8> {
    const CHUNKS: u64 = 150_000;
    let base = content(1, 512 * CHUNKS as usize);
    let mut changed = base.clone();
    for chunk in 0..CHUNKS as usize {
        if random.below(16) > 0 {
            changed[chunk * 512 + 17] ^= 0xff;
        }
    }
    scratch.write("base.raw", &base);
    scratch.write("changed.raw", &changed);
    scratch
        .dmsnap("convert -q -O dmsnap -o chunk_size=512 -B base.raw -F raw changed.raw layer.dms")
        .succeeds();
    changed
}

const MERGE: [&str; 5] = ["merge", "-q", "--origin", "base.raw", "layer.dms"];

/// What the pair of layer and base shows.
#[track_caller]
fn assert_shows(scratch: &Scratch, expected: &[u8]) {
    scratch
        .dmsnap("convert --origin base.raw -O raw layer.dms seen.raw")
        .succeeds();
    assert!(
        scratch.read("seen.raw") == expected,
        "the layer shows something else"
    );
}

fn exceptions(scratch: &Scratch) -> u64 {
    scratch.dmsnap("info --output json layer.dms").json()["format-specific"]["data"]["exceptions"]
        .as_u64()
        .unwrap()
}

#[test]
fn test_merge_killed_at_random_moments_loses_nothing() {
    let mut random = random();
    let scratch = Scratch::fast();
    let expected = scattered(&scratch, &mut random);
    let copy = |from: &str, to: &str| fs::copy(scratch.path(from), scratch.path(to)).unwrap();
    copy("base.raw", "base.copy");
    copy("layer.dms", "layer.copy");
    let (all, mut halfway) = (exceptions(&scratch), 0);
    for _ in 0..12 {
        // A line says that a batch is done. Which one, and how far behind it the kill strikes, is drawn.
        let args = ["merge", "-p", "--origin", "base.raw", "layer.dms"];
        let mut child = scratch
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.take(random.below(4) as usize).for_each(drop);
        sleep(Duration::from_micros(random.below(10_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_shows(&scratch, &expected);
        let code = scratch.dmsnap("check layer.dms").code;
        assert!([0, 3].contains(&code), "check exits with {code}");
        let left = exceptions(&scratch);
        halfway += u32::from(left > 0 && left < all);
        // Either it is taken up and killed again, or it is over and begins anew.
        if left == 0 {
            assert!(scratch.read("base.raw") == expected);
            copy("base.copy", "base.raw");
            copy("layer.copy", "layer.dms");
        }
    }
    assert!(halfway > 0, "no kill found a merge half-way");
    scratch.run(&MERGE).succeeds();
    assert!(scratch.read("base.raw") == expected);
    assert_eq!(exceptions(&scratch), 0);
    eprintln!("{halfway} of 12 kills found a merge half-way");
}

/// What a byte range may hold after a crash: what was there at the last flush, or anything written since.
struct Sectors(Vec<Vec<u8>>);

impl Sectors {
    fn new(content: &[u8]) -> Sectors {
        Sectors(content.chunks(512).map(|sector| vec![sector[0]]).collect())
    }

    fn write(&mut self, first: u64, count: u64, pattern: u8) {
        self.0[first as usize..(first + count) as usize]
            .iter_mut()
            .for_each(|values| values.push(pattern));
    }

    /// Only the newest value counts from here on. `later` are the writes that came after the flush.
    fn flush(&mut self) {
        for values in &mut self.0 {
            values.drain(..values.len() - 1);
        }
    }

    #[track_caller]
    fn check(&self, content: &[u8]) {
        for (at, (sector, values)) in content.chunks(512).zip(&self.0).enumerate() {
            let wrong = sector.iter().find(|byte| !values.contains(byte));
            assert_eq!(wrong, None, "sector {at} may hold {values:x?}");
        }
    }
}

#[test]
fn test_writes_killed_at_random_moments_lose_nothing_that_was_flushed() {
    const DISK: u64 = 4096;
    let mut random = random();
    for chunk in ["512", "4K", "16K"] {
        let scratch = Scratch::fast();
        let base: Vec<u8> = (0..DISK).flat_map(|_| [random.next() as u8; 512]).collect();
        scratch.write("base.raw", &base);
        let bare = if chunk == "512" {
            "--bare"
        } else {
            "-b base.raw -F raw"
        };
        scratch
            .dmsnap(&format!("create -q -o chunk_size={chunk} {bare} layer.dms"))
            .succeeds();
        let mut content = base;
        for _ in 0..6 {
            content = killed_while_writing(&scratch, &mut random, &content, DISK);
        }
        scratch.dmsnap("check -r all layer.dms").succeeds();
        assert_shows(&scratch, &content);
        scratch
            .dmsnap("merge -q --origin base.raw layer.dms")
            .succeeds();
        assert!(scratch.read("base.raw") == content);
    }
}

/// One process that writes and flushes until it is killed. Gives what is there afterwards.
fn killed_while_writing(
    scratch: &Scratch,
    random: &mut Random,
    content: &[u8],
    disk: u64,
) -> Vec<u8> {
    let mut sectors = Sectors::new(content);
    let script: Vec<(u64, u64, u8)> = (0..400)
        .map(|_| {
            let count = 1 + random.below(40);
            (random.below(disk - count), count, random.next() as u8)
        })
        .collect();
    let mut child = scratch
        .command(&["io", "--origin", "base.raw", "layer.dms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for (at, (first, count, pattern)) in script.iter().enumerate() {
        writeln!(
            input,
            "write -q -P {pattern} {} {}",
            first * 512,
            count * 512
        )
        .unwrap();
        if at % 7 == 6 {
            // Its answer says that the flush before it is done.
            writeln!(input, "flush\nlength").unwrap();
        }
    }
    let answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let stop_after = random.below(script.len() as u64 / 7) as usize;
    let mut answers = answers.map_while(Result::ok);
    let mut flushes = answers.by_ref().take(stop_after).count();
    sleep(Duration::from_micros(random.below(3000)));
    child.kill().unwrap();
    child.wait().unwrap();
    // Answers given before the kill came through.
    flushes += answers.count();
    drop(input);

    for (at, (first, count, pattern)) in script.iter().enumerate() {
        sectors.write(*first, *count, *pattern);
        if at % 7 == 6 && at / 7 < flushes {
            sectors.flush();
        }
    }
    let code = scratch.dmsnap("check layer.dms").code;
    assert!([0, 3].contains(&code), "check exits with {code}");
    scratch
        .dmsnap("convert --origin base.raw -O raw layer.dms seen.raw")
        .succeeds();
    let seen = scratch.read("seen.raw");
    sectors.check(&seen);
    // A sector of a write that was under way may be torn; the next round wants whole ones.
    let torn: Vec<String> = seen
        .chunks(512)
        .enumerate()
        .filter(|(_, sector)| sector.iter().any(|byte| *byte != sector[0]))
        .map(|(at, sector)| format!("write -q -P {} {} 512", sector[0], at * 512))
        .collect();
    let torn: Vec<&str> = torn.iter().map(String::as_str).collect();
    let mut args = vec!["io", "--origin", "base.raw", "layer.dms", "-c", "length"];
    torn.iter().for_each(|command| args.extend(["-c", command]));
    scratch.run(&args).succeeds();
    seen.chunks(512)
        .flat_map(|sector| [sector[0]; 512])
        .collect()
}

/// Starts the tool, waits for its first line, and sends a signal.
fn interrupted(scratch: &Scratch, args: &[&str], name: &str, delay: Duration) -> i32 {
    let mut child = scratch
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next();
    sleep(delay);
    signal(&child, name);
    lines.for_each(drop);
    child.wait().unwrap().code().unwrap_or(-1)
}

#[test]
fn test_convert_stopped_by_a_signal_leaves_nothing_behind() {
    let mut random = random();
    let scratch = Scratch::new();
    // All of it data, so that it takes a while.
    let data: Vec<u8> = (0..96 << 17)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    scratch.write("source.raw", &data);
    scratch.write("old", b"precious");
    let names: Vec<PathBuf> = scratch.contents().into_keys().collect();
    let mut stopped = 0;
    for (format, name, code) in [
        ("raw", "-INT", 130),
        ("dmsnap", "-TERM", 143),
        ("raw", "-HUP", 129),
    ]
    .repeat(4)
    {
        let args = ["convert", "-p", "-O", format, "source.raw", "old"];
        let found = interrupted(
            &scratch,
            &args,
            name,
            Duration::from_micros(random.below(20_000)),
        );
        assert_eq!(
            scratch.contents().into_keys().collect::<Vec<_>>(),
            names,
            "something was left behind"
        );
        if found == 0 {
            scratch
                .dmsnap(&format!("compare -f raw -F {format} source.raw old"))
                .succeeds();
            scratch.write("old", b"precious");
        } else {
            assert_eq!(found, code);
            assert_eq!(scratch.read("old"), b"precious");
            stopped += 1;
        }
    }
    assert!(stopped > 0, "all twelve were done before they were stopped");
}

#[test]
fn test_merge_stopped_by_a_signal_can_be_taken_up() {
    let mut random = random();
    let scratch = Scratch::fast();
    let expected = scattered(&scratch, &mut random);
    let copy = |from: &str, to: &str| fs::copy(scratch.path(from), scratch.path(to)).unwrap();
    copy("base.raw", "base.copy");
    copy("layer.dms", "layer.copy");
    let args = ["merge", "-p", "--origin", "base.raw", "layer.dms"];
    let all = exceptions(&scratch);
    let (mut stopped, mut halfway) = (0, 0);
    for _ in 0..4 {
        let code = interrupted(&scratch, &args, "-INT", Duration::ZERO);
        assert!([0, 130].contains(&code), "merge exits with {code}");
        let left = exceptions(&scratch);
        stopped += u32::from(code == 130);
        halfway += u32::from(left > 0 && left < all);
        assert_eq!(left > 0, code == 130, "{left} exceptions are left");
        assert_shows(&scratch, &expected);
        scratch.dmsnap("check layer.dms").succeeds();
        scratch.run(&args).succeeds();
        assert!(scratch.read("base.raw") == expected);
        // Each time with all there is to merge.
        copy("base.copy", "base.raw");
        copy("layer.copy", "layer.dms");
    }
    assert!(stopped > 0, "all four were done before they were stopped");
    eprintln!("{halfway} of 4 signals found a merge half-way");
}
