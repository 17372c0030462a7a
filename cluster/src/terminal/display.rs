//! Display of `tidemill run`: on a terminal a block that is redrawn four times a second, elsewhere
//! one line a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidemill_dataflow::job;
use tidemill_ingest::stats;
use tidemill_protocol::{output, redact};

use crate::terminal::frame::{Frame, Gauge};

/// Time between two calls of [`Display::tick`].
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Number of ticks from one plain line to the next.
const TICKS_A_LINE: u64 = 4;

/// The display and what it reads.
pub(crate) struct Display {
    /// The name in the header.
    job: String,
    /// Whether the block is redrawn in place.
    live: bool,
    /// When the run began.
    started: Instant,
    /// Ticks so far.
    ticks: u64,
    /// Makes the frames.
    gauge: Gauge,
    /// The counters of the ingest.
    ingest_stats: Arc<stats::Stats>,
    /// The counters of the dataflow.
    job_stats: Arc<job::Stats>,
}

impl Display {
    /// A live display on a terminal, unless `no_live` is set.
    pub(crate) fn new(
        job: &str,
        no_live: bool,
        ingest_stats: Arc<stats::Stats>,
        job_stats: Arc<job::Stats>,
    ) -> Self {
        Self {
            job: job.to_owned(),
            live: !no_live && output::is_terminal(),
            started: Instant::now(),
            ticks: 0,
            gauge: Gauge::default(),
            ingest_stats,
            job_stats,
        }
    }

    /// Shows the current moment.
    ///
    /// `phase` and `top` come from the watcher, which asks the services.
    pub(crate) fn tick(&mut self, phase: Option<String>, top: Vec<String>) {
        let frame = self.frame(phase, top);
        if self.live {
            output::live(&frame.block());
        } else if self.ticks.is_multiple_of(TICKS_A_LINE) {
            output::line(&frame.line());
        }
        self.ticks += 1;
    }

    /// Shows the last moment, which stays on the screen.
    pub(crate) fn finish(&mut self) {
        let frame = self.frame(None, Vec::new());
        if self.live {
            output::live(&frame.block());
            output::keep_live();
        } else {
            output::line(&frame.line());
        }
    }

    /// The current moment from the counters.
    fn frame(&mut self, phase: Option<String>, top: Vec<String>) -> Frame {
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let (ingest, job) = (&self.ingest_stats, &self.job_stats);
        let frame = self
            .gauge
            .frame(self.started.elapsed(), now_ms, ingest, job);
        let downs = ingest.health.downs().into_iter();
        let downs = downs.map(|it| redact::text(&it.told(now_ms)).into_owned());
        Frame {
            downs: downs.collect(),
            job: self.job.clone(),
            phase,
            top,
            ..frame
        }
    }
}
