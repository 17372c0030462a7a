//! Edges of statistics and ordered aggregates: results that do not fit, floats of all sizes, texts
//! without an order. What must hold is said here; the numbers are PostgreSQL's.

use serde_json::{Value as Json, json};

use crate::views::edges::{Edge, number};
use crate::views::held::Value;

fn x(x: impl Into<Json>) -> Option<Json> {
    Some(json!({ "x": x.into() }))
}

/// Digits of a numeric with zeros up to its column's scale.
fn numeric(whole: &str, scale: usize) -> Value {
    number(format!("{whole}.{}", "0".repeat(scale)))
}

#[test]
fn a_variance_that_does_not_fit_is_left_out_and_comes_back() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, variance(x) AS v,
        stddev(x) AS s, stddev_pop(x) AS p, count(*) AS c FROM t;";
    let mut edge = Edge::new("x int", view, 2);
    edge.put(&[(1, x(i32::MAX)), (2, x(i32::MIN))]);
    assert!(edge.rows().is_empty(), "{:?}", edge.rows());
    assert!(edge.river.reasons()[0].contains("is out of range"));
    edge.put(&[(2, x(i32::MAX - 2))]);
    let root = "1.4142135623730950".to_owned() + &"0".repeat(12);
    let expected = [
        number(1),
        numeric("2", 20),
        number(root),
        numeric("1", 28),
        number(2),
    ];
    assert_eq!(edge.rows(), [expected]);
    edge.put(&[(1, None)]);
    let single = [
        number(1),
        Value::Null,
        Value::Null,
        numeric("0", 28),
        number(1),
    ];
    assert_eq!(edge.rows(), [single]);
}

#[test]
fn deviations_of_the_greatest_ints_fit() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, stddev(x) AS s,
        stddev_pop(x) AS p FROM t;";
    let mut edge = Edge::new("x int", view, 1);
    edge.put(&[(1, x(i32::MAX)), (2, x(i32::MIN))]);
    let expected = [
        number(1),
        numeric("3037000499", 28),
        numeric("2147483647", 28),
    ];
    assert_eq!(edge.rows(), [expected]);
    assert!(edge.river.reasons().is_empty());
}

/// The squares of these have more than 38 digits.
#[test]
fn deviations_of_the_greatest_numerics_are_exact() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, variance(x) AS v,
        stddev(x) AS s, var_pop(y) AS p FROM t;";
    let mut edge = Edge::new("x numeric(38, 0), y bigint", view, 2);
    let row = |x: &str, y: i64| Some(json!({ "x": x, "y": y }));
    edge.put(&[
        (1, row("10000000000000000000000000", i64::MAX)),
        (2, row("10000000000000000000000002", i64::MAX - 2)),
        (3, row("-99999999999999999999999999999999999999", 0)),
    ]);
    assert!(edge.rows().is_empty());
    edge.put(&[(3, None)]);
    let root = "1.4142135623730950".to_owned() + "0000";
    let expected = [number(1), numeric("2", 20), number(root), numeric("1", 20)];
    assert_eq!(edge.rows(), [expected]);
}

#[test]
fn statistics_of_floats_of_all_sizes_are_exact() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, var_pop(x) AS v,
        regr_sxx(x, x) AS s, regr_avgx(x, x) AS a, regr_slope(x, x) AS m, corr(x, -x) AS r FROM t;";
    let mut edge = Edge::new("x double precision", view, 3);
    let float = Value::Float;
    let one = |v: f64, s: f64, a: f64| {
        vec![
            number(1),
            float(v),
            float(s),
            float(a),
            float(1.0),
            float(-1.0),
        ]
    };
    // 2⁵³ and 2⁵³ + 2: their squares differ in the last of 106 bits.
    let most = 9_007_199_254_740_992_f64;
    edge.put(&[(1, x(most)), (2, x(most + 2.0))]);
    assert_eq!(edge.rows(), [one(1.0, 2.0, most)]);
    // Beside great values, which are taken back.
    edge.put(&[(3, x(1e150)), (4, x(-1e150))]);
    edge.put(&[(3, None), (4, None)]);
    assert_eq!(edge.rows(), [one(1.0, 2.0, most)]);
    edge.put(&[(1, x(1e-160)), (2, x(-1e-160))]);
    assert_eq!(edge.rows(), [one(1e-320, 2e-320, 0.0)]);
    // PostgreSQL fails with "value out of range: overflow".
    edge.put(&[(1, x(1e200))]);
    assert!(edge.rows().is_empty());
    assert!(edge.river.reasons()[0].contains("out of range"));
    edge.put(&[(1, x(2.0)), (2, x(4.0))]);
    assert_eq!(edge.rows(), [one(1.0, 2.0, 3.0)]);
}

