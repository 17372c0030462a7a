//! Benchmarks `json` and `avro`: users counted by country from a full topic, compared with a loop
//! on librdkafka that does the same by hand (json) or only polls (avro).
//!
//! The contestants alternate, and each run is a process of its own. The clock of a run stops when
//! its counts are complete. Then the counts are checked to be exact.
//!
//! | value | unit | of ours | of the baseline |
//! |---|---|---|---|
//! | `records/CPU-s` | records for each second of CPU time | all processes | its process |
//! | `wall s` | seconds from the process's start | until the view is complete | until its line |
//! | `CPU s` | seconds | the same | the same |
//! | `peak MB` | MiB, `VmHWM` of the kernel | the sum | the same |
//!
//! The view is looked at every [`LOOK_EVERY`], which is the resolution of our wall time. Topics
//! have 8 partitions, and users are generated ([`users`]).
//!
//! ```text
//! round 1: baseline, ours -w 1, baseline, ours -w 2      the bars compare
//! round 2: baseline, ours -w 1, baseline, ours -w 2      the medians over
//! round 3: …                                             all rounds
//! ```

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::baseline::{Answer, Kind};
use crate::exchange;
use crate::harness::child::{Running, Used};
use crate::harness::report::{Report, Row};
use crate::harness::services::Services;
use crate::harness::topic::Format;
use crate::harness::users::{COLUMNS, Totals};
use crate::harness::view::View;
use crate::harness::{topic, users, view};

/// Timeout of one run.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two reads of the view.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Flags of these two benchmarks.
#[derive(Debug, Args)]
pub(crate) struct AggregateArgs {
    /// Users in the topic
    #[arg(long, default_value_t = 2_000_000)]
    pub(crate) records: u64,
    /// Times that each contestant runs
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Worker threads of ours, one contestant for each number
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Where our views go
    #[arg(long, value_enum, default_value = "sqlite")]
    sink: SinkKind,
}

/// Where our views go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SinkKind {
    /// A file in the folder of the run.
    Sqlite,
    /// A keyspace of its own, which is dropped afterwards.
    Cassandra,
}

/// The processes and worker threads of a Tidemill job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Processes of the job, on this machine.
    pub(crate) processes: usize,
    /// Worker threads in each process.
    pub(crate) workers: usize,
}

impl Shape {
    /// The contestant's name in the report.
    pub(crate) fn name(self) -> String {
        match self.processes {
            1 => format!("tidemill -w {}", self.workers),
            processes => format!("tidemill -n {processes} -w {}", self.workers),
        }
    }
}

/// One benchmark, ready to run.
pub(crate) struct Race<'a> {
    /// How many records, rounds and workers.
    args: &'a AggregateArgs,
    /// The services' URLs.
    services: &'a Services,
    /// The binary under test.
    tidemill: &'a Path,
    /// The folder for logs and for the folders of the runs.
    work: &'a Path,
    /// The format of the records in the topic.
    format: Format,
    /// The topic, which is filled already.
    topic: String,
    /// The right answer, from the generator.
    totals: Totals,
}

/// Runs the benchmark with records of this format.
///
/// # Errors
///
/// A contestant ended early, was too slow, or counted wrong.
pub(crate) fn run(
    args: &AggregateArgs,
    services: &Services,
    tidemill: &Path,
    work: &Path,
    format: Format,
) -> anyhow::Result<Report> {
    let race = Race::prepare(args, services, tidemill, work, format)?;
    let mut report = Report::new(format.name());
    let (name, baseline) = match format {
        Format::Json => ("hand-written loop", Kind::Loop),
        Format::Avro => ("poll only", Kind::Poll),
    };
    let mut baselines = Vec::new();
    let mut ours = vec![Vec::new(); args.workers.len()];
    for _ in 0..args.rounds {
        for (workers, runs) in args.workers.iter().zip(&mut ours) {
            let used = race.baseline(baseline).context(name)?;
            progress(name, used);
            baselines.push(used);
            let shape = Shape {
                processes: 1,
                workers: *workers,
            };
            let name = shape.name();
            let used = race.ours(shape).with_context(|| name.clone())?;
            progress(&name, used);
            runs.push(used);
        }
    }
    let base = row(name, args.records, &baselines);
    for (workers, runs) in args.workers.iter().zip(&ours) {
        let row = row(&format!("tidemill -w {workers}"), args.records, runs);
        compare(&mut report, format, *workers, &base, &row);
        report.row(row);
    }
    report.row(base);
    Ok(report)
}

/// Prints the result of one run.
pub(crate) fn progress(name: &str, used: Used) {
    let Used { wall_s, cpu_s, .. } = used;
    eprintln!("{name:<20} wall {wall_s:.2} s, CPU {cpu_s:.2} s");
}

/// All runs of a contestant as a row of the report.
pub(crate) fn row(name: &str, records: u64, runs: &[Used]) -> Row {
    let each = |value: fn(&Used) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
    let rates = runs.iter().map(|used| records as f64 / used.cpu_s);
    Row {
        name: name.to_owned(),
        values: vec![
            ("records/CPU-s", rates.collect()),
            ("wall s", each(|used| used.wall_s)),
            ("CPU s", each(|used| used.cpu_s)),
            ("peak MB", each(|used| used.peak_mb)),
        ],
    }
}

