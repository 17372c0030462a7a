//! The SQLite sink: views as tables of the embedded file.
//!
//! Input: [`Writes`]. Output: rows that a person can read with `sqlite3`. Booleans are 0 or 1,
//! dates and timestamps are ISO 8601 text, decimals are text, and NaN is the text `NaN`. Every
//! table has an additional column `_epoch`, the version of the row.
//!
//! Invariants:
//! 1. One thread owns the connection that writes. It commits what is queued as one transaction
//!    (group commit), and calls back after the commit.
//! 2. A write never overwrites a newer one: an upsert compares `_epoch`, and a delete leaves a
//!    tombstone with its epoch.
//! 3. Tombstones at or below the frontier are deleted when the frontier moves, and writes at or
//!    below the frontier are not applied again. Therefore no deleted row comes back.
//! 4. A row that the file refuses because of its values is deleted by its key and reported, and the
//!    rest of its write continues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params, params_from_iter};
use tidemill_ir::Epoch;
use tidemill_log::backoff::Backoff;
use tidemill_log::sqlite::connect;
use tidemill_log::{Error, Kind, Result, failpoint};

use super::backlog::{Backlog, Command, serve};
use super::contract::{
    Done, Frontier, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};
use super::convert::scan::stored_form;
use super::convert::{batch_of, beyond_bigint};
use super::existing::{quoted, unprepared};

mod cell;
mod error;
mod scan;
mod table;

use cell::{array_of, beyond_years};
use error::{failed, refuses_a_row, transient};
use table::{
    VERSION, cells, ensure_table, filled_by, fingerprint, frontier, frontiers, is_there,
    sqlite_type, unclaimed,
};

/// The first and the longest pause between two attempts to commit.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// The frontier table, and the table of tombstones.
const OWN_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS tidemill_frontiers(
        job TEXT NOT NULL, view TEXT NOT NULL, epoch INTEGER, fingerprint TEXT NOT NULL,
        PRIMARY KEY (job, view));
    CREATE TABLE IF NOT EXISTS _tidemill_tombstones(
        view TEXT NOT NULL, key TEXT NOT NULL, epoch INTEGER NOT NULL,
        PRIMARY KEY (view, key)) WITHOUT ROWID;";

/// A sink over one file.
pub(super) struct Sqlite {
    /// The path of the file.
    file: String,
    /// Bounds what is accepted and not durable.
    backlog: Arc<Backlog>,
    /// The queue of the thread that writes.
    commands: Sender<Command<Writer>>,
}

/// The thread that owns the connection for writing.
struct Writer {
    /// The only connection that writes.
    connection: Connection,
    /// The job whose frontiers are written; empty before `prepare`.
    job: String,
    /// The prepared tables, in the order given to `prepare`.
    tables: Vec<Prepared>,
}

/// A view's table with its statements, as SQL.
struct Prepared {
    /// The view's table.
    table: Table,
    /// Inserts or replaces a row unless a newer row or tombstone exists.
    upsert: String,
    /// Deletes a row that is not newer.
    delete: String,
    /// Leaves a tombstone for a key.
    bury: String,
    /// Gives a row an older version, so that a repair wins over it.
    backdate: String,
}

impl Sqlite {
    /// Opens or creates the file and starts the thread.
    ///
    /// # Errors
    /// `Data` when the file cannot be used; `Retry` when it is locked, or no thread can be started.
    pub(super) fn open(file: &str) -> Result<Self> {
        if file.is_empty() {
            return Err(Error::new(
                Kind::Data,
                "sink `sqlite://`: expected a file name, as in `sqlite://river.db`",
            ));
        }
        let mut connection = connect(file)?;
        // The file has other writers. Taking the write lock first lets the busy timeout wait for
        // them. SQLite does not wait for a transaction that began by reading.
        connection.set_transaction_behavior(TransactionBehavior::Immediate);
        let (commands, queue) = channel();
        let mut writer = Writer {
            connection,
            job: String::new(),
            tables: Vec::new(),
        };
        thread::Builder::new()
            .name("sink-sqlite".into())
            .spawn(move || serve(&mut writer, &queue, Writer::commit))
            .map_err(|e| Error::with_source(Kind::Retry, "starting the sink's thread", e))?;
        Ok(Self {
            file: file.to_owned(),
            backlog: Arc::default(),
            commands,
        })
    }

