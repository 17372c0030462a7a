//! Benchmark `recovery`: a job with a large state is killed and started again, compared with the
//! same job reading its topic from the beginning. Also the cost of checkpoints while nothing fails.
//!
//! The topic contains a history: every group changes several times, as in every topic that is much
//! older than its state is large.
//!
//! ```text
//! read without checkpoints ─► read with checkpoints every 10 s ─► checkpoint (size)
//!   ─► 1 % of the groups change ─► checkpoint (written)
//!   ─► SIGKILL ─► one record ─► start ─► counted
//! ```
//!
//! | value | unit | bar |
//! |---|---|---|
//! | recovery: from the start until a new record is seen | s | 10 s, 5 × faster than reading |
//! | reading with checkpoints | s | 0.95 of the speed without |
//! | what a checkpoint writes after 1 % of the groups changed | MB (10^6) | 3 % of the state |

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rusqlite::{Connection, OpenFlags};
use tidemill_log::log;

use crate::harness::child::Running;
use crate::harness::report::{Report, Row};
use crate::harness::services::Services;
use crate::harness::topic::{PARTITIONS, send};

/// Timeout of one step.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two checks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// One of so many groups changes between the two checkpoints.
const CHANGED: u64 = 100;

/// Flags of this benchmark.
#[derive(Debug, Args)]
pub(crate) struct RecoveryArgs {
    /// Groups of state
    #[arg(long, default_value_t = 5_000_000)]
    groups: u64,
    /// Records in the topic for each group
    #[arg(long, default_value_t = 4)]
    history: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// A step takes longer than [`PATIENCE`], or the job ends.
pub(crate) fn run(
    args: &RecoveryArgs,
    services: &Services,
    tidemill: &Path,
    work: &Path,
) -> anyhow::Result<Report> {
    let mut report = Report::new("recovery");
    let history = History::fill(args, services)?;
    let without = Job::new(tidemill, services, work, &history, "1h")?;
    let mut running = without.start()?;
    let read = without.until(&mut running, history.records)?;
    drop(running);
    eprintln!("read without checkpoints in {read:.1} s");
    let job = Job::new(tidemill, services, work, &history, "10s")?;
    let mut running = job.start()?;
    let with = job.until(&mut running, history.records)?;
    eprintln!("read with checkpoints in {with:.1} s");
    let state = job.checkpoint(&mut running, history.records)?;
    let changed = args.groups / CHANGED;
    history.append((0..changed).map(|group| group * CHANGED))?;
    job.until(&mut running, history.records + changed)?;
    let after = job.checkpoint(&mut running, history.records + changed)?;
    running.child.kill()?;
    running.child.wait()?;
    history.append(std::iter::once(0))?;
    let mut running = job.start()?;
    let recovered = job.until(&mut running, history.records + changed + 1)?;
    let one = |name: &str, values: &[(&'static str, f64)]| Row {
        name: name.to_owned(),
        values: values
            .iter()
            .map(|(name, value)| (*name, vec![*value]))
            .collect(),
    };
    report.row(one("reading the topic", &[("wall s", read)]));
    report.row(one("the same with checkpoints", &[("wall s", with)]));
    report.row(one("killed and started again", &[("wall s", recovered)]));
    let mb = |bytes: u64| bytes as f64 / 1_000_000.0;
    let sizes = [("MB", mb(state.bytes)), ("entries", state.entries as f64)];
    report.row(one("state", &sizes));
    report.row(one(
        "after 1 % of the groups changed",
        &[("MB", mb(after.written))],
    ));
    report.at_most("start to the first new epoch, s", recovered, 10.0);
    report.at_least(
        "speed of recovery, × reading the topic",
        read / recovered,
        5.0,
    );
    report.at_least("speed with checkpoints, × without", read / with, 0.95);
    let share = after.written as f64 / state.bytes as f64;
    report.at_most("written after 1 % changed, share of the state", share, 0.03);
    Ok(report)
}

/// The topic and its producer.
///
/// Record `i` belongs to group `i mod groups`, so each group occurs `history` times, far apart.
struct History {
    /// The topic.
    name: String,
    /// Records before anything is appended.
    records: u64,
    /// Also appends the records that come later.
    producer: BaseProducer,
}

impl History {
    /// Creates and fills the topic.
    fn fill(args: &RecoveryArgs, services: &Services) -> anyhow::Result<Self> {
        let records = args.groups * args.history;
        let name = format!("bench_history_{}_{}", args.groups, std::process::id());
        log::open(services.kafka()?)?.create_topic(&name, PARTITIONS)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", services.brokers()?)
            .set("compression.type", "none")
            .set("linger.ms", "20")
            .set("batch.size", "524288")
            .create()?;
        let history = Self {
            name,
            records,
            producer,
        };
        eprintln!("filling {} with {records} records", history.name);
        history.append((0..records).map(|index| index % args.groups))?;
        Ok(history)
    }

    /// Appends one record for each of these groups.
    fn append(&self, groups: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        for group in groups {
            let value = format!(r#"{{"id": {group}, "n": {}}}"#, group % 1000);
            let partition = (group % u64::from(PARTITIONS)) as i32;
            let record = BaseRecord::<[u8], [u8]>::to(&self.name);
            send(
                &self.producer,
                record.partition(partition).payload(value.as_bytes()),
            )?;
        }
        Ok(self.producer.flush(PATIENCE)?)
    }
}

/// A job that reads the topic, with its folder.
struct Job<'a> {
    /// The binary under test.
    tidemill: &'a Path,
    /// Kafka's URL.
    kafka: &'a str,
    /// The folder of the pipeline, the state and the views.
    folder: tempfile::TempDir,
    /// The file for the job's log.
    log: PathBuf,
    /// The interval of checkpoints, as the flag takes it.
    every: &'static str,
}

/// The size of a checkpoint.
struct Size {
    /// Bytes of all its parts.
    bytes: u64,
    /// Bytes of the parts that this checkpoint wrote.
    written: u64,
    /// Entries of all its parts: one for each group and operator.
    entries: u64,
}

impl<'a> Job<'a> {
    /// Writes the pipeline. `every` is the checkpoint interval.
    fn new(
        tidemill: &'a Path,
        services: &'a Services,
        work: &Path,
        history: &History,
        every: &'static str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(work)?;
        let pipeline = folder.path().join("bench");
        std::fs::create_dir(&pipeline)?;
        let sql = format!(
            "CREATE TABLE events (id BIGINT, n BIGINT) WITH (topic = '{}', format = 'json', \
             envelope = 'append');\n\
             CREATE MATERIALIZED VIEW groups AS\n  \
             SELECT id, count(*) AS events, sum(n) AS total FROM events GROUP BY id;\n\
             CREATE MATERIALIZED VIEW sizes WITH (primary_key = 'events') AS\n  \
             SELECT events, count(*) AS groups FROM groups GROUP BY events;\n",
            history.name
        );
        std::fs::write(pipeline.join("views.sql"), sql)?;
        Ok(Self {
            tidemill,
            kafka: services.kafka()?,
            folder,
            log: work.join("tidemill.log"),
            every,
        })
    }

    /// Starts the job.
    fn start(&self) -> anyhow::Result<Running> {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(self.tidemill);
        command.arg("dataflow").arg(at("bench"));
        command.args(["-w", "2", "--log", "info", "--kafka", self.kafka]);
        command.args(["--checkpoint-every", self.every]);
        command.arg("--data").arg(at("views.sqlite"));
        command.arg("--state").arg(at("state"));
        Running::start(&mut command, &self.log)
    }

    /// Seconds from the job's start until this number of records is counted in the view.
    ///
    /// The view sums up the counts of all groups, so it is right only if no group is lost.
    fn until(&self, running: &mut Running, records: u64) -> anyhow::Result<f64> {
        let by = Instant::now() + PATIENCE;
        let file = self.folder.path().join("views.sqlite");
        let mut open = None;
        loop {
            let counted = counted(&file, &mut open).unwrap_or(0);
            if counted >= records {
                return Ok(running.used()?.wall_s);
            }
            running.check_alive()?;
            if Instant::now() > by {
                bail!("{counted} of {records} records counted in {PATIENCE:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for a checkpoint that contains this number of records.
    fn checkpoint(&self, running: &mut Running, records: u64) -> anyhow::Result<Size> {
        let by = Instant::now() + PATIENCE;
        let folder = self.folder.path().join("state/bench/checkpoint");
        loop {
            if let Some(size) = complete(&folder, records)? {
                return Ok(size);
            }
            running.check_alive()?;
            if Instant::now() > by {
                bail!("no checkpoint with {records} records in {PATIENCE:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The number of records that the view counts.
fn counted(file: &Path, open: &mut Option<Connection>) -> anyhow::Result<u64> {
    if open.is_none() {
        *open = Some(Connection::open_with_flags(
            file,
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?);
    }
    let connection = open.as_ref().context("just opened")?;
    let sum = "SELECT coalesce(sum(events * groups), 0) FROM sizes";
    let sum: i64 = connection.query_row(sum, [], |row| row.get(0))?;
    Ok(u64::try_from(sum)?)
}

/// The newest checkpoint, if it is complete and contains this number of records.
///
/// The manifest is the last file of a checkpoint. Its first line is a checksum, and the rest is
/// JSON with the ends of the topics and the parts. A part whose name has the epoch was written by
/// this checkpoint, and the others were kept from earlier ones.
fn complete(folder: &Path, records: u64) -> anyhow::Result<Option<Size>> {
    let mut epochs: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<_>>()?,
        Err(_) => return Ok(None),
    };
    epochs.sort();
    let Some(newest) = epochs.pop() else {
        return Ok(None);
    };
    let Ok(text) = std::fs::read_to_string(newest.join("manifest")) else {
        return Ok(None); // it is being written
    };
    let (_, json) = text.split_once('\n').context("a manifest's checksum")?;
    let manifest: serde_json::Value = serde_json::from_str(json)?;
    let ends = manifest["ends"].as_object().into_iter().flatten();
    let ends = ends.filter(|(topic, _)| !topic.contains('@'));
    let ends = ends.filter_map(|(_, ends)| ends.as_object());
    let read: u64 = ends
        .flat_map(|ends| ends.values())
        .filter_map(|end| end.as_u64())
        .sum();
    if read < records {
        return Ok(None);
    }
    let epoch = newest
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut size = Size {
        bytes: 0,
        written: 0,
        entries: 0,
    };
    let runs = manifest["sites"].as_object().into_iter().flatten();
    let runs = runs
        .filter_map(|(_, site)| site["runs"].as_array())
        .flatten();
    for part in runs.filter_map(|run| run["parts"].as_array()).flatten() {
        let bytes = part["bytes"].as_u64().unwrap_or(0);
        size.bytes += bytes;
        size.entries += part["entries"].as_u64().unwrap_or(0);
        if part["name"]
            .as_str()
            .is_some_and(|name| name.contains(&epoch))
        {
            size.written += bytes;
        }
    }
    Ok(Some(size))
}
