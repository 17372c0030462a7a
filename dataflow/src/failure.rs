//! The first error that ended the job, shared by the workers and the threads beside them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, Kind, Result};

/// The first error that ended the job, if any did.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// Keeps the error if it is the first.
    pub(crate) fn set(&self, error: Error) {
        self.first().get_or_insert(error);
    }

    /// The error, for whoever ends the job.
    pub(crate) fn take(&self) -> Option<Error> {
        self.first().take()
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
