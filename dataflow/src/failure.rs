//! The first error that ended the job, shared by the workers and the threads beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_log::backoff::Backoff;

use crate::{Error, Kind, Result};

/// The first error that ended the job, if any did.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<First>);

#[derive(Default)]
struct First {
    error: Mutex<Option<Error>>,
    /// There is an error, or a thread beside the workers ended.
    news: Condvar,
}

impl Failure {
    /// Keeps the error if it is the first.
    pub(crate) fn set(&self, error: Error) {
        self.first().get_or_insert(error);
        self.0.news.notify_all();
    }

    /// The error, for whoever ends the job; waits for news, at most so long, when there is none.
    pub(crate) fn wait(&self, most: Duration) -> Option<Error> {
        let mut first = self.first();
        if first.is_none() {
            let waited = self.0.news.wait_timeout(first, most);
            first = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        first.take()
    }

    /// Starts a thread beside the workers, whose error ends the job.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(
        &self,
        name: &str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let failure = self.clone();
        let run = move || {
            if let Err(error) = run() {
                failure.set(error);
            }
            failure.0.news.notify_all();
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map(|_| ())
            .map_err(|error| {
                Error::with_source(Kind::Retry, format!("cannot start thread `{name}`"), error)
            })
    }

    fn first(&self) -> MutexGuard<'_, Option<Error>> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses between two attempts begin here and double.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Does what a service that is away or refuses us now, or a disk that is full, may hold up: again
/// and again, while its errors [may pass](Error::may_pass). What it waits for is said when it
/// begins to wait and when the reason changes, and that it goes on when it does. `what` completes
/// "cannot … yet".
pub(crate) fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        // Nothing stops it, so that something always comes.
        let passes = Error::may_pass;
        if let Some(done) = waited(&AtomicBool::new(false), (what, passes), &mut attempt)? {
            return Ok(done);
        }
    }
}

/// The same at a start, until `stop` is set; then none. A refusal ends it.
pub(crate) fn patiently_unless<T>(
    stop: &AtomicBool,
    what: &str,
    attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    waited(stop, (what, |error| error.kind() == Kind::Retry), attempt)
}

fn waited<T>(
    stop: &AtomicBool,
    (what, passes): (&str, fn(&Error) -> bool),
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut said = String::new();
    while !stop.load(Ordering::Relaxed) {
        match attempt() {
            Err(error) if passes(&error) => {
                let why = error.to_string();
                if said != why {
                    tracing::warn!(%error, "cannot {what} yet");
                    said = why;
                }
                backoff.sleep(stop);
            }
            Ok(done) if !said.is_empty() => {
                tracing::info!("could {what} at last");
                return Ok(Some(done));
            }
            outcome => return outcome.map(Some),
        }
    }
    Ok(None)
}
