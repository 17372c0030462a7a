//! The engine for SQLite: objects as rows of the embedded file.
//!
//! Every call is one transaction. With `synchronous = NORMAL`, a power failure may undo the last
//! transactions of the file. Log, objects and views are in the same file, so they always lose the
//! same suffix and stay consistent with each other.
//!
//! The table is `_tidemill_objects (name, bytes)`. The count of rows that `put_new`'s statement
//! changes says whether the object was there already.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tidemill_log::sqlite::has_table;
use tidemill_log::{Error, Kind, Result};

use super::contract;
use super::contract::Store;

/// The table of objects: a name and its bytes.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _tidemill_objects (
    name TEXT PRIMARY KEY NOT NULL,
    bytes BLOB NOT NULL
)";

/// Converts the journal's rows of the format before objects. Only the first row of a job may stand
/// for earlier ones.
const JOURNAL_ROWS_TO_OBJECTS: &str = "
    INSERT OR IGNORE INTO _tidemill_objects (name, bytes)
        SELECT job || '/journal/' || printf('%020d', number), CAST(json_object(
            'collapsed', json(iif(number = min(number) OVER (PARTITION BY job), 'true', 'false')),
            'binding', json_object('epoch', epoch, 'ends', json(ends))) AS BLOB)
        FROM _tidemill_journal;
    DROP TABLE _tidemill_journal";

/// Objects in a SQLite file, over one connection.
pub(super) struct Sqlite {
    /// The URL, for errors.
    place: String,
    /// The connection, used by one thread at a time.
    connection: Mutex<Connection>,
}

impl Sqlite {
    /// Opens or creates the file, and its table.
    ///
    /// # Errors
    /// `Data` when the file is no database or cannot be used; `Retry` when it is locked or full.
    pub(super) fn open(file: &str) -> Result<Self> {
        let connection = tidemill_log::sqlite::connect(file)?;
        let store = Self {
            place: format!("sqlite://{file}"),
            connection: Mutex::new(connection),
        };
        prepare(&mut store.lock()).map_err(|error| store.failed("_tidemill_objects", error))?;
        Ok(store)
    }

    /// The connection, locked.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a statement: `Data` if trying again is useless, `Retry` otherwise.
    fn failed(&self, name: &str, error: rusqlite::Error) -> Error {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => return contract::full(name, &self.place, error),
            Some(
                ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::TooBig,
            ) => Kind::Data,
            _ => Kind::Retry,
        };
        let what = format!("object `{name}` at {}: {error}", self.place);
        Error::with_source(kind, what, error)
    }

    /// Runs a statement, and returns the number of rows that it changed.
    fn change(&self, sql: &str, name: &str, bytes: Option<Vec<u8>>) -> Result<usize> {
        let connection = self.lock();
        let changed = connection
            .prepare_cached(sql)
            .and_then(|mut statement| match bytes {
                Some(bytes) => statement.execute(params![name, bytes]),
                None => statement.execute([name]),
            });
        changed.map_err(|error| self.failed(name, error))
    }
}

/// Creates the table. Converts the journal's rows of an earlier version to objects.
fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    if has_table(connection, "_tidemill_objects")? && !has_table(connection, "_tidemill_journal")? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    // Checked again inside the transaction, because another process may have converted them.
    if has_table(&transaction, "_tidemill_journal")? {
        transaction.execute_batch(JOURNAL_ROWS_TO_OBJECTS)?;
    }
    transaction.commit()
}

impl Store for Sqlite {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let connection = self.lock();
        let bytes = connection
            .prepare_cached("SELECT bytes FROM _tidemill_objects WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional());
        bytes.map_err(|error| self.failed(name, error))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let connection = self.lock();
        let bytes: Option<Vec<u8>> = connection
            .prepare_cached(
                "SELECT substr(bytes, ?2 + 1, ?3) FROM _tidemill_objects WHERE name = ?1",
            )
            .and_then(|mut statement| {
                // An offset that SQLite cannot represent is beyond the end of any object, and so is
                // `i64::MAX`.
                let start = i64::try_from(range.start).unwrap_or(i64::MAX - 1);
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                let row = statement.query_row(params![name, start, length], |row| row.get(0));
                row.optional()
            })
            .map_err(|error| self.failed(name, error))?;
        match bytes {
            Some(bytes) if bytes.len() as u64 == length => Ok(bytes),
            Some(_) => Err(contract::shorter(name, &self.place, &range)),
            None => Err(contract::missing(name, &self.place)),
        }
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let sql = "INSERT INTO _tidemill_objects (name, bytes) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes";
        self.change(sql, name, Some(bytes)).map(|_| ())
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let sql = "INSERT INTO _tidemill_objects (name, bytes) VALUES (?1, ?2)
                   ON CONFLICT (name) DO NOTHING";
        Ok(self.change(sql, name, Some(bytes))? == 1)
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let connection = self.lock();
        // `0` is the character after `/`.
        let sql = "SELECT name, length(bytes) FROM _tidemill_objects
                   WHERE name > ?1 || '/' AND name < ?1 || '0' ORDER BY name";
        let objects = connection.prepare_cached(sql).and_then(|mut statement| {
            let rows = statement.query_map([folder], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
            })?;
            rows.collect()
        });
        objects.map_err(|error| self.failed(folder, error))
    }

    fn delete(&self, name: &str) -> Result<()> {
        let sql = "DELETE FROM _tidemill_objects WHERE name = ?1";
        self.change(sql, name, None).map(|_| ())
    }
}
