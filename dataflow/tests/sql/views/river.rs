//! One job over an embedded log, journal and sink in a directory of its own: started, stopped,
//! killed, and read.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::datatypes::{Field, Schema};
use tempfile::TempDir;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::{Config, Limits, Stats, TimeSource, Workers, run};
use tidemill_dataflow::verify::{Options, Verified, verify};
use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use tidemill_plan::compile;
use tidemill_sinks::{Sink, Table};

use crate::views::held;
use crate::views::held::Value;
use crate::views::oracle::{Answer, key};

const CHILD_DIRECTORY: &str = "TIDEMILL_TEST_VIEWS_CHILD";
/// The file with the time of a clock that stands still.
const CLOCK: &str = "clock";
const CHILD_WORKERS: &str = "TIDEMILL_TEST_VIEWS_WORKERS";
/// How long a wave may take to become durable: a job of all views, whose recursions take a step of
/// all workers for each iteration, beside other tests on two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(5);
/// A job whose frontier has not moved for so long has bound all there is.
const STILL: Duration = Duration::from_secs(1);

/// A job and its files.
pub(crate) struct River {
    directory: TempDir,
    workers: usize,
    log: Arc<dyn Log>,
    tables: BTreeMap<String, Table>,
    sources: Vec<String>,
    running: Option<Running>,
    /// The job's clock; the machine's if none is set.
    clock: Option<Arc<AtomicU64>>,
    /// The sink, opened when rows are read for the first time: each opening reads the definitions
    /// of all tables.
    sink: OnceCell<Arc<dyn Sink>>,
    /// How long a wave may take.
    pub(crate) patience: Duration,
}

struct Running {
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<tidemill_log::Result<()>>,
}

fn url(directory: &Path, file: &str) -> String {
    format!("sqlite://{}", directory.join(file).display())
}

/// Where the views' tables are: in a file beside the others, unless another place is written down.
fn sink(directory: &Path) -> String {
    let other = std::fs::read_to_string(directory.join("sink.url"));
    other.unwrap_or_else(|_| url(directory, "sink.db"))
}

/// The most iterations of a recursion, where another number than the default is written down.
fn iterations(directory: &Path) -> u64 {
    let other = std::fs::read_to_string(directory.join("iterations"));
    other.map_or(Limits::default().iterations_max, |most| {
        most.parse().unwrap()
    })
}

fn registry(directory: &Path) -> Arc<dyn Registry> {
    tidemill_log::registry::open(&url(directory, "registry.db")).unwrap()
}

fn config(directory: &Path, workers: usize, time: TimeSource) -> Config {
    let sql = std::fs::read_to_string(directory.join("views.sql")).unwrap();
    Config {
        name: "views".to_owned(),
        plan: compile(&sql, "views.sql", Some(&*registry(directory))).unwrap(),
        log: url(directory, "log.db"),
        registry: Some(url(directory, "registry.db")),
        state: url(directory, "journal.db"),
        sink: sink(directory),
        sinks: BTreeMap::new(),
        dead_letters: "dead_letters".to_owned(),
        workers: Workers::Threads(workers),
        codec: Engine::default(),
        generation: None,
        take_over: false,
        time,
        limits: Limits {
            // Many checkpoints in a short life.
            checkpoint_interval: Duration::from_millis(20),
            iterations_max: iterations(directory),
            ..Limits::default()
        },
    }
}

impl River {
    pub(crate) fn new(sql: &str, workers: usize) -> Self {
        Self::prepared(sql, workers, |_| ())
    }

