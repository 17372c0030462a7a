//! Benchmark `freshness`: the time from a commit in PostgreSQL until the change can be read in
//! Cassandra, through capture, registry, Kafka and dataflow, under a load that does not wait for
//! them (open loop).
//!
//! Every 21st change is followed by a reader of its own until the change is visible, however many
//! others are on their way. Therefore a stall delays the samples in it and hides none (no
//! coordinated omission). In the end the view must equal the table.
//!
//! ```text
//! due ─────► commit returns ─► captured ─► Kafka ─► dataflow ─► Cassandra ─► a reader sees it
//!  └ due → committed ┘└──────────────── commit → readable ───────────────────┘
//!  └─────────────────────── due → readable ──────────────────────────────────┘
//! ```
//!
//! Values are the percentiles 50, 90, 99 and the maximum in ms, and the cores that ingest and
//! dataflow used (CPU seconds per second). The baseline is the bare Kafka round trip at the same
//! rate, right after the run ([`round_trip`]). The bars: p50 at most 100 ms, p99 at most 300 ms,
//! and no change that is not seen within [`LATEST`].

mod round_trip;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hdrhistogram::Histogram;
use postgres::{Client, NoTls};
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, channel};

use crate::harness::child::Running;
use crate::harness::load;
use crate::harness::load::{Marker, Schedule};
use crate::harness::report::{Report, Row};
use crate::harness::services::Services;
use crate::harness::view::{connect, create_keyspace};

/// Time between two reads of a reader: the resolution of the result.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// At the default rate, a row is changed again after ten seconds. A change that is not visible
/// after this time counts as this late.
const LATEST: Duration = Duration::from_secs(9);
/// Limit of changes that are followed at once.
const MARKERS_MAX: usize = 10_000;
/// Longest wait for the first rows, and for the last ones.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pipeline's `ingest.toml`.
const INGEST: &str = r#"# Capture alone: the schedule is never due while this runs.
[schedule]
cron = "0 0 1 1 *"

[fetch]
url = "http://127.0.0.1:9/"
records = "results"
page_parameter = "page"

[land]
table = "landed"
key = "id"
columns = [{ name = "id", path = "id", type = "text" }]

[capture]
tables = ["users"]

[publish]
partitions = 4
"#;

/// Flags of this benchmark.
#[derive(Debug, Args)]
pub(crate) struct FreshnessArgs {
    /// Changes committed a second
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Seconds of the same load before
    #[arg(long, default_value_t = 10)]
    warm_up: u32,
    /// Worker threads of the dataflow
    #[arg(long, default_value_t = 1)]
    dataflow_workers: usize,
}

/// Latencies in µs: since the change was due, and since its commit returned. And the number of
/// changes that were never seen.
struct Seen {
    /// From when the change was planned, so a load that falls behind shows here.
    since_due: Histogram<u64>,
    /// From when its commit returned to the writer.
    since_commit: Histogram<u64>,
    /// They count as [`LATEST`] in both histograms.
    unseen: u64,
}

/// What was created for this run alone: a database and a keyspace. Both are dropped with it.
struct Place {
    /// The name of the database, the keyspace, the slot and the pipeline.
    name: String,
    /// A connection to another database of the server, which creates and drops this one.
    admin: Client,
    /// How the writers connect.
    database: postgres::Config,
    /// How the ingest connects.
    database_url: String,
    /// Runs the readers.
    runtime: Runtime,
    /// The connection of the readers.
    session: Arc<Session>,
}

/// The processes under test.
struct River {
    /// `tidemill ingest`.
    ingest: Running,
    /// `tidemill dataflow`.
    dataflow: Running,
}

