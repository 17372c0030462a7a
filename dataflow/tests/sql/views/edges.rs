//! Edges that PostgreSQL answers otherwise or not at all: what must hold is said here.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tidemill_log::log::Record;

use crate::views::held::Value;
use crate::views::river::River;
use crate::views::seed;

/// A table of one key and a view over it, on some workers.
pub(crate) struct Edge {
    pub(crate) river: River,
}

impl Edge {
    pub(crate) fn new(columns: &str, view: &str, workers: usize) -> Self {
        Self::serving(columns, view, workers, None)
    }

    /// The same with the view's table in another sink.
    pub(crate) fn serving(columns: &str, view: &str, workers: usize, sink: Option<&str>) -> Self {
        Self::started(columns, view, workers, |river| {
            if let Some(sink) = sink {
                river.serve_in(sink);
            }
        })
    }

    /// The same with a job that is prepared before it starts.
    pub(crate) fn started(
        columns: &str,
        view: &str,
        workers: usize,
        prepare: impl FnOnce(&River),
    ) -> Self {
        let table = format!(
            "CREATE TABLE t (id int PRIMARY KEY, {columns}) WITH (format = 'json', envelope =
                'upsert');"
        );
        let mut river = River::new(&format!("{table}{view}"), workers);
        prepare(&river);
        river.log().create_topic("t", 2).unwrap();
        river.start();
        Self { river }
    }

    /// Sets or deletes rows and waits until the views show it.
    pub(crate) fn put(&mut self, rows: &[(i64, Option<Json>)]) {
        self.feed(rows);
        self.river.settle();
    }

    /// Sets or deletes rows.
    pub(crate) fn feed(&mut self, rows: &[(i64, Option<Json>)]) {
        let records: Vec<Record> = rows
            .iter()
            .map(|(id, row)| Record {
                topic: "t".to_owned(),
                partition: None,
                key: Some(id.to_string().into_bytes()),
                value: row.clone().map(|mut row| {
                    row["id"] = json!(id);
                    row.to_string().into_bytes()
                }),
                timestamp_ms: 0,
            })
            .collect();
        let mut producer = self.river.log().producer().unwrap();
        producer.append(&records).unwrap();
    }

    /// Sets a row to a text, and waits until the views show it.
    pub(crate) fn put_text(&mut self, id: i64, text: &str) {
        let record = Record {
            topic: "t".to_owned(),
            partition: None,
            key: Some(id.to_string().into_bytes()),
            value: Some(text.as_bytes().to_vec()),
            timestamp_ms: 0,
        };
        let mut producer = self.river.log().producer().unwrap();
        producer.append(&[record]).unwrap();
        self.river.settle();
    }

    /// The view's rows, in the order of their keys.
    pub(crate) fn rows(&self) -> Vec<Vec<Value>> {
        self.river.rows("v").into_values().collect()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.river.stop();
        }
    }
}

pub(crate) fn number(value: impl std::fmt::Display) -> Value {
    Value::Exact(value.to_string())
}

#[test]
fn a_sum_of_bigints_is_a_numeric() {
    let view =
        "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, sum(x) AS s, count(x) AS c,
        max(x) AS m FROM t;";
    let mut edge = Edge::new("x bigint", view, 2);
    let most = Some(json!({"x": i64::MAX}));
    edge.put(&[(1, most.clone()), (2, most)]);
    let found = edge.rows();
    let sum = number(i128::from(i64::MAX) * 2);
    assert_eq!(found, [[number(1), sum, number(2), number(i64::MAX)]]);
    edge.put(&[(2, Some(json!({"x": -7})))]);
    let found = edge.rows();
    let sum = number(i64::MAX - 7);
    assert_eq!(found, [[number(1), sum, number(2), number(i64::MAX)]]);
    assert!(edge.river.reasons().is_empty());
}

#[test]
fn a_group_whose_sum_is_out_of_range_is_left_out_and_comes_back() {
    let view =
        "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, sum(x) AS s, max(x) AS m FROM t;";
    let mut edge = Edge::new("x numeric(38, 0)", view, 2);
    let most = "9".repeat(38);
    let row = |digits: &str| Some(json!({ "x": digits }));
    edge.put(&[(1, row(&most)), (2, row(&most))]);
    assert!(edge.rows().is_empty());
    assert!(edge.river.reasons()[0].contains("out of range"));
    edge.put(&[(2, row("0"))]);
    assert_eq!(edge.rows(), [[number(1), number(&most), number(&most)]]);
}

