//! Capture from a SQLite file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tidemill_ingest::capture::{Capture, Captured};
use tidemill_ingest::{Kind, capture};
use tidemill_log::envelope::event::{Op, Value};

use crate::{STORY, changes, read, seen, the_same_story};

/// Of each table and key the last column.
pub(crate) type Rows = BTreeMap<(String, i64), Value>;

pub(crate) struct File {
    _folder: tempfile::TempDir,
    url: String,
    connection: Connection,
}

impl File {
    pub(crate) fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("river.db");
        let path = path.to_str().unwrap();
        let connection = tidemill_log::sqlite::connect(path).unwrap();
        connection.execute_batch(sql).unwrap();
        Self {
            url: format!("sqlite://{path}"),
            _folder: folder,
            connection,
        }
    }

    pub(crate) fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
    }

    /// Runs what a constraint may refuse, or the depth of triggers that fire themselves.
    pub(crate) fn tries(&self, sql: &str) {
        if let Err(error) = self.connection.execute_batch(sql) {
            let said = error.to_string();
            let may = ["constraint failed", "nested too deep"];
            assert!(may.iter().any(|it| said.contains(it)), "{said}");
        }
    }

    pub(crate) fn open(&self, table: &str) -> tidemill_ingest::Result<Box<dyn Capture>> {
        self.open_all(&[table])
    }

    pub(crate) fn open_all(&self, tables: &[&str]) -> tidemill_ingest::Result<Box<dyn Capture>> {
        let tables: Vec<_> = tables.iter().map(|&table| table.to_owned()).collect();
        capture::open(&self.url, &tables, "test", false)
    }

    /// Follows `capture` until what its changes come to is what SQLite answers.
    pub(crate) fn equals(
        &self,
        capture: &mut dyn Capture,
        rows: &mut Rows,
        tables: &[&str],
        what: &str,
    ) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let batch = capture.next(Duration::ZERO).unwrap();
            for captured in &batch {
                let Captured::Change(change) = captured else {
                    panic!("{what}: {captured:?}");
                };
                let table = change.table.name.clone();
                let key = |row: &Option<Vec<Value>>| match row.as_ref().map(|row| &row[0]) {
                    Some(Value::Int(id)) => (table.clone(), *id),
                    other => panic!("{what}: {other:?}"),
                };
                match change.op {
                    Op::Truncate => rows.retain(|(of, _), _| *of != table),
                    Op::Delete => drop(rows.remove(&key(&change.before))),
                    _ => {
                        if change.before.is_some() {
                            rows.remove(&key(&change.before));
                        }
                        let last = change.after.as_ref().unwrap().last().unwrap().clone();
                        rows.insert(key(&change.after), last);
                    }
                }
            }
            if let Some(last) = batch.last() {
                capture.acknowledge(last.position()).unwrap();
            }
            let mut there = Rows::new();
            for table in tables {
                let mut query = self
                    .connection
                    .prepare(&format!("SELECT * FROM {table}"))
                    .unwrap();
                let last = query.column_count() - 1;
                let mut found = query.query([]).unwrap();
                while let Some(row) = found.next().unwrap() {
                    let name: Option<String> = row.get(last).unwrap();
                    let name = name.map_or(Value::Null, Value::Text);
                    there.insert(((*table).to_owned(), row.get(0).unwrap()), name);
                }
            }
            if batch.is_empty() && *rows == there {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {rows:?} for {there:?}");
            if batch.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn waiting(&self) -> i64 {
        let sql = "SELECT count(*) FROM _tidemill_changes";
        self.connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)";

#[test]
fn a_snapshot_then_every_change_in_order() {
    let file = File::new(TABLE);
    file.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let mut capture = file.open("t").unwrap();
    file.run(STORY);
    let (before, after) = the_same_story(1);
    let count = before.len() + after.len();
    assert_eq!(
        seen(&changes(capture.as_mut(), count)),
        [before, after].concat()
    );
}

#[test]
fn what_was_not_acknowledged_comes_again_and_the_rest_is_deleted() {
    let file = File::new(TABLE);
    let mut capture = file.open("t").unwrap();
    file.run("INSERT INTO t SELECT value, 'x' FROM json_each('[1,2,3]')");
    let first = read(capture.as_mut(), 4);
    drop(capture);
    let mut capture = file.open("t").unwrap();
    assert_eq!(read(capture.as_mut(), 4), first);
    let deadline = Instant::now() + Duration::from_secs(120);
    while file.waiting() > 1 {
        assert!(
            Instant::now() < deadline,
            "{} changes are kept",
            file.waiting()
        );
        capture.acknowledge(first[2].position()).unwrap();
    }
    drop(capture);
    file.run("INSERT INTO t VALUES (4, 'while nobody captures')");
    let mut capture = file.open("t").unwrap();
    let rest = read(capture.as_mut(), 2);
    assert_eq!(rest[0], first[3]);
}

#[test]
fn all_types_and_what_cannot_be_represented() {
    let file = File::new(
        "CREATE TABLE kinds (id BIGINT, b BOOLEAN, f DOUBLE, c TEXT, u UUID, j JSON, x BLOB,
             d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, PRIMARY KEY (id))",
    );
    let mut capture = file.open("kinds").unwrap();
    file.run(
        "INSERT INTO kinds VALUES (1, 1, 0.1, 'ü''\"', '00000000-0000-0000-0000-00000000000a',
             '{}', x'00ff', '2000-01-02', '2000-01-02T03:04:05', '2000-01-02T03:04:05+02:00');
         INSERT INTO kinds (id, d) VALUES (2, 'soon');
         INSERT INTO kinds (id, c) VALUES (3, x'ff');
         INSERT INTO kinds (id) VALUES (9007199254740993)",
    );
    let read = read(capture.as_mut(), 5);
    let Captured::Change(all) = &read[1] else {
        panic!("{:?}", read[1]);
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let row = vec![
        Value::Int(1),
        Value::Bool(true),
        Value::Float(0.1),
        text("ü'\""),
        text("00000000-0000-0000-0000-00000000000a"),
        text("{}"),
        Value::Bytes(vec![0, 255]),
        Value::Date(10_958),
        Value::Timestamp(946_782_245_000_000),
        Value::Timestamp(946_775_045_000_000),
    ];
    assert_eq!(all.after, Some(row));
    for (index, column) in [(2, "`d`"), (3, "`c`")] {
        let Captured::Refused(refused) = &read[index] else {
            panic!("{:?}", read[index]);
        };
        assert!(refused.reason.contains(column), "{refused:?}");
        assert_eq!(refused.key, index.to_string());
    }
    let Captured::Change(nulls) = &read[4] else {
        panic!("{:?}", read[4]);
    };
    let row = nulls.after.as_ref().unwrap();
    assert_eq!(row[0], Value::Int(9_007_199_254_740_993));
    assert!(
        row[1..].iter().all(|value| *value == Value::Null),
        "{row:?}"
    );
}

