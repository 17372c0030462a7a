//! TPC-H as standing views (`examples/tpch`): small random tables are fed and refreshed as the
//! benchmark refreshes them, by inserting and deleting orders with their line items; parts and
//! customers change too. After each refresh all 22 views are what PostgreSQL answers.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tidemill_log::log::Record;

use crate::views::bundle::View;
use crate::views::oracle::Oracle;
use crate::views::river::River;

/// Of a run that none is given to.
const SEED: u64 = 20_261_129;
const REFRESHES: usize = 5;
/// Views that may be empty after every refresh, because their conditions are rarely met by chance.
const EMPTY_MAX: usize = 3;

/// The rows of each table by primary key.
type Tables = BTreeMap<&'static str, BTreeMap<Vec<i64>, Json>>;

/// The columns of each table's primary key.
const KEYS: [(&str, &[&str]); 8] = [
    ("region", &["r_regionkey"]),
    ("nation", &["n_nationkey"]),
    ("supplier", &["s_suppkey"]),
    ("part", &["p_partkey"]),
    ("partsupp", &["ps_partkey", "ps_suppkey"]),
    ("customer", &["c_custkey"]),
    ("orders", &["o_orderkey"]),
    ("lineitem", &["l_orderkey", "l_linenumber"]),
];

const NATIONS: [(&str, i64); 8] = [
    ("FRANCE", 0),
    ("GERMANY", 0),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("JAPAN", 2),
    ("INDIA", 2),
    ("SAUDI ARABIA", 3),
    ("KENYA", 4),
];
const REGIONS: [&str; 5] = ["EUROPE", "AMERICA", "ASIA", "MIDDLE EAST", "AFRICA"];
const SUPPLIERS: i64 = 12;
const PARTS: i64 = 24;
const CUSTOMERS: i64 = 30;

fn pick<'a>(rng: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

