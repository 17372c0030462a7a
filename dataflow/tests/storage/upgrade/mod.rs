//! What an earlier version kept is read: a job goes on from a checkpoint, a journal and tables that
//! were written when their format was new (`format_N`), and its views are right.
//!
//! A change of a format adds a folder here; folders are never changed. How one is written is said
//! in the README.md beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::datatypes::{Field, Schema};
use arrow::util::display::array_value_to_string;
use serde_json::json;
use tempfile::TempDir;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::{Config, Limits, Stats, Workers, run};
use tidemill_log::log;
use tidemill_log::log::Record;
use tidemill_plan::compile;
use tidemill_sinks::Table;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where the folder of a new format is to be written.
const WRITE: &str = "TIDEMILL_TEST_WRITE_FORMAT";
/// The views; every kind of state is in them.
const VIEWS: &str = "
CREATE TABLE sales (shop text, n bigint, amount double precision) WITH (format = 'json');
CREATE TABLE people (id bigint, name text, shop text, PRIMARY KEY (id))
  WITH (format = 'json', envelope = 'upsert');
CREATE MATERIALIZED VIEW shops WITH (primary_key = 'shop') AS
  SELECT shop, count(*) AS sales, sum(amount) AS total, min(n) AS least, max(n) AS most
  FROM sales GROUP BY shop;
CREATE MATERIALIZED VIEW fifths WITH (primary_key = 'shop, fifth') AS
  SELECT DISTINCT shop, n % 5 AS fifth FROM sales;
CREATE MATERIALIZED VIEW staff WITH (primary_key = 'id') AS SELECT id, name, shop FROM people;
CREATE MATERIALIZED VIEW staff_sales WITH (primary_key = 'id') AS
  SELECT p.id, count(*) AS sales FROM people AS p JOIN sales AS s ON p.shop = s.shop GROUP BY p.id;
CREATE MATERIALIZED VIEW latest WITH (primary_key = 'shop, place') AS
  SELECT shop, place, n FROM (
    SELECT shop, n, row_number() OVER (PARTITION BY shop ORDER BY n DESC) AS place FROM sales
  ) AS ranked WHERE place <= 2;
";
const SHOPS: [&str; 3] = ["east", "north", "south"];

/// Record number `n` of both topics: a sale, and a person that comes, moves or goes.
fn records(n: i64) -> [Record; 2] {
    let shop = SHOPS[n as usize % 3];
    let record = |topic: &str, key: Option<String>, value: Option<String>| Record {
        topic: topic.to_owned(),
        partition: key.is_none().then_some(n as u32 % 2),
        key: key.map(String::into_bytes),
        value: value.map(String::into_bytes),
        timestamp_ms: 1_700_000_000_000,
    };
    let sale = json!({"shop": shop, "n": n, "amount": n as f64 / 4.0});
    let (id, name) = (n % 12, format!("p{n}"));
    let person = json!({"id": id, "name": name, "shop": SHOPS[n as usize / 7 % 3]});
    let person = (n % 5 != 4).then(|| person.to_string());
    [
        record("sales", None, Some(sale.to_string())),
        record("people", Some(json!({"id": id}).to_string()), person),
    ]
}

type Rows = BTreeSet<Vec<String>>;

/// What the views hold after the first `count` of them.
fn expected(count: i64) -> BTreeMap<&'static str, Rows> {
    let mut people = BTreeMap::new();
    for n in 0..count {
        match n % 5 {
            4 => people.remove(&(n % 12)),
            _ => people.insert(n % 12, (format!("p{n}"), SHOPS[n as usize / 7 % 3])),
        };
    }
    let of = |shop: &str| -> Vec<i64> {
        let sold = (0..count).filter(|n| SHOPS[*n as usize % 3] == shop);
        sold.collect()
    };
    let mut views: BTreeMap<&str, Rows> = BTreeMap::new();
    let mut add = |view, row: &[&dyn ToString]| {
        let row = row.iter().map(|cell| cell.to_string()).collect();
        views.entry(view).or_default().insert(row);
    };
    for shop in SHOPS {
        let sold = of(shop);
        let total = format!("{:?}", sold.iter().sum::<i64>() as f64 / 4.0);
        let (least, most) = (sold[0], sold[sold.len() - 1]);
        add("shops", &[&shop, &sold.len(), &total, &least, &most]);
        sold.iter().for_each(|n| add("fifths", &[&shop, &(n % 5)]));
        let places = sold.iter().rev().take(2).zip(1..);
        places.for_each(|(n, place)| add("latest", &[&shop, &place, n]));
    }
    for (id, (name, shop)) in &people {
        add("staff", &[id, name, shop]);
        add("staff_sales", &[id, &of(shop).len()]);
    }
    views
}

