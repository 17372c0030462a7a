//! Debezium's envelope in Avro: what it says of a row, and which of our own records are copies of
//! earlier ones.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, TimestampMicrosecondType};
use tidemill_decode::{Effect, open};
use tidemill_ir::{Envelope, Format};
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::envelope::{Decoder, Encoder};
use tidemill_log::log::OwnedRecord;
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use crate::{Memory, avro, batch, micros, texts};

#[test]
fn avro_envelopes_and_their_semantic_types() {
    let row = r#"{"type":"record","name":"Value","fields":[
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"day","type":{"type":"int","connect.name":"io.debezium.time.Date"}},
        {"name":"ms","type":{"type":"long","connect.name":"io.debezium.time.Timestamp"}},
        {"name":"us","type":["null",{"type":"long",
         "connect.name":"io.debezium.time.MicroTimestamp"}]},
        {"name":"zoned","type":{"type":"string","connect.name":"io.debezium.time.ZonedTimestamp"}},
        {"name":"cts","type":{"type":"long",
         "connect.name":"org.apache.kafka.connect.data.Timestamp",
            "logicalType":"timestamp-millis"}},
        {"name":"price","type":{"type":"bytes","scale":2,"precision":6,
            "connect.name":"org.apache.kafka.connect.data.Decimal","logicalType":"decimal"}}]}"#;
    let schema = format!(
        r#"{{"type":"record","name":"Envelope","namespace":"s","fields":[
        {{"name":"before","type":["null",{row}],"default":null}},
        {{"name":"after","type":["null","Value"],"default":null}},
        {{"name":"op","type":"string"}}]}}"#
    );
    let columns = [
        ("id", DataType::Utf8),
        ("day", DataType::Date32),
        ("ms", micros()),
        ("us", micros()),
        ("zoned", micros()),
        ("cts", micros()),
        ("price", DataType::Decimal128(8, 3)),
    ];
    let registry = Memory::with(&[(1, &schema)]);
    let mut decoder = avro(&schema, Envelope::Debezium, &columns, &registry);
    let mut row = vec![4, b'i', b'd', 4, 6, 2, 8, 40];
    row.extend(b"1970-01-01T00:00:01Z");
    row.extend([10, 4, 0xff, 0x85]);
    let record = |before: bool, after: bool, op: u8| {
        let mut record = vec![0, 0, 0, 0, 1];
        for present in [before, after] {
            record.push(if present { 2 } else { 0 });
            record.extend(row.iter().filter(|_| present));
        }
        record.extend([2, op]);
        record
    };
    assert_eq!(decoder.push(&record(true, true, b'u')), Ok(Effect::Row));
    assert_eq!(decoder.push(&record(false, true, b'c')), Ok(Effect::Row));
    assert_eq!(decoder.push(&record(true, false, b'd')), Ok(Effect::Gone));
    assert_eq!(
        decoder.push(&record(false, false, b't')),
        Ok(Effect::Truncated)
    );
    assert!(
        decoder
            .push(&record(true, false, b'c'))
            .unwrap_err()
            .0
            .contains("`after`")
    );
    assert!(
        decoder
            .push(&record(true, true, b'x'))
            .unwrap_err()
            .0
            .contains("`op`")
    );
    let batch = batch(&mut decoder);
    assert_eq!(batch.num_rows(), 2);
    let time = |column: usize| {
        batch
            .column(column)
            .as_primitive::<TimestampMicrosecondType>()
    };
    assert_eq!(texts(&batch, 0)[0].as_deref(), Some("id"));
    assert_eq!(batch.column(1).as_primitive::<Date32Type>().value(0), 2);
    assert_eq!(
        [2, 3, 4, 5].map(|c| time(c).value(0)),
        [3_000, 4, 1_000_000, 5_000]
    );
    assert_eq!(
        batch.column(6).as_primitive::<Decimal128Type>().value(0),
        -1_230
    );
}

