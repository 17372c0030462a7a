//! Plans against PostgreSQL: random queries ([`shapes`](super::shapes)) and those that once came
//! out wrong, each as a view over rows that are inserted, updated and deleted in steps. After each
//! step every view must hold the multiset of rows that PostgreSQL answers to the same SQL over the
//! same rows. A query that planning refuses is fine; what it may not do is panic, or show how the
//! program is written.
//!
//! The seed is printed; `TIDEMILL_TEST_SEED` repeats a run, `TIDEMILL_TEST_QUERIES` says how many
//! queries it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tidemill_log::log::Record;
use tidemill_plan::compile;

use crate::views::held::Value;
use crate::views::oracle::Oracle;
use crate::views::river::River;
use crate::views::shapes;
use crate::views::shapes::Shapes;

/// Of a run that none is given to: the same for all, so that a change of ours is what fails.
const SEED: u64 = 20_261_128;
/// How many random queries; a job has this many.
const QUERIES: usize = 240;
const A_JOB: usize = 60;
const STEPS: usize = 3;
const KEYS: i64 = 14;
/// No number and no text of the data.
const NULL: i64 = -999_999;

/// The rows of a table by key; of a table without one by number.
type Rows = BTreeMap<i64, Json>;

/// Tables and views of a job, and the queries over them.
struct Stage {
    tables: Vec<(String, String)>,
    keyed: bool,
    views: Vec<(String, String)>,
    queries: Vec<(String, Vec<DataType>)>,
}

