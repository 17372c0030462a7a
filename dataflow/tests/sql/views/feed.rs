//! Random records: in goes a random number generator, out go the log's records, and the rows that
//! a table has after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tidemill_log::log::{Log, Producer, Record};

use crate::views::bundle::TABLES;

/// How records become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envelope {
    Append,
    Upsert,
    Debezium,
}

impl Envelope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Envelope::Append => "append",
            Envelope::Upsert => "upsert",
            Envelope::Debezium => "debezium",
        }
    }
}

const PARTITIONS: u32 = 3;
/// Few keys, so that updates and deletes meet rows and groups vanish and come back.
const KEYS: i64 = 60;

/// Both tables and their topics.
pub(crate) struct Feed {
    producer: Box<dyn Producer>,
    envelope: Envelope,
    /// Rows by key; an append table's rows by number.
    rows: [BTreeMap<i64, Value>; 2],
    appended: i64,
}

impl Feed {
    pub(crate) fn new(log: Arc<dyn Log>, envelope: Envelope) -> Self {
        for topic in TABLES {
            log.create_topic(topic, PARTITIONS).unwrap();
        }
        Self {
            producer: log.producer().unwrap(),
            envelope,
            rows: Default::default(),
            appended: 0,
        }
    }

    /// The rows of a table, as a JSON array.
    pub(crate) fn rows(&self, table: usize) -> Value {
        self.rows[table].values().cloned().collect()
    }

    /// A wave of changes, in batches of many sizes. The first wave leaves one table empty; one in
    /// the middle deletes nearly everything.
    pub(crate) fn wave(&mut self, rng: &mut StdRng, wave: usize) {
        let sweep = wave == 2;
        for _ in 0..rng.random_range(8..20) {
            let size = *[1, 2, 7, 30].choose(rng).unwrap();
            let mut batch = Vec::new();
            for _ in 0..size {
                let table = usize::from(wave > 0 && rng.random_bool(0.3));
                self.change(rng, table, sweep, &mut batch);
            }
            if self.envelope == Envelope::Debezium && rng.random_bool(0.04) {
                self.truncate(0, &mut batch);
            }
            self.producer.append(&batch).unwrap();
        }
        if sweep && self.envelope != Envelope::Append {
            let mut batch = Vec::new();
            let keys: Vec<i64> = self.rows[0].keys().copied().collect();
            for key in keys {
                self.delete(0, key, &mut batch);
            }
            self.producer.append(&batch).unwrap();
        }
    }

    fn change(&mut self, rng: &mut StdRng, table: usize, sweep: bool, batch: &mut Vec<Record>) {
        let key = rng.random_range(0..KEYS);
        if self.envelope == Envelope::Append {
            let row = row(rng, key);
            // Some rows come twice.
            let times = if rng.random_bool(0.1) { 2 } else { 1 };
            for _ in 0..times {
                self.appended += 1;
                self.rows[table].insert(self.appended, row.clone());
                batch.push(record(
                    table,
                    None,
                    Some(row.clone()),
                    rng.random_range(0..PARTITIONS),
                ));
            }
            return;
        }
        if rng.random_bool(if sweep { 0.7 } else { 0.25 }) {
            return self.delete(table, key, batch);
        }
        let known = self.rows[table].get(&key).cloned();
        let row = match known {
            // Nothing new, or one column only: most changes of a real table.
            Some(known) if rng.random_bool(0.1) => known,
            Some(mut known) if rng.random_bool(0.4) => {
                known["n"] = row(rng, key)["n"].clone();
                known
            }
            _ => row(rng, key),
        };
        let before = self.rows[table].insert(key, row.clone());
        let value = match self.envelope {
            Envelope::Debezium => {
                let op = if before.is_some() { "u" } else { "c" };
                json!({"before": before, "after": row, "op": op})
            }
            _ => row,
        };
        batch.push(keyed(table, key, Some(value)));
    }

    fn delete(&mut self, table: usize, key: i64, batch: &mut Vec<Record>) {
        let before = self.rows[table].remove(&key);
        if self.envelope == Envelope::Debezium {
            let value = json!({"before": before, "after": null, "op": "d"});
            batch.push(keyed(table, key, Some(value)));
        }
        batch.push(keyed(table, key, None));
    }

    /// As capture does: one record to each partition.
    fn truncate(&mut self, table: usize, batch: &mut Vec<Record>) {
        self.rows[table].clear();
        for partition in 0..PARTITIONS {
            batch.push(record(table, None, Some(json!({"op": "t"})), partition));
        }
    }
}

