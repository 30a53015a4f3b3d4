//! Boots the distribution's kernel once for a list of scenarios.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::initrd::{self, Archive};
use crate::pattern;
use crate::report::Report;
use crate::scenario::{Disk, Outcome, Scenario};

const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/setup.sh");
/// Sectors of the disk `$pattern` that every scenario has, and the seed of their content.
pub(crate) const PATTERN_SECTORS: u64 = 16384;
pub(crate) const PATTERN_SEED: u16 = 0xd15c;

/// The machine is ended after this time; it only bounds a hang.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Why the kernel's verdict could not be had, with all logs that help.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Boots once and runs the scenarios in order. Their outcomes come in the same order.
///
/// Ends the test with all logs if anything went wrong: see [`try_run`].
#[track_caller]
pub(crate) fn run(scenarios: &[Scenario]) -> Vec<Outcome> {
    try_run(scenarios).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The same with the failure as a value.
///
/// # Errors
///
/// Fails if any command of any scenario failed, and if the machine could not be prepared, did not
/// boot, crashed or hung. Other scenarios have run all the same.
pub(crate) fn try_run(scenarios: &[Scenario]) -> Result<Vec<Outcome>, Failure> {
    let outcomes = run_each(scenarios)?;
    let failures = outcomes
        .iter()
        .filter_map(|outcome| outcome.failure.clone());
    let failures: Vec<String> = failures.collect();
    if failures.is_empty() {
        return Ok(outcomes);
    }
    Err(Failure(failures.join("\n")))
}

/// The same, and a scenario that failed has that in its outcome.
///
/// # Errors
///
/// Fails if the machine could not be prepared, did not boot, crashed or hung.
pub(crate) fn run_each(scenarios: &[Scenario]) -> Result<Vec<Outcome>, Failure> {
    let kernel = prepared()?;
    let work = tempfile::tempdir().map_err(|error| failure("temporary directory", &error))?;
    let boot = Boot {
        kernel,
        work: work.path(),
    };
    let status = boot.run(scenarios);
    let report = Report::parse(&boot.log("results"), scenarios);
    match status {
        Ok(status) if status.success() && report.complete && report.failures.is_empty() => {
            Ok(report.outcomes)
        }
        status => Err(boot.failure(&status, &report)),
    }
}

/// Where `setup.sh` put kernel, initrd and emulator; runs it the first time.
fn prepared() -> Result<&'static Path, Failure> {
    static PREPARED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let prepared = PREPARED.get_or_init(|| {
        let directory = std::env::var_os("DMSNAP_KERNEL_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernel"),
            PathBuf::from,
        );
        let output = Command::new("bash")
            .arg(SETUP)
            .env("DMSNAP_KERNEL_DIR", &directory)
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(directory),
            Ok(output) => Err(format!(
                "the kernel tests need a kernel and an emulator: run tests/kernel/setup.sh, which \
                 failed just now ({}):\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => Err(format!("cannot run {SETUP}: {error}")),
        }
    });
    prepared
        .as_deref()
        .map_err(|problem| Failure(problem.clone()))
}

fn failure(what: &str, error: &dyn fmt::Display) -> Failure {
    Failure(format!("{what}: {error}"))
}

/// One boot: the files it needs and leaves.
struct Boot<'a> {
    kernel: &'a Path,
    work: &'a Path,
}

