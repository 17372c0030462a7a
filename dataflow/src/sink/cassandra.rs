//! The Cassandra sink: `cassandra://[user@]host:port[,host:port]/keyspace[?setting=value&…]`, with
//! the settings `password`, `ca`, `cert`, `key`, `verify`, `replication` and `consistency`.
//!
//! In flow [`Writes`], out flow prepared statements, each with the epoch as its timestamp, so that
//! Cassandra itself keeps the newest of whatever arrives in whatever order. A service that is not
//! there yet is awaited for `TIDEMILL_SINK_WAIT_SECONDS` (default 300); one that refuses us is not.
//!
//! Invariants: (1) a statement's timestamp is `epoch × 1000` µs and never the clock's, in tables
//! and in the frontier table alike (a repair's is between two epochs, or the present); (2) at most
//! [`MAX_IN_FLIGHT`] statements are in flight in the process; (3) one key has at most one operation
//! an epoch (the contract), which matters: at equal timestamps a delete would win over an insert.
//!
//! A row that Cassandra refuses for its values ([`unfit`] tells most before they are written) is
//! deleted by its key, at the same timestamp, and told; its write goes on. What is about the table,
//! the rights or the cluster ends a write or is waited for.
//!
//! A row is written by INSERT, so it also has a row marker and exists with key columns alone.
//! Timestamps have milliseconds here: finer parts are cut off, and refused in a key, where cutting
//! could make two rows one. Unsigned 64-bit integers are bigint: larger values are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use tidemill_log::failpoint;
use tidemill_log::health::{Health as Reports, Role};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::backlog::Backlog;
use super::scan::{Scanned, stored_form};
use super::{Done, Frontier, Refused, Sink, Table, Unclaimed, Unfit, Writes, convert, unprepared};
use crate::time::binder::now_ms;
use crate::{Epoch, Error, Kind, Result};

mod address;
mod cell;
pub(super) mod probe;
mod replication;
mod retry;
mod scan;
mod table;
mod unfit;

use address::{Address, refusal};
use cell::{Cells, Delete, Upsert};
use replication::Replication;
use retry::{Health, failed, of_values};
use table::Prepared;
use unfit::Limits;

/// Who reports on the cluster.
const WRITE: &str = "write";
/// Statements in flight in one process.
const MAX_IN_FLIGHT: usize = 512;
/// Statements in flight of one write.
const MAX_LANES: usize = 256;
/// How long one attempt of a statement may take.
const ATTEMPT: Duration = Duration::from_secs(12);
/// How long one node may take for it before another one is asked as well: one that stands still
/// keeps its connections. Every statement may be executed twice.
const ASK_ANOTHER: Duration = Duration::from_secs(2);
/// How many others are asked.
const OTHERS_MAX: usize = 1;

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);

/// The sink over one keyspace.
pub(super) struct Cassandra {
    /// Taken by drop alone.
    runtime: Option<Runtime>,
    connected: Arc<Connected>,
    backlog: Arc<Backlog>,
    tables: RwLock<Vec<Arc<Prepared>>>,
}