/// Runs the benchmark.
///
/// # Errors
/// A service does not answer, a process ended, or the view is not the table after [`PATIENCE`].
pub(crate) fn run(
    args: &FreshnessArgs,
    services: &Services,
    tidemill: &Path,
    work: &Path,
) -> anyhow::Result<Report> {
    let mut report = Report::new("freshness");
    let place = Place::make(services)?;
    let rows = load::prepare(&mut place.database.connect(NoTls)?)?;
    let folder = tempfile::tempdir_in(work)?;
    let mut river = place.start(args, services, tidemill, folder.path(), work)?;
    place.wait_for(&mut river, |view| view.len() as i64 == rows)?;
    let select = format!("SELECT seq FROM {}.users_now WHERE id = ?", place.name);
    let select = place.runtime.block_on(place.session.prepare(select))?;
    let (markers, receiver) = channel(MARKERS_MAX);
    let follower = place
        .runtime
        .spawn(follow(Arc::clone(&place.session), select, receiver));
    let schedule = Schedule {
        start: Instant::now() + Duration::from_millis(500),
        rate: args.rate,
        warm_up: u64::from(args.rate) * u64::from(args.warm_up),
        changes: u64::from(args.rate) * u64::from(args.warm_up + args.seconds),
    };
    let before = (river.ingest.used()?, river.dataflow.used()?);
    let lateness = load::run(schedule, &place.database, &markers)?;
    drop(markers);
    let after = (river.ingest.used()?, river.dataflow.used()?);
    let seen = place.runtime.block_on(follower)??;
    let table = table(&mut place.database.connect(NoTls)?)?;
    place.wait_for(&mut river, |view| *view == table)?;
    drop(river);
    drop(place);
    let round_trip = round_trip::run(services, args.rate)?;

    report.row(latency_row(
        "commit → readable in Cassandra",
        &seen.since_commit,
    ));
    report.row(latency_row("due → readable in Cassandra", &seen.since_due));
    report.row(latency_row("due → committed in PostgreSQL", &lateness));
    report.row(latency_row("bare Kafka round trip", &round_trip));
    let wall = after.0.wall_s - before.0.wall_s;
    let cores = |before: f64, after: f64| vec![(after - before) / wall];
    report.row(Row {
        name: "cores used".to_owned(),
        values: vec![
            ("ingest", cores(before.0.cpu_s, after.0.cpu_s)),
            ("dataflow", cores(before.1.cpu_s, after.1.cpu_s)),
        ],
    });
    let at = |quantile| seen.since_commit.value_at_quantile(quantile) as f64 / 1000.0;
    let ratio = at(0.5) / (round_trip.value_at_quantile(0.5) as f64 / 1000.0);
    report.row(Row {
        name: "commit → readable, × the Kafka round trip".to_owned(),
        values: vec![("p50", vec![ratio])],
    });
    report.at_most("p50 in ms", at(0.5), 100.0);
    report.at_most("p99 in ms", at(0.99), 300.0);
    report.at_most("changes not seen in time", seen.unseen as f64, 0.0);
    Ok(report)
}

/// The quantiles of latencies in µs, as a row of the report in ms.
pub(crate) fn latency_row(name: &str, micros: &Histogram<u64>) -> Row {
    let at = |quantile| vec![micros.value_at_quantile(quantile) as f64 / 1000.0];
    Row {
        name: name.to_owned(),
        values: vec![
            ("p50 ms", at(0.5)),
            ("p90 ms", at(0.9)),
            ("p99 ms", at(0.99)),
            ("max ms", at(1.0)),
            ("samples", vec![micros.len() as f64]),
        ],
    }
}

/// The sequence number of each row in PostgreSQL.
fn table(client: &mut Client) -> anyhow::Result<BTreeMap<i64, i64>> {
    let rows = client.query("SELECT id, seq FROM users", &[])?;
    let rows = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    rows.collect()
}

impl Place {
    /// Creates the database and the keyspace.
    fn make(services: &Services) -> anyhow::Result<Self> {
        let name = format!("bench_{}", std::process::id());
        let url = services.postgres()?;
        let mut admin = Client::connect(url, NoTls)?;
        admin.batch_execute(&format!("CREATE DATABASE {name}"))?;
        let mut database: postgres::Config = url.parse()?;
        database.dbname(&name);
        let (server, _) = url
            .rsplit_once('/')
            .context("a postgres URL ends with /DATABASE")?;
        let database_url = format!("{server}/{name}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let session = runtime.block_on(connect(services.cassandra_node()?))?;
        runtime.block_on(create_keyspace(&session, &name))?;
        Ok(Self {
            name,
            admin,
            database,
            database_url,
            runtime,
            session: Arc::new(session),
        })
    }

    /// Starts ingest and dataflow on a new pipeline.
    fn start(
        &self,
        args: &FreshnessArgs,
        services: &Services,
        tidemill: &Path,
        folder: &Path,
        logs: &Path,
    ) -> anyhow::Result<River> {
        // The pipeline's name is also the name of its slot and its job, and its topic must be new.
        let (name, pipeline) = (&self.name, folder.join(&self.name));
        std::fs::create_dir(&pipeline)?;
        let ingest = format!("{INGEST}topic_prefix = \"{name}.\"\n");
        std::fs::write(pipeline.join("ingest.toml"), ingest)?;
        let views = format!(
            "CREATE TABLE users WITH (topic = '{name}.users', format = 'avro', \
             envelope = 'debezium');\n\
             CREATE MATERIALIZED VIEW users_now WITH (primary_key = 'id') AS\n  \
             SELECT id, country, age, seq FROM users;\n\
             CREATE MATERIALIZED VIEW users_by_country WITH (primary_key = 'country') AS\n  \
             SELECT country, count(*) AS users, avg(age)::double precision AS average_age\n  \
             FROM users GROUP BY country;\n"
        );
        std::fs::write(pipeline.join("views.sql"), views)?;
        let stage = |stage: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(tidemill);
            command.arg(stage).arg(&pipeline).args(["--log", "info"]);
            command.args(["--kafka", services.kafka()?]);
            command.args(["--registry", services.registry()?]);
            Ok(command)
        };
        let mut ingest = stage("ingest")?;
        ingest.args(["--postgres", &self.database_url]);
        let mut dataflow = stage("dataflow")?;
        let keyspace = format!("{}/{name}", services.cassandra()?);
        dataflow.args([
            "--cassandra",
            &keyspace,
            "-w",
            &args.dataflow_workers.to_string(),
        ]);
        dataflow.arg("--journal").arg(folder.join("journal"));
        Ok(River {
            ingest: Running::start(&mut ingest, &logs.join("ingest.log"))?,
            dataflow: Running::start(&mut dataflow, &logs.join("dataflow.log"))?,
        })
    }

