//! Benchmark `failover`: how soon a cluster notices that a process of a job was killed, that a
//! worker was killed, or that a process is frozen; how soon the next generation is live; and the
//! CPU time of an idle cluster.
//!
//! A master and two workers with one slot each run a job with small state. Times are taken from the
//! signal to the change in the master's status, which is polled every few milliseconds. A job is
//! live when its state is restored and everything that earlier runs bound has passed through it.
//!
//! | value | unit | bar |
//! |---|---|---|
//! | `% of a core` of the idle cluster | CPU time of all processes over wall time | 2 % |
//! | `seen after s` of a killed process, a killed worker | seconds | 2 s |
//! | `seen after s` of a frozen process | seconds | 10 s |
//! | `live then s` | seconds from when it was seen | 5 s |
//!
//! There is no baseline. The bars hold for the worst of [`ROUNDS`] trials, not for the median. A
//! process is frozen with SIGSTOP: it keeps its connections and says nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidemill_log::log;

use crate::harness::child::{Running, cpu_seconds};
use crate::harness::report::{Report, Row};
use crate::harness::services::Services;
use crate::harness::topic::{PARTITIONS, send};

/// Timeout of one step.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two polls of the status.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long an idle cluster is measured.
const IDLE: Duration = Duration::from_secs(60);
/// Number of trials of each kind of failure.
const ROUNDS: usize = 5;
/// Records in the topic.
const RECORDS: u64 = 10_000;

/// A running cluster.
struct Cluster<'a> {
    /// The binary under test.
    tidemill: &'a Path,
    /// The folder for the logs.
    work: &'a Path,
    /// The folder of the cluster: its state, the pipeline and the views.
    folder: tempfile::TempDir,
    /// The master's URL.
    url: String,
    /// For the master's status.
    client: reqwest::blocking::Client,
    /// The master's process.
    master: Running,
    /// The workers' processes by index; `None` while one is killed.
    workers: Vec<Option<Running>>,
}

/// Runs the benchmark.
///
/// # Errors
/// A step takes longer than [`PATIENCE`], or a process cannot be started.
pub(crate) fn run(services: &Services, tidemill: &Path, work: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("failover");
    let topic = fill(services)?;
    let mut cluster = Cluster::start(tidemill, work)?;
    cluster.submit(services, &topic)?;
    cluster.live(0)?;
    eprintln!("watching an idle cluster for {} s", IDLE.as_secs());
    let idle = cluster.idle()?;
    report.row(row("idle cluster", &[("% of a core", vec![idle * 100.0])]));
    report.at_most("an idle cluster, share of a core", idle, 0.02);
    let kinds = [
        ("process killed", "KILL", 2.0),
        ("process frozen", "STOP", 10.0),
    ];
    for (what, signal, seen_max) in kinds {
        let (mut seen, mut live) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let generation = cluster.afresh()?;
            let child = cluster.child()?;
            let times = cluster.fails(generation, || signal_to(signal, child))?;
            seen.push(times.seen_s);
            live.push(times.live_s);
        }
        told(&mut report, what, seen, live, seen_max);
    }
    let (mut seen, mut live) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let generation = cluster.afresh()?;
        let mut killed = cluster.workers[1].take().context("a worker")?;
        let times = cluster.fails(generation, || Ok(killed.child.kill()?))?;
        seen.push(times.seen_s);
        live.push(times.live_s);
        killed.child.wait()?;
        cluster.start_worker(1)?;
        cluster.has_workers(2)?;
    }
    told(&mut report, "worker killed", seen, live, 2.0);
    Ok(report)
}

