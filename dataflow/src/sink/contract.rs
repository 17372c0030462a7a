//! What a sink does, and what it is given.
//!
//! Contract (invariant 1): a write carries its epoch as the row's version, so writing an epoch
//! again changes nothing, and an older epoch never overwrites a newer one. There is at most one
//! operation per primary key and epoch. The frontier row moves only after every write at or below
//! it is durable.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::plan::ir::{Output, View};
use crate::row::nullable;
use crate::{Epoch, Result};

/// A view's table as the sink must hold it.
#[derive(Debug, Clone)]
pub struct Table {
    /// The table.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Primary key as column indexes, partition key first.
    pub primary_key: Vec<usize>,
    /// How many of `primary_key` are the partition key; the rest are clustering columns.
    pub partition_columns: usize,
    /// Fingerprint of the view that fills it (see `plan::ir::View::fingerprint`).
    pub fingerprint: u64,
}

/// What one worker writes to one table in one epoch: at most one operation per primary key over
/// `upserts` and `deletes` together.
#[derive(Debug, Clone)]
pub struct Writes {
    /// Index into the tables the sink was opened with.
    pub table: usize,
    /// The epoch, in milliseconds. Row versions are `epoch × 1000` (microseconds).
    pub epoch: Epoch,
    /// Rows to insert or replace, all of the table's columns.
    pub upserts: RecordBatch,
    /// The row each upsert replaces, same length and columns as `upserts`; all columns null where
    /// there was none. A column that turned null is deleted, one that was null already is left
    /// unset.
    pub replaced: RecordBatch,
    /// Rows to delete (all columns as they were; only the key matters).
    pub deletes: RecordBatch,
}

/// Called once, from any thread, when the writes are durable, or with the error that ended the
/// retries. Durable are all rows but those that the table refused for what they hold: of them no
/// earlier version is left.
pub type Done = Box<dyn FnOnce(Result<Vec<Refused>>) + Send>;

/// A row that its table refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The row alone.
    pub row: RecordBatch,
    /// Why, in the service's words.
    pub reason: String,
}

impl Refused {
    /// Row `row` of a batch.
    pub(super) fn new(rows: &RecordBatch, row: usize, reason: String) -> Self {
        Self {
            row: rows.slice(row, 1),
            reason,
        }
    }
}

/// A view's last complete epoch as the sink holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    /// Every write at or below this epoch is in the table; none when nothing was completed yet.
    pub epoch: Option<Epoch>,
    /// The fingerprint the table was filled under.
    pub fingerprint: u64,
}

/// Some rows of a table.
#[derive(Debug)]
pub struct Scanned {
    /// The rows; null where a value is odd.
    pub rows: RecordBatch,
    /// Values that the view's columns cannot hold.
    pub odd: Vec<Odd>,
}

/// A value that the view's column cannot hold: only others can have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// Its row in the batch.
    pub row: usize,
    /// Its column.
    pub column: usize,
    /// The value, for people.
    pub text: String,
}

/// The rows of a table that no job's frontier names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// There is no row, or no table.
    None,
    /// A job made the table, and the frontier was lost: whether the rows are the view's is not
    /// known, and nobody else wrote them.
    Ours,
    /// Somebody else made the table.
    Foreign,
}

/// A place where views are served. Shared by the worker threads of a process.
pub trait Sink: Send + Sync {
    /// Creates the tables that are missing and checks the ones that exist column by column (names,
    /// types, key). An error of kind `Data` names table and column and says what would be right.
    /// Also creates the frontier table. Returns each table's frontier, none for a table that no
    /// job filled yet. Called once by worker 0 before any write.
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>>;

    /// The frontiers of all views that `job` ever filled, by name. Changes nothing.
    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>>;

    /// Whether the view's table is there, however it is filled. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn is_there(&self, view: &str) -> Result<bool>;

    /// The rows of a table that no job's frontier names. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn unclaimed(&self, view: &str) -> Result<Unclaimed>;

    /// Each view that any job filled, with the names of the jobs that did. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>>;

    /// Drops the table of a view and then its frontier: the next `prepare` makes both anew.
    fn drop_view(&self, job: &str, view: &str) -> Result<()>;