/// Adds the bars that hold Tidemill against the baseline.
///
/// The bars: 0.8 of the loop's records per CPU-second for JSON, 0.7 of the poll's for Avro, and
/// with two workers at least the loop's speed in wall time.
fn compare(report: &mut Report, format: Format, workers: usize, base: &Row, ours: &Row) {
    let rate = ours.median("records/CPU-s") / base.median("records/CPU-s");
    let wall = base.median("wall s") / ours.median("wall s");
    let (name, bar) = match format {
        Format::Json => ("the loop", 0.8),
        Format::Avro => ("the poll", 0.7),
    };
    let what = format!("-w {workers}: records per CPU-second, × {name}");
    report.at_least(&what, rate, bar);
    if format == Format::Json && workers == 2 {
        let what = format!("-w {workers}: speed in wall time, × {name}");
        report.at_least(&what, wall, 1.0);
    }
}

impl<'a> Race<'a> {
    /// Fills the topic, unless it is already there.
    pub(crate) fn prepare(
        args: &'a AggregateArgs,
        services: &'a Services,
        tidemill: &'a Path,
        work: &'a Path,
        format: Format,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            args,
            services,
            tidemill,
            work,
            format,
            topic: topic::filled(services, format, args.records)?,
            totals: users::totals(args.records),
        })
    }

    /// Runs a baseline once and checks its answer.
    ///
    /// The line of the baseline says that it is done. CPU time is read right after that, while the
    /// process waits on its stdin.
    ///
    /// # Errors
    /// The baseline ended early, or its records or counts are wrong.
    fn baseline(&self, kind: Kind) -> anyhow::Result<Used> {
        let name = kind.to_possible_value().context("a kind has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["baseline", name.get_name(), &self.topic])
            .arg(self.services.brokers()?)
            .stdout(Stdio::piped());
        let mut running = Running::start(&mut command, &self.work.join("baseline.log"))?;
        let line = running.line()?;
        let used = running.used()?;
        let answer: Answer = serde_json::from_str(&line)?;
        if answer.records != self.args.records {
            bail!("{} records read of {}", answer.records, self.args.records);
        }
        if kind == Kind::Loop && answer.totals != self.totals {
            bail!("the counts are wrong: {:?}", answer.totals);
        }
        Ok(used)
    }

    /// Runs Tidemill once: from the start of its processes until their view is complete.
    ///
    /// Journal and view begin empty in each run, so planning, the creation of the table and the
    /// last commit are inside the measured time.
    ///
    /// # Errors
    /// A process ended, the view is not complete after [`PATIENCE`], or its rows are not exactly
    /// the generator's.
    pub(crate) fn ours(&self, shape: Shape) -> anyhow::Result<Used> {
        let folder = tempfile::tempdir_in(self.work)?;
        let at = |name: &str| folder.path().join(name);
        let pipeline = at("bench");
        std::fs::create_dir(&pipeline)?;
        std::fs::write(pipeline.join("views.sql"), self.views())?;
        let keyspace = format!("bench_{}", std::process::id());
        let mut view = match self.args.sink {
            SinkKind::Sqlite => View::sqlite(&at("views.sqlite")),
            SinkKind::Cassandra => View::cassandra(self.services, &keyspace)?,
        };
        let addresses = exchange::addresses(shape.processes)?;
        let mut processes = Vec::new();
        for index in 0..shape.processes {
            let mut command = Command::new(self.tidemill);
            command.arg("dataflow").arg(&pipeline);
            command.args(["-w", &shape.workers.to_string(), "--log", "warn"]);
            if shape.processes > 1 {
                command.args(["-p", &index.to_string(), "--hosts", &addresses]);
            }
            command.args(["--kafka", self.services.kafka()?]);
            if self.format == Format::Avro {
                command.args(["--registry", self.services.registry()?]);
            }
            command.arg("--data").arg(at("views.sqlite"));
            command.arg("--journal").arg(at("journal"));
            if self.args.sink == SinkKind::Cassandra {
                let url = format!("{}/{keyspace}", self.services.cassandra()?);
                command.args(["--cassandra", &url]);
            }
            let log = self.work.join(format!("tidemill-{index}.log"));
            processes.push(Running::start(&mut command, &log)?);
        }
        let by = Instant::now() + PATIENCE;
        loop {
            let rows = view.rows();
            let counted = view::counted(&rows);
            if counted >= self.args.records {
                let used: Vec<Used> = processes
                    .iter()
                    .map(Running::used)
                    .collect::<Result<_, _>>()?;
                view::check(&rows, &self.totals)?;
                return used.into_iter().reduce(Used::and).context("no process");
            }
            for running in &mut processes {
                running.check_alive()?;
            }
            if Instant::now() > by {
                let (records, patience) = (self.args.records, PATIENCE.as_secs());
                bail!("{counted} of {records} users counted in {patience} s");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The SQL of the benchmark's view.
    fn views(&self) -> String {
        let (topic, format) = (&self.topic, self.format.name());
        // The columns of Avro come from the registry.
        let columns = match self.format {
            Format::Json => format!("({COLUMNS}) "),
            Format::Avro => String::new(),
        };
        format!(
            "CREATE TABLE users {columns}WITH (topic = '{topic}', format = '{format}', \
             envelope = 'append');\n\
             CREATE MATERIALIZED VIEW users_by_country WITH (primary_key = 'country') AS\n  \
             SELECT country, count(*) AS users, avg(age)::double precision AS average_age\n  \
             FROM users GROUP BY country;\n"
        )
    }
}
