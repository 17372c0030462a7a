//! What a sink has accepted and not yet finished.
//!
//! In flow [`super::Done`] callbacks with the number of rows they wait for; out flow their calls.
//! Invariants: (1) at most [`MAX_QUEUED_ROWS`] rows are accepted at a time, or one write larger
//! than that alone; a caller that brings more waits, so a slow sink slows the dataflow and not the
//! memory; (2) every accepted callback is called exactly once, with an error if the sink goes away.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Done;
use crate::{Error, Kind, Result};

/// Rows accepted by one sink and not yet durable.
pub(super) const MAX_QUEUED_ROWS: usize = 200_000;

/// How many rows are accepted and not yet durable.
#[derive(Default)]
pub(super) struct Backlog {
    rows: Mutex<usize>,
    finished: Condvar,
}

impl Backlog {
    /// Waits until there is room for `rows` more, and takes it until the answer is given. Writes
    /// without rows count as one, or they would have no limit.
    pub(super) fn admit(self: &Arc<Self>, rows: usize, done: Done) -> Pending {
        let rows = rows.max(1);
        let mut queued = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        while *queued > 0 && *queued + rows > MAX_QUEUED_ROWS {
            queued = self
                .finished
                .wait(queued)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *queued += rows;
        drop(queued);
        Pending {
            backlog: Arc::clone(self),
            rows,
            done: Some(done),
        }
    }
}

/// A callback that still has to be called.
pub(super) struct Pending {
    backlog: Arc<Backlog>,
    rows: usize,
    done: Option<Done>,
}

impl Pending {
    /// Calls it.
    pub(super) fn finish(mut self, result: Result<()>) {
        self.call(result);
    }

    fn call(&mut self, result: Result<()>) {
        if let Some(done) = self.done.take() {
            let mut queued = self
                .backlog
                .rows
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *queued -= self.rows;
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
