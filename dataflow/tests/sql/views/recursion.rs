//! Recursions that never end: what PostgreSQL answers with a query that runs for ever.

use serde_json::{Value as Json, json};

use crate::views::edges::{Edge, number};
use crate::views::river::River;

/// A node whose parent is another node.
fn under(parent: i64) -> Option<Json> {
    Some(json!({ "parent": parent }))
}

/// The nodes below node 1, each with the number of ways to it.
const BELOW: &str = "
    CREATE VIEW v WITH (primary_key = 'id') AS
    WITH RECURSIVE below(id, depth) AS (
        SELECT id, 0 FROM t WHERE id = 1
        UNION ALL
        SELECT t.id, depth + 1 FROM below JOIN t ON t.parent = below.id
    )
    SELECT id, max(depth) AS depth, count(*) AS ways FROM below GROUP BY id;";

/// Rows that refer to each other in a circle iterate up to the limit. What is beyond it is a dead
/// letter that names the view, and without the circle the view is right again.
#[test]
fn a_circle_ends_at_the_limit_and_is_a_dead_letter() {
    for workers in [1, 3] {
        let limit = |river: &River| river.iterate_at_most(100);
        let mut edge = Edge::started("parent int", BELOW, workers, limit);
        let row = |id: i64, depth: i64, ways: i64| vec![number(id), number(depth), number(ways)];
        let right = [row(1, 0, 1), row(2, 1, 1), row(3, 2, 1)];
        edge.put(&[(1, under(0)), (2, under(1)), (3, under(2))]);
        assert_eq!(edge.rows(), right);
        assert_eq!(edge.river.dead_letters(), 0);
        edge.put(&[(1, under(2))]);
        let circled = [row(1, 100, 51), row(2, 99, 50), row(3, 100, 50)];
        assert_eq!(edge.rows(), circled);
        let reasons = edge.river.reasons();
        assert_eq!(edge.river.dead_letters(), 1, "{reasons:?}");
        assert!(
            reasons[0].contains("goes on after 100 iterations"),
            "{reasons:?}"
        );
        edge.put(&[(1, under(0))]);
        assert_eq!(edge.rows(), right);
        assert_eq!(edge.river.dead_letters(), 1);
    }
}

/// Copies that double in each iteration end the job before their number overflows.
#[test]
fn copies_without_end_end_the_job() {
    let view = "
        CREATE VIEW v WITH (primary_key = 'c') AS
        WITH RECURSIVE r(id) AS (
            SELECT id FROM t WHERE id = 1
            UNION ALL
            SELECT r.id FROM r CROSS JOIN t
        )
        SELECT count(*) AS c FROM r;";
    let mut edge = Edge::new("x int", view, 1);
    edge.feed(&[(1, Some(json!({}))), (2, Some(json!({})))]);
    let why = edge.river.ended();
    assert!(
        why.contains("view v: a row is more than 2147483648 times"),
        "{why}"
    );
}

/// With UNION a circle ends by itself.
#[test]
fn a_circle_ends_by_itself_without_all() {
    let view = BELOW
        .replace("UNION ALL", "UNION")
        .replace("depth + 1", "0");
    let mut edge = Edge::new("parent int", &view, 2);
    edge.put(&[(1, under(2)), (2, under(1)), (3, under(3))]);
    let row = |id: i64| vec![number(id), number(0), number(1)];
    assert_eq!(edge.rows(), [row(1), row(2)]);
    edge.put(&[(3, under(2))]);
    assert_eq!(edge.rows(), [row(1), row(2), row(3)]);
    edge.put(&[(2, None)]);
    assert_eq!(edge.rows(), [row(1)]);
    assert_eq!(edge.river.dead_letters(), 0);
}

/// A deep recursion below the limit is complete.
#[test]
fn a_deep_recursion_is_complete() {
    let view = "
        CREATE VIEW v WITH (primary_key = 'c') AS
        WITH RECURSIVE s(n) AS (
            SELECT 0 UNION ALL
            SELECT n + 1 FROM s JOIN (SELECT max(x) AS x FROM t) AS l ON s.n < l.x
        )
        SELECT count(*) AS c, max(n) AS m FROM s;";
    let mut edge = Edge::new("x int", view, 2);
    let most = |x: i64| Some(json!({ "x": x }));
    for x in [1_000, 3, 300, 301] {
        edge.put(&[(1, most(x))]);
        assert_eq!(edge.rows(), [[number(x + 1), number(x)]]);
    }
    assert_eq!(edge.river.dead_letters(), 0);
}
