//! Reading a Cassandra table: all of it page by page, or the rows of given keys.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::value::{CqlValue, Row};
use tidemill_log::{Error, Kind, Result};
use tokio::task::JoinSet;

use super::super::contract::{Scanned, Table};
use super::super::convert::scan::{Engine, PAGE_ROWS};
use super::super::existing::quoted;
use super::cell::{Delete, array_of, widened};
use super::connected::Connected;
use super::retry::failed;
use super::table::{cql_type, unreadable};
use super::write::cells;

/// Most keys that are looked up at the same time.
const LOOKUPS_MAX: usize = 128;

/// How CQL values become columns.
const ENGINE: Engine<Option<CqlValue>> = Engine {
    stored: |kind| Ok(cql_type(kind)?.1),
    array_of,
    null: || None,
    text,
};

impl Connected {
    /// See [`crate::ReadBack::scan`]: reads the whole table, one page after the other.
    ///
    /// # Errors
    /// As those of the cluster; `Data` when an answer does not have the table's columns.
    pub(super) async fn scan(
        &self,
        table: &Table,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        let cql = self.select(table);
        let mut from = PagingState::start();
        loop {
            let (page, next) = self.page(&cql, (), from).await?;
            let rows = page.rows::<Row>().map_err(|e| unreadable(&cql, e))?;
            let rows: Vec<Row> = rows
                .collect::<std::result::Result<_, _>>()
                .map_err(|e| unreadable(&cql, e))?;
            if !rows.is_empty() {
                each(scanned(table, rows)?)?;
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    /// `SELECT` of the view's columns from its table.
    fn select(&self, table: &Table) -> String {
        let columns = table.schema.fields().iter();
        let columns: Vec<_> = columns.map(|field| quoted(field.name())).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.name_of(table))
    }
}

/// Reads the rows of these keys, as far as they exist. The order of the rows is not that of the
/// keys.
///
/// # Errors
/// As those of the cluster; `Data` when an answer does not have the table's columns.
pub(super) async fn find(
    connected: &Arc<Connected>,
    table: &Table,
    keys: &RecordBatch,
    each: &mut dyn FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    let same: Vec<_> = table
        .key_names()
        .map(|name| format!("{} = ?", quoted(name)))
        .collect();
    let cql = format!("{} WHERE {}", connected.select(table), same.join(" AND "));
    let select = Arc::new(connected.of_quorum(&cql).await?);
    let cells = Arc::new(cells(table, keys, &table.primary_key)?);
    let (count, mut found, mut next) = (keys.num_rows(), Vec::new(), 0);
    let mut lookups = JoinSet::new();
    loop {
        while next < count && lookups.len() < LOOKUPS_MAX {
            let (connected, select) = (Arc::clone(connected), Arc::clone(&select));
            let (cells, row) = (Arc::clone(&cells), next);
            lookups.spawn(async move {
                let key = Delete { cells: &cells, row };
                Box::pin(connected.session.execute_unpaged(&select, key)).await
            });
            next += 1;
        }
        let Some(looked_up) = lookups.join_next().await else {
            break;
        };
        let looked_up = looked_up
            .map_err(|e| Error::with_source(Kind::Bug, "a reading task ended", e))?
            .map_err(|e| failed(&format!("`{cql}`"), e))?
            .into_rows_result()
            .map_err(|e| unreadable(&cql, e))?;
        let row = looked_up.maybe_first_row::<Row>();
        found.extend(row.map_err(|e| unreadable(&cql, e))?);
        if found.len() >= PAGE_ROWS {
            each(scanned(table, std::mem::take(&mut found))?)?;
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    each(scanned(table, found)?)
}

/// Rows as a batch, column by column.
fn scanned(table: &Table, rows: Vec<Row>) -> Result<Scanned> {
    let count = rows.len();
    let columns = table.schema.fields().len();
    let mut columns: Vec<Vec<_>> = (0..columns).map(|_| Vec::with_capacity(count)).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row.columns) {
            column.push(value);
        }
    }
    ENGINE.scanned(table, count, columns)
}

/// A value as text, for messages.
fn text(value: &Option<CqlValue>) -> String {
    match value {
        None => "null".to_owned(),
        Some(CqlValue::Decimal(decimal)) => {
            let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
            match widened(bytes) {
                Some(number) => format!("{number}e{}", -i64::from(scale)),
                None => format!("{decimal:?}"),
            }
        }
        Some(other) => format!("{other:?}"),
    }
}
