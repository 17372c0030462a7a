//! Job statistics of one process, for the terminal, the metrics and the control center.
//!
//! The workers and the threads beside them write the statistics; any thread may read them at any
//! time. Counters are atomic. Values behind a lock are written a few times a second, or once per
//! epoch.

pub(crate) mod operators;
pub(crate) mod row_counts;
pub(crate) mod sink_writes;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use operators::Operators;
use row_counts::{CountByView, RowCounts};
use sink_writes::SinkWrites;
use tidemill_log::health::lag::Waits;
use tidemill_log::health::{Health, Role, now_ms};
use tidemill_log::lock;
use tidemill_log::log::PartitionRange;
use tidemill_state::journal::Offsets;

/// A quantile of the recent freshness covers at least this long, and at most twice as long.
const RECENT: Duration = Duration::from_secs(10);

/// The offsets that topics hold, by topic.
pub(crate) type Held = BTreeMap<String, Vec<PartitionRange>>;

/// The lag: changes that are in the log and not yet in every view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Since when (ms since 1970) the oldest such change has been waiting, or since when the log's
    /// end is unknown; `None` when nothing waits.
    pub since_ms: Option<u64>,
    /// Whether the log's end is known.
    pub known: bool,
}

/// The statistics of one view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// The number of rows, of all epochs that are complete in every view.
    pub rows: i64,
    /// How many rows were withheld so far: because of a key conflict, of null in their key, or
    /// because the table refused them.
    pub conflicts: u64,
    /// The number of current rows that the table can never hold because of their values.
    pub unfit: i64,
}

/// A complete checkpoint.
pub(crate) struct Taken {
    /// The time from marking the epoch until the entry in the journal.
    pub(crate) took: Duration,
    /// Bytes that were written for the checkpoint.
    pub(crate) written: u64,
    /// Bytes of all parts that the checkpoint needs.
    pub(crate) kept: u64,
}

