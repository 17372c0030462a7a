//! The Cassandra sink: views as Cassandra tables, with the epoch as write timestamp.
//!
//! The URL is `cassandra://[user@]host:port[,host:port]/keyspace[?setting=value&…]`, with the
//! settings `password`, `ca`, `cert`, `key`, `verify`, `replication` and `consistency`.
//!
//! Input: [`Writes`]. Output: prepared statements, each with a timestamp made from the epoch, so
//! that Cassandra keeps the newest value in whatever order the statements arrive. A cluster that is
//! not available yet is awaited for `TIDEMILL_SINK_WAIT_SECONDS` (default 300). A cluster that
//! refuses the credentials is not awaited.
//!
//! Invariants:
//! 1. The timestamp of a statement is `epoch × 1000` µs and never the clock's, in tables and in the
//!    frontier table. (The timestamp of a repair is between two epochs, or just before the
//!    present.)
//! 2. At most `write::MAX_IN_FLIGHT` statements are in flight in the process.
//! 3. A key has at most one operation per epoch, as the contract says. This matters because at
//!    equal timestamps a delete would win over an insert.
//!
//! If Cassandra refuses a row because of its values, the row is deleted by its key at the same
//! timestamp and reported, and the write continues. ([`unfit`] finds most such rows before they are
//! written.) An error about the table, the rights or the cluster ends the write or is retried.
//!
//! A row is written by INSERT, so it has a row marker and exists with key columns alone. Timestamps
//! have milliseconds in Cassandra. Finer parts are cut off; in a key such a row is refused, because
//! cutting could make two rows one. Unsigned 64-bit integers are stored as bigint; larger values
//! are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tidemill_ir::Epoch;
use tidemill_log::health::now_ms;
use tidemill_log::{Error, Kind, Result, failpoint, io};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::backlog::Backlog;
use super::contract::{
    Done, Frontier, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};
use super::existing::unprepared;
use super::reports::Reports;
use super::scan::stored_form;

mod address;
mod cell;
mod connected;
mod health;
pub(super) mod probe;
mod replication;
mod retry;
mod scan;
mod table;
mod unfit;
mod write;

use address::Address;
use connected::{Connected, connect, timestamp};
use health::Health;
use table::Prepared;
use unfit::Limits;
use write::{MAX_IN_FLIGHT, write};

/// A sink over one keyspace.
pub(super) struct Cassandra {
    /// The runtime of the driver.
    runtime: Handle,
    /// Ends the writes under way when the sink is dropped: nobody who drops a sink is interested in
    /// them, and their retries have no limit.
    open: watch::Sender<()>,
    /// The session and what all statements share.
    connected: Arc<Connected>,
    /// Bounds what is accepted and not durable.
    backlog: Arc<Backlog>,
    /// The prepared tables, in the order given to `prepare`.
    tables: RwLock<Vec<Arc<Prepared>>>,
}

impl Cassandra {
    /// Connects to the cluster; `rest` is the URL without its scheme. Blocks until the cluster
    /// answers.
    ///
    /// # Errors
    /// `Data` when the URL is wrong or the cluster refuses the credentials or the certificate.
    /// `Retry` when the cluster does not answer within the waiting time.
    pub(super) fn open(rest: &str, reports: &Reports) -> Result<Self> {
        let address = Address::parse(rest)?;
        let runtime = io::runtime()?;
        if replication::is_weak(address.consistency) {
            tracing::warn!(
                "consistency {}: rows that fewer nodes than a quorum acknowledged are lost when \
                 those nodes are",
                address.consistency
            );
        }
        let (session, limits) = runtime.block_on(async {
            let session = connect(&address, reports).await?;
            let limits = Limits::ask(&session).await;
            Ok::<_, Error>((session, limits))
        })?;
        Ok(Self {
            runtime,
            open: watch::Sender::new(()),
            connected: Arc::new(Connected {
                session,
                limits,
                keyspace: address.keyspace,
                replication: address.replication,
                quorum: replication::of_quorum(address.consistency),
                in_flight: Semaphore::new(MAX_IN_FLIGHT),
                health: Health::new(reports.clone()),
            }),
            backlog: Arc::default(),
            tables: RwLock::default(),
        })
    }

    /// Runs a future on the runtime of the driver and blocks until it is done.
    fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(work)
    }

    /// The prepared table with an index; `Bug` if this process did not prepare it.
    fn table(&self, index: usize) -> Result<Arc<Prepared>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables
            .get(index)
            .map(Arc::clone)
            .ok_or_else(|| unprepared(index))
    }
}

