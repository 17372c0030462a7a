//! Statistics of one ingest process: counters, lag and health, for the terminal, `status` and
//! metrics.
//!
//! All stages share one [`Stats`] and only write to it. Who shows it reads [`Stats::unpublished`]
//! (lag), [`Stats::unready`] (readiness), [`Stats::last_noticed`] and the counters.

mod snapshot;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill_log::envelope::event::Change;
use tidemill_log::health::Health;
use tidemill_log::health::lag::Waits;

pub use snapshot::SnapshotProgress;

/// The statistics of one ingest process, shared by all its stages. Counters start at 0 with the
/// process and never decrease.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records received from the API.
    pub fetched: AtomicU64,
    /// Pages received from the API.
    pub pages: AtomicU64,
    /// Requests that failed and were repeated.
    pub retries: AtomicU64,
    /// Pages that failed for good.
    pub failed_pages: AtomicU64,
    /// Records landed: inserted, updated or found unchanged.
    pub landed: AtomicU64,
    /// Records landed that were inserted or updated.
    pub changed: AtomicU64,
    /// Row changes captured. The truncate at the beginning of a snapshot does not count.
    pub captured: AtomicU64,
    /// Captured changes that are durable in the log.
    pub published: AtomicU64,
    /// Captured changes that are durable as dead letters.
    pub unpublishable: AtomicU64,
    /// Dead letters of all stages.
    pub dead_letters: AtomicU64,
    /// The health of the services that the ingest uses.
    pub health: Health,
    /// PostgreSQL: the end of the WAL (LSN) at the last observation; 0 before the first one.
    pub wal: AtomicU64,
    /// Everything before this LSN, or up to this change id of a SQLite file, is captured and
    /// published; 0 while it is unknown.
    passed: AtomicU64,
    /// Observations of the end of the WAL.
    wal_looks: Mutex<Waits<u64>>,
    /// PostgreSQL: bytes of WAL that the server keeps for the slot; `None` while it is unknown.
    wal_kept: Mutex<Option<u64>>,
    /// SQLite: the changes that the last observation found.
    unread: Mutex<Option<Unread>>,
    /// Number of changes of captured tables that were found in the catalog, because the replication
    /// stream does not report them.
    pub noticed: AtomicU64,
    /// The newest of these, the newest last.
    last_noticed: Mutex<VecDeque<Noticed>>,
    /// Whether the capture was ever open in this process.
    capturing: AtomicBool,
    /// See [`Stats::is_settled`].
    settled: AtomicBool,
    /// The snapshot that this process read, if it read one.
    snapshot: Mutex<SnapshotProgress>,
    /// Since when fetching is paused, in milliseconds since 1970; 0 while it is not.
    paused_ms: AtomicU64,
    /// Why publishing is interrupted; `None` while it runs.
    waiting: Mutex<Option<String>>,
}

/// Number of noticed changes that are kept.
const NOTICED_KEPT_MAX: usize = 20;

/// A change of a captured table that was found in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// When it was found, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// One line: which table, what was found, and what the ingest does about it.
    pub what: String,
}

/// The lag of an ingest: changes that are committed and not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpublished {
    /// Since when the oldest change waits, in milliseconds since 1970; or since when the lag is
    /// unknown. `None` when nothing waits.
    pub since_ms: Option<u64>,
    /// PostgreSQL: bytes of WAL that are not captured and published. `None` when unknown.
    pub wal_bytes: Option<u64>,
    /// SQLite: number of changes that are not published. `None` when unknown.
    pub changes: Option<u64>,
}

impl Unpublished {
    /// Whether the size of the lag is known.
    pub fn is_known(&self) -> bool {
        self.wal_bytes.is_some() || self.changes.is_some()
    }
}

/// SQLite: the changes of the captured tables that the file holds and that are not published.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Their number.
    pub(crate) changes: u64,
    /// The id of the newest one.
    pub(crate) last: u64,
    /// The commit time of the oldest one, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<u64>,
}

impl Stats {
    /// Adds `n` to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Why nothing is published at the moment, as a fragment for people; `None` while publishing
    /// runs.
    pub fn unready(&self) -> Option<String> {
        let waiting = self.waiting().clone();
        waiting.or_else(|| {
            let capturing = self.capturing.load(Ordering::Relaxed);
            (!capturing).then(|| "opening the capture".to_owned())
        })
    }

