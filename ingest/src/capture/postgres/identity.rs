//! Table identity: which table a captured name stands for, and whether its stream is complete.
//!
//! The recorded [`Shape`] of each table is compared with the catalog at each start and every few
//! seconds. The result says for each table whether its stream can continue or it must be read as a
//! snapshot, and why. This is necessary because a name can be given to another table, and because
//! the replication stream reports nothing of a table that was out of the publication for a while,
//! of partitions that are attached, detached, dropped or truncated, and of rows that an ALTER TABLE
//! rewrote.
//!
//! Shapes are kept in `_tidemill_capture_tables`: `name` (the slot), `table_name`, `shape` (JSON),
//! `captured_from` (LSN).
//!
//! Invariants:
//! 1. The shape of a table is recorded only when its snapshot is durable downstream.
//! 2. The shape of a table that must be read again is deleted before the publication is set. So a
//!    crash in between does not prevent the snapshot.

use std::collections::BTreeMap;

use postgres::Client;

use super::advice::ADVICE;
use super::catalog::Table;
use super::{lsn_text, sql_error};
use crate::capture::postgres::catalog::shape::{Sent, Shape};
use crate::{Error, Kind, Result};

/// The record of a captured table.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    /// What must not change unnoticed.
    pub(super) shape: Shape,
    /// Transactions with a commit LSN below this one are in the snapshot of the table.
    pub(super) from: u64,
}

/// The recorded tables by name; empty before a snapshot is durable.
///
/// # Errors
/// `Data` when a record cannot be parsed; `Retry` when the server cannot be reached.
pub(super) fn noted(client: &mut Client, slot: &str) -> Result<BTreeMap<String, Noted>> {
    let failed = |error| sql_error("reading table `_tidemill_capture_tables`".to_owned(), error);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS _tidemill_capture_tables (
                 name text NOT NULL, table_name text NOT NULL, shape text NOT NULL,
                 captured_from pg_lsn NOT NULL, PRIMARY KEY (name, table_name))",
        )
        .map_err(failed)?;
    let rows = client
        .query(
            "SELECT table_name, shape, (captured_from - '0/0')::bigint
             FROM _tidemill_capture_tables WHERE name = $1",
            &[&slot],
        )
        .map_err(failed)?;
    rows.iter()
        .map(|row| {
            let shape = serde_json::from_str(row.get(1)).map_err(|error| {
                let what = "table `_tidemill_capture_tables` holds a shape that cannot be read";
                Error::with_source(Kind::Data, what, error)
            })?;
            let from = row.get::<_, i64>(2).cast_unsigned();
            Ok((row.get(0), Noted { shape, from }))
        })
        .collect()
}

/// The tables of a capture that began with a version which did not record shapes: their current
/// shapes, if they are the published tables.
pub(super) fn adopted(
    client: &mut Client,
    slot: &str,
    tables: &[(String, Table)],
) -> Result<BTreeMap<String, Noted>> {
    let row = client
        .query_opt(
            "SELECT tables FROM _tidemill_capture WHERE name = $1 AND snapshot_done",
            &[&slot],
        )
        .map_err(|error| sql_error("reading table `_tidemill_capture`".to_owned(), error))?;
    let known: Vec<String> = row.map_or_else(Vec::new, |row| row.get(0));
    let mut adopted = BTreeMap::new();
    for (name, table) in tables.iter().filter(|(name, _)| known.contains(name)) {
        let shape = Shape::read(client, table)?;
        adopted.insert(name.clone(), Noted { shape, from: 0 });
    }
    Ok(adopted)
}

/// The publication of a capture.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The tables that it sends without a row filter or column list, by OID.
    pub(super) tables: BTreeMap<u32, Sent>,
    /// The OID of the publication.
    pub(super) oid: u32,
    /// Whether it sends all kinds of changes, and those of partitions under the name of their root.
    pub(super) is_whole: bool,
    /// Whether it is FOR ALL TABLES, which cannot be changed to a list.
    pub(super) of_all: bool,
}

