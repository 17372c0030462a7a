//! Capture from SQLite: triggers write every change into `_tidemill_changes`, read here by id.
//!
//! A file and tables flow in, [`Captured`] flows out. The triggers belong to the file, so changes
//! made while nobody captures, or by another program, are captured too.
//!
//! Invariants:
//! 1. A table's triggers and the rows that were there before them (`r`) come to be in one
//!    transaction, so no row is missed; the same when its columns changed, when another table has
//!    its name, and when the capture did not follow it for a while.
//! 2. Ids only grow and are never used again, from the time the file was first captured on: a
//!    change's position is its id.
//! 3. Acknowledged changes are deleted, no others.

mod cell;
mod displaced;
mod key;
mod sql;
mod tables;
mod user_triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::{Map, Value as Json};
use tidemill_log::event::{Change, Op, Position, Value};
use tidemill_log::failpoint;
use tidemill_log::log::{Described, TopicId};
use tidemill_log::schema::TableSchema;

use super::{
    BATCH, Capture, Captured, Generated, Refused, TABLES_PATIENCE, all_fit, another_topic, push,
    standing, withhold,
};
use crate::{Error, Kind, Result};
use cell::value_of;
use tables::{are_told, follow, followed, make_triggers, newest_snapshot, tables_of};

/// The pause between two looks at the file.
const POLL: Duration = Duration::from_millis(2);
/// How often consumed changes are deleted at most.
const FORGET_INTERVAL: Duration = Duration::from_millis(500);
/// The pause between two looks at tables that are gone or unfit.
const UNFIT_POLL: Duration = Duration::from_millis(200);
/// The most columns of a primary key: so many can be noted.
const KEY_COLUMNS_MAX: usize = 16;
/// `datetime('now')` in microseconds since 1970 (SQLite knows milliseconds).
const NOW_US: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000";

/// A capture of some tables of a SQLite file.
pub(super) struct SqliteCapture {
    connection: Connection,
    name: String,
    names: Vec<String>,
    tables: Vec<Arc<TableSchema>>,
    /// Where the newest snapshot of a table begins that is not acknowledged: what is before it in
    /// the file is of a table that looked otherwise, and passed over.
    begins: BTreeMap<String, u64>,
    /// The tables that opening it began anew.
    begun: BTreeSet<String>,
    schema_version: i64,
    /// Since when a table is gone or unfit, and when that was looked at last.
    unfit: Option<(Instant, Instant)>,
    noticed: Vec<String>,
    begins_anew: bool,
    /// The last id read, the last one handed out, and the last one acknowledged.
    read: u64,
    handed: u64,
    acknowledged: u64,
    forgotten: u64,
    forgotten_at: Instant,
}

