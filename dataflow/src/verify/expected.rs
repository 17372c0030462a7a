//! The rows that a view's table may contain, computed by an evaluation of the job.
//!
//! Input: the writes of the evaluation. Output: [`ExpectedRows`], with each key's row at the sink's
//! frontier, and its rows in the epochs after it, which may be on their way to the table or already
//! in it.
//!
//! Invariant: nothing is written to the real sink; it is only asked what it can hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use hashbrown::HashMap;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::{Error, Kind, Result};
use tidemill_sinks::{Done, Frontier, Sink, Table, Unclaimed, Unfit, Writes};

/// A table with codecs of its keys and rows. Encoded rows are equal bytes if the rows are equal.
pub(super) struct Keyed {
    /// The table.
    pub(super) table: Table,
    /// The codec of keys.
    keys: RowCodec,
    /// The codec of whole rows.
    rows: RowCodec,
}

impl Keyed {
    /// The codecs of a table.
    ///
    /// # Errors
    /// As `RowCodec::sorted`.
    pub(super) fn new(table: Table) -> Result<Self> {
        let key = table.primary_key.iter();
        let key: Vec<_> = key.map(|i| table.schema.field(*i).clone()).collect();
        Ok(Self {
            keys: RowCodec::new(Arc::new(Schema::new(key)))?,
            rows: RowCodec::new(Arc::clone(&table.schema))?,
            table,
        })
    }

    /// The key and the row of each row of a batch.
    ///
    /// # Errors
    /// `Bug` when the columns have other types than the table.
    pub(super) fn encode(&self, rows: &RecordBatch) -> Result<Vec<(Row, Row)>> {
        let (columns, count) = (rows.columns(), rows.num_rows());
        let key = self.table.primary_key.iter();
        let key: Vec<_> = key.map(|i| Arc::clone(rows.column(*i))).collect();
        let keys = self.keys.encode(&key, count)?;
        let rows = self.rows.encode(columns, count)?;
        Ok((0..count).map(|i| (keys.row(i), rows.row(i))).collect())
    }

    /// Rows as a batch.
    ///
    /// # Errors
    /// `Bug` when the bytes are not rows of the table.
    pub(super) fn decode<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Result<RecordBatch> {
        self.rows.decode(rows)
    }

    /// Rows as a batch; a missing row has null in all columns.
    ///
    /// # Errors
    /// `Bug` when the bytes are not rows of the table.
    pub(super) fn decode_or_null<'a>(
        &self,
        rows: impl Iterator<Item = Option<&'a Row>> + Clone,
    ) -> Result<RecordBatch> {
        self.rows.decode_or_null(rows)
    }
}

/// The keys of a table that are compared, each with a row that has the key; `None` for all keys.
pub(super) type Only = Option<BTreeMap<Row, Row>>;

/// The rows that a table may contain, by key.
#[derive(Default)]
pub(super) struct ExpectedRows {
    /// The rows at the end of the epoch that the whole table has reached.
    settled: HashMap<Row, Row>,
    /// The states of keys in later epochs, in order; `None` for a deleted row.
    later: HashMap<Row, Vec<Option<Row>>>,
}

impl ExpectedRows {
    /// The number of rows when all epochs are complete.
    pub(super) fn count(&self) -> u64 {
        let settled = self
            .settled
            .keys()
            .filter(|key| !self.later.contains_key(*key));
        let later = self
            .later
            .values()
            .filter(|rows| rows.last().is_some_and(Option::is_some));
        (settled.count() + later.count()) as u64
    }

