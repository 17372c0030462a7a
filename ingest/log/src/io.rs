//! The runtime of the clients of services: one for the whole process.
//!
//! PostgreSQL's replication, Cassandra and S3 are reached by asynchronous clients, while the stages
//! of a pipeline are threads that wait. The threads wait for futures on this runtime, which also
//! drives the connections while nobody waits. What must answer although these clients are busy has
//! a runtime of its own: the HTTP server of a process, and the mesh.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, Kind, Result};

/// The number of threads that drive connections.
const THREADS: usize = 2;
/// The runtime, once it was asked for. It lives as long as the process.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime of the process, started at the first call.
///
/// A future is waited for with [`Handle::block_on`], which panics on a thread of any runtime.
///
/// ```
/// # fn main() -> tidemill_log::Result<()> {
/// let answer = tidemill_log::io::runtime()?.block_on(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Retry` when the system has no thread left.
pub fn runtime() -> Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*runtime {
        return Ok(running.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| {
            let what = format!("cannot start the threads of the services' clients: {error}");
            Error::with_source(Kind::Retry, what, error)
        })?;
    Ok(runtime.insert(started).handle().clone())
}
