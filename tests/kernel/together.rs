//! Test cases that run side by side and share boots.
//!
//! A boot takes seconds, a scenario a fraction of one. Each case is plain code in a thread of its
//! own; when all that are left wait for the kernel, it is booted once for all of them.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::scenario::{Outcome, Scenario};
use crate::vm;

/// A boot takes as long as some ten scenarios.
const MANY: usize = 30;

/// A test case by name.
pub(crate) struct Case {
    name: String,
    run: Box<dyn FnOnce(&Desk<'_>) + Send>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        run: impl FnOnce(&Desk<'_>) + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// What a case works with.
pub(crate) struct Desk<'a> {
    /// Name of the case.
    pub(crate) name: &'a str,
    /// An empty directory.
    pub(crate) directory: &'a Path,
    number: usize,
    queue: &'a Queue,
}

impl Desk<'_> {
    /// Has the kernel run a scenario; ends the case if a command in it failed.
    #[track_caller]
    pub(crate) fn kernel(&self, scenario: Scenario) -> Outcome {
        let outcome = self.queue.run(self.number, scenario);
        match outcome.failure {
            Some(failure) => panic!("{failure}"),
            None => outcome,
        }
    }
}

/// Runs all cases, or those whose name contains `DMSNAP_CASE`. Ends the test if any failed, with
/// all their names; what each had to say stands above.
#[track_caller]
pub(crate) fn run(mut cases: Vec<Case>) {
    if let Ok(wanted) = std::env::var("DMSNAP_CASE") {
        cases.retain(|case| case.name.contains(&wanted));
    }
    let queue = Queue::new(cases.len());
    let directory = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, case) in cases.into_iter().enumerate() {
            let place = directory.path().join(number.to_string());
            let queue = &queue;
            let name = case.name.clone();
            let thread = thread::Builder::new().name(name.clone());
            let thread = thread.spawn_scoped(scope, move || queue.work(number, case, &place));
            threads.push((name, thread.unwrap()));
        }
        for (name, thread) in threads {
            if thread.join().is_err() {
                failed.push(name);
            }
        }
    });
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// Who works and who waits for the kernel.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    working: usize,
    waiting: BTreeMap<usize, Scenario>,
    outcomes: BTreeMap<usize, Outcome>,
}

impl Queue {
    fn new(cases: usize) -> Self {
        Self {
            state: Mutex::new(State {
                working: cases,
                waiting: BTreeMap::new(),
                outcomes: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn work(&self, number: usize, case: Case, directory: &Path) {
        let Case { name, run } = case;
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            std::fs::create_dir(directory).unwrap();
            run(&Desk {
                name: &name,
                directory,
                number,
                queue: self,
            });
        }));
        let mut state = self.state.lock().unwrap();
        state.working -= 1;
        // Nobody else may be left to boot for those who wait.
        self.boot_if_all_wait(&mut state);
        drop(state);
        if let Err(panic) = result {
            panic::resume_unwind(panic);
        }
    }

    fn run(&self, number: usize, scenario: Scenario) -> Outcome {
        let mut state = self.state.lock().unwrap();
        state.waiting.insert(number, scenario);
        state.working -= 1;
        self.boot_if_all_wait(&mut state);
        loop {
            if let Some(outcome) = state.outcomes.remove(&number) {
                return outcome;
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Holding the lock meanwhile does no harm: there is nobody who could do anything.
    fn boot_if_all_wait(&self, state: &mut State) {
        if state.working > 0 || state.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        let (numbers, scenarios): (Vec<usize>, Vec<Scenario>) = waiting.into_iter().unzip();
        let outcomes = boot(&scenarios);
        state.working += numbers.len();
        state.outcomes.extend(numbers.into_iter().zip(outcomes));
        self.changed.notify_all();
    }
}

/// Runs the scenarios, in two machines if there are many.
fn boot(scenarios: &[Scenario]) -> Vec<Outcome> {
    if scenarios.len() <= MANY {
        return boot_one(scenarios);
    }
    let (first, second) = scenarios.split_at(scenarios.len() / 2);
    thread::scope(|scope| {
        let second = scope.spawn(|| boot_one(second));
        let mut outcomes = boot_one(first);
        outcomes.extend(second.join().unwrap());
        outcomes
    })
}

fn boot_one(scenarios: &[Scenario]) -> Vec<Outcome> {
    vm::run_each(scenarios).unwrap_or_else(|failure| {
        let failed = |scenario: &Scenario| Outcome {
            name: scenario.name.clone(),
            failure: Some(failure.to_string()),
            ..Outcome::default()
        };
        scenarios.iter().map(failed).collect()
    })
}
