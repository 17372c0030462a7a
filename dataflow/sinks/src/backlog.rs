//! Sink backlog: bounds the writes that a sink has accepted and not finished (backpressure).
//!
//! Input: [`super::Done`] callbacks, with the rows and bytes that they wait for. Output: the calls.
//!
//! Invariants:
//! 1. At most [`MAX_QUEUED_ROWS`] rows and [`MAX_QUEUED_BYTES`] bytes are accepted at a time, or
//!    one larger write alone. A caller with more waits, so a slow sink slows the dataflow down and
//!    does not fill the memory.
//! 2. Every accepted callback is called exactly once, with an error if the sink is closed.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tidemill_log::{Error, Kind, Result};

use super::contract::{Done, Refused, Writes};

/// Most rows that one sink has accepted and that are not durable yet.
pub(super) const MAX_QUEUED_ROWS: usize = 200_000;
/// Most bytes of those rows.
pub(super) const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Most rows of one commit, unless a single write has more.
const MAX_ROWS_A_COMMIT: usize = 50_000;

/// A message to the thread of a sink that writes. The backlog bounds the writes; other commands
/// block their caller.
pub(super) enum Command<T> {
    /// Applies the writes of an epoch, and calls back.
    Write(Writes, Pending),
    /// Runs a function on the thread.
    Run(Box<dyn FnOnce(&mut T) + Send>),
}

/// The loop of a thread that writes: serves commands until the sink is dropped. Writes that wait
/// one behind the other are committed together.
pub(super) fn serve<T>(
    thread: &mut T,
    queue: &Receiver<Command<T>>,
    commit: impl Fn(&mut T, &[Writes]) -> Vec<Result<Vec<Refused>>>,
) {
    let mut next = queue.recv().ok();
    while let Some(command) = next.take() {
        match command {
            Command::Run(work) => work(thread),
            Command::Write(writes, pending) => {
                let mut rows = writes.rows();
                let (mut group, mut waiting) = (vec![writes], vec![pending]);
                while rows < MAX_ROWS_A_COMMIT && next.is_none() {
                    match queue.try_recv() {
                        Ok(Command::Write(writes, pending)) => {
                            rows += writes.rows();
                            group.push(writes);
                            waiting.push(pending);
                        }
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                let results = commit(thread, &group);
                for (pending, result) in waiting.into_iter().zip(results) {
                    pending.finish(result);
                }
            }
        }
        if next.is_none() {
            next = queue.recv().ok();
        }
    }
}

/// Counts what one sink has accepted and what is not durable yet.
#[derive(Default)]
pub(super) struct Backlog {
    /// The accepted rows and their bytes.
    queued: Mutex<(usize, usize)>,
    /// Notified when a write has finished.
    finished: Condvar,
}

impl Backlog {
    /// Waits until there is room for a write, and occupies the room until the callback is called. A
    /// write without rows counts as one row, so that such writes are limited too.
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

/// A callback that must still be called. Dropping it calls it with an error.
pub(super) struct Pending {
    /// The backlog in which room is taken.
    backlog: Arc<Backlog>,
    /// The rows for which room is taken.
    rows: usize,
    /// The bytes for which room is taken.
    bytes: usize,
    /// The callback; `None` once it was called.
    done: Option<Done>,
}

impl Pending {
    /// Calls the callback and frees the room.
    pub(super) fn finish(mut self, result: Result<Vec<Refused>>) {
        self.call(result);
    }

    /// Calls the callback once, and frees the room.
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
