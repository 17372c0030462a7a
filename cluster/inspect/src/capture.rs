//! The capture of a job: its replication slot, the WAL that the slot retains, and the snapshot.
//!
//! The rate of the WAL is measured between the requests of the last ten minutes, so the first
//! request after a start has none. PostgreSQL does not tell the free space of its disk: the time
//! left is that until the server's own limit (`max_slot_wal_keep_size`), if it has one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidemill_ingest::probe::slot::{Slot, SlotProbe};
use tidemill_ingest::stats::Stats;

use crate::refusal::Answer;
use crate::{Inspected, locked};

/// Limit of the positions that are kept for the rate.
const POSITIONS_MAX: usize = 120;
/// Shortest time between two of them.
const POSITION_EVERY: Duration = Duration::from_secs(5);
/// The rate is at least over this time.
const RATE_MIN: Duration = Duration::from_secs(4);

/// The connection to the server, and the ends of the WAL at earlier requests.
#[derive(Default)]
pub(crate) struct Seen {
    probe: Option<SlotProbe>,
    ends: VecDeque<(Instant, u64)>,
}

/// The capture of a job.
#[derive(Debug, Serialize)]
pub(crate) struct Capture {
    /// `postgres`, `sqlite`, or `none` for a job that captures nothing.
    engine: &'static str,
    /// The captured tables.
    tables: Vec<Table>,
    /// The slot; absent for other engines.
    slot: Option<Told>,
    /// SQLite: changes that are not published yet; absent when unknown.
    changes_waiting: Option<u64>,
    /// The snapshot that the ingest process reads or has read since its start; absent when it
    /// began none, or this is not that process.
    snapshot: Option<Snapshot>,
    /// How tables are read again.
    resnapshot: &'static str,
}

/// A captured table.
#[derive(Debug, Serialize)]
struct Table {
    name: String,
    /// Rows by the planner's statistics; absent when there are none.
    rows_about: Option<u64>,
}

/// A snapshot of the tables.
#[derive(Debug, Serialize)]
struct Snapshot {
    began_ms: u64,
    /// Absent while it is read.
    ended_ms: Option<u64>,
    /// Rows that are published, by table.
    tables: Vec<(String, u64)>,
}

/// A replication slot, in the words of PostgreSQL.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    is_there: bool,
    active: bool,
    active_pid: Option<i32>,
    wal_status: Option<String>,
    /// LSNs as PostgreSQL writes them.
    current_lsn: String,
    restart_lsn: Option<String>,
    confirmed_flush_lsn: Option<String>,
    /// Bytes of WAL between `restart_lsn` and the end.
    retained_bytes: Option<u64>,
    /// Bytes of WAL that the capture has not acknowledged.
    unconfirmed_bytes: Option<u64>,
    /// Bytes that can still be written before the slot may be lost; absent without a limit.
    safe_wal_size: Option<i64>,
    /// The server's `max_slot_wal_keep_size` in bytes; absent without a limit.
    keep_max_bytes: Option<i64>,
    /// Bytes of WAL that the server writes a second; absent until it was measured.
    wal_bytes_per_s: Option<f64>,
    /// Hours until the limit at that rate; absent without a limit or a rate.
    hours_to_limit: Option<f64>,
}

/// The sentence about reading tables again: no running process takes such an order.
const RESNAPSHOT: &str = "all tables are read again when the ingest starts with --resnapshot; a \
                          running ingest cannot be told to, and not for one table alone";

/// The capture now.
///
/// # Errors
/// The database does not answer.
pub(crate) fn now(job: &Inspected) -> Answer<Capture> {
    let ingest = job.folder.ingest_if_any()?;
    let names = ingest.map(|ingest| ingest.tables()).unwrap_or_default();
    let stats = job.ingest.as_ref();
    let mut capture = Capture {
        engine: "none",
        tables: Vec::new(),
        slot: None,
        changes_waiting: stats.and_then(|stats| stats.unpublished().changes),
        snapshot: stats.and_then(|stats| snapshot(stats)),
        resnapshot: RESNAPSHOT,
    };
    let no_rows = |name: &String| Table {
        name: name.clone(),
        rows_about: None,
    };
    capture.tables = names.iter().map(no_rows).collect();
    let database = &job.connections.database;
    if names.is_empty() {
        return Ok(capture);
    }
    if database.starts_with("sqlite://") {
        capture.engine = "sqlite";
        return Ok(capture);
    }
    capture.engine = "postgres";
    let mut seen = locked(&job.slot);
    let seen = &mut *seen;
    let probe = match &mut seen.probe {
        Some(probe) => probe,
        none => none.insert(SlotProbe::new(database, &job.name)?),
    };
    let slot = probe.ask()?;
    for table in &mut capture.tables {
        table.rows_about = probe.rows_about(&table.name)?;
    }
    let name = probe.slot().to_owned();
    let rate = rate(&mut seen.ends, Instant::now(), slot.wal);
    capture.slot = Some(told(name, &slot, rate));
    Ok(capture)
}

