//! Keys that lie in two partitions, that are written otherwise than before, and ids that stand for
//! other schemas than before: the views are right, or the job ends and says why.

use std::sync::Arc;

use tidemill_log::envelope::Encoder;
use tidemill_log::envelope::event::{Change, Op, Position, Value as Cell};
use tidemill_log::log::Record;
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use crate::views::held::Value;
use crate::views::river::River;

const VIEW: &str = "CREATE MATERIALIZED VIEW v WITH (primary_key = 'id') AS SELECT id, n FROM t;";

/// A job over topic `t` of four partitions.
fn river(table: &str, prepare: impl FnOnce(&River)) -> River {
    River::prepared(&format!("{table}{VIEW}"), 2, |river| {
        river.log().create_topic("t", 4).unwrap();
        prepare(river);
    })
}

fn put(river: &River, partition: u32, key: &[u8], value: Option<Vec<u8>>) {
    let record = Record {
        topic: "t".to_owned(),
        partition: Some(partition),
        key: Some(key.to_vec()),
        value,
        timestamp_ms: 1_000,
    };
    river.log().producer().unwrap().append(&[record]).unwrap();
}

/// The view's rows as numbers.
fn rows(river: &River) -> Vec<Vec<String>> {
    let rows = river.rows("v").into_values();
    let text = |value: &Value| value.key().trim_start_matches('=').to_owned();
    rows.map(|row| row.iter().map(text).collect()).collect()
}

const JSON: &str = "CREATE TABLE t (id bigint PRIMARY KEY, n bigint) WITH (format = 'json', \
     envelope = 'debezium');";

/// A change in Debezium's JSON; without an LSN it is of another connector.
fn json(id: i64, n: Option<i64>, lsn: Option<i64>) -> Vec<u8> {
    let source = match lsn {
        Some(lsn) => format!(r#"{{"connector":"postgresql","lsn":{lsn}}}"#),
        None => r#"{"connector":"mysql","file":"binlog.000001","pos":7}"#.to_owned(),
    };
    let change = match n {
        Some(n) => format!(r#""after":{{"id":{id},"n":{n}}},"op":"u""#),
        None => r#""before":null,"after":null,"op":"d""#.to_owned(),
    };
    format!(r#"{{"source":{source},{change}}}"#).into_bytes()
}

const BARE: &[u8] = br#"{"id":1}"#;
const WRAPPED: &[u8] =
    br#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":1}}"#;

#[test]
fn a_json_key_with_and_without_its_schema_is_one_row_as_its_newest_change_says() {
    let mut river = river(JSON, |_| ());
    // What is newer is in a lower partition, and read first.
    put(&river, 0, WRAPPED, Some(json(1, Some(20), Some(200))));
    river.start();
    river.settle();
    put(&river, 3, BARE, Some(json(1, Some(10), Some(100))));
    river.settle();
    assert_eq!(rows(&river), [["1", "20"]]);
    put(&river, 0, WRAPPED, Some(json(1, None, Some(300))));
    river.settle();
    assert!(rows(&river).is_empty());
    put(&river, 3, BARE, Some(json(1, Some(11), Some(150))));
    river.settle();
    assert!(rows(&river).is_empty(), "it is older than the deletion");
    put(&river, 3, BARE, Some(json(1, Some(40), Some(400))));
    river.settle();
    assert_eq!(rows(&river), [["1", "40"]]);
    river.stop();
}

#[test]
fn records_of_one_key_in_two_partitions_without_an_order_end_the_job() {
    let (set, gone) = (
        |n| Some(json(1, Some(n), None)),
        || Some(json(1, None, None)),
    );
    for (first, second) in [(set(10), set(20)), (gone(), set(20)), (set(10), None)] {
        let mut river = river(JSON, |_| ());
        put(&river, 0, WRAPPED, first);
        river.start();
        river.settle();
        put(&river, 3, BARE, second);
        let why = river.ended();
        assert!(
            why.contains("which is newer") && why.contains("new topic"),
            "{why}"
        );
        // And it does so again.
        river.start();
        river.ended();
    }
}

#[test]
fn a_json_key_of_other_columns_ends_the_job_also_when_it_was_stopped_meanwhile() {
    let mut river = river(JSON, |_| ());
    let heartbeat = Some(br#"{"ts_ms":1,"op":"m"}"#.to_vec());
    put(&river, 0, br#"{"serverName":"s"}"#, heartbeat.clone());
    put(&river, 0, BARE, Some(json(1, Some(10), Some(100))));
    put(&river, 0, br#"{"serverName":"s"}"#, heartbeat);
    river.start();
    river.settle();
    river.rest();
    river.stop();
    put(
        &river,
        0,
        br#"{"no":1}"#,
        Some(json(1, Some(20), Some(200))),
    );
    river.start();
    let why = river.ended();
    assert!(why.contains("other names"), "{why}");
}

const AVRO: &str = "CREATE TABLE t WITH (format = 'avro', envelope = 'debezium');";

/// The envelope of another writer, whose `source` has an LSN.
fn envelope(first: &str, second: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Envelope","namespace":"s","fields":[
        {{"name":"after","type":["null",{{"type":"record","name":"Value","fields":[
            {{"name":"{first}","type":"long"}},{{"name":"{second}","type":"long"}}]}}]}},
        {{"name":"source","type":{{"type":"record","name":"Source","fields":[
            {{"name":"connector","type":"string"}},
            {{"name":"lsn","type":["null","long"]}}]}}}},
        {{"name":"op","type":"string"}}]}}"#
    )
}

fn key(name: &str, doc: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Key","namespace":"{doc}","fields":[
        {{"name":"{name}","type":"long"}}]}}"#
    )
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

