//! Capture from a real PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tidemill_ingest::capture::{Capture, Captured};
use tidemill_ingest::{Kind, capture};
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::schema::ColumnType;

use crate::{STORY, changes, read, row, seen, the_same_story};

/// A database of its own, dropped with its slot at the end.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) client: Client,
    admin: Client,
}

impl Database {
    /// None, said plainly, when no server was given.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, "")
    }

    /// A database made with options of `CREATE DATABASE`.
    pub(crate) fn with(test: &str, options: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
            // Past the harness, which hides what a passing test prints.
            let line = format!("left out: {test} needs TIDEMILL_TEST_POSTGRES (run ./test)\n");
            let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());

            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("capture_{}_{number}", std::process::id());
        let mut admin = Client::connect(&server, NoTls).unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        let url = format!("{base}/{name}");
        let client = Client::connect(&url, NoTls).unwrap();
        Some(Self {
            url,
            name,
            client,
            admin,
        })
    }

    pub(crate) fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap();
    }

    pub(crate) fn open(&self, tables: &[&str]) -> tidemill_ingest::Result<Box<dyn Capture>> {
        self.open_anew(tables, false)
    }

    fn open_anew(
        &self,
        tables: &[&str],
        resnapshot: bool,
    ) -> tidemill_ingest::Result<Box<dyn Capture>> {
        let tables: Vec<_> = tables.iter().map(|&table| table.to_owned()).collect();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            match capture::open(&self.url, &tables, &self.name, resnapshot) {
                // The connections of a dropped capture end a moment later.
                Err(error)
                    if matches!(error.kind(), Kind::Retry | Kind::Fence)
                        && Instant::now() < deadline =>
                {
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    /// Opens what must be refused, and returns why.
    pub(crate) fn refused(&self, tables: &[&str]) -> String {
        let error = self.open(tables).err().expect("it must be refused");
        assert_eq!(error.kind(), Kind::Data, "{error}");
        error.to_string()
    }

    fn confirmed(&mut self) -> i64 {
        let sql = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots
                   WHERE slot_name = $1";
        self.admin.query_one(sql, &[&self.slot()]).unwrap().get(0)
    }

    fn slot(&self) -> String {
        format!("tidemill_{}", self.name)
    }

    /// Drops the slot as soon as nobody reads it.
    fn drop_slot(&mut self) {
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                    WHERE slot_name = $1";
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = self.admin.execute(drop, &[&self.slot()]) {
            assert!(Instant::now() < deadline, "{error:?}");
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.drop_slot();
        }
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = self.admin.batch_execute(&drop);
    }
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text);
                     ALTER TABLE t REPLICA IDENTITY FULL;";

fn last(captured: &[Captured]) -> Position {
    captured.last().unwrap().position()
}

#[test]
fn a_snapshot_then_every_change_in_order() {
    let Some(mut database) = Database::new("a_snapshot_then_every_change_in_order") else {
        return;
    };
    database.run(TABLE);
    database.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let mut capture = database.open(&["t"]).unwrap();
    // Committed after the snapshot was taken, before it is read.
    database.run(STORY);
    let (before, after) = the_same_story(1);
    let read = changes(capture.as_mut(), before.len() + after.len());
    assert_eq!(seen(&read), [before, after].concat());
    assert!(read[..3].iter().all(|change| change.snapshot));
    assert!(
        read[3..]
            .iter()
            .all(|change| !change.snapshot && change.transaction > 0)
    );
    let transaction = "BEGIN; INSERT INTO t VALUES (5, 'x'); TRUNCATE t;
                       INSERT INTO t VALUES (6, NULL); COMMIT";
    database.run(transaction);
    let read = changes(capture.as_mut(), 3);
    let null = Some(vec![Value::Int(6), Value::Null]);
    assert_eq!(
        seen(&read[1..]),
        [(Op::Truncate, None, None), (Op::Create, None, null)]
    );
    assert!(
        read.iter()
            .all(|change| change.position.commit == read[0].position.commit)
    );
}

#[test]
fn more_rows_than_one_batch_and_one_transaction_over_several() {
    let test = "more_rows_than_one_batch_and_one_transaction_over_several";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(TABLE);
    database.run("INSERT INTO t SELECT n, 'n' || n FROM generate_series(1, 2500) n");
    let mut capture = database.open(&["t"]).unwrap();
    let snapshot = read(capture.as_mut(), 2501);
    capture.acknowledge(last(&snapshot)).unwrap();
    database.run("UPDATE t SET name = 'm' || id");
    // Acknowledged in the middle of a transaction: it comes again as a whole, at the same place.
    let mut first = Vec::new();
    while first.is_empty() {
        first = capture.next(Duration::from_secs(10)).unwrap();
    }
    capture.acknowledge(last(&first)).unwrap();
    drop(capture);
    let mut capture = database.open(&["t"]).unwrap();
    let again = read(capture.as_mut(), 2500);
    assert_eq!(again[..first.len()], first[..]);
}

const TYPES: &str = "CREATE TYPE mood AS ENUM ('glad');
    CREATE DOMAIN small AS int;
    CREATE TABLE kinds (id bigint PRIMARY KEY, b bool, i2 int2, i4 int4, f4 float4, f8 float8,
        n numeric(10, 2), free numeric, c varchar(9), m mood, s small, u uuid, j jsonb, x bytea,
        d date, ts timestamp, tz timestamptz, made int GENERATED ALWAYS AS (1) STORED);";
const KINDS: &str = "1, true, -2, 3, 0.1, 0.1, 12.50, 1e-20, 'ü', 'glad', 7,
    '00000000-0000-0000-0000-00000000000a', '{\"a\": 1}', '\\x00ff', '2000-01-02',
    '2000-01-02 03:04:05.000006', '2000-01-02 03:04:05+02'";

#[test]
fn all_types_and_what_cannot_be_represented() {
    let Some(mut database) = Database::new("all_types_and_what_cannot_be_represented") else {
        return;
    };
    database.run(TYPES);
    database.run(&format!("INSERT INTO kinds VALUES ({KINDS})"));
    let mut capture = database.open(&["kinds"]).unwrap();
    database.run("DELETE FROM kinds");
    database.run(&format!("INSERT INTO kinds VALUES ({KINDS})"));
    database.run("INSERT INTO kinds (id, d) VALUES (2, 'infinity')");
    database.run("INSERT INTO kinds (id) VALUES (3)");
    let read = read(capture.as_mut(), 6);
    let change = |index: usize| match &read[index] {
        Captured::Change(change) => change,
        Captured::Refused(refused) => panic!("{refused:?}"),
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let row = vec![
        Value::Int(1),
        Value::Bool(true),
        Value::Int(-2),
        Value::Int(3),
        Value::Float(f64::from(0.1_f32)),
        Value::Float(0.1),
        Value::Decimal(1250),
        text("0.00000000000000000001"),
        text("ü"),
        text("glad"),
        Value::Int(7),
        text("00000000-0000-0000-0000-00000000000a"),
        text("{\"a\": 1}"),
        Value::Bytes(vec![0, 255]),
        Value::Date(10_958),
        Value::Timestamp(946_782_245_000_006),
        Value::Timestamp(946_775_045_000_000),
    ];
    assert_eq!(change(1).after.as_ref(), Some(&row), "from the snapshot");
    assert_eq!(change(3).after.as_ref(), Some(&row), "from the stream");
    assert_eq!(
        change(1).table.columns[10].kind,
        ColumnType::Int,
        "a domain is what it is of"
    );
    let Captured::Refused(refused) = &read[4] else {
        panic!("{:?}", read[4]);
    };
    assert_eq!(
        (refused.table.as_str(), refused.key.as_str()),
        ("kinds", "2")
    );
    assert!(
        refused.reason.contains("`d`") && refused.reason.contains("infinity"),
        "{refused:?}"
    );
    let nulls = change(5).after.as_ref().unwrap();
    assert!(
        nulls[1..].iter().all(|value| *value == Value::Null),
        "{nulls:?}"
    );
}

#[test]
fn large_values_that_an_update_left_alone() {
    let Some(mut database) = Database::new("large_values_that_an_update_left_alone") else {
        return;
    };
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big text);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
         INSERT INTO t VALUES (1, 1, repeat('x', 100000))",
    );
    let mut capture = database.open(&["t"]).unwrap();
    database.run("UPDATE t SET n = 2");
    let read = changes(capture.as_mut(), 3);
    assert_eq!(
        read[2].after.as_ref().unwrap()[2],
        Value::Text("x".repeat(100_000))
    );
    database.run("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET n = 3");
    let deadline = Instant::now() + Duration::from_secs(120);
    let error = loop {
        assert!(Instant::now() < deadline, "the update was not refused");
        if let Err(error) = capture.next(Duration::from_millis(100)) {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Data);
    let text = error.to_string();
    assert!(
        text.contains("`t`") && text.contains("REPLICA IDENTITY FULL"),
        "{text}"
    );
}

#[test]
fn what_is_gone_is_an_error_that_says_what_to_do() {
    let Some(mut database) = Database::new("what_is_gone_is_an_error_that_says_what_to_do") else {
        return;
    };
    database.run(TABLE);
    database.run("CREATE TABLE keyless (id int)");
    let why = database.refused(&["keyless"]);
    assert!(
        why.contains("`keyless`") && why.contains("primary key"),
        "{why}"
    );
    assert!(database.refused(&["nowhere"]).contains("`nowhere`"));
    let mut capture = database.open(&["t"]).unwrap();
    let snapshot = read(capture.as_mut(), 1);
    capture.acknowledge(last(&snapshot)).unwrap();
    assert!(capture.next(Duration::ZERO).unwrap().is_empty());
    drop(capture);
    drop(database.open(&["t"]).unwrap());
    database.drop_slot();
    let why = database.refused(&["t"]);
    assert!(
        why.contains("is gone") && why.contains("--resnapshot"),
        "{why}"
    );
    let make = format!(
        "INSERT INTO t VALUES (1, 'unseen');
         SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        database.slot()
    );
    database.run("INSERT INTO t VALUES (1, 'unseen')");
    database.run(make.split_once(';').unwrap().1);
    let why = database.refused(&["t"]);
    assert!(
        why.contains("made anew") && why.contains("--resnapshot"),
        "{why}"
    );
    let mut capture = database.open_anew(&["t"], true).unwrap();
    assert_eq!(changes(capture.as_mut(), 2)[1].op, Op::Read);
}

#[test]
fn a_role_that_may_not_replicate() {
    let Some(mut database) = Database::new("a_role_that_may_not_replicate") else {
        return;
    };
    let role = format!("{}_reader", database.name);
    database.run(&format!("CREATE ROLE {role} LOGIN"));
    let url = database.url.replacen("postgres@", &format!("{role}@"), 1);
    let error = capture::open(&url, &["t".to_owned()], &database.name, false)
        .err()
        .unwrap();
    assert!(error.to_string().contains("REPLICATION"), "{error}");
    database.run(&format!("DROP ROLE {role}"));
}

#[test]
fn a_snapshot_that_was_not_finished_begins_again() {
    let Some(mut database) = Database::new("a_snapshot_that_was_not_finished_begins_again") else {
        return;
    };
    database.run(TABLE);
    database.run("INSERT INTO t SELECT n, 'n' FROM generate_series(1, 1500) n");
    let mut capture = database.open(&["t"]).unwrap();
    let mut part = capture.next(Duration::ZERO).unwrap();
    part.extend(capture.next(Duration::ZERO).unwrap());
    capture.acknowledge(last(&part)).unwrap();
    drop(capture);
    database.run("DELETE FROM t WHERE id <= 1000");
    let mut capture = database.open(&["t"]).unwrap();
    let again = changes(capture.as_mut(), 501);
    assert_eq!(
        again[0].op,
        Op::Truncate,
        "what was deleted in between must not survive"
    );
    assert!(again[0].position > last(&part));
}

#[test]
fn an_idle_table_holds_no_wal() {
    let Some(mut database) = Database::new("an_idle_table_holds_no_wal") else {
        return;
    };
    database.run(TABLE);
    database.run("CREATE TABLE busy (id int, filler text)");
    let mut capture = database.open(&["t"]).unwrap();
    let snapshot = read(capture.as_mut(), 1);
    capture.acknowledge(last(&snapshot)).unwrap();
    let before = database.confirmed();
    database.run("INSERT INTO busy SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n");
    let deadline = Instant::now() + Duration::from_secs(30);
    while database.confirmed() < before + 500_000 {
        assert!(Instant::now() < deadline, "the slot stayed at {before}");
        assert!(capture.next(Duration::from_millis(50)).unwrap().is_empty());
    }
}

#[test]
fn a_lost_connection_is_made_again() {
    let Some(mut database) = Database::new("a_lost_connection_is_made_again") else {
        return;
    };
    database.run(TABLE);
    let mut capture = database.open(&["t"]).unwrap();
    let snapshot = read(capture.as_mut(), 1);
    capture.acknowledge(last(&snapshot)).unwrap();
    database.run("INSERT INTO t VALUES (1, 'before')");
    let first = read(capture.as_mut(), 1);
    capture.acknowledge(last(&first)).unwrap();
    database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    database.run("INSERT INTO t VALUES (2, 'after')");
    let before = database.confirmed();
    let again = changes(capture.as_mut(), 1);
    assert_eq!(again[0].after.as_ref().unwrap()[0], Value::Int(2));
    // The new stream tells the slot what was acknowledged. A crash right after that finds it
    // written down: the slot is no further than what is known to be captured.
    let deadline = Instant::now() + Duration::from_secs(120);
    while database.confirmed() == before {
        assert!(Instant::now() < deadline, "the slot stayed at {before}");
        std::thread::yield_now();
    }
    drop(capture);
    let mut capture = database.open(&["t"]).unwrap();
    let again = changes(capture.as_mut(), 1);
    assert_eq!(again[0].after.as_ref().unwrap()[0], Value::Int(2));
}

#[test]
fn who_lost_the_lock_is_taken_over_and_hands_on_nothing() {
    let Some(mut database) = Database::new("who_lost_the_lock_is_taken_over_and_hands_on_nothing")
    else {
        return;
    };
    database.run(TABLE);
    let mut first = database.open(&["t"]).unwrap();
    let snapshot = read(first.as_mut(), 1);
    first.acknowledge(last(&snapshot)).unwrap();
    database.run("INSERT INTO t VALUES (0, 'old')");
    let old = read(first.as_mut(), 1);
    first.acknowledge(last(&old)).unwrap();
    let tables = ["t".to_owned()];
    let waits = capture::open(&database.url, &tables, &database.name, false);
    let waits = waits.err().expect("the first one is there");
    assert_eq!(waits.kind(), Kind::Fence, "{waits}");
    first.check().unwrap();
    // As when the server misses it. The first one's stream is still there.
    database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND classid = hashtext('tidemill')::oid
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    let mut second = database.open(&["t"]).unwrap();
    database.run("INSERT INTO t VALUES (1, 'new')");
    assert_eq!(first.check().unwrap_err().kind(), Kind::Retry);
    let deadline = Instant::now() + Duration::from_secs(120);
    let ended = loop {
        assert!(Instant::now() < deadline, "the first one goes on");
        match first.next(Duration::from_millis(50)) {
            Ok(read) => assert!(read.is_empty(), "{read:?}"),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.kind(), Kind::Retry, "{ended}");
    second.check().unwrap();
    // It may not have been written down yet that the first change is acknowledged.
    let mut all = Vec::new();
    while all.last() != Some(&row(1, "new")) {
        assert!(Instant::now() < deadline, "the second one read {all:?}");
        let read = second.next(Duration::from_millis(50)).unwrap();
        all.extend(read.into_iter().map(|captured| match captured {
            Captured::Change(change) => change.after,
            Captured::Refused(refused) => panic!("{refused:?}"),
        }));
    }
    assert!(all.len() <= 2, "{all:?}");
}

#[test]
fn of_an_old_row_only_the_key_matters_and_a_new_one_that_is_refused_takes_the_old_one_away() {
    let test = "of_an_old_row_only_the_key_matters";
    let Some(mut database) = Database::new(test) else {
        return;
    };
    database.run(
        "CREATE TABLE t (id timestamptz PRIMARY KEY, until timestamptz);
         ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t VALUES ('1970-01-01Z', 'infinity')",
    );
    let mut capture = database.open(&["t"]).unwrap();
    let snapshot = read(capture.as_mut(), 2);
    let key = |second: i64| vec![Value::Timestamp(second * 1_000_000), Value::Null];
    let withheld = |captured: &Captured| match captured {
        Captured::Refused(refused) => {
            let one = |change: &Change| (change.op, change.before.clone().unwrap());
            refused.withheld.iter().map(one).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(withheld(&snapshot[1]), [(Op::Withheld, key(0))]);
    capture.acknowledge(snapshot[1].position()).unwrap();
    database.run(
        "UPDATE t SET until = '1970-01-01Z';
         UPDATE t SET until = 'infinity', id = '1970-01-01 00:00:01Z';
         UPDATE t SET id = 'infinity', until = NULL;
         UPDATE t SET id = '1970-01-01 00:00:02Z';
         UPDATE t SET id = 'infinity';
         DELETE FROM t;
         INSERT INTO t VALUES ('1970-01-01 00:00:03Z', 'infinity');
         DELETE FROM t",
    );
    let read = read(capture.as_mut(), 7);
    let seen = |captured: &Captured| match captured {
        Captured::Change(change) => (change.op, change.before.clone(), change.after.clone()),
        other => panic!("{other:?}"),
    };
    let (at, null) = (Value::Timestamp, Value::Null);
    let corrected = vec![at(0), at(0)];
    assert_eq!(seen(&read[0]), (Op::Update, Some(key(0)), Some(corrected)));
    let moved = [(Op::Delete, key(0)), (Op::Withheld, key(1))];
    assert_eq!(withheld(&read[1]), moved);
    assert_eq!(
        withheld(&read[2]),
        [(Op::Delete, key(1))],
        "its new key is none"
    );
    let back = vec![at(2_000_000), null];
    assert_eq!(
        seen(&read[3]),
        (Op::Update, None, Some(back)),
        "its old key was none"
    );
    assert_eq!(withheld(&read[4]), [(Op::Delete, key(2))]);
    // The deletion of what was never published says nothing.
    assert_eq!(withheld(&read[5]), [(Op::Withheld, key(3))]);
    assert_eq!(seen(&read[6]), (Op::Delete, Some(key(3)), None));
}