/// What the writing tasks share.
struct Connected {
    session: Session,
    keyspace: String,
    /// What the user wants the keyspace to have.
    replication: Option<Replication>,
    /// The level at which frontiers are written and everything is read.
    quorum: Consistency,
    health: Health,
    limits: Limits,
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

/// Connects, waiting for a service that is not there yet.
async fn connect(address: &Address, reports: &Reports) -> Result<Session> {
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(ATTEMPT))
        .consistency(address.consistency)
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: OTHERS_MAX,
            retry_interval: ASK_ANOTHER,
        })))
        .build();
    let tls = address.tls()?;
    let give_up = Instant::now() + address.wait;
    let mut back_off = Duration::from_millis(250);
    let mut warned = false;
    loop {
        let mut builder = SessionBuilder::new()
            .known_nodes(&address.nodes)
            .default_execution_profile_handle(profile.clone().into_handle())
            .pool_size(PoolSize::PerShard(std::num::NonZeroUsize::MIN))
            .fetch_full_schema_metadata(false)
            .keyspaces_to_fetch([address.keyspace.clone()])
            .tls_context(tls.clone())
            .connection_timeout(Duration::from_secs(5));
        if let Some((user, password)) = &address.credentials {
            builder = builder.user(user, password);
        }
        let error = match builder.build().await {
            Ok(session) => {
                reports.up(Role::Views, WRITE);
                return Ok(session);
            }
            Err(error) => error,
        };
        let nodes = address.nodes.join(",");
        if let Some(why) = refusal(&error) {
            let what = format!("Cassandra at {nodes}: {why}");
            return Err(Error::with_source(Kind::Data, what, error));
        }
        if Instant::now() + back_off >= give_up {
            let waited = address.wait.as_secs();
            let what = format!("Cassandra at {nodes} did not answer within {waited} s: {error}");
            return Err(Error::with_source(Kind::Retry, what, error));
        }
        reports.down(Role::Views, WRITE, &error);
        if !warned {
            tracing::warn!("waiting for Cassandra at {nodes}: {error}");
            warned = true;
        }
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(Duration::from_secs(5));
    }
}

/// One write under way: its rows as cells, taken one by one by the lanes.
struct Work {
    connected: Arc<Connected>,
    table: Arc<Prepared>,
    insert: PreparedStatement,
    delete: PreparedStatement,
    upserts: Vec<Cells>,
    /// The same rows, for those that are refused.
    rows_to_upsert: RecordBatch,
    /// The columns each upsert replaces; none for a key column.
    replaced: Vec<Option<arrow::array::ArrayRef>>,
    deletes: Vec<Cells>,
    refused: Mutex<Vec<Refused>>,
    rows: usize,
    next: AtomicUsize,
}

impl Work {
    /// `at` is the timestamp of its statements.
    fn new(
        connected: Arc<Connected>,
        table: Arc<Prepared>,
        writes: &Writes,
        at: i64,
    ) -> Result<Self> {
        let definition = &table.table;
        writes.check(definition)?;
        let stamped = |statement: &PreparedStatement| {
            let mut statement = statement.clone();
            statement.set_timestamp(Some(at));
            statement
        };
        let all: Vec<usize> = (0..definition.schema.fields().len()).collect();
        let key = &definition.primary_key;
        let replaced = all
            .iter()
            .map(|i| (!key.contains(i)).then(|| Arc::clone(writes.replaced.column(*i))))
            .collect();
        Ok(Self {
            connected,
            insert: stamped(&table.insert),
            delete: stamped(&table.delete),
            upserts: cells(definition, &writes.upserts, &all)?,
            replaced,
            deletes: cells(definition, &writes.deletes, key)?,
            rows_to_upsert: writes.upserts.clone(),
            refused: Mutex::default(),
            rows: writes.rows(),
            next: AtomicUsize::new(0),
            table,
        })
    }

    /// Writes rows until none is left.
    async fn lane(self: Arc<Self>) -> Result<()> {
        let upserts = self.rows_to_upsert.num_rows();
        loop {
            let row = self.next.fetch_add(1, Ordering::Relaxed);
            if row >= self.rows {
                return Ok(());
            }
            let _permit = IN_FLIGHT
                .acquire()
                .await
                .map_err(|e| Error::with_source(Kind::Bug, "the statement limit is closed", e))?;
            match row.checked_sub(upserts) {
                None => self.upsert(row).await?,
                Some(row) => drop(self.delete(&self.deletes, row).await?),
            }
            failpoint::hit(failpoint::SINK_BETWEEN_ROWS);
        }
    }