/// The statistics of a job in one process, since the process began.
#[derive(Debug)]
pub struct Stats {
    /// When these statistics were created, which counts as the beginning of the process.
    pub began: Instant,
    /// The job's generation in the journal; 0 before it is known (process of worker 0).
    pub generation: AtomicU64,
    /// What the job does or waits for before it is live, for people.
    pub doing: Mutex<Option<String>>,
    /// The number of records read from the log.
    pub records: AtomicU64,
    /// Bytes of the keys and values of those records.
    pub bytes: AtomicU64,
    /// The number of those records that were dropped as duplicates.
    pub duplicates: AtomicU64,
    /// The number of dead letters of records and rows (without withheld rows).
    pub dead_letters: AtomicU64,
    /// The last epoch that is bound in the journal (process of worker 0).
    pub bound: AtomicU64,
    /// The last epoch that is durable in every view of the sink (process of worker 0).
    pub durable: AtomicU64,
    /// The end offsets of that epoch (process of worker 0).
    pub durable_ends: Mutex<Offsets>,
    /// The fingerprints of the schemas with which records were read, by topic and schema id
    /// (process of worker 0).
    pub schemas: Mutex<BTreeMap<(String, u32), i64>>,
    /// The offsets that the topics held at the last look (process of worker 0).
    pub held: Mutex<Held>,
    /// The looks at what the topics hold, for the lag (process of worker 0).
    pub looks: Mutex<Waits<Held>>,
    /// The commit time (ms since 1970) of the oldest change that was read and is not in every view;
    /// 0 when there is none (process of worker 0).
    pub waiting_since: AtomicU64,
    /// The health of the services that the job uses.
    pub health: Health,
    /// How often all topics were asked for their offsets (process of worker 0).
    pub looks_complete: AtomicU64,
    /// The number of keys in error by source: keys whose newest change could not be published or
    /// decoded, so that they have no row. All workers of this process together.
    pub keys_in_error: Mutex<BTreeMap<String, i64>>,
    /// The statistics of each view, all workers of this process together.
    pub views: Mutex<BTreeMap<String, ViewStats>>,
    /// The row counts of the views, consistent at one epoch; all workers of this process together.
    pub row_counts: Mutex<RowCounts>,
    /// The freshness in ms: from a record's commit in the source until its epoch is durable in
    /// every view. Each record counts (process of worker 0).
    pub freshness_ms: Mutex<Histogram<u64>>,
    /// The freshness of the last seconds.
    pub recent: Mutex<Recent>,
    /// The epoch of the checkpoint that this run resumed from; 0 without one (process of worker 0).
    pub restored: AtomicU64,
    /// The epoch of the last checkpoint; 0 without one (process of worker 0).
    pub checkpointed: AtomicU64,
    /// The number of checkpoints that this run took (process of worker 0).
    pub checkpoints: AtomicU64,
    /// The duration of the last checkpoint in ms, from marking its epoch until its entry in the
    /// journal.
    pub checkpoint_ms: AtomicU64,
    /// Bytes that were written for the last checkpoint.
    pub checkpoint_bytes: AtomicU64,
    /// Bytes of all parts that the last checkpoint needs, most of them written by earlier ones.
    pub state_bytes: AtomicU64,
    /// Whether epochs of an earlier run are being replayed.
    pub replaying: AtomicBool,
    /// Whether the job is live: all processes are connected, state is restored, and every epoch of
    /// earlier runs has passed all operators.
    pub live: AtomicBool,
    /// The time in ms from [`Stats::began`] until the job was live; 0 before.
    pub recovery_ms: AtomicU64,
    /// The time in ms from when the workers received the start until the job was live; 0 before.
    pub restore_ms: AtomicU64,
    /// What was written to the sink.
    pub sink: SinkWrites,
    /// The metrics of the operators.
    pub operators: Operators,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            generation: AtomicU64::new(0),
            doing: Mutex::default(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            durable_ends: Mutex::default(),
            schemas: Mutex::default(),
            held: Mutex::default(),
            looks: Mutex::default(),
            waiting_since: AtomicU64::new(0),
            health: Health::default(),
            looks_complete: AtomicU64::new(0),
            keys_in_error: Mutex::default(),
            views: Mutex::default(),
            row_counts: Mutex::default(),
            freshness_ms: Mutex::new(histogram()),
            recent: Mutex::default(),
            restored: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            checkpoint_ms: AtomicU64::new(0),
            checkpoint_bytes: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            replaying: AtomicBool::new(false),
            live: AtomicBool::new(false),
            recovery_ms: AtomicU64::new(0),
            restore_ms: AtomicU64::new(0),
            sink: SinkWrites::default(),
            operators: Operators::default(),
        }
    }
}

