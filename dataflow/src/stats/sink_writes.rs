//! What writing to the sink costs: rows, writes, and the time until each write is durable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidemill_log::lock;
use tidemill_sinks::Writes;

use super::Recent;

/// The writes of one process, over all views.
#[derive(Debug, Default)]
pub struct SinkWrites {
    /// Rows that were inserted, replaced or deleted durably. Rows that the table refused count too.
    pub rows: AtomicU64,
    /// Writes that are durable. A write has the changes of one view in one epoch.
    pub writes: AtomicU64,
    /// Writes that have begun and are not durable yet.
    pub pending: AtomicU64,
    /// The times of the last seconds from the begin of a write until it was durable, in ms.
    latency: Mutex<Recent>,
}

/// A write that has begun.
pub(crate) struct Begun {
    /// Its rows: inserted, replaced or deleted.
    rows: u64,
    /// When it began.
    at: Instant,
}

impl SinkWrites {
    /// A write begins.
    pub(crate) fn begin(&self, writes: &Writes) -> Begun {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Begun {
            rows: (writes.upserts.num_rows() + writes.deletes.num_rows()) as u64,
            at: Instant::now(),
        }
    }

    /// A write is durable, or has failed.
    pub(crate) fn end(&self, begun: Begun, is_durable: bool) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if !is_durable {
            return;
        }
        self.rows.fetch_add(begun.rows, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
        let ms = u64::try_from(begun.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        lock(&self.latency).record(ms, 1);
    }

    /// The time of a write at a quantile (0 to 1) of the last seconds, in ms; `None` without any.
    pub fn latency_ms(&self, share: f64) -> Option<u64> {
        lock(&self.latency).quantile(share)
    }
}
