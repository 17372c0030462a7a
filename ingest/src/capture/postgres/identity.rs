//! Which table a captured name stands for, and whether what was captured of it is still all of it.
//!
//! The catalog flows in; for each table whether the stream can go on, or why the table must be read
//! anew. A name may be given to another table, and PostgreSQL's stream says nothing of a table that
//! was not published for a while, of partitions that are attached, detached, dropped or truncated,
//! or of rows that an ALTER TABLE changed. So the [`Shape`] of each table is kept in
//! `_tidemill_capture_tables`, and compared at each start and every few seconds.
//!
//! Invariants:
//! 1. A table is noted only when its snapshot is durable downstream.
//! 2. What has to be read anew is forgotten before its publication is set, so a crash reads it
//!    anew.

use std::collections::BTreeMap;

use postgres::Client;
use serde::{Deserialize, Serialize};

use super::catalog::{Table, quote};
use super::progress::ADVICE;
use super::{lsn_text, sql_error};
use crate::{Error, Kind, Result};

/// What of a table must stay as it is for its stream to be complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    oid: u32,
    /// The primary key's constraint and its columns' numbers.
    key: (u32, Vec<i16>),
    columns: BTreeMap<i16, Column>,
    /// The tables that hold the rows, itself or its partitions, each with its file.
    stored: BTreeMap<u32, u32>,
    /// The transaction that made each partition one.
    attached: BTreeMap<u32, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    name: String,
    kind: u32,
    modifier: i32,
    /// Rows that were there before the column have a value in it.
    filled: bool,
}

/// A table as it was last captured.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub(super) shape: Shape,
    /// Changes of transactions before this LSN are in its snapshot.
    pub(super) from: u64,
}

impl Shape {
    /// Reads the shape of a table, as the catalog has it now.
    pub(super) fn read(client: &mut Client, table: &Table) -> Result<Self> {
        let failed = |error| sql_error(format!("reading table `{}`", table.schema.name), error);
        let key = client
            .query_opt(
                "SELECT oid, conkey FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'",
                &[&table.oid],
            )
            .map_err(failed)?;
        let columns = client
            .query(
                "SELECT attnum, attname::text, atttypid, atttypmod, atthasmissing
                 FROM pg_attribute
                 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                &[&table.oid],
            )
            .map_err(failed)?;
        let stored = client
            .query(
                "SELECT oid, coalesce(pg_relation_filenode(oid), 0)
                 FROM pg_class
                 WHERE relkind <> 'p' AND (oid = $1 OR oid IN (
                     SELECT relid::oid FROM pg_partition_tree($1::oid::regclass)))",
                &[&table.oid],
            )
            .map_err(failed)?;
        let attached = client
            .query(
                "SELECT i.inhrelid, i.xmin::text::bigint FROM pg_inherits i
                 WHERE i.inhrelid IN (
                     SELECT relid::oid FROM pg_partition_tree($1::oid::regclass))",
                &[&table.oid],
            )
            .map_err(failed)?;
        let column = |row: &postgres::Row| {
            let column = Column {
                name: row.get(1),
                kind: row.get(2),
                modifier: row.get(3),
                filled: row.get(4),
            };
            (row.get(0), column)
        };
        Ok(Self {
            oid: table.oid,
            key: key.map_or((0, Vec::new()), |row| (row.get(0), row.get(1))),
            columns: columns.iter().map(column).collect(),
            stored: stored.iter().map(|row| (row.get(0), row.get(1))).collect(),
            attached: attached
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect(),
        })
    }

    /// Whether the rows are where they were.
    pub(super) fn is_stored_as(&self, other: &Self) -> bool {
        (self.oid, &self.stored) == (other.oid, &other.stored)
    }