/// A captured table's change as its ingest publishes it.
fn published(encoder: &mut Encoder, at: (u64, u64), op: Op, snapshot: bool) -> Vec<u8> {
    let column = Column {
        name: "id".into(),
        kind: ColumnType::Long,
        nullable: false,
    };
    let table = TableSchema {
        namespace: "public".into(),
        name: "users".into(),
        columns: vec![column],
        key: vec![0],
    };
    let row = Some(vec![Value::Int(7)]);
    let change = Change {
        table: Arc::new(table),
        op,
        before: row.clone().filter(|_| op == Op::Delete),
        after: row.filter(|_| [Op::Create, Op::Update, Op::Read].contains(&op)),
        position: Position {
            commit: at.0,
            index: at.1,
        },
        transaction: 1,
        committed_us: 1_000,
        snapshot,
    };
    encoder.encode(&change).unwrap().value.unwrap()
}

/// A record, what it does unless it is refused, and the newest position after it.
type Step<'a> = (&'a [u8], Option<Effect>, Option<(u64, u64)>);

#[test]
fn a_change_that_its_ingest_published_before_is_a_copy_and_no_other_record_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.db");
    let registry = tidemill_log::registry::open(&format!("sqlite://{}", file.display())).unwrap();
    let mut encoder = Encoder::new("users", Arc::clone(&registry));
    let mut of = |at, op, snapshot| published(&mut encoder, at, op, snapshot);
    let created = of((5, 1), Op::Create, false);
    let schema = registry.latest("users-value").unwrap().unwrap().schema;
    let columns = [("id", DataType::Int64)];
    let format = Format::Avro {
        schema,
        newest: 1,
        key: None,
    };
    let source = crate::source(format, Envelope::Debezium, &columns);
    let mut decoder = open(&source, Some(Arc::clone(&registry))).unwrap();
    let mut newest = None;
    let not_ours = |record: &[u8]| {
        let at = record.windows(8).position(|eight| eight == b"tidemill");
        let mut record = record.to_vec();
        record[at.unwrap()..][..8].copy_from_slice(b"postgres");
        record
    };
    let put_back = |record: &[u8]| {
        let record = OwnedRecord {
            partition: 0,
            offset: 9,
            timestamp_ms: 0,
            key: None,
            value: Some(record.to_vec()),
        };
        let mut decoder = Decoder::new("users", Arc::clone(&registry));
        decoder.put_back(&record).unwrap().unwrap()
    };
    let cut = created[..created.len() - 1].to_vec();
    let (older, later) = (of((4, 9), Op::Create, false), of((5, 2), Op::Update, false));
    let (gone, truncated) = (
        of((6, 0), Op::Delete, false),
        of((7, 0), Op::Truncate, false),
    );
    // Of another database: its positions are lower.
    let (begun, read) = (of((1, 0), Op::Truncate, true), of((1, 1), Op::Read, true));
    let story: [Step<'_>; 18] = [
        (&cut, None, None),
        (&created, Some(Effect::Row), Some((5, 1))),
        (&cut, None, Some((5, 1))),
        (&created, Some(Effect::Duplicate), Some((5, 1))),
        (&older, Some(Effect::Duplicate), Some((5, 1))),
        (&not_ours(&older), Some(Effect::Row), Some((5, 1))),
        (&put_back(&older), Some(Effect::Row), Some((5, 1))),
        (&later, Some(Effect::Row), Some((5, 2))),
        (&gone, Some(Effect::Gone), Some((6, 0))),
        (&later, Some(Effect::Duplicate), Some((6, 0))),
        (&gone, Some(Effect::Duplicate), Some((6, 0))),
        (&truncated, Some(Effect::Truncated), Some((7, 0))),
        (&later, Some(Effect::Duplicate), Some((7, 0))),
        (&truncated, Some(Effect::Duplicate), Some((7, 0))),
        (&begun, Some(Effect::Truncated), Some((1, 0))),
        (&read, Some(Effect::Row), Some((1, 1))),
        (&begun, Some(Effect::Duplicate), Some((1, 1))),
        (&created, Some(Effect::Row), Some((5, 1))),
    ];
    for (number, (record, effect, place)) in story.into_iter().enumerate() {
        let pushed = decoder.push_after(record, &mut newest);
        assert_eq!(pushed.ok(), effect, "record {number}");
        let position = newest.map(|place| (place.position.commit, place.position.index));
        assert_eq!(position, place, "record {number}");
    }
    assert_eq!(
        decoder.push(&created),
        Ok(Effect::Row),
        "outside a partition"
    );
}
