//! Watches a running job from outside: how far the views are behind the log, the rows on top, and
//! whether the `--until` is reached. One thread, so that a slow service delays no redraw.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tidemill_dataflow::job;
use tidemill_dataflow::plan::ir::Job;
use tidemill_ingest::config::Land;
use tidemill_ingest::land;
use tidemill_ingest::stats;
use tidemill_log::log::{self, Log};

use crate::output;
use crate::views::Served;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two reads of the top rows.
const TOP: Duration = Duration::from_secs(1);

/// How long the log may be out of sight before it is spoken of: at the start it is not there yet.
const TROUBLE: Duration = Duration::from_secs(2);

/// What is seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Records in the log that are not in every view yet.
    pub(crate) behind: u64,
    /// Records in the log.
    pub(crate) records: u64,
    /// The top of the first aggregate view.
    pub(crate) top: Vec<String>,
    /// True when the records asked for are visible in every view.
    pub(crate) reached: bool,
    /// Why nothing is seen of the log, when that lasts.
    pub(crate) trouble: Option<String>,
}

/// When to stop.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    /// So many records landed, in all runs together.
    pub(crate) records: u64,
    /// Database of the landed table.
    pub(crate) database: String,
    /// How it lands.
    pub(crate) land: Land,
    /// Its topic.
    pub(crate) topic: String,
}

/// What the watcher looks at.
pub(crate) struct Watched {
    pub(crate) plan: Job,
    pub(crate) log: String,
    pub(crate) sink: String,
    pub(crate) until: Option<Until>,
    pub(crate) ingest_stats: Arc<stats::Stats>,
    pub(crate) job_stats: Arc<job::Stats>,
}

/// A running watcher.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Starts watching, until `stop`.
    pub(crate) fn start(watched: Watched, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        thread::Builder::new()
            .name("tidemill-watch".to_owned())
            .spawn(move || {
                let (mut log, mut served, mut failing) = (None, None, None);
                let mut top_read: Option<Instant> = None;
                let mut settled = None;
                while !stop.load(Relaxed) {
                    served = served.or_else(|| Served::open(&watched.sink, &watched.plan).ok());
                    if top_read.is_none_or(|at| at.elapsed() >= TOP) {
                        let top = served
                            .as_ref()
                            .and_then(|served| served.top(output::width().saturating_sub(2)).ok());
                        top_read = Some(Instant::now());
                        lock(&shared).top = top.unwrap_or_default();
                    }
                    match watched.look(&mut log) {
                        Err(error) => {
                            let since = *failing.get_or_insert_with(Instant::now);
                            lock(&shared).trouble =
                                (since.elapsed() >= TROUBLE).then(|| error.to_string());
                        }
                        Ok((backlog, now)) => {
                            failing = None;
                            let mut seen = lock(&shared);
                            seen.trouble = None;
                            (seen.behind, seen.records) = (backlog.behind, backlog.records);
                            // Twice in a row and nothing new between: what an earlier run left in
                            // the database is captured only after this process's counters began.
                            seen.reached = now && settled == Some(backlog.records);
                            settled = now.then_some(backlog.records);
                        }
                    }
                    thread::sleep(LOOK);
                }
            })?;
        Ok(Self { seen })
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log's records against what is durable in the views.
struct Backlog {
    behind: u64,
    records: u64,
}

impl Watched {
    /// One look at the log, opened when it is not; says whether `--until` is reached now.
    fn look(&self, log: &mut Option<Arc<dyn Log>>) -> anyhow::Result<(Backlog, bool)> {
        let log = match log {
            Some(log) => log,
            None => log.insert(log::open(&self.log)?),
        };
        let backlog = self.backlog(log.as_ref())?;
        let reached = self.reached(log.as_ref(), &backlog);
        Ok((backlog, reached))
    }

    /// The log is read first: what arrives between is seen next time.
    fn backlog(&self, log: &dyn Log) -> anyhow::Result<Backlog> {
        let mut backlog = Backlog {
            behind: 0,
            records: 0,
        };
        for source in &self.plan.sources {
            let ranges = log.ranges(&source.topic)?;
            let durable = self.job_stats.durable_ends.lock();
            let durable = durable.unwrap_or_else(PoisonError::into_inner);
            let ends = durable.get(&source.topic);
            for range in ranges {
                let end = ends
                    .and_then(|ends| ends.get(&range.partition))
                    .copied()
                    .unwrap_or(0);
                backlog.records += u64::try_from(range.high - range.low).unwrap_or(0);
                backlog.behind += u64::try_from(range.high - end.max(range.low)).unwrap_or(0);
            }
        }
        Ok(backlog)
    }

    /// Whether as many records as asked for landed and all of them went the whole way down.
    fn reached(&self, log: &dyn Log, backlog: &Backlog) -> bool {
        let Some(until) = &self.until else {
            return false;
        };
        // Each landed record is at least one change in its topic, however often this was started.
        let published = log.ranges(&until.topic).map(|ranges| {
            ranges
                .iter()
                .map(|range| u64::try_from(range.high).unwrap_or(0))
                .sum::<u64>()
        });
        let stats = &self.ingest_stats;
        // In the direction of the flow: a change is counted as captured before as published.
        let in_log = stats.published.load(Relaxed) + stats.unpublishable.load(Relaxed);
        let captured = stats.captured.load(Relaxed);
        // The table is asked last, since that opens a connection.
        let landed = || land::open(&until.database, &until.land)?.total();
        backlog.behind == 0
            && in_log == captured
            && published.is_ok_and(|published| published >= until.records)
            && landed().is_ok_and(|landed| landed >= until.records)
    }
}
