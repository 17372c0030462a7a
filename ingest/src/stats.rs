//! What ingest did so far, for the terminal and the metrics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill_log::health::Health;
use tidemill_log::waits::Waits;

/// Counters since the process started, only ever increased, and what publishing waits for. Shared
/// by all stages.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records received from the API.
    pub fetched: AtomicU64,
    /// Pages received from the API.
    pub pages: AtomicU64,
    /// Requests that failed and were retried.
    pub retries: AtomicU64,
    /// Pages that failed for good.
    pub failed_pages: AtomicU64,
    /// Records landed (inserted, updated, or found unchanged).
    pub landed: AtomicU64,
    /// Of these, inserted or updated.
    pub changed: AtomicU64,
    /// Row changes captured. A truncate, as at the beginning of a snapshot, is none.
    pub captured: AtomicU64,
    /// Of these, durable in the log.
    pub published: AtomicU64,
    /// Of these, durable in the log as dead letters.
    pub unpublishable: AtomicU64,
    /// Records put aside as dead letters.
    pub dead_letters: AtomicU64,
    /// The services that the ingest uses.
    pub health: Health,
    /// The end of the database's WAL when it was looked at last, 0 before; not of SQLite.
    pub wal: AtomicU64,
    /// Everything before this LSN, or up to this change of a SQLite file, is captured and
    /// published; 0 before it is known.
    passed: AtomicU64,
    /// Looks at the end of the WAL.
    wal_looks: Mutex<Waits<u64>>,
    /// What was found in a SQLite file last.
    unread: Mutex<Option<Unread>>,
    /// Changes of captured tables that were noticed in the catalog, as no stream tells of them.
    pub noticed: AtomicU64,
    last_noticed: Mutex<VecDeque<Noticed>>,
    capturing: AtomicBool,
    settled: AtomicBool,
    waiting: Mutex<Option<String>>,
}

/// How many noticed changes are kept.
const NOTICED_KEPT_MAX: usize = 20;

/// A change of a captured table that was noticed in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Which table, what was noticed, and what is done about it.
    pub what: String,
}

/// What was committed and is not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpublished {
    /// Since when the oldest of it waits, in milliseconds since 1970, or since when nobody knows;
    /// none when nothing waits.
    pub since_ms: Option<u64>,
    /// Bytes of WAL that were not captured and published yet; none when nobody knows, and of a
    /// SQLite file.
    pub wal_bytes: Option<u64>,
    /// Changes of a SQLite file that were not; none when nobody knows, and of PostgreSQL.
    pub changes: Option<u64>,
}

impl Unpublished {
    /// Whether somebody knows what waits.
    pub fn is_known(&self) -> bool {
        self.wal_bytes.is_some() || self.changes.is_some()
    }
}

/// Changes of the captured tables that a SQLite file holds and that were not published yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// How many.
    pub(crate) changes: u64,
    /// The id of the last one.
    pub(crate) last: u64,
    /// When the oldest was committed, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<u64>,
}

impl Stats {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Why nothing is published: it has not begun yet, or waits. None when it goes on.
    pub fn unready(&self) -> Option<String> {
        let waiting = self.waiting().clone();
        waiting.or_else(|| {
            let capturing = self.capturing.load(Ordering::Relaxed);
            (!capturing).then(|| "opening the capture".to_owned())
        })
    }

    /// Whether the capture is being opened: tables that it reads anew may get new schemas yet.
    pub fn is_opening(&self) -> bool {
        self.waiting().is_none() && !self.capturing.load(Ordering::Relaxed)
    }

