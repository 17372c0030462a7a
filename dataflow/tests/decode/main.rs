//! The decoders against slow references, against garbage, and through schema evolution.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod debezium_json;
mod envelope;
mod formats;
mod names;
mod others;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use apache_avro::types::Value as Avro;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use tidemill_decode::{Decoder, Effect, open};
use tidemill_ir::{Envelope, Format, Source, Spelling};
use tidemill_log::registry::{Registered, Registry};

/// A registry in memory that can be away for a number of questions.
#[derive(Default)]
struct Memory {
    schemas: Mutex<HashMap<u32, String>>,
    asked: AtomicUsize,
    away: AtomicUsize,
}

impl Memory {
    fn with(schemas: &[(u32, &str)]) -> Arc<Self> {
        let memory = Self::default();
        for (id, schema) in schemas {
            let mut schemas = memory.schemas.lock().unwrap();
            schemas.insert(*id, (*schema).to_owned());
        }
        Arc::new(memory)
    }
}

impl Registry for Memory {
    fn register(&self, _: &str, _: &str) -> tidemill_log::Result<Registered> {
        unreachable!("it is read only")
    }

    fn delete(&self, _subject: &str) -> tidemill_log::Result<bool> {
        Ok(false)
    }

    fn by_id(&self, id: u32) -> tidemill_log::Result<Option<String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let away = self.away.load(Ordering::Relaxed);
        if away > 0 {
            self.away.store(away - 1, Ordering::Relaxed);
            return Err(tidemill_log::Error::new(tidemill_log::Kind::Retry, "away"));
        }
        Ok(self.schemas.lock().unwrap().get(&id).cloned())
    }

    fn versions(&self, _: &str) -> tidemill_log::Result<Vec<Registered>> {
        let schemas = self.schemas.lock().unwrap();
        let all = schemas.iter().map(|(id, schema)| (*id, schema.clone()));
        let version = 1;
        let registered = all.map(|(id, schema)| Registered {
            id,
            version,
            schema,
        });
        Ok(registered.collect())
    }
}

fn source(format: Format, envelope: Envelope, columns: &[(&str, DataType)]) -> Source {
    let fields = columns
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Source {
        name: "users".into(),
        topic: "users".into(),
        format,
        envelope,
        unavailable: None,
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        key: vec![],
    }
}

fn json(columns: &[(&str, DataType)]) -> Box<dyn Decoder> {
    open(
        &source(Format::Json(Spelling::default()), Envelope::Append, columns),
        None,
    )
    .unwrap()
}

fn avro(
    planned: &str,
    envelope: Envelope,
    columns: &[(&str, DataType)],
    registry: &Arc<Memory>,
) -> Box<dyn Decoder> {
    let format = Format::Avro {
        schema: planned.into(),
        newest: 1,
        key: None,
    };
    let registry: Arc<dyn Registry> = Arc::<Memory>::clone(registry);
    open(&source(format, envelope, columns), Some(registry)).unwrap()
}

fn batch(decoder: &mut Box<dyn Decoder>) -> RecordBatch {
    let rows = decoder.rows();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), rows);
    assert_eq!(decoder.rows(), 0);
    batch
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn texts(batch: &RecordBatch, column: usize) -> Vec<Option<String>> {
    batch
        .column(column)
        .as_string::<i32>()
        .iter()
        .map(|t| t.map(str::to_owned))
        .collect()
}

fn ints(batch: &RecordBatch, column: usize) -> Vec<Option<i32>> {
    batch
        .column(column)
        .as_primitive::<Int32Type>()
        .iter()
        .collect()
}

