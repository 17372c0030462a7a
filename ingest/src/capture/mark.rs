//! Marks: a moment of the database, and whether everything that was committed before it is in the
//! log.
//!
//! A database and a capture's name flow in. Out flow positions of the database, and what the
//! capture, in whatever process it runs, has written down of its progress. Nothing of the capture
//! is held here.
//!
//! Invariants:
//! 1. What is committed when [`Marks::mark`] is called is before the position that it returns.
//! 2. A position is passed only when everything before it is durable in the log.
//! 3. A position is passed some time, also when nothing is committed any more: a capture that
//!    has nothing to write down is asked to.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use tidemill_log::sqlite::has_table;

use super::slot_of;
use crate::database::{Database, postgres_failed, sqlite_failed};
use crate::server::Server;
use crate::{Error, Kind, Result};

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often a capture is asked again: one that was just starting has not heard it.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Where the WAL ends, told to the capture's session. The commit of what is told is behind it, so
/// that everything before it is flushed as well.
const MARK: &str = "
    SELECT lsn::text, pg_notify($1, lsn::text),
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM (SELECT pg_current_wal_insert_lsn() AS lsn) AS at";
const IS_KNOWN: &str = "SELECT to_regclass('_tidemill_capture') IS NOT NULL";
const IS_PAST: &str = "
    SELECT snapshot_done AND confirmed >= $2::text::pg_lsn FROM _tidemill_capture WHERE name = $1";
const ASK: &str = "SELECT pg_notify($1, $2)";

/// The newest change of the file, once it is captured at all.
const NEWEST: &str = "
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_tidemill_changes'), 0)
    FROM _tidemill_capture WHERE name = ?1";
const HAS: &str = "
    SELECT ?2 <= coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_tidemill_changes'), 0)
        AND (acknowledged >= ?2 OR NOT EXISTS (
            SELECT 1 FROM _tidemill_changes WHERE id > acknowledged AND id <= ?2 AND table_name IN
                (SELECT table_name FROM _tidemill_capture_tables AS it WHERE it.name = ?1)))
    FROM _tidemill_capture WHERE name = ?1";

/// A place in the order in which a database commits: an LSN of PostgreSQL, the number of a change
/// in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `0/16B3748`.
    Lsn(u64),
    /// `1764329943000000`.
    Change(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff),
            Self::Change(id) => write!(f, "{id}"),
        }
    }
}

impl std::str::FromStr for Place {
    type Err = String;

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

/// A moment of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Everything that was committed is before it.
    pub place: Place,
    /// When, in milliseconds since 1970 by the database's clock.
    pub at_ms: i64,
}

/// Asks a database for marks, for the capture of one name. One connection is kept.
pub struct Marks {
    engine: Engine,
}

enum Engine {
    Server(Box<OnServer>),
    File(InFile),
}

/// A capture from PostgreSQL.
struct OnServer {
    server: Server,
    slot: String,
    client: Option<postgres::Client>,
    /// When the capture was last asked to write its progress down.
    asked: Option<Instant>,
}

/// A capture from SQLite.
struct InFile {
    file: String,
    name: String,
    connection: Option<Connection>,
}

impl Marks {
    /// Of the database at `url`; nothing is asked yet.
    ///
    /// # Errors
    /// `Data` when the URL or the name cannot be used.
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

    /// This moment.
    ///
    /// # Errors
    /// `Retry` when the database is away, or when nobody has captured from the file yet.
    pub fn mark(&mut self) -> Result<Mark> {
        match &mut self.engine {
            Engine::Server(it) => it.mark(),
            Engine::File(it) => it.mark(),
        }
    }

    /// Whether everything before this place is durable in the log.
    ///
    /// # Errors
    /// `Retry` when the database is away, `Data` when the place is one of another engine.
    pub fn is_past(&mut self, place: Place) -> Result<bool> {
        let right = match (&mut self.engine, place) {
            (Engine::Server(it), Place::Lsn(_)) => return it.is_past(place),
            (Engine::File(it), Place::Change(id)) => return it.is_past(id),
            (Engine::Server(_), _) => "an LSN such as 0/16B3748",
            (Engine::File(_), _) => "the number of a change",
        };
        let what = format!("`{place}` is no place in this database: expected {right}");
        Err(Error::new(Kind::Data, what))
    }
}

impl OnServer {
    fn mark(&mut self) -> Result<Mark> {
        let slot = &self.slot;
        let (lsn, at_ms) = on(&self.server, &mut self.client, |client| {
            let row = client.query_one(MARK, &[slot])?;
            Ok((row.try_get::<_, String>(0)?, row.try_get(2)?))
        })?;
        let place = lsn.parse().map_err(|why| Error::new(Kind::Bug, why))?;
        Ok(Mark { place, at_ms })
    }

    fn is_past(&mut self, place: Place) -> Result<bool> {
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
    fn mark(&mut self) -> Result<Mark> {
        let name = self.name.clone();
        let newest = self.ask(|it| it.query_row(NEWEST, [&name], |row| row.get::<_, i64>(0)))?;
        let none = || {
            let what = format!("nobody has captured `{name}` from {} yet", self.file);
            Error::new(Kind::Retry, what)
        };
        Ok(Mark {
            place: Place::Change(newest.ok_or_else(none)?.cast_unsigned()),
            at_ms: Timestamp::now().as_millisecond(),
        })
    }

    fn is_past(&mut self, id: u64) -> Result<bool> {
        let name = self.name.clone();
        let asked = params![name, id.cast_signed()];
        let past = self.ask(|it| it.query_row(HAS, asked, |row| row.get(0)))?;
        Ok(past.unwrap_or(false))
    }

    /// Asks the file; none when it is not captured under the name.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        // Opening one that is not there would make it.
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

/// Asks the server, connecting first where there is no connection.
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
    fn places_are_read_as_they_are_written() {
        for text in ["0/0", "0/16B3748", "FFFFFFFF/FFFFFFFF", "17", "0"] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
        }
        assert!("2/0".parse::<Place>().unwrap() > "1/FFFFFFFF".parse::<Place>().unwrap());
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
            let why = wrong.parse::<Place>().unwrap_err();
            assert!(why.contains("expected an LSN"), "{why}");
        }
    }
}
