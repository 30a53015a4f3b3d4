//! Runs a scenario under many schedules.
#![allow(dead_code, reason = "each target uses its own part")]

#[path = "../../../common/budget.rs"]
pub(crate) mod budget;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use budget::{Budget, count};

/// Schedules tried for one seed, with each of two schedulers.
const SCHEDULES: usize = 60;

/// Tries `scenario` under schedules drawn from the seeds of a budget: each step's thread at random, and threads with priorities that
/// change a few times (which finds what needs few switches at the right places).
pub(crate) fn explore(seeds: u64, scenario: fn()) {
    for seed in Budget::cases(seeds) {
        let random = RandomScheduler::new_from_seed(seed, SCHEDULES);
        let mut tried = Runner::new(random, config()).run(scenario);
        let priorities = PctScheduler::new_from_seed(seed, 4, SCHEDULES);
        tried += Runner::new(priorities, config()).run(scenario);
        count("threads", "interleavings", tried as u64);
    }
}

/// A thread here has a small stack unless told, and a dead loop of waiting ends as a failure.
fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config
}
