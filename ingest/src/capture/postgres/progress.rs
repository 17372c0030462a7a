//! Durable progress of a capture in PostgreSQL: publication, slot, and the row in
//! `_tidemill_capture`.
//!
//! The columns of `_tidemill_capture`: `name` and `slot` (the slot), `tables`, `snapshot_done`,
//! `confirmed` (LSN), `generation`, `timeline`. `_tidemill_capture_topics` records the topics.
//!
//! ```text
//! confirmed ≥ slot's confirmed_flush_lsn   normal: resume the stream at `confirmed`
//! confirmed < slot's confirmed_flush_lsn   slot recreated or advanced by someone: changes are lost
//! slot missing or wal_status = lost        changes are lost
//! snapshot_done = false                    begin with a new slot and a snapshot
//! ```
//!
//! Invariants:
//! 1. Everything is written on the session that holds the lease ([`super::lease`]), and so only by
//!    the process that reads the slot.
//! 2. `confirmed` is written before the slot is told.
//! 3. `snapshot_done` is written only when the whole snapshot is durable downstream.

use postgres::Client;
use postgres::error::SqlState;
use tidemill_log::failpoint;
use tidemill_log::log::{Described, TopicId};

use super::advice::ADVICE;
use super::catalog::Table;
use super::identity::Published;
use super::stream::SlotKind;
use super::{identity, lsn_text, sql_error, stream};
use crate::capture::applicable_record;
use crate::capture::postgres::stream::timeline::Timeline;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// The row of a capture.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether the snapshot of all tables is durable.
    snapshot_done: bool,
    /// Everything before this LSN is durable.
    confirmed: u64,
}

/// The slot as the server has it (`pg_replication_slots`).
struct SlotState {
    /// Whether the server removed WAL that the slot needs.
    lost: bool,
    /// `confirmed_flush_lsn`.
    confirmed: u64,
    /// Whether a standby synchronized the slot from the primary.
    synced: bool,
}

/// How a capture resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// With a new slot and a snapshot of all tables.
    Snapshot,
    /// With the stream, from this LSN.
    Stream(u64),
}

/// Refuses servers that cannot be captured: older than PostgreSQL 14, without `wal_level =
/// logical`, or with a role that may not replicate.
///
/// # Errors
/// `Data` with the setting that is missing; `Retry` when the server cannot be reached.
pub(super) fn check_server(client: &mut Client) -> Result<()> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
                    current_user::text, (SELECT rolsuper OR rolreplication FROM pg_roles
                                         WHERE rolname = current_user)",
            &[],
        )
        .map_err(|error| sql_error("reading the server's settings".to_owned(), error))?;
    let (version, wal_level): (i32, String) = (row.get(0), row.get(1));
    let (user, replicates): (String, bool) = (row.get(2), row.get(3));
    let refused = |what: String| Err(Error::new(Kind::Data, what));
    if version < 140_000 {
        return refused(format!(
            "PostgreSQL {} is too old to be captured; 14 or newer is needed",
            version / 10_000
        ));
    }
    if wal_level != "logical" {
        return refused(format!(
            "PostgreSQL's wal_level is `{wal_level}`; set `wal_level = logical` in \
             postgresql.conf and restart the server"
        ));
    }
    if !replicates {
        return refused(format!(
            "role `{user}` may not replicate; run ALTER ROLE \"{user}\" REPLICATION"
        ));
    }
    Ok(())
}

/// Begins the next generation of this capture and returns its number. Creates the tables of the
/// progress.
pub(super) fn begin_generation(client: &mut Client, slot: &str) -> Result<i64> {
    let failed = |error| sql_error("writing table `_tidemill_capture`".to_owned(), error);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS _tidemill_capture (
                 name text PRIMARY KEY, slot text NOT NULL, tables text[] NOT NULL,
                 snapshot_done bool NOT NULL, confirmed pg_lsn NOT NULL,
                 generation bigint NOT NULL, timeline bigint);
             DO $$ BEGIN
               IF NOT EXISTS (SELECT 1 FROM pg_attribute WHERE attname = 'timeline'
                              AND attrelid = to_regclass('_tidemill_capture')) THEN
                 ALTER TABLE _tidemill_capture ADD COLUMN IF NOT EXISTS timeline bigint;
               END IF;
             END $$;
             CREATE TABLE IF NOT EXISTS _tidemill_capture_topics (
                 name text NOT NULL, topic text NOT NULL, id_high bigint NOT NULL,
                 id_low bigint NOT NULL, partitions bigint NOT NULL, PRIMARY KEY (name, topic))",
        )
        .map_err(failed)?;
    let row = client
        .query_opt(
            "UPDATE _tidemill_capture SET generation = generation + 1 WHERE name = $1
             RETURNING generation",
            &[&slot],
        )
        .map_err(failed)?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// The current generation of the capture.