#[test]
fn json_takes_only_what_fits_and_says_why_not() {
    let cases: &[(DataType, &str, Option<&str>)] = &[
        (DataType::Int32, "2147483647", None),
        (DataType::Int32, "30.0", None),
        (
            DataType::Int32,
            "2147483648",
            Some("found 2147483648, expected a whole number"),
        ),
        (DataType::Int32, "1.5", Some("found 1.5")),
        (DataType::Int32, "\"7\"", Some("found \"7\"")),
        (DataType::Int64, "9223372036854775807", None),
        (DataType::Int64, "9223372036854775808", Some("64 bits")),
        (DataType::Boolean, "true", None),
        (DataType::Boolean, "1", Some("true or false")),
        (DataType::Float64, "1e308", None),
        (DataType::Float64, "1e999", Some("a number")),
        (DataType::Utf8, "\"a\\u00e9\\n\"", None),
        (DataType::Utf8, "12.50", None),
        (DataType::Utf8, "[1]", Some("found [1], expected a string")),
        (DataType::Utf8, "\"\\ud800\"", Some("expected a string")),
        (DataType::Date32, "\"2024-02-29\"", None),
        (DataType::Date32, "\"2023-02-29\"", Some("YYYY-MM-DD")),
        (micros(), "\"2024-01-01T00:00:00Z\"", None),
        (micros(), "1700000000000", None),
        (micros(), "9223372036854775807", Some("unit is not said")),
        (micros(), "1700000000", Some("unit is not said")),
        (DataType::Decimal128(5, 2), "\"123.45\"", None),
        (DataType::Decimal128(5, 2), "0.1", None),
        (
            DataType::Decimal128(5, 2),
            "0.125",
            Some("at most 5 digits, 2 of them"),
        ),
        (DataType::Decimal128(5, 2), "1000", Some("at most 5 digits")),
    ];
    for (kind, value, refusal) in cases {
        let mut decoder = json(&[("other", DataType::Utf8), ("f", kind.clone())]);
        let record = format!("{{\"other\":\"x\",\"f\": {value} }}");
        let pushed = decoder.push(record.as_bytes());
        match refusal {
            None => assert_eq!(pushed, Ok(Effect::Row), "{kind} {value}"),
            Some(part) => {
                let why = pushed.unwrap_err().0;
                assert!(
                    why.contains("field `f`") && why.contains(part),
                    "{kind} {value}: {why}"
                );
                assert_eq!(decoder.rows(), 0);
            }
        }
        decoder.push(b"{}").unwrap();
        assert!(
            batch(&mut decoder)
                .column(1)
                .is_null(usize::from(refusal.is_none()))
        );
    }
}

#[test]
fn json_values_are_exact() {
    let columns = [
        ("d", DataType::Decimal128(38, 20)),
        ("t", micros()),
        ("s", DataType::Utf8),
        ("b", DataType::Binary),
        ("day", DataType::Date32),
    ];
    let mut decoder = json(&columns);
    let record = br#" {"d":0.10000000000000000001,"t":"2024-01-01T01:00:00.000001+01:00",
        "s":1.10,"b":"\u0000x","day":"1970-01-02","d2":{"s":[{"s":1}]}} "#;
    decoder.push(record).unwrap();
    let batch = batch(&mut decoder);
    let decimals = batch.column(0).as_primitive::<Decimal128Type>();
    assert_eq!(decimals.value(0), 10_000_000_000_000_000_001);
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), 1_704_067_200_000_001);
    assert_eq!(texts(&batch, 2), [Some("1.10".into())]);
    assert_eq!(batch.column(3).as_binary::<i32>().value(0), b"\0x");
    assert_eq!(batch.column(4).as_primitive::<Date32Type>().value(0), 1);
}

#[test]
fn json_garbage_is_refused_alone() {
    let mut decoder = json(&[("name", DataType::Utf8), ("age", DataType::Int32)]);
    let good = br#"{"age":1,"name":"old","age":2,"name":"new"}"#;
    let mut deep = b"{\"x\":".to_vec();
    deep.extend(vec![b'['; 100_000]);
    let bad: &[&[u8]] = &[
        b"",
        b"null",
        b"[]",
        b"7",
        b"{\"name\":\"a\",\"age\":1",
        b"{\"name\":\"a\",\"age\":1} x",
        b"{\"name\":\"a\",\"age\":1}{}",
        b"{\"name\":\"\xff\",\"age\":1}",
        b"\x00\x00\x00\x00\x01",
        b"<html>",
        &deep,
    ];
    for bad in bad {
        decoder.push(good).unwrap();
        assert!(decoder.push(bad).is_err(), "{bad:?}");
    }
    let batch = batch(&mut decoder);
    assert_eq!(batch.num_rows(), bad.len());
    assert!(
        texts(&batch, 0)
            .iter()
            .all(|name| name.as_deref() == Some("new"))
    );
    assert!(
        ints(&batch, 1).iter().all(|age| *age == Some(2)),
        "the last of two keys wins"
    );
}

