//! Loop devices and file systems on them, gone when dropped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

/// Whether loop devices can be had here. Without them a test ends with a message, but fails where `CI` is `true`.
pub(crate) fn available() -> bool {
    let own =
        fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    let reason = match own {
        Ok(0) if Path::new("/dev/loop-control").exists() => return true,
        Ok(0) => "there is no /dev/loop-control",
        _ => "loop devices need root",
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
    // Not through println!, of which the test harness shows nothing when a test passes.
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
    false
}

/// Held while a process is started. A child that has yet to execute its program holds copies of all our descriptors, so a test that
/// closes one and looks at the effect at once holds this too.
pub(crate) fn no_child_starts() -> MutexGuard<'static, ()> {
    static STARTING: Mutex<()> = Mutex::new(());
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &mut Command) -> std::io::Result<Output> {
    let _guard = no_child_starts();
    command.output()
}

/// Runs a command and returns its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = start(Command::new(program).args(arguments));
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A loop device over a sparse file of its own.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    pub(crate) file: PathBuf,
    _directory: TempDir,
}

impl LoopDevice {
    pub(crate) fn new(size: u64, logical_block: u32) -> LoopDevice {
        let directory = scratch();
        let file = directory.path().join("device");
        File::create_new(&file).unwrap().set_len(size).unwrap();
        let block = logical_block.to_string();
        let arguments = [
            "--find",
            "--show",
            "--sector-size",
            &block,
            file.to_str().unwrap(),
        ];
        let path = run("losetup", &arguments).into();
        LoopDevice {
            path,
            file,
            _directory: directory,
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = start(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}

/// A small ext4 file system, mounted.
pub(crate) struct SmallFileSystem {
    pub(crate) root: PathBuf,
    mount_point: TempDir,
    _device: LoopDevice,
}

impl SmallFileSystem {
    pub(crate) fn new(size: u64) -> SmallFileSystem {
        SmallFileSystem::mount(size, "^has_journal", "rw")
    }

    /// One that journals data too, and so does no direct I/O.
    pub(crate) fn without_direct_io() -> SmallFileSystem {
        SmallFileSystem::mount(16 << 20, "has_journal", "data=journal")
    }

    fn mount(size: u64, feature: &str, option: &str) -> SmallFileSystem {
        let device = LoopDevice::new(size, 512);
        let mount_point = scratch();
        let (node, root) = (
            device.path.to_str().unwrap(),
            mount_point.path().to_str().unwrap(),
        );
        run(
            "mkfs.ext4",
            &["-q", "-b", "1024", "-m", "0", "-O", feature, node],
        );
        run("mount", &["-t", "ext4", "-o", option, node, root]);
        SmallFileSystem {
            root: root.into(),
            mount_point,
            _device: device,
        }
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = start(Command::new("umount").arg(self.mount_point.path()));
    }
}
