//! TPC-H as standing views over the benchmark's own data: the tables of a scale factor
//! (`TIDEMILL_TEST_TPCH_SCALE`), then 20 pairs of the refresh functions, which insert and delete a
//! thousandth of the orders with their line items. After each pair all 22 views are what PostgreSQL
//! answers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

use crate::views::example::{Example, Tables};
use crate::views::tpch::KEYS;

const EXAMPLE: Example = Example {
    folder: "tpch",
    keys: &KEYS,
    by_hand: &[],
    rounds: 1 + PAIRS,
    // The first change fills the tables.
    patience: Duration::from_secs(3600),
    indexes: &["lineitem (l_partkey, l_suppkey)", "orders (o_custkey)"],
    empty_max: 1,
};

/// Pairs of the refresh functions.
const PAIRS: usize = 20;
/// Of so many orders a pair inserts one and deletes one.
const SHARE: usize = 1000;

/// The columns of a table and their types.
type Columns = BTreeMap<String, Vec<(String, String)>>;

fn columns() -> Columns {
    let (_, tables, _) = EXAMPLE.read();
    let of = |columns: &str| -> Vec<(String, String)> {
        let columns = columns.split(", ").map(|column| {
            let (name, kind) = column.trim().split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned())
        });
        columns.collect()
    };
    let tables = tables.iter();
    tables
        .map(|(name, columns)| (name.clone(), of(&columns.replace(",\n", ", "))))
        .collect()
}

/// A row in the form of dbgen, values with `|` behind each, as JSON.
fn row(columns: &[(String, String)], line: &impl Display) -> Json {
    let line = line.to_string();
    let values = line.trim_end_matches('|').split('|');
    let fields = columns.iter().zip(values).map(|((name, kind), value)| {
        let value = match kind.as_str() {
            "int" | "bigint" => json!(value.parse::<i64>().unwrap()),
            _ => json!(value),
        };
        (name.clone(), value)
    });
    let row = Json::Object(fields.collect());
    assert_eq!(row.as_object().unwrap().len(), columns.len(), "{line}");
    row
}

/// The rows of a table by key.
fn filled(
    columns: &Columns,
    table: &str,
    lines: impl Iterator<Item = impl Display>,
) -> BTreeMap<Vec<i64>, Json> {
    let (_, key) = KEYS.iter().find(|(name, _)| *name == table).unwrap();
    let rows = lines.map(|line| row(&columns[table], &line));
    let key_of = |row: &Json| -> Vec<i64> {
        let values = key.iter().map(|column| row[*column].as_i64().unwrap());
        values.collect()
    };
    rows.map(|row| (key_of(&row), row)).collect()
}

/// All tables of a scale factor.
fn generated(scale: f64) -> Tables {
    let columns = columns();
    let mut tables = EXAMPLE.nothing();
    let mut put = |table: &'static str, rows| *tables.get_mut(table).unwrap() = rows;
    let of = &columns;
    put(
        "region",
        filled(of, "region", RegionGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "nation",
        filled(of, "nation", NationGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "supplier",
        filled(of, "supplier", SupplierGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "part",
        filled(of, "part", PartGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "partsupp",
        filled(of, "partsupp", PartSuppGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "customer",
        filled(of, "customer", CustomerGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "orders",
        filled(of, "orders", OrderGenerator::new(scale, 1, 1).iter()),
    );
    put(
        "lineitem",
        filled(of, "lineitem", LineItemGenerator::new(scale, 1, 1).iter()),
    );
    tables
}

/// Moves an order with its line items from one state to another.
fn moved(order: &[i64], from: &mut Tables, to: &mut Tables) {
    let row = from.get_mut("orders").unwrap().remove(order).unwrap();
    to.get_mut("orders").unwrap().insert(order.to_vec(), row);
    let lines = from.get_mut("lineitem").unwrap();
    let own: Vec<Vec<i64>> = lines
        .range(order.to_vec()..vec![order[0] + 1])
        .map(|(key, _)| key.clone())
        .collect();
    for key in own {
        let row = lines.remove(&key).unwrap();
        to.get_mut("lineitem").unwrap().insert(key, row);
    }
}

#[test]
fn tpch_at_scale_is_what_postgresql_says_after_each_refresh() {
    let Ok(scale) = std::env::var("TIDEMILL_TEST_TPCH_SCALE") else {
        let line = "left out: TPC-H at scale needs a scale factor (run ./test --tpch)\n";
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        return;
    };
    let scale = scale.parse().unwrap();
    let (mut later, mut gone) = (EXAMPLE.nothing(), EXAMPLE.nothing());
    let mut share = 0;
    EXAMPLE.compared("tpch_scale", (2, false), |_, tables, round| {
        if round == 0 {
            *tables = generated(scale);
            share = tables["orders"].len() / SHARE;
            // What the pairs insert is kept back: orders that are spread over all keys.
            let orders: Vec<Vec<i64>> = tables["orders"].keys().cloned().collect();
            let kept = orders.iter().step_by(SHARE / PAIRS).take(share * PAIRS);
            kept.for_each(|order| moved(order, tables, &mut later));
            return;
        }
        let orders: Vec<Vec<i64>> = later["orders"].keys().take(share).cloned().collect();
        assert!(!orders.is_empty());
        let old: Vec<Vec<i64>> = tables["orders"].keys().take(share).cloned().collect();
        orders
            .iter()
            .for_each(|order| moved(order, &mut later, tables));
        old.iter().for_each(|order| moved(order, tables, &mut gone));
    });
}
