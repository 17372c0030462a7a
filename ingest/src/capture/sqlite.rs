//! Capture from SQLite: triggers write every change into `_tidemill_changes`, read here by id.
//!
//! A file and tables flow in, [`Captured`] flows out. The triggers belong to the file, so changes
//! made while nobody captures, or by another program, are captured too.
//!
//! Invariants:
//! 1. A table's triggers and the rows that were there before them (`r`) come to be in one
//!    transaction, so no row is missed; the same when its columns changed.
//! 2. Ids only grow and are never used again, from the time the file was first captured on: a
//!    change's position is its id.
//! 3. Acknowledged changes are deleted, no others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::{Map, Value as Json};
use tidemill_log::event::{Change, Op, Position, Value};
use tidemill_log::failpoint;
use tidemill_log::log::{Described, TopicId};
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use super::{BATCH, Capture, Captured, Refused, push, standing, value, withhold};
use crate::{Error, Kind, Result};

/// The pause between two looks at the file.
const POLL: Duration = Duration::from_millis(2);
/// How often consumed changes are deleted at most.
const FORGET_INTERVAL: Duration = Duration::from_millis(500);
/// `datetime('now')` in microseconds since 1970 (SQLite knows milliseconds).
const NOW_US: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000";

/// A capture of some tables of a SQLite file.
pub(super) struct SqliteCapture {
    connection: Connection,
    name: String,
    names: Vec<String>,
    tables: Vec<Arc<TableSchema>>,
    schema_version: i64,
    begins_anew: bool,
    /// The last id handed out, and the last one acknowledged.
    read: u64,
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
                     PRIMARY KEY (name, topic));",
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
            schema_version: -1,
            begins_anew: resnapshot || acknowledged.is_none(),
            read,
            acknowledged: read,
            forgotten: read,
            forgotten_at: Instant::now(),
        };
        capture.look_at_tables(capture.begins_anew)?;
        Ok(capture)
    }

    /// Reads the tables' columns again when the file's schema changed, and makes triggers that fit.
    fn look_at_tables(&mut self, snapshot: bool) -> Result<()> {
        let failed = |error| sql_error("reading the file's schema", error);
        let version = |connection: &Connection| {
            connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))
        };
        if !snapshot && version(&self.connection).map_err(failed)? == self.schema_version {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let mut tables = Vec::new();
        for name in &self.names {
            let table = table_of(&transaction, name)?;
            make_triggers(&transaction, &table, snapshot)?;
            tables.push(Arc::new(table));
        }
        transaction
            .execute(
                "INSERT OR IGNORE INTO _tidemill_capture VALUES (?, ?)",
                params![self.name, self.acknowledged.cast_signed()],
            )
            .map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_BEFORE_TRIGGERS);
        transaction.commit().map_err(failed)?;
        failpoint::hit(failpoint::CAPTURE_AFTER_TRIGGERS);
        self.tables = tables;
        self.schema_version = version(&self.connection).map_err(failed)?;
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
            if let Some(table) = self.tables.iter().find(|table| table.name == raw.table) {
                match raw.change(table) {
                    Ok(Some(change)) => {
                        push(&mut out, change);
                    }
                    Ok(None) => {}
                    Err(refused) => out.push(Captured::Refused(*refused)),
                }
            }
        }
        Ok(out)
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

    fn note(&mut self, topic: &str, now: Described) -> Result<Described> {
        let failed = |error| sql_error("noting a topic", error);
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
            self.look_at_tables(false)?;
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

    fn acknowledge(&mut self, through: Position) -> Result<()> {
        self.acknowledged = self.acknowledged.max(through.commit);
        if self.acknowledged > self.forgotten && self.forgotten_at.elapsed() >= FORGET_INTERVAL {
            self.forget()?;
        }
        Ok(())
    }
}

/// A row of `_tidemill_changes`.
struct RawChange {
    id: u64,
    table: String,
    op: String,
    before: Option<String>,
    after: Option<String>,
    committed_us: i64,
}

impl RawChange {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get::<_, i64>(0)?.cast_unsigned(),
            table: row.get(1)?,
            op: row.get(2)?,
            before: row.get(3)?,
            after: row.get(4)?,
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
                row: row.cloned().unwrap_or_default(),
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

/// The values of a row's key, the rest null; none when not all of them can be represented.
fn key_of_row(table: &TableSchema, json: &str) -> Option<Vec<Value>> {
    let row: Map<String, Json> = serde_json::from_str(json).ok()?;
    let columns = table.columns.iter().enumerate();
    let values = columns.map(|(index, column)| match table.in_key(index) {
        true => value_of(column.kind, row.get(&column.name)?).ok(),
        false => Some(Value::Null),
    });
    values.collect()
}

fn row_of(table: &TableSchema, json: &str) -> std::result::Result<Vec<Value>, String> {
    let row: Map<String, Json> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let values = table.columns.iter().map(|column| {
        let value = row.get(&column.name).unwrap_or(&Json::Null);
        value_of(column.kind, value).map_err(|why| format!("column `{}`: {why}", column.name))
    });
    values.collect()
}

/// A cell as the triggers write it: numbers and text as they are, reals as text with all their
/// digits, BLOBs as text in hexadecimal (in an array where the column is not one of BLOBs).
fn value_of(kind: ColumnType, cell: &Json) -> std::result::Result<Value, String> {
    match cell {
        Json::Null => Ok(Value::Null),
        Json::Number(number) if matches!(kind, ColumnType::Text | ColumnType::Json) => {
            Ok(Value::Text(number.to_string()))
        }
        Json::Number(number) => value::parse(kind, &number.to_string()),
        Json::String(text) => value::parse(kind, text),
        Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
            Err(format!("a BLOB stands where {kind:?} was declared"))
        }
    }
}