/// A job over the files of a folder.
struct Job {
    folder: PathBuf,
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<tidemill_log::Result<()>>,
}

impl Job {
    fn config(folder: &Path, workers: usize, checkpoints: Duration) -> Config {
        let river = format!("sqlite://{}", folder.join("river.db").display());
        Config {
            name: "job".to_owned(),
            plan: compile(VIEWS, "views.sql", None).unwrap(),
            log: river.clone(),
            registry: None,
            state: format!("file://{}", folder.join("state").display()),
            sink: river,
            sinks: BTreeMap::new(),
            dead_letters: "dead_letters".to_owned(),
            workers: Workers::Threads(workers),
            codec: Engine::default(),
            generation: None,
            take_over: false,
            limits: Limits {
                checkpoint_interval: checkpoints,
                ..Limits::default()
            },
        }
    }

    fn start(folder: &Path, workers: usize, checkpoints: Duration) -> Self {
        let config = Self::config(folder, workers, checkpoints);
        let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
        let (counts, stopped) = (Arc::clone(&stats), Arc::clone(&stop));
        Self {
            folder: folder.to_owned(),
            stats,
            stop,
            thread: std::thread::spawn(move || run(config, None, counts, stopped)),
        }
    }

    fn feed(&self, numbers: std::ops::Range<i64>) {
        let river = Self::config(&self.folder, 1, Duration::MAX).log;
        let mut producer = log::open(&river).unwrap().producer().unwrap();
        let records: Vec<Record> = numbers.flat_map(records).collect();
        producer.append(&records).unwrap();
    }

