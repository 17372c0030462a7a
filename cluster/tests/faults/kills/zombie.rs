//! A process that stood still while another one took over, and that wakes up: it changes nothing
//! that anybody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_log::envelope::Decoder;
use tidemill_log::envelope::event::{Op, Position, Value};
use tidemill_log::log::Record;

use crate::harness::database::Database;
use crate::harness::own::Own;
use crate::harness::{PATIENCE, Place, Process, View, seed, send, unique, until};

/// How soon the old process must have ended once there is something to do.
const SOON: Duration = Duration::from_secs(30);
const KEYS: u32 = 200;

/// Rows by key, in a topic that says what the row of its key is.
struct Items {
    topic: String,
    view: String,
    rows: BTreeMap<u32, u64>,
    next: u64,
}

impl Items {
    fn new(place: &Place) -> Self {
        let items = Self {
            topic: unique("items"),
            view: unique("served"),
            rows: BTreeMap::new(),
            next: 0,
        };
        place.topic(&items.topic, 2);
        let (topic, view) = (&items.topic, &items.view);
        place.write(
            "views.sql",
            &format!(
                "CREATE TABLE items (id bigint, n bigint)
                   WITH (topic = '{topic}', format = 'json', envelope = 'upsert');
                 CREATE MATERIALIZED VIEW {view} WITH (primary_key = 'id') AS
                   SELECT id, n FROM items;
                 CREATE MATERIALIZED VIEW {view}_sums WITH (primary_key = 'odd') AS
                   SELECT id % 2 AS odd, count(*) AS rows, sum(n) AS n FROM items GROUP BY 1;"
            ),
        );
        items
    }

    /// Rows change, come and go; each value is greater than all before.
    fn change(&mut self, place: &Place, count: usize, random: &mut StdRng) {
        let records = (0..count).map(|_| {
            let id = random.random_range(0..KEYS);
            let gone = random.random_bool(0.2);
            self.next += 1;
            match gone {
                true => self.rows.remove(&id),
                false => self.rows.insert(id, self.next),
            };
            let value = format!(r#"{{"id": {id}, "n": {}}}"#, self.next);
            Record {
                topic: self.topic.clone(),
                partition: Some(id % 2),
                key: Some(id.to_string().into_bytes()),
                value: (!gone).then_some(value.into_bytes()),
                timestamp_ms: 1,
            }
        });
        place.append(&records.collect::<Vec<_>>());
    }

    fn served(&self) -> View {
        let columns = [("id", DataType::Int64), ("n", DataType::Int64)];
        View::new(&self.view, &columns)
    }

    #[track_caller]
    fn expect(&self, place: &Place) {
        let rows = self.rows.iter();
        let rows = rows.map(|(id, n)| vec![id.to_string(), n.to_string()]);
        place.expect(&self.served(), &rows.collect());
        let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (id, n) in &self.rows {
            let sum = sums.entry(id % 2).or_default();
            *sum = (sum.0 + 1, sum.1 + n);
        }
        let columns = [
            ("odd", DataType::Int64),
            ("rows", DataType::Int64),
            ("n", DataType::Decimal128(29, 0)),
        ];
        let rows = sums.iter();
        let rows =
            rows.map(|(odd, sum)| vec![odd.to_string(), sum.0.to_string(), sum.1.to_string()]);
        let view = View::new(&format!("{}_sums", self.view), &columns);
        place.expect(&view, &rows.collect());
    }

    /// The values that rows have now; a later look may find no smaller one of the same row.
    fn check_no_older(&self, place: &Place, last: &mut BTreeMap<String, u64>) {
        for row in place.view(&self.served()) {
            let n: u64 = row[1].parse().unwrap();
            let before = last.insert(row[0].clone(), n);
            assert!(before <= Some(n), "row {}: {n} after {before:?}", row[0]);
        }
    }
}

/// Stops a process at a random moment. One that holds the lock of the embedded file goes on for a
/// while: SQLite takes it from nobody who lives, so that nobody could take over.
fn stand_still(process: &Process, place: &Place, random: &mut StdRng) {
    loop {
        std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(300)));
        process.signal("STOP");
        let embedded = place.database.starts_with("sqlite:");
        if !embedded || Database::open(&place.database).execute("BEGIN IMMEDIATE; ROLLBACK") {
            return;
        }
        process.signal("CONT");
    }
}

