//! Another program that has a file open: qemu-io.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A qemu-io that has an image open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Holder(Child);

impl Holder {
    /// One that is started with these arguments.
    pub(crate) fn with(args: &[&str]) -> Holder {
        let mut child = Command::new("qemu-io")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io (Debian: qemu-utils) is needed");
        // An answer to a command shows that the image is open.
        let input = child.stdin.as_mut().expect("a pipe");
        input.write_all(b"length\n").expect("qemu-io listens");
        let mut output = BufReader::new(child.stdout.as_mut().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("iB") {
            line.clear();
            assert!(
                output.read_line(&mut line).expect("text") > 0,
                "qemu-io did not open the image"
            );
        }
        Holder(child)
    }

    /// One that lets nobody else write to the file or resize it. With a raw image as such qemu-io lets others do anything.
    pub(crate) fn of(path: &Path) -> Holder {
        let image = format!(
            "driver=blkdebug,image.driver=file,image.filename={},take-child-perms.0=consistent-read,\
             take-child-perms.1=write,unshare-child-perms.0=write,unshare-child-perms.1=resize",
            path.display()
        );
        Holder::with(&["--image-opts", &image])
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