    /// Waits until the views are what they are after `count` records of each topic.
    fn settle(&self, count: i64) {
        let deadline = Instant::now() + PATIENCE;
        let expected = expected(count);
        loop {
            let found = self.rows();
            if found == expected {
                return;
            }
            assert!(!self.thread.is_finished(), "the job ended");
            let late = Instant::now() > deadline;
            assert!(!late, "found {found:#?}\nexpected {expected:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn rows(&self) -> BTreeMap<&'static str, Rows> {
        let config = Self::config(&self.folder, 1, Duration::MAX);
        let sink = tidemill_sinks::open(&config.sink).unwrap();
        let mut views = BTreeMap::new();
        let names = ["shops", "fifths", "staff", "staff_sales", "latest"];
        for name in names {
            let mut planned = config.plan.views.iter();
            let view = planned.find(|view| view.name == name).unwrap();
            let fields = view.rel.schema.fields().iter();
            let fields: Vec<Field> = fields
                .map(|field| field.as_ref().clone().with_nullable(true))
                .collect();
            let output = view.output.as_ref().unwrap();
            let table = Table {
                name: name.to_owned(),
                schema: Arc::new(Schema::new(fields)),
                primary_key: output.primary_key.clone(),
                partition_columns: output.partition_columns,
                fingerprint: view.fingerprint,
            };
            if !sink.is_there(name).unwrap() {
                continue; // not made yet
            }
            let batch = sink.read_back().unwrap().read(&table, 10_000).unwrap();
            let cell = |row, column| array_value_to_string(batch.column(column), row).unwrap();
            let row = |row| (0..batch.num_columns()).map(|c| cell(row, c)).collect();
            views.insert(name, (0..batch.num_rows()).map(row).collect());
        }
        views
    }

    fn stop(self) -> Arc<Stats> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
        self.stats
    }
}

/// The number in the newest checkpoint's manifest.
fn newest_format(folder: &Path) -> u64 {
    let checkpoints = std::fs::read_dir(folder.join("state/job/checkpoint")).unwrap();
    let checkpoints = checkpoints.map(|entry| entry.unwrap().path().join("manifest"));
    let newest = checkpoints
        .filter(|manifest| manifest.exists())
        .max()
        .unwrap();
    let text = std::fs::read_to_string(newest).unwrap();
    let (_checksum, json) = text.split_once('\n').unwrap();
    let manifest: serde_json::Value = serde_json::from_str(json).unwrap();
    manifest["format"].as_u64().unwrap()
}

/// Records of each topic in a checkpoint, in the journal behind it, and in the log at all.
const KEPT: i64 = 60;
const BOUND: i64 = 75;
const ALL: i64 = 90;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Writes the folder of a format, when it is asked to: the job's files as a crash leaves them.
#[test]
fn writes_a_format() {
    let Ok(to) = std::env::var(WRITE) else {
        return;
    };
    let (place, to) = (TempDir::new().unwrap(), PathBuf::from(to));
    let often = Duration::from_millis(20);
    let job = Job::start(place.path(), 2, often);
    let log = log::open(&Job::config(place.path(), 1, often).log).unwrap();
    for topic in ["sales", "people"] {
        log.create_topic(topic, 2).unwrap();
    }
    for n in (0..KEPT).step_by(10) {
        job.feed(n..n + 10);
        job.settle(n + 10);
    }
    job.stop();
    let job = Job::start(place.path(), 2, Duration::from_secs(3600));
    for n in (KEPT..BOUND).step_by(5) {
        job.feed(n..n + 5);
        job.settle(n + 5);
    }
    // Nothing moves any more; the last checkpoint, of the stop, comes after this.
    copy(&place.path().join("state"), &to.join("state"));
    let river = rusqlite::Connection::open(place.path().join("river.db")).unwrap();
    let file = to.join("river.db").display().to_string();
    river.execute("VACUUM INTO ?1", [file]).unwrap();
    job.stop();
    // A tail ends with zeros, however many: the space that is written ahead.
    for tail in std::fs::read_dir(to.join("state/job/journal-tail")).unwrap() {
        let tail = tail.unwrap().path();
        let bytes = std::fs::read(&tail).unwrap();
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        std::fs::write(&tail, &bytes[..end]).unwrap();
    }
}

#[test]
fn a_job_goes_on_from_what_each_format_kept() {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/upgrade");
    let formats = std::fs::read_dir(formats).unwrap();
    let formats = formats.map(|entry| entry.unwrap().path());
    let formats: Vec<PathBuf> = formats.filter(|path| path.is_dir()).collect();
    assert!(!formats.is_empty());
    for format in formats {
        let place = TempDir::new().unwrap();
        copy(&format, place.path());
        let job = Job::start(place.path(), 3, Duration::from_secs(3600));
        job.settle(BOUND);
        job.feed(BOUND..ALL);
        job.settle(ALL);
        let stats = job.stop();
        let number = format.file_name().unwrap().to_str().unwrap();
        let number: u32 = number.strip_prefix("format_").unwrap().parse().unwrap();
        let format = format.display();
        let restored = stats.restored.load(Ordering::Relaxed);
        assert!(restored > 0, "{format}: not from its checkpoint");
        // A state that is not known any more would be made anew from the topics' beginning: then a
        // fingerprint of a plan, or a site's name, has changed.
        let read = stats.records.load(Ordering::Relaxed);
        let since = 2 * (ALL - KEPT);
        // The rules of expressions have changed since format 1 was written: the view that computes
        // one is made anew from all of its source.
        let anew = if number == 1 { KEPT } else { 0 };
        assert_eq!(read, (since + anew) as u64, "{format}: records read");
        // So that a version which does not know what rows have now refuses it by name.
        assert_eq!(newest_format(place.path()), 3, "{format}");
        let again = Job::start(place.path(), 1, Duration::from_secs(3600));
        again.settle(ALL);
        assert_eq!(again.stop().records.load(Ordering::Relaxed), 0, "{format}");
    }
}