impl Stats {
    /// Statistics that report service outcomes to `health`.
    pub fn with(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// The lag in records by topic and partition: records in the log that are not in every view
    /// yet. It is a difference of offsets, so it is an upper bound for topics with gaps
    /// (compaction, transactions). Empty before the first look at the log, and in other processes
    /// than worker 0's.
    pub fn behind(&self) -> BTreeMap<String, BTreeMap<u32, u64>> {
        let held = lock(&self.held);
        let durable = lock(&self.durable_ends);
        let of = |(topic, held): (&String, &Vec<PartitionRange>)| {
            let ends = durable.get(topic);
            let behind = |held: &PartitionRange| {
                let end = ends.and_then(|ends| ends.get(&held.partition)).copied();
                let from = end.unwrap_or(held.low).max(held.low);
                let behind = held.high.saturating_sub(from);
                (held.partition, u64::try_from(behind).unwrap_or(0))
            };
            (topic.clone(), held.iter().map(behind).collect())
        };
        held.iter().map(of).collect()
    }

    /// The lag in time. Only the process of worker 0 knows it.
    pub fn lag(&self) -> Lag {
        let durable = lock(&self.durable_ends).clone();
        let mut looks = lock(&self.looks);
        let oldest = looks.oldest(|held| are_durable(held, &durable));
        let mut unknown = looks.unknown_since();
        if unknown.is_none() && looks.are_there() {
            let mut downs = self.health.downs().into_iter();
            unknown = downs.find(|it| it.role == Role::Log).map(|it| it.since_ms);
        }
        let read = Some(self.waiting_since.load(Ordering::Relaxed)).filter(|at| *at > 0);
        Lag {
            since_ms: oldest.into_iter().chain(unknown).chain(read).min(),
            known: unknown.is_none() && looks.are_there(),
        }
    }

    /// The freshness in ms at a quantile (`share`, 0 to 1) of the recent changes. It is at least
    /// the age of the oldest change that is still waiting. `None` without any change.
    pub fn freshness(&self, share: f64) -> Option<u64> {
        let through = lock(&self.recent).quantile(share);
        let waiting = self
            .lag()
            .since_ms
            .map(|since| now_ms().saturating_sub(since));
        through.max(waiting)
    }

    /// Why the job is not ready; `None` when it is live and its views are as new as before this
    /// run.
    pub fn unready(&self) -> Option<String> {
        if !self.live.load(Ordering::Relaxed) {
            let doing = lock(&self.doing).clone();
            return Some(doing.unwrap_or_else(|| "starting".to_owned()));
        }
        let replaying = self.replaying.load(Ordering::Relaxed);
        replaying.then(|| "replaying epochs of an earlier run".to_owned())
    }

    /// Sets what the job does or waits for now, for people.
    pub fn say(&self, doing: impl Into<String>) {
        *lock(&self.doing) = Some(doing.into());
    }

    /// Counts records that were read, and duplicates among them.
    pub(crate) fn read(&self, records: usize, bytes: usize, duplicates: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.duplicates
            .fetch_add(duplicates as u64, Ordering::Relaxed);
    }

    /// Adds `more` keys in error to a source; negative when keys are right again.
    pub(crate) fn refuses(&self, source: &str, more: i64) {
        if more != 0 {
            let mut keys = lock(&self.keys_in_error);
            *keys.entry(source.to_owned()).or_default() += more;
        }
    }

    /// The number of keys in error of all sources.
    pub fn keys_in_error(&self) -> u64 {
        let keys = lock(&self.keys_in_error).values().sum::<i64>();
        u64::try_from(keys).unwrap_or(0)
    }

    /// Sets the row counts of all views.
    pub(crate) fn counted(&self, rows: &CountByView) {
        let mut views = lock(&self.views);
        for (view, rows) in rows {
            if let Some(view) = views.get_mut(view) {
                view.rows = *rows;
            }
        }
    }

    /// Records a complete checkpoint.
    pub(crate) fn took(&self, taken: &Taken) {
        let ms = u64::try_from(taken.took.as_millis()).unwrap_or(u64::MAX);
        self.checkpoint_ms.store(ms, Ordering::Relaxed);
        self.checkpoint_bytes
            .store(taken.written, Ordering::Relaxed);
        self.state_bytes.store(taken.kept, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the job is live; `told` is when the workers received the start. Only the first
    /// call counts.
    pub(crate) fn went_live(&self, told: Instant) {
        if self.live.load(Ordering::Relaxed) {
            return;
        }
        let ms = |since: Instant| {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            ms.max(1) // 0 says that it is not known yet
        };
        self.recovery_ms.store(ms(self.began), Ordering::Relaxed);
        self.restore_ms.store(ms(told), Ordering::Relaxed);
        *lock(&self.doing) = None;
        self.live.store(true, Ordering::Release);
    }
}

/// Whether the views contain everything that the topics hold.
fn are_durable(held: &Held, durable: &Offsets) -> bool {
    held.iter().all(|(topic, held)| {
        let ends = durable.get(topic);
        let has = |held: &PartitionRange| {
            let end = ends.and_then(|ends| ends.get(&held.partition)).copied();
            end.unwrap_or(held.low).max(held.low) >= held.high
        };
        held.iter().all(has)
    })
}

/// A histogram of the last seconds, in ms: two halves, of which the older one is dropped in turn.
#[derive(Debug)]
pub struct Recent {
    /// The newer half, in ms.
    now: Histogram<u64>,
    /// The older half, in ms.
    before: Histogram<u64>,
    /// When the newer half began.
    since: Instant,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            now: histogram(),
            before: histogram(),
            since: Instant::now(),
        }
    }
}

impl Recent {
    /// Counts `records` records with the value `ms`.
    pub(crate) fn record(&mut self, ms: u64, records: u64) {
        self.turn(self.since.elapsed());
        self.now.saturating_record_n(ms, records);
    }