#[test]
fn a_dataflow_that_wakes_up_after_another_took_over_changes_nothing() {
    let test = "a_dataflow_that_wakes_up_after_another_took_over_changes_nothing";
    let mut random = StdRng::seed_from_u64(seed(test));
    for place in Place::all("zombie") {
        let mut items = Items::new(&place);
        items.change(&place, 3000, &mut random);
        let flags = ["-w", "2", "--checkpoint-every", "300ms"];
        let mut old = place.start("dataflow", &flags);
        items.expect(&place);
        for _ in 0..3 {
            // It stands still in the midst of work: some epochs are bound, some are on their way.
            for _ in 0..20 {
                items.change(&place, 100, &mut random);
            }
            stand_still(&old, &place, &mut random);
            let mut new = place.start("dataflow", &[&flags[..], &["--take-over"]].concat());
            items.change(&place, 500, &mut random);
            items.expect(&place);
            let mut last = BTreeMap::new();
            old.signal("CONT");
            let said = until("the old one ends", SOON, || {
                items.change(&place, 50, &mut random);
                items.check_no_older(&place, &mut last);
                new.runs();
                old.ended().map(|ended| {
                    assert_eq!(ended.code(), Some(1), "{}", old.said());
                    old.said()
                })
            });
            assert!(said.contains("must stop"), "{said}");
            items.change(&place, 500, &mut random);
            items.expect(&place);
            old = new;
        }
        old.stop("TERM");
    }
}

/// Numbered changes of a table.
struct Changes {
    client: postgres::Client,
    table: String,
    /// The number of the next one.
    next: i64,
}

/// The ids of rows that are made at once begin here.
const AT_ONCE: i64 = 1_000;
/// Changes that one batch of a capture may have: it reads about a thousand at a time.
const BATCH: usize = 1_010;

/// What a topic holds besides each change once, in order.
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    None,
    /// Changes of one batch, each once more: a process stood still in the midst of its append.
    OfOneBatch,
}

impl Changes {
    fn make(&mut self, count: i64) {
        for _ in 0..count {
            let n = self.next;
            let sql = format!(
                "INSERT INTO {} VALUES ({}, {n})
                 ON CONFLICT (id) DO UPDATE SET n = excluded.n",
                self.table,
                n % 50
            );
            self.client.batch_execute(&sql).unwrap();
            self.next += 1;
        }
    }

    /// New rows, in one transaction.
    fn make_at_once(&mut self, count: i64) {
        let (table, next) = (&self.table, self.next);
        let sql = format!(
            "INSERT INTO {table} SELECT {AT_ONCE} + n, {next} + n FROM generate_series(0, {}) n",
            count - 1
        );
        self.client.batch_execute(&sql).unwrap();
        self.next += count;
    }

    /// Changes all of these rows.
    fn change_at_once(&mut self) {
        let (table, next) = (&self.table, self.next);
        let sql = format!("UPDATE {table} SET n = {next} + id - {AT_ONCE} WHERE id >= {AT_ONCE}");
        let changed = self.client.execute(&sql, &[]).unwrap();
        self.next += i64::try_from(changed).unwrap();
    }

    /// Waits until the topic holds all changes, and checks that it holds each, in order, and what
    /// else it holds. How many copies there are.
    #[track_caller]
    fn expect_published(&self, place: &Place, copies: Copies) -> usize {
        let registry = tidemill_log::registry::open(&place.registry).unwrap();
        let mut decoder = Decoder::new(&self.table, registry);
        let mut seen = BTreeSet::new();
        let mut published: BTreeMap<u32, Vec<Position>> = BTreeMap::new();
        let mut again: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        until("all changes are published", PATIENCE, || {
            seen.clear();
            published.clear();
            again.clear();
            for record in place.records(&self.table) {
                let change = decoder.decode(&record).unwrap();
                let published = published.entry(record.partition).or_default();
                let position = change.position;
                if published.last() < Some(&position) {
                    published.push(position);
                    if let (Op::Create | Op::Update, Some(row)) = (change.op, &change.after) {
                        let Value::Int(n) = row[1] else {
                            panic!("{row:?}");
                        };
                        assert!(seen.insert(n), "change {n} has two positions");
                    }
                } else {
                    let at = published.binary_search(&position);
                    let at = at.unwrap_or_else(|_| {
                        panic!("{position:?} comes first after {:?}", published.last())
                    });
                    again.entry(record.partition).or_default().push(at);
                }
            }
            (seen.len() as i64 == self.next).then_some(())
        });
        for (partition, again) in &again {
            // One batch: neighbours, each once more.
            let neighbours = again.windows(2).all(|two| two[0] + 1 == two[1]);
            assert!(neighbours, "partition {partition}: {again:?} come again");
        }
        let count = again.values().map(Vec::len).sum();
        let most = if copies == Copies::OfOneBatch {
            BATCH
        } else {
            0
        };
        assert!(count <= most, "{count} changes are published again");
        count
    }