    /// Runs `work` on the thread, after the writes before it, and waits for its answer.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = channel();
        let command = Command::Run(Box::new(move |writer: &mut Writer| {
            // The caller waits below. If it is gone, nobody needs the answer.
            let _ = reply.send(work(writer));
        }));
        let gone = || {
            Error::new(
                Kind::Bug,
                format!("`{}`: the sink's thread ended", self.file),
            )
        };
        self.commands.send(command).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Sink for Sqlite {
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        let (job, tables) = (job.to_owned(), tables.to_vec());
        self.run(move |writer| writer.prepare(job, tables))
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        let job = job.to_owned();
        self.run(move |writer| frontiers(&writer.connection, &job))
    }

    fn is_there(&self, view: &str) -> Result<bool> {
        let view = view.to_owned();
        self.run(move |writer| is_there(&writer.connection, &view))
    }

    fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        let view = view.to_owned();
        self.run(move |writer| unclaimed(&writer.connection, &view))
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.run(|writer| filled_by(&writer.connection))
    }

    fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        let (job, view) = (job.to_owned(), view.to_owned());
        self.run(move |writer| writer.drop_view(&job, &view))
    }

    fn write(&self, writes: Writes, done: Done) {
        let pending = self.backlog.admit(&writes, done);
        // If the thread has ended, the command comes back, and dropping it calls `done` with an
        // error.
        let _ = self.commands.send(Command::Write(writes, pending));
    }

    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let (job, tables) = (job.to_owned(), tables.to_vec());
        self.run(move |writer| writer.advance(&job, &tables, epoch))
    }

    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>> {
        let mut unfit = Vec::new();
        beyond_bigint(table, rows, &mut unfit);
        beyond_years(table, rows, &mut unfit);
        unfit.sort_by_key(|unfit| unfit.row);
        unfit.dedup_by_key(|unfit| unfit.row);
        Ok(unfit)
    }

    fn read_back(&self) -> Result<&dyn ReadBack> {
        Ok(self)
    }
}

impl ReadBack for Sqlite {
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch> {
        let connection = connect(&self.file)?;
        let context = |e| failed(&format!("reading table `{}`", table.name), e);
        let columns: Vec<_> = table
            .schema
            .fields()
            .iter()
            .map(|f| quoted(f.name()))
            .collect();
        let sql = format!(
            "SELECT {} FROM {} LIMIT ?1",
            columns.join(", "),
            quoted(&table.name)
        );
        let mut statement = connection.prepare(&sql).map_err(context)?;
        let mut values: Vec<Vec<Value>> = vec![Vec::new(); columns.len()];
        let mut count = 0;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query([limit]).map_err(context)?;
        while let Some(row) = rows.next().map_err(context)? {
            for (i, column) in values.iter_mut().enumerate() {
                column.push(row.get(i).map_err(context)?);
            }
            count += 1;
        }
        batch_of(table, count, values, |kind, values| {
            Ok(array_of(&sqlite_type(kind)?.1, values))
        })
    }

    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        scan::scan(&connect(&self.file)?, table, keys, each)
    }

    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
        stored_form(table, rows, |kind| Ok(sqlite_type(kind)?.1))
    }

    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>> {
        self.run(move |writer| writer.repair(&writes, over_newer))
    }
}

impl Writer {
    /// Commits a group of writes, and retries while the file is busy, full or unreachable.
    fn commit(&mut self, group: &[Writes]) -> Vec<Result<Vec<Refused>>> {
        let mut backoff = Backoff::new(BACK_OFF_MIN, MAX_BACK_OFF);
        let mut failing = false;
        loop {
            match self.try_commit(group) {
                Ok(results) => {
                    if failing {
                        tracing::info!("the sink's file takes writes again");
                    }
                    return results;
                }
                Err(e) if transient(&e) => {
                    if !failing {
                        tracing::warn!("writing to the sink's file, trying again: {e}");
                        failing = true;
                    }
                    thread::sleep(backoff.pause());
                }
                Err(e) => {
                    let what = e.to_string();
                    return group
                        .iter()
                        .map(|_| {
                            Err(Error::new(
                                Kind::Data,
                                format!("writing to the sink: {what}"),
                            ))
                        })
                        .collect();
                }
            }
        }
    }

