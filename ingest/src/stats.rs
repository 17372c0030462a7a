//! What ingest did so far, for the terminal and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the process started. Shared by all stages; only ever increased.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records received from the API.
    pub fetched: AtomicU64,
    /// Pages received from the API.
    pub pages: AtomicU64,
    /// Requests that failed and were retried.
    pub retries: AtomicU64,
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
}

impl Stats {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