    /// Waits until the view, a sequence number by row id, satisfies `as_it_must_be`.
    ///
    /// # Errors
    /// A process ended, or the view is another one after [`PATIENCE`].
    fn wait_for(
        &self,
        river: &mut River,
        as_it_must_be: impl Fn(&BTreeMap<i64, i64>) -> bool,
    ) -> anyhow::Result<()> {
        let by = Instant::now() + PATIENCE;
        loop {
            // The table does not exist before the dataflow has created it.
            let view = self.runtime.block_on(self.view()).unwrap_or_default();
            if as_it_must_be(&view) {
                return Ok(());
            }
            river.ingest.check_alive()?;
            river.dataflow.check_alive()?;
            if Instant::now() > by {
                bail!(
                    "the view has {} rows and is not what the table is",
                    view.len()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The sequence number of each row in the view.
    async fn view(&self) -> anyhow::Result<BTreeMap<i64, i64>> {
        let select = format!("SELECT id, seq FROM {}.users_now", self.name);
        let result = self.session.query_unpaged(select, ()).await?;
        let rows = result.into_rows_result()?;
        Ok(rows.rows::<(i64, i64)>()?.collect::<Result<_, _>>()?)
    }
}

/// A slot that is left behind would keep the server's WAL, so slots are dropped first.
impl Drop for Place {
    fn drop(&mut self) {
        let keyspace = format!("DROP KEYSPACE IF EXISTS {}", self.name);
        let _ = self
            .runtime
            .block_on(self.session.query_unpaged(keyspace, ()));
        let name = &self.name;
        let slots = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE database = '{name}' AND NOT active"
        );
        let _ = self.admin.batch_execute(&slots);
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        if let Err(error) = self.admin.batch_execute(&drop) {
            eprintln!("database {name} is left behind: {error}");
        }
    }
}

/// Follows every change with a task of its own.
///
/// It ends when the writers are done and every change was seen or given up.
async fn follow(
    session: Arc<Session>,
    select: PreparedStatement,
    mut markers: Receiver<Marker>,
) -> anyhow::Result<Seen> {
    let seen = Arc::new(Mutex::new(Seen {
        since_due: load::latencies()?,
        since_commit: load::latencies()?,
        unseen: 0,
    }));
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(marker) = markers.recv().await {
        let (session, select, seen) = (Arc::clone(&session), select.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            let visible = await_one(&session, &select, marker).await?;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if visible.is_none() {
                seen.unseen += 1;
            }
            let visible = visible.unwrap_or(marker.committed + LATEST);
            let micros = |since: Instant| (visible - since).as_micros() as u64;
            seen.since_due.saturating_record(micros(marker.due));
            seen.since_commit
                .saturating_record(micros(marker.committed));
            Ok::<(), anyhow::Error>(())
        });
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let seen = Arc::into_inner(seen).context("a task still follows")?;
    Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// When a read that saw the change had returned; `None` after [`LATEST`].
///
/// A change that deletes is visible when its row is gone. A later change of the row counts as this
/// one.
async fn await_one(
    session: &Session,
    select: &PreparedStatement,
    marker: Marker,
) -> anyhow::Result<Option<Instant>> {
    loop {
        let result = session.execute_unpaged(select, (marker.id,)).await?;
        let now = Instant::now();
        let row = result.into_rows_result()?.maybe_first_row::<(i64,)>()?;
        let visible = match row {
            Some((seq,)) => seq >= marker.seq,
            None => marker.deletes,
        };
        if visible {
            return Ok(Some(now));
        }
        if now > marker.committed + LATEST {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