    /// Why rows of the table are missing or wrong downstream, if `self` was captured and the table
    /// is `now` another one.
    pub(super) fn outdated(&self, client: &mut Client, now: &Self) -> Option<String> {
        if self.oid != now.oid {
            return Some("the name stands for another table now".to_owned());
        }
        if self.key != now.key {
            return Some("its primary key was changed".to_owned());
        }
        let rewritten = self.stored != now.stored;
        for (number, column) in &now.columns {
            let what = match self.columns.get(number) {
                None if column.filled || rewritten => "was added with a value for its rows",
                Some(was) if was.name != column.name => "was renamed",
                Some(was)
                    if rewritten && (was.kind, was.modifier) != (column.kind, column.modifier) =>
                {
                    "has another type"
                }
                _ => continue,
            };
            return Some(format!("its column `{}` {what}", column.name));
        }
        if now.stored.contains_key(&now.oid) {
            // The stream tells of its own TRUNCATE.
            return None;
        }
        for (part, file) in &self.stored {
            match now.stored.get(part) {
                None => return Some("a partition was detached or dropped".to_owned()),
                Some(now) if now != file => {
                    return Some("a partition was truncated or rewritten".to_owned());
                }
                Some(_) => {}
            }
        }
        let mut known = self.attached.iter();
        if known.any(|(part, was)| now.attached.get(part).is_some_and(|is| is != was)) {
            return Some("a partition was detached and attached again".to_owned());
        }
        let mut new = now.stored.keys().filter(|it| !self.stored.contains_key(it));
        new.any(|&part| !is_empty(client, part))
            .then(|| "a partition with rows was attached".to_owned())
    }
}

/// Whether a partition has no rows. One that nobody may look into counts as filled.
fn is_empty(client: &mut Client, oid: u32) -> bool {
    let name = client.query_opt(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[&oid],
    );
    let Ok(Some(name)) = name else {
        return false;
    };
    let (schema, name): (String, String) = (name.get(0), name.get(1));
    let sql = format!("SELECT 1 FROM {}.{} LIMIT 1", quote(&schema), quote(&name));
    client.query(&sql, &[]).is_ok_and(|rows| rows.is_empty())
}

/// What was captured so far under these names; empty when no snapshot was finished.
pub(super) fn noted(
    client: &mut Client,
    slot: &str,
    tables: &[(String, Table)],
) -> Result<BTreeMap<String, Noted>> {
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
    if rows.is_empty() {
        return adopted(client, slot, tables);
    }
    rows.iter()
        .map(|row| {
            let shape = serde_json::from_str(row.get(1)).map_err(|error| {
                let what = "table `_tidemill_capture_tables` holds no shape of a table";
                Error::with_source(Kind::Data, what, error)
            })?;
            let from = row.get::<_, i64>(2).cast_unsigned();
            Ok((row.get(0), Noted { shape, from }))
        })
        .collect()
}

/// The tables of a capture that began before shapes were kept: as they are now, if they are still
/// the published ones.
fn adopted(
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

/// The OIDs of the tables that the publication sends wholly; none when there is no publication.
pub(super) fn published(client: &mut Client, slot: &str) -> Result<Option<Vec<u32>>> {
    let failed = |error| sql_error(format!("reading publication `{slot}`"), error);
    let there = client
        .query_opt(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
             FROM pg_publication WHERE pubname = $1",
            &[&slot],
        )
        .map_err(failed)?;
    let Some(there) = there else {
        return Ok(None);
    };
    if !there.get::<_, bool>(0) {
        return Ok(Some(Vec::new()));
    }
    // Row filters and column lists are there from PostgreSQL 15 on.
    let rows = client
        .query(
            "SELECT r.prrelid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
             WHERE p.pubname = $1 AND to_jsonb(r) ->> 'prqual' IS NULL
               AND to_jsonb(r) ->> 'prattrs' IS NULL",
            &[&slot],
        )
        .map_err(failed)?;
    Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
}

/// Why a table that was captured must be read anew, if it must.
pub(super) fn outdated(
    client: &mut Client,
    noted: &Noted,
    now: &Shape,
    published: &[u32],
) -> Option<String> {
    let why = noted.shape.outdated(client, now);
    why.or_else(|| {
        let left_out = !published.contains(&now.oid);
        left_out.then(|| "the publication did not send all of its changes".to_owned())
    })
}

/// An error about a publication that somebody dropped.
pub(super) fn unpublished(slot: &str) -> Error {
    let what = format!("publication `{slot}` is gone, and with it changes of its tables{ADVICE}");
    Error::new(Kind::Data, what)
}

/// Forgets all tables of the capture but `kept`.
pub(super) fn keep(client: &mut Client, slot: &str, kept: &[String]) -> Result<()> {
    let failed = |error| sql_error("writing table `_tidemill_capture_tables`".to_owned(), error);
    // First this: a capture without noted tables goes on with those that it lists here.
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

/// Notes a table as captured.
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