#[test]
fn statistics_of_infinities_are_no_numbers() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k,
        var_pop(CAST(x AS double precision)) AS v, stddev(CAST(x AS double precision)) AS s,
        regr_avgx(1, CAST(x AS double precision)) AS a,
        regr_sxx(1, CAST(x AS double precision)) AS sxx,
        covar_pop(1, CAST(x AS double precision)) AS c,
        regr_syy(1, CAST(x AS double precision)) AS syy,
        regr_r2(1, CAST(x AS double precision)) AS r2,
        corr(CAST(x AS double precision), 1) AS flat FROM t;";
    let mut edge = Edge::new("x text", view, 2);
    let float = Value::Float;
    let nan = || float(f64::NAN);
    edge.put(&[(1, x("Infinity")), (2, x("1"))]);
    let infinite = float(f64::INFINITY);
    let expected = |a| {
        [
            number(1),
            nan(),
            nan(),
            a,
            nan(),
            nan(),
            float(0.0),
            float(1.0),
            Value::Null,
        ]
    };
    assert_eq!(edge.rows(), [expected(infinite)]);
    edge.put(&[(1, x("NaN"))]);
    assert_eq!(edge.rows(), [expected(nan())]);
    edge.put(&[(1, x("3"))]);
    let finite = [1.0, 2f64.sqrt(), 2.0, 2.0, 0.0, 0.0, 1.0].map(float);
    let finite = [number(1)].into_iter().chain(finite).chain([Value::Null]);
    assert_eq!(edge.rows(), [finite.collect::<Vec<_>>()]);
}

#[test]
fn texts_without_an_order_are_sorted() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, string_agg(x, ',') AS t,
        string_agg(x, ',' ORDER BY length(x) DESC) AS l FROM t;";
    for workers in [1, 4] {
        let mut edge = Edge::new("x text", view, workers);
        edge.put(&[
            (1, x("b")),
            (2, x("a")),
            (3, x("cc")),
            (4, x(Json::Null)),
            (5, x("a")),
        ]);
        assert_eq!(
            edge.rows(),
            [[number(1), number("a,a,b,cc"), number("cc,a,a,b")]]
        );
        edge.put(&[(5, x("")), (2, x("dd")), (4, x("B"))]);
        assert_eq!(
            edge.rows(),
            [[number(1), number(",B,b,cc,dd"), number("cc,dd,B,b,")]]
        );
        let all = (1..6).map(|id| (id, None));
        edge.put(&all.collect::<Vec<_>>());
        assert_eq!(edge.rows(), [[number(1), Value::Null, Value::Null]]);
        assert!(edge.river.reasons().is_empty());
    }
}

#[test]
fn a_text_that_is_too_long_is_left_out_and_comes_back() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT k, length(t) AS n, c FROM (
        SELECT id % 2 AS k, string_agg(x, ',') AS t, count(*) AS c FROM t GROUP BY id % 2) AS g;";
    let mut edge = Edge::new("x text", view, 2);
    let long = |length: usize| x("x".repeat(length));
    edge.put(&[(0, long(600_000)), (1, long(5)), (2, long(600_000))]);
    assert_eq!(edge.rows(), [[number(1), number(5), number(1)]]);
    let reasons = edge.river.reasons();
    assert!(
        reasons[0].contains("longer than 1048576 bytes"),
        "{reasons:?}"
    );
    edge.put(&[(2, long(448_575))]);
    let fits = [number(0), number(1_048_576), number(2)];
    assert_eq!(edge.rows()[0], fits);
    edge.put(&[(2, long(448_576))]);
    assert_eq!(edge.rows().len(), 1);
    // From a checkpoint, the group is left out too.
    edge.river.rest();
    edge.river.stop();
    edge.river.start();
    edge.put(&[(1, long(6))]);
    assert_eq!(edge.rows(), [[number(1), number(6), number(1)]]);
    edge.put(&[(0, None)]);
    assert_eq!(edge.rows()[0], [number(0), number(448_576), number(1)]);
}
