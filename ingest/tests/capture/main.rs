//! Capture and publish against real databases: nothing lost, nothing twice.

// A test's helper that cannot go on has failed the test.
#![allow(clippy::unwrap_used)]

mod postgres;
mod published;
mod refused;
mod sqlite;
mod tables;
mod triggers;
mod types;

use std::time::{Duration, Instant};

use tidemill_ingest::capture::{Capture, Captured};
use tidemill_log::envelope::event::{Change, Op, Value};

/// Reads changes until there are `count`, without acknowledging any.
fn read(capture: &mut dyn Capture, count: usize) -> Vec<Captured> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut out = Vec::new();
    while out.len() < count {
        assert!(
            Instant::now() < deadline,
            "only {} of {count} came: {out:?}",
            out.len()
        );
        out.extend(capture.next(Duration::from_millis(200)).unwrap());
    }
    assert_eq!(out.len(), count, "{out:?}");
    let positions: Vec<_> = out.iter().map(Captured::position).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    out
}

/// Like [`read`], of changes only.
fn changes(capture: &mut dyn Capture, count: usize) -> Vec<Change> {
    let captured = read(capture, count).into_iter();
    captured
        .map(|captured| match captured {
            Captured::Change(change) => change,
            Captured::Refused(refused) => panic!("{refused:?}"),
        })
        .collect()
}

/// Ops, and the rows before and after.
type Seen = (Op, Option<Vec<Value>>, Option<Vec<Value>>);

fn seen(changes: &[Change]) -> Vec<Seen> {
    let seen = |change: &Change| (change.op, change.before.clone(), change.after.clone());
    changes.iter().map(seen).collect()
}

fn row(id: i64, name: &str) -> Option<Vec<Value>> {
    Some(vec![Value::Int(id), Value::Text(name.to_owned())])
}

/// What every engine shows after `(1, a)`, `(2, b)` were there, `(3, c)` was inserted, 1 renamed to
/// `z`, 2 moved to key 9, and 3 deleted.
fn the_same_story(table_begins: usize) -> (Vec<Seen>, Vec<Seen>) {
    let mut before = vec![(Op::Truncate, None, None); table_begins];
    before.extend([(Op::Read, None, row(1, "a")), (Op::Read, None, row(2, "b"))]);
    let after = vec![
        (Op::Create, None, row(3, "c")),
        (Op::Update, row(1, "a"), row(1, "z")),
        (Op::Delete, row(2, "b"), None),
        (Op::Create, None, row(9, "b")),
        (Op::Delete, row(3, "c"), None),
    ];
    (before, after)
}

const STORY: &str = "INSERT INTO t VALUES (3, 'c');
    UPDATE t SET name = 'z' WHERE id = 1;
    UPDATE t SET id = 9 WHERE id = 2;
    DELETE FROM t WHERE id = 3;";