fn key_text(table: &TableSchema, json: &str) -> String {
    let row: Map<String, Json> = serde_json::from_str(json).unwrap_or_default();
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

/// The type of a declared column type, by SQLite's own rule of looking for parts of names.
fn kind_of(declared: &str) -> ColumnType {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    match declared.as_str() {
        "BOOLEAN" | "BOOL" => ColumnType::Bool,
        "DATE" => ColumnType::Date,
        "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => ColumnType::Timestamptz,
        "TIMESTAMP" | "DATETIME" => ColumnType::Timestamp,
        "UUID" => ColumnType::Uuid,
        "JSON" | "JSONB" => ColumnType::Json,
        _ if has("INT") => ColumnType::Long,
        _ if has("REAL") || has("FLOA") || has("DOUB") => ColumnType::Double,
        _ if has("BLOB") || has("BYTEA") => ColumnType::Bytes,
        _ => ColumnType::Text,
    }
}

fn table_of(transaction: &Transaction<'_>, name: &str) -> Result<TableSchema> {
    let failed = |error| sql_error("reading a table's columns", error);
    let mut statement = transaction
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?) ORDER BY cid")
        .map_err(failed)?;
    let rows = statement.query_map([name], |row| {
        let declared: String = row.get(1)?;
        let (not_null, key): (bool, i64) = (row.get(2)?, row.get(3)?);
        let column = Column {
            name: row.get(0)?,
            kind: kind_of(&declared),
            nullable: !not_null && key == 0,
        };
        Ok((column, key))
    });
    let columns: Vec<(Column, i64)> = rows.and_then(Iterator::collect).map_err(failed)?;
    let refused = |why: &str| Err(Error::new(Kind::Data, format!("table `{name}` {why}")));
    if columns.is_empty() {
        return refused("does not exist in this file; create it first");
    }
    let mut key: Vec<(i64, usize)> = columns
        .iter()
        .enumerate()
        .filter_map(|(index, &(_, place))| (place > 0).then_some((place, index)))
        .collect();
    key.sort_unstable();
    if key.is_empty() {
        return refused("has no primary key; add one to capture it");
    }
    Ok(TableSchema {
        namespace: "main".to_owned(),
        name: name.to_owned(),
        columns: columns.into_iter().map(|(column, _)| column).collect(),
        key: key.into_iter().map(|(_, index)| index).collect(),
    })
}

/// SQL for a row (`NEW`, `OLD` or the table itself) as JSON.
fn row_json(table: &TableSchema, row: &str) -> String {
    let cells = table.columns.iter().map(|column| {
        let cell = format!("{row}.{}", quote(&column.name));
        let blob = match column.kind {
            ColumnType::Bytes => format!("hex({cell})"),
            _ => format!("json_array(hex({cell}))"),
        };
        let other = match column.kind {
            ColumnType::Bytes => format!("hex({cell})"),
            _ => cell.clone(),
        };
        format!(
            "{}, CASE typeof({cell}) WHEN 'null' THEN NULL WHEN 'blob' THEN {blob} \
             WHEN 'real' THEN printf('%!.17g', {cell}) ELSE {other} END",
            text(&column.name)
        )
    });
    format!("json_object({})", cells.collect::<Vec<_>>().join(", "))
}

/// Makes the table's triggers unless they are there as they should be; with new ones, or when
/// asked to, the rows of the table are captured as they are.
fn make_triggers(
    transaction: &Transaction<'_>,
    table: &TableSchema,
    mut snapshot: bool,
) -> Result<()> {
    let failed = |error| sql_error("making the capture's triggers", error);
    let (name, literal) = (quote(&table.name), text(&table.name));
    let (old, new) = (row_json(table, "OLD"), row_json(table, "NEW"));
    let insert = "INSERT INTO _tidemill_changes (table_name, op, before, after, committed_us)";
    for (event, op, before, after) in [
        ("INSERT", "c", "NULL", new.as_str()),
        ("UPDATE", "u", &old, &new),
        ("DELETE", "d", &old, "NULL"),
    ] {
        let trigger = format!("_tidemill_{}_{op}", table.name);
        let wanted = format!(
            "CREATE TRIGGER {} AFTER {event} ON {name} BEGIN {insert} VALUES ({literal}, '{op}', \
             {before}, {after}, {NOW_US}); END",
            quote(&trigger)
        );
        let there: Option<String> = transaction
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?",
                [&trigger],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        if there.as_ref() != Some(&wanted) {
            let drop = format!("DROP TRIGGER IF EXISTS {}; {wanted}", quote(&trigger));
            transaction.execute_batch(&drop).map_err(failed)?;
            snapshot = true;
        }
    }
    if snapshot {
        let row = row_json(table, &name);
        transaction
            .execute_batch(&format!(
                "{insert} VALUES ({literal}, 't', NULL, NULL, {NOW_US});
                 {insert} SELECT {literal}, 'r', NULL, {row}, {NOW_US} FROM {name}"
            ))
            .map_err(failed)?;
    }
    Ok(())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn sql_error(what: &str, error: rusqlite::Error) -> Error {
    let passing = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    let kind = if passing { Kind::Retry } else { Kind::Data };
    Error::with_source(kind, format!("{what}: {error}"), error)
}
