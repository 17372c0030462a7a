//! Job failure: the first error that ended the job, threads whose error ends it, and retries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_log::backoff::Backoff;

use crate::{Error, Kind, Result};

/// The first error that ended the job, shared by the workers and the threads beside them. Cheap to
/// clone.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<First>);

/// The shared part of a [`Failure`].
#[derive(Default)]
struct First {
    /// The first error; `None` while there is none, or after it was taken.
    error: Mutex<Option<Error>>,
    /// Notified when there is an error, or when a thread beside the workers has ended.
    news: Condvar,
}

impl Failure {
    /// Stores the error, if it is the first one.
    pub(crate) fn set(&self, error: Error) {
        self.first().get_or_insert(error);
        self.0.news.notify_all();
    }

    /// Takes the error, for the thread that ends the job. Blocks at most for `most` if there is
    /// none.
    pub(crate) fn wait(&self, most: Duration) -> Option<Error> {
        let mut first = self.first();
        if first.is_none() {
            let waited = self.0.news.wait_timeout(first, most);
            first = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        first.take()
    }

    /// Starts a thread beside the workers. If it returns an error, the job ends with this error.
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

    /// The first error, locked. A panic of another thread does not matter here.
    fn first(&self) -> MutexGuard<'_, Option<Error>> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first pause between two attempts; the following ones double.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Retries `attempt` without limit while its errors [may pass](Error::may_pass): a service is away
/// or refuses, or a disk is full. It logs when it begins to wait, when the reason changes, and when
/// the attempt succeeds. `what` completes the sentence "cannot … yet".
///
/// # Errors
/// The first error that does not pass.
pub(crate) fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        // Nothing sets this flag, so `waited` always returns a result.
        let passes = Error::may_pass;
        if let Some(done) = waited(&AtomicBool::new(false), (what, passes), &mut attempt)? {
            return Ok(done);
        }
    }
}

/// As [`patiently`], for a start: returns `None` when `stop` is set, and a refusal ends it.
///
/// # Errors
/// The first error whose kind is not `Retry`.
pub(crate) fn patiently_unless<T>(
    stop: &AtomicBool,
    what: &str,
    attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    waited(stop, (what, |error| error.kind() == Kind::Retry), attempt)
}

/// Retries while `passes` is true for the error, until `stop` is set.
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
