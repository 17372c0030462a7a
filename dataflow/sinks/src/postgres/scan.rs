//! Reading a table of PostgreSQL: some rows, all of it, or the rows of given keys.

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use postgres::Row;
use postgres::types::ToSql;
use tidemill_log::Result;
use tidemill_postgres::failed;

use super::super::contract::{Scanned, Table};
use super::super::convert::batch_of;
use super::super::existing::quoted;
use super::super::scan::{Engine, PAGE_ROWS};
use super::column::{Parameter, Value, array_of, parameters, read_as};
use super::statement::Session;
use super::table::{array_type, pg_type};

/// Most keys that are asked for in one query.
const KEYS_A_QUERY_MAX: usize = 1_000;

/// How PostgreSQL's values become columns.
const ENGINE: Engine<Value> = Engine {
    stored: read_as,
    array_of,
    null: || Value::Null,
    text: Value::text,
};

/// See [`crate::ReadBack::read`].
///
/// # Errors
/// `Data` when the table holds values that the view's columns cannot hold; `Retry` when the server
/// is away.
pub(super) fn read(session: &mut Session, table: &Table, limit: usize) -> Result<RecordBatch> {
    let doing = format!("reading table `{}`", table.name);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!("{} LIMIT $1", select(table)?);
    let rows = session.rows(&doing, &sql, &[&limit])?;
    let columns = columns(table, &rows)?;
    batch_of(table, rows.len(), columns, |kind, values| {
        Ok(array_of(&read_as(kind)?, values))
    })
}

/// Reads all rows, a page at a time, as they are at one moment.
///
/// # Errors
/// As those of [`read`], and those of `each`.
pub(super) fn scan(
    session: &mut Session,
    table: &Table,
    each: &mut dyn FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    let doing = format!("reading table `{}`", table.name);
    let broken = |error| failed(&doing, error);
    let statement = session.prepared(&select(table)?).map_err(broken)?;
    let mut transaction = session.client.transaction().map_err(broken)?;
    let portal = transaction.bind(&statement, &[]).map_err(broken)?;
    let page_rows = i32::try_from(PAGE_ROWS).unwrap_or(i32::MAX);
    loop {
        let rows = transaction
            .query_portal(&portal, page_rows)
            .map_err(broken)?;
        if rows.is_empty() {
            return Ok(());
        }
        each(ENGINE.scanned(table, rows.len(), columns(table, &rows)?)?)?;
    }
}

/// Reads the rows of these keys, as far as they exist.
///
/// # Errors
/// As those of [`scan`].
pub(super) fn find(
    session: &mut Session,
    table: &Table,
    keys: &RecordBatch,
    each: &mut dyn FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    let doing = format!("reading table `{}`", table.name);
    let mut arrays = Vec::new();
    for (number, column) in table.primary_key.iter().enumerate() {
        let kind = array_type(table.schema.field(*column).data_type())?;
        arrays.push(format!("${}::{kind}", number + 1));
    }
    let names: Vec<_> = (0..arrays.len())
        .map(|number| format!("k{number}"))
        .collect();
    let same = table.key_names().zip(&names);
    let same: Vec<_> = same
        .map(|(key, k)| format!("t.{} = d.{k}", quoted(key)))
        .collect();
    let sql = format!(
        "{} JOIN unnest({}) d({}) ON {}",
        select(table)?,
        arrays.join(", "),
        names.join(", "),
        same.join(" AND ")
    );
    let mut from = 0;
    while from < keys.num_rows() {
        let count = (keys.num_rows() - from).min(KEYS_A_QUERY_MAX);
        let keys = keys.slice(from, count);
        let values: Vec<Parameter> = parameters(table, &keys, &table.primary_key)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(AsRef::as_ref).collect();
        let rows = session.rows(&doing, &sql, &values)?;
        if !rows.is_empty() {
            each(ENGINE.scanned(table, rows.len(), columns(table, &rows)?)?)?;
        }
        from += count;
    }
    Ok(())
}

/// The query of all rows, with numerics as text.
fn select(table: &Table) -> Result<String> {
    let columns = table.schema.fields().iter().map(|field| {
        let name = quoted(field.name());
        Ok(match pg_type(field.data_type())?.1 {
            DataType::Decimal128(..) => format!("t.{name}::text"),
            _ => format!("t.{name}"),
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(format!(
        "SELECT {} FROM {} t",
        columns.join(", "),
        quoted(&table.name)
    ))
}

/// Rows as columns of values.
fn columns(table: &Table, rows: &[Row]) -> Result<Vec<Vec<Value>>> {
    let column = |column| {
        rows.iter()
            .map(|row| Value::read(table, column, row))
            .collect()
    };
    (0..table.schema.fields().len()).map(column).collect()
}
