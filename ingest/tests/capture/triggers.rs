//! Triggers of the user's beside those of the capture, on one SQLite table.

use std::time::Duration;

use tidemill_ingest::Kind;
use tidemill_ingest::capture::{Capture, Captured};
use tidemill_log::envelope::event::Change;

use crate::sqlite::{File, Rows};

const TABLE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, seat INT UNIQUE, email REAL UNIQUE, v TEXT);
    CREATE TABLE log (id INTEGER PRIMARY KEY, n TEXT)";
const ROWS: &str = "INSERT INTO t VALUES (1, 1, 1, 'a'), (2, 2, 2, 'b'), (3, 3, 3, 'c')";

/// Each changes the very table that fires it, or decides about its change.
const TRIGGERS: [&str; 10] = [
    // The most common one of all.
    "AFTER INSERT ON t BEGIN UPDATE t SET v = v || ' touched' WHERE id = NEW.id; END",
    "AFTER UPDATE ON t WHEN NEW.v NOT LIKE '%touched' BEGIN
     UPDATE t SET v = NEW.v || ' touched' WHERE id = NEW.id; END",
    // Takes the place of a third row between the two triggers of the capture.
    "AFTER INSERT ON t WHEN NEW.id < 50 BEGIN
     INSERT OR REPLACE INTO t VALUES (NEW.id + 50, NEW.seat + 1, NEW.email + 1, 'nested'); END",
    // Displaces the very row that was written.
    "AFTER INSERT ON t WHEN NEW.id < 50 BEGIN
     INSERT OR REPLACE INTO t VALUES (NEW.id + 50, NEW.seat, NULL, 'nested'); END",
    "AFTER INSERT ON t WHEN NEW.id % 2 = 0 BEGIN DELETE FROM t WHERE id = NEW.id; END",
    "AFTER DELETE ON t WHEN OLD.id < 50 BEGIN
     INSERT OR REPLACE INTO t VALUES (OLD.id, OLD.seat, OLD.email, 'back'); END",
    "AFTER UPDATE ON t WHEN OLD.id <> NEW.id BEGIN
     INSERT OR REPLACE INTO t VALUES (OLD.id, NULL, NULL, 'back'); END",
    "AFTER UPDATE ON t WHEN NEW.id < 50 BEGIN UPDATE t SET id = id + 100 WHERE id = NEW.id; END",
    "BEFORE INSERT ON t WHEN NEW.id % 2 = 1 BEGIN SELECT RAISE(IGNORE); END",
    "BEFORE UPDATE ON t WHEN NEW.seat = 2 BEGIN SELECT RAISE(IGNORE); END",
];

const STATEMENTS: [&str; 9] = [
    "INSERT OR REPLACE INTO t VALUES (4, 1, 7, 'x')",
    "INSERT OR IGNORE INTO t VALUES (6, 1, 9, 'y'), (8, 12, 12, 'z')",
    "REPLACE INTO t VALUES (10, 12, 2, 'one for two')",
    "UPDATE OR REPLACE t SET seat = 3, email = 3 WHERE id = 10",
    "UPDATE OR REPLACE t SET id = id + 1, v = 'moved'",
    "INSERT INTO t VALUES (20, 3, 20, 'up') ON CONFLICT (seat) DO UPDATE SET v = 'upserted'",
    "DELETE FROM t WHERE id > 2 AND id < 30",
    "REPLACE INTO t VALUES (2, 1, 5, 'same key'), (12, 1, 5, 'again')",
    "UPDATE t SET v = 'last' WHERE seat = 1",
];

/// All changes that are there.
fn all(capture: &mut dyn Capture) -> Vec<Change> {
    let mut found = Vec::new();
    loop {
        let batch = capture.next(Duration::from_millis(50)).unwrap();
        if batch.is_empty() {
            return found;
        }
        found.extend(batch.into_iter().map(|captured| match captured {
            Captured::Change(change) => change,
            Captured::Refused(refused) => panic!("{refused:?}"),
        }));
    }
}

/// A table that is followed, whose triggers change.
struct Followed {
    file: File,
    capture: Box<dyn Capture>,
    rows: Rows,
}

impl Followed {
    fn new(recursive: bool) -> Self {
        let file = File::new(TABLE);
        file.run(&format!("PRAGMA recursive_triggers = {recursive}"));
        let (capture, rows) = (file.open("t").unwrap(), Rows::new());
        Self {
            file,
            capture,
            rows,
        }
    }

    fn equals(&mut self, what: &str) {
        let capture = self.capture.as_mut();
        self.file.equals(capture, &mut self.rows, &["t"], what);
    }