    /// Whether the registry has had the columns of all captured tables as the catalog had them
    /// after this process began.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// The registry has the columns of all captured tables.
    pub(crate) fn settles(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Statistics that report to `health`.
    pub fn with(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// The end of the WAL is asked for.
    pub(crate) fn looks_at_wal(&self) {
        locked(&self.wal_looks).looks(tidemill_log::health::now_ms());
    }

    /// The WAL ended here at `at_ms`, or nobody could tell.
    pub(crate) fn wal_ends(&self, at_ms: u64, end: Option<u64>) {
        let mut looks = locked(&self.wal_looks);
        match end {
            Some(end) => {
                self.wal.store(end, Ordering::Relaxed);
                looks.seen(at_ms, end);
            }
            None => looks.unseen(),
        }
    }

    /// What a SQLite file held at `at_ms`, or nobody could tell.
    pub(crate) fn finds_unread(&self, at_ms: u64, found: Option<Unread>) {
        let mut looks = locked(&self.wal_looks);
        match found {
            Some(found) => {
                looks.seen(at_ms, 0);
                *locked(&self.unread) = Some(found);
            }
            None => looks.unseen(),
        }
    }

    /// How far capture and publishing are.
    pub(crate) fn passed_so_far(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Everything before this LSN is captured and published.
    pub(crate) fn passed(&self, lsn: Option<u64>) {
        if let Some(lsn) = lsn {
            self.passed.fetch_max(lsn, Ordering::Relaxed);
        }
    }

    /// What was committed and is not published yet.
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
            // It has not begun yet.
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

    /// Whether the capture has been open once.
    pub(crate) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }

    /// What was noticed; the same once more is nothing new.
    pub(crate) fn notices(&self, noticed: Vec<String>) {
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

    /// What was noticed last, newest last.
    pub fn last_noticed(&self) -> Vec<Noticed> {
        locked(&self.last_noticed).iter().cloned().collect()
    }

    /// Publishing goes on.
    pub(crate) fn flows(&self) {
        if !self.capturing.swap(true, Ordering::Relaxed) || self.waiting().is_some() {
            *self.waiting() = None;
        }
    }

    /// Publishing waits, and why.
    pub(crate) fn waits(&self, why: &dyn std::fmt::Display) {
        *self.waiting() = Some(format!("publishing waits: {why}"));
    }

    fn waiting(&self) -> MutexGuard<'_, Option<String>> {
        locked(&self.waiting)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a page of WAL, and of the longest header of one.
const WAL_PAGE: u64 = 8192;
const WAL_PAGE_HEADER: u64 = 40;

/// Whether everything before `end` passed. An end right behind a page's header is that page's
/// beginning: no record is between them.
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
    fn what_is_not_published_waits_and_what_nobody_knows_grows() {
        let stats = Stats::default();
        let none = Unpublished {
            since_ms: None,
            wal_bytes: Some(0),
            changes: None,
        };
        assert_eq!(stats.unpublished(), none);
        stats.passed(Some(900));
        stats.wal_ends(10, Some(900));
        assert_eq!(stats.unpublished(), none);
        stats.wal_ends(20, Some(1000));
        let waits = Unpublished {
            since_ms: Some(20),
            wal_bytes: Some(100),
            changes: None,
        };
        assert_eq!(stats.unpublished(), waits);
        stats.wal_ends(30, None);
        assert_eq!(stats.unpublished().wal_bytes, None);
        stats.passed(Some(1000));
        assert_eq!(stats.unpublished().since_ms, Some(20), "nobody knows since");
        stats.wal_ends(40, Some(1000));
        assert_eq!(stats.unpublished(), none);
    }

    #[test]
    fn changes_in_a_file_wait_since_the_oldest_was_committed() {
        let stats = Stats::default();
        let found = Unread {
            changes: 3,
            last: 9,
            oldest_ms: Some(5),
        };
        stats.finds_unread(100, Some(found));
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
        stats.finds_unread(200, None);
        assert_eq!(
            stats.unpublished().since_ms,
            Some(100),
            "nobody knows since"
        );
        assert!(!stats.unpublished().is_known());
    }

    #[test]
    fn a_pages_header_is_no_change() {
        assert!(reached(8192, 8192 + 24) && !reached(8192, 8192 + 41));
        assert!(reached(8192 * 3, 8192 * 3) && !reached(8191, 8192 + 24));
    }
}
