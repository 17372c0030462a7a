//! Rows with a value that its column refuses: views that read the column lack the row, all others
//! have it, through updates, a restart from a checkpoint and a verification.

use serde_json::{Value as Json, json};
use tidemill_log::log::Record;

use crate::views::edges::{Edge, number};
use crate::views::held::Value;
use crate::views::river::River;

/// Views that read the column `x`, and views that do not.
const VIEWS: &str = "
    CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, k FROM t;
    CREATE VIEW total WITH (primary_key = 'k') AS SELECT k, count(*) AS n FROM t GROUP BY k;
    CREATE VIEW reads WITH (primary_key = 'id') AS SELECT id, x FROM t;
    CREATE VIEW filters WITH (primary_key = 'id') AS SELECT id FROM t WHERE x IS NULL OR x > 0;
    CREATE VIEW joins WITH (primary_key = 'id') AS
      SELECT a.id, b.k FROM t AS a JOIN t AS b ON a.id = b.id + 1;
    CREATE VIEW above WITH (primary_key = 'id') AS SELECT id FROM reads;";

fn row(k: &str, x: Json) -> Option<Json> {
    Some(json!({"k": k, "x": x}))
}

/// The first column of a view's rows.
fn ids(river: &River, view: &str) -> Vec<Value> {
    let rows = river.rows(view).into_values();
    rows.map(|row| row[0].clone()).collect()
}

fn numbers(all: &[i64]) -> Vec<Value> {
    all.iter().map(number).collect()
}

/// `all` are the rows of the table, `whole` those of which `x` is known.
fn expect(river: &River, all: &[i64], whole: &[i64]) {
    let pairs = all.iter().filter(|id| all.contains(&(**id - 1)));
    let pairs: Vec<i64> = pairs.copied().collect();
    for (view, ids_of) in [
        ("v", all),
        ("joins", &pairs),
        ("reads", whole),
        ("filters", whole),
        ("above", whole),
    ] {
        assert_eq!(ids(river, view), numbers(ids_of), "{view}");
    }
}

#[test]
fn a_bad_value_concerns_only_the_views_that_read_its_column() {
    let mut edge = Edge::new("k text, x int", VIEWS, 2);
    edge.put(&[
        (1, row("a", json!(1))),
        (2, row("a", json!("soon"))),
        (3, row("b", json!(3))),
    ]);
    expect(&edge.river, &[1, 2, 3], &[1, 3]);
    let total = |edge: &Edge, k: &str| {
        edge.river
            .rows("total")
            .into_values()
            .find(|row| row[0] == number(k))
    };
    assert_eq!(total(&edge, "a"), Some(vec![number("a"), number(2)]));
    let reasons = edge.river.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].contains("field `x`: found \"soon\""),
        "{reasons:?}"
    );
    assert_eq!(edge.river.stats().keys_in_error(), 1);
    // A good row becomes bad, the bad one stays bad with another value of a good column.
    edge.put(&[(1, row("a", json!(1e40))), (2, row("b", json!([])))]);
    expect(&edge.river, &[1, 2, 3], &[3]);
    assert_eq!(total(&edge, "b"), Some(vec![number("b"), number(2)]));
    assert_eq!(edge.river.stats().keys_in_error(), 2);
    // The state comes back as it was.
    edge.river.rest();
    edge.river.stop();
    for verified in edge.river.verify() {
        assert_eq!(verified.found.count(), 0, "{verified:?}");
    }
    edge.river.rescale(3);
    edge.river.start();
    edge.put(&[(4, row("c", json!(4)))]);
    expect(&edge.river, &[1, 2, 3, 4], &[3, 4]);
    // They become right, or go.
    edge.put(&[(1, row("a", json!(7))), (2, None)]);
    expect(&edge.river, &[1, 3, 4], &[1, 3, 4]);
    assert_eq!(edge.river.stats().keys_in_error(), 0);
    assert_eq!(edge.river.reasons().len(), 3);
    // A record that is no object says nothing of any column.
    edge.put(&[(3, row("b", json!("later")))]);
    edge.put_text(3, "{");
    expect(&edge.river, &[1, 4], &[1, 4]);
    assert_eq!(edge.river.stats().keys_in_error(), 1);
}

/// The same without keys: rows are added, and none is lost or doubled.
#[test]
fn a_bad_value_of_an_append_topic_concerns_only_the_views_that_read_its_column() {
    let sql = "
        CREATE TABLE t (id int, k text NOT NULL, x int NOT NULL)
          WITH (format = 'json', envelope = 'append');
        CREATE VIEW v WITH (primary_key = 'k') AS SELECT k, count(*) AS n, sum(id) AS s FROM t
          GROUP BY k;
        CREATE VIEW xs WITH (primary_key = 'k') AS SELECT k, sum(x) AS s FROM t GROUP BY k;";
    let mut river = River::new(sql, 2);
    river.log().create_topic("t", 1).unwrap();
    let records = |all: &[&str]| -> Vec<Record> {
        let record = |text: &&str| Record {
            topic: "t".to_owned(),
            partition: None,
            key: None,
            value: Some(text.as_bytes().to_vec()),
            timestamp_ms: 0,
        };
        all.iter().map(record).collect()
    };
    river.start();
    let mut producer = river.log().producer().unwrap();
    producer
        .append(&records(&[
            r#"{"id": 1, "k": "a", "x": 10}"#,
            r#"{"id": 2, "k": "a", "x": "ten"}"#,
            r#"{"id": 4, "k": "a", "x": null}"#,
            r#"{"id": 8, "k": null, "x": 1}"#,
            r#"{"id": 16, "k": "a", "x": 20"#,
            r#"{"id": 32, "k": "a", "x": 30}"#,
        ]))
        .unwrap();
    river.settle();
    let only = |river: &River, view: &str| river.rows(view).into_values().collect::<Vec<_>>();
    let seven = vec![number("a"), number(4), number(39)];
    assert_eq!(only(&river, "v"), [seven]);
    assert_eq!(only(&river, "xs"), [vec![number("a"), number(40)]]);
    assert_eq!(river.reasons().len(), 4, "{:?}", river.reasons());
    river.rest();
    river.stop();
    river.start();
    producer
        .append(&records(&[r#"{"id": 64, "k": "a", "x": {}}"#]))
        .unwrap();
    river.settle();
    assert_eq!(
        only(&river, "v"),
        [vec![number("a"), number(5), number(103)]]
    );
    assert_eq!(only(&river, "xs"), [vec![number("a"), number(40)]]);
    river.stop();
}
