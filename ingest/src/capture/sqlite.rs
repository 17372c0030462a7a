//! Capture from SQLite: triggers write every row change to `_tidemill_changes`, which is read by
//! id.
//!
//! In: a file and table names. Out: [`Captured`]. The triggers belong to the file, so changes are
//! captured that any program makes, also while no capture runs.
//!
//! ```text
//! application: UPDATE t … ─► trigger: INSERT INTO _tidemill_changes (one transaction)
//! capture:     SELECT … WHERE id > read ─► publish ─► acknowledge ─► DELETE what all passed
//! ```
//!
//! Invariants:
//! 1. The triggers of a table and its existing rows (`r`) are written in one transaction, so no row
//!    is missed. The same happens when the table's columns change, when another table gets its
//!    name, and when the capture did not follow the table for a while.
//! 2. Ids grow and are never reused, from the first capture of the file on. The position of a
//!    change is its id.
//! 3. Only acknowledged changes are deleted.

mod cell;
mod displaced;
mod key;
mod sql;
mod tables;
mod user_triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cell::value_of;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::{Map, Value as Json};
use tables::{check_capturable, follow, followed, make_triggers, newest_snapshot, tables_of};
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::failpoint;
use tidemill_log::log::{Described, TopicId};
use tidemill_log::schema::TableSchema;

use super::{
    BATCH, Capture, Captured, Generated, Refused, TABLES_PATIENCE, another_topic,
    applicable_record, collect_fit, push, withhold,
};
use crate::{Error, Kind, Result};

/// Pause between two reads of the file.
const POLL: Duration = Duration::from_millis(2);
/// Shortest interval between two deletions of acknowledged changes.
const FORGET_INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two looks at tables that are missing or unfit for capture.
const UNFIT_POLL: Duration = Duration::from_millis(200);
/// Largest number of columns of a primary key: `_tidemill_replaced` has as many.
const KEY_COLUMNS_MAX: usize = 16;
/// SQL: the current time in microseconds since 1970, in steps of a millisecond.
const NOW_US: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000";

/// A capture of some tables of a SQLite file.
pub(super) struct SqliteCapture {
    connection: Connection,
    /// The name of the capture.
    name: String,
    /// The names of its tables.
    names: Vec<String>,
    /// The tables with their current columns.
    tables: Vec<Arc<TableSchema>>,
    /// For each table the id at which its newest unacknowledged snapshot begins. Earlier changes in
    /// the file have other columns and are skipped.
    begins: BTreeMap<String, u64>,
    /// The tables whose snapshot this start began.
    begun: BTreeSet<String>,
    /// `PRAGMA schema_version` at the last look at the tables.
    schema_version: i64,
    /// Since when a table is missing or unfit, and when it was last looked at.
    unfit: Option<(Instant, Instant)>,
    /// Lines for [`Capture::noticed`].
    noticed: Vec<String>,
    /// Whether the capture began with a snapshot of all tables.
    begins_anew: bool,
    /// The last id that was read.
    read: u64,
    /// The last id that was returned.
    returned: u64,
    /// The last id that was acknowledged.
    acknowledged: u64,
    /// The last id whose acknowledgement is recorded.
    recorded: u64,
    /// When that was recorded.
    recorded_at: Instant,
}

