//! Row values from the text of cells, for snapshot and stream.
//!
//! In: the cells of a row. Out: values, or why there are none: a value that no column can hold
//! makes the row a dead letter; a value that the server did not send ends the capture.

use tidemill_log::envelope::event::{Position, Value};
use tidemill_log::schema::TableSchema;

use super::super::{Refused, value};
use super::catalog;
use super::pgoutput::{Cell, Tuple};
use crate::{Error, Kind};

/// Why a row has no values.
pub(super) enum RowError {
    /// The row becomes a dead letter.
    Refused(Box<Refused>),
    /// The capture must not continue without the value.
    Fatal(Error),
}

/// The text of a cell; `None` for NULL. An unchanged TOASTed value is taken from the old row.
///
/// # Errors
/// [`RowError::Fatal`] when the old row does not have the value, or the text is not UTF-8.
pub(super) fn text_of<'a>(
    schema: &TableSchema,
    index: usize,
    cell: &'a Cell,
    old: Option<&'a Tuple>,
) -> std::result::Result<Option<&'a str>, RowError> {
    let column = || {
        schema
            .columns
            .get(index)
            .map_or("?", |column| column.name.as_str())
    };
    let text = match (cell, old.and_then(|old| old.get(index))) {
        (Cell::Null, _) => return Ok(None),
        (Cell::Text(text), _) | (Cell::Unchanged, Some(Cell::Text(text))) => text,
        (Cell::Unchanged, _) => {
            let what = toast_unknown(schema, column());
            return Err(RowError::Fatal(Error::new(Kind::Data, what)));
        }
    };
    std::str::from_utf8(text).map(Some).map_err(|error| {
        let what = format!("table `{}`, column `{}`: {error}", schema.name, column());
        RowError::Fatal(Error::new(Kind::Data, what))
    })
}

/// The error of a TOASTed value that was not sent, with the remedy.
fn toast_unknown(schema: &TableSchema, column: &str) -> String {
    let table = format!(
        "{}.{}",
        catalog::quote(&schema.namespace),
        catalog::quote(&schema.name)
    );
    format!(
        "table `{}`: an update left the large value of column `{column}` unchanged, and PostgreSQL \
         did not send it; run ALTER TABLE {table} REPLICA IDENTITY FULL, then \
         `tidemill ingest --resnapshot`",
        schema.name
    )
}

/// The values of a row.
///
/// # Errors
/// [`RowError::Refused`] when a value cannot be represented; [`RowError::Fatal`] when the number of
/// cells is wrong.
pub(super) fn row_of<'a>(
    schema: &TableSchema,
    cells: impl Iterator<Item = std::result::Result<Option<&'a str>, RowError>>,
    position: Position,
) -> std::result::Result<Vec<Value>, RowError> {
    let texts = cells.collect::<std::result::Result<Vec<_>, _>>()?;
    if texts.len() != schema.columns.len() {
        let what = format!(
            "table `{}` has {} columns, but a row of {} came",
            schema.name,
            schema.columns.len(),
            texts.len()
        );
        return Err(RowError::Fatal(Error::new(Kind::Bug, what)));
    }
    let columns = || schema.columns.iter().zip(&texts);
    let values = columns().map(|(column, text)| match text {
        None => Ok(Value::Null),
        Some(text) => value::parse(column.kind, text)
            .map_err(|reason| format!("column `{}`: {reason}", column.name)),
    });
    values
        .collect::<std::result::Result<_, _>>()
        .map_err(|reason| {
            let key = schema
                .key
                .iter()
                .map(|&index| texts.get(index).copied().flatten());
            let key: Vec<_> = key.map(|text| text.unwrap_or("NULL")).collect();
            let row = columns().map(|(c, text)| format!("{}={}", c.name, text.unwrap_or("NULL")));
            RowError::Refused(Box::new(Refused {
                table: schema.name.clone(),
                key: key.join(", "),
                position,
                reason,
                row: row.collect::<Vec<_>>().join(", "),
                withheld: Vec::new(),
            }))
        })
}

/// The values of the key, all others null; `None` when one of them cannot be represented.
pub(super) fn key_of_row<'a>(
    schema: &TableSchema,
    cells: impl Iterator<Item = std::result::Result<Option<&'a str>, RowError>>,
) -> Option<Vec<Value>> {
    let cells = schema.columns.iter().zip(cells).enumerate();
    let values = cells.map(|(index, (column, cell))| match cell {
        _ if !schema.in_key(index) => Some(Value::Null),
        Ok(Some(text)) => value::parse(column.kind, text).ok(),
        _ => None,
    });
    values.collect()
}
