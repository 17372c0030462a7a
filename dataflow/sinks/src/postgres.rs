//! The PostgreSQL sink: views as tables with PostgreSQL's own types.
//!
//! The URL is that of libpq, `postgres://[user@]host:port/database?setting=value&…`, with one more
//! setting, `schema=NAME`: the schema of the tables, which is created if it is missing.
//!
//! Input: [`Writes`], those of a view by one worker in the order of epochs. Output: transactions.
//! Each holds the rows of one or more epochs, and moves the frontiers of their views:
//!
//! ```text
//! BEGIN ─► lock the views' frontier rows ─► is this process still the writer? ─► epochs above the
//!          frontier: upserts, deletes ─► move the frontier rows ─► COMMIT ─► done
//! ```
//!
//! Invariants:
//! 1. One thread owns the connection that writes. A transaction whose commit is not known to have
//!    succeeded is tried again, and the frontier row says whether it did. Therefore each epoch is
//!    applied once, whatever crashes, and readers see each epoch of a view whole.
//! 2. A process of an older generation, or one whose table was dropped and created again since, is
//!    refused with `Fence`: the frontier row holds both, and it is locked while rows are written.
//! 3. A row that the server refuses because of its values is deleted by its key and reported, and
//!    the rest of its write continues. The frontier then moves with [`Sink::advance`] only, when
//!    the report is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tidemill_ir::Epoch;
use tidemill_log::backoff::Backoff;
use tidemill_log::{Error, Kind, Result};

use super::backlog::{Backlog, Command, serve};
use super::contract::{
    Done, Frontier, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};
use super::convert::scan::stored_form;
use super::health::Reports;

mod address;
mod column;
mod frontier;
pub(super) mod probe;
mod scan;
mod statement;
mod table;
mod unfit;
mod write;

use address::Address;
use statement::Session;
use write::Writer;

/// The first and the longest pause between two attempts to commit.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// The name under which writes report on the server.
const WRITE: &str = "write";

/// A sink over one schema of a database.
pub(super) struct Postgres {
    /// The server and the schema.
    address: Arc<Address>,
    /// Bounds what is accepted and not durable.
    backlog: Arc<Backlog>,
    /// The queue of the thread that writes.
    commands: Sender<Command<Thread>>,
    /// The generation that writes; 0 before [`Sink::fence`].
    generation: Arc<AtomicU64>,
    /// Set when the sink is dropped: its retries have no other limit.
    closed: Arc<AtomicBool>,
}

/// The thread that owns the connection for writing.
struct Thread {
    /// The connection; `None` before the first statement, and after one that lost it.
    session: Option<Session>,
    /// The server and the schema.
    address: Arc<Address>,
    /// The prepared tables, and what was written to them.
    writer: Writer,
    /// The health of the server.
    reports: Reports,
    /// Set when the sink is dropped.
    closed: Arc<AtomicBool>,
}

impl Postgres {
    /// Starts the thread. It connects when it is first asked for something.
    ///
    /// # Errors
    /// `Data` when the URL is wrong; `Retry` when no thread can be started.
    pub(super) fn open(url: &str, reports: Reports) -> Result<Self> {
        let address = Arc::new(Address::parse(url)?);
        let (commands, queue) = channel();
        let generation = Arc::<AtomicU64>::default();
        let closed = Arc::<AtomicBool>::default();
        let mut thread = Thread {
            session: None,
            address: Arc::clone(&address),
            writer: Writer::new(Arc::clone(&generation)),
            reports,
            closed: Arc::clone(&closed),
        };
        thread::Builder::new()
            .name("sink-postgres".into())
            .spawn(move || serve(&mut thread, &queue, Thread::commit))
            .map_err(|e| Error::with_source(Kind::Retry, "starting the sink's thread", e))?;
        Ok(Self {
            address,
            backlog: Arc::default(),
            commands,
            generation,
            closed,
        })
    }

