//! Records that cannot be used become dead letters with their raw bytes, their place and the
//! reason; the records around them are counted, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use tidemill_log::envelope::Encoder;
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::log::dead_letter::{DeadLetter, Source, Stage, topic_of};
use tidemill_log::log::{RECORD_BYTES_MAX, Record};
use tidemill_log::registry;
use tidemill_log::registry::Registry;
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use crate::harness::{PATIENCE, Place, View, until};

const EVENT: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "kind", "type": "string"}, {"name": "amount", "type": "long"}]}"#;

/// A bad record: where it is, its value and a part of why it is refused.
struct Bad {
    topic: String,
    offset: i64,
    value: Option<Vec<u8>>,
    why: &'static str,
}

/// Writes to topics of one partition and remembers what is bad.
struct Writer<'a> {
    place: &'a Place,
    ends: BTreeMap<String, i64>,
    bad: Vec<Bad>,
}

impl Writer<'_> {
    fn good(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        let record = Record {
            topic: topic.to_owned(),
            partition: Some(0),
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            timestamp_ms: 1,
        };
        self.place.append(&[record]);
        *self.ends.entry(topic.to_owned()).or_default() += 1;
    }

    fn bad(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, why: &'static str) {
        self.bad.push(Bad {
            topic: topic.to_owned(),
            offset: self.ends.get(topic).copied().unwrap_or(0),
            value: value.map(<[u8]>::to_vec),
            why,
        });
        self.good(topic, key, value);
    }
}

/// A long in Avro.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn framed(id: u32, kind: &str, amount: i64) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(long(kind.len() as i64));
    bytes.extend(kind.as_bytes());
    bytes.extend(long(amount));
    bytes
}

fn person(id: i64, name: &str, op: Op, index: u64) -> Change {
    let column = |name: &str, kind| Column {
        name: name.to_owned(),
        kind,
        nullable: name != "id",
    };
    let row = vec![Value::Int(id), Value::Text(name.to_owned())];
    let table = TableSchema {
        namespace: "public".to_owned(),
        name: "persons".to_owned(),
        columns: vec![
            column("id", ColumnType::Long),
            column("name", ColumnType::Text),
        ],
        key: vec![0],
    };
    Change {
        table: Arc::new(table),
        op,
        before: None,
        after: Some(row),
        position: Position { commit: 1, index },
        transaction: 1,
        committed_us: 1_000_000,
        snapshot: false,
    }
}

fn topic(place: &Place, what: &str) -> String {
    format!("{}_{what}", place.name)
}

fn views(place: &Place) -> String {
    let topic = |what| topic(place, what);
    format!(
        "CREATE TABLE persons WITH (topic = '{}', format = 'avro', envelope = 'debezium');
         CREATE TABLE events WITH (topic = '{}', format = 'avro', envelope = 'append');
         CREATE TABLE clicks (page text, ms bigint)
           WITH (topic = '{}', format = 'json', envelope = 'append');
         CREATE TABLE carts (id text, price bigint, pieces bigint)
           WITH (topic = '{}', format = 'json', envelope = 'upsert');
         CREATE MATERIALIZED VIEW names WITH (primary_key = 'id') AS
           SELECT CAST(id AS text) AS id, name FROM persons;
         CREATE MATERIALIZED VIEW kinds WITH (primary_key = 'kind') AS
           SELECT kind, count(*) AS events, sum(amount) AS amount FROM events GROUP BY kind;
         CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
           SELECT page, count(*) AS clicks, sum(ms) AS ms FROM clicks GROUP BY page;
         CREATE MATERIALIZED VIEW each WITH (primary_key = 'id') AS
           SELECT id, price / pieces AS piece FROM carts;",
        topic("persons"),
        topic("events"),
        topic("clicks"),
        topic("carts")
    )
}

fn rows(all: &[&[&str]]) -> BTreeSet<Vec<String>> {
    let all = all.iter();
    all.map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
        .collect()
}

