//! Watching the topics while a job runs: partitions that are added, and topics that are not the
//! same any more.
//!
//! A thread beside the workers, in worker 0's process, asks the log now and then. Added partitions
//! flow out to the control dataflow, which binds where they begin and tells the workers; a topic
//! that was deleted or made anew ends the job with an error, since offsets alone would go on as if
//! nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tidemill_log::health::now_ms;
use tidemill_log::log::{Log, TopicId};

use crate::failure::Failure;
use crate::stats::{Held as Ends, Stats};
use crate::sync::lock;
use crate::time::messages::{Added, Held};
use crate::time::resume;
use crate::{Error, Kind, Result};

/// How long a topic may not be there before it counts as deleted: brokers that begin know it late.
const GONE_PATIENCE: Duration = Duration::from_secs(15);
/// How soon a stop is seen.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// How often what the topics hold is looked at, which tells how far behind the views are.
const LAG_LOOK: Duration = Duration::from_secs(2);
/// Such a look takes at most one part of so many of the thread's time.
const LAG_SHARE: u32 = 20;
/// But the pause between two looks is not longer.
const LAG_LOOK_MAX: Duration = Duration::from_secs(10);
/// Topics whose added partitions wait to be told.
const ADDED_MAX: usize = 16;

/// The topics that a job reads.
pub(crate) struct Watched {
    topics: BTreeMap<String, Topic>,
}

struct Topic {
    id: TopicId,
    partitions: BTreeSet<u32>,
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

    /// Looks every so often until `stop`. Receives what is added.
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
                    // A look that took long may have waited for a log that was away.
                    let pause = (began.elapsed() * LAG_SHARE).min(LAG_LOOK_MAX);
                    weighed = Instant::now() + LAG_LOOK.max(pause);
                }
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// Tells what the topics hold, or that nobody knows.
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

    /// One look at every topic; false when nobody wants to know any more.
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
                // The log is away, which its readers say.
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
    /// What was added to it.
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
