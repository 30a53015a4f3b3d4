//! Where space ends: full disks, read-only file systems, block devices.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::block::{LoopDevice, SmallFileSystem, available, run};
use crate::harness::{Run, Scratch, content, finish, tool_in};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small file system of its own.
struct Mount {
    directory: PathBuf,
    _file_system: SmallFileSystem,
}

impl Mount {
    fn new() -> Mount {
        let file_system = SmallFileSystem::new(16 << 20);
        let directory = file_system.root.clone();
        Mount {
            directory,
            _file_system: file_system,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn dmsnap(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        finish(tool_in(&self.directory, &words))
    }

    /// Takes all space but some; removing the file gives it back.
    fn fill(&self, leave: u64) {
        let free = run("stat", &["-f", "-c", "%a %S", text(&self.directory)]);
        let free: u64 = free
            .split(' ')
            .map(|number| number.parse::<u64>().unwrap())
            .product();
        let mut file = fs::File::create(self.path("filler")).unwrap();
        file.write_all(&vec![1; free.saturating_sub(leave) as usize])
            .unwrap();
        file.sync_all().unwrap();
    }

    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).unwrap();
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }
}

#[test]
fn test_full_disk_loses_nothing_and_goes_on_after_space_was_added() {
    if !available() {
        return;
    }
    let mount = Mount::new();
    fs::write(mount.path("base.raw"), content(1, 8 << 20)).unwrap();
    mount
        .dmsnap("create -q -b base.raw -F raw layer.dms")
        .succeeds();
    mount.fill(1 << 20);

    let mut child = tool_in(&mount.directory, &["io", "layer.dms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    writeln!(
        input,
        "write -q -P 1 0 128k\nflush\nwrite -q -P 2 1M 4M\nlength"
    )
    .unwrap();
    assert_eq!(answers.next().as_deref(), Some("8388608"));
    // The first write is there all the same.
    writeln!(input, "read -P 1 0 128k").unwrap();
    assert_eq!(
        answers.next().as_deref(),
        Some("read 131072/131072 bytes at offset 0")
    );
    fs::remove_file(mount.path("filler")).unwrap();
    writeln!(input, "write -P 3 1M 4M\nflush\nread -P 3 1M 4M").unwrap();
    assert_eq!(
        answers.next().as_deref(),
        Some("wrote 4194304/4194304 bytes at offset 1048576")
    );
    assert_eq!(
        answers.next().as_deref(),
        Some("read 4194304/4194304 bytes at offset 1048576")
    );
    drop(input);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("layer.dms: ") && told.contains(": no space left"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(1), "{told}");

    mount.dmsnap("check -r all layer.dms").succeeds();
    let run = finish(tool_in(
        &mount.directory,
        &[
            "io",
            "-r",
            "layer.dms",
            "-c",
            "read -P 1 0 128k",
            "-c",
            "read -P 3 1M 4M",
        ],
    ));
    run.succeeds();
}

#[test]
fn test_nothing_half_made_is_left_on_a_full_disk() {
    if !available() {
        return;
    }
    let mount = Mount::new();
    let data: Vec<u8> = vec![7; 4 << 20];
    fs::write(mount.path("source.raw"), &data).unwrap();
    fs::write(mount.path("old"), b"precious").unwrap();
    mount.fill(1 << 20);
    let names = mount.names();
    for line in [
        "convert -O raw source.raw old",
        "convert -O dmsnap source.raw old",
        "convert -O raw source.raw new",
    ] {
        let run = mount.dmsnap(line);
        run.fails(1, &[line.rsplit(' ').next().unwrap(), "no space left"]);
        // Nothing was flushed that anybody could miss.
        assert!(!run.stderr.contains("flushed"), "{run:#?}");
        assert_eq!(mount.names(), names, "{line}");
        assert_eq!(fs::read(mount.path("old")).unwrap(), b"precious");
    }
    fs::remove_file(mount.path("filler")).unwrap();
    mount.dmsnap("convert -O raw source.raw old").succeeds();
    assert!(fs::read(mount.path("old")).unwrap() == data);
}

#[test]
fn test_merge_into_a_full_disk_is_taken_up_after_space_was_added() {
    if !available() {
        return;
    }
    let mount = Mount::new();
    // The origin is a hole: it grows with what is merged into it.
    fs::File::create(mount.path("base.raw"))
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let scratch = Scratch::new();
    let base = mount.path("base.raw").display().to_string();
    scratch
        .run(&["create", "-q", "-b", &base, "-F", "raw", "layer.dms"])
        .succeeds();
    scratch.io("layer.dms", &["write -q -P 5 0 6M"]).succeeds();
    mount.fill(2 << 20);
    scratch
        .dmsnap("merge -q layer.dms")
        .fails(1, &["base.raw", "no space left"]);
    scratch
        .io("layer.dms", &["read -P 5 0 6M", "read -P 0 6M 2M"])
        .succeeds();
    fs::remove_file(mount.path("filler")).unwrap();
    scratch.dmsnap("merge -q layer.dms").succeeds();
    let merged = fs::read(mount.path("base.raw")).unwrap();
    assert!(
        merged
            .iter()
            .enumerate()
            .all(|(at, &byte)| byte == if at < 6 << 20 { 5 } else { 0 })
    );
}

#[test]
fn test_read_only_file_system() {
    if !available() {
        return;
    }
    let mount = Mount::new();
    fs::write(mount.path("base.raw"), content(1, 1 << 20)).unwrap();
    mount
        .dmsnap("create -q -b base.raw -F raw layer.dms")
        .succeeds();
    run("mount", &["-o", "remount,ro", text(&mount.directory)]);
    for line in [
        "info layer.dms",
        "check layer.dms",
        "map layer.dms",
        "dump layer.dms",
        "compare layer.dms base.raw",
        "io -r layer.dms -c length",
    ] {
        mount.dmsnap(line).succeeds();
    }
    let table = "table layer.dms --origin-dev /dev/loop0 --cow-dev /dev/loop1";
    mount.dmsnap(table).succeeds();
    for line in [
        "io layer.dms -c length",
        "merge layer.dms",
        "resize layer.dms 2M",
        "amend --remove-descriptor layer.dms",
        "check -r all layer.dms",
    ] {
        mount.dmsnap(line).fails(1, &["layer.dms", "ead-only"]);
    }
    for (line, name) in [
        ("create new 1M", "new"),
        ("convert -O raw layer.dms new", "new"),
        ("create layer.dms 1M", "layer.dms"),
    ] {
        mount.dmsnap(line).fails(1, &[name, "ead-only"]);
    }
}

#[test]
fn test_block_devices_are_written_in_place() {
    if !available() {
        return;
    }
    let device = LoopDevice::new(32 << 20, 512);
    let name = text(&device.path);
    let scratch = Scratch::new();
    scratch.write("source.raw", &content(5, 4 << 20));
    // What is on the device must not shine through.
    fs::write(&device.path, vec![0xff; 16 << 20]).unwrap();
    scratch
        .dmsnap(&format!("convert -O raw source.raw {name}"))
        .succeeds();
    let found = fs::read(&device.path).unwrap();
    assert!(found[..4 << 20] == scratch.read("source.raw"));
    assert!(found[4 << 20..16 << 20].iter().all(|byte| *byte == 0xff));

    scratch
        .dmsnap(&format!(
            "convert -O dmsnap -o chunk_size=4k source.raw {name}"
        ))
        .succeeds();
    scratch
        .dmsnap(&format!("compare -s source.raw {name}"))
        .succeeds();
    scratch.dmsnap(&format!("check {name}")).succeeds();

    let base = scratch.path("source.raw");
    scratch
        .dmsnap(&format!("create -b {} -F raw {name}", base.display()))
        .succeeds();
    scratch
        .run(&[
            "io",
            name,
            "-c",
            "write -P 3 1M 64k",
            "-c",
            "flush",
            "-c",
            "read -P 3 1M 64k",
        ])
        .succeeds();
    let table = format!("table --origin-dev /dev/null --cow-dev {name} {name}");
    assert_eq!(scratch.dmsnap(&table).succeeds().lines().count(), 1);
    scratch.dmsnap(&format!("{table} --cover")).succeeds();
    scratch.dmsnap(&format!("resize {name} 64M")).succeeds();
    scratch
        .dmsnap(&format!("{table} --cover"))
        .fails(1, &[name, "33554432"]);
}

#[test]
fn test_block_device_that_is_too_small_or_in_use() {
    if !available() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 512);
    let name = text(&device.path);
    let scratch = Scratch::new();
    scratch.write("source.raw", &content(5, 4 << 20));
    fs::write(&device.path, vec![0x77; 1 << 20]).unwrap();
    scratch
        .dmsnap(&format!("convert -O raw source.raw {name}"))
        .fails(1, &[name, "1048576", "4194304"]);
    scratch
        .dmsnap(&format!("create -o chunk_size=1M {name} 4M"))
        .fails(1, &[name, "too few"]);
    assert!(fs::read(&device.path).unwrap() == vec![0x77; 1 << 20]);
    scratch
        .dmsnap(&format!("create -o chunk_size=16k {name} 4M"))
        .succeeds();
    let run = scratch.run(&[
        "io",
        name,
        "-c",
        "write -P 1 0 512k",
        "-c",
        "write -P 2 1M 1M",
        "-c",
        "read -P 1 0 512k",
    ]);
    run.fails(1, &[name, "no space left"]);
    scratch.dmsnap(&format!("check {name}")).succeeds();
    // The file below is the device's.
    let file = text(&device.file);
    scratch
        .dmsnap(&format!("io {file} -c length"))
        .fails(1, &[file, "loop device"]);
}

#[test]
fn test_table_asks_devices_for_their_blocks() {
    if !available() {
        return;
    }
    let (small, large) = (
        LoopDevice::new(1 << 20, 512),
        LoopDevice::new(1 << 20, 4096),
    );
    let scratch = Scratch::new();
    scratch.write("base.raw", &content(5, 1 << 20));
    scratch
        .dmsnap("create -q --bare -o chunk_size=2k layer.dms")
        .succeeds();
    let line = |origin: &LoopDevice, cow: &LoopDevice| {
        let (origin, cow) = (text(&origin.path), text(&cow.path));
        format!("table --cover --origin base.raw --origin-dev {origin} --cow-dev {cow} layer.dms")
    };
    let other = LoopDevice::new(1 << 20, 512);
    let run = scratch.dmsnap(&line(&small, &other));
    run.succeeds();
    assert_eq!(run.stderr, "");
    for line in [line(&small, &large), line(&large, &small)] {
        scratch
            .untouched(|| scratch.dmsnap(&line))
            .fails(1, &["layer.dms", "2048", text(&large.path), "4096"]);
    }
}
