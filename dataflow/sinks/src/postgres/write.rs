//! Writing epochs: upserts and deletes in bulk, and a search for the rows that the server refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use postgres::error::SqlState;
use postgres::types::ToSql;
use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result, failpoint};
use tidemill_postgres::{failed, passes};

use super::super::contract::{Frontier, Refused, Table, Writes};
use super::super::existing::{quoted, unprepared};
use super::column::{Parameter, parameters};
use super::frontier::{self, Claim, Locked};
use super::statement::Session;
use super::table::array_type;

/// Most rows of one statement.
const ROWS_A_STATEMENT_MAX: usize = 10_000;

/// What the thread of a sink knows of its tables.
pub(super) struct Writer {
    /// The job whose frontiers are written; empty before `prepare`.
    job: String,
    /// The prepared tables, in the order given to `prepare`.
    tables: Vec<Prepared>,
    /// The generation of this process; 0 before it is known.
    generation: Arc<AtomicU64>,
}

/// A view's table with its statements, and what this process wrote to it.
struct Prepared {
    /// The view's table.
    table: Table,
    /// What this process expects of the frontier row.
    claim: Claim,
    /// Inserts or replaces rows.
    upsert: String,
    /// Deletes rows by their keys.
    delete: String,
    /// The last epoch that this process wrote.
    written: Option<Epoch>,
    /// The last epoch that was written with refused rows: until their report is durable, the
    /// frontier moves with `advance` alone.
    refused: Option<Epoch>,
}

/// The outcome of one group of writes, before it is committed.
struct Outcome {
    /// The result of each write.
    results: Vec<Result<Vec<Refused>>>,
    /// For each table that was written: the last epoch, and the last one with refused rows.
    written: BTreeMap<usize, (Epoch, Option<Epoch>)>,
}

/// Why a statement failed.
enum Failure {
    /// The server failed it.
    Server(postgres::Error),
    /// The rows must not be written.
    Rows(Error),
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Rows(error)
    }
}

impl Failure {
    /// The error, about one table.
    fn of(self, table: &Table) -> Error {
        match self {
            Self::Server(error) => failed(&format!("writing to table `{}`", table.name), error),
            Self::Rows(error) => error,
        }
    }

    /// The reason if the server refuses rows because of their values: a data exception (class 22),
    /// a constraint that the table's owner added (23, 44), a size limit (54), or a trigger that
    /// raised an exception.
    fn refusal(&self) -> Option<String> {
        let Self::Server(error) = self else {
            return None;
        };
        let answer = error.as_db_error()?;
        let class = answer.code().code().get(..2).unwrap_or_default();
        let is_of_row = matches!(class, "22" | "23" | "44" | "54")
            || *answer.code() == SqlState::RAISE_EXCEPTION;
        is_of_row.then(|| answer.message().to_owned())
    }

    /// Whether the whole transaction must be tried again.
    fn ends_transaction(&self) -> bool {
        match self {
            Self::Server(error) => error.code().is_none_or(passes),
            Self::Rows(_) => false,
        }
    }
}

impl Writer {
    /// Knows no table. `generation` is set from outside.
    pub(super) fn new(generation: Arc<AtomicU64>) -> Self {
        Self {
            job: String::new(),
            tables: Vec::new(),
            generation,
        }
    }

    /// Creates the tables that are missing, and returns the tables' frontiers.
    ///
    /// # Errors
    /// `Data` when a table is not what its view needs; `Retry` when the server is away.
    pub(super) fn prepare(
        &mut self,
        session: &mut Session,
        job: String,
        tables: Vec<Table>,
    ) -> Result<Vec<Option<Frontier>>> {
        tables.iter().try_for_each(Table::validate)?;
        let prepared = session.transaction("preparing the sink's tables", |session| {
            frontier::begin(session)?;
            let prepared = tables.into_iter().map(|table| {
                let (frontier, claim) = frontier::prepare(session, &job, &table)?;
                Ok((frontier, Prepared::new(table, claim)?))
            });
            prepared.collect::<Result<Vec<_>>>()
        })?;
        let (frontiers, prepared) = prepared.into_iter().unzip();
        (self.job, self.tables) = (job, prepared);
        Ok(frontiers)
    }

