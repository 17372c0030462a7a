//! Marks: positions of the database, and whether everything committed before one is published.
//!
//! `tidemill wait` uses marks. In: a database and the name of a capture. Out: positions, and
//! whether the capture has recorded that it is beyond one. The capture may run in any process;
//! nothing of it is held here.
//!
//! ```text
//! wait:     mark ─► position P ─► is_past(P)? no: NOTIFY the capture ─► is_past(P)? yes
//! capture:            … publish everything before P ─► record progress (`confirmed` ≥ P)
//! ```
//!
//! Invariants:
//! 1. What is committed when [`Marks::mark`] is called lies before the position that it returns.
//! 2. A position is past only when everything before it is durable in the log.
//! 3. Every position is past eventually, also when nothing is committed any more: a capture without
//!    new changes is asked to record its progress.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use tidemill_log::sqlite::has_table;

use super::slot_of;
use crate::database::{Database, postgres_failed, sqlite_failed};
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// Timeout of a connection attempt.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Interval at which the capture is asked again: a capture that was starting did not receive the
/// first notification.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The end of the WAL, sent to the session of the capture. The commit of this notification lies
/// behind that LSN, so everything before it is flushed too.
const MARK: &str = "
    SELECT lsn::text, pg_notify($1, lsn::text),
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM (SELECT pg_current_wal_insert_lsn() AS lsn) AS at";
/// Whether a capture ever ran in this database.
const IS_KNOWN: &str = "SELECT to_regclass('_tidemill_capture') IS NOT NULL";
/// Whether the recorded progress is at or beyond an LSN.
const IS_PAST: &str = "
    SELECT snapshot_done AND confirmed >= $2::text::pg_lsn FROM _tidemill_capture WHERE name = $1";
/// Asks the capture to record its progress.
const ASK: &str = "SELECT pg_notify($1, $2)";

/// SQLite: the id of the newest change; no row when the file is not captured.
const NEWEST: &str = "
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_tidemill_changes'), 0)
    FROM _tidemill_capture WHERE name = ?1";
/// SQLite: whether all changes of the captured tables up to an id are acknowledged.
const HAS: &str = "
    SELECT ?2 <= coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_tidemill_changes'), 0)
        AND (acknowledged >= ?2 OR NOT EXISTS (
            SELECT 1 FROM _tidemill_changes WHERE id > acknowledged AND id <= ?2 AND table_name IN
                (SELECT table_name FROM _tidemill_capture_tables AS it WHERE it.name = ?1)))
    FROM _tidemill_capture WHERE name = ?1";

/// A position in the commit order of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitPosition {
    /// PostgreSQL: an LSN, written as `0/16B3748`.
    Lsn(u64),
    /// SQLite: the id of a change, written as `1764329943000000`.
    Change(u64),
}

impl fmt::Display for CommitPosition {
    /// Writes an LSN in PostgreSQL's notation, and an id as a decimal number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff),
            Self::Change(id) => write!(f, "{id}"),
        }
    }
}

impl std::str::FromStr for CommitPosition {
    type Err = String;

    /// Parses what `Display` writes. Text with a `/` is an LSN.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let half = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
        };
        let place = match text.split_once('/') {
            Some((high, low)) => half(high)
                .zip(half(low))
                .map(|(high, low)| Self::Lsn(u64::from(high) << 32 | u64::from(low))),
            None => text.parse().ok().map(Self::Change),
        };
        let right = "an LSN such as 0/16B3748, or of an SQLite file the number of a change";
        place.ok_or_else(|| format!("`{text}`: expected {right}"))
    }
}

/// A position of the database and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Everything that was committed lies before this position.
    pub place: CommitPosition,
    /// When, in milliseconds since 1970 by the clock of the database.
    pub at_ms: i64,
}

/// A client that asks a database for marks of one capture. Keeps one connection.
pub struct Marks {
    engine: Engine,
}

/// The client of the database's engine.
enum Engine {
    Server(Box<OnServer>),
    File(InFile),
}

/// Client for a capture from PostgreSQL.
struct OnServer {
    /// The server, or the servers of a failover group.
    server: Server,
    /// The replication slot, which is also the channel of the notifications.
    slot: String,
    /// The connection; `None` before the first question and after an error.
    client: Option<postgres::Client>,
    /// When the capture was last asked to record its progress.
    asked: Option<Instant>,
}

/// Client for a capture from SQLite.
struct InFile {
    /// The SQLite file.
    file: String,
    /// The name of the capture.
    name: String,
    /// The connection; `None` before the first question.
    connection: Option<Connection>,
}

impl Marks {
    /// A client for the capture `name` of the database at `url`. Connects with the first question.
    ///
    /// # Errors
    /// `Data` when the URL or the name is not valid.
    pub fn new(url: &str, name: &str) -> Result<Self> {
        let engine = match Database::of(url)? {
            Database::Postgres(url) => {
                let mut server = Server::parse(&url)?;
                server.patience(CONNECT_PATIENCE);
                server.session("tidemill wait", "");
                Engine::Server(Box::new(OnServer {
                    server,
                    slot: slot_of(name)?,
                    client: None,
                    asked: None,
                }))
            }
            Database::Sqlite(file) => Engine::File(InFile {
                file,
                name: name.to_owned(),
                connection: None,
            }),
        };
        Ok(Self { engine })
    }