impl Boot<'_> {
    fn run(&self, scenarios: &[Scenario]) -> Result<ExitStatus, Failure> {
        let pattern_file = self.work.join("pattern");
        fs::write(
            &pattern_file,
            pattern::sectors(PATTERN_SEED, 0, PATTERN_SECTORS),
        )
        .map_err(|error| failure("pattern disk", &error))?;
        let mut disks = vec![Disk::new("pattern", &pattern_file).read_only()];
        let initrd = self.initrd(scenarios, &mut disks)?;
        fs::write(self.work.join("initrd"), initrd).map_err(|error| failure("initrd", &error))?;
        let output = File::create(self.work.join("emulator"))
            .map_err(|error| failure("emulator log", &error))?;
        let errors = output
            .try_clone()
            .map_err(|error| failure("emulator log", &error))?;
        let child = Command::new(self.kernel.join("qemu"))
            .args(self.arguments(&disks))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| failure("cannot start the emulator", &error))?;
        wait(child)
    }

    /// The prepared initrd and what this boot adds. Puts the scenarios' disks behind `disks`: a
    /// disk's position there gives its address.
    fn initrd(&self, scenarios: &[Scenario], disks: &mut Vec<Disk>) -> Result<Vec<u8>, Failure> {
        let mut archive = Archive::new();
        archive.file("init", include_bytes!("guest/init"));
        archive.directory("guest");
        archive.file("guest/lib.sh", include_bytes!("guest/lib.sh"));
        archive.file("guest/run", include_bytes!("guest/run"));
        archive.directory("scenarios");
        for (number, scenario) in scenarios.iter().enumerate() {
            let mut list = String::from("pattern 0:0\n");
            for disk in &scenario.disks {
                let (target, lun) = address(disks.len());
                list.push_str(&format!("{} {target}:{lun}\n", disk.name));
                disks.push(disk.clone());
            }
            let directory = format!("scenarios/{number:04}");
            archive.directory(&directory);
            archive.file(&format!("{directory}/disks"), list.as_bytes());
            archive.file(&format!("{directory}/script"), scenario.script.as_bytes());
            for (name, bytes) in &scenario.files {
                archive.file(&format!("{directory}/{name}"), bytes);
            }
            let limit = scenario.limit_seconds.to_string();
            archive.file(&format!("{directory}/limit"), limit.as_bytes());
        }
        let mut bytes = fs::read(self.kernel.join("initrd"))
            .map_err(|error| failure("prepared initrd", &error))?;
        initrd::pad(&mut bytes);
        bytes.extend_from_slice(&archive.finish());
        Ok(bytes)
    }

    fn arguments(&self, disks: &[Disk]) -> Vec<OsString> {
        // Never KVM: the verdict must be the same where there is none, or one that hangs.
        let mut arguments: Vec<OsString> = "-accel tcg -nodefaults -display none -no-reboot -m 384"
            .split(' ')
            .map(OsString::from)
            .collect();
        let mut option = |name: &str, value: &str, path: &Path| {
            arguments.push(name.into());
            let mut argument = OsString::from(value);
            argument.push(escaped(path));
            arguments.push(argument);
        };
        option("-kernel", "", &self.kernel.join("vmlinux"));
        option("-initrd", "", &self.work.join("initrd"));
        // On a busy machine the emulated timer may seem to stand still, and that check is a panic.
        option(
            "-append",
            "console=ttyS0 quiet panic=-1 oops=panic no_timer_check rcupdate.rcu_expedited=1",
            Path::new(""),
        );
        option("-serial", "file:", &self.work.join("console"));
        option("-serial", "file:", &self.work.join("results"));
        option("-device", "virtio-scsi-pci,id=scsi", Path::new(""));
        for (number, disk) in disks.iter().enumerate() {
            let (target, lun) = address(number);
            let read_only = if disk.read_only { "on" } else { "off" };
            let block = disk.block_size;
            option(
                "-drive",
                &format!(
                    "id=d{number},if=none,format=raw,cache=unsafe,discard=unmap,readonly={read_only},file="
                ),
                &disk.path,
            );
            option(
                "-device",
                &format!(
                    "scsi-hd,bus=scsi.0,scsi-id={target},lun={lun},drive=d{number},discard_granularity={block},\
                     logical_block_size={block},physical_block_size={block}"
                ),
                Path::new(""),
            );
        }
        arguments
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.work.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn failure(&self, status: &Result<ExitStatus, Failure>, report: &Report) -> Failure {
        let ended = match status {
            Ok(status) => format!("emulator: {status}"),
            Err(failure) => failure.to_string(),
        };
        let came = if report.complete {
            "all scenarios ran"
        } else {
            "not all scenarios ran"
        };
        let ran = report.outcomes.iter();
        let failed = ran.filter_map(|outcome| outcome.failure.as_ref());
        let failures: Vec<&String> = failed.chain(&report.failures).collect();
        let failures: Vec<&str> = failures.into_iter().map(String::as_str).collect();
        Failure(format!(
            "the kernel gave no good verdict ({ended}; {came})\n{}\n-- emulator:\n{}\n-- console:\n{}",
            failures.join("\n"),
            self.log("emulator"),
            self.log("console")
        ))
    }
}

/// Target and LUN of a disk. One target can have 256 LUNs.
fn address(number: usize) -> (usize, usize) {
    (number / 200, number % 200)
}

/// A comma ends a value in the emulator's options unless it is doubled.
fn escaped(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => text.replace(',', ",,").into(),
        None => path.into(),
    }
}

fn wait(mut child: Child) -> Result<ExitStatus, Failure> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if started.elapsed() < TIMEOUT => thread::sleep(Duration::from_millis(20)),
            waited => {
                // Both fail only if it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(match waited {
                    Err(error) => failure("waiting for the emulator", &error),
                    Ok(_) => Failure(format!("the machine hung: ended after {TIMEOUT:?}")),
                });
            }
        }
    }
}