/// A change of the row 1, of small numbers.
fn avro(id: u32, n: u8, lsn: Option<u8>) -> Vec<u8> {
    let connector: &[u8] = b"postgresql";
    let mut body = vec![2, 2, n * 2, connector.len() as u8 * 2];
    body.extend(connector);
    match lsn {
        Some(lsn) => body.extend([2, lsn * 2]),
        None => body.push(0),
    }
    body.extend([2, b'u']);
    framed(id, &body)
}

/// Writes a change of the row 1, whose key has this schema.
fn keyed(river: &River, partition: u32, key: u32, change: Vec<u8>) {
    put(river, partition, &framed(key, &[2]), Some(change));
}

/// The topic's schemas: of the values, and two of the keys.
fn registered(river: &River) -> [u32; 3] {
    let registry = river.registry();
    let put = |subject: &str, schema: &str| registry.replace(subject, schema).unwrap().id;
    let value = put("t-value", &envelope("id", "n"));
    [
        value,
        put("t-key", &key("id", "a")),
        put("t-key", &key("id", "b")),
    ]
}

#[test]
fn an_avro_key_under_two_schemas_is_as_its_newest_change_says_or_the_job_ends() {
    for known in [true, false] {
        let lsn = |lsn| Some(lsn).filter(|_| known);
        let mut ids = [0; 3];
        let mut river = river(AVRO, |river| ids = registered(river));
        let [value, one, other] = ids;
        keyed(&river, 0, other, avro(value, 20, lsn(50)));
        keyed(&river, 2, one, avro(value, 10, lsn(40)));
        river.start();
        if known {
            river.settle();
            assert_eq!(rows(&river), [["1", "20"]]);
            river.stop();
        } else {
            let why = river.ended();
            assert!(why.contains("which is newer"), "{why}");
        }
    }
}

#[test]
fn an_id_that_stands_for_another_schema_than_before_ends_the_job() {
    let mut ids = [0; 3];
    let mut river = river(AVRO, |river| ids = registered(river));
    let [value, one, _] = ids;
    keyed(&river, 0, one, avro(value, 10, Some(40)));
    river.start();
    river.settle();
    river.rest();
    river.stop();
    river.rename(value, &envelope("n", "id"));
    keyed(&river, 0, one, avro(value, 20, Some(50)));
    river.start();
    let why = river.ended();
    assert!(
        why.contains("made anew") && why.contains(&format!("schema {value}")),
        "{why}"
    );
    river.rename(value, &envelope("id", "n"));
    river.start();
    river.settle();
    assert_eq!(rows(&river), [["1", "20"]]);
    river.stop();
}

#[test]
fn an_id_that_comes_to_stand_for_another_schema_ends_the_running_job() {
    let mut ids = [0; 3];
    let mut river = river(AVRO, |river| ids = registered(river));
    let [value, one, _] = ids;
    keyed(&river, 0, one, avro(value, 10, Some(40)));
    river.start();
    river.settle();
    river.rename(value, &envelope("n", "id"));
    let why = river.ended();
    assert!(why.contains("`t`") && why.contains("made anew"), "{why}");
}

const FLATTENED: &str = "CREATE TABLE t (id bigint PRIMARY KEY, n text, b bytea) WITH (format =
     'json', envelope = 'upsert', unavailable = 'not \"there\"');";

#[test]
fn a_placeholder_of_the_connectors_own_is_no_value() {
    let mut river = river(FLATTENED, |_| ());
    let row = |id: i64, n: &str| Some(serde_json::json!({"id": id, "n": n}).to_string().into());
    put(&river, 0, b"1", row(1, "there"));
    put(&river, 0, b"2", row(2, "not \"there\""));
    put(&river, 0, b"3", row(3, "__debezium_unavailable_value"));
    river.start();
    river.settle();
    assert_eq!(rows(&river), [["1", "there"]]);
    let reasons = river.reasons();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|why| why.contains("REPLICA IDENTITY FULL")),
        "{reasons:?}"
    );
    river.stop();
}

/// A change as the own ingest publishes it.
fn own(encoder: &mut Encoder, columns: [&str; 2]) -> Record {
    let column = |name: &str| Column {
        name: name.to_owned(),
        kind: ColumnType::Long,
        nullable: false,
    };
    let change = Change {
        table: Arc::new(TableSchema {
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            columns: columns.map(column).to_vec(),
            key: vec![0, 1],
        }),
        op: Op::Create,
        before: None,
        after: Some(vec![Cell::Int(1), Cell::Int(10)]),
        position: Position {
            commit: 5,
            index: 0,
        },
        transaction: 1,
        committed_us: 1_000_000,
        snapshot: false,
    };
    encoder.encode(&change).unwrap()
}

#[test]
fn records_of_our_own_tell_that_they_were_written_with_another_schema() {
    for is_read in [true, false] {
        let mut river = river(AVRO, |river| {
            let mut encoder = Encoder::new("t", river.registry());
            let record = own(&mut encoder, ["id", "n"]);
            let (key, value) = (record.key.unwrap(), record.value.clone());
            put(river, 1, &key, value);
            let ours = river.registry().latest("t-value").unwrap().unwrap();
            // The same shape, or one that the record is no record of.
            let other = match is_read {
                true => ours
                    .schema
                    .replace("\"id\"", "\"m\"")
                    .replace("\"n\"", "\"id\""),
                false => ours.schema.replace("\"op\"", "\"po\""),
            };
            let other = other.replace("\"m\"", "\"n\"");
            river.rename(ours.id, &other);
            if !is_read {
                // The table's own schema, under another id.
                river.registry().replace("t-value", &ours.schema).unwrap();
            }
        });
        river.start();
        let why = river.ended();
        assert!(
            why.contains("made anew") && why.contains("--resnapshot"),
            "{why}"
        );
    }
}