impl SqliteCapture {
    pub(super) fn open(file: &str, names: &[String], name: &str, resnapshot: bool) -> Result<Self> {
        let connection = tidemill_log::sqlite::connect(file)?;
        connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS _tidemill_changes (
                     id INTEGER PRIMARY KEY AUTOINCREMENT, table_name TEXT NOT NULL,
                     op TEXT NOT NULL, before TEXT, after TEXT, committed_us INTEGER NOT NULL);
                 CREATE TABLE IF NOT EXISTS _tidemill_capture (
                     name TEXT PRIMARY KEY, acknowledged INTEGER NOT NULL);
                 CREATE TABLE IF NOT EXISTS _tidemill_capture_topics (
                     name TEXT NOT NULL, topic TEXT NOT NULL, id_high INTEGER NOT NULL,
                     id_low INTEGER NOT NULL, partitions INTEGER NOT NULL,
                     PRIMARY KEY (name, topic));
                 CREATE TABLE IF NOT EXISTS _tidemill_capture_tables (
                     name TEXT NOT NULL, table_name TEXT NOT NULL,
                     PRIMARY KEY (name, table_name));
                 CREATE TABLE IF NOT EXISTS _tidemill_replaced (
                     table_name TEXT NOT NULL, taken TEXT NOT NULL, row TEXT NOT NULL,
                     k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14, k15);
                 CREATE INDEX IF NOT EXISTS _tidemill_replaced_by_taken
                     ON _tidemill_replaced (table_name, taken);",
            )
            .map_err(|error| sql_error("making the capture's tables", error))?;
        // Ids begin at the time, so that they are behind those of any file that fed the same
        // topics before this one.
        connection
            .execute(
                &format!(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT '_tidemill_changes', {NOW_US}
                     WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence
                                       WHERE name = '_tidemill_changes')"
                ),
                [],
            )
            .map_err(|error| sql_error("making the capture's tables", error))?;
        let acknowledged: Option<i64> = connection
            .query_row(
                "SELECT acknowledged FROM _tidemill_capture WHERE name = ?",
                [name],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| sql_error("reading the capture's progress", error))?;
        let read = acknowledged.unwrap_or(0).cast_unsigned();
        let mut capture = Self {
            connection,
            name: name.to_owned(),
            names: names.to_vec(),
            tables: Vec::new(),
            begins: BTreeMap::new(),
            begun: BTreeSet::new(),
            schema_version: -1,
            unfit: None,
            noticed: Vec::new(),
            begins_anew: resnapshot || acknowledged.is_none(),
            read,
            handed: read,
            acknowledged: read,
            forgotten: read,
            forgotten_at: Instant::now(),
        };
        capture.begun = capture.look_at_tables(capture.begins_anew)?;
        Ok(capture)
    }

    /// Reads the tables' columns again when the file's schema changed, and makes triggers that fit.
    /// Returns the tables that begin anew by it.
    fn look_at_tables(&mut self, snapshot: bool) -> Result<BTreeSet<String>> {
        let failed = |error| sql_error("reading the file's schema", error);
        let version = |connection: &Connection| {
            connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))
        };
        let mut begun = BTreeSet::new();
        if !snapshot && version(&self.connection).map_err(failed)? == self.schema_version {
            return Ok(begun);
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let tables = tables_of(&transaction, &self.names)?;
        if let Err(refused) = all_fit(tables.iter().map(|it| are_told(&transaction, it))) {
            transaction.commit().map_err(failed)?;
            return Err(refused);
        }
        let known = followed(&transaction, &self.name)?;
        let (mut schemas, mut begins) = (Vec::new(), BTreeMap::new());
        for table in tables {
            let is_known = known
                .as_ref()
                .is_none_or(|known| known.contains(&table.name));
            if make_triggers(&transaction, &table, snapshot || !is_known)? {
                begun.insert(table.name.clone());
            }
            if let Some(id) = newest_snapshot(&transaction, &table.name)? {
                begins.insert(table.name.clone(), id);
            }
            schemas.push(Arc::new(table));
        }
        transaction
            .execute(
                "INSERT OR IGNORE INTO _tidemill_capture VALUES (?, ?)",
                params![self.name, self.acknowledged.cast_signed()],
            )
            .map_err(failed)?;
        follow(&transaction, &self.name, &self.names)?;
        failpoint::hit(failpoint::CAPTURE_BEFORE_TRIGGERS);
        transaction.commit().map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_TRIGGERS);
        for table in begun.iter().filter(|_| !snapshot) {
            let what =
                format!("table `{table}` is read anew: it was altered, made anew or left out");
            tracing::warn!("{what}");
            self.noticed.push(what);
        }
        (self.tables, self.begins) = (schemas, begins);
        self.schema_version = version(&self.connection).map_err(failed)?;
        Ok(begun)
    }

    /// The same now and then, with patience for a table that is gone or unfit, as between two
    /// statements of a change.
    fn look(&mut self) -> Result<()> {
        if let Some((_, looked)) = self.unfit
            && looked.elapsed() < UNFIT_POLL
        {
            return Ok(());
        }
        match self.look_at_tables(false) {
            Ok(_) => self.unfit = None,
            Err(error) if error.kind() == Kind::Data => {
                let now = Instant::now();
                let since = self.unfit.map_or(now, |(since, _)| since);
                if since.elapsed() >= TABLES_PATIENCE {
                    return Err(error);
                }
                if self.unfit.is_none() {
                    tracing::warn!(%error, "a table cannot be captured now");
                    self.noticed
                        .push(format!("cannot be captured now: {error}"));
                }
                self.unfit = Some((since, now));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_batch(&mut self) -> Result<Vec<Captured>> {
        let failed = |error| sql_error("reading captured changes", error);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT id, table_name, op, before, after, committed_us FROM _tidemill_changes
                 WHERE id > ? ORDER BY id LIMIT ?",
            )
            .map_err(failed)?;
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let mut rows = statement
            .query(params![self.read.cast_signed(), limit])
            .map_err(failed)?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let raw = RawChange::of(row).map_err(failed)?;
            self.read = raw.id;
            let begins = self.begins.get(&raw.table);
            let is_older = begins.is_some_and(|begins| raw.id < *begins);
            let mut tables = self.tables.iter();
            let table = tables.find(|table| table.name == raw.table);
            if let Some(table) = table.filter(|_| !is_older) {
                match raw.change(table) {
                    Ok(Some(change)) => {
                        push(&mut out, change);
                    }
                    Ok(None) => {}
                    Err(refused) => out.push(Captured::Refused(*refused)),
                }
            }
        }
        self.handed = out
            .last()
            .map_or(self.handed, |last| last.position().commit);
        Ok(out)
    }

    fn forget_if_due(&mut self) -> Result<()> {
        if self.acknowledged > self.forgotten && self.forgotten_at.elapsed() >= FORGET_INTERVAL {
            self.forget()?;
        }
        Ok(())
    }

    /// Writes the acknowledged position down and deletes what every capture of the file has
    /// consumed.
    fn forget(&mut self) -> Result<()> {
        let failed = |error| sql_error("writing the capture's progress", error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        transaction
            .execute(
                "UPDATE _tidemill_capture SET acknowledged = ? WHERE name = ?",
                params![self.acknowledged.cast_signed(), self.name],
            )
            .map_err(failed)?;
        transaction
            .execute(
                "DELETE FROM _tidemill_changes
                 WHERE id <= (SELECT min(acknowledged) FROM _tidemill_capture)",
                [],
            )
            .map_err(failed)?;
        // Nobody writes now, so these notes are of changes that came to nothing.
        transaction
            .execute("DELETE FROM _tidemill_replaced", [])
            .map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_BEFORE_CONFIRM);
        transaction.commit().map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_CONFIRM);
        self.forgotten = self.acknowledged;
        self.forgotten_at = Instant::now();
        Ok(())
    }
}

