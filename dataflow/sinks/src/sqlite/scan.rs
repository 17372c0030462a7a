//! Reading a table of the embedded file: all of it, or the rows of given keys.

use arrow::record_batch::RecordBatch;
use rusqlite::types::Value;
use rusqlite::{Connection, Rows, params_from_iter};
use tidemill_log::Result;

use super::super::contract::{Scanned, Table};
use super::super::convert::scan::{Engine, PAGE_ROWS};
use super::super::existing::quoted;
use super::cell::array_of;
use super::error::failed;
use super::table::{cells, sqlite_type};

/// How SQLite's values become columns.
const ENGINE: Engine<Value> = Engine {
    stored: |kind| Ok(sqlite_type(kind)?.1),
    array_of,
    null: || Value::Null,
    text,
};

/// See [`crate::ReadBack::scan`].
///
/// # Errors
/// As those of SQLite: `Retry` if the same statement may succeed later, otherwise `Data`.
pub(super) fn scan(
    connection: &Connection,
    table: &Table,
    keys: Option<&RecordBatch>,
    each: &mut dyn FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    let context = |e| failed(&format!("reading table `{}`", table.name), e);
    let columns = table.schema.fields().iter();
    let columns: Vec<_> = columns.map(|field| quoted(field.name())).collect();
    let select = format!("SELECT {} FROM {}", columns.join(", "), quoted(&table.name));
    let mut page = Page::new(table);
    if let Some(keys) = keys {
        let same: Vec<_> = table
            .key_names()
            .map(|name| format!("{} = ?", quoted(name)))
            .collect();
        let sql = format!("{select} WHERE {}", same.join(" AND "));
        let mut statement = connection.prepare(&sql).map_err(context)?;
        let cells = cells(table, keys, &table.primary_key)?;
        for row in 0..keys.num_rows() {
            let key = params_from_iter(cells.iter().map(|cells| cells.at(row)));
            page.take(statement.query(key).map_err(context)?, each)?;
        }
    } else {
        let mut statement = connection.prepare(&select).map_err(context)?;
        page.take(statement.query([]).map_err(context)?, each)?;
    }
    page.hand_over(each)
}

/// Rows that were read and not handed over yet, at most [`PAGE_ROWS`].
struct Page<'a> {
    /// The view's table.
    table: &'a Table,
    /// The values, column by column.
    columns: Vec<Vec<Value>>,
    /// The number of rows in the page.
    rows: usize,
}

impl<'a> Page<'a> {
    /// An empty page.
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            columns: vec![Vec::new(); table.schema.fields().len()],
            rows: 0,
        }
    }

    /// Takes rows, and hands full pages over.
    fn take(
        &mut self,
        mut rows: Rows<'_>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        let name = &self.table.name;
        let context = |e| failed(&format!("reading table `{name}`"), e);
        while let Some(row) = rows.next().map_err(context)? {
            for (index, column) in self.columns.iter_mut().enumerate() {
                column.push(row.get(index).map_err(context)?);
            }
            self.rows += 1;
            if self.rows == PAGE_ROWS {
                self.hand_over(each)?;
            }
        }
        Ok(())
    }

    /// Hands over the rows that are left.
    fn hand_over(&mut self, each: &mut dyn FnMut(Scanned) -> Result<()>) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns = self.columns.iter_mut().map(std::mem::take).collect();
        let rows = std::mem::take(&mut self.rows);
        each(ENGINE.scanned(self.table, rows, columns)?)
    }
}

/// A value as text, for messages.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
