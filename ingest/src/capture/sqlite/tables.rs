//! Captured tables of a SQLite file: columns and key, capture triggers, and the list of followed
//! tables.
//!
//! In: table names. Out: [`TableSchema`]s, and triggers in the file. Everything happens in one
//! transaction of the caller, so that snapshot and triggers begin at the same moment.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction};
use tidemill_log::schema::{Column, ColumnType, SourceType, TableSchema};

use super::super::collect_fit;
use super::cell::kind_of;
use super::displaced::Unique;
use super::key::Key;
use super::sql::{quote, row_json, text};
use super::{NOW_US, sql_error, user_triggers};
use crate::{Error, Kind, Result};

/// The tables of these names.
///
/// # Errors
/// `Data` with all tables that cannot be captured, or two names of one table.
pub(super) fn tables_of(
    transaction: &Transaction<'_>,
    names: &[String],
) -> Result<Vec<TableSchema>> {
    let tables = collect_fit(names.iter().map(|name| table_of(transaction, name)))?;
    for (index, name) in names.iter().enumerate() {
        // Names differ in SQLite only if they differ without regard to case.
        let mut others = names.iter().take(index);
        if let Some(other) = others.find(|other| other.eq_ignore_ascii_case(name)) {
            let what = format!("tables `{other}` and `{name}` are one table; name it once");
            return Err(Error::new(Kind::Data, what));
        }
    }
    Ok(tables)
}

/// The tables that this capture followed until now; `None` for a capture that began with a version
/// which did not record them.
pub(super) fn followed(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<Option<BTreeSet<String>>> {
    let failed = |error| sql_error("reading the captured tables", error);
    let mut statement = transaction
        .prepare("SELECT table_name FROM _tidemill_capture_tables WHERE name = ?")
        .map_err(failed)?;
    let tables = statement.query_map([name], |row| row.get(0));
    let tables: BTreeSet<String> = tables.and_then(Iterator::collect).map_err(failed)?;
    Ok((!tables.is_empty()).then_some(tables))
}

/// Records that the capture follows exactly these tables.
pub(super) fn follow(transaction: &Transaction<'_>, name: &str, tables: &[String]) -> Result<()> {
    let failed = |error| sql_error("writing the captured tables", error);
    transaction
        .execute(
            "DELETE FROM _tidemill_capture_tables WHERE name = ?",
            [name],
        )
        .map_err(failed)?;
    for table in tables {
        transaction
            .execute(
                "INSERT INTO _tidemill_capture_tables VALUES (?, ?)",
                [name, table],
            )
            .map_err(failed)?;
    }
    Ok(())
}

/// The id of the truncate that begins the newest snapshot of a table; `None` when the file does not
/// hold it any more.
pub(super) fn newest_snapshot(transaction: &Transaction<'_>, table: &str) -> Result<Option<u64>> {
    let id: Option<i64> = transaction
        .query_row(
            "SELECT max(id) FROM _tidemill_changes WHERE table_name = ? AND op = 't'",
            [table],
            |row| row.get(0),
        )
        .map_err(|error| sql_error("reading captured changes", error))?;
    Ok(id.map(i64::cast_unsigned))
}

/// Reads columns and key of a table. Refuses a table that cannot be captured.
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
    let mut of_key = key.iter().filter_map(|&(_, index)| columns.get(index));
    let untyped = ColumnType::Source(SourceType::named(""));
    if let Some((column, _)) = of_key.find(|(column, _)| column.kind == untyped) {
        let why = format!(
            "has column `{}` without a type in its primary key, where 1 and '1' are two rows and \
             would be one; declare a type",
            column.name
        );
        return refused(&why);
    }
    Ok(TableSchema {
        namespace: "main".to_owned(),
        name: name.to_owned(),
        columns: columns.into_iter().map(|(column, _)| column).collect(),
        key: key.into_iter().map(|(_, index)| index).collect(),
    })
}

/// Refuses a table whose changes triggers cannot all capture. Changes may have been missed already,
/// so the capture triggers of the table are dropped: when they are created again, a snapshot
/// begins.
pub(super) fn check_capturable(transaction: &Transaction<'_>, table: &TableSchema) -> Result<()> {
    let key = Key::of(transaction, table)?;
    let told = Unique::of(transaction, table, &key)
        .and_then(|unique| user_triggers::check(transaction, table, unique.is_some()));
    if told.is_err() {
        for (op, when) in EVENTS {
            set_trigger(transaction, table, op, when, None)?;
        }
    }
    told
}

