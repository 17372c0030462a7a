//! What a job did so far in one process, for the terminal, the metrics and the status page.
//!
//! The workers and the threads beside them write, whoever shows it reads, at any time. Counters
//! are atomic; what is behind a lock is written a few times a second at most, or once an epoch.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidemill_log::health::{Health, Role, now_ms};
use tidemill_log::log::PartitionRange;
use tidemill_log::waits::Waits;

use crate::journal::Offsets;
use crate::operators::Operators;
use crate::row_counts::{RowCounts, Rows};
use crate::sync::lock;

/// A quantile of the recent freshness looks back this long at least, and twice as long at most.
const RECENT: Duration = Duration::from_secs(10);

/// What topics hold, by name.
pub(crate) type Held = BTreeMap<String, Vec<PartitionRange>>;

/// What is in the log and not in every view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Since when the oldest of it waits, in milliseconds since 1970, or since when nobody knows
    /// what the log holds; none when nothing waits.
    pub since_ms: Option<u64>,
    /// Whether the log could be asked what it holds.
    pub known: bool,
}

/// What a view holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// Rows, of all epochs that are complete in every view.
    pub rows: i64,
    /// How often rows were withheld: another row had the same primary key, theirs held null, or the
    /// table refused them.
    pub conflicts: u64,
    /// Of the rows, those that the table can never hold for what they hold.
    pub unfit: i64,
}

/// A checkpoint that is complete.
pub(crate) struct Taken {
    /// From its mark to its entry in the journal.
    pub(crate) took: Duration,
    /// Bytes that were written for it.
    pub(crate) written: u64,
    /// Bytes of all that it needs.
    pub(crate) kept: u64,
}

/// What the job did so far in this process.
#[derive(Debug)]
pub struct Stats {
    /// When this was made, which is when the process began for all that anybody sees.
    pub began: Instant,
    /// The job's generation in the journal, 0 before it is known (worker 0's process).
    pub generation: AtomicU64,
    /// What is done or waited for before the job is live, in words.
    pub doing: Mutex<Option<String>>,
    /// Records read from the log.
    pub records: AtomicU64,
    /// Bytes of their keys and values.
    pub bytes: AtomicU64,
    /// Of the records, those that were dropped: copies of changes that came before.
    pub copies: AtomicU64,
    /// Records put aside as dead letters.
    pub dead_letters: AtomicU64,
    /// The last epoch bound in the journal (worker 0's process).
    pub bound: AtomicU64,
    /// The last epoch durable in every view of the sink (worker 0's process).
    pub durable: AtomicU64,
    /// The offsets that epoch ends at (worker 0's process).
    pub durable_ends: Mutex<Offsets>,
    /// What tells the schemas that records were read with from others, by topic and id (worker 0's
    /// process).
    pub schemas: Mutex<BTreeMap<(String, u32), i64>>,
    /// What the topics held a moment ago (worker 0's process).
    pub held: Mutex<Held>,
    /// Looks at what the topics hold (worker 0's process).
    pub looks: Mutex<Waits<Held>>,
    /// When the oldest change that was read and is not in every view was committed, in
    /// milliseconds since 1970; 0 when there is none (worker 0's process).
    pub waiting_since: AtomicU64,
    /// The services that the job uses.
    pub health: Health,
    /// How often all topics were asked what they hold (worker 0's process).
    pub looks_complete: AtomicU64,
    /// Keys of each source whose newest change could not be published or decoded, so that their row
    /// is in no view; this process's workers together.
    pub keys_in_error: Mutex<BTreeMap<String, i64>>,
    /// By view name, this process's workers together.
    pub views: Mutex<BTreeMap<String, ViewStats>>,
    /// Rows of the views, of one epoch; this process's workers together.
    pub row_counts: Mutex<RowCounts>,
    /// Milliseconds from a record's timestamp (the source's commit) to its epoch being durable in
    /// every view (worker 0's process; each record counts).
    pub freshness_ms: Mutex<Histogram<u64>>,
    /// The same, of the last seconds alone.
    pub recent: Mutex<Recent>,
    /// The epoch of the checkpoint that this run began with, 0 without one (worker 0's process).
    pub restored: AtomicU64,
    /// The epoch of the last checkpoint, 0 without one (worker 0's process).
    pub checkpointed: AtomicU64,
    /// Checkpoints that this run took (worker 0's process).
    pub checkpoints: AtomicU64,
    /// How long the last of them took from its mark to its entry in the journal, in milliseconds.
    pub checkpoint_ms: AtomicU64,
    /// Bytes that were written for it.
    pub checkpoint_bytes: AtomicU64,
    /// Bytes of all that it needs, which earlier ones wrote in part.
    pub state_bytes: AtomicU64,
    /// True while epochs of an earlier run are replayed.
    pub replaying: AtomicBool,
    /// True from when all processes are connected, state is restored and every epoch of earlier
    /// runs has passed all operators.
    pub live: AtomicBool,
    /// Milliseconds from [`Stats::began`] until then, 0 before.
    pub recovery_ms: AtomicU64,
    /// Milliseconds from when the workers were told where to begin until then, 0 before.
    pub restore_ms: AtomicU64,
    /// What the operators did and hold.
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
            copies: AtomicU64::new(0),
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
            operators: Operators::default(),
        }
    }
}

