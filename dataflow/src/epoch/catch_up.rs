//! Draining at a stop: binds everything that the topics held when the stop was asked for.
//!
//! A drained stop leaves the views with all records that the topics held at that moment. Input: the
//! bound offsets. Output: whether the run may end. The run also ends after [`CATCH_UP_MAX`], or
//! when no record was bound for [`STILL_MAX`], for example while a service is away. Then the log
//! says how many records are left for the next start.
//!
//! ```text
//! stop asked ── ends of the topics asked ── … bind, bind … ── all bound ── checkpoint ── stop
//!            └──────────── at most CATCH_UP_MAX ─────────────┘
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use tidemill_log::log::{Log, PartitionRange};
use tidemill_state::journal::Offsets;

/// Longest time that a stop waits until the records are bound that the topics held.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// If the number of missing records did not change for this long, the stop waits no longer.
const STILL_MAX: Duration = Duration::from_secs(2);

/// The end offsets that the topics have at a stop, and whether they are reached.
pub(crate) struct CatchUp {
    /// The log, which is asked for the end offsets.
    log: Arc<dyn Log>,
    /// The topics of all sources.
    topics: Vec<String>,
    /// The stop, once it was asked for.
    asked: Option<Asked>,
}

/// A stop that was asked for.
struct Asked {
    /// When the stop was asked for.
    at: Instant,
    /// The end offsets, from the thread that asks the log.
    answer: Receiver<Vec<(String, PartitionRange)>>,
    /// The end offsets, when they are known.
    held: Option<Vec<(String, PartitionRange)>>,
    /// The number of records that were not bound at the last look, and since when this number
    /// holds.
    missing: u64,
    /// Since when the number of missing records is the same.
    since: Instant,
    /// Whether the wait is over.
    over: bool,
}

impl CatchUp {
    /// A drain of these topics. The log is asked for nothing before [`CatchUp::is_over`].
    pub(crate) fn new(log: Arc<dyn Log>, topics: Vec<String>) -> Self {
        let asked = None;
        Self { log, topics, asked }
    }

    /// Whether the run may end; `bound` holds the bound end offsets. The first call asks the topics
    /// for their end offsets, on a thread of its own because a broker may be slow or away.
    pub(crate) fn is_over(&mut self, bound: &Offsets) -> bool {
        let asked = match &mut self.asked {
            Some(asked) => asked,
            none => none.insert(Asked::ask(&self.log, &self.topics)),
        };
        if !asked.over {
            asked.look(bound);
        }
        asked.over
    }
}

impl Asked {
    /// Asks the log for the end offsets, on a thread, because the log may be slow.
    fn ask(log: &Arc<dyn Log>, topics: &[String]) -> Self {
        let (tell, answer) = sync_channel(1);
        let (log, topics) = (Arc::clone(log), topics.to_vec());
        let ask = move || {
            let mut held = Vec::new();
            for topic in topics {
                match log.ranges(&topic) {
                    Ok(ranges) => held.extend(ranges.into_iter().map(|it| (topic.clone(), it))),
                    Err(error) => {
                        tracing::warn!(topic, %error, "cannot ask a topic for its end");
                        return;
                    }
                }
            }
            // Sending fails only when the run has ended; nobody needs the answer then.
            let _ = tell.send(held);
        };
        let asking = std::thread::Builder::new().name("ends".into()).spawn(ask);
        if let Err(error) = asking {
            tracing::warn!(%error, "no thread to ask the topics for their ends");
        }
        let now = Instant::now();
        Self {
            at: now,
            answer,
            held: None,
            missing: u64::MAX,
            since: now,
            over: false,
        }
    }

    /// Compares the bound offsets with the topics' end offsets, and decides whether to wait on.
    fn look(&mut self, bound: &Offsets) {
        if self.held.is_none() {
            match self.answer.try_recv() {
                Ok(held) => self.held = Some(held),
                Err(TryRecvError::Disconnected) => self.over = true,
                Err(TryRecvError::Empty) => self.over = self.at.elapsed() >= STILL_MAX,
            }
        }
        let Some(held) = &self.held else { return };
        let missing = held.iter().map(|(topic, range)| {
            let end = bound.get(topic).and_then(|ends| ends.get(&range.partition));
            let end = end.copied().unwrap_or(range.low).max(range.low);
            u64::try_from(range.high - end).unwrap_or(0)
        });
        let missing = missing.sum();
        if missing != self.missing {
            (self.missing, self.since) = (missing, Instant::now());
        }
        let late = self.at.elapsed() >= CATCH_UP_MAX || self.since.elapsed() >= STILL_MAX;
        self.over = missing == 0 || late;
        if self.over && missing > 0 {
            tracing::warn!(
                records = missing,
                "stopped behind the topics: so many of the records that they held when the stop \
                 was asked for are not in the views; the next start reads them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_log::log::{self, Record};

    fn bound(end: i64) -> Offsets {
        Offsets::from([("t".to_owned(), [(0, end)].into())])
    }

    fn topic(folder: &tempfile::TempDir) -> Arc<dyn Log> {
        let file = folder.path().join("log.sqlite");
        let log = log::open(&format!("sqlite://{}", file.display())).unwrap();
        log.create_topic("t", 1).unwrap();
        let record = Record {
            topic: "t".to_owned(),
            partition: Some(0),
            key: None,
            value: None,
            timestamp_ms: 0,
        };
        log.producer().unwrap().append(&vec![record; 5]).unwrap();
        log
    }

    fn over_after(catch_up: &mut CatchUp, bound: &Offsets) -> Duration {
        let began = Instant::now();
        while !catch_up.is_over(bound) {
            std::thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }

    #[test]
    fn a_run_ends_when_all_is_bound_that_the_topics_held() {
        let folder = tempfile::tempdir().unwrap();
        let mut catch_up = CatchUp::new(topic(&folder), vec!["t".to_owned()]);
        let began = Instant::now();
        // It moves, so it is waited for.
        for end in 0..5 {
            assert!(!catch_up.is_over(&bound(end)), "{end}");
            std::thread::sleep(STILL_MAX / 3);
        }
        assert!(began.elapsed() > STILL_MAX);
        assert!(over_after(&mut catch_up, &bound(5)) < STILL_MAX / 2);
    }

    #[test]
    fn a_run_that_nothing_moves_any_more_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut catch_up = CatchUp::new(topic(&folder), vec!["t".to_owned()]);
        let waited = over_after(&mut catch_up, &bound(3));
        assert!(waited >= STILL_MAX && waited < CATCH_UP_MAX, "{waited:?}");
        let mut unknown = CatchUp::new(topic(&folder), vec!["none".to_owned()]);
        assert!(over_after(&mut unknown, &bound(3)) <= STILL_MAX);
    }
}
