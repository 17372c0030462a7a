//! Cassandra away for a minute under full load: memory stays under its limit, nothing is dropped,
//! and it catches up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use tidemill_log::log::Record;

use crate::harness::own::Own;
use crate::harness::{PATIENCE, Place, Process, View, send, until};

/// How long Cassandra is away; `TIDEMILL_TEST_AWAY_SECONDS` says otherwise. On a slow machine it is
/// away until enough was written to tell.
const AWAY: Duration = Duration::from_secs(60);
const AWAY_MAX: Duration = Duration::from_secs(300);
/// How soon everything must be right once it is back and the load has ended.
const CAUGHT_UP: Duration = Duration::from_secs(600);
const KEYS: u64 = 5_000;
/// Records of one load at most: it ends when all were read, and that takes its time.
const RECORDS_MAX: u64 = 2_500_000;
const BATCH: u64 = 2_000;
/// Bytes of a record, nearly all of them in one column.
const FILLER: usize = 1_000;
/// The records that two workers with two sources hold at most, by docs/limits.md: in the readers,
/// and in the stages after them.
const READ_AHEAD_MAX: u64 = 128 << 20;
const STAGES_MAX: u64 = 384 << 20;
const RECORDS_HELD_MAX: u64 = READ_AHEAD_MAX + STAGES_MAX;
/// What a process has at most, by docs/limits.md: the stages hold records in decoded form.
const MEMORY_MAX: u64 = READ_AHEAD_MAX + 2 * STAGES_MAX;
/// What is written at least while it is away, most of which has to stay in the log.
const WRITTEN: u64 = 2 * MEMORY_MAX;

/// What is written before it goes away: the job is in the middle of it then.
const LOADED: u64 = 32 << 20;

/// Rows that replace each other, and events that count each.
const VIEWS: &str = "CREATE TABLE items (id bigint, n bigint, filler text)
           WITH (topic = 'items', format = 'json', envelope = 'upsert');
         CREATE TABLE events (id bigint, n bigint)
           WITH (topic = 'events', format = 'json', envelope = 'append');
         CREATE MATERIALIZED VIEW newest WITH (primary_key = 'id') AS
           SELECT id, n, filler FROM items;
         CREATE MATERIALIZED VIEW counted WITH (primary_key = 'part') AS
           SELECT id % 10 AS part, count(*) AS events, sum(n) AS n FROM events GROUP BY 1;";

/// Appends records as fast as the log takes them, until told to stop or all are written.
struct Load {
    ended: Arc<AtomicBool>,
    /// The number of the next record.
    next: Arc<AtomicU64>,
    thread: Option<JoinHandle<u64>>,
}

impl Load {
    fn start(place: &Place, from: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let log = tidemill_log::log::open(&place.log).unwrap();
        let (stop, reached) = (Arc::clone(&ended), Arc::new(AtomicU64::new(from)));
        let written = Arc::clone(&reached);
        let thread = std::thread::spawn(move || {
            let mut producer = log.producer().unwrap();
            let mut next = from;
            while !stop.load(Ordering::Relaxed) && next - from < RECORDS_MAX {
                let records = (next..next + BATCH).flat_map(records);
                producer.append(&records.collect::<Vec<_>>()).unwrap();
                next += BATCH;
                written.store(next, Ordering::Relaxed);
            }
            next
        });
        Self {
            ended,
            next: reached,
            thread: Some(thread),
        }
    }

    /// Whether this many bytes were written, or all there are.
    fn has_written(&self, from: u64, bytes: u64) -> bool {
        let records = self.next.load(Ordering::Relaxed) - from;
        records * FILLER as u64 >= bytes || records >= RECORDS_MAX
    }