impl SqliteCapture {
    /// See [`super::open`]. Creates the tables of the capture and the triggers.
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
        // Ids begin at the current time, so that they are greater than those of any earlier file
        // that fed the same topics.
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
            returned: read,
            acknowledged: read,
            recorded: read,
            recorded_at: Instant::now(),
        };
        capture.begun = capture.load_tables(capture.begins_anew)?;
        Ok(capture)
    }

    /// Loads the tables again when the schema of the file changed, and creates matching triggers.
    /// Returns the tables whose snapshot begins by that. With `snapshot` all do.
    fn load_tables(&mut self, snapshot: bool) -> Result<BTreeSet<String>> {
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
        if let Err(refused) =
            collect_fit(tables.iter().map(|it| check_capturable(&transaction, it)))
        {
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

    /// Looks at the tables, and tolerates a table that is missing or unfit for [`TABLES_PATIENCE`],
    /// as between two statements of a migration.
    fn check_tables(&mut self) -> Result<()> {
        if let Some((_, looked)) = self.unfit
            && looked.elapsed() < UNFIT_POLL
        {
            return Ok(());
        }
        match self.load_tables(false) {
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

    /// Reads the next changes from the file.
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
        self.returned = out
            .last()
            .map_or(self.returned, |last| last.position().commit);
        Ok(out)
    }

    /// Records the acknowledged id, at intervals.
    fn record_progress_if_due(&mut self) -> Result<()> {
        if self.acknowledged > self.recorded && self.recorded_at.elapsed() >= FORGET_INTERVAL {
            self.record_progress()?;
        }
        Ok(())
    }

    /// Records the acknowledged id, and deletes the changes that every capture of the file has
    /// passed.
    fn record_progress(&mut self) -> Result<()> {
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
        // No other process writes at this moment, so these rows belong to statements that changed
        // nothing.
        transaction
            .execute("DELETE FROM _tidemill_replaced", [])
            .map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_BEFORE_CONFIRM);
        transaction.commit().map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_CONFIRM);
        self.recorded = self.acknowledged;
        self.recorded_at = Instant::now();
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
        let stands = applicable_record(noted, now, self.begins_anew);
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
            self.check_tables()?;
            // Acknowledgements are recorded soon, also when no change follows.
            self.record_progress_if_due()?;
            let batch = self.read_batch()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() {
                return Ok(batch);
            }
            std::thread::sleep(POLL.min(left));
        }
    }

    /// Always succeeds: SQLite has no lease, and two processes that capture one file under one name
    /// are not kept apart.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Changes that were read and are not published need no acknowledgement.
    fn passed(&self) -> Option<u64> {
        match self.acknowledged >= self.returned {
            true => Some(self.read),
            false => Some(self.acknowledged),
        }
    }

    fn acknowledge(&mut self, through: Position) -> Result<()> {
        self.acknowledged = self.acknowledged.max(through.commit);
        self.record_progress_if_due()
    }
}

/// A row of `_tidemill_changes`.
struct RawChange {
    /// The id, which is the source position.
    id: u64,
    /// The name of the table.
    table: String,
    /// Debezium's letter.
    op: String,
    /// The row before the change, as JSON, in bytes because a text in it may not be UTF-8.
    before: Option<Vec<u8>>,
    /// The row after the change, in the same form.
    after: Option<Vec<u8>>,
    /// When the trigger ran, in microseconds since 1970.
    committed_us: i64,
}

impl RawChange {
    /// Reads the columns of a row.
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

    /// The change; `None` for a delete whose key cannot be represented, since no such row was
    /// published. Of the row before a change only the key must be representable.
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

/// A row as the triggers wrote it. Bytes that are not UTF-8 become U+FFFD.
fn parsed(json: &[u8]) -> std::result::Result<Map<String, Json>, String> {
    serde_json::from_str(&String::from_utf8_lossy(json)).map_err(|error| error.to_string())
}

/// Whether a cell holds U+FFFD, which in a row with invalid UTF-8 means a broken text.
fn is_broken(cell: Option<&Json>) -> bool {
    cell.and_then(Json::as_str)
        .is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER))
}

/// The values of the key, all others null; `None` when one of them cannot be represented.
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

/// The values of a row. The error names the column and the problem.
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

/// The key of a row as text, for dead letters.
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

/// The generated columns of these tables. SQLite does not tell their expressions.
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

/// An error of SQLite: `Retry` for a lock of another connection, `Data` for all others.
fn sql_error(what: &str, error: rusqlite::Error) -> Error {
    let passing = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    let kind = if passing { Kind::Retry } else { Kind::Data };
    Error::with_source(kind, format!("{what}: {error}"), error)
}
