//! The Cassandra sink: `cassandra://[user@]host:port[,host:port]/keyspace[?setting=value&…]`, with
//! the settings `password`, `ca`, `cert`, `key`, `verify`, `replication` and `consistency`.
//!
//! In flow [`Writes`], out flow prepared statements, each with the epoch as its timestamp, so that
//! Cassandra itself keeps the newest of whatever arrives in whatever order. A service that is not
//! there yet is awaited for `TIDEMILL_SINK_WAIT_SECONDS` (default 300); one that refuses us is not.
//!
//! Invariants: (1) a statement's timestamp is `epoch × 1000` µs and never the clock's, in tables
//! and in the frontier table alike (a repair's is between two epochs, or the present); (2) at most
//! [`write::MAX_IN_FLIGHT`] statements are in flight in the process; (3) one key has at most one
//! operation an epoch (the contract), which matters: at equal timestamps a delete would win over an
//! insert.
//!
//! A row that Cassandra refuses for its values ([`unfit`] tells most before they are written) is
//! deleted by its key, at the same timestamp, and told; its write goes on. What is about the table,
//! the rights or the cluster ends a write or is waited for.
//!
//! A row is written by INSERT, so it also has a row marker and exists with key columns alone.
//! Timestamps have milliseconds here: finer parts are cut off, and refused in a key, where cutting
//! could make two rows one. Unsigned 64-bit integers are bigint: larger values are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tidemill_log::failpoint;
use tidemill_log::health::{Health as Reports, now_ms};
use tokio::runtime::Runtime;

use super::backlog::Backlog;
use super::contract::{Done, Frontier, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes};
use super::existing::unprepared;
use super::scan::stored_form;
use crate::{Epoch, Error, Kind, Result};

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
use write::write;

/// The sink over one keyspace.
pub(super) struct Cassandra {
    /// Taken by drop alone.
    runtime: Option<Runtime>,
    connected: Arc<Connected>,
    backlog: Arc<Backlog>,
    tables: RwLock<Vec<Arc<Prepared>>>,
}

impl Cassandra {
    /// Connects; `rest` is the URL without its scheme.
    pub(super) fn open(rest: &str, reports: &Reports) -> Result<Self> {
        let address = Address::parse(rest)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("sink-cassandra")
            .enable_all()
            .build()
            .map_err(|e| Error::with_source(Kind::Retry, "starting the sink's threads", e))?;
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
            runtime: Some(runtime),
            connected: Arc::new(Connected {
                session,
                limits,
                keyspace: address.keyspace,
                replication: address.replication,
                quorum: replication::of_quorum(address.consistency),
                health: Health::new(reports.clone()),
            }),
            backlog: Arc::default(),
            tables: RwLock::default(),
        })
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(Error::new(Kind::Bug, "the sink is closed")),
        }
    }

    fn table(&self, index: usize) -> Result<Arc<Prepared>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables
            .get(index)
            .map(Arc::clone)
            .ok_or_else(|| unprepared(index))
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait: whoever drops the sink has no interest in what is under way, and may
            // be inside another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
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
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                let result = match timestamp(writes.epoch) {
                    Ok(at) => write(connected, table, writes, at).await,
                    Err(error) => Err(error),
                };
                pending.finish(result);
            });
        }
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
        // Between this epoch and the next that may be bound.
        let mut at = timestamp(writes.epoch)? + 999;
        if over_newer {
            at = at.max(timestamp(now_ms())? - 1);
        }
        self.block_on(write(Arc::clone(&self.connected), table, writes, at))
    }
}

/// Asks a cluster, within `wait`, which version it is.
pub(super) fn ask(rest: &str, wait: Duration) -> Result<String> {
    let address = Address {
        wait,
        ..Address::parse(rest)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::with_source(Kind::Retry, "starting a thread", e))?;
    runtime.block_on(async {
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
