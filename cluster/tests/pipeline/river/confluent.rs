//! A consumer that knows nothing of Tidemill, Confluent's Python client with its Avro deserializer,
//! reads a topic through the registry and sees Debezium's envelope.

use std::process::Command;

use serde_json::{Value, json};

use crate::river::place::{Place, python, read_topic};
use crate::river::rows::settle;

const VIEWS: &str = "\
CREATE TABLE orders WITH (topic = '{topic:orders}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW orders_now WITH (primary_key = 'id') AS
SELECT id, item, price FROM orders;
";

/// Every record of a topic, as Confluent's client understands it.
fn read(place: &Place, python: &str, topic: &str, count: i64) -> Vec<Value> {
    let output = Command::new(python)
        .arg(read_topic())
        .args([&place.kafka, &place.registry, topic, &count.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

/// The records of a key, as `(op, before, after)`, in order.
fn of_key(records: &[Value], id: i64) -> Vec<(&str, &Value, &Value)> {
    let records = records
        .iter()
        .filter(|record| record["key"] == json!({"id": id}));
    records
        .map(|record| {
            let value = &record["value"];
            (
                value["op"].as_str().unwrap(),
                &value["before"],
                &value["after"],
            )
        })
        .collect()
}

fn expect_source(place: &Place, record: &Value, since_ms: i64, until_ms: i64) -> (i64, i64) {
    let value = &record["value"];
    let source = &value["source"];
    let number = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{record}"));
    assert_eq!(source["connector"], "tidemill", "{record}");
    assert_eq!(source["db"], json!(place.name), "{record}");
    assert_eq!(source["schema"], "public", "{record}");
    assert_eq!(source["table"], "orders", "{record}");
    for time in [&value["ts_ms"], &source["ts_ms"]] {
        let time = number(time);
        assert!((since_ms..=until_ms).contains(&time), "{record}");
    }
    (number(&record["partition"]), number(&source["lsn"]))
}

#[test]
fn confluents_client_reads_debeziums_envelope() {
    let test = "confluents_client_reads_debeziums_envelope";
    let (Some(python), Some(place)) = (python(test), Place::open(test)) else {
        return;
    };
    let since_ms = jiff::Timestamp::now().as_millisecond() - 1_000;
    let mut sql = place.sql();
    sql.batch_execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL, price double precision);
         ALTER TABLE orders REPLICA IDENTITY FULL;
         INSERT INTO orders VALUES (1, 'tea', 2.5), (2, 'žito', NULL)",
    )
    .unwrap();
    let views = place.capturing("orders", &["orders"], VIEWS);
    let mut running = place.start("run", "orders", &[]);
    settle(&mut running, &place.views, &mut sql, &views);
    for change in [
        "INSERT INTO orders VALUES (3, 'salt', 1)",
        "UPDATE orders SET price = 3.75 WHERE id = 1",
        "DELETE FROM orders WHERE id = 2",
        "UPDATE orders SET id = 4 WHERE id = 3",
    ] {
        assert_eq!(sql.execute(change, &[]).unwrap(), 1);
    }
    settle(&mut running, &place.views, &mut sql, &views);
    running.stop();
    let count = place.ends("orders").iter().sum();
    let until_ms = jiff::Timestamp::now().as_millisecond() + 1_000;
    let records = read(&place, &python, &place.topic("orders"), count);
    assert_eq!(records.len(), 7, "{records:#?}");

    let row = |id: i64, item: &str, price: Value| json!({"id": id, "item": item, "price": price});
    let (tea, dearer) = (row(1, "tea", json!(2.5)), row(1, "tea", json!(3.75)));
    let (wheat, none) = (row(2, "žito", Value::Null), Value::Null);
    let (salt, moved) = (row(3, "salt", json!(1.0)), row(4, "salt", json!(1.0)));
    assert_eq!(
        of_key(&records, 1),
        [("r", &none, &tea), ("u", &tea, &dearer)]
    );
    assert_eq!(
        of_key(&records, 2),
        [("r", &none, &wheat), ("d", &wheat, &none)]
    );
    assert_eq!(
        of_key(&records, 3),
        [("c", &none, &salt), ("d", &salt, &none)]
    );
    assert_eq!(of_key(&records, 4), [("c", &none, &moved)]);
    let mut last = [0; 4];
    for record in &records {
        let (partition, lsn) = expect_source(&place, record, since_ms, until_ms);
        let last = &mut last[usize::try_from(partition).unwrap()];
        assert!(lsn > 0 && lsn >= *last, "{records:#?}");
        *last = lsn;
    }
}
