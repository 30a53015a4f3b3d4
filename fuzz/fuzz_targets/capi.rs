//! The C ABI in random but legal orders: the blocking half over callbacks, and the half without I/O.
#![no_main]

use arbitrary::Arbitrary;
use dmsnap_fuzz::c::{image, store};
use dmsnap_fuzz::confine::confined;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 << 20;

#[derive(Arbitrary, Debug)]
enum Input {
    Image(image::Scene),
    Store(store::Scene),
}

fuzz_target!(|input: Input| {
    confined(LIMIT, || match &input {
        Input::Image(scene) => image::run(scene),
        Input::Store(scene) => store::run(scene),
    });
});