    /// How many records there are now.
    fn end(mut self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The `n`th item, whose filler is hard to compress, and the `n`th event.
fn records(n: u64) -> [Record; 2] {
    let id = n.wrapping_mul(7_919) % KEYS;
    let mut filler = String::with_capacity(FILLER + 16);
    let mut state = n;
    while filler.len() < FILLER {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        filler += &format!("{state:016x}");
    }
    let record = |topic: &str, value: String| Record {
        topic: topic.to_owned(),
        partition: Some((id % 4) as u32),
        key: Some(id.to_string().into_bytes()),
        value: Some(value.into_bytes()),
        timestamp_ms: 1,
    };
    let item = format!(r#"{{"id": {id}, "n": {n}, "filler": "{filler}"}}"#);
    let event = format!(r#"{{"id": {id}, "n": {n}}}"#);
    [record("items", item), record("events", event)]
}

/// Waits until both views are right for the first `count` records.
#[track_caller]
fn expect(place: &Place, job: &mut Process, count: u64) -> Duration {
    let mut newest = BTreeMap::new();
    let mut counted: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for n in 0..count {
        let id = n.wrapping_mul(7_919) % KEYS;
        newest.insert(id, n);
        let part = counted.entry(id % 10).or_default();
        *part = (part.0 + 1, part.1 + n);
    }
    let newest = newest.iter();
    let newest: BTreeSet<_> = newest
        .map(|(id, n)| vec![id.to_string(), n.to_string()])
        .collect();
    let counted = counted.iter();
    let counted: BTreeSet<_> = counted
        .map(|(part, sum)| vec![part.to_string(), sum.0.to_string(), sum.1.to_string()])
        .collect();
    let number = |name| (name, DataType::Int64);
    // The sum of bigints is a numeric.
    let sum = ("n", DataType::Decimal128(29, 0));
    let views = [
        (
            View::new("counted", &[number("part"), number("events"), sum]),
            counted,
        ),
        (View::new("newest", &["id", "n"].map(number)), newest),
    ];
    let begin = Instant::now();
    for (view, rows) in &views {
        until(&format!("{} is right", view.name), CAUGHT_UP, || {
            job.runs();
            let right = place.view(view) == *rows;
            if !right {
                std::thread::sleep(Duration::from_millis(500));
            }
            right.then_some(())
        });
    }
    begin.elapsed()
}

#[test]
fn cassandra_away_under_full_load_takes_no_memory_and_loses_nothing() {
    let _alone = crate::ALONE.lock();
    let test = "cassandra_away_under_full_load_takes_no_memory_and_loses_nothing";
    let Some(own) = Own::start(test, &["kafka", "cassandra", "registry"]) else {
        return;
    };
    let away = std::env::var("TIDEMILL_TEST_AWAY_SECONDS").ok();
    let away = away.map_or(AWAY, |it| Duration::from_secs(it.parse().unwrap()));
    let place = Place::on(
        "pressure",
        "postgres://nobody@127.0.0.1:1/none".to_owned(),
        own.url("kafka"),
        own.url("registry"),
        &own.url("cassandra"),
    );
    place.topic("items", 4);
    place.topic("events", 4);
    place.write("views.sql", VIEWS);
    let mut job = place.start("dataflow", &["-w", "2", "--checkpoint-every", "2s"]);
    let mut count = BATCH;
    place.append(&(0..count).flat_map(records).collect::<Vec<_>>());
    expect(&place, &mut job, count);
    // Killed it has to start anew as well; how long it is away makes no difference any more.
    for (how, away) in [("stopped", away), ("killed", away / 4)] {
        let load = Load::start(&place, count);
        until("the load runs", PATIENCE, || {
            load.has_written(count, LOADED).then_some(())
        });
        let before = job.memory();
        assert!(send(
            if how == "killed" { "KILL" } else { "STOP" },
            own.pid("cassandra")
        ));
        let begin = Instant::now();
        while begin.elapsed() < away || (away >= AWAY && !load.has_written(count, WRITTEN)) {
            assert!(begin.elapsed() < AWAY_MAX, "the load is too slow to tell");
            job.runs();
            std::thread::sleep(Duration::from_millis(100));
        }
        let away_for = begin.elapsed();
        let loaded = load.end();
        let at_end = job.memory();
        match how {
            "killed" => own.again("cassandra"),
            _ => assert!(send("CONT", own.pid("cassandra"))),
        }
        let took = expect(&place, &mut job, loaded);
        let bytes = (loaded - count) * FILLER as u64;
        count = loaded;
        let most = job.memory_peak();
        eprintln!(
            "Cassandra {how} for {} s: {} MB of records; memory {} MB before, {} MB at the end, \
             {} MB at most; right again after {:.1} s",
            away_for.as_secs(),
            bytes >> 20,
            before >> 20,
            at_end >> 20,
            most >> 20,
            took.as_secs_f64()
        );
        let grown = at_end.saturating_sub(before);
        assert!(grown <= RECORDS_HELD_MAX, "grew by {} MB", grown >> 20);
        assert!(most <= MEMORY_MAX, "{} MB of memory", most >> 20);
    }
    job.stop("TERM");
}
