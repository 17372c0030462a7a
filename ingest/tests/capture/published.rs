//! What publish leaves in the log: every change once, also after crashes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_ingest::capture;
use tidemill_ingest::capture::{Capture, Captured};
use tidemill_ingest::config::{Compatibility, TopicNaming};
use tidemill_ingest::publish::{Publisher, StreamOptions, stream};
use tidemill_ingest::stats::Stats;
use tidemill_log::envelope::event::{Change, Op, Value};
use tidemill_log::envelope::{Decoder, Encoder};
use tidemill_log::log::dead_letter::{DeadLetter, Entry, Source, Stage};
use tidemill_log::log::{Log, OwnedRecord, Record, dead_letter};

use crate::postgres::Database;

/// Options that keep log and registry in one file.
pub(crate) fn options(folder: &tempfile::TempDir, database: &str, name: &str) -> StreamOptions {
    let file = format!("sqlite://{}", folder.path().join("log.db").display());
    StreamOptions {
        database: database.to_owned(),
        tables: vec!["t".to_owned()],
        name: name.to_owned(),
        log: file.clone(),
        registry: file,
        naming: TopicNaming {
            prefix: format!("{name}."),
            with_schema: false,
        },
        partitions: 3,
        compatibility: Compatibility::default(),
        resnapshot: false,
    }
}

fn records(options: &StreamOptions, topic: &str) -> Vec<OwnedRecord> {
    tidemill_log::log::open(&options.log)
        .unwrap()
        .tail(topic, 1_000_000)
        .unwrap()
}

fn published(options: &StreamOptions) -> Vec<Change> {
    let topic = format!("{}t", options.naming.prefix);
    let registry = tidemill_log::registry::open(&options.registry).unwrap();
    let mut decoder = Decoder::new(&topic, registry);
    let records = records(options, &topic);
    records
        .iter()
        .map(|record| decoder.decode(record).unwrap())
        .collect()
}

fn publisher(options: &StreamOptions, anew: bool) -> Publisher {
    let log = tidemill_log::log::open(&options.log).unwrap();
    let registry = tidemill_log::registry::open(&options.registry).unwrap();
    Publisher::open(log, registry, options, anew).unwrap()
}

/// Captures and publishes `count` changes, acknowledging only as many as `acknowledge`.
fn pass(capture: &mut dyn Capture, options: &StreamOptions, count: usize, acknowledge: usize) {
    let mut publisher = publisher(options, capture.begins_anew());
    let captured = crate::read(capture, count);
    for batch in captured.chunks(7) {
        publisher.publish(batch).unwrap();
    }
    if let Some(last) = captured.get(..acknowledge).and_then(<[Captured]>::last) {
        capture.acknowledge(last.position()).unwrap();
    }
}

#[test]
fn crashes_before_acknowledging_write_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source.db");
    let source = tidemill_log::sqlite::connect(file.to_str().unwrap()).unwrap();
    source
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        .unwrap();
    let options = options(&folder, &format!("sqlite://{}", file.display()), "crashes");
    for round in 1..=5_usize {
        let insert = "INSERT INTO t SELECT ?1 * 100 + value, 'x' FROM json_each(?2)";
        let ids = serde_json::to_string(&(0..20).collect::<Vec<_>>()).unwrap();
        source
            .execute(insert, rusqlite::params![round as i64, ids])
            .unwrap();
        let mut capture =
            capture::open(&options.database, &options.tables, "crashes", false).unwrap();
        // The first round's rows are there before the capture, with the table's truncate.
        pass(capture.as_mut(), &options, round * 20 + 1, 0);
    }
    let published = published(&options);
    assert_eq!(
        published.len(),
        100,
        "a truncate of an empty topic says nothing"
    );
    let positions: BTreeSet<_> = published.iter().map(|change| change.position).collect();
    assert_eq!(positions.len(), 100);
}