/// The sums of a window: only the rows whose own sum does not fit are left out.
#[test]
fn rows_whose_running_sum_is_out_of_range_are_left_out_and_come_back() {
    let view = "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, sum(x) OVER (ORDER BY id) AS
        s, count(*) OVER (ORDER BY id) AS c FROM t;";
    let mut edge = Edge::new("x numeric(38, 0)", view, 2);
    let most = "9".repeat(38);
    let row = |digits: &str| Some(json!({ "x": digits }));
    let line = |id: i64, sum: &str, count: i64| vec![number(id), number(sum), number(count)];
    edge.put(&[(1, row(&most)), (2, row("1")), (3, row("-1"))]);
    assert_eq!(edge.rows(), [line(1, &most, 1), line(3, &most, 3)]);
    let reasons = edge.river.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].contains("`sum(x)` is out of range"),
        "{reasons:?}"
    );
    // Row 2 stays out of range, and row 3 is gone.
    edge.put(&[(3, None)]);
    assert_eq!(edge.rows(), [line(1, &most, 1)]);
    edge.put(&[(1, row("7")), (4, row("2"))]);
    let found = edge.rows();
    assert_eq!(found, [line(1, "7", 1), line(2, "8", 2), line(4, "10", 3)]);
    edge.put(&[(1, None), (2, None), (4, None)]);
    assert!(edge.rows().is_empty());
}

/// Whether a row has a partner is unknown while the condition fails for one of its pairs.
#[test]
fn a_row_whose_pair_fails_is_not_one_without_a_partner() {
    let view = "CREATE VIEW v WITH (primary_key = 'id') AS SELECT a.id, b.id AS other
        FROM t a LEFT JOIN t b ON b.id = a.ref AND 6 / b.x > 0;";
    for workers in [1, 3] {
        let mut edge = Edge::new("ref int, x int", view, workers);
        let row = |of: Option<i64>, x: i64| Some(json!({"ref": of, "x": x}));
        let line =
            |id: i64, other: Option<i64>| vec![number(id), other.map_or(Value::Null, number)];
        let others = [line(5, None), line(6, None), line(7, None)];
        let shown = |first: &[Vec<Value>]| [first, &others].concat();
        let of = |id: i64| row(Some(id), 1);
        edge.put(&[(1, of(5)), (2, of(6)), (3, of(7))]);
        edge.put(&[(5, row(None, 0)), (6, row(None, 3)), (7, row(None, -3))]);
        assert_eq!(edge.rows(), shown(&[line(2, Some(6)), line(3, None)]));
        let reasons = edge.river.reasons();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains("zero"), "{reasons:?}");
        edge.river.stop();
        edge.river.start();
        edge.put(&[(5, row(None, 1))]);
        let all = [line(1, Some(5)), line(2, Some(6)), line(3, None)];
        assert_eq!(edge.rows(), shown(&all));
        edge.put(&[(5, row(None, 0))]);
        assert_eq!(edge.rows(), shown(&all[1..]));
        edge.put(&[(5, None)]);
        assert_eq!(edge.rows()[0], line(1, None));
    }
}

/// The text of a date has four digits of the year.
#[test]
fn a_date_of_the_year_10000_is_withheld_from_an_embedded_table() {
    let view = "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, d + n AS later FROM t;";
    let mut edge = Edge::new("d date, n int", view, 2);
    let row = |n: i64| Some(json!({"d": "9999-12-30", "n": n}));
    edge.put(&[(1, row(1)), (2, row(2)), (3, row(0))]);
    let ids = |edge: &Edge| -> Vec<Value> {
        let rows = edge.rows().into_iter();
        rows.map(|mut row| row.remove(0)).collect()
    };
    assert_eq!(ids(&edge), [number(1), number(3)]);
    let reasons = edge.river.reasons();
    let beyond = |it: &String| it.contains("after the year 9999");
    assert!(reasons.iter().any(beyond), "{reasons:?}");
    edge.put(&[(2, row(0))]);
    assert_eq!(ids(&edge), [number(1), number(2), number(3)]);
}

/// A row that cannot be evaluated is in no partition; one that FILTER leaves out is not evaluated.
#[test]
fn a_row_whose_argument_fails_is_in_no_window() {
    let view = "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, lag(6 / x) OVER (ORDER BY id)
        AS a, sum(6 / y) FILTER (WHERE y <> 0) OVER () AS s FROM t;";
    let mut edge = Edge::new("x int, y int", view, 2);
    let row = |x: i64, y: i64| Some(json!({ "x": x, "y": y }));
    edge.put(&[(1, row(1, 0)), (2, row(0, 1)), (3, row(3, 2))]);
    let line = |id: i64, a: Option<i64>, s: i64| {
        let a = a.map_or(Value::Null, number);
        vec![number(id), a, number(s)]
    };
    assert_eq!(edge.rows(), [line(1, None, 3), line(3, Some(6), 3)]);
    let reasons = edge.river.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("by zero"), "{reasons:?}");
    edge.put(&[(2, row(2, 1))]);
    let found = edge.rows();
    assert_eq!(
        found,
        [line(1, None, 9), line(2, Some(6), 9), line(3, Some(3), 9)]
    );
}

