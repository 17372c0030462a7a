//! Writing the rows of one epoch to one table.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tidemill_log::failpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::contract::{Refused, Table, Writes};
use super::super::convert::convert;
use super::cell::{Cells, Delete, Upsert};
use super::connected::Connected;
use super::retry::{failed, of_values};
use super::table::{Prepared, cql_type};
use crate::{Error, Kind, Result};

/// Statements in flight in one process.
const MAX_IN_FLIGHT: usize = 512;
/// Statements in flight of one write.
const MAX_LANES: usize = 256;
static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);

/// One write under way: its rows as cells, taken one by one by the lanes.
struct Work {
    connected: Arc<Connected>,
    table: Arc<Prepared>,
    insert: PreparedStatement,
    delete: PreparedStatement,
    upserts: Vec<Cells>,
    /// The same rows, for those that are refused.
    rows_to_upsert: RecordBatch,
    /// The columns each upsert replaces; none for a key column.
    replaced: Vec<Option<arrow::array::ArrayRef>>,
    deletes: Vec<Cells>,
    refused: Mutex<Vec<Refused>>,
    rows: usize,
    next: AtomicUsize,
}

impl Work {
    /// `at` is the timestamp of its statements.
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

    /// Writes rows until none is left.
    async fn lane(self: Arc<Self>) -> Result<()> {
        let upserts = self.rows_to_upsert.num_rows();
        loop {
            let row = self.next.fetch_add(1, Ordering::Relaxed);
            if row >= self.rows {
                return Ok(());
            }
            let _permit = IN_FLIGHT
                .acquire()
                .await
                .map_err(|e| Error::with_source(Kind::Bug, "the statement limit is closed", e))?;
            match row.checked_sub(upserts) {
                None => self.upsert(row).await?,
                Some(row) => drop(self.delete(&self.deletes, row).await?),
            }
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
        }
    }

    /// Writes a row; when Cassandra refuses its values, deletes what is there of its key.
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
        // A key that is refused itself has no row.
        self.delete(&keys, row).await?;
        let refused = Refused::new(&self.rows_to_upsert, row, reason);
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(refused);
        Ok(())
    }

    async fn delete(&self, cells: &[Cells], row: usize) -> Result<Option<String>> {
        let values = Delete { cells, row };
        self.refusal(&self.delete, &values).await
    }

    /// Executes a statement; why Cassandra refuses its values, if it does. An error when it is the
    /// statement that is refused, as when the table is gone.
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
            // Also when the node that refused the row knew another table than there is now.
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

/// The given columns in the forms that CQL takes.
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
