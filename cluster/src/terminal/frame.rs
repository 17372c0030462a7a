//! One moment of a running pipeline as text, for the live display and for plain lines.
//!
//! In: the stages' counters. Out: a block of lines, or one line. Pure: the caller passes the time
//! and the counters.
//!
//! ```text
//! users  00:01:05  catching up: 12,000 of 40,000 records
//!
//!      fetched →       landed →     captured →    published
//!       40,000         40,000         40,000         40,000
//!        400/s          400/s          400/s          400/s
//!
//!   epoch 11:34:05.123Z   lag 7 ms   freshness p50 12 ms, p99 40 ms
//!
//!   users_by_country        21 rows
//!   dead letters             0
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use tidemill_dataflow::job;
use tidemill_ingest::stats;

use crate::terminal::table::grouped;

/// The time window over which rates are computed.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// The counter of one stage, and its rate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counter {
    /// Records since the start of the process.
    pub(crate) total: u64,
    /// Records per second over [`RATE_WINDOW`].
    pub(crate) per_second: f64,
}

/// One moment of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    /// The name in the header.
    pub(crate) job: String,
    /// Time since the start.
    pub(crate) elapsed: Duration,
    /// The current long phase in words, if there is one.
    pub(crate) phase: Option<String>,
    /// The stages in the order of the flow: fetched, landed, captured, published.
    pub(crate) stages: [Counter; 4],
    /// The newest durable epoch in ms; 0 before the first.
    pub(crate) epoch: u64,
    /// The lag in ms.
    pub(crate) lag_ms: u64,
    /// Whether the ends of the log are known; false before the first look.
    pub(crate) lag_known: bool,
    /// The services that are down, in words.
    pub(crate) downs: Vec<String>,
    /// Rows and withheld rows by view.
    pub(crate) views: BTreeMap<String, job::ViewStats>,
    /// Freshness p50 and p99 in ms; `None` before the first sample.
    pub(crate) freshness_ms: Option<(u64, u64)>,
    /// Of both components.
    pub(crate) dead_letters: u64,
    /// The first rows of the first aggregate view.
    pub(crate) top: Vec<String>,
}

/// The names of [`Frame::stages`].
const STAGES: [&str; 4] = ["fetched", "landed", "captured", "published"];

/// Makes frames from counters; keeps the samples that rates and lag need.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// The totals at earlier times, the oldest first.
    samples: VecDeque<(Duration, [u64; 4])>,
    /// When every bound epoch was last durable, in ms.
    caught_up_ms: u64,
}

impl Gauge {
    /// The frame at `elapsed` since the start, which is `now_ms` in ms since 1970.
    pub(crate) fn frame(
        &mut self,
        elapsed: Duration,
        now_ms: u64,
        ingest: &stats::Stats,
        job: &job::Stats,
    ) -> Frame {
        let totals = [
            &ingest.fetched,
            &ingest.landed,
            &ingest.captured,
            &ingest.published,
        ]
        .map(|counter| counter.load(Relaxed));
        let (durable, bound) = (job.durable.load(Relaxed), job.bound.load(Relaxed));
        if durable >= bound {
            self.caught_up_ms = now_ms;
        }
        let dead_letters = ingest.dead_letters.load(Relaxed) + job.dead_letters.load(Relaxed);
        let histogram = job
            .freshness_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let quantiles = (
            histogram.value_at_quantile(0.5),
            histogram.value_at_quantile(0.99),
        );
        let freshness_ms = (!histogram.is_empty()).then_some(quantiles);
        drop(histogram);
        let (lag, unpublished) = (job.lag(), ingest.unpublished());
        let waits = lag.since_ms.into_iter().chain(unpublished.since_ms);
        let waits = waits.map(|since| now_ms.saturating_sub(since)).max();
        // An idle job has old epochs and no lag: only waiting changes count.
        let epochs = now_ms.saturating_sub(durable.max(self.caught_up_ms));
        // A change that waits is at least as old as it has waited.
        let freshness_ms = match (freshness_ms, waits) {
            (None, waits) => waits.map(|waits| (waits, waits)),
            (Some((p50, p99)), waits) => {
                let waits = waits.unwrap_or(0);
                Some((p50.max(waits), p99.max(waits)))
            }
        };
        Frame {
            elapsed,
            stages: self.rates(elapsed, totals),
            epoch: durable,
            lag_ms: epochs.max(waits.unwrap_or(0)),
            lag_known: lag.known,
            views: job
                .views
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            freshness_ms,
            dead_letters,
            ..Frame::default()
        }
    }