    /// Waits until the view holds what the table holds, and checks that no row is older than it
    /// was.
    #[track_caller]
    fn expect_served(&mut self, place: &Place, last: &mut BTreeMap<String, u64>) {
        let sql = format!("SELECT id, n FROM {}", self.table);
        let rows = self.client.query(&sql, &[]).unwrap();
        let rows = rows.iter().map(|row| {
            [0, 1]
                .map(|cell| row.get::<_, i64>(cell).to_string())
                .to_vec()
        });
        let view = self.served();
        let expected = rows.collect();
        until("the view holds what the table holds", PATIENCE, || {
            let found = place.view(&view);
            for row in &found {
                let n: u64 = row[1].parse().unwrap();
                let before = last.insert(row[0].clone(), n);
                assert!(before <= Some(n), "row {}: {n} after {before:?}", row[0]);
            }
            (found == expected).then_some(())
        });
    }

    fn served(&self) -> View {
        let columns = [("id", DataType::Int64), ("n", DataType::Int64)];
        View::new(&format!("{}_served", self.table), &columns)
    }
}

fn captured(place: &Place) -> Changes {
    let table = place.name.clone();
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    let create = format!("CREATE TABLE {table} (id bigint PRIMARY KEY, n bigint)");
    client.batch_execute(&create).unwrap();
    let ingest = format!("[capture]\ntables = [\"{table}\"]\n[publish]\npartitions = 2\n");
    place.write("ingest.toml", &ingest);
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE {table} WITH (format = 'avro', envelope = 'debezium');
             CREATE MATERIALIZED VIEW {table}_served WITH (primary_key = 'id') AS
               SELECT id, n FROM {table};"
        ),
    );
    Changes {
        client,
        table,
        next: 0,
    }
}

/// Waits until something is captured, so that changes come from the stream and not the snapshot.
fn streams(place: &Place, changes: &mut Changes) {
    let slot = format!("tidemill_{}", place.name);
    until("the capture streams", PATIENCE, || {
        let sql = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active
                   AND EXISTS (SELECT FROM _tidemill_capture WHERE name = $1 AND snapshot_done)";
        changes.client.query_opt(sql, &[&slot]).ok().flatten()
    });
}

/// What a capture has of the server ends, as when the server moves to another machine.
fn end_sessions(changes: &mut Changes, slot: &str) {
    until("the old sessions are gone", PATIENCE, || {
        let rows = changes.client.query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND classid = hashtext('tidemill')::oid
             AND objid = hashtext($1)::oid AND objsubid = 2
             UNION ALL SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
             WHERE slot_name = $1 AND active",
            &[&slot],
        );
        rows.unwrap().is_empty().then_some(())
    });
}

fn ingest(place: &Place) -> Process {
    place.start("ingest", &["--standby"])
}

/// Makes more changes than the way to a process that stands still holds: the server's end of it
/// is stuck in writing.
fn fill_the_way(changes: &mut Changes, slot: &str) {
    until("the server is stuck in writing", SOON, || {
        let sql = format!(
            "INSERT INTO {} SELECT 1000 + n, n, repeat('x', 100000) FROM generate_series({}, {}) n",
            changes.table,
            changes.next,
            changes.next + 39
        );
        changes.client.batch_execute(&sql).unwrap();
        changes.next += 40;
        let sql = "SELECT 1 FROM pg_stat_activity JOIN pg_replication_slots ON pid = active_pid
                   WHERE slot_name = $1 AND wait_event = 'WalSenderWriteData'";
        changes.client.query_opt(sql, &[&slot]).unwrap()
    });
}