#[test]
fn crashes_of_a_capture_from_postgres_write_nothing_twice() {
    let test = "crashes_of_a_capture_from_postgres_write_nothing_twice";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (0, 'a')");
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder, &database.url, &database.name);
    pass(database.open(&["t"]).unwrap().as_mut(), &options, 2, 2);
    // Opened once more, the slot reads on: the snapshot's end was not seen, so it begins again.
    let mut capture = database.open(&["t"]).unwrap();
    pass(capture.as_mut(), &options, 2, 2);
    assert!(capture.next(Duration::ZERO).unwrap().is_empty());
    drop(capture);
    for round in 1..=4 {
        database.run(&format!(
            "INSERT INTO t SELECT {round}00 + n FROM generate_series(1, 20) n"
        ));
        let mut capture = database.open(&["t"]).unwrap();
        pass(capture.as_mut(), &options, round * 20, 0);
    }
    let published = published(&options);
    let created = published.iter().filter(|change| change.op == Op::Create);
    let positions: BTreeSet<_> = created.clone().map(|change| change.position).collect();
    assert_eq!((created.count(), positions.len()), (80, 80));
}

#[test]
fn a_column_added_while_it_runs_is_version_2() {
    let Some(mut database) = Database::new("a_column_added_while_it_runs_is_version_2") else {
        return;
    };
    database.run("CREATE TABLE t (id int PRIMARY KEY, name text)");
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder, &database.url, &database.name);
    let mut capture = database.open(&["t"]).unwrap();
    database.run("INSERT INTO t VALUES (1, 'old')");
    database.run("ALTER TABLE t ADD extra int; INSERT INTO t VALUES (2, 'new', 7)");
    pass(capture.as_mut(), &options, 3, 3);
    let registry = tidemill_log::registry::open(&options.registry).unwrap();
    let subject = format!("{}t-value", options.naming.prefix);
    assert_eq!(registry.latest(&subject).unwrap().unwrap().version, 2);
    assert_eq!(
        published(&options).len(),
        2,
        "old and new records are both read"
    );
}

