//! What ingest did so far, for the terminal and the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Row changes captured. A truncate, as at the beginning of a snapshot, is none.
    pub captured: AtomicU64,
    /// Of these, durable in the log.
    pub published: AtomicU64,
    /// Of these, durable in the log as dead letters.
    pub unpublishable: AtomicU64,
    /// Records put aside as dead letters.
    pub dead_letters: AtomicU64,
    capturing: AtomicBool,
    waiting: Mutex<Option<String>>,
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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
