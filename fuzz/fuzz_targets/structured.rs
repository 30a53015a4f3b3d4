//! Stores that are nearly valid, and operations on them.
#![no_main]

use arbitrary::Arbitrary;
use dmsnap_fuzz::builder::{Built, RawOrigin};
use dmsnap_fuzz::confine::confined;
use dmsnap_fuzz::examine::examine;
use dmsnap_fuzz::session::{Op, Options, Session};
use dmsnap_fuzz::watch::Watched;
use libfuzzer_sys::fuzz_target;

/// Bytes of the heap that a store of up to 400 records may take, however long the file says it is.
const LIMIT: usize = 64 << 20;

#[derive(Arbitrary, Debug)]
struct Input {
    store: Built,
    origin: RawOrigin,
    options: Options,
    ops: Vec<Op>,
}

fuzz_target!(|input: Input| {
    confined(LIMIT, || {
        let cow = Watched::new(input.store.storage());
        let origin = Watched::new(input.origin.storage());
        let before = examine(&cow, &origin, input.options);
        if input.store.is_large() {
            return;
        }
        let Some(mut session) = Session::open(cow, origin, input.options, false) else {
            return;
        };
        session.expect(before);
        session.run(&input.ops[..input.ops.len().min(24)]);
    });
});