#[test]
fn a_source_without_columns_counts_rows_and_one_without_nulls_refuses_them() {
    let mut decoder = json(&[]);
    for _ in 0..3 {
        decoder.push(b"{\"x\":1}").unwrap();
    }
    assert_eq!(batch(&mut decoder).num_rows(), 3);
    let mut strict = source(Format::Json(Spelling::default()), Envelope::Append, &[]);
    strict.schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let mut decoder = open(&strict, None).unwrap();
    decoder.push(b"{\"id\":1}").unwrap();
    assert!(
        decoder
            .push(b"{\"id\":null}")
            .unwrap_err()
            .0
            .contains("not nullable")
    );
    assert_eq!(batch(&mut decoder).num_rows(), 1);
}

#[test]
fn json_envelopes_say_what_happened() {
    let columns = [("id", DataType::Int64)];
    let mut decoder = open(
        &source(
            Format::Json(Spelling::default()),
            Envelope::Debezium,
            &columns,
        ),
        None,
    )
    .unwrap();
    let cases: &[(&str, Result<Effect, &str>)] = &[
        (
            r#"{"before":{"id":9},"after":{"id":1},"op":"c"}"#,
            Ok(Effect::Row),
        ),
        (
            r#"{"op":"u","source":{"op":"x","after":{"id":8}},"after":{"id":2}}"#,
            Ok(Effect::Row),
        ),
        (
            r#"{"schema":{"type":"struct"},"payload":{"after":{"id":3},"op":"r"}}"#,
            Ok(Effect::Row),
        ),
        (
            r#"{"payload":{"before":{"id":3},"after":null,"op":"d"}}"#,
            Ok(Effect::Gone),
        ),
        (r#"{"op":"t"}"#, Ok(Effect::Truncated)),
        (
            r#"{"after":null,"op":"c"}"#,
            Err("field `after`: found nothing"),
        ),
        (r#"{"after":{"id":1}}"#, Err("field `op`: found nothing")),
        (
            r#"{"after":{"id":1},"op":"x"}"#,
            Err("field `op`: found \"x\""),
        ),
        (
            r#"{"after":{"id":"x"},"op":"c"}"#,
            Err("field `id`: found \"x\""),
        ),
        (r#"{"after":[],"op":"c"}"#, Err("not a JSON object")),
    ];
    for (record, expected) in cases {
        match (decoder.push(record.as_bytes()), expected) {
            (Ok(effect), expected) => assert_eq!(Ok(effect), *expected, "{record}"),
            (Err(why), Err(part)) => assert!(why.0.contains(part), "{record}: {}", why.0),
            (Err(why), Ok(_)) => panic!("{record}: {}", why.0),
        }
    }
    let batch = batch(&mut decoder);
    let ids: Vec<_> = batch
        .column(0)
        .as_primitive::<Int64Type>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(ids, [1, 2, 3]);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-5_i64..50).prop_map(Into::into),
        (-1e6_f64..1e6).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[a-d]", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What a column makes of a parsed value: the slow way. `None` refuses.
fn slow(value: Option<&serde_json::Value>, kind: &DataType) -> Option<Option<String>> {
    use serde_json::Value;
    let value = match value {
        None | Some(Value::Null) => return Some(None),
        Some(value) => value,
    };
    Some(Some(match (kind, value) {
        (DataType::Int32, Value::Number(n)) => {
            let whole = n
                .as_i64()
                .or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
            i32::try_from(whole?).ok()?.to_string()
        }
        (DataType::Float64, Value::Number(n)) => n.as_f64()?.to_bits().to_string(),
        (DataType::Utf8, Value::String(s)) => s.clone(),
        (DataType::Utf8, Value::Number(_) | Value::Bool(_)) => value.to_string(),
        (DataType::Boolean, Value::Bool(b)) => b.to_string(),
        _ => return None,
    }))
}

fn shown(batch: &RecordBatch, row: usize) -> Vec<Option<String>> {
    let show = |array: &dyn Array| -> String {
        match array.data_type() {
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
            DataType::Float64 => array
                .as_primitive::<Float64Type>()
                .value(row)
                .to_bits()
                .to_string(),
            DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
            _ => array.as_boolean().value(row).to_string(),
        }
    };
    let columns = batch.columns().iter();
    columns
        .map(|array| array.is_valid(row).then(|| show(array)))
        .collect()
}

const FLAT: &str = r#"{"type":"record","name":"U","fields":[
    {"name":"skip","type":{"type":"array","items":["null","string"]}},
    {"name":"country","type":["null","string"]},
    {"name":"tags","type":{"type":"map","values":"double"}},
    {"name":"age","type":"int"},
    {"name":"kind","type":{"type":"enum","name":"K","symbols":["A","B"]}},
    {"name":"hash","type":{"type":"fixed","name":"H","size":3}},
    {"name":"score","type":["double","null"]}]}"#;

fn flat_columns() -> [(&'static str, DataType); 4] {
    [
        ("score", DataType::Float64),
        ("country", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("age", DataType::Int32),
    ]
}

fn any_flat() -> impl Strategy<Value = Avro> {
    (
        prop::collection::vec(prop::option::of(any::<String>()), 0..4),
        prop::option::of(any::<String>()),
        prop::collection::hash_map("[a-z]{0,3}", any::<f64>(), 0..3),
        any::<i32>(),
        0_u32..2,
        any::<[u8; 3]>(),
        prop::option::of(any::<f64>()),
    )
        .prop_map(|(skip, country, tags, age, kind, hash, score)| {
            let null = |index, value: Option<Avro>, none| match value {
                Some(value) => Avro::Union(index, Box::new(value)),
                None => Avro::Union(none, Box::new(Avro::Null)),
            };
            let skip = skip
                .into_iter()
                .map(|s| null(1, s.map(Avro::String), 0))
                .collect();
            let tags = tags
                .into_iter()
                .map(|(k, v)| (k, Avro::Double(v)))
                .collect();
            let symbol = ["A", "B"][kind as usize].to_owned();
            Avro::Record(vec![
                ("skip".into(), Avro::Array(skip)),
                ("country".into(), null(1, country.map(Avro::String), 0)),
                ("tags".into(), Avro::Map(tags)),
                ("age".into(), Avro::Int(age)),
                ("kind".into(), Avro::Enum(kind, symbol)),
                ("hash".into(), Avro::Fixed(3, hash.to_vec())),
                ("score".into(), null(0, score.map(Avro::Double), 1)),
            ])
        })
}

fn encode(schema: &str, id: u32, value: Avro) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .unwrap();
    let mut record = vec![0];
    record.extend(id.to_be_bytes());
    record.extend(writer.write_value_to_vec(value).unwrap());
    record
}

/// What apache-avro's reader makes of a body, in the columns' order; none when it refuses.
fn reference(body: &[u8]) -> Option<Vec<Option<String>>> {
    let schema = apache_avro::Schema::parse_str(FLAT).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
        .build()
        .unwrap();
    // A byte more than the body: at the very end of its input the reader takes any union for null.
    let more = [body, &[0]].concat();
    let mut rest = &more[..];
    let Avro::Record(fields) = reader.read_value(&mut rest).ok()? else {
        panic!("a record schema reads records");
    };
    let shown = flat_columns().map(|(name, _)| {
        let (_, value) = fields.iter().find(|(field, _)| field == name).unwrap();
        match value {
            Avro::Union(_, inner) => inner.as_ref().clone(),
            other => other.clone(),
        }
    });
    let shown = shown.map(|value| match value {
        Avro::Null => None,
        Avro::Double(value) => Some(value.to_bits().to_string()),
        Avro::String(text) | Avro::Enum(_, text) => Some(text),
        Avro::Int(value) => Some(value.to_string()),
        other => panic!("{other:?}"),
    });
    (rest.len() == 1).then(|| shown.to_vec())
}

proptest! {
    #[test]
    fn json_agrees_with_a_slow_reference(
        records in prop::collection::vec(
            prop::collection::hash_map("[a-e]", any_json(), 0..6), 1..8)
    ) {
        let columns = [
            ("a", DataType::Int32),
            ("b", DataType::Utf8),
            ("c", DataType::Float64),
            ("d", DataType::Boolean),
        ];
        let mut decoder = json(&columns);
        let mut expected = Vec::new();
        for record in records {
            let value = serde_json::Value::Object(record.into_iter().collect());
            let row: Option<Vec<_>> =
                columns.iter().map(|(name, kind)| slow(value.get(name), kind)).collect();
            let pushed = decoder.push(value.to_string().as_bytes());
            prop_assert_eq!(pushed.is_ok(), row.is_some(), "{}: {:?}", value, pushed);
            expected.extend(row);
        }
        let batch = batch(&mut decoder);
        let rows: Vec<_> = (0..batch.num_rows()).map(|row| shown(&batch, row)).collect();
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn json_never_panics_and_takes_no_broken_text(
        mut text in any_json().prop_map(|v| format!("{{\"a\":{v},\"b\":1}}").into_bytes()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let place = at.index(text.len());
        text[place] = byte;
        let mut decoder = json(&[("a", DataType::Utf8), ("t", micros()), ("n", DataType::Int32)]);
        let taken = decoder.push(&text).is_ok();
        prop_assert_eq!(decoder.rows(), usize::from(taken));
        if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err() {
            prop_assert!(!taken);
        }
    }

    #[test]
    fn text_columns_of_any_type_never_panic(text in "\\PC{0,30}|[0-9TZ:+. eE-]{0,30}") {
        let record = serde_json::json!({"v": text}).to_string();
        for kind in [DataType::Date32, micros(), DataType::Decimal128(38, 10)] {
            let mut decoder = json(&[("v", kind)]);
            let taken = decoder.push(record.as_bytes()).is_ok();
            prop_assert_eq!(batch(&mut decoder).num_rows(), usize::from(taken));
        }
    }

    #[test]
    fn avro_agrees_with_apache_avro(records in prop::collection::vec(any_flat(), 1..6)) {
        let registry = Memory::with(&[(7, FLAT)]);
        let mut decoder = avro(FLAT, Envelope::Append, &flat_columns(), &registry);
        let mut expected = Vec::new();
        for record in records {
            let bytes = encode(FLAT, 7, record);
            prop_assert_eq!(decoder.push(&bytes), Ok(Effect::Row));
            expected.extend(reference(&bytes[5..]));
            prop_assert!(decoder.push(&[&bytes[..], &[0]].concat()).is_err(), "trailing byte");
            for length in 0..bytes.len() {
                prop_assert!(decoder.push(&bytes[..length]).is_err(), "cut at {}", length);
            }
        }
        let batch = batch(&mut decoder);
        let rows: Vec<_> = (0..batch.num_rows()).map(|row| shown(&batch, row)).collect();
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn avro_bodies_of_any_bytes_agree_or_are_refused(body in prop::collection::vec(
        prop_oneof![Just(0_u8), Just(2), 0_u8..8, any::<u8>()], 0..40)
    ) {
        let registry = Memory::with(&[(7, FLAT)]);
        let mut decoder = avro(FLAT, Envelope::Append, &flat_columns(), &registry);
        let taken = decoder.push(&[&[0, 0, 0, 0, 7], &body[..]].concat()).is_ok();
        let batch = batch(&mut decoder);
        prop_assert_eq!(batch.num_rows(), usize::from(taken));
        // What the reference reads to the end reads the same here. Passed-over parts are not
        // looked into, so the reverse need not hold.
        if let Some(row) = reference(&body) {
            prop_assert!(taken);
            prop_assert_eq!(shown(&batch, 0), row);
        }
    }
}

#[test]
fn avro_lengths_and_counts_that_lie_cost_nothing() {
    let schema = r#"{"type":"record","name":"N","fields":[
        {"name":"nothings","type":{"type":"array","items":"null"}},
        {"name":"text","type":"string"}]}"#;
    let columns = [("text", DataType::Utf8)];
    let registry = Memory::with(&[(1, schema)]);
    let mut decoder = avro(schema, Envelope::Append, &columns, &registry);
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let head = [0, 0, 0, 0, 1];
    assert!(
        decoder
            .push(&[&head[..], &[0], &huge[..]].concat())
            .is_err(),
        "2^60 bytes of text"
    );
    // 2^60 nulls take no bytes and are over at once.
    assert_eq!(
        decoder.push(&[&head[..], &huge[..], &[0, 2, b'x']].concat()),
        Ok(Effect::Row)
    );
    let eleven = [&head[..], &[0xff; 11]].concat();
    assert!(decoder.push(&eleven).unwrap_err().0.contains("64 bits"));
    assert_eq!(texts(&batch(&mut decoder), 0), [Some("x".into())]);
}

#[test]
fn avro_records_of_a_recursive_schema_nest_only_so_deep() {
    let schema = r#"{"type":"record","name":"L","namespace":"n","fields":[
        {"name":"next","type":["null","L"]},{"name":"v","type":"int"}]}"#;
    let columns = [("v", DataType::Int32)];
    let registry = Memory::with(&[(1, schema)]);
    let mut decoder = avro(schema, Envelope::Append, &columns, &registry);
    let body = |deep: usize| {
        let mut body = vec![0, 0, 0, 0, 1];
        body.extend(vec![2; deep]);
        body.push(0);
        body.extend(vec![8; deep + 1]);
        body
    };
    decoder.push(&body(20)).unwrap();
    assert!(
        decoder
            .push(&body(1_000_000))
            .unwrap_err()
            .0
            .contains("nested")
    );
    assert_eq!(ints(&batch(&mut decoder), 0), [Some(4)]);
}

#[test]
fn avro_old_and_new_writers_are_read_side_by_side() {
    let old = r#"{"type":"record","name":"U","fields":[
        {"name":"id","type":"int"},{"name":"surname","type":"string"}]}"#;
    let new = r#"{"type":"record","name":"U","fields":[
        {"name":"city","type":["null","string"],"default":null},
        {"name":"level","type":["int","null"],"default":7},
        {"name":"name","aliases":["surname"],"type":"string"},
        {"name":"id","type":"long"}]}"#;
    let registry = Memory::with(&[(1, old), (2, new)]);
    let columns = [
        ("id", DataType::Int64),
        ("level", DataType::Int32),
        ("name", DataType::Utf8),
        ("city", DataType::Utf8),
    ];
    let mut decoder = avro(new, Envelope::Append, &columns, &registry);
    let first = Avro::Record(vec![
        ("id".into(), Avro::Int(1)),
        ("surname".into(), Avro::String("Ada".into())),
    ]);
    let second = Avro::Record(vec![
        (
            "city".into(),
            Avro::Union(1, Box::new(Avro::String("Bonn".into()))),
        ),
        ("level".into(), Avro::Union(1, Box::new(Avro::Null))),
        ("name".into(), Avro::String("Bob".into())),
        ("id".into(), Avro::Long(1 << 40)),
    ]);
    for _ in 0..2 {
        decoder.push(&encode(old, 1, first.clone())).unwrap();
        decoder.push(&encode(new, 2, second.clone())).unwrap();
    }
    assert_eq!(
        registry.asked.load(Ordering::Relaxed),
        2,
        "each schema is fetched once"
    );
    let batch = batch(&mut decoder);
    assert_eq!(ints(&batch, 1), [Some(7), None, Some(7), None]);
    assert_eq!(
        texts(&batch, 2)[..2],
        [Some("Ada".into()), Some("Bob".into())]
    );
    assert_eq!(texts(&batch, 3)[..2], [None, Some("Bonn".into())]);
    let ids = batch.column(0).as_primitive::<Int64Type>();
    assert_eq!((ids.value(0), ids.value(1)), (1, 1 << 40));
}

