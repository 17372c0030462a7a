//! Sinks: where views are served.
//!
//! Engines: `cassandra` (`cassandra://[user@]host:port[,host…]/keyspace`) and `sqlite`
//! (`sqlite://FILE`). Both pass `tests/storage/sink_conformance`.
//!
//! Contract (invariant 1): a write carries its epoch as the row's version, so writing an epoch
//! again changes nothing, and an older epoch never overwrites a newer one. There is at most one
//! operation per primary key and epoch. The frontier row moves only after every write at or below
//! it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatchOptions, make_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use tidemill_log::health::Health;

use crate::plan::ir::{Output, View};
use crate::row::nullable;
use crate::{Epoch, Result};

mod backlog;
mod cassandra;
pub(crate) mod claims;
mod scan;
mod sqlite;

pub use cassandra::probe::Probe;
pub use scan::{Odd, Scanned};

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
    fn new(rows: &RecordBatch, row: usize, reason: String) -> Self {
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

/// Opens the sink that `url` names. For Cassandra this connects, and waits for a service that is
/// not there yet (see `cassandra`).
pub fn open(url: &str) -> Result<Arc<dyn Sink>> {
    open_reporting(url, &Health::default())
}

/// The same, of a sink that reports what its statements meet.
pub(crate) fn open_reporting(url: &str, health: &Health) -> Result<Arc<dyn Sink>> {
    if let Some(rest) = url.strip_prefix("cassandra://") {
        return Ok(Arc::new(cassandra::Cassandra::open(rest, health)?));
    }
    if let Some(file) = url.strip_prefix("sqlite://") {
        return Ok(Arc::new(sqlite::Sqlite::open(file)?));
    }
    Err(crate::Error::new(
        crate::Kind::Data,
        format!(
            "sink `{url}`: expected `cassandra://[user@]host:port[,host:port]/keyspace` or \
             `sqlite://FILE`"
        ),
    ))
}

/// The same instants under another time zone name, or none: the stored numbers are UTC anyway.
fn with_zone(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let data = array
        .to_data()
        .into_builder()
        .data_type(to.clone())
        .build()
        .map_err(|e| crate::Error::with_source(crate::Kind::Bug, format!("as {to}"), e))?;
    Ok(make_array(data))
}

/// Casts a column of `table` and refuses what does not fit.
fn convert(table: &str, column: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let array = match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => with_zone(array, &DataType::Timestamp(*unit, None))?,
        _ => Arc::clone(array),
    };
    if array.data_type() == to {
        return Ok(array);
    }
    if let DataType::Timestamp(unit, Some(_)) = to {
        let naive = convert(table, column, &array, &DataType::Timestamp(*unit, None))?;
        return with_zone(&naive, to);
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let array = match (array.data_type(), to) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(unit, _))
            if *unit == TimeUnit::Millisecond =>
        {
            // A cast cuts towards 1970: a moment before it would be a later one.
            let micros = array.as_primitive::<TimestampMicrosecondType>();
            Arc::new(micros.unary::<_, TimestampMillisecondType>(|at| at.div_euclid(1000)))
        }
        _ => array,
    };
    cast_with_options(&array, to, &options).map_err(|e| {
        crate::Error::with_source(
            crate::Kind::Data,
            format!("table `{table}`, column `{column}`: a value does not fit {to}: {e}"),
            e,
        )
    })
}

/// `count` rows read back from `table`, given column by column; `array_of` makes an array of the
/// type that the engine stores, or says what about the values is wrong.
fn batch_of<V>(
    table: &Table,
    count: usize,
    columns: Vec<Vec<V>>,
    array_of: impl Fn(&DataType, Vec<V>) -> Result<std::result::Result<ArrayRef, String>>,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (field, values) in table.schema.fields().iter().zip(columns) {
        let array = array_of(field.data_type(), values)?.map_err(|problem| {
            mismatch(&table.name, &format!("column `{}` {problem}", field.name()))
        })?;
        let array = convert(&table.name, field.name(), &array, field.data_type())?;
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let schema = Arc::clone(&table.schema);
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|error| {
        let what = format!("rows of table `{}`", table.name);
        crate::Error::with_source(crate::Kind::Data, what, error)
    })
}