impl Stage {
    fn new(tables: &[(&str, &str)], keyed: bool, views: &[(&str, &str)]) -> Self {
        let owned = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            pairs.collect()
        };
        Self {
            tables: owned(tables),
            keyed,
            views: owned(views),
            queries: Vec::new(),
        }
    }

    /// Tables and views, as the planner takes them.
    fn prelude(&self) -> String {
        let mut sql = String::new();
        for (table, columns) in &self.tables {
            let (key, envelope) = match self.keyed {
                true => (", PRIMARY KEY (id)", "upsert"),
                false => ("", "append"),
            };
            writeln!(
                sql,
                "CREATE TABLE {table} ({columns}{key}) WITH (format = 'json', envelope = \
                 '{envelope}');"
            )
            .unwrap();
        }
        for (view, query) in &self.views {
            writeln!(sql, "CREATE VIEW {view} AS {query};").unwrap();
        }
        sql
    }

    /// Takes a query, or says why planning refuses it.
    fn take(&mut self, query: &str) -> Result<(), String> {
        let sql = format!("{}CREATE VIEW q AS\n{query};", self.prelude());
        let caught = std::panic::catch_unwind(|| compile(&sql, "views.sql", None));
        let planned = caught.unwrap_or_else(|_| panic!("planning panics: {query}"));
        match planned {
            Ok(job) => {
                let fields = job.views.last().unwrap().rel.schema.fields().clone();
                let kinds = fields.iter().map(|field| field.data_type().clone());
                self.queries.push((query.to_owned(), kinds.collect()));
                Ok(())
            }
            Err(error) => {
                let error = error.to_string();
                check_message(query, &error);
                Err(error)
            }
        }
    }

    /// The whole file: below each query a view that counts its equal rows.
    fn sql(&self) -> String {
        let mut sql = self.prelude();
        for (at, (query, kinds)) in self.queries.iter().enumerate() {
            let columns: Vec<String> = (0..kinds.len()).map(|c| format!("c{c}")).collect();
            let shown = kinds.iter().zip(&columns).map(|(kind, c)| match kind {
                DataType::Utf8 => {
                    format!("CASE WHEN {c} IS NULL THEN '{NULL}' ELSE {c} END AS {c}")
                }
                DataType::Boolean => {
                    format!("CASE WHEN {c} IS NULL THEN {NULL} WHEN {c} THEN 1 ELSE 0 END AS {c}")
                }
                _ => format!("CASE WHEN {c} IS NULL THEN {NULL} ELSE {c} END AS {c}"),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let positions = (1..=kinds.len()).map(|c| c.to_string());
            let positions = positions.collect::<Vec<_>>().join(", ");
            let columns = columns.join(", ");
            writeln!(
                sql,
                "CREATE VIEW q{at} ({columns}) AS {query};\n\
                 CREATE VIEW o{at} WITH (primary_key = '{columns}, rows') AS SELECT {shown}, \
                 count(*) AS rows FROM q{at} GROUP BY {positions};"
            )
            .unwrap();
        }
        sql
    }

    /// What PostgreSQL answers to a query.
    fn answer(&self, oracle: &mut Oracle, at: usize) -> Result<BTreeSet<Vec<String>>, String> {
        let (query, kinds) = &self.queries[at];
        let columns: Vec<String> = (0..kinds.len()).map(|c| format!("c{c}")).collect();
        let shown = kinds.iter().zip(&columns).map(|(kind, c)| match kind {
            DataType::Boolean => format!("coalesce({c}::int, {NULL})::text"),
            _ => format!("coalesce({c}::text, '{NULL}')"),
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let positions = (1..=kinds.len()).map(|c| c.to_string());
        let positions = positions.collect::<Vec<_>>().join(", ");
        oracle.texts(&format!(
            "SELECT {shown}, count(*)::text FROM ({query}\n) AS q({}) GROUP BY {positions}",
            columns.join(", ")
        ))
    }
}

/// A message says nothing of how the program is written.
fn check_message(query: &str, message: &str) {
    let raw = [
        "Ident",
        "Custom(",
        "Some(",
        "None",
        "Span {",
        "quote_style",
        "Int64(",
        "Utf8(",
    ];
    let raw = raw
        .iter()
        .find(|raw| message.contains(**raw) && !query.contains(**raw));
    assert!(raw.is_none(), "{query}\nis refused with\n{message}");
    assert!(message.starts_with("views.sql:"), "{query}\n{message}");
}

/// Runs the stage's queries over the rows of each step, and compares.
fn judge(name: &str, stage: &Stage, oracle: &mut Oracle, steps: &[Vec<Rows>]) {
    let mut river = River::new(&stage.sql(), 1);
    for (table, _) in &stage.tables {
        river.log().create_topic(table, 1).unwrap();
    }
    river.start();
    let mut producer = river.log().producer().unwrap();
    let mut before: Vec<Rows> = vec![Rows::new(); stage.tables.len()];
    let (mut wrong, mut unanswered) = (Vec::new(), 0);
    for (step, after) in steps.iter().enumerate() {
        for (table, (old, new)) in before.iter().zip(after).enumerate() {
            let name = &stage.tables[table].0;
            producer
                .append(&changes(name, stage.keyed, old, new))
                .unwrap();
            let rows: Json = new.values().cloned().collect();
            oracle.refill(name, &rows);
        }
        before.clone_from(after);
        river.settle();
        for at in 0..stage.queries.len() {
            let query = &stage.queries[at].0;
            match stage.answer(oracle, at) {
                Err(error) => {
                    unanswered += 1;
                    eprintln!("{name}: PostgreSQL refuses {query}\n  {error}");
                }
                Ok(expected) => {
                    let found = found(&river, at);
                    if found != expected {
                        let missing: Vec<_> = expected.difference(&found).take(3).collect();
                        let extra: Vec<_> = found.difference(&expected).take(3).collect();
                        wrong.push(format!(
                            "step {step}: {query}\n  missing {missing:?}\n  extra   {extra:?}"
                        ));
                    }
                }
            }
        }
    }
    let letters = river.reasons();
    river.stop();
    let of = stage.queries.len();
    let count = wrong.len();
    wrong.truncate(12);
    let all = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "{name}: {count} answers differ in {of} queries\n{all}"
    );
    assert!(letters.is_empty(), "{name}: {letters:?}");
    assert!(
        unanswered * 5 < of * steps.len(),
        "PostgreSQL refuses {unanswered} of {of}"
    );
}

fn found(river: &River, at: usize) -> BTreeSet<Vec<String>> {
    let text = |value: Value| match value {
        Value::Exact(text) => text,
        other => format!("{other:?}"),
    };
    let rows = river.rows(&format!("o{at}")).into_values();
    rows.map(|row| row.into_iter().map(text).collect())
        .collect()
}

fn changes(topic: &str, keyed: bool, old: &Rows, new: &Rows) -> Vec<Record> {
    let mut changes = Vec::new();
    let mut change = |key: i64, row: Option<&Json>| {
        changes.push(Record {
            topic: topic.to_owned(),
            partition: None,
            key: keyed.then(|| json!({ "id": key }).to_string().into_bytes()),
            value: row.map(|row| row.to_string().into_bytes()),
            timestamp_ms: 0,
        });
    };
    for (key, row) in new {
        if old.get(key) != Some(row) {
            change(*key, Some(row));
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        change(*key, None);
    }
    changes
}

/// The rows of the tables of [`shapes`] after some more changes.
fn changed(rng: &mut StdRng, before: &[Rows]) -> Vec<Rows> {
    let tables = shapes::TABLES.iter().zip(before);
    let change = |((_, columns), before): (&(&str, &str), &Rows)| {
        let mut rows = before.clone();
        for id in 0..KEYS {
            match rng.random_range(0..5) {
                0 => drop(rows.remove(&id)),
                1 | 2 => drop(rows.insert(id, row(rng, id, columns))),
                _ => {}
            }
        }
        rows
    };
    tables.map(change).collect()
}

fn row(rng: &mut StdRng, id: i64, columns: &str) -> Json {
    let mut row = json!({ "id": id });
    for column in columns.split(", ") {
        let (name, kind) = column.split_once(' ').unwrap();
        if name != "id" {
            row[name] = match (kind, rng.random_range(0..5)) {
                (_, 0) => Json::Null,
                ("text", n) => json!(["x", "y", "z", "xy"][n - 1]),
                _ => json!(rng.random_range(-2..3)),
            };
        }
    }
    row
}

#[test]
fn random_queries_answer_as_postgresql_does() {
    let Some(mut oracle) = Oracle::connect("queries") else {
        return;
    };
    let seed = std::env::var("TIDEMILL_TEST_SEED").ok();
    let seed = seed.map_or(SEED, |seed| seed.parse().unwrap());
    eprintln!("queries: TIDEMILL_TEST_SEED={seed}");
    let queries = std::env::var("TIDEMILL_TEST_QUERIES").ok();
    let queries = queries.map_or(QUERIES, |queries| queries.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    oracle.tables(&shapes::TABLES);
    oracle.views(&shapes::VIEWS);
    let mut refused = BTreeMap::new();
    let mut taken = 0;
    while taken < queries {
        let mut stage = Stage::new(&shapes::TABLES, true, &shapes::VIEWS);
        while stage.queries.len() < A_JOB {
            let depth = rng.random_range(0..4);
            let query = Shapes::new(&mut rng).query(depth);
            if let Err(error) = stage.take(&query.sql) {
                let (_, what) = error.split_once(": ").unwrap();
                let times = refused.entry(what.to_owned()).or_insert((0, query.sql));
                times.0 += 1;
            }
        }
        taken += stage.queries.len();
        let mut steps = vec![changed(&mut rng, &vec![Rows::new(); shapes::TABLES.len()])];
        while steps.len() < STEPS {
            steps.push(changed(&mut rng, steps.last().unwrap()));
        }
        judge(&format!("seed {seed}"), &stage, &mut oracle, &steps);
    }
    let times: usize = refused.values().map(|(times, _)| times).sum();
    for (what, (times, query)) in &refused {
        eprintln!("refused {times} times: {what}\n    {query}");
    }
    assert!(times < taken, "{times} of {} are refused", taken + times);
}

/// What came out unlike PostgreSQL's answer, or panicked.
const ONCE_WRONG: &str = include_str!("once_wrong.sql");
const ONCE_WRONG_TABLES: [(&str, &str); 5] = [
    ("d2", "a int, b int"),
    ("m1", "a int, b int"),
    ("m2", "b int, c int"),
    ("n1", "x int, y int, s text"),
    ("n2", "x int, y int, s text"),
];

/// What PostgreSQL refuses. Most of it the planner's library would take, with a meaning of its own.
const INVALID: &str = include_str!("invalid.sql");

#[test]
fn what_postgresql_refuses_is_refused() {
    let Some(mut oracle) = Oracle::connect("invalid") else {
        return;
    };
    oracle.tables(&ONCE_WRONG_TABLES);
    let mut stage = Stage::new(&ONCE_WRONG_TABLES, false, &[]);
    let mut taken = Vec::new();
    for query in INVALID.lines() {
        let query = query.trim_end_matches(';');
        match (oracle.evaluates(query), stage.take(query)) {
            (Err(_), Err(_)) => {}
            (Ok(()), _) => taken.push(format!("{query}\n  PostgreSQL takes it")),
            (Err(why), Ok(())) => taken.push(format!("{query}\n  {why}")),
        }
    }
    assert!(taken.is_empty(), "taken:\n{}", taken.join("\n"));
}

#[test]
fn queries_that_were_wrong_answer_as_postgresql_does() {
    let Some(mut oracle) = Oracle::connect("once_wrong") else {
        return;
    };
    oracle.tables(&ONCE_WRONG_TABLES);
    let mut stage = Stage::new(&ONCE_WRONG_TABLES, false, &[]);
    let mut refused = Vec::new();
    let queries = ONCE_WRONG.split(";\n").map(str::trim);
    for query in queries.filter(|query| !query.is_empty()) {
        let lines: Vec<&str> = query.lines().collect();
        let may_refuse = lines[0].contains("may be refused");
        let code = lines.iter().filter(|line| !line.starts_with("--"));
        let code = code.copied().collect::<Vec<_>>().join("\n");
        match stage.take(&code) {
            Ok(()) => {}
            Err(error) if may_refuse => eprintln!("refused: {code}\n    {error}"),
            Err(error) => refused.push(format!("{code}\n    {error}")),
        }
    }
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    let numbered = |all: &[Json]| -> Rows { (0..).zip(all.iter().cloned()).collect() };
    let step = vec![
        numbered(&[json!({"a": 2, "b": 1}), json!({"a": 2, "b": 2})]),
        numbered(&[json!({"a": 1, "b": 2})]),
        numbered(&[json!({"b": 2, "c": 3})]),
        numbered(&[
            json!({"x": 1, "y": null, "s": "p"}),
            json!({"x": null, "y": 7, "s": null}),
            json!({"x": -3, "y": 0, "s": "q"}),
            json!({"x": -3, "y": 0, "s": "q"}),
        ]),
        numbered(&[
            json!({"x": 1, "y": null, "s": "p"}),
            json!({"x": null, "y": 7, "s": null}),
            json!({"x": 2, "y": 0, "s": null}),
        ]),
    ];
    judge("once wrong", &stage, &mut oracle, &[step]);
}
