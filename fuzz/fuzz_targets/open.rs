//! Any bytes as a COW file over a small origin: checked, inspected, read; then written, if that is possible.
#![no_main]

use dmsnap::storage::MemoryStorage;
use dmsnap_fuzz::confine::confined;
use dmsnap_fuzz::examine::examine;
use dmsnap_fuzz::session::{Op, Options, Session};
use dmsnap_fuzz::watch::Watched;
use libfuzzer_sys::fuzz_target;

/// Bytes of the heap that any file may take, and as many more for each byte of it.
const BASE: usize = 24 << 20;
const FACTOR: usize = 64;

const OPS: [Op; 9] = [
    Op::Write { at: 700, len: 5000 },
    Op::Read { at: 0, len: 9000 },
    Op::Flush,
    Op::Zero {
        at: 3000,
        len: 1500,
        unmap: true,
    },
    Op::Discard { at: 0, len: 60000 },
    Op::Abandon,
    Op::Write {
        at: 20000,
        len: 600,
    },
    Op::Merge { steps: 2, at: 100 },
    Op::Repair { all: true },
];

fuzz_target!(|data: &[u8]| {
    confined(BASE + FACTOR * data.len(), || {
        let origin = Watched::new(MemoryStorage::from_bytes(&[0x6f; 32 << 10]));
        let cow = Watched::new(MemoryStorage::from_bytes(data));
        let options = Options::default();
        let before = examine(&cow, &origin, options);
        let Some(mut session) = Session::open(cow, origin, options, false) else {
            return;
        };
        session.expect(before);
        session.run(&OPS);
    });
});
