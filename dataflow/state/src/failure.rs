//! Job failure: the first error that ended the job, and threads whose error ends it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_log::{Error, Kind, Result};

/// The first error that ended the job, shared by the workers and the threads beside them. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Failure(Arc<First>);

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
    pub fn set(&self, error: Error) {
        self.first().get_or_insert(error);
        self.0.news.notify_all();
    }

    /// Takes the error, for the thread that ends the job. Blocks at most for `most` if there is
    /// none.
    pub fn wait(&self, most: Duration) -> Option<Error> {
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
    pub fn spawn(
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