    /// The current position of the database.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, or the file was never captured under this name.
    pub fn mark(&mut self) -> Result<Mark> {
        match &mut self.engine {
            Engine::Server(it) => it.mark(),
            Engine::File(it) => it.mark(),
        }
    }

    /// Whether everything before a position is durable in the log.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` for a position of another engine.
    pub fn is_past(&mut self, place: CommitPosition) -> Result<bool> {
        let right = match (&mut self.engine, place) {
            (Engine::Server(it), CommitPosition::Lsn(_)) => return it.is_past(place),
            (Engine::File(it), CommitPosition::Change(id)) => return it.is_past(id),
            (Engine::Server(_), _) => "an LSN such as 0/16B3748",
            (Engine::File(_), _) => "the number of a change",
        };
        let what = format!("`{place}` is no place in this database: expected {right}");
        Err(Error::new(Kind::Data, what))
    }
}

impl OnServer {
    /// The end of the WAL, which is also sent to the capture.
    fn mark(&mut self) -> Result<Mark> {
        let slot = &self.slot;
        let (lsn, at_ms) = on(&self.server, &mut self.client, |client| {
            let row = client.query_one(MARK, &[slot])?;
            Ok((row.try_get::<_, String>(0)?, row.try_get(2)?))
        })?;
        let place = lsn.parse().map_err(|why| Error::new(Kind::Bug, why))?;
        Ok(Mark { place, at_ms })
    }

    /// Compares an LSN with the recorded progress. If that is behind, asks the capture every
    /// [`ASK_AGAIN`] to record its progress.
    fn is_past(&mut self, place: CommitPosition) -> Result<bool> {
        let (slot, lsn, asked) = (&self.slot, place.to_string(), &mut self.asked);
        on(&self.server, &mut self.client, |client| {
            let is_known = client.query_one(IS_KNOWN, &[])?.try_get(0)?;
            let row = match is_known {
                true => client.query_opt(IS_PAST, &[slot, &lsn])?,
                false => None,
            };
            let past = row.map_or(Ok(false), |row| row.try_get(0))?;
            if !past && asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                client.execute(ASK, &[slot, &lsn])?;
                *asked = Some(Instant::now());
            }
            Ok(past)
        })
    }
}

impl InFile {
    /// The id of the newest change, with the time of this process: the file has no clock of its
    /// own.
    fn mark(&mut self) -> Result<Mark> {
        let name = self.name.clone();
        let newest = self.ask(|it| it.query_row(NEWEST, [&name], |row| row.get::<_, i64>(0)))?;
        let none = || {
            let what = format!("nobody has captured `{name}` from {} yet", self.file);
            Error::new(Kind::Retry, what)
        };
        Ok(Mark {
            place: CommitPosition::Change(newest.ok_or_else(none)?.cast_unsigned()),
            at_ms: Timestamp::now().as_millisecond(),
        })
    }

    /// Compares an id with the acknowledged one.
    fn is_past(&mut self, id: u64) -> Result<bool> {
        let name = self.name.clone();
        let asked = params![name, id.cast_signed()];
        let past = self.ask(|it| it.query_row(HAS, asked, |row| row.get(0)))?;
        Ok(past.unwrap_or(false))
    }

    /// Runs a question on the file; `None` when the file is not captured under this name.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        // Opening a file that does not exist would create it.
        if !Path::new(&self.file).exists() {
            return Ok(None);
        }
        let opened = match &self.connection {
            Some(opened) => opened,
            None => self
                .connection
                .insert(tidemill_log::sqlite::connect(&self.file)?),
        };
        let failed = |error| sqlite_failed("asking how far the capture is", error);
        for table in ["_tidemill_capture", "_tidemill_capture_tables"] {
            if !has_table(opened, table).map_err(failed)? {
                return Ok(None);
            }
        }
        ask(opened).optional().map_err(failed)
    }
}

/// Runs a question on the server; connects first if there is no connection.
fn on<T>(
    server: &Server,
    client: &mut Option<postgres::Client>,
    ask: impl FnOnce(&mut postgres::Client) -> std::result::Result<T, postgres::Error>,
) -> Result<T> {
    let mut connected = match client.take() {
        Some(connected) => connected,
        None => server.connect()?,
    };
    let answer = ask(&mut connected);
    if answer.is_ok() {
        *client = Some(connected);
    }
    answer.map_err(|error| postgres_failed("asking how far the capture is", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_parse_as_displayed() {
        for text in ["0/0", "0/16B3748", "FFFFFFFF/FFFFFFFF", "17", "0"] {
            let place: CommitPosition = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
        }
        assert!(
            "2/0".parse::<CommitPosition>().unwrap()
                > "1/FFFFFFFF".parse::<CommitPosition>().unwrap()
        );
        for wrong in [
            "",
            "/",
            "1/",
            "/1",
            "x",
            "0/16B37480A",
            "-1",
            "+1/2",
            "1/2/3",
            "0x1/2",
        ] {
            let why = wrong.parse::<CommitPosition>().unwrap_err();
            assert!(why.contains("expected an LSN"), "{why}");
        }
    }
}
