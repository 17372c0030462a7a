//! The control center of `tidemill run`: the status of its own pipeline, as a master would tell it.
//!
//! In: the counters of both components. Out: a status with one job. Rates are the difference to a
//! sample of at least [`RATE_OVER`] ago.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemill_log::health::now_ms;
use tidemill_protocol::{JobStatus, MasterStatus, Status};
use tidemill_web::Shown;
use tidemill_web::api::Later;

use crate::child::heartbeat;

/// What a rate covers.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Limit of samples for the rates.
const SAMPLES_MAX: usize = 64;

/// Records read and published at one moment.
type Sample = (Instant, u64, u64);

/// The pipeline of this process.
pub(super) struct Center {
    shown: Shown,
    /// Worker threads of the dataflow.
    workers: usize,
    /// The text of the pipeline's `alerts.toml`.
    alerts: Option<String>,
    started_ms: u64,
    samples: Mutex<VecDeque<Sample>>,
}

impl Center {
    /// The pipeline that `shown` counts, with this many worker threads.
    pub(super) fn new(shown: Shown, workers: usize, alerts: Option<String>) -> Self {
        Self {
            shown,
            workers,
            alerts,
            started_ms: now_ms(),
            samples: Mutex::default(),
        }
    }

    /// The status, as the control center asks for it.
    pub(super) fn source(self) -> Arc<dyn Fn() -> Later + Send + Sync> {
        let center = Arc::new(self);
        Arc::new(move || {
            let center = Arc::clone(&center);
            Box::pin(async move { Some(center.status()) })
        })
    }

    /// The status of this moment.
    fn status(&self) -> Status {
        let half = |ingest: bool| {
            let mut half = self.shown.clone();
            match ingest {
                true => half.dataflow = None,
                false => half.ingest = None,
            }
            heartbeat::of(&half, "")
        };
        let (dataflow, ingest) = (half(false), half(true));
        let job = tidemill_master::alone(&self.shown.job, now_ms(), &dataflow, &ingest);
        Status {
            master: MasterStatus {
                generation: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_ms: self.started_ms,
                now_ms: now_ms(),
            },
            workers: Vec::new(),
            jobs: vec![self.with_rates(job)],
        }
    }

    /// Adds what one moment cannot tell.
    fn with_rates(&self, mut job: JobStatus) -> JobStatus {
        use std::sync::atomic::Ordering::Relaxed;
        let generation = self.shown.dataflow.as_ref();
        job.generation = generation.map_or(0, |stats| stats.generation.load(Relaxed));
        (job.workers, job.workers_wanted) = (self.workers, self.workers);
        job.alerts_file.clone_from(&self.alerts);
        let published = job.ingest.as_ref().map_or(0, |ingest| ingest.published);
        let now = Instant::now();
        let samples = self.samples.lock();
        let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
        samples.push_back((now, job.records, published));
        // One that is old enough stays at the front.
        let is_old = |sample: &Sample| now.duration_since(sample.0) >= RATE_OVER;
        while samples.len() > SAMPLES_MAX || samples.get(1).is_some_and(is_old) {
            samples.pop_front();
        }
        let Some((at, read, before)) = samples.front().copied() else {
            return job;
        };
        let seconds = now.duration_since(at).as_secs_f64();
        let rate = |more: u64| {
            if seconds > 0.0 {
                more as f64 / seconds
            } else {
                0.0
            }
        };
        job.records_per_second = rate(job.records.saturating_sub(read));
        if let Some(ingest) = &mut job.ingest {
            ingest.published_per_second = rate(published.saturating_sub(before));
        }
        job
    }
}