impl Sink for Cassandra {
    fn unfit(&self, table: &Table, rows: &RecordBatch) -> Result<Vec<Unfit>> {
        Ok(self.connected.limits.unfit(table, rows))
    }

    fn prepare(&self, job: &str, tables: &[Table]) -> Result<Vec<Option<Frontier>>> {
        let (prepared, frontiers) = self.block_on(self.connected.prepare(job, tables))?;
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = prepared;
        Ok(frontiers)
    }

    fn frontiers(&self, job: &str) -> Result<BTreeMap<String, Frontier>> {
        self.block_on(self.connected.frontiers(job))
    }

    fn is_there(&self, view: &str) -> Result<bool> {
        self.block_on(self.connected.has(view))
    }

    fn unclaimed(&self, view: &str) -> Result<Unclaimed> {
        self.block_on(self.connected.unclaimed(view))
    }

    fn filled_by(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.block_on(self.connected.filled_by())
    }

    fn drop_view(&self, job: &str, view: &str) -> Result<()> {
        self.block_on(self.connected.drop_view(job, view))
    }

    fn write(&self, writes: Writes, done: Done) {
        let pending = self.backlog.admit(&writes, done);
        let table = match self.table(writes.table) {
            Ok(table) => table,
            Err(error) => return pending.finish(Err(error)),
        };
        let connected = Arc::clone(&self.connected);
        let mut dropped = self.open.subscribe();
        self.runtime.spawn(async move {
            let written = async {
                match timestamp(writes.epoch) {
                    Ok(at) => write(connected, table, writes, at).await,
                    Err(error) => Err(error),
                }
            };
            tokio::select! {
                result = written => pending.finish(result),
                _ = dropped.changed() => {}
            }
        });
    }

    fn advance(&self, job: &str, tables: &[usize], epoch: Epoch) -> Result<()> {
        let tables: Vec<_> = tables
            .iter()
            .map(|&t| self.table(t))
            .collect::<Result<_>>()?;
        let moved = self.block_on(async {
            for table in &tables {
                self.connected.advance(job, table, epoch).await?;
                failpoint::hit(failpoint::SINK_IN_ADVANCE);
            }
            Ok(())
        });
        self.connected.health.note("advance", &moved);
        moved
    }

    fn read_back(&self) -> Result<&dyn ReadBack> {
        Ok(self)
    }
}

impl ReadBack for Cassandra {
    fn read(&self, table: &Table, limit: usize) -> Result<RecordBatch> {
        self.block_on(self.connected.read(table, limit))
    }

    fn scan(
        &self,
        table: &Table,
        keys: Option<&RecordBatch>,
        each: &mut dyn FnMut(Scanned) -> Result<()>,
    ) -> Result<()> {
        match keys {
            None => self.block_on(self.connected.scan(table, each)),
            Some(keys) => self.block_on(scan::find(&self.connected, table, keys, each)),
        }
    }

    fn stored(&self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
        stored_form(table, rows, |kind| Ok(table::cql_type(kind)?.1))
    }

    fn repair(&self, writes: Writes, over_newer: bool) -> Result<Vec<Refused>> {
        let table = self.table(writes.table)?;
        // A timestamp after this epoch's, and before that of the next epoch that may be bound.
        let mut at = timestamp(writes.epoch)? + 999;
        if over_newer {
            at = at.max(timestamp(now_ms())? - 1);
        }
        self.block_on(write(Arc::clone(&self.connected), table, writes, at))
    }
}

/// Asks a cluster for its version, and waits at most `wait` for the answer.
///
/// # Errors
/// `Data` when the URL is wrong or the cluster refuses the connection; `Retry` without an answer.
pub(super) fn ask(rest: &str, wait: Duration) -> Result<String> {
    let address = Address {
        wait,
        ..Address::parse(rest)?
    };
    io::runtime()?.block_on(async {
        let session = connect(&address, &Reports::default()).await?;
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            let what = format!("Cassandra at {} cannot be asked", address.nodes.join(","));
            Error::with_source(Kind::Retry, what, e)
        };
        let asked = session.query_unpaged("SELECT release_version FROM system.local", ());
        let rows = asked.await.map_err(|e| failed(e.into()))?;
        let rows = rows.into_rows_result().map_err(|e| failed(e.into()))?;
        let (version,) = rows
            .single_row::<(String,)>()
            .map_err(|e| failed(e.into()))?;
        Ok(version)
    })
}