    /// Runs `work` on the thread with a connection, after the writes before it, and waits for its
    /// answer.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session, &mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = channel();
        let command = Command::Run(Box::new(move |thread: &mut Thread| {
            // The caller waits below. If it is gone, nobody needs the answer.
            let _ = reply.send(thread.once(work));
        }));
        let gone = || Error::new(Kind::Bug, "the thread of the PostgreSQL sink ended");
        self.commands.send(command).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Sink for Postgres {
    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        let (job, tables) = (job.to_owned(), tables.to_vec());
        self.run(move |session, writer| writer.prepare(session, job, tables))
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        let job = job.to_owned();
        self.run(move |session, _| frontier::of_job(session, &job))
    }

    fn is_there(&self, view: &str) -> Result<bool> {
        let view = view.to_owned();
        self.run(move |session, _| table::is_there(session, &view))
    }

    fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        let view = view.to_owned();
        self.run(move |session, _| table::unclaimed(session, &view))
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.run(|session, _| frontier::filled_by(session))
    }

    fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        let (job, view) = (job.to_owned(), view.to_owned());
        self.run(move |session, _| frontier::drop_view(session, &job, &view))
    }

    fn is_transactional(&self, _view: &str) -> bool {
        true
    }

    fn fence(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    fn write(&self, writes: Writes, done: Done) {
        let pending = self.backlog.admit(&writes, done);
        // If the thread has ended, the command comes back, and dropping it calls `done` with an
        // error.
        let _ = self.commands.send(Command::Write(writes, pending));
    }

    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let (job, tables) = (job.to_owned(), tables.to_vec());
        self.run(move |session, writer| writer.advance(session, &job, &tables, epoch))
    }

    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>> {
        Ok(unfit::unfit(table, rows))
    }

    fn read_back(&self) -> Result<&dyn ReadBack> {
        Ok(self)
    }
}

impl ReadBack for Postgres {
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch> {
        scan::read(&mut self.address.connect()?, table, limit)
    }

    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        let mut session = self.address.connect()?;
        match keys {
            None => scan::scan(&mut session, table, each),
            Some(keys) => scan::find(&mut session, table, keys, each),
        }
    }

    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
        stored_form(table, rows, |kind| Ok(table::pg_type(kind)?.1))
    }

    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>> {
        self.run(move |session, writer| writer.repair(session, &writes, over_newer))
    }
}

impl Thread {
    /// Runs `work` once with a connection, and reports whether the server answered.
    fn once<T>(&mut self, work: impl FnOnce(&mut Session, &mut Writer) -> Result<T>) -> Result<T> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match self.address.connect() {
                Ok(session) => session,
                Err(error) => {
                    let outcome = Err(error);
                    self.reports.note(WRITE, &outcome);
                    return outcome;
                }
            },
        };
        let outcome = work(&mut session, &mut self.writer);
        // An error that passes may have left the connection in any state.
        if outcome.as_ref().err().is_none_or(|it| !it.may_pass()) {
            self.session = Some(session);
        }
        self.reports.note(WRITE, &outcome);
        outcome
    }

    /// Commits a group of writes, and retries while the server is away, busy or refuses.
    fn commit(&mut self, group: &[Writes]) -> Vec<Result<Vec<Refused>>> {
        let mut backoff = Backoff::new(BACK_OFF_MIN, MAX_BACK_OFF);
        let mut failing = false;
        loop {
            match self.once(|session, writer| writer.commit(session, group)) {
                Ok(results) => {
                    if failing {
                        tracing::info!("the PostgreSQL sink takes writes again");
                    }
                    return results;
                }
                Err(error) if error.may_pass() && !self.closed.load(Ordering::Relaxed) => {
                    if !failing {
                        tracing::warn!("writing to the PostgreSQL sink, trying again: {error}");
                        failing = true;
                    }
                    backoff.sleep(&self.closed);
                }
                Err(error) => {
                    return group.iter().map(|_| Err(copy(&error))).collect();
                }
            }
        }
    }
}

/// The same error for another write of the group.
fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string()).refused_if(error.is_refused())
}