#[test]
fn what_cannot_be_published_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source.db");
    let source = tidemill_log::sqlite::connect(file.to_str().unwrap()).unwrap();
    source
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, d DATE);
             INSERT INTO t VALUES (1, 'good', '2000-01-01'), (2, 'bad', 'soon'),
                                  (3, hex(zeroblob(600000)), NULL), (4, 'good', NULL)",
        )
        .unwrap();
    let options = options(&folder, &format!("sqlite://{}", file.display()), "aside");
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let running = std::thread::spawn({
        let (options, stats, stop) = (options.clone(), Arc::clone(&stats), Arc::clone(&stop));
        move || stream(options, stats, stop)
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    while stats.captured.load(Ordering::Relaxed) < 4
        || stats.dead_letters.load(Ordering::Relaxed) < 2
    {
        assert!(
            Instant::now() < deadline && !running.is_finished(),
            "{stats:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
    let ops = |op| published(&options).iter().filter(|it| it.op == op).count();
    assert_eq!((ops(Op::Read), ops(Op::Withheld)), (2, 2));
    let letters = letters(&options);
    let [captured, published] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(
        (captured.stage, published.stage),
        (Stage::Capture, Stage::Publish)
    );
    let from = |letter: &DeadLetter| match &letter.source {
        Source::Change { table, key, .. } => (table.clone(), key.clone()),
        other => panic!("{other}"),
    };
    assert_eq!(from(captured), ("t".to_owned(), "2".to_owned()));
    assert_eq!(from(published), ("t".to_owned(), "3".to_owned()));
    let row = String::from_utf8(captured.value.clone().unwrap()).unwrap();
    assert!(captured.reason.contains("`d`") && row.contains("soon"));
    assert!(published.reason.contains("bytes"), "{}", published.reason);
    let row = published.value.as_ref().unwrap();
    assert!(row.len() > 1_200_000, "all of the row is kept");
}

fn letters(options: &StreamOptions) -> Vec<DeadLetter> {
    let log = tidemill_log::log::open(&options.log).unwrap();
    let topic = dead_letter::topic_of(&options.name);
    let mut letters = Vec::new();
    let mut each = |entry| {
        if let Entry::Letter(kept) = entry {
            letters.push(kept.letter);
        }
        Ok(())
    };
    dead_letter::read(log.as_ref(), &topic, &mut each).unwrap();
    letters
}

/// How long 200 appends of one record take, in milliseconds, sorted.
fn bare_appends(log: &dyn Log, topic: &str) -> Vec<u128> {
    log.create_topic(topic, 1).unwrap();
    let mut producer = log.producer().unwrap();
    let record = Record {
        topic: topic.to_owned(),
        partition: Some(0),
        key: None,
        value: None,
        timestamp_ms: 0,
    };
    let append = |_| {
        let begin = Instant::now();
        producer.append(std::slice::from_ref(&record)).unwrap();
        begin.elapsed().as_millis()
    };
    let mut took: Vec<_> = (0..200).map(append).collect();
    took.sort_unstable();
    took
}

#[test]
fn from_commit_to_kafka_in_milliseconds() {
    let test = "from_commit_to_kafka_in_milliseconds";
    let Ok(kafka) = std::env::var("TIDEMILL_TEST_KAFKA") else {
        // Past the harness, which hides what a passing test prints.
        let line = format!("left out: {test} needs TIDEMILL_TEST_KAFKA (run ./test)\n");
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());

        return;
    };
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run("CREATE TABLE t (id int PRIMARY KEY, name text)");
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder, &database.url, &database.name);
    options.log = kafka;
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let running = std::thread::spawn({
        let (options, stats, stop) = (options.clone(), Arc::clone(&stats), Arc::clone(&stop));
        move || stream(options, stats, stop)
    });
    let topic = format!("{}t", options.naming.prefix);
    let log = tidemill_log::log::open(&options.log).unwrap();
    // The topic is made when the capture is open.
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.ranges(&topic).is_err() {
        assert!(
            Instant::now() < deadline && !running.is_finished(),
            "{stats:?}"
        );
    }
    let mut reader = log.reader(&topic, &[(0, 0), (1, 0), (2, 0)]).unwrap();
    let url = database.url.clone();
    // 1,000 changes a second for 3 seconds, whatever comes of them.
    let writer = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let begin = Instant::now();
        for batch in 0..300 {
            let due = begin + Duration::from_millis(10) * batch;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let insert = "INSERT INTO t SELECT n, 'x' FROM generate_series($1::int, $1 + 9) n";
            client
                .execute(insert, &[&(i32::try_from(batch).unwrap() * 10)])
                .unwrap();
        }
    });
    let mut arrived = Vec::new();
    while arrived.len() < 3_000 {
        assert!(
            Instant::now() < deadline,
            "{} of 3000 came; {stats:?}",
            arrived.len()
        );
        let each = &mut |record: tidemill_log::log::RecordRef<'_>| {
            // A truncate, with which a snapshot begins, has no key.
            if record.key.is_some() {
                arrived.push(jiff::Timestamp::now().as_millisecond() - record.timestamp_ms);
            }
        };
        reader
            .poll(1_000, Duration::from_millis(100), each)
            .unwrap();
    }
    writer.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
    let bare = bare_appends(log.as_ref(), &format!("{topic}.bare"));
    arrived.sort_unstable();
    assert_eq!(arrived.len(), 3_000);
    eprintln!(
        "commit to Kafka's reader: p50 {} ms, p99 {} ms; a bare append: p50 {} ms, p99 {} ms",
        arrived[1_500], arrived[2_970], bare[100], bare[198]
    );
}

