//! Rows that Cassandra refuses for what they hold: dead letters, while the job goes on, starts
//! again and is verified; no older row of their keys is left, and a later one is written.

use serde_json::{Value as Json, json};

use crate::views::edges::{Edge, number};

/// A keyspace of this test's own, or what is left out.
fn keyspace(name: &str) -> Option<String> {
    let Ok(base) = std::env::var("TIDEMILL_TEST_CASSANDRA") else {
        // Past the harness, which hides what a passing test prints.
        let line = format!("left out: {name} needs TIDEMILL_TEST_CASSANDRA (run ./test)\n");
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        return None;
    };
    let base = base.trim_end_matches('/');
    Some(format!("{base}/views_{name}_{}", std::process::id()))
}

fn unfit(edge: &Edge) -> i64 {
    edge.river.stats().views.lock().unwrap()["v"].unfit
}

/// How many letters have a reason with this part.
fn letters(edge: &Edge, part: &str) -> usize {
    let reasons = edge.river.reasons();
    reasons
        .iter()
        .filter(|reason| reason.contains(part))
        .count()
}

#[test]
fn keys_that_cassandra_refuses_are_dead_letters() {
    let Some(sink) = keyspace("refused_keys") else {
        return;
    };
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT k, x FROM t;";
    let mut edge = Edge::serving("k text, x int", view, 2, Some(&sink));
    let row = |k: &str, x: i64| Some(json!({"k": k, "x": x}));
    let long = |sign: &str| sign.repeat(70_000);
    edge.put(&[(1, row("a", 1)), (2, row(&long("x"), 2)), (3, row("", 3))]);
    assert_eq!(edge.rows(), [[number("a"), number(1)]]);
    assert_eq!(letters(&edge, "longer than Cassandra's 65535 bytes"), 1);
    assert_eq!(letters(&edge, "its partition key is empty"), 1);
    assert_eq!(unfit(&edge), 2);
    // It starts again, from a checkpoint, and all of it is as it should be.
    edge.river.rest();
    edge.river.stop();
    let [verified] = &edge.river.verify()[..] else {
        panic!("one view");
    };
    assert_eq!(
        (verified.rows, verified.found.count()),
        (1, 0),
        "{verified:?}"
    );
    edge.river.start();
    // The row becomes right, and another one wrong.
    edge.put(&[(2, row("b", 2)), (1, row(&long("y"), 1))]);
    assert_eq!(edge.rows(), [[number("b"), number(2)]]);
    assert_eq!(letters(&edge, "longer than Cassandra's 65535 bytes"), 2);
    edge.put(&[(1, None), (3, row("c", 3))]);
    assert_eq!(edge.rows().len(), 2);
}

#[test]
fn rows_that_are_too_large_for_cassandra_leave_no_older_one() {
    let Some(sink) = keyspace("refused_rows") else {
        return;
    };
    // One record has less than a million bytes, the view's row twelve times as much.
    let columns: Vec<String> = (0..12).map(|n| format!("x || '{n}' AS x{n}")).collect();
    let view = format!(
        "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, {} FROM t;",
        columns.join(", ")
    );
    let mut edge = Edge::serving("x text", &view, 1, Some(&sink));
    let row = |length: usize| -> Option<Json> { Some(json!({"x": "x".repeat(length)})) };
    edge.put(&[(1, row(1)), (2, row(2))]);
    assert_eq!(edge.rows().len(), 2);
    edge.put(&[(1, row(900_000))]);
    let left = edge.rows();
    assert_eq!(
        (left.len(), &left[0][0]),
        (1, &number(2)),
        "nothing older is left"
    );
    // One letter, in many parts.
    assert!(letters(&edge, "larger than the") > 1);
    assert_eq!(unfit(&edge), 1);
    let [verified] = &edge.river.verify()[..] else {
        panic!("one view");
    };
    let seen = (verified.rows, verified.unfit, verified.found.count());
    assert_eq!(seen, (1, 1, 0), "{verified:?}");
    edge.put(&[(1, row(3))]);
    assert_eq!((edge.rows().len(), unfit(&edge)), (2, 0));
}
