//! A process that stood still while another one took over, and that wakes up: it changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_log::envelope::Decoder;
use tidemill_log::event::{Op, Value};
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
            ("n", DataType::Int64),
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
            std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(300)));
            old.signal("STOP");
            let mut new = place.start("dataflow", &flags);
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
    next: i64,
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

    /// Changes of one transaction.
    fn make_at_once(&mut self, count: i64) {
        let sql = format!(
            "INSERT INTO {} SELECT 1000 + n, n FROM generate_series({}, {}) n",
            self.table,
            self.next,
            self.next + count - 1
        );
        self.client.batch_execute(&sql).unwrap();
        self.next += count;
    }

    /// Waits until the topic holds all changes, and checks that it holds each once, in order.
    #[track_caller]
    fn expect_published(&self, place: &Place) {
        let registry = tidemill_log::registry::open(&place.registry).unwrap();
        let mut decoder = Decoder::new(&self.table, registry);
        until("all changes are published", PATIENCE, || {
            let log = tidemill_log::log::open(&place.log).unwrap();
            let high: i64 = log.ranges(&self.table).ok()?.iter().map(|it| it.high).sum();
            (high >= self.next).then_some(())
        });
        let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
        for record in place.records(&self.table) {
            let change = decoder.decode(&record).unwrap();
            let (partition, position) = (record.partition, change.position);
            let before = last.insert(partition, position);
            assert!(before < Some(position), "{position:?} after {before:?}");
            if let (Op::Create | Op::Update, Some(row)) = (change.op, &change.after) {
                let Value::Int(n) = row[1] else {
                    panic!("{row:?}");
                };
                assert!(seen.insert(n), "change {n} is published twice");
            }
        }
        assert_eq!(
            seen.len() as i64,
            self.next,
            "some changes are not published"
        );
    }
}

fn captured(place: &Place) -> Changes {
    let table = place.name.clone();
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    let create = format!("CREATE TABLE {table} (id bigint PRIMARY KEY, n bigint)");
    client.batch_execute(&create).unwrap();
    let ingest = format!("[capture]\ntables = [\"{table}\"]\n[publish]\npartitions = 2\n");
    place.write("ingest.toml", &ingest);
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
    place.start("ingest", &[])
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
        changes.expect_published(&place);
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
        changes.expect_published(&place);
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
        changes.expect_published(&place);
        std::mem::swap(&mut old, &mut new);
    }
    old.stop("TERM");
    changes.make(200);
    changes.expect_published(&place);
    new.stop("TERM");
    Database::open(&place.database).clean(&place.name, &[&changes.table]);
}

/// While Kafka is away, the old one has changes in hand: one batch that it tries to append, and
/// what it read ahead. Then it stands still, and the server forgets it.
#[test]
fn an_ingest_that_wakes_up_after_another_took_over_publishes_nothing() {
    let test = "an_ingest_that_wakes_up_after_another_took_over_publishes_nothing";
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
    let slot = format!("tidemill_{}", place.name);
    let mut old = ingest(&place);
    streams(&place, &mut changes);
    changes.make(50);
    changes.expect_published(&place);
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
    changes.expect_published(&place);
    old.signal("CONT");
    changes.make(300);
    // It may try again, but only behind the one that took over.
    old.says("another process captures with slot");
    changes.make(300);
    changes.expect_published(&place);
    new.runs();
    new.stop("TERM");
    changes.make(100);
    changes.expect_published(&place);
    old.stop("TERM");
    Database::open(&place.database).clean(&place.name, &[&changes.table]);
}