#[test]
fn rows_of_600_kb_are_updated_and_deleted_and_one_that_grows_too_large_is_withheld() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source.db");
    let source = tidemill_log::sqlite::connect(file.to_str().unwrap()).unwrap();
    let run = |sql: &str| source.execute_batch(sql).unwrap();
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
         INSERT INTO t VALUES (1, printf('%.600000c', 'a'))");
    let options = options(&folder, &format!("sqlite://{}", file.display()), "large");
    let open = || capture::open(&options.database, &options.tables, "large", false).unwrap();
    pass(open().as_mut(), &options, 2, 2);
    run("UPDATE t SET name = printf('%.600000c', 'b');
         UPDATE t SET name = 'small';
         UPDATE t SET name = printf('%.1100000c', 'c');
         UPDATE t SET name = 'small again';
         DELETE FROM t");
    // What was acknowledged a moment ago is not written down yet: all of it comes again.
    pass(open().as_mut(), &options, 7, 7);
    let mut published = published(&options);
    // The snapshot that comes again begins the partitions anew that are still empty.
    published.retain(|change| change.op != Op::Truncate);
    let seen = published.iter().map(|change| {
        let of = |row: &Option<Vec<Value>>| row.as_ref().map(|row| row[1] != Value::Null);
        (change.op, of(&change.before), of(&change.after))
    });
    let expected = [
        (Op::Read, None, Some(true)),
        // Both do not fit into one record: of the old row its key is left.
        (Op::Update, Some(false), Some(true)),
        (Op::Update, Some(true), Some(true)),
        (Op::Withheld, Some(false), None),
        (Op::Update, Some(false), Some(true)),
        (Op::Delete, Some(true), None),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

/// A topic that an earlier version wrote: the partition was the hash of the record's key. What it
/// published just before comes once more by the new rule, at the same position.
#[test]
fn a_change_that_comes_again_by_the_new_rule_has_the_position_that_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder, "sqlite://nowhere/db", "rules");
    let file = folder.path().join("source.db");
    let source = tidemill_log::sqlite::connect(file.to_str().unwrap()).unwrap();
    source
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO t SELECT value, 'x' FROM json_each('[1,2,3,4,5,6,7,8]')",
        )
        .unwrap();
    let database = format!("sqlite://{}", file.display());
    let mut capture = capture::open(&database, &options.tables, "rules", false).unwrap();
    let captured = crate::read(capture.as_mut(), 9);
    let topic = format!("{}t", options.naming.prefix);
    let log = tidemill_log::log::open(&options.log).unwrap();
    log.create_topic(&topic, options.partitions).unwrap();
    let registry = tidemill_log::registry::open(&options.registry).unwrap();
    let mut encoder = Encoder::new(&topic, registry);
    let rows = captured.iter().filter_map(|captured| match captured {
        Captured::Change(change) if change.op == Op::Read => encoder.encode(change).ok(),
        _ => None,
    });
    // Without a partition the log hashes the record's key.
    let rows: Vec<Record> = rows.collect();
    log.producer().unwrap().append(&rows).unwrap();
    publisher(&options, false).publish(&captured).unwrap();
    let mut published = published(&options);
    published.retain(|change| change.op == Op::Read);
    assert!(published.len() > 8, "some keys have another partition");
    for change in &published {
        let same = published.iter().filter(|it| it.after == change.after);
        assert!(same.into_iter().all(|it| it.position == change.position));
    }
}