/// The snapshot of an ingest process.
fn snapshot(stats: &Stats) -> Option<Snapshot> {
    let progress = stats.snapshot()?;
    Some(Snapshot {
        began_ms: progress.began_ms,
        ended_ms: progress.ended_ms,
        tables: progress.tables.into_iter().collect(),
    })
}

/// Notes the end of the WAL, and gives the bytes that were written a second since the oldest note.
fn rate(ends: &mut VecDeque<(Instant, u64)>, now: Instant, end: u64) -> Option<f64> {
    let newest = ends.back().map(|(at, _)| now.duration_since(*at));
    if newest.is_none_or(|it| it >= POSITION_EVERY) {
        // After a pause the old positions say nothing about the rate now.
        if newest.is_some_and(|it| it > POSITION_EVERY * 12) {
            ends.clear();
        }
        if ends.len() == POSITIONS_MAX {
            ends.pop_front();
        }
        ends.push_back((now, end));
    }
    let (since, first) = ends.front()?;
    let passed = now.duration_since(*since);
    let written = end.checked_sub(*first)?;
    (passed >= RATE_MIN).then(|| written as f64 / passed.as_secs_f64())
}

/// A slot with what follows from it.
fn told(name: String, slot: &Slot, rate: Option<f64>) -> Told {
    let behind = |lsn: Option<u64>| lsn.map(|lsn| slot.wal.saturating_sub(lsn));
    let left = slot.safe_wal_size.map(|it| it.max(0) as f64);
    let hours = left.zip(rate.filter(|rate| *rate > 0.0));
    Told {
        name,
        is_there: slot.is_there,
        active: slot.is_active,
        active_pid: slot.active_pid,
        wal_status: slot.wal_status.clone(),
        current_lsn: lsn(slot.wal),
        restart_lsn: slot.restart_lsn.map(lsn),
        confirmed_flush_lsn: slot.confirmed_flush_lsn.map(lsn),
        retained_bytes: behind(slot.restart_lsn),
        unconfirmed_bytes: behind(slot.confirmed_flush_lsn),
        safe_wal_size: slot.safe_wal_size,
        keep_max_bytes: slot.keep_max,
        wal_bytes_per_s: rate,
        hours_to_limit: hours.map(|(left, rate)| left / rate / 3600.0),
    }
}

/// An LSN as PostgreSQL writes it.
fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_known_after_some_seconds_and_not_over_a_pause() {
        let mut ends = VecDeque::new();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(rate(&mut ends, at(0), 1000), None);
        assert_eq!(rate(&mut ends, at(2), 3000), None);
        assert_eq!(rate(&mut ends, at(10), 11_000), Some(1000.0));
        assert_eq!(rate(&mut ends, at(600), 11_000), None);
        assert_eq!(rate(&mut ends, at(610), 11_000), Some(0.0));
        for second in 1..1000 {
            rate(&mut ends, at(610 + 6 * second), 11_000);
        }
        assert_eq!(ends.len(), POSITIONS_MAX);
    }

    #[test]
    fn the_time_left_is_that_to_the_servers_limit() {
        let slot = Slot {
            wal: 0x1_0000_4000,
            is_there: true,
            is_active: true,
            active_pid: Some(7),
            wal_status: Some("reserved".into()),
            safe_wal_size: Some(7_200_000),
            restart_lsn: Some(0x1_0000_0000),
            confirmed_flush_lsn: Some(0x1_0000_3000),
            keep_max: Some(1 << 30),
        };
        let shown = told("s".into(), &slot, Some(1000.0));
        assert_eq!(shown.hours_to_limit, Some(2.0));
        assert_eq!(shown.retained_bytes, Some(0x4000));
        assert_eq!(shown.unconfirmed_bytes, Some(0x1000));
        assert_eq!(shown.restart_lsn.as_deref(), Some("1/0"));
        assert_eq!(told("s".into(), &slot, Some(0.0)).hours_to_limit, None);
    }
}
