//! What people do to captured tables: dropped, swapped, left out, partitions moved. What was
//! captured ends equal to PostgreSQL's own answer each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_ingest::Kind;
use tidemill_ingest::capture::{Capture, Captured};
use tidemill_ingest::publish::stream;
use tidemill_ingest::stats::Stats;
use tidemill_log::envelope::event::{Change, Op, Position, Value};

use crate::postgres::Database;
use crate::published::options;

/// A capture and what its changes come to.
struct Followed {
    tables: Vec<&'static str>,
    capture: Option<Box<dyn Capture>>,
    rows: BTreeMap<(String, i64), Value>,
}

impl Followed {
    fn new(tables: &[&'static str]) -> Self {
        Self {
            tables: tables.to_vec(),
            capture: None,
            rows: BTreeMap::new(),
        }
    }

    /// Applies one batch and returns whether nothing came; a capture that is over is opened again.
    fn step(&mut self, database: &Database) -> bool {
        let (tables, rows) = (&self.tables, &mut self.rows);
        let capture = self
            .capture
            .get_or_insert_with(|| database.open(tables).unwrap());
        let batch = match capture.next(Duration::from_millis(50)) {
            Ok(batch) => batch,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Retry, "{error}");
                self.capture = None;
                return false;
            }
        };
        for captured in &batch {
            let Captured::Change(change) = captured else {
                panic!("{captured:?}");
            };
            let key = |row: &Option<Vec<Value>>| match row.as_ref().map(|row| &row[0]) {
                Some(Value::Int(id)) => (change.table.name.clone(), *id),
                other => panic!("{other:?}"),
            };
            match change.op {
                Op::Truncate => rows.retain(|(table, _), _| *table != change.table.name),
                Op::Delete => drop(rows.remove(&key(&change.before))),
                _ => {
                    let value = change.after.as_ref().unwrap().last().unwrap().clone();
                    rows.insert(key(&change.after), value);
                }
            }
        }
        if let Some(last) = batch.last() {
            capture.acknowledge(last.position()).unwrap();
        }
        batch.is_empty()
    }

    /// Waits until what was captured is what PostgreSQL answers: the first and the last column.
    fn equals(&mut self, database: &mut Database, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            // A snapshot's transaction ends with the empty batch, and what follows locks tables.
            let at_rest = self.step(database);
            let mut there = BTreeMap::new();
            for table in &self.tables {
                let sql = format!("SELECT id::bigint, n::bigint FROM {table}");
                for row in database.client.query(&sql, &[]).unwrap() {
                    let key = ((*table).to_owned(), row.get(0));
                    let n: Option<i64> = row.get(1);
                    there.insert(key, n.map_or(Value::Null, Value::Int));
                }
            }
            if at_rest && self.rows == there {
                return;
            }
            let rows = &self.rows;
            assert!(Instant::now() < deadline, "{what}: {rows:?} for {there:?}");
        }
    }
}

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, n int);
                      CREATE TABLE b (id int PRIMARY KEY, n int);
                      INSERT INTO a SELECT g, g FROM generate_series(1, 2500) g;
                      INSERT INTO b VALUES (1, 1), (2, 2)";

#[test]
fn a_table_that_was_left_out_is_read_anew() {
    let Some(mut database) = Database::new("a_table_that_was_left_out_is_read_anew") else {
        return;
    };
    database.run(TABLES);
    let mut followed = Followed::new(&["a", "b"]);
    followed.equals(&mut database, "both");
    followed.capture = None;
    followed.tables = vec!["a"];
    let left = std::mem::take(&mut followed.rows);
    let (a, b): (BTreeMap<_, _>, _) = left.into_iter().partition(|((table, _), _)| table == "a");
    followed.rows = a;
    database.run("INSERT INTO a VALUES (3000, 3)");
    followed.equals(&mut database, "one");
    database.run("INSERT INTO b VALUES (3, 3); UPDATE b SET n = 20 WHERE id = 2");
    database.run("DELETE FROM b WHERE id = 1; INSERT INTO a VALUES (3001, 4)");
    followed.equals(&mut database, "one, changed");
    followed.capture = None;
    database.run("DELETE FROM b WHERE id = 2; INSERT INTO a VALUES (3002, 5)");
    followed.tables = vec!["a", "b"];
    followed.rows.extend(b);
    // A process that ends within the snapshot notes nothing.
    drop(database.open(&["a", "b"]).unwrap());
    database.run("INSERT INTO b VALUES (4, 4); INSERT INTO a VALUES (3003, 6)");
    followed.equals(&mut database, "both again");
    database.run("UPDATE b SET n = 5; UPDATE a SET n = 6");
    followed.equals(&mut database, "both go on");
}

