//! Rows of the table: what is measured, side by side, and what it should come to.

use std::time::Duration;

/// How the figures of a row are printed.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Microseconds for each of so many operations.
    PerOperation(u64),
    /// MiB/s of so many bytes.
    Rate(u64),
    /// Milliseconds of the whole.
    Whole,
}

impl Unit {
    fn text(self, time: f64) -> String {
        match self {
            Unit::PerOperation(count) => format!("{:.2} us", time * 1e6 / count as f64),
            Unit::Rate(bytes) => format!("{:.0} MiB/s", bytes as f64 / time / f64::from(1 << 20)),
            Unit::Whole => format!("{:.0} ms", time * 1e3),
        }
    }
}

/// What a ratio should be.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Ours takes no longer than this, whatever the ratio.
    Within(Duration),
    /// Only told.
    None,
}

impl Aim {
    fn text(self) -> String {
        match self {
            Aim::AtLeast(aim) => format!(">= {aim:.2}"),
            Aim::AtMost(aim) => format!("<= {aim:.2}"),
            Aim::Within(aim) => format!("<={:.1} s", aim.as_secs_f64()),
            Aim::None => String::new(),
        }
    }

    /// `time` is ours, in seconds.
    fn is_missed(self, ratio: f64, time: f64) -> bool {
        match self {
            Aim::AtLeast(aim) => ratio < aim,
            Aim::AtMost(aim) => ratio > aim,
            Aim::Within(aim) => time > aim.as_secs_f64(),
            Aim::None => false,
        }
    }
}

/// How often both sides are measured.
#[derive(Clone, Copy)]
pub(crate) struct Turns {
    pub(crate) rounds: usize,
    pub(crate) slices: usize,
}

impl Turns {
    /// Rounds of one slice each.
    pub(crate) fn rounds(rounds: usize) -> Turns {
        Turns { rounds, slices: 1 }
    }
}

struct Row {
    name: String,
    aim: Aim,
    /// Median, lower and upper quartile.
    ratio: (f64, f64, f64),
    raw: String,
    ours: String,
    missed: bool,
}

/// The table. Rows are printed as they are done.
pub(crate) struct Table {
    filters: Vec<String>,
    heading: String,
    misses: Vec<String>,
    rows: usize,
}

impl Table {
    /// Of rows whose name contains one of `filters`, or all if there are none.
    pub(crate) fn new(filters: Vec<String>) -> Table {
        Table {
            filters,
            heading: String::new(),
            misses: Vec::new(),
            rows: 0,
        }
    }

    /// Begins a section. Returns whether it has rows that are wanted, so that its files are only made if so.
    pub(crate) fn section(&mut self, heading: &str, names: &[&str]) -> bool {
        let wanted = self.wants_any(names);
        if wanted {
            self.heading = heading.to_owned();
        }
        wanted
    }

    pub(crate) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| name.contains(filter.as_str()))
    }

    /// Measures `raw` and `ours` by turns and prints how fast ours is against raw: the median of the rounds' ratios with its quartiles.
    ///
    /// A round consists of slices, which alternate too, and a side's time is the median of its slices: where a slice is short, what else
    /// the machine does then falls into few of them. Each closure is given the slice's number, counted over all rounds, and
    /// returns the time that counts.
    pub(crate) fn compare(
        &mut self,
        name: &str,
        aim: Aim,
        unit: Unit,
        turns: Turns,
        mut raw: impl FnMut(usize) -> Duration,
        mut ours: impl FnMut(usize) -> Duration,
    ) {
        if !self.wants(name) {
            return;
        }
        let (mut raws, mut all_ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..turns.rounds {
            let (mut raw_slices, mut our_slices) = (Vec::new(), Vec::new());
            for slice in (0..turns.slices).map(|slice| round * turns.slices + slice) {
                // Whoever comes second may find caches warmer or the disk busier.
                if slice % 2 == 0 {
                    raw_slices.push(raw(slice).as_secs_f64());
                    our_slices.push(ours(slice).as_secs_f64());
                } else {
                    our_slices.push(ours(slice).as_secs_f64());
                    raw_slices.push(raw(slice).as_secs_f64());
                }
            }
            let (raw, ours) = (quartiles(&mut raw_slices).0, quartiles(&mut our_slices).0);
            raws.push(raw);
            all_ours.push(ours);
            // An aim with an upper bound is about time, the others are about speed.
            ratios.push(match aim {
                Aim::AtMost(_) => ours / raw,
                _ => raw / ours,
            });
        }
        let ratio = quartiles(&mut ratios);
        let (raw, ours) = (quartiles(&mut raws).0, quartiles(&mut all_ours).0);
        self.print(Row {
            name: name.to_owned(),
            aim,
            ratio,
            raw: unit.text(raw),
            ours: unit.text(ours),
            missed: aim.is_missed(ratio.0, ours),
        });
    }

    /// A row of one figure.
    pub(crate) fn figure(&mut self, name: &str, aim: Aim, value: f64, raw: &str, ours: &str) {
        if self.wants(name) {
            self.print(Row {
                name: name.to_owned(),
                aim,
                ratio: (value, value, value),
                raw: raw.to_owned(),
                ours: ours.to_owned(),
                missed: aim.is_missed(value, 0.0),
            });
        }
    }

    fn print(&mut self, row: Row) {
        if self.rows == 0 {
            println!(
                "\n{:<58} {:>7} {:>7} {:>13}  {:>12} {:>12}",
                "", "aim", "ratio", "quartiles", "raw", "dmsnap"
            );
        }
        self.rows += 1;
        if !self.heading.is_empty() {
            println!("{}", std::mem::take(&mut self.heading));
        }
        let (ratio, low, high) = row.ratio;
        println!(
            "  {:<56} {:>7} {ratio:>7.3} {:>13}  {:>12} {:>12}{}",
            row.name,
            row.aim.text(),
            format!("{low:.3}-{high:.3}"),
            row.raw,
            row.ours,
            if row.missed { "  missed" } else { "" },
        );
        if row.missed {
            self.misses.push(row.name);
        }
    }

    /// Says what missed its aim.
    pub(crate) fn finish(&self) {
        match self.misses.as_slice() {
            [] => println!("\n{} rows, all aims met", self.rows),
            misses => println!(
                "\n{} rows, {} missed their aim: {}",
                self.rows,
                misses.len(),
                misses.join("; ")
            ),
        }
    }
}

fn quartiles(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    };
    (median, at(1), at(3))
}
