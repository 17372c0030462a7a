//! Report of a benchmark: a table for people, and one line of JSON per run.
//!
//! A row has one contestant's values, all of them, and the table shows the median first. A bar is a
//! number with a limit, and whether it holds. The JSON line has everything that the table shows, so
//! that results can be compared over time.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The result of one benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The benchmark's name.
    benchmark: String,
    /// When it began, in seconds since 1970.
    at_unix_s: u64,
    /// Cores that this process may use.
    cores: usize,
    /// The system's load average at the start. If it is above `cores`, the wall times mean little.
    load_before: f64,
    /// The contestants.
    rows: Vec<Row>,
    /// The limits, in the order in which they were added.
    bars: Vec<Bar>,
}

/// One contestant with all its measured values.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// The contestant.
    pub(crate) name: String,
    /// For each column, with its unit in the name, one value for each run.
    pub(crate) values: Vec<(&'static str, Vec<f64>)>,
}

/// A measured number and its limit.
#[derive(Debug, Serialize)]
struct Bar {
    /// What is measured, with its unit.
    what: String,
    /// The measured value, usually a median or a ratio of medians.
    value: f64,
    /// `>=` or `<=`.
    relation: &'static str,
    /// The limit, in the unit of the value.
    limit: f64,
    /// Whether the value is within the limit.
    holds: bool,
}

impl Row {
    /// The median of a column; NaN if there is no such column.
    pub(crate) fn median(&self, column: &str) -> f64 {
        let values = self.values.iter().find(|(name, _)| *name == column);
        values.map_or(f64::NAN, |(_, values)| median(values))
    }
}

/// The middle value, or the mean of the two middle values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

impl Report {
    /// An empty report. Call this before anything runs, because it reads the load average.
    pub(crate) fn new(benchmark: &str) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|text| text.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            benchmark: benchmark.to_owned(),
            at_unix_s: now.map_or(0, |since| since.as_secs()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            load_before: load.unwrap_or(f64::NAN),
            rows: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Adds a contestant.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a bar that holds if the value is at least the limit.
    pub(crate) fn at_least(&mut self, what: &str, value: f64, limit: f64) {
        self.bar(what, value, ">=", limit, value >= limit);
    }

    /// Adds a bar that holds if the value is at most the limit.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, limit: f64) {
        self.bar(what, value, "<=", limit, value <= limit);
    }

    fn bar(&mut self, what: &str, value: f64, relation: &'static str, limit: f64, holds: bool) {
        let what = what.to_owned();
        self.bars.push(Bar {
            what,
            value,
            relation,
            limit,
            holds,
        });
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let (cores, load) = (self.cores, self.load_before);
        println!("\n{} ({cores} cores, load {load} before)", self.benchmark);
        for row in &self.rows {
            println!("  {}", row.name);
            for (column, values) in &row.values {
                let all: Vec<String> = values.iter().map(|value| number(*value)).collect();
                let median = number(median(values));
                match values.len() {
                    1 => println!("    {column:<16} {median:>12}"),
                    _ => println!("    {column:<16} {median:>12}   of {}", all.join(" ")),
                }
            }
        }
        for bar in &self.bars {
            let verdict = if bar.holds { "holds" } else { "MISSED" };
            let (value, limit) = (number(bar.value), number(bar.limit));
            let (what, relation) = (&bar.what, bar.relation);
            println!("  {verdict:<6} {what}: {value} (bar {relation} {limit})");
        }
    }

    /// Appends the report to a file as one line of JSON.
    pub(crate) fn append(&self, file: &Path) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}

/// A number with about four significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }
}
