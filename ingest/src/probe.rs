//! PostgreSQL probe: health of server and replication slot, and the end of the WAL for the lag.
//!
//! In: a URL and the name of a capture. Out: reports to [`Stats::health`], and observations of the
//! WAL's end, from which the ingest's lag is computed. One connection is kept, and opened again
//! when it is lost.

use std::time::{Duration, Instant};

use postgres::Client;
use tidemill_log::health::{ANSWER_WAIT, PROBE, Role, now_ms};

use crate::capture::slot_of;
use crate::database::postgres_failed;
use crate::stats::Stats;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

pub mod slot;
mod sqlite;

pub use sqlite::FileProbe;

/// Timeout of a connection attempt.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How long the server's walsender may have heard nothing from the capture before the slot counts
/// as down. The capture sends a status message every second.
const REPLY_WAIT: Duration = Duration::from_secs(8);

/// The end of the WAL, the state of the slot, and when the walsender last heard from the capture.
/// On a standby the end is the last replayed LSN.
const LOOK: &str = "
    SELECT (at.lsn - '0/0'::pg_lsn)::bigint, slot.slot_name IS NOT NULL,
           coalesce(slot.active, false), coalesce(slot.wal_status, ''),
           (SELECT reply_time::text FROM pg_stat_replication WHERE pid = slot.active_pid),
           (slot.restart_lsn - '0/0'::pg_lsn)::bigint
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                      ELSE pg_current_wal_flush_lsn() END AS lsn) AS at
         LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = $1";

/// A probe of one server, for one capture.
pub struct Probe {
    /// The server.
    server: Server,
    /// The replication slot of the capture.
    slot: String,
    /// The connection; `None` before the first look and after an error.
    client: Option<Client>,
    /// The last reply time that the walsender reported, and since when it is unchanged.
    noted: Option<(String, Instant)>,
}

/// The result of one look.
struct Look {
    /// LSN of the WAL's end.
    wal: u64,
    /// Whether the slot exists.
    there: bool,
    /// Whether a session reads the slot.
    active: bool,
    /// `wal_status` of the slot.
    wal_status: String,
    /// `reply_time` of the walsender.
    reply: Option<String>,
    /// `restart_lsn` of the slot: WAL from there on is kept.
    restart: Option<u64>,
}

impl Probe {
    /// A probe of the server at `url` for the capture `name`.
    ///
    /// # Errors
    /// `Data` when the URL or the name is not valid.
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

    /// The name of the slot.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Looks once and reports the result. Blocks as long as the server does not answer.
    pub fn look(&mut self, stats: &Stats) {
        stats.health.asks(Role::Database, PROBE, ANSWER_WAIT);
        stats.begin_observation();
        let began_ms = now_ms();
        match self.ask() {
            Ok(look) => {
                stats.health.up(Role::Database, PROBE);
                stats.observe_wal_end(began_ms, Some(look.wal));
                let kept = look.restart.map(|lsn| look.wal.saturating_sub(lsn));
                stats.observe_wal_kept(kept);
                self.report_slot(&look, stats);
            }
            Err(error) => {
                self.client = None;
                self.noted = None;
                stats.health.down(Role::Database, PROBE, &error);
                stats.health.forget(Role::Slot, PROBE);
                stats.observe_wal_end(began_ms, None);
                stats.observe_wal_kept(None);
            }
        }
    }

    /// Reports the health of the slot. A slot that does not exist before the capture has begun is
    /// not reported as down.
    fn report_slot(&mut self, look: &Look, stats: &Stats) {
        let silence = self.silence(look, stats);
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
            _ if silence >= REPLY_WAIT => format!(
                "the server's process that feeds replication slot `{slot}` has noted nothing for \
                 {} s",
                silence.as_secs()
            ),
            _ => return stats.health.up(Role::Slot, PROBE),
        };
        stats.health.down(Role::Slot, PROBE, &why);
    }

    /// For how long the walsender has heard nothing from a capture that is publishing.
    fn silence(&mut self, look: &Look, stats: &Stats) -> Duration {
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

    /// Runs the query.
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
        let restart: Option<i64> = row.try_get(5).map_err(cell)?;
        Ok(Look {
            wal: wal.unsigned_abs(),
            there: row.try_get(1).map_err(cell)?,
            active: row.try_get(2).map_err(cell)?,
            wal_status: row.try_get(3).map_err(cell)?,
            reply: row.try_get(4).map_err(cell)?,
            restart: restart.map(i64::unsigned_abs),
        })
    }
}