#[test]
fn another_table_under_the_name_is_read_anew() {
    let Some(mut database) = Database::new("another_table_under_the_name_is_read_anew") else {
        return;
    };
    database.run(TABLES);
    let mut followed = Followed::new(&["a", "b"]);
    let changes = [
        "DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b VALUES (7, 7)",
        "BEGIN; ALTER TABLE a RENAME TO old; ALTER TABLE b RENAME TO a;
         ALTER TABLE old RENAME TO b; INSERT INTO a VALUES (9, 9); COMMIT",
        "ALTER TABLE a DROP CONSTRAINT b_pkey; INSERT INTO a VALUES (9, 10);
         DELETE FROM a WHERE n = 9; ALTER TABLE a ADD PRIMARY KEY (id)",
        "ALTER TABLE b DROP n; ALTER TABLE b ADD n int NOT NULL DEFAULT 5",
        "ALTER TABLE a ALTER n TYPE bigint USING n + 100",
        "TRUNCATE a, b; INSERT INTO b VALUES (5, 5)",
        "ALTER TABLE b RENAME n TO m; ALTER TABLE b RENAME m TO n",
    ];
    followed.equals(&mut database, "at first");
    for (number, change) in changes.into_iter().enumerate() {
        if number % 2 == 1 {
            followed.capture = None;
        }
        if number == 2 {
            database.run("ALTER TABLE a REPLICA IDENTITY FULL");
        }
        database.run(change);
        followed.equals(&mut database, change);
    }
    let publication = format!("tidemill_{}", database.name);
    database.run(&format!("ALTER PUBLICATION {publication} DROP TABLE a"));
    database.run("INSERT INTO a VALUES (50, 50)");
    followed.equals(&mut database, "taken out of the publication");
}

#[test]
fn what_the_stream_does_not_tell_of_old_rows_is_read_anew() {
    let test = "what_the_stream_does_not_tell_of_old_rows_is_read_anew";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(
        "CREATE TABLE a (id int PRIMARY KEY, k int NOT NULL UNIQUE, n int);
         INSERT INTO a SELECT g, g, g FROM generate_series(1, 1500) g;
         CREATE TABLE b (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE b0 PARTITION OF b FOR VALUES FROM (0) TO (100);
         INSERT INTO b SELECT generate_series(1, 9); ALTER TABLE b ADD n int;
         CREATE TABLE c (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id * 2) STORED, z int);
         INSERT INTO c (id) VALUES (1), (2)",
    );
    let set = format!("ALTER PUBLICATION tidemill_{}", database.name);
    let changes = [
        "ALTER TABLE a ALTER n TYPE int USING n + 7".to_owned(),
        "ALTER TABLE a DROP n; ALTER TABLE a ADD n int; UPDATE a SET n = 1 WHERE id = 1".to_owned(),
        "ALTER TABLE b DROP n; ALTER TABLE b ADD n int NOT NULL DEFAULT 4".to_owned(),
        "ALTER TABLE a REPLICA IDENTITY USING INDEX a_k_key;
         UPDATE a SET id = id + 5000 WHERE id < 9; DELETE FROM a WHERE id < 20;
         ALTER TABLE a REPLICA IDENTITY DEFAULT"
            .to_owned(),
        format!("{set} DROP TABLE a; DELETE FROM a WHERE id < 30; {set} ADD TABLE a"),
        format!("{set} SET (publish = 'insert'); DELETE FROM a WHERE id < 40"),
        "ALTER TABLE c ALTER n DROP EXPRESSION; ALTER TABLE c DROP z".to_owned(),
    ];
    let mut followed = Followed::new(&["a", "b"]);
    followed.equals(&mut database, "at first");
    for stopped in [false, true] {
        for change in &changes {
            if change.contains("TABLE c ") {
                continue;
            }
            if stopped {
                followed.capture = None;
            }
            database.run(change);
            followed.equals(&mut database, change);
        }
    }
    followed.capture = None;
    followed.tables.push("c");
    // No query of PostgreSQL's answers what is not captured of a generated column.
    while !followed.step(&database) {}
    database.run(&changes[6]);
    followed.equals(&mut database, &changes[6]);
}

#[test]
fn a_change_has_its_place_in_the_transaction_whatever_is_captured_then() {
    let test = "a_change_has_its_place_in_the_transaction_whatever_is_captured_then";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(TABLES);
    let mut capture = database.open(&["a", "b"]).unwrap();
    crate::read(capture.as_mut(), 2 + 2502);
    let deadline = Instant::now() + Duration::from_secs(120);
    // Only what is noted is read anew alone.
    let noted = "SELECT FROM pg_tables WHERE tablename = '_tidemill_capture_tables'";
    while database.client.query(noted, &[]).unwrap().is_empty()
        || database
            .client
            .query("SELECT FROM _tidemill_capture_tables", &[])
            .unwrap()
            .len()
            < 2
    {
        assert!(Instant::now() < deadline);
        let position = Position {
            commit: u64::MAX >> 2,
            index: 0,
        };
        let batch = capture.next(Duration::from_millis(20)).unwrap();
        assert!(batch.is_empty());
        capture.acknowledge(position).unwrap();
    }
    drop(capture);
    database.run(
        "BEGIN; UPDATE a SET id = id + 5000 WHERE id < 4; INSERT INTO b VALUES (10, 1);
         DELETE FROM a WHERE id = 5001; UPDATE b SET id = 11 WHERE id = 10; DELETE FROM b;
         INSERT INTO b VALUES (11, 3); UPDATE b SET n = 4; COMMIT",
    );
    let first = of_b(&database, &["a", "b"]);
    // The same once more, as after a kill, while `a` is read anew.
    database.run("ALTER TABLE a ALTER n TYPE bigint USING n + 1");
    assert_eq!(of_b(&database, &["a", "b"]), first);
    // And once more without `a`.
    assert_eq!(of_b(&database, &["b"]), first);
}