/// Debezium's envelope in Avro.
fn write_persons(writer: &mut Writer<'_>, registry: &Arc<dyn Registry>) {
    let topic = topic(writer.place, "persons");
    let mut encoder = Encoder::new(&topic, Arc::clone(registry));
    let mut index = 0;
    let mut record = |id: i64, name: &str| {
        index += 1;
        let record = encoder
            .encode(&person(id, name, Op::Create, index))
            .unwrap();
        (record.key.unwrap(), record.value.unwrap())
    };
    let (one, ada) = record(1, "Ada");
    let (two, grace) = record(2, "Grace");
    let (three, joan) = record(3, "Joan");
    let (_, fran) = record(4, "Fran");
    writer.good(&topic, Some(&one), Some(&ada));
    writer.good(&topic, Some(&two), Some(&grace));
    writer.bad(&topic, Some(&three), Some(&joan[..joan.len() - 3]), "");
    writer.bad(&topic, Some(&three), Some(b"\x00\x00\x00\x00"), "");
    writer.bad(&topic, None, Some(&fran), "the key is null");
    writer.bad(
        &topic,
        Some(&three),
        Some(&[&joan[..], b"more"].concat()),
        "",
    );
    writer.good(&topic, Some(&three), Some(&joan));
    // A null value is the deletion of its key.
    writer.good(&topic, Some(&two), None);
}

fn write_events(writer: &mut Writer<'_>, registry: &Arc<dyn Registry>) {
    let topic = topic(writer.place, "events");
    let id = registry
        .register(&format!("{topic}-value"), EVENT)
        .unwrap()
        .id;
    let good = framed(id, "sale", 40);
    writer.good(&topic, None, Some(&good));
    writer.bad(&topic, None, None, "null");
    writer.bad(&topic, None, Some(b"garbage"), "");
    writer.bad(&topic, None, Some(b""), "");
    writer.bad(
        &topic,
        None,
        Some(&framed(2_000_000_000, "sale", 1)),
        "2000000000",
    );
    writer.bad(&topic, None, Some(&[&[7], &good[1..]].concat()), "");
    writer.bad(&topic, None, Some(&good[..good.len() - 1]), "");
    writer.bad(&topic, None, Some(&[&good[..], &[0]].concat()), "");
    writer.good(&topic, None, Some(&framed(id, "sale", 2)));
    writer.good(&topic, Some(b"any"), Some(&framed(id, "gift", -5)));
}

