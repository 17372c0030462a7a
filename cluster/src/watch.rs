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

use crate::views::Served;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two reads of the top rows.
const TOP: Duration = Duration::from_secs(1);

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
                // A service that is away is the job's to report; here nothing is seen meanwhile.
                let (mut log, mut served) = (None, None);
                let mut top_read: Option<Instant> = None;
                let mut settled = None;
                while !stop.load(Relaxed) {
                    served = served.or_else(|| Served::open(&watched.sink, &watched.plan).ok());
                    if top_read.is_none_or(|at| at.elapsed() >= TOP) {
                        let top = served.as_ref().and_then(|served| served.top().ok());
                        top_read = Some(Instant::now());
                        lock(&shared).top = top.unwrap_or_default();
                    }
                    log = log.or_else(|| log::open(&watched.log).ok());
                    if let Some(log) = &log
                        && let Ok(backlog) = watched.backlog(log.as_ref())
                    {
                        let now = watched.reached(log.as_ref(), &backlog);
                        let mut seen = lock(&shared);
                        (seen.behind, seen.records) = (backlog.behind, backlog.records);
                        // Twice in a row and nothing new between: what an earlier run left in the
                        // database is captured only after this process's counters started at 0.
                        seen.reached = now && settled == Some(backlog.records);
                        settled = now.then_some(backlog.records);
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
        let (in_log, captured) = (stats.published.load(Relaxed), stats.captured.load(Relaxed));
        // The table is asked last, since that opens a connection.
        let landed = || land::open(&until.database, &until.land)?.total();
        backlog.behind == 0
            && in_log == captured
            && published.is_ok_and(|published| published >= until.records)
            && landed().is_ok_and(|landed| landed >= until.records)
    }
}
