//! History of each job: freshness, lag, rates and counts of up to 24 h, in bounded memory.
//!
//! In: the status, once every [`EVERY`]. Out: a [`Series`] of one job.
//!
//! ```text
//! status ─► fine: the last 10 min, a point each 2 s ─┐
//!        └► coarse: 24 h, a point a minute ──────────┴─► Series
//! ```
//!
//! 1. A coarse point has the worst of its minute (freshness, lag), so that no peak is lost, and the
//!    mean of rates.
//! 2. A value that nobody knew is absent, never 0.
//! 3. The memory is bounded: [`JOBS_KEPT_MAX`] jobs with [`FINE_POINTS_MAX`] and
//!    [`COARSE_POINTS_MAX`] points of [`Point`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidemill_protocol::{JobStatus, Status};

use super::Facts;
use super::events::{Event, Events};

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(2);
/// Limit of points of the fine series: 10 minutes.
pub(crate) const FINE_POINTS_MAX: usize = 300;
/// Limit of points of the coarse series: 24 hours.
pub(crate) const COARSE_POINTS_MAX: usize = 1440;
/// Limit of jobs that are kept; as many as a master takes.
pub(crate) const JOBS_KEPT_MAX: usize = 100;
/// Length of a coarse point, in ms.
const MINUTE_MS: u64 = 60_000;

/// What was known of a job at one time, or in one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Point {
    /// When, in ms since 1970; the begin of the minute for a coarse point.
    pub at_ms: u64,
    /// Freshness in ms: the median.
    pub p50_ms: Option<u64>,
    /// The 99th percentile.
    pub p99_ms: Option<u64>,
    /// The 99.9th percentile.
    pub p999_ms: Option<u64>,
    /// Records in the log that are not in every view.
    pub behind: Option<u64>,
    /// How long the oldest change waits, in ms.
    pub lag_ms: Option<u64>,
    /// Records a second that were read from the log.
    pub records_per_second: f32,
    /// Records a second that the ingest published.
    pub published_per_second: f32,
    /// Dead letters of the current processes.
    pub dead_letters: u64,
    /// Free bytes of the fullest disk with state of the job.
    pub disk_free: Option<u64>,
    /// Samples in the point.
    #[serde(skip)]
    samples: u32,
}

impl Point {
    /// What a status says.
    fn of(job: &JobStatus, at_ms: u64) -> Self {
        let published = job.ingest.as_ref().map(|it| it.published_per_second);
        Self {
            at_ms,
            p50_ms: job.freshness_p50_ms,
            p99_ms: job.freshness_p99_ms,
            p999_ms: job.freshness_p999_ms,
            behind: job.behind,
            lag_ms: job.lag_ms,
            records_per_second: job.records_per_second as f32,
            published_per_second: published.unwrap_or(0.0) as f32,
            dead_letters: job.dead_letters,
            disk_free: job.disk_free,
            samples: 1,
        }
    }

    /// Adds a sample of the same minute.
    fn add(&mut self, new: &Self) {
        self.p50_ms = self.p50_ms.max(new.p50_ms);
        self.p99_ms = self.p99_ms.max(new.p99_ms);
        self.p999_ms = self.p999_ms.max(new.p999_ms);
        self.behind = self.behind.max(new.behind);
        self.lag_ms = self.lag_ms.max(new.lag_ms);
        let (had, all) = (self.samples as f32, self.samples as f32 + 1.0);
        let mean = |old: f32, new: f32| (old * had + new) / all;
        self.records_per_second = mean(self.records_per_second, new.records_per_second);
        self.published_per_second = mean(self.published_per_second, new.published_per_second);
        self.dead_letters = new.dead_letters;
        self.disk_free = new.disk_free.or(self.disk_free);
        self.samples += 1;
    }
}

/// The points of one job, the oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// A point each 2 s.
    pub fine: VecDeque<Point>,
    /// A point a minute.
    pub coarse: VecDeque<Point>,
}