#[test]
fn avro_unknown_ids_and_wrong_frames_are_refused_alone() {
    let registry = Memory::with(&[(7, FLAT), (8, "\"string\""), (9, "{")]);
    let mut decoder = avro(
        FLAT,
        Envelope::Append,
        &[("age", DataType::Int32)],
        &registry,
    );
    let cases: &[(&[u8], &str)] = &[
        (b"", "found 0 bytes"),
        (b"\0\0\0", "found 3 bytes"),
        (b"{\"a\":1}", "first byte 123"),
        (b"\0\0\0\0\x63", "no schema 99"),
        (b"\0\0\0\0\x08", "it is no record"),
        (b"\0\0\0\0\x09", "no JSON"),
        (b"\0\0\0\0\x07", "ends within a value"),
    ];
    for _ in 0..3 {
        for (record, part) in cases {
            let why = decoder.push(record).unwrap_err().0;
            assert!(why.contains(part), "{record:?}: {why}");
        }
    }
    assert_eq!(
        registry.asked.load(Ordering::Relaxed),
        4,
        "misses are remembered"
    );
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn avro_waits_for_a_registry_that_is_away() {
    let schema = r#"{"type":"record","name":"N","fields":[{"name":"v","type":"int"}]}"#;
    let registry = Memory::with(&[(1, schema)]);
    registry.away.store(3, Ordering::Relaxed);
    let mut decoder = avro(
        schema,
        Envelope::Append,
        &[("v", DataType::Int32)],
        &registry,
    );
    assert_eq!(decoder.push(&[0, 0, 0, 0, 1, 8]), Ok(Effect::Row));
    assert_eq!(registry.asked.load(Ordering::Relaxed), 4);
    assert_eq!(ints(&batch(&mut decoder), 0), [Some(4)]);
}
