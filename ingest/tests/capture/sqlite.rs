//! Capture from a SQLite file.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tidemill_ingest::Kind;
use tidemill_ingest::capture::{self, Capture, Captured};
use tidemill_log::event::{Op, Value};

use crate::{STORY, changes, read, seen, the_same_story};

struct File {
    _folder: tempfile::TempDir,
    url: String,
    connection: Connection,
}

impl File {
    fn new(sql: &str) -> Self {
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

    fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
    }

    fn open(&self, table: &str) -> tidemill_ingest::Result<Box<dyn Capture>> {
        capture::open(&self.url, &[table.to_owned()], "test", false)
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
    let deadline = Instant::now() + Duration::from_secs(20);
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
    let deadline = Instant::now() + Duration::from_secs(20);
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
fn tables_that_cannot_be_captured_are_named() {
    let file = File::new("CREATE TABLE keyless (id INTEGER)");
    for (table, why) in [("keyless", "primary key"), ("nowhere", "does not exist")] {
        let error = file.open(table).err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(
            error.to_string().contains(table) && error.to_string().contains(why),
            "{error}"
        );
    }
}
