//! How the cluster is, as the statements of a sink tell.
//!
//! Invariant: one warning when statements begin to fail and one line when all go through again,
//! however many are under way.

use std::sync::atomic::{AtomicUsize, Ordering};

use scylla::errors::ExecutionError;
use tidemill_log::health::{Health as Reports, Role};

use crate::Result;

/// Who reports on the cluster.
pub(super) const WRITE: &str = "write";
/// How many statements wait to be tried again.
pub(super) struct Health {
    waiting: AtomicUsize,
    pub(super) reports: Reports,
}

impl Health {
    pub(super) fn new(reports: Reports) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            reports,
        }
    }

    /// Reports the outcome of what is not tried again here.
    pub(super) fn note<T>(&self, reporter: &'static str, outcome: &Result<T>) {
        self.reports.note(Role::Views, reporter, outcome);
    }
}

/// A statement that failed and is not through yet; however its task ends, it stops being counted.
pub(super) struct Waiting<'a>(&'a Health);

impl<'a> Waiting<'a> {
    pub(super) fn new(health: &'a Health, what: &str, error: &ExecutionError) -> Self {
        if health.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            health.reports.down(Role::Views, WRITE, error);
            tracing::warn!("writing to Cassandra table `{what}`, trying again: {error}");
        }
        Self(health)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.reports.up(Role::Views, WRITE);
            tracing::info!("no write to Cassandra is waiting any more");
        }
    }
}