    /// Runs all statements beside these triggers, and compares after each. SQLite fires the newest
    /// trigger first: those of the capture when it is `last`.
    fn follows(&mut self, triggers: &[&str], last: bool) {
        let what = format!("{triggers:?}, the capture's last: {last}");
        for at in 0..2 {
            self.file.run(&format!("DROP TRIGGER IF EXISTS user_{at}"));
        }
        self.file.run("DELETE FROM t");
        self.file.run(ROWS);
        self.equals(&what);
        for (at, trigger) in triggers.iter().enumerate() {
            self.file
                .run(&format!("CREATE TRIGGER user_{at} {trigger}"));
        }
        if last {
            for op in ["c", "u", "d", "bc", "bu"] {
                self.file.run(&format!("DROP TRIGGER _tidemill_t_{op}"));
            }
            // They are made anew.
            self.equals(&what);
        }
        for statement in STATEMENTS {
            self.file.tries(statement);
            self.equals(&format!("{what}: {statement}"));
        }
    }
}

#[test]
fn what_a_users_trigger_does_to_the_same_table_is_captured() {
    for recursive in [false, true] {
        let mut followed = Followed::new(recursive);
        for (at, first) in TRIGGERS.iter().enumerate() {
            followed.follows(&[first], false);
            followed.follows(&[first], true);
            for second in TRIGGERS.iter().take(at) {
                followed.follows(&[first, second], recursive);
                followed.follows(&[second, first], !recursive);
            }
        }
    }
}

#[test]
fn keys_that_sqlite_takes_for_the_same_replace_each_other() {
    for (sql, statements) in [
        (
            "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT)",
            ["'a', 1", "'A', 2", "'b', 3"],
        ),
        (
            "CREATE TABLE t (k TEXT COLLATE RTRIM PRIMARY KEY, v TEXT) WITHOUT ROWID",
            ["'a', 1", "'a  ', 2", "'b', 3"],
        ),
    ] {
        let file = File::new(sql);
        let mut capture = file.open("t").unwrap();
        let mut seen = std::collections::BTreeMap::new();
        for values in statements {
            file.run(&format!("REPLACE INTO t VALUES ({values})"));
        }
        file.run("UPDATE OR REPLACE t SET k = upper(k) || '' WHERE v = 2");
        for change in all(capture.as_mut()) {
            let key = |row: &Option<Vec<_>>| row.as_ref().map(|row| format!("{:?}", row[0]));
            if let Some(before) = key(&change.before) {
                seen.remove(&before);
            }
            if let Some(after) = key(&change.after) {
                seen.insert(after, format!("{:?}", change.after.as_ref().unwrap()[1]));
            }
        }
        let values: Vec<&String> = seen.values().collect();
        assert_eq!(values.len(), 2, "{sql}: {seen:?}");
    }
}

#[test]
fn triggers_that_hide_changes_from_the_capture_are_refused_by_name() {
    let ignoring = "AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE) WHERE NEW.id > 5; END";
    let direct = "BEFORE INSERT ON t BEGIN UPDATE t SET seat = 9 WHERE id = 1; END";
    let by_another = "BEFORE UPDATE ON t BEGIN INSERT INTO log (n) VALUES (1); END;
        CREATE TRIGGER other AFTER INSERT ON log BEGIN DELETE FROM t WHERE id = 2; END";
    for (trigger, why) in [
        (ignoring, "RAISE(IGNORE)"),
        (direct, "changes the table itself"),
        (by_another, "changes the table itself"),
    ] {
        let file = File::new(TABLE);
        file.run(ROWS);
        let mut capture = file.open("t").unwrap();
        let mut rows = Rows::new();
        file.equals(capture.as_mut(), &mut rows, &["t"], "the start");
        file.run(&format!("CREATE TRIGGER mine {trigger}"));
        let error = file.open("t").err().expect("it must be refused");
        assert_eq!(error.kind(), Kind::Data);
        let said = error.to_string();
        assert!(said.contains("`mine`") && said.contains(why), "{said}");
        // What was missed meanwhile is read when the trigger is gone.
        file.run("INSERT OR REPLACE INTO t VALUES (7, 3, 7, 'missed'); DROP TRIGGER mine");
        file.equals(capture.as_mut(), &mut rows, &["t"], trigger);
    }
    // A BEFORE trigger that only writes elsewhere, as an audit does, is right.
    let file = File::new(TABLE);
    file.run(ROWS);
    file.run("CREATE TRIGGER mine BEFORE INSERT ON t BEGIN INSERT INTO log (n) VALUES (1); END");
    let mut capture = file.open_all(&["t", "log"]).unwrap();
    let mut rows = Rows::new();
    for statement in STATEMENTS {
        file.tries(statement);
        file.equals(capture.as_mut(), &mut rows, &["t", "log"], statement);
    }
}
