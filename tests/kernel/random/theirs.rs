//! The kernel's side: a snapshot `s` of origin `o` on COW device `c`, and `w`, through which the origin is written.

use std::ops::Range;

use super::shape::Shape;
use crate::guest::{COPY_SECTORS, Guest};

const SECTOR: u64 = 512;
/// What is written and read goes through here.
const SCRATCH_SECTORS: u64 = 1 << 16;

/// Whether a command has to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Works,
    Fails,
}

pub(super) struct Theirs<'a> {
    guest: &'a mut Guest,
    shape: Shape,
    /// Where on the shared disk they are.
    origin: u64,
    cow: u64,
    scratch: u64,
    used: u64,
    queue: Vec<(String, Expected)>,
}

impl<'a> Theirs<'a> {
    pub(super) fn new(guest: &'a mut Guest, shape: Shape, origin: &[u8], cow: &[u8]) -> Self {
        guest.clear();
        let mut theirs = Self {
            origin: guest.place(origin),
            cow: guest.place(cow),
            scratch: guest.reserve(SCRATCH_SECTORS),
            guest,
            shape,
            used: 0,
            queue: Vec::new(),
        };
        let (origin, cow) = (theirs.origin, theirs.cow);
        theirs.does(format!("create o 0 {} linear @disk {origin}", shape.origin));
        theirs.does(format!("create c 0 {} linear @disk {cow}", shape.cow));
        theirs.run();
        theirs
    }

    /// The end of its devices; a sequence that failed leaves them to the machine's end.
    pub(super) fn finish(mut self) {
        self.does("remove c".into());
        self.does("remove o".into());
        self.run();
    }

    /// Attaches the store in mode `P` or `PO`.
    pub(super) fn load(&mut self, mode: &str) {
        let Shape { origin, chunk, .. } = self.shape;
        self.does(format!(
            "create s 0 {origin} snapshot @o @c {mode} {chunk} 1 discard_zeroes_cow"
        ));
        // Behind the snapshot, because it learns the chunk size when it is resumed.
        self.does(format!("create w 0 {origin} snapshot-origin @o"));
    }

    pub(super) fn unload(&mut self) {
        self.does("remove w".into());
        self.does("remove s".into());
        self.run();
    }

    /// Has a command run that has to work, at the next [`Theirs::run`].
    pub(super) fn does(&mut self, command: String) {
        self.queue.push((command, Expected::Works));
    }

    /// Writes whole sectors at `sector` of a device.
    pub(super) fn write(&mut self, device: &str, sector: u64, bytes: &[u8], expected: Expected) {
        let (count, from) = (bytes.len() as u64 / SECTOR, self.scratch + self.used);
        self.used += count;
        assert!(self.used <= SCRATCH_SECTORS, "more than there is room for");
        self.guest.put(from, bytes);
        let command = format!("copy disk {from} {count} {device} {sector}");
        self.queue.push((command, expected));
    }

    pub(super) fn discard(&mut self, sectors: &Range<u64>) {
        let (at, count) = (sectors.start, sectors.end - sectors.start);
        self.does(format!("discard s {at} {count}"));
    }

    /// Runs what is queued; returns what the last command said.
    #[track_caller]
    pub(super) fn run(&mut self) -> String {
        let queue = std::mem::take(&mut self.queue);
        self.used = 0;
        let (commands, expected): (Vec<String>, Vec<Expected>) = queue.into_iter().unzip();
        let answers = self.guest.ask(&commands);
        for ((command, expected), answer) in commands.iter().zip(&expected).zip(&answers) {
            let works = answer.is_ok() == (*expected == Expected::Works);
            assert!(works, "the kernel: {command}: {answer:?}, not {expected:?}");
        }
        answers
            .into_iter()
            .next_back()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn status(&mut self, device: &str) -> String {
        self.does(format!("status {device}"));
        self.run()
    }

    /// All that a device shows.
    #[track_caller]
    pub(super) fn view(&mut self, device: &str) -> Vec<u8> {
        self.run();
        let size = self.shape.origin;
        for at in (0..size).step_by(COPY_SECTORS as usize) {
            let (count, to) = (COPY_SECTORS.min(size - at), self.scratch + at);
            self.does(format!("copy {device} {at} {count} disk {to}"));
        }
        self.run();
        self.guest.get(self.scratch, size)
    }

    pub(super) fn origin(&self) -> Vec<u8> {
        self.guest.get(self.origin, self.shape.origin)
    }

    pub(super) fn cow(&self) -> Vec<u8> {
        self.guest.get(self.cow, self.shape.cow)
    }

    /// Takes over other content; nothing is attached.
    pub(super) fn take(&mut self, origin: &[u8], cow: &[u8]) {
        self.guest.put(self.origin, origin);
        self.guest.put(self.cow, cow);
    }

    /// Begins a merge, device `m`, into an origin that cannot be written at sector `bad`.
    pub(super) fn merge(&mut self, bad: Option<u64>) -> String {
        let Shape { origin, chunk, .. } = self.shape;
        let below = match bad {
            Some(sector) => {
                self.does(format!("create weak {}", with_bad_sector(origin, sector)));
                "weak"
            }
            None => "o",
        };
        self.does(format!(
            "create m 0 {origin} snapshot-merge @{below} @c PO {chunk}"
        ));
        self.does("wait m".into());
        self.run()
    }

    pub(super) fn leave_merge(&mut self, bad: Option<u64>) {
        self.does("remove m".into());
        if bad.is_some() {
            self.does("remove weak".into());
        }
        self.run();
    }
}

/// A table: all of `o` but one sector.
fn with_bad_sector(size: u64, bad: u64) -> String {
    let part = |from: u64, to: u64| format!("{from} {} linear @o {from}", to - from);
    let mut parts = vec![format!("{bad} 1 error")];
    if bad > 0 {
        parts.insert(0, part(0, bad));
    }
    if bad + 1 < size {
        parts.push(part(bad + 1, size));
    }
    parts.join(" ; ")
}
