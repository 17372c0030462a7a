//! Health of a Cassandra cluster, as the outcomes of a sink's statements show it.
//!
//! Invariant: one warning is logged when statements begin to fail, and one line when all of them
//! have succeeded, however many statements are under way.

use std::sync::atomic::{AtomicUsize, Ordering};

use scylla::errors::ExecutionError;
use tidemill_log::Result;

use super::super::reports::Reports;

/// The name under which statements report on the cluster.
pub(super) const WRITE: &str = "write";
/// Counts the statements that wait for a retry.
pub(super) struct Health {
    /// The number of statements that wait for a retry.
    waiting: AtomicUsize,
    /// Where the sink reports whether the cluster takes statements.
    pub(super) reports: Reports,
}

impl Health {
    pub(super) fn new(reports: Reports) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            reports,
        }
    }

    /// Reports the outcome of a request that is not retried here.
    pub(super) fn note<T>(&self, reporter: &'static str, outcome: &Result<T>) {
        self.reports.note(reporter, outcome);
    }
}

/// A statement that failed and has not succeeded yet. It is counted until it is dropped.
pub(super) struct Waiting<'a>(&'a Health);

impl<'a> Waiting<'a> {
    pub(super) fn new(health: &'a Health, what: &str, error: &ExecutionError) -> Self {
        if health.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            health.reports.down(WRITE, error);
            tracing::warn!("writing to Cassandra table `{what}`, trying again: {error}");
        }
        Self(health)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.reports.up(WRITE);
            tracing::info!("no write to Cassandra is waiting any more");
        }
    }
}
