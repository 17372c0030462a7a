//! Writing the rows of one epoch to a Cassandra table, by parallel lanes of statements.
//!
//! ```text
//! Writes ─► Work (cells) ─► up to MAX_LANES lanes ─► up to MAX_IN_FLIGHT statements ─► Done
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tidemill_log::{Error, Kind, Result, failpoint};
use tokio::task::JoinSet;

use super::super::contract::{Refused, Table, Writes};
use super::super::convert::convert;
use super::cell::{Cells, Delete, Upsert};
use super::connected::Connected;
use super::retry::{failed, of_values};
use super::table::{Prepared, cql_type};

/// Most statements in flight of one sink.
pub(super) const MAX_IN_FLIGHT: usize = 512;
/// Most statements in flight of one write.
const MAX_LANES: usize = 256;

/// One write under way: its rows as cells. Each lane takes the next row.
struct Work {
    /// The session.
    connected: Arc<Connected>,
    /// The table.
    table: Arc<Prepared>,
    /// The INSERT with this write's timestamp.
    insert: PreparedStatement,
    /// The DELETE with this write's timestamp.
    delete: PreparedStatement,
    /// The columns of rows to insert.
    upserts: Vec<Cells>,
    /// The same rows as a batch, to report those that are refused.
    rows_to_upsert: RecordBatch,
    /// The columns of the rows that are replaced; `None` for a key column.
    replaced: Vec<Option<arrow::array::ArrayRef>>,
    /// The key columns of rows to delete.
    deletes: Vec<Cells>,
    /// The rows that Cassandra refused.
    refused: Mutex<Vec<Refused>>,
    /// The number of rows, inserts first.
    rows: usize,
    /// The next row to be taken.
    next: AtomicUsize,
}

impl Work {
    /// Prepares a write; `at` is the timestamp of its statements, in µs.
    fn new(
        connected: Arc<Connected>,
        table: Arc<Prepared>,
        writes: &Writes,
        at: i64,
    ) -> Result<Self> {
        let definition = &table.table;
        writes.check(definition)?;
        let stamped = |statement: &PreparedStatement| {
            let mut statement = statement.clone();
            statement.set_timestamp(Some(at));
            statement
        };
        let all: Vec<usize> = (0..definition.schema.fields().len()).collect();
        let key = &definition.primary_key;
        let replaced = all
            .iter()
            .map(|i| (!key.contains(i)).then(|| Arc::clone(writes.replaced.column(*i))))
            .collect();
        Ok(Self {
            connected,
            insert: stamped(&table.insert),
            delete: stamped(&table.delete),
            upserts: cells(definition, &writes.upserts, &all)?,
            replaced,
            deletes: cells(definition, &writes.deletes, key)?,
            rows_to_upsert: writes.upserts.clone(),
            refused: Mutex::default(),
            rows: writes.rows(),
            next: AtomicUsize::new(0),
            table,
        })
    }

    /// One lane: writes rows until none is left, or until the first error.
    async fn lane(self: Arc<Self>) -> Result<()> {
        let upserts = self.rows_to_upsert.num_rows();
        loop {
            let row = self.next.fetch_add(1, Ordering::Relaxed);
            if row >= self.rows {
                return Ok(());
            }
            let _permit =
                self.connected.in_flight.acquire().await.map_err(|e| {
                    Error::with_source(Kind::Bug, "the statement limit is closed", e)
                })?;
            match row.checked_sub(upserts) {
                None => self.upsert(row).await?,
                Some(row) => drop(self.delete(&self.deletes, row).await?),
            }
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
        }
    }

    /// Inserts a row. If Cassandra refuses its values, deletes the row's key and records the
    /// refusal.
    async fn upsert(&self, row: usize) -> Result<()> {
        let values = Upsert {
            cells: &self.upserts,
            replaced: &self.replaced,
            row,
        };
        let Some(reason) = self.refusal(&self.insert, &values).await? else {
            return Ok(());
        };
        let definition = &self.table.table;
        let keys = cells(definition, &self.rows_to_upsert, &definition.primary_key)?;
        // If the key itself is refused, no row with this key exists.
        self.delete(&keys, row).await?;
        let refused = Refused::new(&self.rows_to_upsert, row, reason);
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(refused);
        Ok(())
    }

    /// Deletes the row of a key. Returns the reason if the key is refused.
    async fn delete(&self, cells: &[Cells], row: usize) -> Result<Option<String>> {
        let values = Delete { cells, row };
        self.refusal(&self.delete, &values).await
    }

    /// Executes a statement. Returns the reason if Cassandra refuses the statement's values.
    ///
    /// # Errors
    /// When the statement itself is refused, for example because the table was dropped.
    async fn refusal(
        &self,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<Option<String>> {
        let name = &self.table.table.name;
        let executed = self.connected.attempt(name, statement, values).await;
        let Err(error) = executed else {
            return Ok(None);
        };
        let refused = of_values(&error);
        if refused.is_some() {
            // The node that refused the row may also have known an older definition of the table.
            let still = self.connected.prepared(statement.get_statement()).await;
            still.map_err(|again| {
                let what = format!("writing to table `{name}`: {error}; {again}");
                Error::with_source(again.kind(), what, again)
            })?;
            return Ok(refused);
        }
        Err(failed(&format!("writing to table `{name}`"), error))
    }
}

/// Writes the rows of one epoch with the timestamp `at` (µs). Returns the rows that were refused.
///
/// # Errors
/// The first error of a lane; some rows may then have been written.
pub(super) async fn write(
    connected: Arc<Connected>,
    table: Arc<Prepared>,
    writes: Writes,
    at: i64,
) -> Result<Vec<Refused>> {
    let work = Arc::new(Work::new(connected, table, &writes, at)?);
    drop(writes);
    let mut lanes = JoinSet::new();
    for _ in 0..work.rows.min(MAX_LANES) {
        lanes.spawn(Arc::clone(&work).lane());
    }
    while let Some(lane) = lanes.join_next().await {
        // The first error ends the write; the other lanes end with the set.
        lane.map_err(|e| Error::with_source(Kind::Bug, "a writing task ended", e))??;
    }
    let mut refused = work.refused.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *refused))
}

/// The given columns in the types that CQL values are made from.
///
/// # Errors
/// `Data` when a value does not fit its column's CQL type, or a key would lose precision.
pub(super) fn cells(table: &Table, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<Cells>> {
    let mut cells = Vec::with_capacity(columns.len());
    for &i in columns {
        let field = table.schema.field(i);
        let (_, stored) = cql_type(field.data_type())?;
        let array = convert(&table.name, field.name(), rows.column(i), &stored)?;
        if table.primary_key.contains(&i) {
            let back = convert(
                &table.name,
                field.name(),
                &array,
                rows.column(i).data_type(),
            )?;
            if &back != rows.column(i) {
                let what = format!(
                    "table `{}`, key column `{}`: a timestamp is finer than Cassandra's \
                     milliseconds; use date_trunc('millisecond', …) in the view",
                    table.name,
                    field.name()
                );
                return Err(Error::new(Kind::Data, what));
            }
        }
        cells.push(Cells::new(&array)?);
    }
    Ok(cells)
}
