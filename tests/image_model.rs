//! Random operations on a chain of layers, compared with plain bytes after each of them.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;
#[path = "image_common/world.rs"]
mod world;

use image_common::cases;
use proptest::prelude::*;
use world::*;

fn run(shape: &Shape, ops: &[Op]) {
    let mut world = World::new(shape);
    for op in ops {
        world.apply(op);
    }
    world.verify();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_chain_in_memory_matches_the_model(
        shape in any_shape(false),
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        run(&shape, &ops);
    }

    #[test]
    fn test_chain_in_files_matches_the_model(
        shape in any_shape(true),
        ops in prop::collection::vec(any_op(), 1..30),
    ) {
        run(&shape, &ops);
    }

    #[test]
    fn test_chain_in_files_past_the_page_cache_matches_the_model(
        shape in any_shape(true),
        ops in prop::collection::vec(any_op(), 1..20),
    ) {
        run(&Shape { direct: true, ..shape }, &ops);
    }
}
