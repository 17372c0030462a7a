//! The trait [`Store`]: an object store with put-if-absent, and the errors that all engines share.

use std::ops::Range;
use std::path::PathBuf;

use tidemill_log::failpoint::Point;
use tidemill_log::{Error, Kind, Result, failpoint};

/// An object store: immutable objects by name, where `/` separates folders. It holds everything
/// that a job keeps outside its sink and its log. Calls block.
///
/// The error kinds are the same for all methods. `Retry`: the store is away or full; a write that
/// failed this way may have happened nevertheless. `Data`: the store refuses (rights, a wrong
/// bucket, a read-only disk), or an object is not what it must be.
pub trait Store: Send + Sync {
    /// The bytes of an object; `None` when there is no such object.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Reads the bytes `range` of an object that exists.
    ///
    /// # Errors
    /// `Data` when the object is not there or shorter; else when the store is away or refuses.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>>;

    /// Creates or replaces an object. The object is durable and complete when this returns.
    ///
    /// # Errors
    /// When the store is away, full, or refuses.
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()>;

    /// Creates an object if the name is free (put-if-absent). Returns true if this call created the
    /// object, and false if the name is taken. In both cases the object that exists under the name
    /// is durable and complete when this returns.
    ///
    /// # Errors
    /// When the store is away, full, or refuses.
    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool>;

    /// Names and sizes (bytes) of all objects below `folder/`, sorted by name. The list is no
    /// snapshot: objects that are written or deleted during the call may or may not be in it.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>>;

    /// Deletes an object. Deleting an object that does not exist is no error.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn delete(&self, name: &str) -> Result<()>;

    /// The objects of these names, in the order of the names; `None` where there is no object. On
    /// S3 several requests are under way at a time.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn get_all(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        names.iter().map(|name| self.get(name)).collect()
    }

    /// Deletes objects: in the given order, or on S3 several at a time. Objects that do not exist
    /// are no error. `between` is a failpoint, at which a crash test ends the process after any
    /// deletion.
    ///
    /// # Errors
    /// When the store is away or refuses; then some may be deleted.
    fn delete_all(&self, names: &[String], between: Point) -> Result<()> {
        delete_each(self, names, between)
    }

    /// The path of `name`, if the store is a local directory.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let _other_stores_have_no_files = name;
        None
    }

    /// Removes temporary files that writers left below `folder/` when they died long ago. Objects
    /// stay.
    ///
    /// # Errors
    /// When the store is away or refuses.
    fn sweep(&self, folder: &str) -> Result<()> {
        let _nothing_is_left_unfinished = folder;
        Ok(())
    }
}

/// Deletes objects one after the other, in order.
///
/// # Errors
/// As [`Store::delete`]; the objects before the failed one are deleted.
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

/// The `Retry` error of a full disk, for all engines.
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

/// The `Data` error of an object that must exist and does not.
pub(super) fn missing(name: &str, place: &str) -> Error {
    Error::new(Kind::Data, format!("object `{name}` is missing at {place}"))
}

/// The `Data` error of an object that is shorter than a range to be read.
pub(super) fn shorter(name: &str, place: &str, range: &Range<u64>) -> Error {
    let what = format!(
        "object `{name}` at {place} is damaged: it is shorter than {} bytes",
        range.end
    );
    Error::new(Kind::Data, what)
}