/// Reads the publication; `None` when it does not exist.
pub(super) fn published(client: &mut Client, slot: &str) -> Result<Option<Published>> {
    let failed = |error| sql_error(format!("reading publication `{slot}`"), error);
    let there = client
        .query_opt(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot,
                    oid, xmin::text::bigint, puballtables
             FROM pg_publication WHERE pubname = $1",
            &[&slot],
        )
        .map_err(failed)?;
    let Some(there) = there else {
        return Ok(None);
    };
    let mut published = Published {
        tables: BTreeMap::new(),
        oid: there.get(1),
        is_whole: there.get(0),
        of_all: there.get(3),
    };
    if !published.is_whole {
        return Ok(Some(published));
    }
    // Row filters and column lists exist from PostgreSQL 15 on.
    let rows = client
        .query(
            "SELECT r.prrelid, r.oid FROM pg_publication_rel r
             WHERE r.prpubid = $1 AND to_jsonb(r) ->> 'prqual' IS NULL
               AND to_jsonb(r) ->> 'prattrs' IS NULL",
            &[&published.oid],
        )
        .map_err(failed)?;
    let sent = rows.iter().map(|row| {
        let sent = Sent {
            publication: published.oid,
            options: there.get(2),
            membership: row.get(1),
        };
        (row.get(0), sent)
    });
    published.tables = sent.collect();
    Ok(Some(published))
}

/// The publication of a capture that has one. A publication that was dropped and created again did
/// not send what was committed in between, and the slot cannot be read past that.
///
/// # Errors
/// `Data` when the publication does not exist or was created again.
pub(super) fn same_publication<'a>(
    client: &mut Client,
    slot: &str,
    noted: impl IntoIterator<Item = &'a Noted>,
) -> Result<Published> {
    let published = published(client, slot)?.ok_or_else(|| unpublished(slot, "is gone"))?;
    let mut sent = noted.into_iter().filter_map(|it| it.shape.sent);
    match sent.any(|sent| sent.publication != published.oid) {
        true => Err(unpublished(slot, "was dropped and made anew")),
        false => Ok(published),
    }
}

/// Refuses a table that was moved to another schema, which may be part of the topic's name.
pub(super) fn refuse_moved(noted: &Noted, name: &str, now: Table) -> Result<Table> {
    let Some(was) = noted.shape.moved(&now) else {
        return Ok(now);
    };
    let is = &now.schema.namespace;
    let what = format!(
        "table `{name}` was moved from schema `{was}` to `{is}`; move it back, or name it \
         `{is}.{}` in `tables`, which reads it anew",
        now.schema.name
    );
    Err(Error::new(Kind::Data, what))
}

/// Why a captured table must be read again; `None` when its stream is complete.
pub(super) fn outdated(
    client: &mut Client,
    noted: &Noted,
    now: &Shape,
    published: &Published,
) -> Option<String> {
    let why = noted.shape.outdated(client, now);
    why.or_else(
        || match (noted.shape.sent, published.tables.get(&now.oid)) {
            (_, None) => Some("the publication did not send all of its changes".to_owned()),
            (Some(was), Some(is)) if was != *is => Some(
                "the publication was altered, and may not have sent all of its changes".to_owned(),
            ),
            _ => None,
        },
    )
}

/// The error of a publication that did not send all changes.
fn unpublished(slot: &str, how: &str) -> Error {
    let what = format!("publication `{slot}` {how}, and changes of its tables are missing{ADVICE}");
    Error::new(Kind::Data, what)
}

/// Deletes the records of all tables of the capture but `kept`.
pub(super) fn keep(client: &mut Client, slot: &str, kept: &[String]) -> Result<()> {
    let failed = |error| sql_error("writing table `_tidemill_capture_tables`".to_owned(), error);
    // First this list: a capture without recorded shapes adopts the tables that are in it.
    client
        .execute(
            "UPDATE _tidemill_capture SET tables = $2 WHERE name = $1",
            &[&slot, &kept],
        )
        .map_err(failed)?;
    client
        .execute(
            "DELETE FROM _tidemill_capture_tables WHERE name = $1 AND NOT table_name = ANY($2)",
            &[&slot, &kept],
        )
        .map_err(failed)?;
    Ok(())
}

/// Records a table as captured.
pub(super) fn note(client: &mut Client, slot: &str, table: &str, noted: &Noted) -> Result<()> {
    let shape = serde_json::to_string(&noted.shape)
        .map_err(|error| Error::with_source(Kind::Bug, "a table's shape is no JSON", error))?;
    client
        .execute(
            "INSERT INTO _tidemill_capture_tables VALUES ($1, $2, $3, $4::text::pg_lsn)
             ON CONFLICT (name, table_name)
             DO UPDATE SET shape = $3, captured_from = $4::text::pg_lsn",
            &[&slot, &table, &shape, &lsn_text(noted.from)],
        )
        .map_err(|error| sql_error("writing table `_tidemill_capture_tables`".to_owned(), error))?;
    Ok(())
}