    /// The stages' totals and their rates over [`RATE_WINDOW`].
    fn rates(&mut self, elapsed: Duration, totals: [u64; 4]) -> [Counter; 4] {
        let expired = |at: &Duration| elapsed.saturating_sub(*at) > RATE_WINDOW;
        while self.samples.len() > 1 && self.samples.front().is_some_and(|(at, _)| expired(at)) {
            self.samples.pop_front();
        }
        let (at, before) = self.samples.front().copied().unwrap_or((elapsed, totals));
        self.samples.push_back((elapsed, totals));
        let seconds = elapsed.saturating_sub(at).as_secs_f64();
        std::array::from_fn(|stage| Counter {
            total: totals[stage],
            per_second: if seconds > 0.0 {
                totals[stage].saturating_sub(before[stage]) as f64 / seconds
            } else {
                0.0
            },
        })
    }
}

impl Frame {
    /// The block that is redrawn in place, for 80 columns.
    pub(crate) fn block(&self) -> Vec<String> {
        let phase = self.phase.iter().map(|phase| format!("  {phase}"));
        let header = format!("{}  {}", self.job, clock(self.elapsed));
        let cells = |cell: &dyn Fn(usize) -> String| {
            let cells = (0..STAGES.len()).map(|stage| format!("{:>12}", cell(stage)));
            cells.collect::<Vec<_>>()
        };
        let totals = cells(&|stage| grouped(self.stages[stage].total));
        let rates = cells(&|stage| format!("{:.0}/s", self.stages[stage].per_second));
        let mut lines = vec![
            String::new(),
            header + &phase.collect::<String>(),
            String::new(),
            cells(&|stage| STAGES[stage].to_owned()).join(" → "),
            totals.join("   "),
            rates.join("   "),
            String::new(),
            format!(
                "  {}   lag {}   freshness {}",
                self.epoch_text(),
                self.lag_text(),
                self.freshness_text()
            ),
        ];
        lines.extend(self.downs.iter().map(|down| format!("  {down}")));
        lines.push(String::new());
        let widths = self.views.keys().map(|name| name.chars().count());
        let width = widths.chain(["dead letters".len()]).max().unwrap_or(0);
        for (name, view) in &self.views {
            let rows = grouped(u64::try_from(view.rows).unwrap_or(0));
            let noun = if view.rows == 1 { "row" } else { "rows" };
            let conflicts = conflicts(view);
            lines.push(format!("  {name:<width$} {rows:>12} {noun}{conflicts}"));
        }
        let dead_letters = grouped(self.dead_letters);
        lines.push(format!("  {:<width$} {dead_letters:>12}", "dead letters"));
        if !self.top.is_empty() {
            lines.push(String::new());
            lines.extend(self.top.iter().map(|line| format!("  {line}")));
        }
        lines
    }

    /// The same in one line, for pipes and files.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![clock(self.elapsed)];
        parts.extend(self.phase.clone());
        let fetched = format!(" ({:.0}/s)", self.stages[0].per_second);
        for ((name, stage), rate) in
            STAGES
                .iter()
                .zip(&self.stages)
                .zip([fetched.as_str(), "", "", ""])
        {
            parts.push(format!("{name} {}{rate}", grouped(stage.total)));
        }
        parts.push(self.epoch_text());
        parts.push(format!("lag {}", self.lag_text()));
        let rows: i64 = self.views.values().map(|view| view.rows).sum();
        parts.push(format!(
            "rows {}",
            grouped(u64::try_from(rows).unwrap_or(0))
        ));
        for (name, view) in self.views.iter().filter(|(_, view)| view.conflicts > 0) {
            parts.push(format!("{name}{}", conflicts(view)));
        }
        parts.push(format!("freshness {}", self.freshness_text()));
        parts.push(format!("dead letters {}", grouped(self.dead_letters)));
        parts.extend(self.downs.iter().cloned());
        parts.join("  ")
    }

    /// The newest epoch as a time of day, or `-` before the first.
    fn epoch_text(&self) -> String {
        let at = i64::try_from(self.epoch).ok().filter(|&epoch| epoch > 0);
        match at.and_then(|epoch| Timestamp::from_millisecond(epoch).ok()) {
            None => "epoch -".to_owned(),
            Some(at) => format!("epoch {}", at.strftime("%T%.3fZ")),
        }
    }

    /// `unknown` while nobody has looked at the log, or cannot.
    fn lag_text(&self) -> String {
        match self.lag_known {
            true => millis(self.lag_ms),
            false if self.lag_ms == 0 => "unknown".to_owned(),
            false => format!("unknown for {}", millis(self.lag_ms)),
        }
    }

    /// Both quantiles, or `-` before the first sample.
    fn freshness_text(&self) -> String {
        match self.freshness_ms {
            None => "-".to_owned(),
            Some((p50, p99)) => format!("p50 {}, p99 {}", millis(p50), millis(p99)),
        }
    }
}

