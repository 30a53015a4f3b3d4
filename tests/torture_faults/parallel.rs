//! Work on all cores.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls `work` with each of `jobs`, from as many threads as there are cores. The first panic ends it.
pub(crate) fn for_each<T: Sync>(jobs: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let panicked = Mutex::new(None);
    let take = || jobs.get(next.fetch_add(1, Ordering::Relaxed));
    let run = || {
        while let Some(job) = take() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(job))) {
                next.store(jobs.len(), Ordering::Relaxed);
                panicked.lock().unwrap().get_or_insert(panic);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(run))));
    if let Some(panic) = panicked.into_inner().unwrap() {
        resume_unwind(panic);
    }
}