/// Four of these add up to more than 2¹²⁸, and modulo that to a number of 38 digits.
#[test]
fn sums_of_the_greatest_numerics_do_not_wrap_around() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT k, sum(x) AS s, count(*) AS c
        FROM t GROUP BY k;";
    let mut edge = Edge::new("k int, x numeric(38, 0)", view, 2);
    let most = "9".repeat(38);
    let row = |digits: &str| Some(json!({ "k": 1, "x": digits }));
    for id in 1..5 {
        edge.put(&[(id, row(&most))]);
    }
    assert!(edge.rows().is_empty(), "{:?}", edge.rows());
    let reasons = edge.river.reasons();
    assert!(reasons.iter().all(|reason| reason.contains("out of range")));
    let least = format!("-{most}");
    edge.put(&[(5, row(&least)), (6, row(&least)), (7, row(&least))]);
    assert_eq!(edge.rows(), [[number(1), number(&most), number(7)]]);
    edge.put(&[(1, None), (2, None)]);
    let sum = format!("-{most}");
    assert_eq!(edge.rows(), [[number(1), number(sum), number(5)]]);
    let all = (3..8).map(|id| (id, None));
    edge.put(&all.collect::<Vec<_>>());
    assert!(edge.rows().is_empty());
}

/// PostgreSQL fails with "value out of range: overflow".
#[test]
fn sums_of_finite_floats_are_not_infinite() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, sum(x) AS s, avg(x) AS a,
        sum(y) AS r, count(*) AS c FROM t;";
    let mut edge = Edge::new("x double precision, y real", view, 2);
    let row = |x: f64, y: f64| Some(json!({ "x": x, "y": y }));
    edge.put(&[(1, row(1e308, 1.5)), (2, row(1e308, 1.5))]);
    assert!(edge.rows().is_empty());
    assert!(edge.river.reasons()[0].contains("out of range"));
    edge.put(&[(1, row(-1e308, 3e38)), (2, row(1e308, 3e38))]);
    assert!(edge.rows().is_empty());
    edge.put(&[(1, row(1e308, -3e38)), (2, row(0.5e308, 1e38))]);
    let float = Value::Float;
    let real = |value: f32| float(f64::from(value));
    let expected = [
        number(1),
        float(1.5e308),
        float(0.75e308),
        real(-3e38_f32 + 1e38_f32),
        number(2),
    ];
    assert_eq!(edge.rows(), [expected]);
}

#[test]
fn arithmetic_out_of_range_is_a_dead_letter() {
    let view =
        "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, x + 1 AS s, x * 2 AS d FROM t;";
    let mut edge = Edge::new("x bigint", view, 1);
    edge.put(&[
        (1, Some(json!({"x": i64::MAX}))),
        (2, Some(json!({"x": 5}))),
    ]);
    assert_eq!(edge.rows(), [[number(2), number(6), number(10)]]);
    assert_eq!(edge.river.reasons().len(), 1, "{:?}", edge.river.reasons());
    edge.put(&[(1, Some(json!({"x": 1})))]);
    assert_eq!(edge.rows().len(), 2);
}

#[test]
fn a_row_that_fails_is_in_no_part_of_its_group() {
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT id % 1 AS k, count(*) AS c,
        max(10 / x) AS m, count(DISTINCT x) AS d, sum(x) AS s FROM t GROUP BY id % 1;";
    let mut edge = Edge::new("x int", view, 2);
    let row = |x: i64| Some(json!({ "x": x }));
    edge.put(&[(1, row(0)), (2, row(5)), (3, row(2))]);
    let expected = |c, m, d, s| vec![number(0), number(c), number(m), number(d), number(s)];
    assert_eq!(edge.rows(), [expected(2, 5, 2, 7)]);
    assert_eq!(edge.river.reasons().len(), 1, "{:?}", edge.river.reasons());
    edge.put(&[(1, row(1)), (3, row(0))]);
    assert_eq!(edge.rows(), [expected(2, 10, 2, 6)]);
    edge.put(&[(1, None), (2, None), (3, None)]);
    assert!(edge.rows().is_empty());
}

#[test]
fn a_null_key_is_withheld_and_stops_nothing() {
    let view =
        "CREATE VIEW v WITH (primary_key = 'x') AS SELECT x, count(*) AS c FROM t GROUP BY x;";
    let mut edge = Edge::new("x text", view, 2);
    edge.put(&[
        (1, Some(json!({"x": null}))),
        (2, Some(json!({"x": "a"}))),
        (3, Some(json!({}))),
    ]);
    assert_eq!(edge.rows(), [[number("a"), number(1)]]);
    assert!(edge.river.stats().views.lock().unwrap()["v"].conflicts > 0);
    edge.put(&[(1, Some(json!({"x": "a"})))]);
    assert_eq!(edge.rows(), [[number("a"), number(2)]]);
}