    /// Every key that has or had a row.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Row> {
        let later = self
            .later
            .keys()
            .filter(|key| !self.settled.contains_key(*key));
        self.settled.keys().chain(later)
    }

    /// Whether the table may contain `found` for a key.
    pub(super) fn allow(&self, key: &Row, found: Option<&Row>) -> bool {
        let mut later = self.later.get(key).into_iter().flatten();
        self.settled.get(key) == found || later.any(|row| row.as_ref() == found)
    }

    /// The row of a key when all epochs are complete.
    pub(super) fn last(&self, key: &Row) -> Option<&Row> {
        match self.later.get(key).and_then(|rows| rows.last()) {
            Some(last) => last.as_ref(),
            None => self.settled.get(key),
        }
    }

    /// Takes in the row of a key, of a settled or of a later epoch.
    fn take(&mut self, key: Row, row: Option<Row>, settled: bool) {
        match (settled, row) {
            (true, Some(row)) => drop(self.settled.insert(key, row)),
            (true, None) => drop(self.settled.remove(&key)),
            (false, row) => self.later.entry(key).or_default().push(row),
        }
    }
}

/// A sink that collects what an evaluation writes, in memory.
pub(super) struct Expected {
    /// The real sink, which is asked what it can hold.
    real: Arc<dyn Sink>,
    /// One per table.
    tables: Vec<Collecting>,
}

/// The rows of one table.
struct Collecting {
    /// The table with its codecs.
    keyed: Arc<Keyed>,
    /// The epoch that the whole table has reached.
    through: Epoch,
    /// The keys to collect.
    only: Only,
    /// The rows that were collected.
    rows: Mutex<ExpectedRows>,
}

impl Expected {
    /// A collecting sink. For each table: its codecs, the epoch that the whole table has reached,
    /// and the keys to collect.
    pub(super) fn new(
        real: Arc<dyn Sink>,
        tables: impl Iterator<Item = (Arc<Keyed>, Epoch, Only)>,
    ) -> Self {
        let tables = tables.map(|(keyed, through, only)| Collecting {
            keyed,
            through,
            only,
            rows: Mutex::default(),
        });
        Self {
            real,
            tables: tables.collect(),
        }
    }

    /// Takes what was collected, by table.
    pub(super) fn take(&self) -> Vec<ExpectedRows> {
        let rows = self.tables.iter().map(|table| {
            let mut rows = table.rows.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *rows)
        });
        rows.collect()
    }

    /// Collects the writes of one epoch, in the form in which the real sink stores them.
    fn collect(&self, writes: &Writes) -> Result<()> {
        let table = self.tables.get(writes.table);
        let table = table.ok_or_else(|| Error::new(Kind::Bug, "a write to an unknown table"))?;
        let keyed = &table.keyed;
        let stored = |rows| keyed.encode(&self.real.read_back()?.stored(&keyed.table, rows)?);
        let (upserts, deletes) = (stored(&writes.upserts)?, stored(&writes.deletes)?);
        let upserts = upserts.into_iter().map(|(key, row)| (key, Some(row)));
        let deletes = deletes.into_iter().map(|(key, _)| (key, None));
        let is_asked = |key: &Row| {
            table
                .only
                .as_ref()
                .is_none_or(|only| only.contains_key(key))
        };
        let mut rows = table.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, row) in upserts.chain(deletes).filter(|(key, _)| is_asked(key)) {
            rows.take(key, row, writes.epoch <= table.through);
        }
        Ok(())
    }
}

impl Sink for Expected {
    fn prepare(&self, _job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        Ok(vec![None; tables.len()])
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        self.real.frontiers(job)
    }

    fn is_there(&self, view: &str) -> Result<bool> {
        self.real.is_there(view)
    }

    fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        self.real.unclaimed(view)
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.real.filled_by()
    }

    fn drop_view(&self, _job: &str, _view: &str) -> Result<()> {
        Err(refused())
    }

    fn write(&self, writes: Writes, done: Done) {
        done(self.collect(&writes).map(|()| Vec::new()));
    }

    fn advance(&self, _job: &str, _tables: &[usize], _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>> {
        self.real.unfit(table, rows)
    }
}

/// The `Bug` error of a change to the real sink.
fn refused() -> Error {
    Error::new(Kind::Bug, "an evaluation changes no table")
}