/// Streams until the snapshot is done and the topic of `t` holds a row of this id, or to an error.
fn streamed(database: &Database, options: &StreamOptions, id: i64) -> Option<String> {
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let topic = format!("{}t", options.naming.prefix);
    let log = tidemill_log::log::open(&options.log).unwrap();
    log.create_topic(&topic, options.partitions).unwrap();
    let is_it = |change: &&Change| {
        let row = change.after.as_ref();
        row.is_some_and(|row| row.first() == Some(&Value::Int(id)))
    };
    let count = || published(options).iter().filter(is_it).count();
    let before = count();
    let running = std::thread::spawn({
        let (options, stats, stop) = (options.clone(), Arc::clone(&stats), Arc::clone(&stop));
        move || stream(options, stats, stop)
    });
    let mut client = postgres::Client::connect(&database.url, postgres::NoTls).unwrap();
    let mut is_done = || {
        let done = client.query_one("SELECT bool_and(snapshot_done) FROM _tidemill_capture", &[]);
        done.is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true))
    };
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if running.is_finished() || (count() > before && is_done()) {
            break;
        }
        let late = Instant::now() > deadline;
        assert!(!late, "no row {id}: {:#?}", published(options));
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    running.join().unwrap().err().map(|error| error.to_string())
}

/// The embedded registry is as strict as Confluent's default.
#[test]
fn a_type_that_the_registry_refuses_has_two_ways_on() {
    let test = "a_type_that_the_registry_refuses_has_two_ways_on";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY);
         INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES (1)",
    );
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder, &database.url, &database.name);
    options.tables.push("u".to_owned());
    let registry = tidemill_log::registry::open(&options.registry).unwrap();
    let subject = format!("{}t-value", options.naming.prefix);
    let version = || registry.latest(&subject).unwrap().unwrap().version;
    let begun = |options: &StreamOptions, table: &str| {
        let records = records(options, &format!("{}{table}", options.naming.prefix));
        let begins = records.iter().filter(|record| record.key.is_none());
        begins.count()
    };
    assert_eq!(streamed(&database, &options, 1), None);

    database.run("ALTER TABLE t ALTER n TYPE text USING n::text; INSERT INTO t VALUES (2, 'two')");
    for _start in 0..2 {
        let said = streamed(&database, &options, 2).unwrap();
        let ways = [
            "`compatibility = \"none\"`",
            "`tidemill ingest --resnapshot`",
        ];
        assert!(said.contains(&subject), "{said}");
        assert!(ways.iter().all(|way| said.contains(way)), "{said}");
    }
    assert_eq!((version(), begun(&options, "u")), (1, 0));
    // One way reads all tables anew, and holds for that time.
    options.resnapshot = true;
    assert_eq!(streamed(&database, &options, 2), None);
    let everywhere = options.partitions as usize;
    assert_eq!((version(), begun(&options, "u")), (2, everywhere));
    options.resnapshot = false;
    database.run("ALTER TABLE t ALTER n TYPE int USING length(n); INSERT INTO t VALUES (3, 3)");
    assert!(streamed(&database, &options, 3).is_some());
    // The other one only the table that changed. Its schema is the first again, and the newest.
    options.compatibility = Compatibility::None;
    assert_eq!(streamed(&database, &options, 3), None);
    assert_eq!((version(), begun(&options, "u")), (3, everywhere));
}

#[test]
fn a_column_that_comes_back_comes_with_the_rows_of_then_read_anew() {
    let test = "a_column_that_comes_back_comes_with_the_rows_of_then_read_anew";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)");
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder, &database.url, &database.name);
    assert_eq!(streamed(&database, &options, 1), None);
    // The capture sees the two one after the other.
    database.run("ALTER TABLE t DROP n; INSERT INTO t VALUES (2)");
    assert_eq!(streamed(&database, &options, 2), None);
    database.run("ALTER TABLE t ADD n int; INSERT INTO t VALUES (3, 3)");
    assert_eq!(streamed(&database, &options, 3), None);
    let all = published(&options);
    let rows = all.iter();
    let rows = rows.filter_map(|change| Some((change.op, change.after.clone()?)));
    let rows: Vec<(Op, Vec<Value>)> = rows.collect();
    for (id, n) in [(1, Value::Null), (2, Value::Null), (3, Value::Int(3))] {
        assert!(
            rows.contains(&(Op::Read, vec![Value::Int(id), n])),
            "{rows:?}"
        );
    }
}
