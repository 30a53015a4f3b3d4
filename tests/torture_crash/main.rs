//! Power may fail at any moment: the image opens as it is, all that was flushed is there, and nothing is there that was never written.
//!
//! Each workload runs from a seed while every change of the files is recorded. Then states are rebuilt that a power cut could have left
//! after any change, with any of the unflushed changes lost, overtaken or torn at sectors. Each is opened without repair and compared
//! with what may be there; a share is written on, merged and opened again, and a share is read by the kernel.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

#[path = "../common/budget.rs"]
mod budget;
mod by_kernel;
mod disk;
mod examine;
mod files;
#[path = "../kernel/guest.rs"]
mod guest;
mod history;
#[path = "../image_common/mod.rs"]
mod image_common;
#[path = "../kernel/initrd.rs"]
mod initrd;
mod layers;
#[path = "../common/pattern.rs"]
mod pattern;
mod play;
#[path = "../kernel/report.rs"]
mod report;
#[path = "../kernel/scenario.rs"]
#[allow(dead_code, reason = "the kernel's own tests use the rest")]
mod scenario;
#[path = "../kernel/verdict.rs"]
mod verdict;
#[path = "../kernel/vm.rs"]
#[allow(dead_code, reason = "the kernel's own tests use the rest")]
mod vm;

use examine::torture;

/// Distinct states of each workload in `make test`.
const DISTINCT: u64 = 3500;

macro_rules! workloads {
    ($($test:ident: $module:ident::$workload:ident,)*) => {
        $(
            #[test]
            fn $test() {
                torture(stringify!($workload), DISTINCT, |name, tally| {
                    $module::$workload(name).examine(tally);
                });
            }
        )*
    };
}

workloads! {
    torture_random_writes: disk::random_writes,
    torture_partial_chunks: disk::partial_chunks,
    torture_area_roll_over: disk::area_roll_over,
    torture_several_areas_at_once: disk::several_areas,
    torture_many_exceptions_per_flush: disk::many_exceptions,
    torture_discards: disk::discards,
    torture_write_zeroes: disk::write_zeroes,
    torture_resize: disk::resize,
    torture_descriptor: disk::descriptor,
    torture_make_empty: disk::make_empty,
    torture_fixed_size: disk::fixed_size,
    torture_merge: layers::merge,
    torture_snapshot: layers::snapshot,
    torture_chain: layers::chain,
    torture_anything: layers::anything,
    torture_two_threads: layers::two_threads,
    torture_check_and_repair: files::check_and_repair,
}

#[test]
fn torture_create() {
    torture("create_image", 500, files::create_image);
}