    /// One transaction with a savepoint for each write, so that a failed write does not affect the
    /// others.
    fn try_commit(&mut self, group: &[Writes]) -> rusqlite::Result<Vec<Result<Vec<Refused>>>> {
        let Self {
            connection,
            job,
            tables,
        } = self;
        let mut transaction = connection.transaction()?;
        let mut results = Vec::with_capacity(group.len());
        for writes in group {
            let Some(prepared) = tables.get(writes.table) else {
                results.push(Err(unprepared(writes.table)));
                continue;
            };
            let savepoint = transaction.savepoint()?;
            match prepared.apply(&savepoint, job, writes) {
                Ok(refused) => {
                    savepoint.commit()?;
                    results.push(Ok(refused));
                }
                Err(Failure::Sqlite(e)) if transient(&e) => return Err(e),
                // Dropping the savepoint rolls it back.
                Err(Failure::Sqlite(e)) => {
                    results.push(Err(failed(
                        &format!("writing to table `{}`", prepared.table.name),
                        e,
                    )));
                }
                Err(Failure::Refused(e)) => results.push(Err(e)),
            }
        }
        transaction.commit()?;
        Ok(results)
    }

    /// Creates the tables that are missing, and returns the tables' frontiers.
    fn prepare(&mut self, job: String, tables: Vec<Table>) -> Result<Vec<Option<Frontier>>> {
        let context = |e| failed("preparing the sink's tables", e);
        let transaction = self.connection.transaction().map_err(context)?;
        transaction.execute_batch(OWN_TABLES).map_err(context)?;
        let mut frontiers = Vec::with_capacity(tables.len());
        let mut prepared = Vec::with_capacity(tables.len());
        for table in tables {
            table.validate()?;
            ensure_table(&transaction, &table)?;
            frontiers.push(frontier(&transaction, &job, &table)?);
            failpoint::hit(failpoint::SINK_BEFORE_FRONTIER_ROW);
            transaction
                .execute(
                    "INSERT INTO tidemill_frontiers(job, view, fingerprint) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO NOTHING",
                    params![job, table.name, fingerprint(&table)],
                )
                .map_err(context)?;
            prepared.push(Prepared::new(table));
        }
        transaction.commit().map_err(context)?;
        self.job = job;
        self.tables = prepared;
        Ok(frontiers)
    }

    /// Drops a view's table with its tombstones and its frontier row, in one transaction.
    fn drop_view(&mut self, job: &str, view: &str) -> Result<()> {
        let context = |e| failed("dropping a view", e);
        let transaction = self.connection.transaction().map_err(context)?;
        transaction.execute_batch(OWN_TABLES).map_err(context)?;
        let drop = format!("DROP TABLE IF EXISTS {}", quoted(view));
        transaction.execute_batch(&drop).map_err(context)?;
        failpoint::hit(failpoint::SINK_BETWEEN_DROPS);
        for delete in [
            "DELETE FROM _tidemill_tombstones WHERE view = ?2 AND ?1 <> ''",
            "DELETE FROM tidemill_frontiers WHERE job = ?1 AND view = ?2",
        ] {
            transaction.execute(delete, [job, view]).map_err(context)?;
        }
        transaction.commit().map_err(context)
    }

    /// Writes corrected rows, in one transaction.
    fn repair(&mut self, writes: &Writes, over_newer: bool) -> Result<Vec<Refused>> {
        let prepared = self.tables.get(writes.table);
        let prepared = prepared.ok_or_else(|| unprepared(writes.table))?;
        let context = |e| failed(&format!("repairing table `{}`", prepared.table.name), e);
        let transaction = self.connection.transaction().map_err(context)?;
        let repaired = prepared.repair(&transaction, writes, over_newer);
        let refused = repaired.map_err(|failure| match failure {
            Failure::Sqlite(error) => context(error),
            Failure::Refused(error) => error,
        })?;
        transaction.commit().map_err(context)?;
        Ok(refused)
    }