impl Capture for SqliteCapture {
    fn tables(&self) -> Vec<Arc<TableSchema>> {
        self.tables.clone()
    }

    fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    fn noticed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.noticed)
    }

    fn table_begins_anew(&self, table: &TableSchema) -> bool {
        self.begins_anew || self.begun.contains(&table.name)
    }

    fn note(&mut self, table: &TableSchema, topic: &str, now: Described) -> Result<Described> {
        let failed = |error| sql_error("noting a topic", error);
        let goes_on = !self.table_begins_anew(table);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let noted = transaction
            .query_row(
                "SELECT id_high, id_low, partitions FROM _tidemill_capture_topics
                 WHERE name = ? AND topic = ?",
                [&self.name, topic],
                |row| {
                    Ok(Described {
                        id: TopicId([row.get(0)?, row.get(1)?]),
                        partitions: row.get(2)?,
                    })
                },
            )
            .optional()
            .map_err(failed)?;
        let goes_elsewhere = transaction
            .query_row(
                "SELECT count(*) > 0 FROM _tidemill_capture_topics WHERE name = ?",
                [&self.name],
                |row| row.get(0),
            )
            .map_err(failed)?;
        if goes_on && noted.is_none() && goes_elsewhere {
            return Err(another_topic(&table.name, topic));
        }
        let stands = standing(noted, now, self.begins_anew);
        let TopicId([high, low]) = stands.id;
        transaction
            .execute(
                "INSERT OR REPLACE INTO _tidemill_capture_topics VALUES (?, ?, ?, ?, ?)",
                params![self.name, topic, high, low, stands.partitions],
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(stands)
    }

    fn next(&mut self, wait: Duration) -> Result<Vec<Captured>> {
        let deadline = Instant::now() + wait;
        loop {
            self.look()?;
            // What is acknowledged is written down soon, also when nothing more comes.
            self.forget_if_due()?;
            let batch = self.read_batch()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() {
                return Ok(batch);
            }
            std::thread::sleep(POLL.min(left));
        }
    }

    /// One file has one run: what two of them would publish is not kept apart.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// What was read and is nothing to publish needs no acknowledgement.
    fn passed(&self) -> Option<u64> {
        match self.acknowledged >= self.handed {
            true => Some(self.read),
            false => Some(self.acknowledged),
        }
    }

    fn acknowledge(&mut self, through: Position) -> Result<()> {
        self.acknowledged = self.acknowledged.max(through.commit);
        self.forget_if_due()
    }
}

/// A row of `_tidemill_changes`.
struct RawChange {
    id: u64,
    table: String,
    op: String,
    /// JSON, unless a text in the row is no UTF-8.
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    committed_us: i64,
}