/// The suffixes of the capture triggers, and when they fire.
const EVENTS: [(&str, &str); 5] = [
    ("c", "AFTER INSERT"),
    ("u", "AFTER UPDATE"),
    ("d", "AFTER DELETE"),
    ("bc", "BEFORE INSERT"),
    ("bu", "BEFORE UPDATE"),
];

/// Creates the capture triggers of a table, unless they exist in the current form. If one was
/// created, or with `snapshot`, captures all rows of the table as a snapshot. Returns whether it
/// did.
pub(super) fn make_triggers(
    transaction: &Transaction<'_>,
    table: &TableSchema,
    mut snapshot: bool,
) -> Result<bool> {
    let key = Key::of(transaction, table)?;
    let unique = Unique::of(transaction, table, &key)?;
    for (op, when) in EVENTS {
        let body = match (op, &unique) {
            ("bc" | "bu", unique) => unique.as_ref().map(|it| it.noted(table, &key)),
            ("d", _) | (_, None) => Some(after(op, table, &key)),
            (_, Some(unique)) => Some(unique.captured(table, &key) + &after(op, table, &key)),
        };
        snapshot |= set_trigger(transaction, table, op, when, body.as_deref())?;
    }
    if snapshot {
        let (name, literal) = (quote(&table.name), text(&table.name));
        let row = row_json(table, &name);
        transaction
            .execute_batch(&format!(
                "{INSERT} VALUES ({literal}, 't', NULL, NULL, {NOW_US});
                 {INSERT} SELECT {literal}, 'r', NULL, {row}, {NOW_US} FROM {name}"
            ))
            .map_err(|error| sql_error("capturing a table's rows", error))?;
    }
    Ok(snapshot)
}

/// The beginning of each statement that captures a change.
const INSERT: &str = "INSERT INTO _tidemill_changes (table_name, op, before, after, committed_us)";

/// SQL of the AFTER trigger: captures what the table holds now under the keys of the change. This
/// differs from `NEW` if a user's trigger that fired before changed the row once more. That change
/// was captured when it happened.
fn after(op: &str, table: &TableSchema, key: &Key<'_>) -> String {
    let (name, literal) = (quote(&table.name), text(&table.name));
    let row = row_json(table, &name);
    let (old, new) = (key.columns("OLD"), key.columns("NEW"));
    let now = |before: &str| {
        format!(
            "{INSERT} SELECT {literal}, '{op}', {before}, {row}, {NOW_US} FROM {name} \
             WHERE {} LIMIT 1",
            key.at(&new)
        )
    };
    let gone = |row: &str, columns: &[String], when: &str| {
        let (row, there) = (row_json(table, row), key.is_there(columns));
        format!("{INSERT} SELECT {literal}, 'd', {row}, NULL, {NOW_US} WHERE {when}NOT {there}")
    };
    match op {
        "c" => format!("{}; {}", now("NULL"), gone("NEW", &new, "")),
        "u" => {
            let moved = format!("NOT ({}) AND ", key.same(&old, &new));
            let before = format!(
                "CASE WHEN ({}) OR NOT {} THEN {} END",
                key.same(&old, &new),
                key.is_there(&old),
                row_json(table, "OLD")
            );
            let moved_away = format!("{moved}NOT {} AND ", key.is_there(&new));
            let all = [
                gone("OLD", &old, &moved_away),
                now(&before),
                gone("NEW", &new, ""),
            ];
            all.join("; ")
        }
        _ => gone("OLD", &old, ""),
    }
}

/// Creates a trigger in its current form, or drops it when there is no body. Returns whether it had
/// another form.
fn set_trigger(
    transaction: &Transaction<'_>,
    table: &TableSchema,
    op: &str,
    when: &str,
    body: Option<&str>,
) -> Result<bool> {
    let failed = |error| sql_error("making the capture's triggers", error);
    let trigger = format!("_tidemill_{}_{op}", table.name);
    let (quoted, name) = (quote(&trigger), quote(&table.name));
    let wanted =
        body.map(|body| format!("CREATE TRIGGER {quoted} {when} ON {name} BEGIN {body}; END"));
    let there: Option<String> = transaction
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?",
            [&trigger],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    if there == wanted {
        return Ok(false);
    }
    let make = wanted.unwrap_or_default();
    let anew = format!("DROP TRIGGER IF EXISTS {quoted}; {make}");
    transaction.execute_batch(&anew).map_err(failed)?;
    Ok(true)
}
