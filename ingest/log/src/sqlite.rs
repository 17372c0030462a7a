//! How the embedded file is opened.
//!
//! Every embedded stage (landing, capture, log, registry, journal, sink) keeps its tables in one
//! SQLite file and opens it here, so that all of them run with the same guarantees.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::{Error, Kind, Result};

/// How long a writer waits for another one's transaction before it looks again. SQLite's own
/// timeout sleeps up to 100 ms between two looks, while our transactions take a millisecond or two.
const BUSY_PAUSE: Duration = Duration::from_micros(250);
/// How often it looks: for about 30 seconds.
const BUSY_LOOKS_MAX: i32 = 100_000;

/// Opens the embedded file, and makes it and its folder when they are not there.
///
/// The file runs in WAL mode with `synchronous = NORMAL`: a commit survives the death of the
/// process at once, and a power cut at the next checkpoint of the WAL. That is enough here because
/// every embedded stage is in this one file: a power cut takes the newest commits of all stages
/// together, so what is left is a state that the whole pipeline really was in, and it goes on from
/// there. With one fsync a commit (`FULL`) the stages would only be slower, not safer.
pub fn connect(file: &str) -> Result<Connection> {
    let path = Path::new(file);
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            let what = format!("cannot create the folder of the embedded file `{file}`");
            Error::with_source(Kind::Data, what, error)
        })?;
    }
    let open = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(path)?;
        connection.busy_handler(Some(wait_for_the_other))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "foreign_keys", false)?;
        Ok(connection)
    };
    open().map_err(|error| failed(file, "cannot open it", error))
}

fn wait_for_the_other(looks: i32) -> bool {
    std::thread::sleep(BUSY_PAUSE);
    looks < BUSY_LOOKS_MAX
}

/// Whether the file has a table of this name, in any case.
///
/// A statement sees what other connections made. [`Connection::table_exists`] does not: it answers
/// from the schema that its own connection read last.
///
/// # Errors
/// What SQLite answers when it cannot read the file's schema.
pub fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM sqlite_schema
               WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    connection.query_row(sql, [table], |row| row.get(0))
}

/// An error of the embedded file: a lock held by someone else passes, all else does not.
pub(crate) fn failed(file: &str, doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    let kind = match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull) => Kind::Retry,
        _ => Kind::Data,
    };
    Error::with_source(kind, format!("embedded file `{file}`: {doing}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_in_wal_mode_and_creates_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/river.db");
        let connection = connect(file.to_str().unwrap()).unwrap();
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        let synchronous: i64 = connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 1));
    }

    #[test]
    fn a_folder_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = connect(folder.path().to_str().unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(std::error::Error::source(&error).is_some());
    }
}