    /// The same over topics whose schemas are registered before.
    pub(crate) fn prepared(sql: &str, workers: usize, prepare: impl FnOnce(&Self)) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("views.sql"), sql).unwrap();
        let mut river = Self {
            log: tidemill_log::log::open(&url(directory.path(), "log.db")).unwrap(),
            tables: BTreeMap::new(),
            sources: Vec::new(),
            directory,
            workers,
            running: None,
            clock: None,
            sink: OnceCell::new(),
            patience: PATIENCE,
        };
        prepare(&river);
        let plan = config(river.directory.path(), workers, TimeSource::System).plan;
        let tables = plan.views.iter().filter_map(|view| {
            let output = view.output.as_ref()?;
            let fields = view.rel.schema.fields().iter();
            let fields: Vec<Field> = fields
                .map(|field| field.as_ref().clone().with_nullable(true))
                .collect();
            let table = Table {
                name: view.name.clone(),
                schema: Arc::new(Schema::new(fields)),
                primary_key: output.primary_key.clone(),
                partition_columns: output.partition_columns,
                fingerprint: view.fingerprint,
            };
            Some((view.name.clone(), table))
        });
        river.tables = tables.collect();
        river.sources = plan.sources.iter().map(|s| s.topic.clone()).collect();
        river
    }

    /// Keeps the views' tables in another sink.
    pub(crate) fn serve_in(&self, url: &str) {
        std::fs::write(self.directory.path().join("sink.url"), url).unwrap();
    }

    /// Limits the iterations of recursions.
    pub(crate) fn iterate_at_most(&self, iterations: u64) {
        std::fs::write(
            self.directory.path().join("iterations"),
            iterations.to_string(),
        )
        .unwrap();
    }

    /// What a verification finds.
    pub(crate) fn verify(&self) -> Vec<Verified> {
        let config = config(self.directory.path(), 1, self.time());
        verify(&config, &[], &Options::default()).unwrap()
    }

    pub(crate) fn registry(&self) -> Arc<dyn Registry> {
        registry(self.directory.path())
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log)
    }

    /// A view's table, none for an internal view.
    pub(crate) fn table(&self, view: &str) -> Option<Table> {
        self.tables.get(view).cloned()
    }

    /// Starts the job in this process unless it runs.
    pub(crate) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let config = config(self.directory.path(), self.workers, self.time());
        let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
        let (counts, stopped) = (Arc::clone(&stats), Arc::clone(&stop));
        self.running = Some(Running {
            stats,
            stop,
            thread: std::thread::spawn(move || run(config, None, counts, stopped)),
        });
    }

    /// Sets the job's clock, in ms since 1970. It stands still until it is set again.
    pub(crate) fn set_clock(&mut self, ms: u64) {
        let clock = self.clock.get_or_insert_default();
        clock.store(ms, Ordering::Relaxed);
        std::fs::write(self.directory.path().join(CLOCK), ms.to_string()).unwrap();
    }

    /// The job's clock.
    fn time(&self) -> TimeSource {
        match &self.clock {
            Some(clock) => TimeSource::Set(Arc::clone(clock)),
            None => TimeSource::System,
        }
    }

    /// Waits until an epoch at or after `ms` is durable, and returns the last one.
    pub(crate) fn durable_at(&mut self, ms: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while self.stats().durable.load(Ordering::Relaxed) < ms {
            assert!(
                Instant::now() < deadline,
                "no epoch at {ms} after {PATIENCE:?}"
            );
            std::thread::sleep(LOOK);
        }
        self.rest();
        self.stats().durable.load(Ordering::Relaxed)
    }

    /// How many workers the job has from its next start on.
    pub(crate) fn rescale(&mut self, workers: usize) {
        self.workers = workers;
    }

    /// Stops the job; what is in flight is completed.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            running.thread.join().unwrap().unwrap();
        }
    }

    /// What the running job counted.
    pub(crate) fn stats(&self) -> &Stats {
        &self.running.as_ref().expect("the job runs").stats
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.stats().dead_letters.load(Ordering::Relaxed)
    }

    /// Waits until everything in the log is durable in the sink.
    pub(crate) fn settle(&mut self) {
        let deadline = Instant::now() + self.patience;
        while !self.settled() {
            if self
                .running
                .as_ref()
                .is_some_and(|r| r.thread.is_finished())
            {
                let running = self.running.take().unwrap();
                panic!("the job ended: {:?}", running.thread.join().unwrap());
            }
            assert!(
                Instant::now() < deadline,
                "not durable after {:?}",
                self.patience
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the job ends by itself, and says why.
    pub(crate) fn ended(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let running = self.running.take().expect("the job runs");
        while !running.thread.is_finished() {
            assert!(Instant::now() < deadline, "it goes on after {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
        running.thread.join().unwrap().unwrap_err().to_string()
    }

    /// Has the registry answer an id with another schema, as one that was made anew does.
    pub(crate) fn rename(&self, id: u32, schema: &str) {
        let file = self.directory.path().join("registry.db");
        let registry = rusqlite::Connection::open(file).unwrap();
        let update = "UPDATE _tidemill_schemas SET schema = ?2 WHERE id = ?1";
        assert_eq!(registry.execute(update, (id, schema)).unwrap(), 1);
    }

    /// Waits until a checkpoint has everything that was bound, although nothing new comes.
    pub(crate) fn rest(&self) {
        let stats = self.stats();
        let deadline = Instant::now() + PATIENCE;
        let bound = || stats.bound.load(Ordering::Relaxed);
        while stats.checkpointed.load(Ordering::Relaxed) < bound() {
            assert!(
                Instant::now() < deadline,
                "no checkpoint after {PATIENCE:?}"
            );
            std::thread::sleep(LOOK);
        }
    }

    fn settled(&self) -> bool {
        let ends = self.stats().durable_ends.lock().unwrap().clone();
        self.sources.iter().all(|topic| {
            let reached = ends.get(topic);
            let ranges = self.log.ranges(topic).unwrap();
            ranges
                .iter()
                .filter(|range| range.high > range.low)
                .all(|range| {
                    let end = reached.and_then(|ends| ends.get(&range.partition));
                    end.is_some_and(|end| *end >= range.high)
                })
        })
    }

    /// The rows of a view by primary key.
    pub(crate) fn rows(&self, view: &str) -> BTreeMap<String, Vec<Value>> {
        let table = &self.tables[view];
        let sink = self.sink.get_or_init(|| {
            let url = sink(self.directory.path());
            tidemill_sinks::open(&url).unwrap()
        });
        let batch = sink.read_back().unwrap().read(table, usize::MAX).unwrap();
        let rows = held::rows(&batch);
        rows.into_iter()
            .map(|row| (key(&row, table), row))
            .collect()
    }

    /// What of a view is not as answered, row by row.
    pub(crate) fn differences(&self, view: &str, answer: &Option<Answer>) -> Vec<String> {
        let Some(answer) = answer else {
            return Vec::new();
        };
        let rows = self.rows(view);
        let mut wrong = Vec::new();
        for (key, expected) in &answer.rows {
            match rows.get(key) {
                Some(found) if found == expected => {}
                found => wrong.push(format!("expected {expected:?}\n  found    {found:?}")),
            }
        }
        let extra = rows
            .iter()
            .filter(|(key, _)| !answer.rows.contains_key(*key));
        wrong.extend(extra.map(|(_, row)| format!("not expected {row:?}")));
        let count = wrong.len();
        wrong.truncate(4);
        if count > 0 {
            wrong.push(format!("{count} rows differ"));
        }
        let views = self.stats().views.lock().unwrap();
        let counted = &views[view];
        if counted.rows != answer.all as i64 {
            wrong.push(format!("{} rows, counted as {}", answer.all, counted.rows));
        }
        if answer.withheld > 0 && counted.conflicts == 0 {
            wrong.push(format!("{} rows withheld, none counted", answer.withheld));
        }
        let said = |what| format!("view `{view}`: {what}");
        wrong.into_iter().map(said).collect()
    }

    /// The reasons of all dead letters; none while they have no topic.
    pub(crate) fn reasons(&self) -> Vec<String> {
        if self.log.describe("dead_letters").unwrap().is_none() {
            return Vec::new();
        }
        let letters = self.log.tail("dead_letters", 1000).unwrap();
        let reason = |value: Option<Vec<u8>>| {
            let letter: serde_json::Value = serde_json::from_slice(&value.unwrap()).unwrap();
            letter["reason"].as_str().unwrap().to_owned()
        };
        letters
            .into_iter()
            .map(|letter| reason(letter.value))
            .collect()
    }

    /// Starts the job in a process of its own, to be killed.
    pub(crate) fn start_child(&self, name: &str) -> Victim {
        let sink = self.directory.path().join("sink.db");
        let before = frontier(&sink).unwrap_or_else(|error| panic!("{name}: {error}"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["views::child", "--exact"])
            .env(CHILD_DIRECTORY, self.directory.path())
            .env(CHILD_WORKERS, self.workers.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        Victim {
            child: child.unwrap_or_else(|error| panic!("{name}: {error}")),
            sink,
            before,
        }
    }

    /// The other process's side; returns at once in any process that is none.
    pub(crate) fn run_child() {
        let Ok(directory) = std::env::var(CHILD_DIRECTORY) else {
            return;
        };
        let workers = std::env::var(CHILD_WORKERS).unwrap().parse().unwrap();
        let directory = Path::new(&directory);
        let clock = std::fs::read_to_string(directory.join(CLOCK));
        let time = match clock {
            Ok(ms) => TimeSource::Set(Arc::new(ms.parse::<u64>().unwrap().into())),
            Err(_) => TimeSource::System,
        };
        let config = config(directory, workers, time);
        let never = Arc::new(AtomicBool::new(false));
        run(config, None, Arc::new(Stats::default()), never).unwrap();
    }
}

/// A process that will be killed.
pub(crate) struct Victim {
    child: Child,
    sink: PathBuf,
    /// The frontier that the job's life before it left.
    before: Option<i64>,
}

impl Victim {
    /// Kills the process when it has made one epoch durable and this many more, or all there are:
    /// wherever that finds it. Something must have been fed since the life before it ended.
    pub(crate) fn kill_after(&mut self, more: usize) {
        let began = Instant::now();
        let (mut last, mut seen) = (self.before, 0);
        let mut moved = Instant::now();
        while seen == 0 || seen <= more && moved.elapsed() < STILL {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the child ended by itself"
            );
            let now = frontier(&self.sink);
            assert!(
                began.elapsed() < PATIENCE || seen > 0,
                "no epoch is durable after {PATIENCE:?}; before it {:?}, now {now:?}",
                self.before
            );
            // The file may be in the middle of being made.
            if let Ok(now) = now
                && now > last
            {
                (last, seen, moved) = (now, seen + 1, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The greatest frontier that a sink shows; none before there is one.
fn frontier(sink: &Path) -> rusqlite::Result<Option<i64>> {
    if !sink.exists() {
        return Ok(None);
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(sink, flags)?;
    let table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'tidemill_frontiers')";
    if !connection.query_row(table, [], |row| row.get(0))? {
        return Ok(None);
    }
    let select = "SELECT max(epoch) FROM tidemill_frontiers";
    connection.query_row(select, [], |row| row.get(0))
}
