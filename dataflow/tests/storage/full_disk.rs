//! A full disk: writing waits for space, says so once, and loses nothing.
//!
//! The disk is a small tmpfs, which takes root to mount.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::{Config, Limits, Stats, Workers, run};
use tidemill_log::Kind;
use tidemill_log::log::Record;
use tidemill_plan::compile;
use tidemill_state::journal::{Binding, Journal};
use tidemill_state::store;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file system of two MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let place = TempDir::new().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(place.path()).output();
        if mounted.is_ok_and(|it| it.status.success()) {
            return Some(Self(place));
        }
        let line = b"left out: the full disk needs root, to mount a tmpfs\n";
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line);
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn binding(epoch: u64) -> Binding {
    Binding {
        epoch,
        ends: [("t".to_owned(), [(0, epoch.cast_signed())].into())].into(),
        ..Binding::default()
    }
}

#[test]
fn each_engine_says_that_there_is_no_space_and_goes_on() {
    for engine in ["file", "sqlite"] {
        let Some(disk) = SmallDisk::mount() else {
            return;
        };
        let url = format!("{engine}://{}/state", disk.path().display());
        let (journal, _) = Journal::open(store::open(&url).unwrap(), "job").unwrap();
        let mut bound = Vec::new();
        for _ in 0..3 {
            let filler = disk.fill();
            // SQLite finds room in what its file has already, for a while.
            let (refused, error) = loop {
                let next = binding(bound.len() as u64 + 1);
                match journal.bind(&next) {
                    Ok(()) => bound.push(next),
                    Err(error) => break (next, error),
                }
                assert!(bound.len() < 10_000, "{engine} binds on a full disk");
            };
            assert_eq!(error.kind(), Kind::Retry, "{engine}: {error}");
            assert!(
                error.to_string().contains("no space left"),
                "{engine}: {error}"
            );
            let read = Journal::read(&*store::open(&url).unwrap(), "job").unwrap();
            assert_eq!(read.bindings, bound, "{engine}: nothing half");
            std::fs::remove_file(filler).unwrap();
            journal.bind(&refused).unwrap();
            bound.push(refused);
        }
        let read = Journal::read(&*store::open(&url).unwrap(), "job").unwrap();
        assert_eq!(read.bindings, bound, "{engine}");
    }
}

/// Keeps what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Visit for Warnings {
    fn record_debug(&mut self, _field: &Field, value: &dyn std::fmt::Debug) {
        let mut all = self.0.lock().unwrap();
        write!(all.last_mut().unwrap(), "{value:?} ").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _span: &Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(String::new());
        event.record(&mut self.clone());
    }
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not {what} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A job with its state on the small disk.
fn job(place: &Path, disk: &Path) -> Config {
    let url = |file: &str| format!("sqlite://{}", place.join(file).display());
    let sql = "CREATE TABLE clicks (page text) WITH (format = 'json');
               CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
                 SELECT page, count(*) AS n FROM clicks GROUP BY page;";
    Config {
        name: "job".to_owned(),
        plan: compile(sql, "views.sql", None).unwrap(),
        log: url("log.db"),
        registry: None,
        state: format!("file://{}", disk.display()),
        sink: url("sink.db"),
        sinks: BTreeMap::new(),
        dead_letters: "dead_letters".to_owned(),
        workers: Workers::Threads(1),
        codec: Engine::default(),
        generation: None,
        take_over: false,
        limits: Limits {
            checkpoint_interval: Duration::from_millis(20),
            ..Limits::default()
        },
    }
}

#[test]
fn a_job_waits_for_space_says_so_once_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).unwrap();
    let place = TempDir::new().unwrap();
    let config = job(place.path(), disk.path());
    let log = tidemill_log::log::open(&config.log).unwrap();
    log.create_topic("clicks", 1).unwrap();
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let (counts, stopped) = (Arc::clone(&stats), Arc::clone(&stop));
    let job = std::thread::spawn(move || run(config, None, counts, stopped));
    let durable = || {
        let ends = stats.durable_ends.lock().unwrap();
        ends.get("clicks").and_then(|ends| ends.get(&0)).copied()
    };
    let mut producer = log.producer().unwrap();
    let mut clicks = 0;
    let mut click = || {
        clicks += 1;
        let record = Record {
            topic: "clicks".to_owned(),
            partition: Some(0),
            timestamp_ms: 1,
            key: None,
            value: Some(br#"{"page":"home"}"#.to_vec()),
        };
        producer.append(&[record]).unwrap();
        clicks
    };
    let first = click();
    wait_for("durable", || durable() == Some(first));
    let filler = disk.fill();
    let full = || {
        let all = warnings.0.lock().unwrap();
        all.iter()
            .filter(|warning| warning.contains("no space left"))
            .count()
    };
    wait_for("said", || {
        click();
        full() == 1
    });
    // The journal has blocks ahead, so epochs go on while a checkpoint waits.
    let last = click();
    wait_for("durable", || durable() == Some(last));
    let checkpoints = || {
        let folder = disk.path().join("job/checkpoint");
        let epochs = std::fs::read_dir(folder).into_iter().flatten().flatten();
        epochs
            .filter(|epoch| epoch.path().join("manifest").exists())
            .count()
    };
    let before = checkpoints();
    std::fs::remove_file(filler).unwrap();
    wait_for("taken", || checkpoints() > before);
    assert_eq!(full(), 1, "said once: {:?}", warnings.0.lock().unwrap());
    stop.store(true, Ordering::Relaxed);
    job.join().unwrap().unwrap();
    let sink = rusqlite::Connection::open(place.path().join("sink.db")).unwrap();
    let n: i64 = sink
        .query_row("SELECT n FROM pages", [], |row| row.get(0))
        .unwrap();
    assert_eq!(n, last);
}
