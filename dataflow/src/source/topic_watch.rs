//! Topic watch: finds added partitions, deleted or recreated topics, and the topics' end offsets.
//!
//! A thread beside the workers, in the process of worker 0, asks the log from time to time. Added
//! partitions go to the control dataflow, which binds their start offsets and tells the workers. A
//! topic that was deleted or recreated ends the job with an error, because by offsets alone the job
//! would continue as if nothing had happened. The end offsets give the lag of the views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tidemill_log::health::now_ms;
use tidemill_log::log::{Log, TopicId};
use tidemill_log::{Error, Kind, Result, lock};
use tidemill_state::failure::Failure;

use crate::epoch::messages::{Added, Held};
use crate::epoch::resume;
use crate::stats::{Held as Ends, Stats};

/// How long a topic may be missing before it counts as deleted. Brokers that start learn of their
/// topics late.
const GONE_PATIENCE: Duration = Duration::from_secs(15);
/// Longest time until the thread notices a stop.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// Shortest pause between two looks at the topics' end offsets, from which the lag is computed.
const LAG_LOOK: Duration = Duration::from_secs(2);
/// The pause is also this many times the duration of the last look, so that looking takes a bounded
/// share of the thread's time.
const LAG_SHARE: u32 = 20;
/// Longest pause between two looks, also when a look took long.
const LAG_LOOK_MAX: Duration = Duration::from_secs(10);
/// Most messages about added partitions that wait for the control dataflow.
const ADDED_MAX: usize = 16;

/// The topics that a job reads, as they were when they were last described.
pub(crate) struct Watched {
    /// By name.
    topics: BTreeMap<String, Topic>,
}

/// One topic: its id, its known partitions, and since when it is missing.
struct Topic {
    /// The topic's id, if the brokers give ids (KIP-516).
    id: TopicId,
    /// The known partitions.
    partitions: BTreeSet<u32>,
    /// Since when the topic is missing; `None` while it exists.
    gone_since: Option<Instant>,
}

impl Watched {
    /// The topics as they are when the job starts.
    pub(crate) fn new(
        partitions: &BTreeMap<String, Vec<Held>>,
        ids: BTreeMap<String, TopicId>,
    ) -> Self {
        let topic = |(name, held): (&String, &Vec<Held>)| {
            let topic = Topic {
                id: ids.get(name).copied().unwrap_or_default(),
                partitions: held.iter().map(|held| held.partition).collect(),
                gone_since: None,
            };
            (name.clone(), topic)
        };
        Self {
            topics: partitions.iter().map(topic).collect(),
        }
    }

    /// Starts the thread, which describes the topics once per `every` until `stop`. Returns the
    /// channel of added partitions.
    ///
    /// # Errors
    /// When the system cannot create a thread. The thread itself ends the job with `Data` when a
    /// topic was deleted or recreated.
    pub(crate) fn start(
        mut self,
        log: Arc<dyn Log>,
        every: Duration,
        (stats, stop): (Arc<Stats>, Arc<AtomicBool>),
        failure: &Failure,
    ) -> Result<Receiver<Added>> {
        let (to, added) = sync_channel(ADDED_MAX);
        failure.spawn("topics", move || {
            let mut looked = Instant::now();
            let mut weighed = looked;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(STOP_LOOK.min(every));
                if looked.elapsed() >= every {
                    if !self.look(log.as_ref(), &to)? {
                        break;
                    }
                    looked = Instant::now();
                }
                if Instant::now() >= weighed {
                    let began = Instant::now();
                    self.weigh(log.as_ref(), &stats);
                    // A look that took long may have waited for a log that was away, so the pause
                    // is bounded.
                    let pause = (began.elapsed() * LAG_SHARE).min(LAG_LOOK_MAX);
                    weighed = Instant::now() + LAG_LOOK.max(pause);
                }
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// Publishes the topics' end offsets in the statistics, or that they are unknown.
    fn weigh(&self, log: &dyn Log, stats: &Stats) {
        let began = now_ms();
        lock(&stats.looks).looks(began);
        let mut all = Ends::new();
        for name in self.topics.keys() {
            match log.ranges(name) {
                Ok(ranges) => drop(all.insert(name.clone(), ranges)),
                Err(error) => {
                    tracing::debug!(topic = %name, %error, "cannot see its ends");
                    return lock(&stats.looks).unseen();
                }
            }
        }
        lock(&stats.held).clone_from(&all);
        lock(&stats.looks).seen(began, all);
        stats.looks_complete.fetch_add(1, Ordering::Release);
    }

    /// Describes every topic once. Returns false if the control dataflow has ended.
    fn look(&mut self, log: &dyn Log, to: &SyncSender<Added>) -> Result<bool> {
        for (name, topic) in &mut self.topics {
            match topic.look(name, log) {
                Ok(partitions) if partitions.is_empty() => {}
                Ok(partitions) => {
                    let count = partitions.len();
                    tracing::info!(topic = %name, count, "partitions were added to the topic");
                    let topic = name.clone();
                    if to.send(Added { topic, partitions }).is_err() {
                        return Ok(false);
                    }
                }
                // The log is away. Its readers report that.
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::debug!(topic = %name, %error, "cannot look at the topic");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Topic {
    /// Describes the topic. Returns the partitions that were added.
    fn look(&mut self, name: &str, log: &dyn Log) -> Result<Vec<Held>> {
        let Some(now) = log.describe(name)? else {
            let since = *self.gone_since.get_or_insert_with(Instant::now);
            if since.elapsed() < GONE_PATIENCE {
                return Ok(Vec::new());
            }
            let what = format!("topic `{name}` was deleted while this job read it");
            return Err(Error::new(Kind::Data, what));
        };
        self.gone_since = None;
        if now.id.is_known() && self.id.is_known() && now.id != self.id {
            return Err(resume::made_anew(name));
        }
        if now.partitions as usize <= self.partitions.len() {
            return Ok(Vec::new());
        }
        let all = log.ranges(name)?.into_iter().map(Held::from);
        let added: Vec<Held> = all
            .filter(|held| !self.partitions.contains(&held.partition))
            .collect();
        self.partitions.extend(added.iter().map(|it| it.partition));
        Ok(added)
    }
}
