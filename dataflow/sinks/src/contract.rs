//! The trait [`Sink`] and its data types: what every sink engine must guarantee.
//!
//! Contract (architecture invariant 1):
//! 1. A write carries its epoch as the version of its rows. Writing an epoch again changes nothing,
//!    and an older epoch never overwrites a newer one.
//! 2. There is at most one operation per primary key and epoch.
//! 3. The frontier row moves only after every write at or below it is durable.
//!
//! ```text
//! prepare ─► write(e) ─► done ─► advance(e): all workers' writes at or below e are durable
//!                  (any thread)
//! ```
//!
//! A sink without versions of rows is [transactional](Sink::is_transactional). One worker gives it
//! all writes of a view, one an epoch, in the order of epochs. The rows of an epoch and the view's
//! frontier are one transaction, so 1 to 3 hold because an epoch at or below the frontier is not
//! written again.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tidemill_ir::row::nullable;
use tidemill_ir::{Epoch, Output, View};
use tidemill_log::Result;

/// The table of a view, as the sink must hold it.
#[derive(Debug, Clone)]
pub struct Table {
    /// The table's name, which is the view's name.
    pub name: String,
    /// The columns.
    pub schema: SchemaRef,
    /// The primary key as column indexes, partition key first. It is not empty.
    pub primary_key: Vec<usize>,
    /// The number of `primary_key` columns that are the partition key. The rest are clustering
    /// columns.
    pub partition_columns: usize,
    /// The fingerprint of the view that fills the table (see `tidemill_ir::View::fingerprint`).
    pub fingerprint: u64,
}

/// The changes of one worker to one table in one epoch. Each primary key is in at most one row of
/// `upserts` and `deletes` together.
#[derive(Debug, Clone)]
pub struct Writes {
    /// The index of the table in the list given to [`Sink::prepare`].
    pub table: usize,
    /// The epoch in ms. Row versions are `epoch × 1000` (µs) in Cassandra, the epoch in SQLite.
    pub epoch: Epoch,
    /// Rows to insert or replace, with all of the table's columns.
    pub upserts: RecordBatch,
    /// The row that each upsert replaces, with the same length and columns as `upserts`; all
    /// columns are null if there was none. A column that becomes null is deleted, a column that was
    /// null stays unset.
    pub replaced: RecordBatch,
    /// Rows to delete, with all columns as they were. Only the key matters.
    pub deletes: RecordBatch,
}

/// Called once, from any thread, when the writes are durable, or with the error that ended the
/// retries. The rows in the result are those that the table refused because of their values; no
/// earlier version of them is left in the table. All other rows are durable.
pub type Done = Box<dyn FnOnce(Result<Vec<Refused>>) + Send>;

/// A row that its table refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The row, alone in a batch.
    pub row: RecordBatch,
    /// The reason, in the service's words.
    pub reason: String,
}

impl Refused {
    /// Row `row` of a batch, with the reason of its refusal.
    pub(super) fn new(rows: &RecordBatch, row: usize, reason: String) -> Self {
        Self {
            row: rows.slice(row, 1),
            reason,
        }
    }
}

/// The frontier of a view: its last complete epoch, as the sink stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    /// Every write at or below this epoch is in the table; `None` when no epoch is complete yet.
    pub epoch: Option<Epoch>,
    /// The fingerprint of the view that filled the table.
    pub fingerprint: u64,
}

/// Some rows of a table, as they were read.
#[derive(Debug)]
pub struct Scanned {
    /// The rows. A value that is in `odd` is null here.
    pub rows: RecordBatch,
    /// Values that the view's columns cannot hold.
    pub odd: Vec<Odd>,
}

/// A value that the view's column cannot hold. Only another writer can have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// The row's index in the batch.
    pub row: usize,
    /// The column's index.
    pub column: usize,
    /// The value as text, for messages.
    pub text: String,
}

/// What a table contains that no job's frontier names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// There is no row, or no table.
    None,
    /// A job created the table, and the frontier was lost. It is unknown whether the rows are the
    /// view's, but no other writer made them.
    Ours,
    /// Another writer created the table.
    Foreign,
}

/// A database that views are served from. Shared by the worker threads of a process.
///
/// All methods except [`Sink::write`] block. Errors are `Retry` when the service is away, and
/// `Data` when it refuses or a table is not what it must be.
pub trait Sink: Send + Sync {
    /// Creates the tables that are missing, and the frontier table, and checks the existing tables
    /// column by column (names, types, key). Returns the frontier of each table; `None` if no job
    /// has filled the table yet. Each process calls this before its first write.
    ///
    /// # Errors
    /// `Data` names the table and the column, and says what would be right.
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>>;

    /// The frontiers of all views that `job` ever filled, by name. Changes nothing.
    ///
    /// # Errors
    /// As for the trait.
    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>>;

    /// Whether the view's table exists, whatever it contains. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn is_there(&self, view: &str) -> Result<bool>;

    /// What a table contains that no job's frontier names. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn unclaimed(&self, view: &str) -> Result<Unclaimed>;

    /// Each view that any job filled, with the names of these jobs. Changes nothing.
    ///
    /// # Errors
    /// When the service is away or refuses.
    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>>;

    /// Drops the table of a view, and then its frontier. The next `prepare` creates both again.
    ///
    /// # Errors
    /// As for the trait. The table may be dropped already; the same call continues.
    fn drop_view(&self, job: &str, view: &str) -> Result<()>;