    /// Notes since when fetching is paused, in milliseconds since 1970; `None` when it is not. True
    /// when that is new.
    pub(crate) fn pause(&self, since_ms: Option<u64>) -> bool {
        let since_ms = since_ms.unwrap_or(0);
        self.paused_ms.swap(since_ms, Ordering::Relaxed) != since_ms
    }

    /// Since when fetching is paused, in milliseconds since 1970; `None` while it is not.
    pub fn paused_ms(&self) -> Option<u64> {
        Some(self.paused_ms.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// Whether the capture is being opened. Until it is open, tables that are read as a snapshot
    /// may still get new schemas.
    pub fn is_opening(&self) -> bool {
        self.waiting().is_none() && !self.capturing.load(Ordering::Relaxed)
    }

    /// Whether the registry has received the columns of all captured tables as the catalog had them
    /// after the start of this process.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Makes [`Stats::is_settled`] true.
    pub(crate) fn mark_settled(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Statistics whose health is `health`.
    pub fn with(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// An observation of the end of the WAL begins.
    pub(crate) fn begin_observation(&self) {
        locked(&self.wal_looks).looks(tidemill_log::health::now_ms());
    }

    /// Result of an observation: the LSN of the WAL's end at `at_ms`, or `None` when it failed.
    pub(crate) fn observe_wal_end(&self, at_ms: u64, end: Option<u64>) {
        let mut looks = locked(&self.wal_looks);
        match end {
            Some(end) => {
                self.wal.store(end, Ordering::Relaxed);
                looks.seen(at_ms, end);
            }
            None => looks.unseen(),
        }
    }

    /// Result of an observation of the slot: the bytes of WAL that the server keeps for it, or
    /// `None` when nobody knows.
    pub(crate) fn observe_wal_kept(&self, bytes: Option<u64>) {
        *locked(&self.wal_kept) = bytes;
    }

    /// Bytes of WAL that the server keeps for the slot of the capture, from where its decoding
    /// begins after a restart. `None` when nobody knows, and for SQLite.
    pub fn wal_kept(&self) -> Option<u64> {
        *locked(&self.wal_kept)
    }

    /// Result of an observation of a SQLite file at `at_ms`, or `None` when it failed.
    pub(crate) fn observe_unread(&self, at_ms: u64, found: Option<Unread>) {
        let mut looks = locked(&self.wal_looks);
        match found {
            Some(found) => {
                looks.seen(at_ms, 0);
                *locked(&self.unread) = Some(found);
            }
            None => looks.unseen(),
        }
    }

    /// The LSN or change id through which everything is captured and published.
    pub(crate) fn passed_so_far(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Everything through `lsn` is captured and published.
    pub(crate) fn passed(&self, lsn: Option<u64>) {
        if let Some(lsn) = lsn {
            self.passed.fetch_max(lsn, Ordering::Relaxed);
        }
    }

    /// The lag at this moment.
    pub fn unpublished(&self) -> Unpublished {
        let mut looks = locked(&self.wal_looks);
        let (passed, wal) = (
            self.passed.load(Ordering::Relaxed),
            self.wal.load(Ordering::Relaxed),
        );
        let oldest = looks.oldest(|end| reached(passed, *end));
        let unknown = looks.unknown_since();
        let waiting = match (reached(passed, wal), passed) {
            (true, _) => Some(0),
            // Nothing was captured yet.
            (false, 0) => None,
            (false, _) => Some(wal.saturating_sub(passed)),
        };
        let unread = *locked(&self.unread);
        let left = unread.map(|it| match passed >= it.last {
            true => Unread::default(),
            false => it,
        });
        let in_file = left.and_then(|it| it.oldest_ms);
        let known = unknown.is_none();
        Unpublished {
            since_ms: oldest.into_iter().chain(unknown).chain(in_file).min(),
            wal_bytes: waiting.filter(|_| known && unread.is_none()),
            changes: left.map(|it| it.changes).filter(|_| known),
        }
    }

    /// Whether the capture was ever open in this process.
    pub(crate) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }

    /// Adds noticed changes; one that equals the newest is dropped.
    pub(crate) fn add_noticed(&self, noticed: Vec<String>) {
        let mut all = locked(&self.last_noticed);
        for what in noticed {
            if all.back().is_some_and(|last| last.what == what) {
                continue;
            }
            Self::add(&self.noticed, 1);
            if all.len() == NOTICED_KEPT_MAX {
                all.pop_front();
            }
            let at_ms = tidemill_log::health::now_ms();
            all.push_back(Noticed { at_ms, what });
        }
    }

    /// The last noticed changes, the newest last; at most 20.
    pub fn last_noticed(&self) -> Vec<Noticed> {
        locked(&self.last_noticed).iter().cloned().collect()
    }

    /// The progress of the snapshot that this process reads or has read; `None` when it began
    /// none.
    pub fn snapshot(&self) -> Option<SnapshotProgress> {
        let progress = locked(&self.snapshot).clone();
        (progress.began_ms > 0).then_some(progress)
    }

    /// A batch with these changes was captured and, if it is not empty, published.
    pub(crate) fn note_snapshot<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        is_empty: bool,
    ) {
        locked(&self.snapshot).note(changes, is_empty);
    }

    /// Publishing runs.
    pub(crate) fn mark_publishing(&self) {
        if !self.capturing.swap(true, Ordering::Relaxed) || self.waiting().is_some() {
            *self.waiting() = None;
        }
    }

    /// Publishing is interrupted, for the reason `why`.
    pub(crate) fn mark_waiting(&self, why: &dyn std::fmt::Display) {
        *self.waiting() = Some(format!("publishing waits: {why}"));
    }

    /// Locks the reason of an interruption.
    fn waiting(&self) -> MutexGuard<'_, Option<String>> {
        locked(&self.waiting)
    }
}

/// Locks a mutex, also after a panic of another thread.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a page of the WAL (`XLOG_BLCKSZ`).
const WAL_PAGE: u64 = 8192;
/// Bytes of the longest page header (`SizeOfXLogLongPHD`).
const WAL_PAGE_HEADER: u64 = 40;

/// Whether everything before the LSN `end` is processed. An `end` directly behind the header of a
/// page counts as the beginning of the page, since no record lies in a header.
pub(crate) fn reached(passed: u64, end: u64) -> bool {
    let in_page = end % WAL_PAGE;
    let end = if in_page <= WAL_PAGE_HEADER {
        end - in_page
    } else {
        end
    };
    passed >= end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_grows_while_unpublished_or_unknown() {
        let stats = Stats::default();
        let none = Unpublished {
            since_ms: None,
            wal_bytes: Some(0),
            changes: None,
        };
        assert_eq!(stats.unpublished(), none);
        stats.passed(Some(900));
        stats.observe_wal_end(10, Some(900));
        assert_eq!(stats.unpublished(), none);
        stats.observe_wal_end(20, Some(1000));
        let waits = Unpublished {
            since_ms: Some(20),
            wal_bytes: Some(100),
            changes: None,
        };
        assert_eq!(stats.unpublished(), waits);
        stats.observe_wal_end(30, None);
        assert_eq!(stats.unpublished().wal_bytes, None);
        stats.passed(Some(1000));
        assert_eq!(stats.unpublished().since_ms, Some(20), "nobody knows since");
        stats.observe_wal_end(40, Some(1000));
        assert_eq!(stats.unpublished(), none);
    }

    #[test]
    fn lag_of_a_file_counts_from_its_oldest_change() {
        let stats = Stats::default();
        let found = Unread {
            changes: 3,
            last: 9,
            oldest_ms: Some(5),
        };
        stats.observe_unread(100, Some(found));
        stats.passed(Some(8));
        let mut waits = Unpublished {
            since_ms: Some(5),
            wal_bytes: None,
            changes: Some(3),
        };
        assert_eq!(stats.unpublished(), waits);
        stats.passed(Some(9));
        (waits.since_ms, waits.changes) = (None, Some(0));
        assert_eq!(stats.unpublished(), waits);
        stats.observe_unread(200, None);
        assert_eq!(
            stats.unpublished().since_ms,
            Some(100),
            "nobody knows since"
        );
        assert!(!stats.unpublished().is_known());
    }

    #[test]
    fn the_header_of_a_wal_page_is_not_lag() {
        assert!(reached(8192, 8192 + 24) && !reached(8192, 8192 + 41));
        assert!(reached(8192 * 3, 8192 * 3) && !reached(8191, 8192 + 24));
    }
}
