//! Watcher of a run: the lag of the views behind the log, the first rows of a view, and whether
//! `--until` is reached. It has a thread of its own, so that a slow service delays no redraw.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidemill_config::connections::Connections;
use tidemill_dataflow::job;
use tidemill_ingest::config::Land;
use tidemill_ingest::{land, stats};
use tidemill_ir::Job;
use tidemill_log::log::Log;
use tidemill_log::{lock, log};
use tidemill_protocol::output;

use crate::terminal::views::Served;

/// Time between two looks at the log.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two reads of the first rows.
const TOP: Duration = Duration::from_secs(1);

/// How long the log may fail before that is shown: at the start it does not exist yet.
const TROUBLE: Duration = Duration::from_secs(2);

/// What the watcher has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Lag in records: records in the log that are not in every view yet.
    pub(crate) behind: u64,
    /// Records in the log.
    pub(crate) records: u64,
    /// The first rows of the first aggregate view.
    pub(crate) top: Vec<String>,
    /// Whether the wanted number of records is visible in every view.
    pub(crate) reached: bool,
    /// Why the log cannot be read, if that lasts longer than [`TROUBLE`].
    pub(crate) trouble: Option<String>,
}

/// The condition of `--until`.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    /// The number of landed records, over all runs together.
    pub(crate) records: u64,
    /// The URL of the landed table's database.
    pub(crate) database: String,
    /// How records land.
    pub(crate) land: Land,
    /// The topic of the landed table.
    pub(crate) topic: String,
}

/// What the watcher reads.
pub(crate) struct Watched {
    /// The plan, which names the topics and views.
    pub(crate) plan: Job,
    /// The URLs of the log and of the sinks.
    pub(crate) connections: Connections,
    /// The condition of `--until`, if it was given.
    pub(crate) until: Option<Until>,
    /// The counters of the ingest.
    pub(crate) ingest_stats: Arc<stats::Stats>,
    /// The counters of the dataflow.
    pub(crate) job_stats: Arc<job::Stats>,
}

/// A running watcher.
pub(crate) struct Watch {
    /// Written by the thread after each look.
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Starts the watcher's thread, which ends with `stop`.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
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
                    served =
                        served.or_else(|| Served::open(&watched.connections, &watched.plan).ok());
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
                            // True twice in a row with nothing new between. Otherwise changes that
                            // an earlier run left in the database could still be on their way: they
                            // are captured after this process's counters began.
                            seen.reached = now && settled == Some(backlog.records);
                            settled = now.then_some(backlog.records);
                        }
                    }
                    thread::sleep(LOOK);
                }
            })?;
        Ok(Self { seen })
    }

    /// What the watcher saw last.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// The records in the log, and how many of them are not durable in the views.
struct Backlog {
    /// Records that are not durable in every view.
    behind: u64,
    /// Records that the log holds.
    records: u64,
}

impl Watched {
    /// Looks at the log once, opening it if necessary. Returns whether `--until` is reached.
    ///
    /// # Errors
    /// The log cannot be opened or does not answer.
    fn look(&self, log: &mut Option<Arc<dyn Log>>) -> anyhow::Result<(Backlog, bool)> {
        let log = match log {
            Some(log) => log,
            None => log.insert(log::open(&self.connections.log)?),
        };
        let backlog = self.backlog(log.as_ref())?;
        let reached = self.reached(log.as_ref(), &backlog);
        Ok((backlog, reached))
    }

    /// The log is read before the views' progress, so a record that arrives meanwhile is seen next
    /// time.
    fn backlog(&self, log: &dyn Log) -> anyhow::Result<Backlog> {
        let mut backlog = Backlog {
            behind: 0,
            records: 0,
        };
        for source in &self.plan.sources {
            let ranges = log.ranges(&source.topic)?;
            let durable = lock(&self.job_stats.durable_ends);
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

    /// Whether the wanted number of records landed and all of them are in the views.
    fn reached(&self, log: &dyn Log, backlog: &Backlog) -> bool {
        let Some(until) = &self.until else {
            return false;
        };
        // Each landed record is at least one change in its topic, however often the pipeline was
        // started.
        let published = log.ranges(&until.topic).map(|ranges| {
            ranges
                .iter()
                .map(|range| u64::try_from(range.high).unwrap_or(0))
                .sum::<u64>()
        });
        let stats = &self.ingest_stats;
        // Read in the order of the flow: a change is counted as captured before it is counted as
        // published.
        let in_log = stats.published.load(Relaxed) + stats.unpublishable.load(Relaxed);
        let captured = stats.captured.load(Relaxed);
        // The table is asked last, because that opens a connection.
        let landed = || land::open(&until.database, &until.land)?.total();
        backlog.behind == 0
            && in_log == captured
            && published.is_ok_and(|published| published >= until.records)
            && landed().is_ok_and(|landed| landed >= until.records)
    }
}