/// A document, mostly an object of few keys with values of changing types; null at times.
fn document(rng: &mut StdRng) -> Value {
    let number = rng.random_range(-3..4);
    let word = *["a", "b", "ab", "", "ä \"x\""].choose(rng).unwrap();
    let tags: Vec<&str> = ["x", "y", "z", "x"]
        .into_iter()
        .filter(|_| rng.random_bool(0.5))
        .collect();
    let flag = rng.random_bool(0.5);
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => json!([number, word, null, {"k": number}]),
        2 => json!({}),
        3 => json!({"k": word, "n": null}),
        4 => json!({"k": word, "n": number, "o": {"p": {"q": number}, "r": tags}}),
        5 => json!({"n": f64::from(number) / 4.0, "tags": tags, "k": word, "deep": [[number]]}),
        _ => json!({
            "k": word, "n": number, "tags": tags, "flag": flag,
            "lines": [{"sku": word, "qty": number}, {"sku": "s", "qty": 2}],
        }),
    }
}

fn keyed(table: usize, key: i64, value: Option<Value>) -> Record {
    let key = json!({ "id": key }).to_string().into_bytes();
    Record {
        partition: None,
        ..record(table, Some(key), value, 0)
    }
}

fn record(table: usize, key: Option<Vec<u8>>, value: Option<Value>, partition: u32) -> Record {
    Record {
        topic: TABLES[table].to_owned(),
        partition: Some(partition),
        key,
        value: value.map(|value| value.to_string().into_bytes()),
        timestamp_ms: 1_700_000_000_000,
    }
}

const DAYS: &[&str] = &[
    "0001-01-01",
    "1900-02-28",
    "1969-12-31",
    "1970-01-01",
    "2000-02-29",
    "2024-12-31",
    "9999-12-31",
];
const AT: &[&str] = &[
    "0001-01-01T00:00:00.000001",
    "1969-12-31T23:59:59.999999",
    "1970-01-01T00:00:00",
    "2024-02-29T12:34:56.789",
    "2024-02-01T00:00:00",
    "9999-12-31T23:59:59.999999",
];
const TZ: &[&str] = &[
    "1969-12-31T23:59:59.999999Z",
    "2024-03-31T02:30:00+02:00",
    "2000-01-01T00:00:00-05:30",
    "1999-12-31T22:00:00Z",
    "1999-12-31T22:00:00.000001Z",
];

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> Option<&'a str> {
    from.choose(rng).copied().filter(|_| rng.random_bool(0.9))
}

/// A random row: nulls, extremes, empty and foreign text, dates on both sides of 1970.
fn row(rng: &mut StdRng, id: i64) -> Value {
    let n: i64 = match rng.random_range(0..20) {
        0 => i64::from(i32::MAX),
        1 => i64::from(i32::MIN),
        _ => rng.random_range(-4..=4),
    };
    let huge = *[i64::MIN, i64::MAX, 0, -1, 1, 1 << 53, -(1 << 53) - 1]
        .choose(rng)
        .unwrap();
    // Multiples of 1/64: PostgreSQL's own sums of them are exact too.
    let f = match rng.random_range(0..8) {
        0 => -0.0,
        1 => 0.0,
        2 => 1e12,
        _ => rng.random_range(-640..640) as f64 / 64.0,
    };
    let cents: i64 = match rng.random_range(0..8) {
        0 => 999_999_999,
        1 => 0,
        _ => rng.random_range(-500..500),
    };
    let sign = if cents < 0 { "-" } else { "" };
    let d = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
    let (sub, flag) = (rng.random_range(-1..12), rng.random_bool(0.5));
    let small = rng.random_range(-32767..=32767);
    let big = rng.random_range(-1_000_000_000_000_i64..1_000_000_000_000);
    let mut some = |value: Value| {
        if rng.random_bool(0.12) {
            Value::Null
        } else {
            value
        }
    };
    let (sub, flag, small) = (some(json!(sub)), some(json!(flag)), some(json!(small)));
    let (n, big, huge) = (some(json!(n)), some(json!(big)), some(json!(huge)));
    let (f, d) = (some(json!(f)), some(json!(d)));
    json!({
        "id": id,
        "grp": pick(rng, &["a", "b", "", "ä", "日本語", "e\u{301}", "🌊 river"]),
        "sub": sub,
        "flag": flag,
        "small": small,
        "n": n,
        "big": big,
        "huge": huge,
        "f": f,
        "d": d,
        "txt": pick(rng, &["a", "b", "ab", "", " ", "a b", "AB", "'quoted'", "a\\b\"c\n"]),
        "day": pick(rng, DAYS),
        "at": pick(rng, AT),
        "tz": pick(rng, TZ),
        "doc": document(rng),
        "unused": {"n": [1, "two", null]},
    })
}