    /// The prepared table of an index.
    fn table(&self, index: usize) -> Result<&Prepared> {
        self.tables.get(index).ok_or_else(|| unprepared(index))
    }

    /// Commits a group of writes in one transaction. If the server refuses any of it, the group is
    /// applied again with a savepoint for each part, to find out what is refused.
    ///
    /// # Errors
    /// An error that passes; then nothing is known of the transaction. `Fence` when another
    /// process writes.
    pub(super) fn commit(
        &mut self,
        session: &mut Session,
        group: &[Writes],
    ) -> Result<Vec<Result<Vec<Refused>>>> {
        let outcome = match self.attempt(session, group, false) {
            Err(error) if error.kind() == Kind::Data && !error.is_refused() => {
                self.attempt(session, group, true)?
            }
            outcome => outcome?,
        };
        for (index, (written, refused)) in outcome.written {
            if let Some(prepared) = self.tables.get_mut(index) {
                prepared.written = Some(written);
                prepared.refused = refused.max(prepared.refused);
            }
        }
        Ok(outcome.results)
    }

    /// One transaction: locks the frontiers, applies what is above them, and moves them.
    fn attempt(&self, session: &mut Session, group: &[Writes], carefully: bool) -> Result<Outcome> {
        let generation = self.generation.load(Ordering::Relaxed);
        session.transaction("writing to the sink", |session| {
            let tables = group
                .iter()
                .filter_map(|writes| self.tables.get(writes.table));
            let views: Vec<&str> = tables.map(|it| it.table.name.as_str()).collect();
            // A process that prepared nothing finds no table of frontiers either.
            let locked = match views.is_empty() {
                true => BTreeMap::new(),
                false => frontier::lock(session, &self.job, &views)?,
            };
            let mut outcome = Outcome {
                results: Vec::with_capacity(group.len()),
                written: BTreeMap::new(),
            };
            for writes in group {
                let applied = self.apply(session, writes, &locked, generation, carefully);
                match applied {
                    Ok(Some(refused)) => {
                        outcome.note(writes, &refused);
                        outcome.results.push(Ok(refused));
                    }
                    Ok(None) => outcome.results.push(Ok(Vec::new())),
                    Err(error) if error.kind() == Kind::Data && carefully => {
                        outcome.results.push(Err(error));
                    }
                    Err(error) if error.kind() == Kind::Bug => outcome.results.push(Err(error)),
                    Err(error) => return Err(error),
                }
            }
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
            let moves = self.moves(&outcome);
            if !moves.is_empty() {
                frontier::advance(session, &self.job, &moves, generation)?;
            }
            Ok(outcome)
        })
    }

    /// The frontiers that move with the rows: those of tables without refused rows.
    fn moves(&self, outcome: &Outcome) -> BTreeMap<&str, Epoch> {
        let written = outcome
            .written
            .iter()
            .filter_map(|(index, (epoch, refused))| {
                let prepared = self.tables.get(*index)?;
                let waits = refused.or(prepared.refused).is_some();
                (!waits).then_some((prepared.table.name.as_str(), *epoch))
            });
        written.collect()
    }

    /// Applies one write; `None` if its epoch is applied already.
    fn apply(
        &self,
        session: &mut Session,
        writes: &Writes,
        locked: &BTreeMap<String, Locked>,
        generation: u64,
        carefully: bool,
    ) -> Result<Option<Vec<Refused>>> {
        let prepared = self.table(writes.table)?;
        let table = &prepared.table;
        let Some(row) = locked.get(&table.name) else {
            let what = format!("table `{}` was dropped with its frontier", table.name);
            return Err(Error::new(Kind::Data, what));
        };
        row.permit(&table.name, prepared.claim, generation)?;
        writes.check(table)?;
        let done = row.epoch.is_some_and(|through| writes.epoch <= through);
        // An older epoch than the last one never overwrites it; the last one itself may be
        // written again, until the frontier says that its refused rows are reported.
        if done || prepared.written.is_some_and(|last| writes.epoch < last) {
            return Ok(None);
        }
        let applied = match carefully {
            false => prepared.whole(session, writes).map(|()| Vec::new()),
            true => prepared.in_parts(session, writes),
        };
        applied.map(Some).map_err(|failure| failure.of(table))
    }

