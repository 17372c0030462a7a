//! The state store: journal, checkpoints and the master's state as immutable objects by name.
//!
//! Input: bytes under a name. Output: the same bytes, on any machine that reaches the store.
//! Engines: `objects` (a directory or S3, through the crate `object_store`) and `sqlite` (the
//! embedded file). All engines pass one conformance suite (`store/tests.rs`).
//!
//! Invariants:
//! 1. An object exists completely or not at all, and is durable when the call that wrote it
//!    returns.
//! 2. Of several [`Store::put_new`] calls for one name exactly one returns true, until the object
//!    is deleted. The journal's fencing depends on this.
//! 3. Reads and listings see every write that returned before they began.

mod contract;
mod objects;
pub mod reporting;
mod sqlite;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use tidemill_log::{Error, Kind, Result, failpoint};

pub use contract::Store;

/// Opens the store that `url` names: `file://DIRECTORY`, `s3://BUCKET[/PREFIX]` or `sqlite://FILE`.
/// Credentials, region and endpoint of S3 come from the usual `AWS_…` variables. A directory is
/// created by the first write.
///
/// # Errors
/// `Data` when the URL names no store, or the place cannot be a store. `Retry` when a thread or the
/// SQLite file is not available for the moment.
pub fn open(url: &str) -> Result<Arc<dyn Store>> {
    match url.split_once("://") {
        Some(("file", path)) if !path.is_empty() => {
            Ok(Arc::new(objects::Objects::directory(path)?))
        }
        Some(("s3", place)) if !place.is_empty() => Ok(Arc::new(objects::Objects::s3(place)?)),
        Some(("sqlite", path)) if !path.is_empty() => Ok(Arc::new(sqlite::Sqlite::open(path)?)),
        _ => Err(Error::new(
            Kind::Data,
            format!(
                "store `{url}`: expected file://DIRECTORY, s3://BUCKET/PREFIX or sqlite://FILE"
            ),
        )),
    }
}

/// Deletes all objects below `folder/`. If the store is a directory, the folder itself is removed
/// too, with files that no listing shows.
///
/// # Errors
/// As the store's methods. Some objects may then be deleted already; the same call continues.
pub fn remove(store: &dyn Store, folder: &str) -> Result<()> {
    let names: Vec<String> = store
        .list(folder)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    store.delete_all(&names, failpoint::JOURNAL_BETWEEN_DELETES)?;
    let Some(path) = store.path(folder) else {
        return Ok(());
    };
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let what = format!("folder {} cannot be removed", path.display());
            Err(Error::with_source(Kind::Retry, what, error))
        }
        _ => Ok(()),
    }
}
