//! View tables and frontiers in a SQLite file: creating, checking and reading them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tidemill_log::sqlite::has_table;
use tidemill_log::{Error, Kind, Result};

use super::super::contract::{Frontier, Table, Unclaimed};
use super::super::convert::convert;
use super::super::existing::{
    FoundColumn, check_existing, frontier_of, mismatch, quoted, unsupported,
};
use super::cell::Cells;
use super::error::failed;

/// The column with a row's version.
pub(super) const VERSION: &str = "_epoch";

/// See [`super::super::Sink::is_there`].
///
/// # Errors
/// As those of SQLite: `Retry` if the same statement may succeed later (a busy file, a full disk).
pub(super) fn is_there(connection: &Connection, view: &str) -> Result<bool> {
    has_table(connection, view).map_err(|e| failed(&format!("table `{view}`"), e))
}

/// See [`super::super::Sink::unclaimed`]. A table with the column `_epoch` was created by a job.
///
/// # Errors
/// As those of SQLite: `Retry` if the same statement may succeed later, otherwise `Data`.
pub(super) fn unclaimed(connection: &Connection, view: &str) -> Result<Unclaimed> {
    if !is_there(connection, view)? {
        return Ok(Unclaimed::None);
    }
    let context = |e| failed(&format!("table `{view}`"), e);
    let ask = |sql: &str, params: &[&str]| {
        let answer = connection.query_row(sql, params_from_iter(params), |row| row.get(0));
        answer.map_err(context)
    };
    let rows = format!("SELECT EXISTS (SELECT 1 FROM {})", quoted(view));
    if !ask(&rows, &[])? {
        return Ok(Unclaimed::None);
    }
    let made = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
    Ok(match ask(made, &[view, VERSION])? {
        true => Unclaimed::Ours,
        false => Unclaimed::Foreign,
    })
}

/// Creates the table of a view if it is missing, and checks its columns and its key.
///
/// # Errors
/// `Data` when the existing table is not what the view needs, or a column cannot be stored.
pub(super) fn ensure_table(connection: &Connection, table: &Table) -> Result<()> {
    let context = |e| failed(&format!("table `{}`", table.name), e);
    let mut columns = Vec::new();
    for (i, field) in table.schema.fields().iter().enumerate() {
        if field.name().eq_ignore_ascii_case(VERSION) {
            let what = format!(
                "table `{}`: the sink needs the column name `{VERSION}`",
                table.name
            );
            return Err(Error::new(Kind::Data, what));
        }
        let (sql_type, _) = sqlite_type(field.data_type())?;
        let not_null = if table.primary_key.contains(&i) {
            " NOT NULL"
        } else {
            ""
        };
        columns.push(format!("{} {sql_type}{not_null}", quoted(field.name())));
    }
    let keys: Vec<_> = table.key_names().map(quoted).collect();
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} ({}, {VERSION} INTEGER NOT NULL, PRIMARY KEY ({}))",
        quoted(&table.name),
        columns.join(", "),
        keys.join(", ")
    );
    connection.execute(&sql, []).map_err(context)?;
    let mut statement = connection
        .prepare("SELECT name, type, pk FROM pragma_table_info(?1)")
        .map_err(context)?;
    let found: Vec<FoundColumn> = statement
        .query_map([&table.name], |row| {
            let position: u32 = row.get(2)?;
            Ok(FoundColumn {
                name: row.get(0)?,
                sql_type: row.get(1)?,
                key: position.checked_sub(1).map(|p| p as usize),
            })
        })
        .and_then(Iterator::collect)
        .map_err(context)?;
    check_existing(table, &found, |t| Ok(sqlite_type(t)?.0.to_owned()))?;
    if !found.iter().any(|c| c.name == VERSION) {
        let problem = format!("it has no `{VERSION}` column, so it is not a view's table");
        return Err(mismatch(&table.name, &problem));
    }
    Ok(())
}