impl Series {
    /// Adds a sample, and forgets the oldest points.
    fn add(&mut self, point: Point) {
        self.fine.push_back(point);
        while self.fine.len() > FINE_POINTS_MAX {
            self.fine.pop_front();
        }
        let minute = point.at_ms / MINUTE_MS * MINUTE_MS;
        match self.coarse.back_mut() {
            Some(last) if last.at_ms == minute => last.add(&point),
            _ => self.coarse.push_back(Point {
                at_ms: minute,
                ..point
            }),
        }
        while self.coarse.len() > COARSE_POINTS_MAX {
            self.coarse.pop_front();
        }
    }
}

/// The series of all jobs.
#[derive(Debug, Default)]
pub struct History {
    jobs: Mutex<BTreeMap<String, (Series, Events)>>,
}

impl History {
    /// Adds what a status says, and forgets jobs that are gone.
    pub(crate) fn add(&self, status: &Status) {
        let at_ms = status.master.now_ms;
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|name, _| status.jobs.iter().any(|job| job.name == *name));
        for job in status.jobs.iter().take(JOBS_KEPT_MAX) {
            let (series, events) = jobs.entry(job.name.clone()).or_default();
            series.add(Point::of(job, at_ms));
            events.add(job, at_ms);
        }
    }

    /// The points of a job; `None` for a job that no sample had.
    pub fn of(&self, job: &str) -> Option<Series> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(job).map(|(series, _)| series.clone())
    }

    /// What happened to a job, the newest last; `None` for a job that no sample had.
    pub(crate) fn events(&self, job: &str) -> Option<Vec<Event>> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(job).map(|(_, events)| events.list())
    }
}

/// Samples the status for as long as the runtime lives.
pub async fn sample(facts: Facts) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(status) = (facts.status)().await {
            facts.history.add(&status);
            let alerts = Arc::clone(&facts.alerts);
            // It may ask the store.
            let looked = tokio::task::spawn_blocking(move || alerts.look(&status)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "alerts were not evaluated");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_protocol::MasterStatus;

    use super::*;

    /// A status at a time, with one job of this freshness.
    fn status(now_ms: u64, p99: Option<u64>, rate: f64) -> Status {
        let job = JobStatus {
            name: "users".to_owned(),
            freshness_p99_ms: p99,
            records_per_second: rate,
            ..JobStatus::default()
        };
        Status {
            master: MasterStatus {
                now_ms,
                ..MasterStatus::default()
            },
            jobs: vec![job],
            ..Status::default()
        }
    }

    #[test]
    fn a_minute_keeps_its_worst_and_nothing_is_made_up() {
        let history = History::default();
        let minute = 1_800_000_000_000;
        history.add(&status(minute, None, 10.0));
        history.add(&status(minute + 2_000, Some(70), 20.0));
        history.add(&status(minute + 4_000, Some(30), 60.0));
        history.add(&status(minute + MINUTE_MS, None, 1.0));
        let series = history.of("users").unwrap();
        assert_eq!(series.fine.len(), 4);
        assert_eq!(series.fine[0].p99_ms, None);
        let coarse: Vec<_> = series.coarse.iter().map(|it| it.p99_ms).collect();
        assert_eq!(coarse, [Some(70), None]);
        assert!((series.coarse[0].records_per_second - 30.0).abs() < 0.01);
        assert_eq!(series.coarse[0].at_ms, minute);
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        let history = History::default();
        for minute in 0..COARSE_POINTS_MAX as u64 + 10 {
            history.add(&status(minute * MINUTE_MS, Some(minute), 0.0));
        }
        let series = history.of("users").unwrap();
        assert_eq!(series.coarse.len(), COARSE_POINTS_MAX);
        assert_eq!(series.fine.len(), FINE_POINTS_MAX);
        assert_eq!(series.coarse[0].p99_ms, Some(10));
        history.add(&Status::default());
        assert!(history.of("users").is_none(), "a job that is gone is kept");
    }
}
