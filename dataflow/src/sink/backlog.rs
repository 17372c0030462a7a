//! What a sink has accepted and not yet finished.
//!
//! In flow [`super::Done`] callbacks with the rows and bytes they wait for; out flow their calls.
//! Invariants: (1) at most [`MAX_QUEUED_ROWS`] rows, and [`MAX_QUEUED_BYTES`] of them, are accepted
//! at a time, or one write larger than that alone; a caller that brings more waits, so a slow sink
//! slows the dataflow and not the memory; (2) every accepted callback is called exactly once, with
//! an error if the sink goes away.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::contract::{Done, Refused, Writes};
use crate::{Error, Kind, Result};

/// Rows accepted by one sink and not yet durable.
pub(super) const MAX_QUEUED_ROWS: usize = 200_000;
/// Bytes of those rows.
pub(super) const MAX_QUEUED_BYTES: usize = 64 << 20;

/// How many rows are accepted and not yet durable.
#[derive(Default)]
pub(super) struct Backlog {
    /// Rows, and their bytes.
    queued: Mutex<(usize, usize)>,
    finished: Condvar,
}

impl Backlog {
    /// Waits until there is room for the rows of a write, and takes it until the answer is given.
    /// Writes without rows count as one, or they would have no limit.
    pub(super) fn admit(self: &Arc<Self>, writes: &Writes, done: Done) -> Pending {
        let (rows, bytes) = (writes.rows().max(1), writes.bytes());
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        while queued.0 > 0
            && (queued.0 + rows > MAX_QUEUED_ROWS || queued.1 + bytes > MAX_QUEUED_BYTES)
        {
            queued = self
                .finished
                .wait(queued)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *queued = (queued.0 + rows, queued.1 + bytes);
        drop(queued);
        Pending {
            backlog: Arc::clone(self),
            rows,
            bytes,
            done: Some(done),
        }
    }
}

/// A callback that still has to be called.
pub(super) struct Pending {
    backlog: Arc<Backlog>,
    rows: usize,
    bytes: usize,
    done: Option<Done>,
}

impl Pending {
    /// Calls it.
    pub(super) fn finish(mut self, result: Result<Vec<Refused>>) {
        self.call(result);
    }

    fn call(&mut self, result: Result<Vec<Refused>>) {
        if let Some(done) = self.done.take() {
            let mut queued = self
                .backlog
                .queued
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *queued = (queued.0 - self.rows, queued.1 - self.bytes);
            drop(queued);
            self.backlog.finished.notify_all();
            done(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.call(Err(Error::new(
            Kind::Retry,
            "the sink was closed before the writes were durable",
        )));
    }
}