    /// Moves the frontier rows of views, in one transaction.
    ///
    /// # Errors
    /// `Fence` when another process writes; `Retry` when the server is away.
    pub(super) fn advance(
        &mut self,
        session: &mut Session,
        job: &str,
        tables: &[usize],
        epoch: Epoch,
    ) -> Result<()> {
        let generation = self.generation.load(Ordering::Relaxed);
        let prepared = tables.iter().map(|index| self.table(*index));
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let moves = prepared.iter().map(|it| (it.table.name.as_str(), epoch));
        let moves: BTreeMap<&str, Epoch> = moves.collect();
        session.transaction("moving the frontiers", |session| {
            let views: Vec<&str> = moves.keys().copied().collect();
            let locked = frontier::lock(session, job, &views)?;
            for one in &prepared {
                let view = &one.table.name;
                let row = locked.get(view).ok_or_else(|| {
                    let what = format!("the frontier of table `{view}` was dropped");
                    Error::new(Kind::Data, what)
                })?;
                row.permit(view, one.claim, generation)?;
            }
            failpoint::hit(failpoint::SINK_IN_ADVANCE);
            frontier::advance(session, job, &moves, generation)
        })?;
        for index in tables {
            if let Some(prepared) = self.tables.get_mut(*index) {
                prepared.refused.take_if(|refused| *refused <= epoch);
            }
        }
        Ok(())
    }

    /// Writes corrected rows, in one transaction. They lose to every epoch after theirs, unless
    /// `over_newer` is set.
    ///
    /// # Errors
    /// `Retry` when the server is away, otherwise `Data`.
    pub(super) fn repair(
        &mut self,
        session: &mut Session,
        writes: &Writes,
        over_newer: bool,
    ) -> Result<Vec<Refused>> {
        let prepared = self.table(writes.table)?;
        let table = &prepared.table;
        writes.check(table)?;
        session.transaction("repairing the sink", |session| {
            let locked = frontier::lock(session, &self.job, &[table.name.as_str()])?;
            let through = locked.get(&table.name).and_then(|row| row.epoch);
            if !over_newer && through.is_some_and(|through| through > writes.epoch) {
                return Ok(Vec::new());
            }
            let repaired = prepared.in_parts(session, writes);
            repaired.map_err(|failure| failure.of(table))
        })
    }
}

impl Outcome {
    /// Notes that a write was applied.
    fn note(&mut self, writes: &Writes, refused: &[Refused]) {
        let (last, with_refused) = self.written.entry(writes.table).or_default();
        *last = writes.epoch;
        if !refused.is_empty() {
            *with_refused = Some(writes.epoch);
        }
    }
}

