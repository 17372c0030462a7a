//! What an object store does, and the errors that all engines share.

use std::ops::Range;
use std::path::PathBuf;

use tidemill_log::failpoint::{self, Point};

use crate::{Error, Kind, Result};

/// Immutable objects by name (`/` separates folders). Everything a job keeps outside its sink.
///
/// An error of kind `Retry` says that the store is away or full; a write that failed so may have
/// taken place nevertheless.
pub trait Store: Send + Sync {
    /// The object; none when there is none.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Bytes `range` of an object that is there.
    ///
    /// # Errors
    /// `Data` when the object is not there or shorter; else when the store is away or refuses.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>>;

    /// Creates or replaces an object; durable and whole when this returns.
    ///
    /// # Errors
    /// When the store is away, full, or refuses.
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()>;

    /// Creates an object unless the name is taken: false then. Durable and whole when it returns
    /// true; when it returns false, what is there is so.
    ///
    /// # Errors
    /// When the store is away, full, or refuses.
    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool>;

    /// Names and sizes in bytes of all objects below `folder/`, sorted by name. Not a snapshot:
    /// what is written or deleted meanwhile may or may not be in it.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>>;

    /// Deletes an object; no error when it is gone.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn delete(&self, name: &str) -> Result<()>;

    /// The objects of these names, in their order; none where there is none. On S3 several are
    /// asked for at a time.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn get_all(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        names.iter().map(|name| self.get(name)).collect()
    }

    /// Deletes objects, in their order or, on S3, several at a time; no error when some are gone.
    /// A crash test ends the process at `between`, behind any of them.
    ///
    /// # Errors
    /// When the store is away or refuses; then some may be deleted.
    fn delete_all(&self, names: &[String], between: Point) -> Result<()> {
        delete_each(self, names, between)
    }

    /// Where `name` lies, when the store is a directory of this machine.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let _other_stores_have_no_files = name;
        None
    }

    /// Removes what writers that died long ago left unfinished below `folder/`; no object is.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn sweep(&self, folder: &str) -> Result<()> {
        let _nothing_is_left_unfinished = folder;
        Ok(())
    }
}

pub(super) fn delete_each(
    store: &(impl Store + ?Sized),
    names: &[String],
    between: Point,
) -> Result<()> {
    for name in names {
        store.delete(name)?;
        failpoint::hit(between);
    }
    Ok(())
}

/// What every engine says of a full disk.
pub(super) fn full(
    name: &str,
    place: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let what = format!(
        "object `{name}` cannot be written: no space left at {place}; it goes on when there is \
         space"
    );
    Error::with_source(Kind::Retry, what, source)
}

pub(super) fn missing(name: &str, place: &str) -> Error {
    Error::new(Kind::Data, format!("object `{name}` is missing at {place}"))
}

pub(super) fn shorter(name: &str, place: &str, range: &Range<u64>) -> Error {
    let what = format!(
        "object `{name}` at {place} is damaged: it is shorter than {} bytes",
        range.end
    );
    Error::new(Kind::Data, what)
}