    /// Whether the sink writes the rows of an epoch and the frontier of their view in one
    /// transaction. Then one worker of the job writes the view, and gives the epochs in order.
    fn is_transactional(&self, _view: &str) -> bool {
        false
    }

    /// Names the generation of the job for the writes of this process, before the first of them. A
    /// transactional sink refuses the writes of an older generation than the last one that wrote.
    /// Other sinks need none: what an older generation still writes is what the new one writes.
    fn fence(&self, _generation: u64) {}

    /// Starts writing. Waits only for room in the backlog. `done` is called when the writes are
    /// durable. Errors that may pass are retried without limit, with backoff, and appear in the
    /// log.
    fn write(&self, writes: Writes, done: Done);

    /// Moves the frontiers of the given tables to `epoch`, durably. Called by worker 0 when all
    /// workers' writes at or below `epoch` are durable. An older epoch than the stored one changes
    /// nothing.
    ///
    /// # Errors
    /// As for the trait.
    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()>;

    /// The rows, in order, that no table of this sink can hold because of their values, with the
    /// reasons. The answer for a row is always the same, so the row can be left out of what is
    /// written. Rows with null in their key are left to the caller.
    ///
    /// # Errors
    /// As for the trait.
    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>>;

    /// The same sink, to read its tables. A sink whose output cannot be read again, such as a
    /// topic, keeps this default: its views are written, and neither shown nor verified.
    ///
    /// # Errors
    /// `Data` when the sink cannot be read.
    fn read_back(&self) -> Result<&dyn ReadBack> {
        Err(tidemill_log::Error::new(
            tidemill_log::Kind::Data,
            "this sink cannot be read, only written",
        ))
    }
}

/// Reads the tables of a sink, and repairs their rows: for the terminal, for `verify` and for
/// tests. A running job uses none of this.
///
/// All methods block. Errors are as those of [`Sink`].
pub trait ReadBack: Send + Sync {
    /// Up to `limit` rows of a table, in the sink's own order: for the terminal and for checks.
    ///
    /// # Errors
    /// `Data` when the table contains values that the view's columns cannot hold.
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch>;

    /// Reads a table in batches: all rows, or those whose keys are in `keys` (rows of the table of
    /// which only the key matters), as far as they exist. Values of other writers are reported as
    /// [`Odd`], except in a key.
    ///
    /// # Errors
    /// `Data` when a key contains a value that the view cannot have; errors of `each`.
    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()>;

    /// Rows in the form in which `scan` would read them after they were written.
    ///
    /// # Errors
    /// `Data` when a value does not fit its column.
    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch>;

    /// Repairs rows that another writer changed: writes them as they should be at the end of
    /// `writes.epoch`, the last bound epoch, and returns when they are durable. The frontier does
    /// not matter. The repair loses to every later epoch. It also loses to what others wrote with a
    /// later version than that epoch, unless `over_newer` is set, which is for a job that has bound
    /// nothing since; then it loses only to what is written after now. Returns the rows that the
    /// table refused.
    ///
    /// # Errors
    /// As for the trait.
    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>>;
}

/// A row that no table of a sink can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The row's index in the batch.
    pub row: usize,
    /// The reason. It is the same text for all rows that are refused for it.
    pub reason: String,
}

impl Table {
    /// The table of a view that is served.
    pub fn of(view: &View, output: &Output) -> Self {
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
    ///
    /// # Errors
    /// `Data` when the key is empty or names columns that do not exist.
    pub(super) fn validate(&self) -> Result<()> {
        let columns = self.schema.fields().len();
        let partition = self.partition_columns;
        let sound = !self.primary_key.is_empty()
            && (1..=self.primary_key.len()).contains(&partition)
            && self.primary_key.iter().all(|&i| i < columns);
        if sound {
            return Ok(());
        }
        Err(tidemill_log::Error::new(
            tidemill_log::Kind::Data,
            format!(
                "table `{}`: {columns} columns cannot have the primary key {:?} with {partition} \
                 partition columns",
                self.name, self.primary_key
            ),
        ))
    }

    /// Refuses rows with null in their key, because no sink could find them again.
    ///
    /// # Errors
    /// `Data`, naming the table and the column.
    pub(super) fn check_keys(&self, rows: &RecordBatch) -> Result<()> {
        for &i in &self.primary_key {
            if rows.column(i).null_count() > 0 {
                return Err(tidemill_log::Error::new(
                    tidemill_log::Kind::Data,
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
    /// The number of operations.
    pub(super) fn rows(&self) -> usize {
        self.upserts.num_rows() + self.deletes.num_rows()
    }

    /// The memory of the batches, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let batches = [&self.upserts, &self.replaced, &self.deletes];
        batches
            .iter()
            .map(|batch| batch.get_array_memory_size())
            .sum()
    }

    /// Refuses batches that do not have the table's columns, or rows without a key.
    ///
    /// # Errors
    /// `Bug` for a wrong shape, `Data` for null in a key.
    pub(super) fn check(&self, table: &Table) -> Result<()> {
        let columns = table.schema.fields().len();
        let shaped = self.upserts.num_rows() == self.replaced.num_rows()
            && [&self.upserts, &self.replaced, &self.deletes]
                .iter()
                .all(|b| b.num_columns() == columns);
        if !shaped {
            return Err(tidemill_log::Error::new(
                tidemill_log::Kind::Bug,
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