#[test]
fn a_column_added_while_it_runs() {
    let file = File::new(TABLE);
    let mut capture = file.open("t").unwrap();
    file.run("INSERT INTO t VALUES (1, 'a')");
    read(capture.as_mut(), 2);
    // Written before the triggers know of the column: it is captured all the same.
    file.run("ALTER TABLE t ADD COLUMN extra TEXT; UPDATE t SET extra = 'new'");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(
            Instant::now() < deadline,
            "the new column's value never came"
        );
        let batch = capture.next(Duration::from_millis(100)).unwrap();
        let newest = batch.into_iter().next_back();
        if let Some(Captured::Change(change)) = newest
            && change.op == Op::Read
        {
            assert_eq!(change.after.unwrap()[2], Value::Text("new".to_owned()));
            break;
        }
    }
}

#[test]
fn a_table_that_is_another_one_or_was_left_out_is_read_anew() {
    let changes = [
        "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
         INSERT INTO t VALUES (9, 'z')",
        "UPDATE t SET name = 'old'; DROP TABLE t;
         CREATE TABLE t (id INTEGER PRIMARY KEY, hue TEXT NOT NULL);
         INSERT INTO t VALUES (9, 'z')",
        "ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u;
         INSERT INTO t VALUES (7, 'swapped'); DELETE FROM u WHERE id = 1",
        "ALTER TABLE t RENAME TO x; INSERT INTO x VALUES (8, 'away'); ALTER TABLE x RENAME TO t",
        "ALTER TABLE t RENAME COLUMN id TO key; UPDATE t SET key = key + 10",
        "ALTER TABLE t ADD COLUMN more TEXT DEFAULT 'd'; DELETE FROM t WHERE id = 2",
    ];
    let both = ["t", "u"];
    for stopped in [false, true] {
        for change in changes {
            let file = File::new(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE u (id INTEGER PRIMARY KEY, name TEXT);
                 INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (1, 'c'), (3, 'd')",
            );
            let mut rows = Rows::new();
            let mut capture = Some(file.open_all(&both).unwrap());
            file.equals(capture.as_mut().unwrap().as_mut(), &mut rows, &both, change);
            if stopped {
                capture = None;
            }
            file.run(change);
            let mut capture = capture.unwrap_or_else(|| file.open_all(&both).unwrap());
            file.equals(capture.as_mut(), &mut rows, &both, change);
            // One is left out, changes, and is put back.
            drop(capture);
            let mut capture = file.open("u").unwrap();
            file.run("DELETE FROM t; INSERT INTO u VALUES (71, 'in')");
            let left = rows
                .clone()
                .into_iter()
                .filter(|((table, _), _)| table == "t");
            let left: Rows = left.collect();
            rows.retain(|(table, _), _| table == "u");
            file.equals(capture.as_mut(), &mut rows, &["u"], change);
            drop(capture);
            rows.extend(left);
            let mut capture = file.open_all(&both).unwrap();
            assert_eq!(capture.noticed().len(), 1, "only `t` is read anew");
            file.equals(capture.as_mut(), &mut rows, &both, change);
        }
    }
}