impl Prepared {
    /// Builds the statements of a table.
    ///
    /// # Errors
    /// `Data` when a column cannot be stored.
    fn new(table: Table, claim: Claim) -> Result<Self> {
        let name = quoted(&table.name);
        let fields = table.schema.fields();
        let unnest = |columns: &mut dyn Iterator<Item = usize>| -> Result<String> {
            let arrays = columns.enumerate().map(|(number, column)| {
                let kind = array_type(table.schema.field(column).data_type())?;
                Ok(format!("${}::{kind}", number + 1))
            });
            Ok(arrays.collect::<Result<Vec<_>>>()?.join(", "))
        };
        let columns: Vec<_> = fields.iter().map(|field| quoted(field.name())).collect();
        let keys: Vec<_> = table.key_names().map(quoted).collect();
        let others = columns.iter().filter(|column| !keys.contains(column));
        let replace: Vec<_> = others.map(|it| format!("{it} = excluded.{it}")).collect();
        let conflict = match replace.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", replace.join(", ")),
        };
        let upsert = format!(
            "INSERT INTO {name} ({}) SELECT * FROM unnest({}) ON CONFLICT ({}) DO {conflict}",
            columns.join(", "),
            unnest(&mut (0..columns.len()))?,
            keys.join(", ")
        );
        let names: Vec<_> = (0..keys.len()).map(|number| format!("k{number}")).collect();
        let same = keys.iter().zip(&names);
        let same: Vec<_> = same.map(|(key, k)| format!("t.{key} = d.{k}")).collect();
        let delete = format!(
            "DELETE FROM {name} t USING unnest({}) d({}) WHERE {}",
            unnest(&mut table.primary_key.iter().copied())?,
            names.join(", "),
            same.join(" AND ")
        );
        Ok(Self {
            table,
            claim,
            upsert,
            delete,
            written: None,
            refused: None,
        })
    }

    /// Applies a write whole.
    fn whole(&self, session: &mut Session, writes: &Writes) -> std::result::Result<(), Failure> {
        self.delete(session, &writes.deletes)?;
        self.upsert(session, &writes.upserts)
    }

    /// Applies a write in parts that become smaller where the server refuses rows. Returns the rows
    /// that it refused; their keys are deleted.
    fn in_parts(
        &self,
        session: &mut Session,
        writes: &Writes,
    ) -> std::result::Result<Vec<Refused>, Failure> {
        let mut refused = Vec::new();
        // A row whose key the server refuses is not there, so nothing is to be deleted.
        self.parts(
            session,
            &writes.deletes,
            &mut Self::delete,
            &mut |_, _, _| Ok(()),
        )?;
        self.parts(
            session,
            &writes.upserts,
            &mut Self::upsert,
            &mut |session, row, why| {
                let nothing = &mut |_: &mut Session, _: &RecordBatch, _: String| Ok(());
                self.parts(session, row, &mut Self::delete, nothing)?;
                refused.push(Refused::new(row, 0, why));
                Ok(())
            },
        )?;
        Ok(refused)
    }

    /// Applies `work` to rows under a savepoint. Where the server refuses rows, each half is tried
    /// alone; a single row that is refused is handed to `refused` with the reason.
    fn parts(
        &self,
        session: &mut Session,
        rows: &RecordBatch,
        work: &mut Work<'_>,
        refused: &mut OnRefused<'_>,
    ) -> std::result::Result<(), Failure> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        session.client.batch_execute("SAVEPOINT part")?;
        let Err(failure) = work(self, session, rows) else {
            session.client.batch_execute("RELEASE SAVEPOINT part")?;
            return Ok(());
        };
        if failure.ends_transaction() {
            return Err(failure);
        }
        let back = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";
        session.client.batch_execute(back)?;
        let Some(why) = failure.refusal() else {
            return Err(failure);
        };
        match rows.num_rows() {
            1 => refused(session, rows, why),
            all => {
                self.parts(session, &rows.slice(0, all / 2), work, refused)?;
                self.parts(session, &rows.slice(all / 2, all - all / 2), work, refused)
            }
        }
    }

    /// Inserts or replaces rows.
    fn upsert(
        &self,
        session: &mut Session,
        rows: &RecordBatch,
    ) -> std::result::Result<(), Failure> {
        let all: Vec<usize> = (0..self.table.schema.fields().len()).collect();
        self.each(session, rows, &all, &self.upsert)
    }

    /// Deletes rows by their keys.
    fn delete(
        &self,
        session: &mut Session,
        rows: &RecordBatch,
    ) -> std::result::Result<(), Failure> {
        self.each(session, rows, &self.table.primary_key, &self.delete)
    }

    /// Executes a statement with the given columns of rows.
    fn each(
        &self,
        session: &mut Session,
        rows: &RecordBatch,
        columns: &[usize],
        sql: &str,
    ) -> std::result::Result<(), Failure> {
        let mut from = 0;
        while from < rows.num_rows() {
            let count = (rows.num_rows() - from).min(ROWS_A_STATEMENT_MAX);
            let values: Vec<Parameter> =
                parameters(&self.table, &rows.slice(from, count), columns)?;
            let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(AsRef::as_ref).collect();
            session.execute(sql, &values)?;
            from += count;
        }
        Ok(())
    }
}

/// What is done with rows.
type Work<'a> =
    dyn FnMut(&Prepared, &mut Session, &RecordBatch) -> std::result::Result<(), Failure> + 'a;
/// What is done with a row that is refused, with the reason.
type OnRefused<'a> =
    dyn FnMut(&mut Session, &RecordBatch, String) -> std::result::Result<(), Failure> + 'a;