/// A number with two digits after the point.
fn money(rng: &mut StdRng, from: i64, to: i64) -> String {
    let cents = rng.random_range(from * 100..to * 100);
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn day(rng: &mut StdRng) -> String {
    let (year, month) = (rng.random_range(1993..=1998), rng.random_range(1..=12));
    format!("{year}-{month:02}-{:02}", rng.random_range(1..=28))
}

fn phone(rng: &mut StdRng) -> String {
    let code = pick(rng, &["13", "31", "23", "11", "30", "17"]);
    format!("{code}-{}", rng.random_range(100..999))
}

fn supplier(rng: &mut StdRng, key: i64) -> Json {
    let comment = pick(rng, &["quiet", "Customer had Complaints", "slow"]);
    json!({
        "s_suppkey": key,
        "s_name": format!("Supplier#{key}"),
        "s_address": format!("street {key}"),
        "s_nationkey": rng.random_range(0..NATIONS.len()),
        "s_phone": phone(rng),
        "s_acctbal": money(rng, -100, 900),
        "s_comment": comment,
    })
}

fn part(rng: &mut StdRng, key: i64) -> Json {
    let types = [
        "ECONOMY ANODIZED STEEL",
        "PROMO BRASS",
        "SMALL BRASS",
        "MEDIUM POLISHED TIN",
    ];
    let containers = ["SM CASE", "MED BOX", "LG PKG", "JUMBO JAR"];
    json!({
        "p_partkey": key,
        "p_name": pick(rng, &["forest green", "forest red", "light green", "blue"]),
        "p_mfgr": pick(rng, &["one", "two"]),
        "p_brand": pick(rng, &["Brand#12", "Brand#23", "Brand#34", "Brand#45"]),
        "p_type": pick(rng, &types),
        "p_size": *[1, 3, 15, 49].choose(rng).unwrap(),
        "p_container": pick(rng, &containers),
        "p_retailprice": money(rng, 1, 900),
        "p_comment": "none",
    })
}

fn customer(rng: &mut StdRng, key: i64) -> Json {
    json!({
        "c_custkey": key,
        "c_name": format!("Customer#{key}"),
        "c_address": format!("road {key}"),
        "c_nationkey": rng.random_range(0..NATIONS.len()),
        "c_phone": phone(rng),
        "c_acctbal": money(rng, -100, 900),
        "c_mktsegment": pick(rng, &["BUILDING", "MACHINERY"]),
        "c_comment": "none",
    })
}

fn order(rng: &mut StdRng, key: i64) -> Json {
    json!({
        "o_orderkey": key,
        "o_custkey": rng.random_range(0..CUSTOMERS * 3 / 4),
        "o_orderstatus": pick(rng, &["F", "O", "P"]),
        "o_totalprice": money(rng, 100, 9_000),
        "o_orderdate": day(rng),
        "o_orderpriority": pick(rng, &["1-URGENT", "2-HIGH", "3-MEDIUM", "5-LOW"]),
        "o_clerk": "clerk",
        "o_shippriority": 0,
        "o_comment": pick(rng, &["none", "special packages requests"]),
    })
}

fn line(rng: &mut StdRng, order: i64, number: i64) -> Json {
    let modes = ["AIR", "AIR REG", "MAIL", "SHIP"];
    json!({
        "l_orderkey": order,
        "l_partkey": rng.random_range(0..PARTS),
        "l_suppkey": rng.random_range(0..SUPPLIERS),
        "l_linenumber": number,
        "l_quantity": money(rng, 1, 90),
        "l_extendedprice": money(rng, 1, 9_000),
        "l_discount": format!("0.0{}", rng.random_range(0..9)),
        "l_tax": format!("0.0{}", rng.random_range(0..8)),
        "l_returnflag": pick(rng, &["A", "N", "R"]),
        "l_linestatus": pick(rng, &["O", "F"]),
        "l_shipdate": day(rng),
        "l_commitdate": day(rng),
        "l_receiptdate": day(rng),
        "l_shipinstruct": pick(rng, &["DELIVER IN PERSON", "NONE"]),
        "l_shipmode": pick(rng, &modes),
        "l_comment": "none",
    })
}

/// The tables before the first refresh.
fn load(rng: &mut StdRng) -> Tables {
    let mut tables: Tables = KEYS
        .iter()
        .map(|(name, _)| (*name, BTreeMap::new()))
        .collect();
    let mut put = |table, key: &[i64], row: Json| {
        tables.get_mut(table).unwrap().insert(key.to_vec(), row);
    };
    for (key, name) in (0..).zip(REGIONS) {
        let row = json!({"r_regionkey": key, "r_name": name, "r_comment": "none"});
        put("region", &[key], row);
    }
    for (key, (name, region)) in (0..).zip(NATIONS) {
        let row = json!({
            "n_nationkey": key, "n_name": name, "n_regionkey": region, "n_comment": "none",
        });
        put("nation", &[key], row);
    }
    for key in 0..SUPPLIERS {
        put("supplier", &[key], supplier(rng, key));
    }
    for key in 0..PARTS {
        put("part", &[key], part(rng, key));
        for supplier in 0..SUPPLIERS {
            let row = json!({
                "ps_partkey": key,
                "ps_suppkey": supplier,
                "ps_availqty": rng.random_range(1..200),
                "ps_supplycost": money(rng, 1, 100),
                "ps_comment": "none",
            });
            put("partsupp", &[key, supplier], row);
        }
    }
    for key in 0..CUSTOMERS {
        put("customer", &[key], customer(rng, key));
    }
    tables
}

/// Deletes some orders with their line items, inserts others, and changes some other rows.
fn refresh(rng: &mut StdRng, tables: &mut Tables, next: &mut i64, orders: usize) {
    let old: Vec<Vec<i64>> = tables["orders"].keys().cloned().collect();
    for key in old.choose_multiple(rng, old.len() / 3) {
        tables.get_mut("orders").unwrap().remove(key);
        let lines = tables.get_mut("lineitem").unwrap();
        lines.retain(|line, _| line[0] != key[0]);
    }
    for _ in 0..orders {
        *next += 1;
        let key = *next;
        tables
            .get_mut("orders")
            .unwrap()
            .insert(vec![key], order(rng, key));
        for number in 0..rng.random_range(1..8) {
            let row = line(rng, key, number);
            tables
                .get_mut("lineitem")
                .unwrap()
                .insert(vec![key, number], row);
        }
    }
    for _ in 0..3 {
        let (key, other) = (rng.random_range(0..PARTS), rng.random_range(0..CUSTOMERS));
        tables
            .get_mut("part")
            .unwrap()
            .insert(vec![key], part(rng, key));
        tables
            .get_mut("customer")
            .unwrap()
            .insert(vec![other], customer(rng, other));
    }
}

/// The records that make one state of a table from another.
fn changes(before: &Tables, after: &Tables) -> Vec<Record> {
    let mut changes = Vec::new();
    for (table, columns) in KEYS {
        let (old, new) = (&before[table], &after[table]);
        let mut change = |key: &[i64], row: Option<&Json>| {
            let named = columns.iter().zip(key);
            let key: serde_json::Map<String, Json> = named
                .map(|(column, value)| ((*column).to_owned(), json!(value)))
                .collect();
            changes.push(Record {
                topic: table.to_owned(),
                partition: None,
                key: Some(Json::Object(key).to_string().into_bytes()),
                value: row.map(|row| row.to_string().into_bytes()),
                timestamp_ms: 0,
            });
        };
        for (key, row) in new.iter().filter(|(key, row)| old.get(*key) != Some(*row)) {
            change(key, Some(row));
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            change(key, None);
        }
    }
    changes
}

/// The example's tables with their columns, and its views.
fn example() -> (String, Vec<(String, String)>, Vec<View>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tpch/views.sql");
    let sql = std::fs::read_to_string(path).unwrap();
    let (mut tables, mut views) = (Vec::new(), Vec::new());
    for statement in sql.split(";\n") {
        if let Some((_, table)) = statement.split_once("CREATE TABLE ") {
            let (name, columns) = table.split_once(" (").unwrap();
            let (columns, _) = columns.split_once(",\n    PRIMARY KEY").unwrap();
            tables.push((name.to_owned(), columns.to_owned()));
        }
        if let Some((_, view)) = statement.split_once("CREATE MATERIALIZED VIEW ") {
            let (head, select) = view.split_once(" AS\n").unwrap();
            views.push(View {
                name: head.split(' ').next().unwrap().to_owned(),
                create: statement.to_owned(),
                select: select.to_owned(),
            });
        }
    }
    (sql, tables, views)
}

fn refreshed(name: &str, workers: usize, restarts: bool) {
    let Some(mut oracle) = Oracle::connect(name) else {
        return;
    };
    let seed = std::env::var("TIDEMILL_TEST_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let (sql, columns, views) = example();
    let pairs: Vec<(&str, &str)> = columns.iter().map(|(a, b)| (&**a, &**b)).collect();
    oracle.tables(&pairs);
    let pairs: Vec<(&str, &str)> = views.iter().map(|v| (&*v.name, &*v.select)).collect();
    oracle.views(&pairs);
    let mut river = River::new(&sql, workers);
    for (table, _) in KEYS {
        river.log().create_topic(table, 2).unwrap();
    }
    let mut producer = river.log().producer().unwrap();
    let nothing = || {
        KEYS.iter()
            .map(|(name, _)| (*name, BTreeMap::new()))
            .collect()
    };
    let (mut before, mut tables): (Tables, Tables) = (nothing(), load(&mut rng));
    let (mut next, mut seen) = (0, vec![false; views.len()]);
    river.start();
    for round in 0..REFRESHES {
        refresh(
            &mut rng,
            &mut tables,
            &mut next,
            if round == 0 { 120 } else { 40 },
        );
        producer.append(&changes(&before, &tables)).unwrap();
        before.clone_from(&tables);
        for (table, _) in KEYS {
            let rows: Json = tables[table].values().cloned().collect();
            oracle.refill(table, &rows);
        }
        river.settle();
        for (view, seen) in views.iter().zip(&mut seen) {
            let answer = oracle.answer(view, &river.table(&view.name));
            *seen |= answer.as_ref().is_some_and(|answer| answer.all > 0);
            let wrong = river.differences(&view.name, &answer);
            assert!(
                wrong.is_empty(),
                "seed {seed}, round {round}:\n{}",
                wrong.join("\n")
            );
        }
        assert_eq!(river.dead_letters(), 0, "{:?}", river.reasons());
        if restarts {
            river.rest();
            river.stop();
            river.start();
        }
    }
    river.stop();
    let empty = seen.iter().filter(|seen| !**seen).count();
    assert!(empty <= EMPTY_MAX, "{empty} views never had a row");
}

#[test]
fn tpch_is_what_postgresql_says_after_each_refresh() {
    refreshed("tpch", 1, false);
}

#[test]
fn tpch_on_3_workers_restarted_is_what_postgresql_says() {
    refreshed("tpch_restarted", 3, true);
}
