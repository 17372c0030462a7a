//! The database that pages land in: which engine its URL names, how it is opened, which of its
//! errors pass, and how long a process that stands still keeps what it holds.

use std::time::Duration;

use crate::server::{Server, passes, refuses};
use crate::{Error, Kind, Result};

/// How long a process that says nothing keeps what it holds in a database: the right to capture, a
/// page, an open transaction.
pub(crate) const LEASE: Duration = Duration::from_secs(8);
/// How often a process says that it is there.
pub(crate) const RENEW: Duration = Duration::from_secs(2);
/// Guards the creation of tables: `CREATE TABLE IF NOT EXISTS` alone fails when two run at once.
const CREATE_LOCK: i64 = 0x7469_6465_6d69_6c6c;

/// The engine of a database URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// `postgres://…`, whole.
    Postgres(String),
    /// The file of `sqlite://FILE`.
    Sqlite(String),
}

impl Database {
    /// The engine that `url` names.
    pub(crate) fn of(url: &str) -> Result<Self> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        match url.strip_prefix("sqlite://") {
            Some(file) if !file.is_empty() => Ok(Self::Sqlite(file.to_owned())),
            // The URL may hold a password, so only its scheme is shown.
            _ => {
                let scheme = url.split(':').next().unwrap_or_default();
                let right = "`postgres://user@host:port/database` or `sqlite://FILE`";
                let what = format!("database URL `{scheme}:…` must be {right}");
                Err(Error::new(Kind::Data, what))
            }
        }
    }
}

/// Connects to PostgreSQL. A transaction in which nothing is said for [`LEASE`] is rolled back:
/// others wait for its locks, and whoever waits for something else must have none open.
pub(crate) fn postgres(url: &str) -> Result<postgres::Client> {
    let mut server = Server::parse(url)?;
    let limit = LEASE.as_millis();
    let options = format!("-c idle_in_transaction_session_timeout={limit}");
    server.session("tidemill ingest", &options);
    server.connect()
}

/// Takes the lock under which tables are created; held until the transaction ends.
pub(crate) fn lock_creation(transaction: &mut postgres::Transaction<'_>) -> Result<()> {
    let locked = transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&CREATE_LOCK]);
    locked.map_err(|error| postgres_failed("lock for creating tables", error))?;
    Ok(())
}

/// An error of PostgreSQL: an absent or busy server passes, all else does not.
pub(crate) fn postgres_failed(doing: &str, error: postgres::Error) -> Error {
    let kind = match error.code() {
        None => Kind::Retry,
        Some(code) if passes(code) => Kind::Retry,
        Some(_) => Kind::Data,
    };
    let why = match error.as_db_error() {
        Some(database) => database.message().to_owned(),
        None => error.to_string(),
    };
    let refused = error.code().is_some_and(refuses);
    Error::with_source(kind, format!("PostgreSQL: {doing}: {why}"), error).refused_if(refused)
}

/// An error of SQLite: a lock held by someone else passes, all else does not.
pub(crate) fn sqlite_failed(doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    let kind = match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull) => Kind::Retry,
        _ => Kind::Data,
    };
    Error::with_source(kind, format!("SQLite: {doing}: {error}"), error)
}

/// A name as SQL takes it literally.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