impl RawChange {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get::<_, i64>(0)?.cast_unsigned(),
            table: row.get(1)?,
            op: row.get(2)?,
            before: row.get_ref(3)?.as_bytes_or_null()?.map(<[u8]>::to_vec),
            after: row.get_ref(4)?.as_bytes_or_null()?.map(<[u8]>::to_vec),
            committed_us: row.get(5)?,
        })
    }

    /// The change; none when it deletes a row that was never published, as its key cannot be
    /// represented. Of the row before a change only the key matters.
    fn change(
        &self,
        table: &Arc<TableSchema>,
    ) -> std::result::Result<Option<Change>, Box<Refused>> {
        let position = Position {
            commit: self.id,
            index: 0,
        };
        let refused = |reason: String| {
            let row = self.after.as_ref().or(self.before.as_ref());
            Box::new(Refused {
                table: self.table.clone(),
                key: row.map_or_else(String::new, |row| key_text(table, row)),
                position,
                reason,
                row: row.map_or_else(String::new, |row| String::from_utf8_lossy(row).into_owned()),
                withheld: Vec::new(),
            })
        };
        let op = Op::of_letter(&self.op).ok_or_else(|| refused(format!("op `{}`", self.op)))?;
        let before = self.before.as_ref().and_then(|json| {
            let whole = row_of(table, json).ok();
            whole.or_else(|| key_of_row(table, json))
        });
        if op == Op::Delete && before.is_none() {
            return Ok(None);
        }
        let mut change = Change {
            table: Arc::clone(table),
            op,
            before,
            after: None,
            position,
            transaction: self.id,
            committed_us: self.committed_us,
            snapshot: op == Op::Read || op == Op::Truncate,
        };
        if let Some(json) = &self.after {
            let after = row_of(table, json).map_err(|reason| {
                let mut refused = refused(reason);
                refused.withheld = withhold(&change, key_of_row(table, json));
                refused
            })?;
            change.after = Some(after);
        }
        Ok(Some(change))
    }
}

/// A row as its triggers wrote it. A text that is no UTF-8 has U+FFFD in place of what is none.
fn parsed(json: &[u8]) -> std::result::Result<Map<String, Json>, String> {
    serde_json::from_str(&String::from_utf8_lossy(json)).map_err(|error| error.to_string())
}

/// Whether a cell is a text that is no UTF-8, in a row with such texts.
fn is_broken(cell: Option<&Json>) -> bool {
    cell.and_then(Json::as_str)
        .is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER))
}

/// The values of a row's key, the rest null; none when not all of them can be represented.
fn key_of_row(table: &TableSchema, json: &[u8]) -> Option<Vec<Value>> {
    let row = parsed(json).ok()?;
    let has_broken = std::str::from_utf8(json).is_err();
    let columns = table.columns.iter().enumerate();
    let values = columns.map(|(index, column)| match table.in_key(index) {
        true if has_broken && is_broken(row.get(&column.name)) => None,
        true => value_of(column.kind, row.get(&column.name)?).ok(),
        false => Some(Value::Null),
    });
    values.collect()
}

fn row_of(table: &TableSchema, json: &[u8]) -> std::result::Result<Vec<Value>, String> {
    let row = parsed(json)?;
    let has_broken = std::str::from_utf8(json).is_err();
    let values = table.columns.iter().map(|column| {
        let value = row.get(&column.name).unwrap_or(&Json::Null);
        if has_broken && is_broken(Some(value)) {
            return Err(format!(
                "column `{}`: a text that is not UTF-8",
                column.name
            ));
        }
        value_of(column.kind, value).map_err(|why| format!("column `{}`: {why}", column.name))
    });
    values.collect()
}

fn key_text(table: &TableSchema, json: &[u8]) -> String {
    let row = parsed(json).unwrap_or_default();
    let names = table
        .key
        .iter()
        .filter_map(|&index| table.columns.get(index));
    let values = names.map(|column| match row.get(&column.name) {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "NULL".to_owned(),
    });
    values.collect::<Vec<_>>().join(", ")
}

/// The tables of these names, as the file has them now.
pub(super) fn tables(file: &str, names: &[String]) -> Result<Vec<TableSchema>> {
    let mut connection = tidemill_log::sqlite::connect(file)?;
    let failed = |error| sql_error("reading the file's schema", error);
    let transaction = connection.transaction().map_err(failed)?;
    tables_of(&transaction, names)
}

/// Their generated columns, whose expressions SQLite does not tell apart.
pub(super) fn generated(file: &str, names: &[String]) -> Result<Vec<Generated>> {
    let connection = tidemill_log::sqlite::connect(file)?;
    let failed = |error| sql_error("reading the file's schema", error);
    let mut statement = connection
        .prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden IN (2, 3)")
        .map_err(failed)?;
    let mut found = Vec::new();
    for table in names {
        let columns = statement.query_map([table], |row| row.get(0));
        let columns: Vec<String> = columns.and_then(Iterator::collect).map_err(failed)?;
        found.extend(columns.into_iter().map(|column| Generated {
            table: table.clone(),
            column,
            expression: None,
        }));
    }
    Ok(found)
}

fn sql_error(what: &str, error: rusqlite::Error) -> Error {
    let passing = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    let kind = if passing { Kind::Retry } else { Kind::Data };
    Error::with_source(kind, format!("{what}: {error}"), error)
}
