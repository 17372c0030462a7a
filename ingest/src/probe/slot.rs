//! The replication slot of a capture, as its server sees it.
//!
//! In: the URL and the name of a capture. Out: a [`Slot`], read at the time of the question over a
//! connection that is kept. Nothing is changed.

use std::time::Duration;

use postgres::Client;

use crate::capture::slot_of;
use crate::database::postgres_failed;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// Timeout of a connection attempt.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// The slot beside the end of the WAL, and the server's limit for what slots retain.
const ASK: &str = "
    SELECT (at.lsn - '0/0'::pg_lsn)::bigint, slot.slot_name IS NOT NULL,
           coalesce(slot.active, false), slot.active_pid, slot.wal_status, slot.safe_wal_size,
           (slot.restart_lsn - '0/0'::pg_lsn)::bigint,
           (slot.confirmed_flush_lsn - '0/0'::pg_lsn)::bigint,
           pg_size_bytes(current_setting('max_slot_wal_keep_size'))
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                      ELSE pg_current_wal_lsn() END AS lsn) AS at
         LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = $1";

/// The rows of a table by the planner's statistics; -1 when they were never gathered.
const ROWS: &str = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass($1)";

/// A replication slot at one moment. LSNs are byte positions in the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The end of the WAL.
    pub wal: u64,
    /// Whether the slot exists.
    pub is_there: bool,
    /// Whether a session reads the slot.
    pub is_active: bool,
    /// The process id of the server's process that feeds the slot.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`, as PostgreSQL names it.
    pub wal_status: Option<String>,
    /// Bytes of WAL that can still be written before the slot may be lost; `None` without a limit.
    pub safe_wal_size: Option<i64>,
    /// Where the server's decoding begins after a restart: WAL from here on is retained.
    pub restart_lsn: Option<u64>,
    /// Everything before this LSN is acknowledged by the capture.
    pub confirmed_flush_lsn: Option<u64>,
    /// The server's `max_slot_wal_keep_size` in bytes; `None` when it has no limit.
    pub keep_max: Option<i64>,
}

/// Asks for the slot of one capture.
pub struct SlotProbe {
    server: Server,
    slot: String,
    /// The connection; `None` before the first question and after an error.
    client: Option<Client>,
}

impl SlotProbe {
    /// A probe of the server at `url` for the capture `name`.
    ///
    /// # Errors
    /// `Data` when the URL or the name is not valid.
    pub fn new(url: &str, name: &str) -> Result<Self> {
        let mut server = Server::parse(url)?;
        server.patience(CONNECTION_WAIT);
        server.session("tidemill inspect", "");
        Ok(Self {
            server,
            slot: slot_of(name)?,
            client: None,
        })
    }

    /// The name of the slot.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// The slot now.
    ///
    /// # Errors
    /// `Retry` when the server cannot be reached, `Data` when it refuses.
    pub fn ask(&mut self) -> Result<Slot> {
        let slot = self.slot.clone();
        let row = self.row(ASK, &slot)?;
        let row = row.ok_or_else(|| Error::new(Kind::Bug, "the server gave no row"))?;
        let cell = |error: postgres::Error| Error::with_source(Kind::Bug, "a slot's row", error);
        let lsn = |index: usize| -> Result<Option<u64>> {
            let lsn: Option<i64> = row.try_get(index).map_err(cell)?;
            Ok(lsn.map(i64::unsigned_abs))
        };
        let keep_max: i64 = row.try_get(8).map_err(cell)?;
        Ok(Slot {
            wal: lsn(0)?.unwrap_or(0),
            is_there: row.try_get(1).map_err(cell)?,
            is_active: row.try_get(2).map_err(cell)?,
            active_pid: row.try_get(3).map_err(cell)?,
            wal_status: row.try_get(4).map_err(cell)?,
            safe_wal_size: row.try_get(5).map_err(cell)?,
            restart_lsn: lsn(6)?,
            confirmed_flush_lsn: lsn(7)?,
            keep_max: (keep_max >= 0).then_some(keep_max),
        })
    }

    /// The rows of a table by the planner's statistics; `None` when they were never gathered or
    /// there is no such table.
    ///
    /// # Errors
    /// As for [`SlotProbe::ask`].
    pub fn rows_about(&mut self, table: &str) -> Result<Option<u64>> {
        let row = self.row(ROWS, table)?;
        let rows = row.and_then(|row| row.try_get::<_, i64>(0).ok());
        Ok(rows.and_then(|rows| u64::try_from(rows).ok()))
    }

    /// The row that a question gives, if it gives one.
    fn row(&mut self, sql: &str, parameter: &str) -> Result<Option<postgres::Row>> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(self.server.connect()?),
        };
        let asked = client.query_opt(sql, &[&parameter]);
        asked.map_err(|error| {
            self.client = None;
            postgres_failed("asking for the slot", error)
        })
    }
}
