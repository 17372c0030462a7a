//! Probe of a PostgreSQL server: whether it answers, whether the capture's slot is there, and where
//! its WAL ends.
//!
//! In flow a URL and the capture's name; out flow reports to [`Stats::health`] and looks at the
//! WAL, which is what lag before the log is told from. One connection is kept, and made anew when
//! it is lost.

use std::time::Duration;

use postgres::Client;
use tidemill_log::health::{ANSWER_WAIT, PROBE, Role, now_ms};

use crate::capture::slot_of;
use crate::database::postgres_failed;
use crate::server::Server;
use crate::stats::Stats;
use crate::{Error, Kind, Result};

/// How long a connection attempt may take, and what was sent may stay unacknowledged.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// The server's WAL and the slot. What a server replays has no end of its own.
const LOOK: &str = "
    SELECT (at.lsn - '0/0'::pg_lsn)::bigint, slot.slot_name IS NOT NULL,
           coalesce(slot.active, false), coalesce(slot.wal_status, '')
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                      ELSE pg_current_wal_flush_lsn() END AS lsn) AS at
         LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = $1";

/// A probe of one server, for one capture.
pub struct Probe {
    server: Server,
    slot: String,
    client: Option<Client>,
}

/// What one look found.
struct Look {
    wal: u64,
    there: bool,
    active: bool,
    wal_status: String,
}

impl Probe {
    /// A probe of the server at `url` for the capture called `name`.
    ///
    /// # Errors
    /// `Data` when the URL or the name cannot be used.
    pub fn new(url: &str, name: &str) -> Result<Self> {
        let mut server = Server::parse(url)?;
        server.patience(CONNECTION_WAIT);
        server.session("tidemill probe", "");
        Ok(Self {
            server,
            slot: slot_of(name)?,
            client: None,
        })
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Looks once, and reports what it found. Blocks as long as the server does not answer.
    pub fn look(&mut self, stats: &Stats) {
        stats.health.asks(Role::Database, PROBE, ANSWER_WAIT);
        stats.looks_at_wal();
        let began_ms = now_ms();
        match self.ask() {
            Ok(look) => {
                stats.health.up(Role::Database, PROBE);
                stats.wal_ends(began_ms, Some(look.wal));
                self.judge(&look, stats);
            }
            Err(error) => {
                self.client = None;
                stats.health.down(Role::Database, PROBE, &error);
                stats.health.forget(Role::Slot, PROBE);
                stats.wal_ends(began_ms, None);
            }
        }
    }

    /// The slot: one that is not there before the capture has begun is not missing.
    fn judge(&self, look: &Look, stats: &Stats) {
        let slot = &self.slot;
        let why = match look {
            Look { there: false, .. } if stats.is_capturing() => {
                format!("replication slot `{slot}` is not there")
            }
            Look { there: false, .. } => return,
            Look { wal_status, .. } if wal_status == "lost" => {
                format!("replication slot `{slot}` is lost: the server removed WAL that it needs")
            }
            Look { active: false, .. } if stats.is_capturing() => {
                format!("nobody reads replication slot `{slot}`")
            }
            _ => return stats.health.up(Role::Slot, PROBE),
        };
        stats.health.down(Role::Slot, PROBE, &why);
    }

    fn ask(&mut self) -> Result<Look> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(self.server.connect()?),
        };
        let row = client
            .query_one(LOOK, &[&self.slot])
            .map_err(|error| postgres_failed("asking for the WAL's end", error))?;
        let cell = |error: postgres::Error| Error::with_source(Kind::Bug, "a probe's row", error);
        let wal: i64 = row.try_get(0).map_err(cell)?;
        Ok(Look {
            wal: wal.unsigned_abs(),
            there: row.try_get(1).map_err(cell)?,
            active: row.try_get(2).map_err(cell)?,
            wal_status: row.try_get(3).map_err(cell)?,
        })
    }
}