/// A row of the report.
fn row(name: &str, values: &[(&'static str, Vec<f64>)]) -> Row {
    Row {
        name: name.to_owned(),
        values: values.to_vec(),
    }
}

/// Adds the times of one kind of failure to the report, with their bars.
///
/// `seen_max` is the bar of `seen` in seconds.
fn told(report: &mut Report, what: &str, seen: Vec<f64>, live: Vec<f64>, seen_max: f64) {
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (latest, longest) = (most(&seen), most(&live));
    report.row(row(what, &[("seen after s", seen), ("live then s", live)]));
    report.at_most(&format!("{what}: seen, s at most"), latest, seen_max);
    report.at_most(&format!("{what}: live from then, s at most"), longest, 5.0);
}

/// Creates and fills the topic.
///
/// The view over it has 100 groups, so the state is small.
fn fill(services: &Services) -> anyhow::Result<String> {
    let name = format!("bench_failover_{}", std::process::id());
    log::open(services.kafka()?)?.create_topic(&name, PARTITIONS)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", services.brokers()?)
        .create()?;
    for index in 0..RECORDS {
        let value = format!(r#"{{"id": {index}, "n": {}}}"#, index % 100);
        let partition = (index % u64::from(PARTITIONS)) as i32;
        let record = BaseRecord::<[u8], [u8]>::to(&name).partition(partition);
        send(&producer, record.payload(value.as_bytes()))?;
    }
    producer.flush(PATIENCE)?;
    Ok(name)
}

/// Sends a signal to a process.
fn signal_to(signal: &str, process: u32) -> anyhow::Result<()> {
    let process = process.to_string();
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &process])
        .status()?;
    if !sent.success() {
        bail!("SIG{signal} cannot be sent to {process}");
    }
    Ok(())
}

/// The times in seconds from a failure until it was noticed, and from then until the next
/// generation was live.
struct Times {
    /// From the signal until the master's status is another one.
    seen_s: f64,
    /// From then until the next generation is live.
    live_s: f64,
}

impl<'a> Cluster<'a> {
    /// Starts a master and two workers.
    fn start(tidemill: &'a Path, work: &'a Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(work)?;
        // The HTTP client requires a provider, although it speaks plain HTTP. The first one that is
        // installed in a process wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let listen = listener.local_addr()?.to_string();
        drop(listener);
        let mut master = Command::new(tidemill);
        master.args(["master", "--listen", &listen]);
        master.arg("--state").arg(folder.path().join("cluster"));
        let mut cluster = Self {
            tidemill,
            work,
            url: format!("http://{listen}"),
            client: reqwest::blocking::Client::new(),
            master: Running::start(&mut master, &work.join("master.log"))?,
            workers: vec![None, None],
            folder,
        };
        cluster.start_worker(0)?;
        cluster.start_worker(1)?;
        cluster.has_workers(2)?;
        Ok(cluster)
    }

    /// Starts the worker with this index.
    ///
    /// A worker with one slot.
    fn start_worker(&mut self, index: usize) -> anyhow::Result<()> {
        let mut worker = Command::new(self.tidemill);
        worker.args(["worker", "--master", &self.url, "--slots", "1"]);
        worker
            .arg("--dir")
            .arg(self.folder.path().join(format!("worker{index}")));
        let log = self.work.join(format!("worker{index}.log"));
        self.workers[index] = Some(Running::start(&mut worker, &log)?);
        Ok(())
    }

    /// Submits the job and waits until it is live.
    fn submit(&self, services: &Services, topic: &str) -> anyhow::Result<()> {
        let pipeline = self.folder.path().join("bench");
        std::fs::create_dir(&pipeline)?;
        let sql = format!(
            "CREATE TABLE events (id BIGINT, n BIGINT) WITH (topic = '{topic}', format = 'json');\n\
             CREATE MATERIALIZED VIEW numbers WITH (primary_key = 'n') AS\n  \
             SELECT n, count(*) AS events FROM events GROUP BY n;\n",
        );
        std::fs::write(pipeline.join("views.sql"), sql)?;
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        self.client_command(&[
            "submit",
            &pipeline.display().to_string(),
            "--workers",
            "2",
            "--kafka",
            services.kafka()?,
            "--data",
            &at("views.sqlite"),
            "--state",
            &format!("file://{}", at("state")),
        ])
    }

    /// Runs a client command.
    ///
    /// # Errors
    /// The command fails, with what it printed.
    fn client_command(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut client = Command::new(self.tidemill);
        client.args(arguments).args(["--master", &self.url]);
        let ran = client.output()?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            bail!("{} ended with {}: {said}", arguments[0], ran.status);
        }
        Ok(())
    }

    /// The master's status.
    fn status(&self) -> anyhow::Result<Value> {
        let answer = self
            .client
            .get(format!("{}/api/v1/status", self.url))
            .send()?;
        Ok(answer.error_for_status()?.json()?)
    }

    /// The job's state and generation.
    fn job(&self) -> anyhow::Result<(String, u64)> {
        let status = self.status()?;
        let job = &status["jobs"][0];
        let state = job["state"].as_str().context("no job")?.to_owned();
        Ok((state, job["generation"].as_u64().unwrap_or(0)))
    }

    /// Polls until `ask` returns a value.
    fn until<T>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let by = Instant::now() + PATIENCE;
        loop {
            // The master may not listen yet.
            let last = match ask() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if Instant::now() > by {
                bail!("in {PATIENCE:?} not: {what}; {last:?}; {:?}", self.status());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the master has this number of workers.
    fn has_workers(&self, count: usize) -> anyhow::Result<()> {
        self.until("the workers are there", || {
            let status = self.status()?;
            let workers = status["workers"].as_array().map_or(0, Vec::len);
            Ok((workers == count).then_some(()))
        })
    }

    /// Waits until a generation above `before` is live. Returns it.
    fn live(&self, before: u64) -> anyhow::Result<u64> {
        self.until("the job runs", || {
            let (state, generation) = self.job()?;
            Ok((state == "running" && generation > before).then_some(generation))
        })
    }

    /// Injects a failure into the job and measures the times.
    ///
    /// `before` is the generation that runs. The resolution of both times is [`LOOK_EVERY`].
    fn fails(
        &self,
        before: u64,
        fail: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Times> {
        let began = Instant::now();
        fail()?;
        self.until("the failure is seen", || {
            let (state, generation) = self.job()?;
            Ok((state != "running" || generation > before).then_some(()))
        })?;
        let seen = Instant::now();
        self.live(before)?;
        Ok(Times {
            seen_s: (seen - began).as_secs_f64(),
            live_s: seen.elapsed().as_secs_f64(),
        })
    }

    /// Restarts the job by hand, so that a new generation runs on both workers. That resets the
    /// count of failures, so no back-off pause is in what is measured.
    fn afresh(&self) -> anyhow::Result<u64> {
        let (_, before) = self.job()?;
        self.client_command(&["restart", "bench"])?;
        self.live(before)
    }

    /// The process id of a process of the job.
    fn child(&self) -> anyhow::Result<u32> {
        let workers = self.workers.iter().flatten();
        let mut children = workers.flat_map(|worker| children(worker.child.id()));
        children.next().context("no worker runs a process")
    }

    /// The share of one core that all processes use together while nothing happens.
    ///
    /// The processes of the job are counted too.
    fn idle(&self) -> anyhow::Result<f64> {
        let workers = self.workers.iter().flatten();
        let mut all: Vec<u32> = workers
            .flat_map(|worker| {
                let own = worker.child.id();
                let mut all = children(own);
                all.push(own);
                all
            })
            .collect();
        all.push(self.master.child.id());
        let used = || -> anyhow::Result<f64> {
            let stat = |process: &u32| PathBuf::from(format!("/proc/{process}/stat"));
            all.iter()
                .map(|process| Ok(cpu_seconds(&stat(process))?.0))
                .sum()
        };
        // By then the work that follows a start is done.
        std::thread::sleep(Duration::from_secs(15));
        let (before, began) = (used()?, Instant::now());
        std::thread::sleep(IDLE);
        Ok((used()? - before) / began.elapsed().as_secs_f64())
    }
}

/// The children of a process.
///
/// Read from `/proc`, for all threads of the process.
fn children(process: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let files = tasks.flatten().map(|task| task.path().join("children"));
    let all: String = files
        .map(|file| std::fs::read_to_string(file).unwrap_or_default())
        .collect();
    all.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}
