//! How long a test that looks for defects at random goes on, where its seeds come from, and what it tells of what it tried.
//!
//! In `make test` each such test tries a number of cases of its own. `make torture` sets `DMSNAP_TORTURE` to the seconds that each
//! may take instead. Both print the seed; `DMSNAP_SEED` repeats it: the first case has that very seed.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seeds of cases, for as long as a test may go on.
pub(crate) struct Budget {
    next: u64,
    begun: bool,
    /// Unless seconds are given.
    left: u64,
    until: Option<Instant>,
    /// Whether the last case that was drawn is the one that fails.
    one_at_a_time: bool,
}

impl Budget {
    /// For as many cases, unless seconds are given.
    pub(crate) fn cases(cases: u64) -> Budget {
        let seconds = number("DMSNAP_TORTURE");
        Budget {
            next: seed(),
            begun: false,
            left: cases,
            until: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            one_at_a_time: true,
        }
    }

    /// The same, for several threads that draw from it: which of their cases failed they have to say themselves.
    #[allow(dead_code, reason = "most tests have one thread that draws")]
    pub(crate) fn shared(cases: u64) -> Mutex<Budget> {
        let mut budget = Budget::cases(cases);
        budget.one_at_a_time = false;
        Mutex::new(budget)
    }
}

/// At least one case, also if the time is over before it has begun.
impl Iterator for Budget {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let more = match self.until {
            Some(until) => !self.begun || Instant::now() < until,
            None => self.left > 0,
        };
        self.begun = true;
        self.left = self.left.saturating_sub(1);
        let case = self.next;
        self.next = self.next.wrapping_add(1);
        more.then_some(case)
    }
}

/// Where one case follows another, the one that fails says how it is repeated.
impl Drop for Budget {
    fn drop(&mut self) {
        if self.begun && self.one_at_a_time && std::thread::panicking() {
            let case = self.next.wrapping_sub(1);
            eprintln!("DMSNAP_SEED={case} repeats the case that failed");
        }
    }
}

/// Whether this is a long run by `make torture`.
pub(crate) fn is_torture() -> bool {
    number("DMSNAP_TORTURE").is_some()
}

/// The seed of the first case: `DMSNAP_SEED`, or one from the clock.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| {
        number("DMSNAP_SEED").unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("a clock").as_secs() << 16
        })
    });
    println!("DMSNAP_SEED={seed}");
    seed
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is a number, not '{text}'")))
}

/// Adds to what `make torture` prints for a part: `count("crash", "states", 12)`.
///
/// Counters are words separated by `-`. Where no run collects them, nothing happens.
pub(crate) fn count(part: &str, counter: &str, number: u64) {
    let Some(path) = std::env::var_os("DMSNAP_COUNTS") else {
        return;
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write, so that lines of processes that run at once do not mix.
    let line = format!("{part} {counter} {number}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the file of counts takes a line");
}

/// Numbers that follow from a seed: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Less than `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
