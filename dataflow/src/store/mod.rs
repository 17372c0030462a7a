//! The object store: everything a job keeps outside its sink (journal and checkpoints), as
//! immutable objects by name.
//!
//! In: bytes under a name. Out: the same bytes, on any machine that reaches the store. Engines:
//! `objects` (a directory, or S3, through `object_store`) and `sqlite` (the embedded file).
//!
//! 1. An object is there whole or not at all, and durable when a call that wrote it returns.
//! 2. Of several [`Store::put_new`] of one name exactly one answers true, until it is deleted.
//! 3. Reads and listings see every write that returned before they began.

mod contract;
mod objects;
pub(crate) mod reporting;
mod sqlite;

#[cfg(test)]
pub(crate) mod tests;

pub use contract::Store;

use std::sync::Arc;

use tidemill_log::failpoint;

use crate::{Error, Kind, Result};

/// Opens the store that `url` names: `file://DIRECTORY`, `s3://BUCKET[/PREFIX]` or
/// `sqlite://FILE`. Credentials, region and endpoint of S3 are those of the usual `AWS_…`
/// variables. A directory is made by the first write.
///
/// # Errors
/// `Data` when the URL names no store.
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

/// Deletes all objects below `folder/`, and where the store is a directory the folder itself, with
/// files that no listing shows.
///
/// # Errors
/// When the store is away or refuses; then some may be deleted, and the same call goes on.
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