fn write_clicks(writer: &mut Writer<'_>) {
    let topic = topic(writer.place, "clicks");
    writer.good(&topic, None, Some(br#"{"page": "/", "ms": 5}"#));
    writer.bad(&topic, None, Some(br#"{"page": "/", "ms": 5"#), "");
    writer.bad(&topic, None, Some(br#"{"page": "/", "ms": "soon"}"#), "ms");
    writer.bad(&topic, None, Some(br#"{"page": "/", "ms": [1]}"#), "ms");
    writer.bad(&topic, None, Some(b"[1, 2]"), "");
    writer.bad(&topic, None, Some(b"\xff\xfe\x00\x01"), "");
    writer.bad(&topic, None, None, "null");
    // As large as a record may be: kept in parts.
    let large = vec![b'{'; RECORD_BYTES_MAX - 1000];
    writer.bad(&topic, None, Some(&large), "");
    writer.good(
        &topic,
        None,
        Some(br#"{"page": "/", "ms": 6, "more": {"a": []}}"#),
    );
    writer.good(&topic, None, Some(br#"{"page": "/b", "ms": 1}"#));
}

fn write_carts(writer: &mut Writer<'_>) {
    let topic = topic(writer.place, "carts");
    let mut cart = |id: &str, price: i64, pieces: i64| {
        let value = format!(r#"{{"id": "{id}", "price": {price}, "pieces": {pieces}}}"#);
        writer.good(&topic, Some(id.as_bytes()), Some(value.as_bytes()));
    };
    cart("a", 10, 2);
    cart("b", 10, 0);
    cart("c", 9, 3);
    writer.bad(&topic, Some(b"a"), Some(b"nothing"), "");
}

fn names() -> View {
    View::new("names", &[("id", DataType::Utf8), ("name", DataType::Utf8)])
}

fn counts(name: &str, columns: [&'static str; 3]) -> View {
    let [key, count, sum] = columns;
    let columns = [
        (key, DataType::Utf8),
        (count, DataType::Int64),
        (sum, DataType::Decimal128(29, 0)),
    ];
    View::new(name, &columns)
}

fn each() -> View {
    View::new(
        "each",
        &[("id", DataType::Utf8), ("piece", DataType::Int64)],
    )
}

fn expect(place: &Place) {
    place.expect(&names(), &rows(&[&["1", "Ada"], &["3", "Joan"]]));
    let kinds = counts("kinds", ["kind", "events", "amount"]);
    place.expect(&kinds, &rows(&[&["sale", "2", "42"], &["gift", "1", "-5"]]));
    let pages = counts("pages", ["page", "clicks", "ms"]);
    place.expect(&pages, &rows(&[&["/", "2", "11"], &["/b", "1", "1"]]));
    // The newest record of `a` cannot be read: its older row is not current any more.
    place.expect(&each(), &rows(&[&["c", "3"]]));
}

/// The letters of each bad record are there, once, with its bytes and why.
fn expect_letters(place: &Place, bad: &[Bad]) {
    let mut found = BTreeMap::new();
    for kept in place.dead_letters() {
        if let Source::Record {
            topic,
            partition,
            offset,
        } = kept.letter.source.clone()
        {
            assert_eq!((kept.letter.stage, partition), (Stage::Decode, 0));
            found.insert((topic, offset), kept.letter);
        }
    }
    let places = bad.iter().map(|bad| (bad.topic.clone(), bad.offset));
    let expected: BTreeSet<_> = places.collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for bad in bad {
        let letter = &found[&(bad.topic.clone(), bad.offset)];
        let reason = &letter.reason;
        assert!(!reason.is_empty() && reason.contains(bad.why), "{reason}");
        assert_eq!(letter.value, bad.value, "{}@{}", bad.topic, bad.offset);
    }
}

#[test]
fn what_cannot_be_used_is_put_aside_and_all_else_flows_on() {
    for place in Place::all("bad") {
        let registry = registry::open(&place.registry).unwrap();
        place.write("views.sql", &views(&place));
        for what in ["persons", "events", "clicks", "carts"] {
            place.topic(&topic(&place, what), 1);
        }
        let mut writer = Writer {
            place: &place,
            ends: BTreeMap::new(),
            bad: Vec::new(),
        };
        write_persons(&mut writer, &registry);
        write_events(&mut writer, &registry);
        write_carts(&mut writer);
        // Half of it before the start, half while it runs.
        let mut job = place.start("dataflow", &["-w", "2"]);
        write_clicks(&mut writer);
        expect(&place);
        let bad = writer.bad;
        let said = job.stop("TERM");
        let all = bad.len() + 1;
        assert!(said.contains(&format!("dead_letters={all}")), "{said}");
        expect_letters(&place, &bad);
        // The same again from the log: nothing is put aside twice.
        let letters = place.records(&topic_of(&place.name)).len();
        let mut again = place.start("dataflow", &["-w", "2"]);
        let topic = topic(&place, "carts");
        let repaired = Record {
            topic: topic.clone(),
            partition: Some(0),
            key: Some(b"b".to_vec()),
            value: Some(br#"{"id": "b", "price": 8, "pieces": 1}"#.to_vec()),
            timestamp_ms: 1,
        };
        let broken = Record {
            key: Some(b"c".to_vec()),
            value: Some(br#"{"id": "c", "price": 77001, "pieces": 0}"#.to_vec()),
            ..repaired.clone()
        };
        place.append(&[repaired, broken]);
        place.expect(&each(), &rows(&[&["b", "8"]]));
        again.stop("INT");
        let more = place.records(&topic_of(&place.name)).len() - letters;
        assert_eq!(more, 1, "only the one that came since");
        evaluated(&place);
    }
}

/// The row that could not be divided is a dead letter too.
fn evaluated(place: &Place) {
    let letter = until("the row's dead letter", PATIENCE, || {
        let all = place.dead_letters().into_iter().map(|kept| kept.letter);
        let row = |letter: &DeadLetter| String::from_utf8(letter.value.clone()?).ok();
        let mut all = all.filter(|it| row(it).is_some_and(|row| row.contains("77001")));
        all.find(|letter| letter.stage == Stage::Evaluate)
    });
    let row: serde_json::Value = serde_json::from_slice(&letter.value.unwrap()).unwrap();
    assert_eq!(row["price"], "77001");
    let reason = letter.reason.to_lowercase();
    assert!(reason.contains("zero") && reason.contains('/'), "{reason}");
    let Source::Row { view, .. } = letter.source else {
        panic!("{:?}", letter.source);
    };
    assert_eq!(view.as_deref(), Some("each"));
}