/// The 8 changes of `b`, of which none is acknowledged.
fn of_b(database: &Database, tables: &[&str]) -> Vec<Change> {
    let mut capture = database.open(tables).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut out = Vec::new();
    while out.len() < 8 {
        assert!(Instant::now() < deadline, "{out:?}");
        let batch = capture.next(Duration::from_millis(50)).unwrap();
        for captured in batch {
            match captured {
                Captured::Change(change) if change.snapshot => {
                    capture.acknowledge(change.position).unwrap();
                }
                Captured::Change(change) if change.table.name == "b" => out.push(change),
                Captured::Change(_) => {}
                Captured::Refused(refused) => panic!("{refused:?}"),
            }
        }
    }
    out
}

#[test]
fn partitions_come_and_go() {
    let Some(mut database) = Database::new("partitions_come_and_go") else {
        return;
    };
    database.run(
        "CREATE TABLE a (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE a0 PARTITION OF a FOR VALUES FROM (0) TO (10);
         CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (10) TO (20);
         CREATE TABLE b (id int PRIMARY KEY, n int);
         INSERT INTO a SELECT g, g FROM generate_series(0, 19) g",
    );
    let mut followed = Followed::new(&["a", "b"]);
    let changes = [
        "TRUNCATE a0",
        "ALTER TABLE a DETACH PARTITION a0; INSERT INTO a0 VALUES (9, 90);
         ALTER TABLE a ATTACH PARTITION a0 FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE a DETACH PARTITION a1",
        "INSERT INTO a1 VALUES (15, 16) ON CONFLICT (id) DO UPDATE SET n = 17;
         ALTER TABLE a ATTACH PARTITION a1 FOR VALUES FROM (10) TO (20)",
        "INSERT INTO a VALUES (1, 1); DROP TABLE a1",
        "CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (20) TO (30);
         INSERT INTO a VALUES (22, 22); UPDATE a SET id = 23 WHERE id = 1",
        "TRUNCATE a; INSERT INTO a VALUES (3, 3)",
    ];
    followed.equals(&mut database, "at first");
    for stopped in [false, true] {
        for change in changes {
            if stopped {
                followed.capture = None;
            }
            database.run(&format!(
                "{change}; INSERT INTO b SELECT count(*), 1 FROM b"
            ));
            followed.equals(&mut database, change);
        }
        database.run(
            "DROP TABLE a2; CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (10) TO (20);
             INSERT INTO a SELECT g, g FROM generate_series(10, 19) g",
        );
    }
}

#[test]
fn two_tables_of_one_topic_are_refused_and_schemas_tell_them_apart() {
    let test = "two_tables_of_one_topic_are_refused_and_schemas_tell_them_apart";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(
        "CREATE SCHEMA north; CREATE SCHEMA south;
         CREATE TABLE north.orders (id int PRIMARY KEY);
         CREATE TABLE south.orders (id int PRIMARY KEY);
         INSERT INTO north.orders VALUES (1); INSERT INTO south.orders VALUES (1)",
    );
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder, &database.url, &database.name);
    options.tables = vec!["north.orders".to_owned(), "south.orders".to_owned()];
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let error = stream(options.clone(), Arc::clone(&stats), Arc::clone(&stop)).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    let said = error.to_string();
    let topic = format!("both be published to topic `{}.orders`", database.name);
    assert!(
        said.contains(&topic) && said.contains("topic_schema = true"),
        "{said}"
    );
    let once = database.refused(&["north.orders", "north.orders"]);
    assert!(once.contains("one table; name it once"), "{once}");

    options.naming.with_schema = true;
    let (running, stopping) = (options.clone(), Arc::clone(&stop));
    let thread = std::thread::spawn(move || stream(running, stats, stopping));
    let log = tidemill_log::log::open(&options.log).unwrap();
    for schema in ["north", "south"] {
        let topic = format!("{}.{schema}.orders", database.name);
        let deadline = Instant::now() + Duration::from_secs(30);
        while log.tail(&topic, 10).map_or(0, |records| records.len()) < 1 {
            assert!(
                Instant::now() < deadline && !thread.is_finished(),
                "{topic}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap().unwrap();
}
