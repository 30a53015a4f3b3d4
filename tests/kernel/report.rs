//! Reads what the guest wrote to its second serial port (the lines are described in `guest/init`).

use crate::scenario::{Outcome, Scenario};

/// How far the guest came.
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Outcome>,
    /// What went wrong, besides the scenarios that failed.
    pub(crate) failures: Vec<String>,
    /// Whether the guest ran all scenarios and said so.
    pub(crate) complete: bool,
}

impl Report {
    pub(crate) fn parse(text: &str, scenarios: &[Scenario]) -> Self {
        let mut report = Self {
            outcomes: Vec::new(),
            failures: Vec::new(),
            complete: false,
        };
        let mut running = None;
        for line in text.lines() {
            if let Err(problem) = report.line(line.trim_end_matches('\r'), scenarios, &mut running)
            {
                report
                    .failures
                    .push(format!("bad line from the guest: {problem}: {line}"));
            }
        }
        if let Some(outcome) = running {
            report
                .failures
                .push(format!("scenario {} did not end", outcome.name));
        }
        if report.complete && report.outcomes.len() != scenarios.len() {
            report.failures.push(format!(
                "{} of {} ran",
                report.outcomes.len(),
                scenarios.len()
            ));
        }
        report
    }

    fn line(
        &mut self,
        line: &str,
        scenarios: &[Scenario],
        running: &mut Option<Outcome>,
    ) -> Result<(), &'static str> {
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), running.as_mut()) {
            (["begin", number], None) => {
                let number: usize = number.parse().map_err(|_| "not a number")?;
                let scenario = scenarios.get(number).ok_or("no such scenario")?;
                *running = Some(Outcome {
                    name: scenario.name.clone(),
                    ..Outcome::default()
                });
            }
            (["field", key, value], Some(outcome)) => {
                outcome.fields.insert((*key).into(), base64(value)?);
            }
            (["failed", status, log, dmesg], Some(outcome)) => {
                outcome.failure = Some(format!(
                    "scenario {} failed, status {status} (137: took too long)\n{}\n\
                     -- its kernel messages:\n{}",
                    outcome.name,
                    base64(log)?,
                    base64(dmesg)?
                ));
            }
            (["end", _], Some(_)) => self.outcomes.extend(running.take()),
            (["done"], None) => self.complete = true,
            _ => return Err("out of place"),
        }
        Ok(())
    }
}

fn base64(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("not base64"),
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