#[test]
fn equal_floats_are_one_group() {
    let view = "CREATE VIEW v WITH (primary_key = 'c') AS SELECT count(*) AS c, max(y) AS ma,
        min(y) AS mi, count(DISTINCT y) AS d, sum(y) AS s FROM (SELECT x, CASE
            WHEN x = 1 THEN CAST('NaN' AS double precision)
            WHEN x = 2 THEN -CAST('NaN' AS double precision)
            WHEN x = 3 THEN CAST('Infinity' AS double precision) ELSE x END AS y FROM t) AS w;";
    let mut edge = Edge::new("x double precision", view, 2);
    let row = |x: f64| Some(json!({ "x": x }));
    let expected = |c, ma, mi, d, s| {
        let float = Value::Float;
        vec![number(c), float(ma), float(mi), number(d), float(s)]
    };
    edge.put(&[(1, row(0.0)), (2, row(-0.0))]);
    assert_eq!(edge.rows(), [expected(2, 0.0, 0.0, 1, 0.0)]);
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    edge.put(&[(3, row(1.0)), (4, row(2.0)), (5, row(3.0)), (6, row(-4.0))]);
    assert_eq!(edge.rows(), [expected(6, nan, -4.0, 4, nan)]);
    edge.put(&[(3, None), (4, None)]);
    assert_eq!(edge.rows(), [expected(4, infinity, -4.0, 3, infinity)]);
    edge.put(&[(5, None)]);
    assert_eq!(edge.rows(), [expected(3, 0.0, -4.0, 2, -4.0)]);
}

#[test]
fn float_sums_are_rounded_once_whatever_came_and_went() {
    let seed = seed();
    eprintln!("float_sums: TIDEMILL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let view = "CREATE VIEW v WITH (primary_key = 'k') AS SELECT 1 AS k, sum(x) AS s FROM t;";
    let mut edge = Edge::new("x double precision", view, 4);
    let mut values: Vec<(i64, f64)> = (0..400)
        .map(|id| {
            let exponent = rng.random_range(-300..300);
            (id, rng.random_range(-1.0..1.0) * 10f64.powi(exponent))
        })
        .collect();
    for _ in 0..4 {
        let rows: Vec<_> = values
            .iter()
            .map(|(id, x)| (*id, Some(json!({ "x": x }))))
            .collect();
        edge.put(&rows);
        let expected = exact_sum(values.iter().map(|(_, x)| *x));
        match &edge.rows()[0][1] {
            Value::Float(sum) => assert_eq!(sum.to_bits(), expected.to_bits(), "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
        // The greatest go, so that what they had hidden must show.
        values.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        let gone: Vec<_> = values.drain(..90).map(|(id, _)| (id, None)).collect();
        edge.put(&gone);
        values.shuffle(&mut rng);
    }
}

/// The sum rounded once: partial sums that do not overlap, as in Shewchuk's adaptive arithmetic.
fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for mut x in values {
        let mut kept = Vec::new();
        for mut y in partials {
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                kept.push(low);
            }
            x = high;
        }
        kept.push(x);
        partials = kept;
    }
    let mut high = 0.0;
    let mut low = 0.0;
    while let Some(y) = partials.pop() {
        let x: f64 = high;
        high = x + y;
        low = y - (high - x);
        if low != 0.0 {
            break;
        }
    }
    // A tie that the rest decides.
    let rest = partials.last().copied().unwrap_or(0.0);
    if (low < 0.0 && rest < 0.0) || (low > 0.0 && rest > 0.0) {
        let twice = low * 2.0;
        let next = high + twice;
        if twice == next - high {
            high = next;
        }
    }
    high
}

#[test]
fn records_of_one_key_in_one_epoch_and_many_epochs() {
    let view = "CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, x FROM t;";
    let mut edge = Edge::new("x int", view, 4);
    let burst: Vec<_> = (0..2_000)
        .map(|n| (n % 3, (n % 7 != 0).then(|| json!({ "x": n }))))
        .collect();
    edge.put(&burst);
    // The last of each key: 1998, 1999 and 1997.
    let expected = [[0, 1998], [1, 1999], [2, 1997]].map(|row| row.map(number));
    assert_eq!(edge.rows(), expected);
    for x in 0..150 {
        edge.put(&[(x % 3, Some(json!({ "x": x })))]);
    }
    let expected = [[0, 147], [1, 148], [2, 149]].map(|row| row.map(number));
    assert_eq!(edge.rows(), expected);
}