    /// Starts writing and returns at once; `done` is called when the writes are durable.
    /// Transient failures are retried inside for ever with back-off (and show in the log).
    fn write(&self, writes: Writes, done: Done);

    /// Moves the frontier rows of the given tables to `epoch`, durably. Called by worker 0 when
    /// all workers' writes at or below `epoch` are durable. Blocking.
    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()>;

    /// The rows, in order, that no table of this sink can hold for what they hold, and why: the
    /// same rows always, so that they can be left out of what is written. Rows whose key holds null
    /// are left to the caller.
    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>>;

    /// Up to `limit` rows of a table, in the sink's own order: for the terminal and for checks.
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch>;

    /// Hands over a table's rows, some at a time: all, or those whose keys `keys` has (rows of the
    /// table of which only the key matters) as far as they are there. Whatever others wrote into
    /// the table is told, not refused, unless it is in a key.
    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()>;

    /// Rows as `scan` would give them once they were written.
    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch>;

    /// Writes rows that somebody else changed as they should be at the end of `writes.epoch`, the
    /// last that is bound, and returns when that is durable; the frontier does not matter. Loses to
    /// every later epoch. To what others wrote later than that epoch it loses as well, unless
    /// `over_newer`, which is for a job that has bound nothing since: then it loses only to what is
    /// written later than now. The rows that the table refused.
    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>>;
}

/// A row that no table of a sink can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Its number in the batch.
    pub row: usize,
    /// Why. The same for all rows that are refused for it.
    pub reason: String,
}

impl Table {
    /// The table of a view that is served.
    pub(crate) fn of(view: &View, output: &Output) -> Self {
        Self {
            name: view.name.clone(),
            schema: nullable(&view.rel.schema),
            primary_key: output.primary_key.clone(),
            partition_columns: output.partition_columns,
            fingerprint: view.fingerprint,
        }
    }

    /// The names of the primary key's columns, partition key first.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.primary_key
            .iter()
            .map(|&i| self.schema.field(i).name().as_str())
    }

    /// Refuses a table definition that no sink can hold.
    pub(super) fn validate(&self) -> Result<()> {
        let columns = self.schema.fields().len();
        let partition = self.partition_columns;
        let sound = !self.primary_key.is_empty()
            && (1..=self.primary_key.len()).contains(&partition)
            && self.primary_key.iter().all(|&i| i < columns);
        if sound {
            return Ok(());
        }
        Err(crate::Error::new(
            crate::Kind::Data,
            format!(
                "table `{}`: {columns} columns cannot have the primary key {:?} with {partition} \
                 partition columns",
                self.name, self.primary_key
            ),
        ))
    }

    /// Refuses rows without a key: no sink could find them again.
    pub(super) fn check_keys(&self, rows: &RecordBatch) -> Result<()> {
        for &i in &self.primary_key {
            if rows.column(i).null_count() > 0 {
                return Err(crate::Error::new(
                    crate::Kind::Data,
                    format!(
                        "table `{}`: key column `{}` is null in a row; leave such rows out with \
                         `IS NOT NULL` or name them with `coalesce`",
                        self.name,
                        self.schema.field(i).name()
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl Writes {
    pub(super) fn rows(&self) -> usize {
        self.upserts.num_rows() + self.deletes.num_rows()
    }

    pub(super) fn bytes(&self) -> usize {
        let batches = [&self.upserts, &self.replaced, &self.deletes];
        batches
            .iter()
            .map(|batch| batch.get_array_memory_size())
            .sum()
    }

    /// Refuses batches that are not the table's.
    pub(super) fn check(&self, table: &Table) -> Result<()> {
        let columns = table.schema.fields().len();
        let shaped = self.upserts.num_rows() == self.replaced.num_rows()
            && [&self.upserts, &self.replaced, &self.deletes]
                .iter()
                .all(|b| b.num_columns() == columns);
        if !shaped {
            return Err(crate::Error::new(
                crate::Kind::Bug,
                format!(
                    "writes to table `{}` have another shape than it",
                    table.name
                ),
            ));
        }
        table.check_keys(&self.upserts)?;
        table.check_keys(&self.deletes)
    }
}