#[test]
fn a_table_that_is_gone_may_come_back_and_else_ends_the_capture() {
    let file = File::new(TABLE);
    let mut capture = file.open("t").unwrap();
    file.run("INSERT INTO t VALUES (1, 'a'); ALTER TABLE t RENAME TO away");
    let mut rows = Rows::new();
    while capture.noticed().is_empty() {
        capture.next(Duration::from_millis(20)).unwrap();
    }
    file.run("ALTER TABLE away RENAME TO t; INSERT INTO t VALUES (2, 'b')");
    rows.insert(("t".to_owned(), 1), Value::Text("a".to_owned()));
    file.equals(capture.as_mut(), &mut rows, &["t"], "back");
    file.run("DROP TABLE t");
    let gone = Instant::now();
    let error = loop {
        match capture.next(Duration::from_millis(100)) {
            Ok(_) => assert!(gone.elapsed() < Duration::from_secs(120)),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Data);
    assert!(
        error.to_string().contains("table `t` does not exist"),
        "{error}"
    );
    let error = file.open_all(&["t", "T"]).err().unwrap().to_string();
    assert!(
        error.contains("`t` does not exist") && error.contains("`T`"),
        "{error}"
    );
    file.run(TABLE);
    let error = file.open_all(&["t", "T"]).err().unwrap().to_string();
    assert!(error.contains("name it once"), "{error}");
}

#[test]
fn tables_that_cannot_be_captured_are_named() {
    let file = File::new(
        "CREATE TABLE keyless (id INTEGER); CREATE TABLE untyped (k PRIMARY KEY, v TEXT)",
    );
    for (table, why) in [
        ("keyless", "primary key"),
        ("untyped", "column `k` without a type"),
        ("nowhere", "does not exist"),
    ] {
        let error = file.open(table).err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(
            error.to_string().contains(table) && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[test]
fn rows_that_replace_removes_by_a_unique_column_are_deleted() {
    let file = File::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, email TEXT COLLATE NOCASE, seat INT, room INT,
                         state TEXT, v TEXT, UNIQUE (email), UNIQUE (seat, room));
         CREATE UNIQUE INDEX open_only ON t (v) WHERE state = 'open';
         INSERT INTO t VALUES (1, 'a', 1, 1, 'open', 1), (2, 'b', 2, 1, 'closed', 1),
                              (3, NULL, NULL, 1, 'open', 3)",
    );
    let mut capture = file.open("t").unwrap();
    let mut rows = Rows::new();
    let tables = ["t"];
    for statement in [
        "SELECT 1",
        // Displaces the row 1 by its e-mail, in another case.
        "INSERT OR REPLACE INTO t VALUES (4, 'A', 9, 9, 'open', 4)",
        // Nothing: NULL is not unique, and the row 2 is not within the partial index.
        "INSERT OR REPLACE INTO t VALUES (5, NULL, NULL, 1, 'open', 1)",
        "INSERT OR IGNORE INTO t VALUES (6, 'b', 7, 7, 'open', 7)",
        "INSERT INTO t VALUES (7, 'g', 7, 7, 'open', 7)",
        // Two rows at once, by two constraints.
        "REPLACE INTO t VALUES (8, 'b', 7, 7, 'closed', 8)",
        "UPDATE OR REPLACE t SET seat = 9, room = 9 WHERE id = 8",
        "INSERT INTO t VALUES (9, 'B', 1, 1, 'open', 9) ON CONFLICT (email) DO UPDATE SET v = 77",
        "REPLACE INTO t VALUES (8, 'b', 9, 9, 'closed', 5), (10, 'b', 2, 2, 'closed', 6)",
        "UPDATE t SET v = v + 1",
    ] {
        file.run(statement);
        file.equals(capture.as_mut(), &mut rows, &tables, statement);
    }
    // A trigger of the user's own displaces a row of another table between the two of the capture.
    let file = File::new(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT UNIQUE);
         CREATE TABLE b (id INTEGER PRIMARY KEY, v TEXT UNIQUE);
         INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1, 'x')",
    );
    let mut capture = file.open_all(&["a", "b"]).unwrap();
    // Made after the capture's, and so the first of SQLite's to fire.
    file.run(
        "CREATE TRIGGER before_a BEFORE INSERT ON a
         BEGIN INSERT OR REPLACE INTO b VALUES (NEW.id, NEW.v); END;
         CREATE TRIGGER after_a AFTER INSERT ON a
         BEGIN INSERT OR REPLACE INTO b VALUES (NEW.id + 10, NEW.v); END;
         INSERT OR REPLACE INTO a VALUES (2, 'x')",
    );
    let (mut rows, tables) = (Rows::new(), ["a", "b"]);
    file.equals(capture.as_mut(), &mut rows, &tables, "triggers of the user");
    file.run(
        "CREATE TABLE u (id INTEGER PRIMARY KEY, e TEXT); CREATE UNIQUE INDEX l ON u (lower(e))",
    );
    let why = file
        .open("u")
        .err()
        .expect("it must be refused")
        .to_string();
    assert!(why.contains("`l` over an expression"), "{why}");
}
