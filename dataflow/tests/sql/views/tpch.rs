//! TPC-H as standing views (`examples/tpch`): small random tables are fed and refreshed as the
//! benchmark refreshes them, by inserting and deleting orders with their line items; parts and
//! customers change too. After each refresh all 22 views are what PostgreSQL answers.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value as Json, json};

use crate::views::example::{Example, Tables};
use crate::views::river::PATIENCE;

const EXAMPLE: Example = Example {
    folder: "tpch",
    keys: &KEYS,
    by_hand: &[],
    rounds: 5,
    patience: PATIENCE,
    indexes: &[],
    empty_max: 3,
};

pub(crate) const KEYS: [(&str, &[&str]); 8] = [
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
fn load(rng: &mut StdRng, tables: &mut Tables) {
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

fn refreshed(name: &str, workers: usize, restarts: bool) {
    let mut next = 0;
    EXAMPLE.compared(name, (workers, restarts), |rng, tables, round| {
        if round == 0 {
            load(rng, tables);
        }
        refresh(rng, tables, &mut next, if round == 0 { 120 } else { 40 });
    });
}

#[test]
fn tpch_is_what_postgresql_says_after_each_refresh() {
    refreshed("tpch", 1, false);
}

#[test]
fn tpch_on_3_workers_restarted_is_what_postgresql_says() {
    refreshed("tpch_restarted", 3, true);
}
