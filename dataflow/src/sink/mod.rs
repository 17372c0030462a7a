//! Sinks: where views are served.
//!
//! Engines: [`cassandra`] (`cassandra://[user@]host:port[,host…]/keyspace`) and [`sqlite`]
//! (`sqlite://FILE`). Both pass `tests/sink_conformance.rs`.
//!
//! Contract (invariant 1): a write carries its epoch as the row's version, so writing an epoch
//! again changes nothing, and an older epoch never overwrites a newer one. There is at most one
//! operation per primary key and epoch. The frontier row moves only after every write at or below
//! it is durable.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

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
/// retries.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// A view's last complete epoch as the sink holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    /// Every write at or below this epoch is in the table; none when nothing was completed yet.
    pub epoch: Option<Epoch>,
    /// The fingerprint the table was filled under.
    pub fingerprint: u64,
}

/// A place where views are served. Shared by the worker threads of a process.
pub trait Sink: Send + Sync {
    /// Creates the tables that are missing and checks the ones that exist column by column (names,
    /// types, key). An error of kind `Data` names table and column and says what would be right.
    /// Also creates the frontier table. Returns each table's frontier, none for a table that no
    /// job filled yet. Called once by worker 0 before any write.
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>>;

    /// Starts writing and returns at once; `done` is called when the writes are durable.
    /// Transient failures are retried inside for ever with back-off (and show in the log).
    fn write(&self, writes: Writes, done: Done);

    /// Moves the frontier rows of the given tables to `epoch`, durably. Called by worker 0 when
    /// all workers' writes at or below `epoch` are durable. Blocking.
    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()>;

    /// Up to `limit` rows of a table, in the sink's own order: for the terminal and for checks.
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch>;
}

/// Opens the sink that `url` names.
pub fn open(url: &str) -> Result<Arc<dyn Sink>> {
    Err(crate::Error::new(
        crate::Kind::Bug,
        format!("`{url}`: no engine yet"),
    ))
}