pub(super) fn generation(client: &mut Client, slot: &str) -> Result<i64> {
    let row = client
        .query_opt(
            "SELECT generation FROM _tidemill_capture WHERE name = $1",
            &[&slot],
        )
        .map_err(|error| sql_error("reading table `_tidemill_capture`".to_owned(), error))?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Creates the publication, or sets its tables. What is already right is not altered, so that the
/// transaction ids in the catalog tell whether somebody else altered it.
///
/// # Errors
/// `Data` when the publication is FOR ALL TABLES or cannot be altered; `Retry` when a table was
/// dropped meanwhile.
pub(super) fn publish(client: &mut Client, slot: &str, tables: &[Table]) -> Result<Published> {
    let failed = |error| sql_error(format!("making publication `{slot}`"), error);
    let list: Vec<String> = tables.iter().map(Table::quoted).collect();
    let list = list.join(", ");
    /// The options of the publication.
    const WHOLE: &str = "publish = 'insert, update, delete, truncate',
                         publish_via_partition_root = true";
    let statement = match identity::published(client, slot)? {
        None => format!("CREATE PUBLICATION {slot} FOR TABLE {list} WITH ({WHOLE})"),
        Some(there) if there.of_all => {
            let what = format!(
                "publication `{slot}` is one FOR ALL TABLES, not of the captured tables; run DROP \
                 PUBLICATION {slot}, then `tidemill ingest --resnapshot`, which makes it anew"
            );
            return Err(Error::new(Kind::Data, what));
        }
        Some(there) if there.is_whole => format!("ALTER PUBLICATION {slot} SET TABLE {list}"),
        Some(_) => format!(
            "ALTER PUBLICATION {slot} SET TABLE {list}; ALTER PUBLICATION {slot} SET ({WHOLE})"
        ),
    };
    client.batch_execute(&statement).map_err(|error| {
        // The next attempt says which table is missing, if it does not return.
        let is_gone = error.code() == Some(&SqlState::UNDEFINED_TABLE);
        let error = failed(error);
        match is_gone {
            true => Error::with_source(Kind::Retry, error.to_string(), error),
            false => error,
        }
    })?;
    Ok(identity::published(client, slot)?.unwrap_or_default())
}

/// Reads the row of the capture.
fn read(client: &mut Client, slot: &str) -> Result<Option<Progress>> {
    let row = client
        .query_opt(
            "SELECT snapshot_done, (confirmed - '0/0')::bigint
             FROM _tidemill_capture WHERE name = $1",
            &[&slot],
        )
        .map_err(|error| sql_error("reading table `_tidemill_capture`".to_owned(), error))?;
    Ok(row.map(|row| Progress {
        snapshot_done: row.get(0),
        confirmed: row.get::<_, i64>(1).cast_unsigned(),
    }))
}

/// Reads the state of the slot.
fn slot_state(client: &mut Client, slot: &str) -> Result<Option<SlotState>> {
    let row = client
        .query_opt(
            "SELECT coalesce(wal_status = 'lost', false),
                    coalesce((confirmed_flush_lsn - '0/0')::bigint, 0),
                    coalesce((to_jsonb(s) ->> 'synced')::bool, false)
             FROM pg_replication_slots AS s
             WHERE slot_name = $1 AND database = current_database()",
            &[&slot],
        )
        .map_err(|error| sql_error(format!("looking for slot `{slot}`"), error))?;
    Ok(row.map(|row| SlotState {
        lost: row.get(0),
        confirmed: row.get::<_, i64>(1).cast_unsigned(),
        synced: row.get(2),
    }))
}

/// Which kind of slot this server supports: failover slots exist from PostgreSQL 17 on.
pub(super) fn slot_kind(client: &mut Client) -> Result<SlotKind> {
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .map_err(|error| sql_error("reading the server's version".to_owned(), error))?;
    Ok(match row.get::<_, i32>(0) {
        170_000.. => SlotKind::Failover,
        _ => SlotKind::Persistent,
    })
}

/// Makes an existing slot a failover slot, which standbys synchronize. Slots of earlier versions of
/// Tidemill are not.
pub(super) fn fail_over(server: &Server, client: &mut Client, slot: &str) -> Result<()> {
    let is_one = client
        .query_opt(
            "SELECT failover FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .map_err(|error| sql_error(format!("looking at slot `{slot}`"), error))?;
    match is_one.map(|row| row.get::<_, bool>(0)) {
        Some(false) => {
            tracing::info!(
                slot,
                "the slot is a failover slot from now on, which standbys synchronize"
            );
            stream::fail_over(server, slot)
        }
        _ => Ok(()),
    }
}

/// Decides how the capture resumes.
///
/// # Errors
/// `Data` when changes are lost: they are never skipped silently.
pub(super) fn resume(client: &mut Client, slot: &str, timeline: Timeline) -> Result<Resume> {
    let Some(row) = read(client, slot)?.filter(|row| row.snapshot_done) else {
        return Ok(Resume::Snapshot);
    };
    let refused = |what: String| Err(Error::new(Kind::Data, what + ADVICE));
    match slot_state(client, slot)? {
        None => {
            let how = match timeline.left_at {
                Some(_) => {
                    " (a standby without it was promoted: from PostgreSQL 17 on standbys keep it \
                     with sync_replication_slots, docs/operate.md)"
                }
                None => "",
            };
            refused(format!(
                "replication slot `{slot}` is gone{how}, and with it the changes since {}",
                lsn_text(row.confirmed)
            ))
        }
        Some(state) if state.lost => refused(format!(
            "replication slot `{slot}` is lost: the server removed WAL that it still needed \
             (see max_slot_wal_keep_size)"
        )),
        // The primary advanced the slot when that was durable; its standby was promoted without the
        // newest version of the row.
        Some(state) if state.synced && timeline.left_at.is_some() => {
            Ok(Resume::Stream(row.confirmed.max(state.confirmed)))
        }
        Some(state) if state.confirmed > row.confirmed => refused(format!(
            "replication slot `{slot}` was made anew or moved: it begins at {}, but only what is \
             before {} was captured",
            lsn_text(state.confirmed),
            lsn_text(row.confirmed)
        )),
        Some(_) => Ok(Resume::Stream(row.confirmed)),
    }
}

/// Discards the progress and drops the slot, so that a snapshot can begin.
pub(super) fn restart(client: &mut Client, slot: &str, tables: &[String]) -> Result<()> {
    client
        .execute(
            "INSERT INTO _tidemill_capture
                 (name, slot, tables, snapshot_done, confirmed, generation)
             VALUES ($1, $1, $2, false, '0/0', 0)
             ON CONFLICT (name) DO UPDATE
             SET tables = $2, snapshot_done = false, timeline = NULL",
            &[&slot, &tables],
        )
        .map_err(|error| sql_error("writing table `_tidemill_capture`".to_owned(), error))?;
    failpoint::hit(failpoint::CAPTURE_BEFORE_DROP);
    client
        .execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
             WHERE slot_name = $1",
            &[&slot],
        )
        .map_err(|error| sql_error(format!("dropping slot `{slot}`"), error))?;
    Ok(())
}

/// Whether topics are recorded for the capture, and this one is not among them.
pub(super) fn goes_elsewhere(client: &mut Client, slot: &str, topic: &str) -> Result<bool> {
    let row = client
        .query_one(
            "SELECT coalesce(bool_and(topic <> $2), false)
             FROM _tidemill_capture_topics WHERE name = $1",
            &[&slot, &topic],
        )
        .map_err(|error| sql_error("reading the noted topics".to_owned(), error))?;
    Ok(row.get(0))
}

/// Records to which topic the changes of a table go; see [`crate::capture::Capture::note`].
pub(super) fn note(
    client: &mut Client,
    slot: &str,
    topic: &str,
    now: Described,
    begins_anew: bool,
) -> Result<Described> {
    let failed = |error| sql_error("noting a topic".to_owned(), error);
    let noted = client
        .query_opt(
            "SELECT id_high, id_low, partitions FROM _tidemill_capture_topics
             WHERE name = $1 AND topic = $2",
            &[&slot, &topic],
        )
        .map_err(failed)?;
    let noted = noted.map(|row| Described {
        id: TopicId([row.get(0), row.get(1)]),
        partitions: u32::try_from(row.get::<_, i64>(2)).unwrap_or(u32::MAX),
    });
    let stands = applicable_record(noted, now, begins_anew);
    let TopicId([high, low]) = stands.id;
    client
        .execute(
            "INSERT INTO _tidemill_capture_topics VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name, topic) DO UPDATE
             SET id_high = $3, id_low = $4, partitions = $5",
            &[&slot, &topic, &high, &low, &i64::from(stands.partitions)],
        )
        .map_err(failed)?;
    Ok(stands)
}

/// Records that everything before `lsn` (and so the snapshot) is durable downstream.
pub(super) fn confirm(client: &mut Client, slot: &str, lsn: u64) -> Result<()> {
    client
        .execute(
            "UPDATE _tidemill_capture SET confirmed = $2::text::pg_lsn, snapshot_done = true
             WHERE name = $1",
            &[&slot, &lsn_text(lsn)],
        )
        .map_err(|error| sql_error("writing table `_tidemill_capture`".to_owned(), error))?;
    Ok(())
}
