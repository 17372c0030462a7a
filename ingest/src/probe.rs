//! Probe of a PostgreSQL server: whether it answers, whether the capture's slot is there, and where
//! its WAL ends.
//!
//! In flow a URL and the capture's name; out flow reports to [`Stats::health`] and looks at the
//! WAL, which is what lag before the log is told from. One connection is kept, and made anew when
//! it is lost.

use std::time::{Duration, Instant};

use postgres::Client;
use tidemill_log::health::{ANSWER_WAIT, PROBE, Role, now_ms};

use crate::capture::slot_of;
use crate::database::postgres_failed;
use crate::server::Server;
use crate::stats::Stats;
use crate::{Error, Kind, Result};

mod sqlite;

pub use sqlite::FileProbe;

/// How long a connection attempt may take, and what was sent may stay unacknowledged.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How long the server's process that feeds the capture may take note of nothing: the capture says
/// each second how far it is.
const REPLY_WAIT: Duration = Duration::from_secs(8);

/// The server's WAL, the slot, and when the process that feeds it heard of the capture last. What a
/// server replays has no end of its own.
const LOOK: &str = "
    SELECT (at.lsn - '0/0'::pg_lsn)::bigint, slot.slot_name IS NOT NULL,
           coalesce(slot.active, false), coalesce(slot.wal_status, ''),
           (SELECT reply_time::text FROM pg_stat_replication WHERE pid = slot.active_pid)
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                      ELSE pg_current_wal_flush_lsn() END AS lsn) AS at
         LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = $1";

/// A probe of one server, for one capture.
pub struct Probe {
    server: Server,
    slot: String,
    client: Option<Client>,
    /// What the server's process that feeds the capture noted last, and since when that is so.
    noted: Option<(String, Instant)>,
}

/// What one look found.
struct Look {
    wal: u64,
    there: bool,
    active: bool,
    wal_status: String,
    reply: Option<String>,
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
            noted: None,
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
                self.noted = None;
                stats.health.down(Role::Database, PROBE, &error);
                stats.health.forget(Role::Slot, PROBE);
                stats.wal_ends(began_ms, None);
            }
        }
    }

    /// The slot: one that is not there before the capture has begun is not missing.
    fn judge(&mut self, look: &Look, stats: &Stats) {
        let silent = self.silent(look, stats);
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
            _ if silent >= REPLY_WAIT => format!(
                "the server's process that feeds replication slot `{slot}` has noted nothing for \
                 {} s",
                silent.as_secs()
            ),
            _ => return stats.health.up(Role::Slot, PROBE),
        };
        stats.health.down(Role::Slot, PROBE, &why);
    }

    /// For how long the server's process has noted nothing of the capture, which publishes.
    fn silent(&mut self, look: &Look, stats: &Stats) -> Duration {
        let reply = look.reply.as_ref().filter(|_| stats.unready().is_none());
        let Some(reply) = reply else {
            self.noted = None;
            return Duration::ZERO;
        };
        let same = self.noted.as_ref().filter(|(noted, _)| noted == reply);
        let since = same.map_or_else(Instant::now, |(_, since)| *since);
        self.noted = Some((reply.clone(), since));
        since.elapsed()
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
            reply: row.try_get(4).map_err(cell)?,
        })
    }
}
