//! Connections to the embedded SQLite file: pragmas, busy handling and error kinds.
//!
//! All embedded stages (landing, capture, log, registry, journal, sink) keep their tables in one
//! file and open it here, so that all of them have the same durability and locking.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::backoff::Backoff;
use crate::{Error, Kind, Result};

/// Pause between two attempts to get the write lock. SQLite's own busy timeout sleeps up to 100 ms
/// between attempts, while the transactions here take one or two milliseconds.
const BUSY_PAUSE: Duration = Duration::from_micros(250);
/// Number of attempts, which is about 30 seconds.
const BUSY_LOOKS_MAX: i32 = 100_000;
/// How long [`connect`] opens a locked file again. The change of a new file to WAL mode upgrades a
/// read lock to a write lock, and SQLite does not call the busy handler there: two connections that
/// wait for each other would never end. It reports the lock at once instead.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// Opens the embedded file. Creates the file and its folder if they do not exist.
///
/// The file is in WAL mode with `synchronous = NORMAL`: a commit survives a crash of the process at
/// once, and a power failure from the next checkpoint of the WAL on. This is sufficient because all
/// embedded stages share the file: a power failure takes the newest commits of all stages together,
/// so the file holds a state that the whole pipeline was in, and the pipeline resumes from there.
/// One fsync per commit (`FULL`) would make the stages slower and not safer.
///
/// ```
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let file = folder.path().join("data/pipeline.db");
/// let connection = tidemill_log::sqlite::connect(file.to_str().expect("UTF-8"))?;
/// assert!(!tidemill_log::sqlite::has_table(&connection, "users").expect("a schema"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Data` when the folder cannot be created or the file is not a SQLite database; `Retry` when the
/// file is locked for longer than about 30 s, or the disk is full.
pub fn connect(file: &str) -> Result<Connection> {
    let path = Path::new(file);
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            let what = format!("cannot create the folder of the embedded file `{file}`");
            Error::with_source(Kind::Data, what, error)
        })?;
    }
    let deadline = Instant::now() + OPEN_WAIT;
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    loop {
        match open(path) {
            Err(error) if is_locked(&error) && Instant::now() < deadline => {
                std::thread::sleep(backoff.pause());
            }
            opened => return opened.map_err(|error| failed(file, "cannot open it", error)),
        }
    }
}

/// One attempt to open the file.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_handler(Some(busy_wait))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

/// SQLite's busy handler: sleeps, and says whether to try again.
fn busy_wait(looks: i32) -> bool {
    std::thread::sleep(BUSY_PAUSE);
    looks < BUSY_LOOKS_MAX
}

/// Whether the file has a table of this name; case does not matter.
///
/// [`Connection::table_exists`] must not be used: it answers from the schema that its own
/// connection read last, and so misses tables that other connections created. A statement reads the
/// current schema.
///
/// # Errors
/// SQLite's error when it cannot read the schema of the file.
pub fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM sqlite_schema
               WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    connection.query_row(sql, [table], |row| row.get(0))
}

/// Whether another connection holds the lock that failed the operation.
fn is_locked(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked)
    )
}

/// An error of the embedded file: `Retry` for a lock of another connection and a full disk, `Data`
/// for all others.
pub(crate) fn failed(file: &str, doing: &str, error: rusqlite::Error) -> Error {
    let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
    let kind = if full || is_locked(&error) {
        Kind::Retry
    } else {
        Kind::Data
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

    #[test]
    fn threads_that_create_one_file_wait_for_each_other() {
        let create = "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS t (a); COMMIT";
        for _ in 0..300 {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("river.db");
            let file = file.to_str().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| connect(file).unwrap().execute_batch(create).unwrap());
                }
            });
        }
    }
}
