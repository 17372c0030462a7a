//! Databases by URL: engine, connections, kinds of errors, lease times.

use std::time::Duration;

use tidemill_postgres::Server;

use crate::{Error, Kind, Result};

pub(crate) use tidemill_log::schema::sql::quoted;
pub(crate) use tidemill_postgres::failed as postgres_failed;

/// How long a process that is silent keeps what it holds in a database: the right to capture, a
/// claimed page, an open transaction.
pub(crate) const LEASE: Duration = Duration::from_secs(8);
/// Interval at which a process renews its leases (heartbeat).
pub(crate) const RENEW: Duration = Duration::from_secs(2);
/// Key of the advisory lock for creating tables: two `CREATE TABLE IF NOT EXISTS` at the same time
/// can fail.
const CREATE_LOCK: i64 = 0x7469_6465_6d69_6c6c;

/// The engine of a database URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// The whole URL, `postgres://…`.
    Postgres(String),
    /// The file in `sqlite://FILE`.
    Sqlite(String),
}

impl Database {
    /// The engine that `url` names.
    ///
    /// # Errors
    /// `Data` for another scheme; the error shows only the scheme, since a URL may hold a password.
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

/// Connects to PostgreSQL. The server rolls back a transaction that is idle for [`LEASE`], because
/// other processes wait for its locks. So no transaction may be open while this process waits for
/// something else.
///
/// # Errors
/// Those of [`Server::parse`] and [`Server::connect`].
pub(crate) fn postgres(url: &str) -> Result<postgres::Client> {
    let mut server = Server::parse(url)?;
    let limit = LEASE.as_millis();
    let options = format!("-c idle_in_transaction_session_timeout={limit}");
    server.session("tidemill ingest", &options);
    server.connect()
}

/// Takes the lock for creating tables; held until the transaction ends.
pub(crate) fn lock_creation(transaction: &mut postgres::Transaction<'_>) -> Result<()> {
    let locked = transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&CREATE_LOCK]);
    locked.map_err(|error| postgres_failed("lock for creating tables", error))?;
    Ok(())
}

/// An error of SQLite: `Retry` for a lock of another connection and a full disk, `Data` for all
/// others.
pub(crate) fn sqlite_failed(doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    let kind = match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull) => Kind::Retry,
        _ => Kind::Data,
    };
    Error::with_source(kind, format!("SQLite: {doing}: {error}"), error)
}