/// Asks Cassandra, within `wait`, which version it is.
pub fn ask_cassandra(url: &str, wait: std::time::Duration) -> Result<String> {
    cassandra::ask(url.strip_prefix("cassandra://").unwrap_or(url), wait)
}

/// What to do about a table that is not as the view needs it.
fn mismatch(table: &str, problem: &str) -> crate::Error {
    crate::Error::new(
        crate::Kind::Data,
        format!("table `{table}`: {problem}; drop the table, or give the view another name"),
    )
}

/// A column of a table in the sink, in the engine's own type names.
struct FoundColumn {
    name: String,
    sql_type: String,
    /// Position in the primary key; none for a column outside it.
    key: Option<usize>,
}

/// Checks an existing table's columns and key against what the view needs. More columns are fine:
/// they belong to somebody else and stay untouched.
fn check_existing(
    table: &Table,
    found: &[FoundColumn],
    need: impl Fn(&DataType) -> Result<&'static str>,
) -> Result<()> {
    for field in table.schema.fields() {
        let needed = need(field.data_type())?;
        match found.iter().find(|c| c.name == *field.name()) {
            None => {
                let problem = format!("column `{}` ({needed}) is missing", field.name());
                return Err(mismatch(&table.name, &problem));
            }
            Some(column) if !column.sql_type.eq_ignore_ascii_case(needed) => {
                let (name, is) = (&column.name, &column.sql_type);
                let problem = format!("column `{name}` is {is}, the view needs {needed}");
                return Err(mismatch(&table.name, &problem));
            }
            Some(_) => {}
        }
    }
    let mut key: Vec<_> = found.iter().filter(|c| c.key.is_some()).collect();
    key.sort_by_key(|c| c.key);
    let key: Vec<&str> = key.iter().map(|c| c.name.as_str()).collect();
    let needed: Vec<&str> = table.key_names().collect();
    if key != needed {
        let (is, want) = (key.join(", "), needed.join(", "));
        let problem = format!("primary key is ({is}), the view needs ({want})");
        return Err(mismatch(&table.name, &problem));
    }
    Ok(())
}

/// Whole numbers that are stored with a sign and do not fit.
fn beyond_bigint(table: &Table, rows: &RecordBatch, unfit: &mut Vec<Unfit>) {
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        let Some(numbers) = column.as_primitive_opt::<UInt64Type>() else {
            continue;
        };
        let large = numbers.iter().enumerate();
        let large = large.filter(|(_, number)| number.is_some_and(|it| i64::try_from(it).is_err()));
        let name = field.name();
        unfit.extend(large.map(|(row, _)| Unfit {
            row,
            reason: format!("column `{name}` holds a number beyond 9223372036854775807"),
        }));
    }
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
    fn validate(&self) -> Result<()> {
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
    fn check_keys(&self, rows: &RecordBatch) -> Result<()> {
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
    fn rows(&self) -> usize {
        self.upserts.num_rows() + self.deletes.num_rows()
    }

    fn bytes(&self) -> usize {
        let batches = [&self.upserts, &self.replaced, &self.deletes];
        batches
            .iter()
            .map(|batch| batch.get_array_memory_size())
            .sum()
    }

    /// Refuses batches that are not the table's.
    fn check(&self, table: &Table) -> Result<()> {
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

/// A stored frontier row: the fingerprint is kept as 16 hexadecimal digits.
fn frontier_of(epoch: Option<i64>, fingerprint: &str) -> Result<Frontier> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| {
        let what = format!("frontier row with epoch {epoch:?} and fingerprint `{fingerprint}`");
        crate::Error::with_source(crate::Kind::Data, what, e)
    };
    Ok(Frontier {
        epoch: epoch
            .map(Epoch::try_from)
            .transpose()
            .map_err(|e| damaged(e.into()))?,
        fingerprint: u64::from_str_radix(fingerprint, 16).map_err(|e| damaged(e.into()))?,
    })
}

/// A name as an identifier that keeps its case and its odd letters, in SQL and CQL alike.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn unprepared(table: usize) -> crate::Error {
    crate::Error::new(
        crate::Kind::Bug,
        format!("table {table} was not prepared on this sink; every process prepares its own"),
    )
}

fn unsupported(data_type: &DataType) -> crate::Error {
    crate::Error::new(
        crate::Kind::Data,
        format!("a column of type {data_type} cannot be served; cast it in the view"),
    )
}