impl Stats {
    /// Statistics that report to `health`.
    pub fn with(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// Records in the log that are not in every view yet, by topic and partition. Counts offsets:
    /// where a topic has gaps (compaction, transactions) it is an upper bound. Empty where the log
    /// was not looked at yet, and in other processes than worker 0's.
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

    /// How far the views are behind the log. Only worker 0's process knows.
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

    /// The freshness that `share` of the last changes have (0 to 1), in milliseconds: of those that
    /// are in the views, and at least the age of what waits to be. None without either.
    pub fn freshness(&self, share: f64) -> Option<u64> {
        let through = lock(&self.recent).quantile(share);
        let waiting = self
            .lag()
            .since_ms
            .map(|since| now_ms().saturating_sub(since));
        through.max(waiting)
    }

    /// Why the job is not ready; none when it is live and its views are as new as they were before
    /// this run began.
    pub fn unready(&self) -> Option<String> {
        if !self.live.load(Ordering::Relaxed) {
            let doing = lock(&self.doing).clone();
            return Some(doing.unwrap_or_else(|| "starting".to_owned()));
        }
        let replaying = self.replaying.load(Ordering::Relaxed);
        replaying.then(|| "replaying epochs of an earlier run".to_owned())
    }

    /// Says what is done or waited for now.
    pub fn say(&self, doing: impl Into<String>) {
        *lock(&self.doing) = Some(doing.into());
    }

    /// Records were read, and of them so many dropped as copies.
    pub(crate) fn read(&self, records: usize, bytes: usize, copies: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.copies.fetch_add(copies as u64, Ordering::Relaxed);
    }

    /// So many more keys of a source, or fewer, are in error.
    pub(crate) fn refuses(&self, source: &str, more: i64) {
        if more != 0 {
            let mut keys = lock(&self.keys_in_error);
            *keys.entry(source.to_owned()).or_default() += more;
        }
    }

    /// Keys of all sources whose newest change could not be published or decoded.
    pub fn keys_in_error(&self) -> u64 {
        let keys = lock(&self.keys_in_error).values().sum::<i64>();
        u64::try_from(keys).unwrap_or(0)
    }

    /// All views have so many rows.
    pub(crate) fn counted(&self, rows: &Rows) {
        let mut views = lock(&self.views);
        for (view, rows) in rows {
            if let Some(view) = views.get_mut(view) {
                view.rows = *rows;
            }
        }
    }

    /// A checkpoint was taken.
    pub(crate) fn took(&self, taken: &Taken) {
        let ms = u64::try_from(taken.took.as_millis()).unwrap_or(u64::MAX);
        self.checkpoint_ms.store(ms, Ordering::Relaxed);
        self.checkpoint_bytes
            .store(taken.written, Ordering::Relaxed);
        self.state_bytes.store(taken.kept, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// The job is live; `told` is when the workers were told where to begin. Only the first call
    /// counts.
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

/// Whether the views have all that the topics hold.
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

/// Milliseconds of the last seconds.
#[derive(Debug)]
pub struct Recent {
    now: Histogram<u64>,
    before: Histogram<u64>,
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
    pub(crate) fn record(&mut self, ms: u64, records: u64) {
        self.turn(self.since.elapsed());
        self.now.saturating_record_n(ms, records);
    }

    /// The value that so many (0 to 1) of the last ones are at or below; none without any.
    pub fn quantile(&mut self, share: f64) -> Option<u64> {
        self.turn(self.since.elapsed());
        let mut all = self.before.clone();
        // Both have the same bounds, so that it cannot fail.
        let _infallible = all.add(&self.now);
        (!all.is_empty()).then(|| all.value_at_quantile(share))
    }

    /// Forgets what is too long ago; `age` is that of the current half.
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

/// From 1 ms to 1 hour with two significant digits.
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