    /// Writes a row; when Cassandra refuses its values, deletes what is there of its key.
    async fn upsert(&self, row: usize) -> Result<()> {
        let values = Upsert {
            cells: &self.upserts,
            replaced: &self.replaced,
            row,
        };
        let Some(reason) = self.refusal(&self.insert, &values).await? else {
            return Ok(());
        };
        let definition = &self.table.table;
        let keys = cells(definition, &self.rows_to_upsert, &definition.primary_key)?;
        // A key that is refused itself has no row.
        self.delete(&keys, row).await?;
        let refused = Refused::new(&self.rows_to_upsert, row, reason);
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(refused);
        Ok(())
    }

    async fn delete(&self, cells: &[Cells], row: usize) -> Result<Option<String>> {
        let values = Delete { cells, row };
        self.refusal(&self.delete, &values).await
    }

    /// Executes a statement; why Cassandra refuses its values, if it does. An error when it is the
    /// statement that is refused, as when the table is gone.
    async fn refusal(
        &self,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<Option<String>> {
        let name = &self.table.table.name;
        let executed = self.connected.attempt(name, statement, values).await;
        let Err(error) = executed else {
            return Ok(None);
        };
        let refused = of_values(&error);
        if refused.is_some() {
            // Also when the node that refused the row knew another table than there is now.
            let still = self.connected.prepared(statement.get_statement()).await;
            still.map_err(|again| {
                let what = format!("writing to table `{name}`: {error}; {again}");
                Error::with_source(again.kind(), what, again)
            })?;
            return Ok(refused);
        }
        Err(failed(&format!("writing to table `{name}`"), error))
    }
}

async fn write(
    connected: Arc<Connected>,
    table: Arc<Prepared>,
    writes: Writes,
    at: i64,
) -> Result<Vec<Refused>> {
    let work = Arc::new(Work::new(connected, table, &writes, at)?);
    drop(writes);
    let mut lanes = JoinSet::new();
    for _ in 0..work.rows.min(MAX_LANES) {
        lanes.spawn(Arc::clone(&work).lane());
    }
    while let Some(lane) = lanes.join_next().await {
        // The first error ends the write; the other lanes end with the set.
        lane.map_err(|e| Error::with_source(Kind::Bug, "a writing task ended", e))??;
    }
    let mut refused = work.refused.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *refused))
}

/// The given columns in the forms that CQL takes.
fn cells(table: &Table, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<Cells>> {
    let mut cells = Vec::with_capacity(columns.len());
    for &i in columns {
        let field = table.schema.field(i);
        let (_, stored) = table::cql_type(field.data_type())?;
        let array = convert(&table.name, field.name(), rows.column(i), &stored)?;
        if table.primary_key.contains(&i) {
            let back = convert(
                &table.name,
                field.name(),
                &array,
                rows.column(i).data_type(),
            )?;
            if &back != rows.column(i) {
                let what = format!(
                    "table `{}`, key column `{}`: a timestamp is finer than Cassandra's \
                     milliseconds; use date_trunc('millisecond', …) in the view",
                    table.name,
                    field.name()
                );
                return Err(Error::new(Kind::Data, what));
            }
        }
        cells.push(Cells::new(&array)?);
    }
    Ok(cells)
}

/// The timestamp of an epoch's statements, in microseconds.
fn timestamp(epoch: Epoch) -> Result<i64> {
    epoch
        .checked_mul(1000)
        .and_then(|t| i64::try_from(t).ok())
        .ok_or_else(|| Error::new(Kind::Bug, format!("epoch {epoch} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_not_there_is_awaited_and_then_named() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap()
            .port();
        let address = Address {
            nodes: vec![format!("127.0.0.1:{port}")],
            keyspace: "views".into(),
            credentials: None,
            tls: None,
            replication: None,
            consistency: Consistency::LocalQuorum,
            wait: Duration::from_millis(800),
        };
        let begun = Instant::now();
        let error = Runtime::new()
            .unwrap()
            .block_on(connect(&address, &Reports::default()))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Retry, "{error}");
        assert!(error.to_string().contains(&address.nodes[0]), "{error}");
        // It waited at least once before it gave up.
        assert!(begun.elapsed() >= Duration::from_millis(250));
    }
}