#[test]
fn an_ingest_that_stands_still_loses_its_slot_to_the_next() {
    let Some(place) = Place::services("held") else {
        return;
    };
    let slot = format!("tidemill_{}", place.name);
    let mut changes = captured(&place);
    let filler = format!("ALTER TABLE {} ADD filler text", changes.table);
    changes.client.batch_execute(&filler).unwrap();
    let mut old = ingest(&place);
    streams(&place, &mut changes);
    let mut new = ingest(&place);
    new.says("another process captures with slot");
    for _ in 0..2 {
        changes.make(200);
        changes.expect_published(&place, Copies::None);
        old.signal("STOP");
        let stopped = Instant::now();
        changes.make(200);
        fill_the_way(&mut changes, &slot);
        changes.make(200);
        let after = changes.next;
        until("the next one takes over", SOON, || {
            let log = tidemill_log::log::open(&place.log).unwrap();
            let high: i64 = log
                .ranges(&changes.table)
                .ok()?
                .iter()
                .map(|it| it.high)
                .sum();
            (high >= after).then_some(())
        });
        eprintln!(
            "taken over and caught up {:.1?} after the freeze",
            stopped.elapsed()
        );
        changes.expect_published(&place, Copies::None);
        let said = old.said().len();
        old.signal("CONT");
        changes.make(200);
        // It waits, as the other one did.
        until("the old one waits", PATIENCE, || {
            old.runs();
            let waits = old.said()[said..].contains("another process captures with slot");
            waits.then_some(())
        });
        changes.make(200);
        changes.expect_published(&place, Copies::None);
        std::mem::swap(&mut old, &mut new);
    }
    old.stop("TERM");
    changes.make(200);
    changes.expect_published(&place, Copies::None);
    new.stop("TERM");
    Database::open(&place.database).clean(&place.name, &[&changes.table]);
}

/// While Kafka is away, the old one has changes in hand: one batch that it tries to append, and
/// what it read ahead. Then it stands still, and the server forgets it. Whether that batch comes
/// behind the newer changes is up to the moment; what has to hold holds either way.
#[test]
fn what_an_ingest_publishes_that_wakes_up_after_another_took_over_counts_once() {
    let test = "what_an_ingest_publishes_that_wakes_up_after_another_took_over_counts_once";
    let Some(own) = Own::start(test, &["kafka"]) else {
        return;
    };
    let services = Place::services("overtaken").unwrap();
    let place = Place::on(
        "overtaken",
        services.database.clone(),
        own.url("kafka"),
        services.registry.clone(),
        services.sink.rsplit_once('/').unwrap().0,
    );
    let mut changes = captured(&place);
    let (slot, mut last) = (format!("tidemill_{}", place.name), BTreeMap::new());
    let mut old = ingest(&place);
    let flags = ["-w", "2", "--checkpoint-every", "300ms"];
    let mut dataflow = place.start("dataflow", &flags);
    streams(&place, &mut changes);
    changes.make(50);
    changes.expect_published(&place, Copies::None);
    changes.expect_served(&place, &mut last);
    let kafka = own.pid("kafka");
    assert!(send("STOP", kafka));
    changes.make_at_once(3_000);
    until("the old one was sent all changes", PATIENCE, || {
        let sql = "SELECT 1 FROM pg_stat_replication r JOIN pg_replication_slots s
                   ON r.pid = s.active_pid
                   WHERE s.slot_name = $1 AND r.sent_lsn >= pg_current_wal_flush_lsn()";
        changes.client.query_opt(sql, &[&slot]).unwrap()
    });
    old.signal("STOP");
    end_sessions(&mut changes, &slot);
    let mut new = ingest(&place);
    assert!(send("CONT", kafka));
    changes.make(100);
    changes.change_at_once();
    changes.expect_published(&place, Copies::OfOneBatch);
    changes.expect_served(&place, &mut last);
    old.signal("CONT");
    changes.make(300);
    // It may try again, but only behind the one that took over.
    old.says("another process captures with slot");
    changes.make(300);
    changes.expect_published(&place, Copies::OfOneBatch);
    changes.expect_served(&place, &mut last);
    new.runs();
    new.stop("TERM");
    changes.make(100);
    let count = changes.expect_published(&place, Copies::OfOneBatch);
    eprintln!("{test}: {count} changes came again");
    changes.expect_served(&place, &mut last);
    dataflow.kill();
    // So they come again for certain, and whoever starts knows what came before.
    let copies = place.records(&changes.table).into_iter().take(500);
    let copies = copies.map(|record| Record {
        topic: changes.table.clone(),
        partition: Some(record.partition),
        key: record.key,
        value: record.value,
        timestamp_ms: record.timestamp_ms,
    });
    place.append(&copies.collect::<Vec<_>>());
    dataflow = place.start("dataflow", &["-w", "3", "--take-over"]);
    changes.make(10);
    changes.expect_served(&place, &mut last);
    dataflow.says("changes that came before came again");
    changes.make(10);
    changes.expect_served(&place, &mut last);
    dataflow.stop("TERM");
    old.stop("TERM");
    Database::open(&place.database).clean(&place.name, &[&changes.table]);
}