/// The remark about withheld rows of a view.
fn conflicts(view: &job::ViewStats) -> String {
    match view.conflicts {
        0 => String::new(),
        n => format!(" ({} withheld: see the dead letters)", grouped(n)),
    }
}

/// A duration as `00:01:05`.
fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A duration in ms up to 10 s, then in seconds.
fn millis(ms: u64) -> String {
    if ms < 10_000 {
        format!("{ms} ms")
    } else {
        format!("{} s", grouped(ms / 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let stats = stats::Stats::default();
        let job = job::Stats::default();
        let mut gauge = Gauge::default();
        gauge.frame(Duration::from_secs(9), 5_000, &stats, &job);
        stats::Stats::add(&stats.fetched, 1500);
        job.bound.store(1_795_347_245_124, Relaxed);
        job.durable.store(1_795_347_245_123, Relaxed);
        job.looks.lock().unwrap().seen(5_000, BTreeMap::new());
        job.freshness_ms.lock().unwrap().record(12).unwrap();
        let view = job::ViewStats {
            rows: 1500,
            conflicts: 0,
            unfit: 0,
        };
        job.views.lock().unwrap().insert("by_country".into(), view);
        gauge.frame(Duration::from_secs(10), 1_795_347_245_130, &stats, &job)
    }

    #[test]
    fn one_line_holds_everything() {
        assert_eq!(
            frame().line(),
            "00:00:10  fetched 1,500 (1500/s)  landed 0  captured 0  published 0  \
             epoch 11:34:05.123Z  lag 7 ms  rows 1,500  freshness p50 12 ms, p99 12 ms  \
             dead letters 0"
        );
    }

    #[test]
    fn the_block_names_the_phase_and_ends_with_the_top() {
        let mut frame = frame();
        frame.job = "users".into();
        frame.phase = Some("replaying".into());
        frame.top = vec!["by_country".into()];
        let block = frame.block();
        assert_eq!(block[1], "users  00:00:10  replaying");
        assert_eq!(
            block[3..6],
            [
                "     fetched →       landed →     captured →    published",
                "       1,500              0              0              0",
                "      1500/s            0/s            0/s            0/s",
            ]
        );
        assert!(
            block[7].contains("epoch 11:34:05.123Z   lag 7 ms"),
            "{}",
            block[7]
        );
        assert_eq!(
            block[9..11],
            [
                "  by_country          1,500 rows",
                "  dead letters            0",
            ]
        );
        assert_eq!(block.last().unwrap(), "  by_country");
        assert!(
            block.iter().all(|line| line.chars().count() <= 80),
            "{block:?}"
        );
    }

    #[test]
    fn an_idle_job_has_no_lag() {
        let (stats, job) = (stats::Stats::default(), job::Stats::default());
        job.bound.store(1_000, Relaxed);
        job.durable.store(1_000, Relaxed);
        let mut gauge = Gauge::default();
        let frame = gauge.frame(Duration::ZERO, 9_000_000, &stats, &job);
        assert_eq!(frame.lag_ms, 0);
        assert_eq!(frame.lag_text(), "unknown", "nobody has looked yet");
        job.bound.store(9_000_100, Relaxed);
        let frame = gauge.frame(Duration::ZERO, 9_000_150, &stats, &job);
        assert_eq!(frame.lag_ms, 150);
    }
}