    /// The value at a quantile (0 to 1) of the last seconds; `None` without any.
    pub fn quantile(&mut self, share: f64) -> Option<u64> {
        self.turn(self.since.elapsed());
        let mut all = self.before.clone();
        // Both histograms have the same bounds, so adding cannot fail.
        let _infallible = all.add(&self.now);
        (!all.is_empty()).then(|| all.value_at_quantile(share))
    }

    /// Drops what is too old; `age` is the age of the current half.
    fn turn(&mut self, age: Duration) {
        if age < RECENT {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.reset();
        if age >= RECENT * 2 {
            self.before.reset();
        }
        self.since = Instant::now();
    }
}

/// An empty histogram from 1 ms to 1 hour with two significant digits.
fn histogram() -> Histogram<u64> {
    // Cannot fail for these constants.
    Histogram::new_with_bounds(1, 3_600_000, 2).unwrap_or_else(|_| unreachable!("constant bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_counts_what_the_views_lack() {
        let stats = Stats::default();
        assert!(stats.behind().is_empty());
        let held = [(0, 10, 15), (1, 0, 7), (2, 5, 5)];
        let held = held.map(|(partition, low, high)| PartitionRange {
            partition,
            low,
            high,
        });
        lock(&stats.held).insert("t".to_owned(), held.to_vec());
        // Partition 0 was truncated beyond what is durable, 1 is durable in part.
        let durable = BTreeMap::from([(0, 3), (1, 4)]);
        lock(&stats.durable_ends).insert("t".to_owned(), durable);
        let behind = BTreeMap::from([(0, 5), (1, 3), (2, 0)]);
        assert_eq!(stats.behind(), BTreeMap::from([("t".to_owned(), behind)]));
    }

    #[test]
    fn freshness_grows_with_what_waits() {
        let stats = Stats::default();
        assert_eq!((stats.freshness(0.5), stats.lag().since_ms), (None, None));
        assert!(!stats.lag().known, "nobody looked yet");
        lock(&stats.recent).record(20, 5);
        assert_eq!(stats.freshness(0.99), Some(20));
        let held = [PartitionRange {
            partition: 0,
            low: 0,
            high: 3,
        }];
        let held = Held::from([("t".to_owned(), held.to_vec())]);
        let since = now_ms() - 60_000;
        lock(&stats.looks).seen(since, held);
        assert_eq!(stats.lag().since_ms, Some(since));
        assert!(stats.freshness(0.5) >= Some(60_000));
        lock(&stats.durable_ends).insert("t".to_owned(), BTreeMap::from([(0, 3)]));
        assert_eq!(
            (stats.freshness(0.99), stats.lag().since_ms),
            (Some(20), None)
        );
        stats.waiting_since.store(since, Ordering::Relaxed);
        assert!(stats.freshness(0.5) >= Some(60_000));
        stats.waiting_since.store(0, Ordering::Relaxed);
        lock(&stats.looks).unseen();
        let lag = stats.lag();
        assert_eq!((lag.since_ms, lag.known), (Some(since), false));
    }

    #[test]
    fn recent_values_are_forgotten() {
        let mut recent = Recent::default();
        assert_eq!(recent.quantile(0.5), None);
        recent.record(100, 1);
        recent.turn(RECENT);
        recent.record(5, 1);
        assert_eq!(recent.quantile(0.5), Some(5));
        assert_eq!(recent.quantile(0.99), Some(100));
        recent.turn(RECENT);
        assert_eq!(recent.quantile(0.99), Some(5));
        recent.turn(RECENT * 2);
        assert_eq!(recent.quantile(0.99), None);
    }

    #[test]
    fn a_job_is_ready_when_it_is_live_and_replays_nothing() {
        let stats = Stats::default();
        assert_eq!(stats.unready().as_deref(), Some("starting"));
        stats.say("waiting: no topic");
        assert_eq!(stats.unready().as_deref(), Some("waiting: no topic"));
        stats.replaying.store(true, Ordering::Relaxed);
        stats.went_live(Instant::now());
        assert!(stats.unready().unwrap().starts_with("replaying"));
        stats.replaying.store(false, Ordering::Relaxed);
        assert_eq!(stats.unready(), None);
        assert!(stats.recovery_ms.load(Ordering::Relaxed) > 0);
    }
}