    /// Moves the frontier rows of views, in one transaction.
    fn advance(&mut self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let context = |e| failed("moving the frontier", e);
        let epoch = version(epoch)?;
        let transaction = self.connection.transaction().map_err(context)?;
        for &index in tables {
            failpoint::hit(failpoint::SINK_IN_ADVANCE);
            let prepared = self.tables.get(index).ok_or_else(|| unprepared(index))?;
            let name = &prepared.table.name;
            let moved = transaction
                .execute(
                    "INSERT INTO tidemill_frontiers(job, view, epoch, fingerprint)
                     VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET epoch = excluded.epoch,
                         fingerprint = excluded.fingerprint
                     WHERE epoch IS NULL OR epoch <= excluded.epoch",
                    params![job, name, epoch, fingerprint(&prepared.table)],
                )
                .map_err(context)?;
            if moved > 0 {
                transaction
                    .execute(
                        "DELETE FROM _tidemill_tombstones WHERE view = ?1 AND epoch <= ?2",
                        params![name, epoch],
                    )
                    .map_err(context)?;
            }
        }
        transaction.commit().map_err(context)
    }
}

/// Why a write was not applied.
enum Failure {
    /// SQLite failed the statement.
    Sqlite(rusqlite::Error),
    /// The write must not be applied.
    Refused(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Prepared {
    /// Builds the statements of a table.
    fn new(table: Table) -> Self {
        let name = quoted(&table.name);
        let columns: Vec<_> = table
            .schema
            .fields()
            .iter()
            .map(|f| quoted(f.name()))
            .collect();
        let n = columns.len();
        let values: Vec<_> = (1..=n + 1).map(|i| format!("?{i}")).collect();
        let keys: Vec<_> = table.key_names().map(quoted).collect();
        let replace: Vec<_> = columns
            .iter()
            .filter(|c| !keys.contains(c))
            .map(|c| format!("{c} = excluded.{c}, "))
            .collect();
        let view = format!("'{}'", table.name.replace('\'', "''"));
        // The key as one text: its values, joined by commas.
        let key_of = |parameter: &dyn Fn(usize) -> usize| {
            let parts: Vec<_> = (0..keys.len())
                .map(|i| {
                    // `quote` ends a text at U+0000, so texts are written in hexadecimal.
                    let at = parameter(i);
                    format!("iif(typeof(?{at}) = 'text', hex(?{at}), quote(?{at}))")
                })
                .collect();
            parts.join(" || ',' || ")
        };
        let key_in_row = key_of(&|i| table.primary_key.get(i).map_or(1, |c| c + 1));
        let key_alone = key_of(&|i| i + 1);
        let epoch = keys.len() + 1;
        let same: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(i, k)| format!("{k} = ?{} AND ", i + 1))
            .collect();
        let upsert = format!(
            "INSERT INTO {name} ({}, {VERSION}) SELECT {} WHERE NOT EXISTS (
                 SELECT 1 FROM _tidemill_tombstones
                 WHERE view = {view} AND key = {key_in_row} AND epoch >= ?{})
             ON CONFLICT ({}) DO UPDATE SET {}{VERSION} = excluded.{VERSION}
             WHERE excluded.{VERSION} >= {name}.{VERSION}",
            columns.join(", "),
            values.join(", "),
            n + 1,
            keys.join(", "),
            replace.concat(),
        );
        let delete = format!(
            "DELETE FROM {name} WHERE {}{VERSION} <= ?{epoch}",
            same.concat()
        );
        let bury = format!(
            "INSERT INTO _tidemill_tombstones(view, key, epoch)
             VALUES ({view}, {key_alone}, ?{epoch})
             ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)"
        );
        let backdate = format!(
            "UPDATE {name} SET {VERSION} = ?{epoch} WHERE {}{VERSION} > ?{epoch}",
            same.concat()
        );
        Self {
            table,
            upsert,
            delete,
            bury,
            backdate,
        }
    }

    /// Applies the writes of an epoch, unless the frontier of the table has passed the epoch.
    fn apply(
        &self,
        connection: &Connection,
        job: &str,
        writes: &Writes,
    ) -> std::result::Result<Vec<Refused>, Failure> {
        writes.check(&self.table)?;
        let epoch = version(writes.epoch)?;
        let complete = frontier(connection, job, &self.table)?
            .filter(|f| f.fingerprint == self.table.fingerprint)
            .and_then(|f| f.epoch);
        if complete.is_some_and(|complete| writes.epoch <= complete) {
            return Ok(Vec::new());
        }
        let refused = self.upsert(connection, &writes.upserts, epoch)?;
        self.remove(connection, &writes.deletes, epoch, epoch)?;
        Ok(refused)
    }

    /// Deletes the rows of these keys that are not newer than `epoch`. Leaves tombstones, which
    /// refuse writes of epochs up to `buried`.
    fn remove(
        &self,
        connection: &Connection,
        rows: &RecordBatch,
        epoch: i64,
        buried: i64,
    ) -> std::result::Result<(), Failure> {
        let keys = cells(&self.table, rows, &self.table.primary_key)?;
        let mut delete = connection.prepare_cached(&self.delete)?;
        let mut bury = connection.prepare_cached(&self.bury)?;
        for row in 0..rows.num_rows() {
            let key = |at: i64| keys.iter().map(|c| c.at(row)).chain([at.into()]);
            delete.execute(params_from_iter(key(epoch)))?;
            bury.execute(params_from_iter(key(buried)))?;
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
        }
        Ok(())
    }

    /// Upserts rows. A row that the file refuses is deleted and returned.
    fn upsert(
        &self,
        connection: &Connection,
        rows: &RecordBatch,
        epoch: i64,
    ) -> std::result::Result<Vec<Refused>, Failure> {
        let all: Vec<usize> = (0..self.table.schema.fields().len()).collect();
        let upserts = cells(&self.table, rows, &all)?;
        let mut upsert = connection.prepare_cached(&self.upsert)?;
        let mut refused = Vec::new();
        for row in 0..rows.num_rows() {
            let cells = upserts.iter().map(|c| c.at(row));
            match upsert.execute(params_from_iter(cells.chain([epoch.into()]))) {
                Ok(_) => {}
                Err(error) if refuses_a_row(&error) => {
                    // The tombstone is one epoch lower, so that a replay tries the row again and
                    // reports it again.
                    self.remove(connection, &rows.slice(row, 1), epoch, epoch - 1)?;
                    refused.push(Refused::new(rows, row, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
        }
        Ok(refused)
    }

    /// See [`ReadBack::repair`]. Columns that the view does not have stay unchanged.
    fn repair(
        &self,
        connection: &Connection,
        writes: &Writes,
        over_newer: bool,
    ) -> std::result::Result<Vec<Refused>, Failure> {
        writes.check(&self.table)?;
        let epoch = version(writes.epoch)?;
        let each = |sql: &str, rows: &RecordBatch, at: i64| {
            let keys = cells(&self.table, rows, &self.table.primary_key)?;
            let mut statement = connection.prepare_cached(sql)?;
            for row in 0..rows.num_rows() {
                let key = keys.iter().map(|c| c.at(row));
                statement.execute(params_from_iter(key.chain([at.into()])))?;
            }
            Ok::<_, Failure>(())
        };
        if over_newer {
            each(&self.backdate, &writes.upserts, epoch)?;
            each(&self.backdate, &writes.deletes, epoch)?;
        }
        each(&self.delete, &writes.deletes, epoch)?;
        self.upsert(connection, &writes.upserts, epoch)
    }
}

/// The version of an epoch's rows: the epoch itself.
fn version(epoch: Epoch) -> Result<i64> {
    i64::try_from(epoch).map_err(|e| Error::with_source(Kind::Bug, format!("epoch {epoch}"), e))
}