/// See [`super::super::Sink::frontiers`].
///
/// # Errors
/// As those of SQLite: `Retry` if the same statement may succeed later (a busy file, a full disk).
pub(super) fn frontiers(connection: &Connection, job: &str) -> Result<BTreeMap<String, Frontier>> {
    let context = |e| failed("reading the frontiers", e);
    if !has_table(connection, "tidemill_frontiers").map_err(context)? {
        return Ok(BTreeMap::new());
    }
    let select = "SELECT view, epoch, fingerprint FROM tidemill_frontiers WHERE job = ?1";
    let mut statement = connection.prepare(select).map_err(context)?;
    let rows = statement.query_map([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let rows = rows.map_err(context)?;
    rows.map(|row| {
        let (view, epoch, print): (String, Option<i64>, String) = row.map_err(context)?;
        Ok((view, frontier_of(epoch, &print)?))
    })
    .collect()
}

/// See [`super::super::Sink::filled_by`].
///
/// # Errors
/// As those of SQLite: `Retry` if the same statement may succeed later (a busy file, a full disk).
pub(super) fn filled_by(connection: &Connection) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let context = |e| failed("reading the frontiers", e);
    let mut filled = BTreeMap::<String, BTreeSet<String>>::new();
    if !has_table(connection, "tidemill_frontiers").map_err(context)? {
        return Ok(filled);
    }
    let select = "SELECT view, job FROM tidemill_frontiers";
    let mut statement = connection.prepare(select).map_err(context)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    for row in rows.map_err(context)? {
        let (view, job): (String, String) = row.map_err(context)?;
        filled.entry(view).or_default().insert(job);
    }
    Ok(filled)
}

/// The frontier row of one view.
///
/// # Errors
/// As those of SQLite; `Data` when a frontier row cannot be read.
pub(super) fn frontier(
    connection: &Connection,
    job: &str,
    table: &Table,
) -> Result<Option<Frontier>> {
    let context = |e| failed("reading the frontier", e);
    let row: Option<(Option<i64>, String)> = connection
        .prepare_cached(
            "SELECT epoch, fingerprint FROM tidemill_frontiers WHERE job = ?1 AND view = ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_row([job, &table.name], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(context)?;
    row.map(|(epoch, text)| frontier_of(epoch, &text))
        .transpose()
}

/// The fingerprint in its stored form: 16 hexadecimal digits.
pub(super) fn fingerprint(table: &Table) -> String {
    format!("{:016x}", table.fingerprint)
}

/// The declared type of a column, and the Arrow type in which its values are stored; `Data` for
/// types that cannot be stored.
pub(super) fn sqlite_type(data_type: &DataType) -> Result<(&'static str, DataType)> {
    use DataType as D;
    Ok(match data_type {
        D::Boolean => ("BOOLEAN", D::Int64),
        D::Int8 | D::Int16 | D::Int32 | D::Int64 => ("INTEGER", D::Int64),
        D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => ("INTEGER", D::Int64),
        D::Float16 | D::Float32 | D::Float64 => ("REAL", D::Float64),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => ("TEXT", D::Utf8),
        D::Date32 | D::Timestamp(..) | D::Decimal128(..) => ("TEXT", D::Utf8),
        D::Binary | D::LargeBinary | D::BinaryView => ("BLOB", D::Binary),
        other => return Err(unsupported(other)),
    })
}

/// The given columns in the types that SQLite stores.
///
/// # Errors
/// `Data` when a value does not fit its column's type.
pub(super) fn cells(table: &Table, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<Cells>> {
    let mut cells = Vec::with_capacity(columns.len());
    for &i in columns {
        let field = table.schema.field(i);
        let (_, stored) = sqlite_type(field.data_type())?;
        let array = convert(&table.name, field.name(), rows.column(i), &stored)?;
        cells.push(Cells::new(&array)?);
    }
    Ok(cells)
}
