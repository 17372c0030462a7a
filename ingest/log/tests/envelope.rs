//! Changes survive the envelope, and what we write is what Debezium's readers expect.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use proptest::prelude::*;
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::envelope::{Decoder, Encoder};
use tidemill_log::log::{OwnedRecord, Record};
use tidemill_log::registry::{Registry, open};
use tidemill_log::schema::{
    Column, ColumnType, SourceType, TableSchema, columns_of_record, key_schema, table_of,
    value_schema,
};
use tidemill_log::{Kind, Result};

/// A registry in a file of its own.
fn registry() -> (tempfile::TempDir, Arc<dyn Registry>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("river.db");
    let registry = open(&format!("sqlite://{}", file.display())).unwrap();
    (folder, registry)
}

fn as_read(record: &Record) -> OwnedRecord {
    OwnedRecord {
        partition: 0,
        offset: 0,
        timestamp_ms: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
    }
}

const KINDS: [ColumnType; 14] = [
    ColumnType::Bool,
    ColumnType::Int,
    ColumnType::Long,
    ColumnType::Float,
    ColumnType::Double,
    ColumnType::Text,
    ColumnType::Uuid,
    ColumnType::Json,
    ColumnType::Bytes,
    ColumnType::Date,
    ColumnType::Timestamp,
    ColumnType::Timestamptz,
    ColumnType::Decimal {
        precision: 20,
        scale: 4,
    },
    ColumnType::Decimal {
        precision: 38,
        scale: 0,
    },
];

fn kinds() -> Vec<ColumnType> {
    let interval = ColumnType::Source(SourceType::named("interval"));
    [&KINDS[..], &[interval]].concat()
}

/// The names that a database allows and Avro does not are among them.
const NAMES: [&str; 8] = [
    "id",
    "first name",
    "first-name",
    "größe",
    "2nd",
    "",
    "key",
    "VALUE",
];

fn value(kind: ColumnType) -> BoxedStrategy<Value> {
    match kind {
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Int => any::<i32>().prop_map(|it| Value::Int(it.into())).boxed(),
        ColumnType::Long => any::<i64>().prop_map(Value::Int).boxed(),
        ColumnType::Float => any::<f32>().prop_map(|it| Value::Float(it.into())).boxed(),
        ColumnType::Double => any::<f64>().prop_map(Value::Float).boxed(),
        ColumnType::Text | ColumnType::Json | ColumnType::Source(_) => {
            any::<String>().prop_map(Value::Text).boxed()
        }
        ColumnType::Uuid => any::<u128>()
            .prop_map(|it| Value::Text(apache_avro::Uuid::from_u128(it).to_string()))
            .boxed(),
        ColumnType::Bytes => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        ColumnType::Date => any::<i32>().prop_map(Value::Date).boxed(),
        ColumnType::Timestamp | ColumnType::Timestamptz => {
            any::<i64>().prop_map(Value::Timestamp).boxed()
        }
        ColumnType::Decimal { .. } => prop_oneof![
            any::<i128>(),
            any::<i64>().prop_map(i128::from),
            -70_000i128..70_000,
        ]
        .prop_map(Value::Decimal)
        .boxed(),
    }
}

fn row(table: &TableSchema) -> BoxedStrategy<Vec<Value>> {
    let values: Vec<BoxedStrategy<Value>> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| match table.in_key(index) {
            true => value(column.kind),
            false => prop_oneof![1 => Just(Value::Null), 4 => value(column.kind)].boxed(),
        })
        .collect();
    values.boxed()
}

prop_compose! {
    fn tables()(
        kinds in proptest::collection::vec(proptest::sample::select(kinds()), 1..=NAMES.len()),
        key in proptest::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=3),
        turned in any::<bool>(),
    ) -> TableSchema {
        let count = kinds.len();
        let mut key: Vec<usize> = key.into_iter().filter(|it| *it < count).collect();
        if key.is_empty() {
            key.push(0);
        }
        if turned {
            key.reverse();
        }
        let columns = kinds
            .into_iter()
            .zip(NAMES)
            .enumerate()
            .map(|(index, (kind, name))| Column {
                name: name.to_owned(), kind, nullable: !key.contains(&index),
            })
            .collect();
        TableSchema { namespace: "public".into(), name: "a table".into(), columns, key }
    }
}

fn changes() -> impl Strategy<Value = Change> {
    tables().prop_flat_map(|table| {
        let rows = (row(&table), row(&table), any::<bool>());
        let place = (
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<i64>(),
            any::<bool>(),
        );
        let op = proptest::sample::select(vec![
            Op::Read,
            Op::Create,
            Op::Update,
            Op::Delete,
            Op::Withheld,
            Op::Truncate,
        ]);
        (Just(Arc::new(table)), op, rows, place).prop_map(|(table, op, rows, place)| {
            let (before, after, knows) = rows;
            let (commit, index, transaction, committed_us, snapshot) = place;
            let (before, after) = match op {
                Op::Read | Op::Create => (None, Some(after)),
                Op::Update => (knows.then_some(before), Some(after)),
                Op::Delete => (Some(before), None),
                Op::Truncate => (None, None),
                Op::Withheld => (Some(before), None),
            };
            let position = Position { commit, index };
            Change {
                table,
                op,
                before,
                after,
                position,
                transaction,
                committed_us,
                snapshot,
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_change_survives_the_envelope(change in changes()) {
        let (_folder, registry) = registry();
        let mut encoder = Encoder::new("shop-a.users", Arc::clone(&registry));
        let record = encoder.encode(&change).unwrap();
        prop_assert_eq!(&encoder.encode(&change).unwrap(), &record);
        prop_assert_eq!(record.key.is_none(), change.op == Op::Truncate);
        prop_assert_eq!(record.timestamp_ms, change.committed_us.div_euclid(1000));
        let mut decoder = Decoder::new("shop-a.users", registry);
        let read = as_read(&record);
        prop_assert_eq!(decoder.position_of(&read).unwrap(), Some(change.position));
        prop_assert_eq!(decoder.decode(&read).unwrap(), change);
    }

    #[test]
    fn a_table_survives_its_schemas(table in tables()) {
        let read = table_of(&value_schema(&table, "t"), &key_schema(&table, "t")).unwrap();
        prop_assert_eq!(read, table);
    }

    #[test]
    fn damaged_records_are_errors_and_no_panic(
        change in changes(),
        cut in any::<proptest::sample::Index>(),
        noise in any::<Vec<u8>>(),
    ) {
        let (_folder, registry) = registry();
        let record = Encoder::new("t", Arc::clone(&registry)).encode(&change).unwrap();
        let mut decoder = Decoder::new("t", registry);
        let mut short = as_read(&record);
        let value = short.value.as_mut().unwrap();
        value.truncate(cut.index(value.len()));
        prop_assert_eq!(decoder.decode(&short).unwrap_err().kind(), Kind::Data);
        prop_assert_eq!(decoder.position_of(&short).unwrap(), None);
        let mut long = as_read(&record);
        long.value.as_mut().unwrap().splice(5.., noise);
        if let Err(error) = decoder.decode(&long) {
            prop_assert_eq!(error.kind(), Kind::Data);
        }
    }
}

fn users() -> Arc<TableSchema> {
    let column = |name: &str, kind| Column {
        name: name.into(),
        kind,
        nullable: false,
    };
    Arc::new(TableSchema {
        namespace: "public".into(),
        name: "users".into(),
        columns: vec![
            column("id", ColumnType::Uuid),
            column("age", ColumnType::Int),
            column(
                "balance",
                ColumnType::Decimal {
                    precision: 10,
                    scale: 2,
                },
            ),
            column("registered", ColumnType::Timestamptz),
        ],
        key: vec![0],
    })
}

fn created() -> Change {
    Change {
        table: users(),
        op: Op::Create,
        before: None,
        after: Some(vec![
            Value::Text("155E77EE-BA6D-486F-95CE-0E0C0FB4B919".into()),
            Value::Int(42),
            Value::Decimal(-1234),
            Value::Timestamp(1_700_000_000_123_456),
        ]),
        position: Position {
            commit: 0x16_B374_D848,
            index: 3,
        },
        transaction: 771,
        committed_us: 1_700_000_001_000_999,
        snapshot: false,
    }
}

/// Reads bytes in Confluent's wire format with apache_avro alone.
fn read_plainly(registry: &dyn Registry, bytes: &[u8]) -> (Schema, Avro) {
    assert_eq!(bytes[0], 0);
    let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
    let schema = Schema::parse_str(&registry.by_id(id).unwrap().unwrap()).unwrap();
    let datum = &mut &bytes[5..];
    let value = GenericDatumReader::builder(&schema)
        .build()
        .unwrap()
        .read_value(datum)
        .unwrap();
    assert!(datum.is_empty(), "bytes are left over");
    (schema, value)
}

fn field<'a>(record: &'a Avro, name: &str) -> &'a Avro {
    let Avro::Record(fields) = record else {
        panic!("{record:?} is no record")
    };
    match &fields.iter().find(|(it, _)| it == name).unwrap().1 {
        Avro::Union(_, inner) => inner,
        plain => plain,
    }
}

fn names(record: &Avro) -> Vec<&str> {
    let Avro::Record(fields) = record else {
        panic!("{record:?} is no record")
    };
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn others_read_debeziums_envelope() {
    let (_folder, registry) = registry();
    let mut encoder = Encoder::new("shop-a.users", Arc::clone(&registry)).of_database("shop");
    let record = encoder.encode(&created()).unwrap();
    assert_eq!(record.topic, "shop-a.users");
    assert_eq!(record.timestamp_ms, 1_700_000_001_000);

    let (schema, key) = read_plainly(&*registry, record.key.as_ref().unwrap());
    assert_eq!(schema.name().unwrap().to_string(), "shop_a.users.Key");
    let uuid = apache_avro::Uuid::parse_str("155e77ee-ba6d-486f-95ce-0e0c0fb4b919").unwrap();
    assert_eq!(key, Avro::Record(vec![("id".into(), Avro::Uuid(uuid))]));

    let (schema, value) = read_plainly(&*registry, record.value.as_ref().unwrap());
    assert_eq!(schema.name().unwrap().to_string(), "shop_a.users.Envelope");
    assert_eq!(names(&value), ["before", "after", "source", "op", "ts_ms"]);
    assert_eq!(field(&value, "before"), &Avro::Null);
    assert_eq!(field(&value, "op"), &Avro::String("c".into()));
    assert_eq!(field(&value, "ts_ms"), &Avro::Long(1_700_000_001_000));
    let after = field(&value, "after");
    assert_eq!(names(after), ["id", "age", "balance", "registered"]);
    assert_eq!(field(after, "age"), &Avro::Int(42));
    let Avro::Decimal(balance) = field(after, "balance") else {
        panic!("{after:?}")
    };
    assert_eq!(
        Vec::<u8>::try_from(balance).unwrap(),
        (-1234i16).to_be_bytes()
    );
    assert_eq!(
        field(after, "registered"),
        &Avro::TimestampMicros(1_700_000_000_123_456)
    );
    let source = field(&value, "source");
    let expected = [
        ("connector", Avro::String("tidemill".into())),
        ("db", Avro::String("shop".into())),
        ("schema", Avro::String("public".into())),
        ("table", Avro::String("users".into())),
        ("ts_ms", Avro::Long(1_700_000_001_000)),
        ("ts_us", Avro::Long(1_700_000_001_000_999)),
        ("snapshot", Avro::String("false".into())),
        ("txId", Avro::Long(771)),
        ("lsn", Avro::Long(0x16_B374_D848)),
        (
            "sequence",
            Avro::String(format!("[\"{}\",\"3\"]", 0x16_B374_D848_u64)),
        ),
    ];
    for (name, expected) in expected {
        assert_eq!(field(source, name), &expected, "source.{name}");
    }
}

#[test]
fn a_changed_table_gets_new_schemas_and_old_records_are_still_read() {
    let (_folder, registry) = registry();
    let mut encoder = Encoder::new("users", Arc::clone(&registry));
    let mut old = created();
    let id = "155e77ee-ba6d-486f-95ce-0e0c0fb4b919";
    old.after.as_mut().unwrap()[0] = Value::Text(id.into());
    let first = encoder.encode(&old).unwrap();
    let mut table = (*users()).clone();
    let kind = ColumnType::Text;
    table.columns.push(Column {
        name: "email".into(),
        kind,
        nullable: true,
    });
    let mut row = old.after.clone().unwrap();
    row.push(Value::Text("a@b".into()));
    let new = Change {
        table: Arc::new(table),
        after: Some(row),
        ..old.clone()
    };
    let second = encoder.encode(&new).unwrap();
    assert_eq!(first.key, second.key);
    assert_eq!(registry.versions("users-value").unwrap().len(), 2);
    assert_eq!(registry.versions("users-key").unwrap().len(), 1);
    let mut decoder = Decoder::new("users", registry);
    assert_eq!(
        decoder
            .decode(&as_read(&first))
            .unwrap()
            .after
            .unwrap()
            .len(),
        4
    );
    assert_eq!(decoder.decode(&as_read(&second)).unwrap().after, new.after);
}

#[test]
fn rows_that_do_not_fit_their_table_are_refused_by_column() {
    let (_folder, registry) = registry();
    let mut encoder = Encoder::new("users", registry);
    let mut refused = |at: usize, value: Value| -> Result<Record> {
        let mut change = created();
        change.after.as_mut().unwrap()[at] = value;
        encoder.encode(&change)
    };
    let cases = [
        (0, Value::Null, "`id` of the primary key is null"),
        (0, Value::Text("no uuid".into()), "`no uuid` is no uuid"),
        (1, Value::Int(i64::MAX), "no 32 bit integer"),
        (
            3,
            Value::Text("today".into()),
            "`registered` of type Timestamptz",
        ),
    ];
    for (at, value, words) in cases {
        let error = refused(at, value).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let text = error.to_string();
        assert!(
            text.contains("public.users") && text.contains(words),
            "{text}"
        );
    }
    let mut short = created();
    short.after.as_mut().unwrap().pop();
    assert_eq!(encoder.encode(&short).unwrap_err().kind(), Kind::Data);
    let rowless = Change {
        after: None,
        ..created()
    };
    assert_eq!(encoder.encode(&rowless).unwrap_err().kind(), Kind::Data);
}

#[test]
fn a_negative_scale_is_written_as_whole_numbers() {
    let (_folder, registry) = registry();
    let column = |name: &str, kind| Column {
        name: name.into(),
        kind,
        nullable: true,
    };
    let thousands = ColumnType::Decimal {
        precision: 5,
        scale: -3,
    };
    let table = Arc::new(TableSchema {
        namespace: "public".into(),
        name: "sums".into(),
        columns: vec![column("id", ColumnType::Long), column("sum", thousands)],
        key: vec![0],
    });
    let after = Some(vec![Value::Int(1), Value::Decimal(-12)]);
    let change = Change {
        table,
        after,
        ..created()
    };
    let record = Encoder::new("sums", Arc::clone(&registry))
        .encode(&change)
        .unwrap();
    let read = Decoder::new("sums", registry)
        .decode(&as_read(&record))
        .unwrap();
    assert_eq!(
        read.after,
        Some(vec![Value::Int(1), Value::Decimal(-12_000)])
    );
    let whole = ColumnType::Decimal {
        precision: 8,
        scale: 0,
    };
    assert_eq!(read.table.columns[1].kind, whole);
}

#[test]
fn debeziums_own_schemas_are_understood() {
    let value = r#"{"type":"record","name":"Envelope","namespace":"srv.public.t","fields":[
        {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
            {"name":"b","type":"long"},
            {"name":"a","type":{"type":"int","connect.name":"io.debezium.time.Date"}},
            {"name":"at","type":["null",{"type":"long","connect.version":1,
                "connect.name":"io.debezium.time.MicroTimestamp"}],"default":null},
            {"name":"tags","type":{"type":"array","items":"string"}}],
            "connect.name":"srv.public.t.Value"}],"default":null},
        {"name":"after","type":["null","Value"],"default":null},
        {"name":"op","type":"string"}],"connect.name":"srv.public.t.Envelope"}"#;
    let key = r#"{"type":"record","name":"Key","namespace":"srv.public.t","fields":[
        {"name":"a","type":"int"},{"name":"b","type":"long"}]}"#;
    let table = table_of(value, key).unwrap();
    assert_eq!((table.name.as_str(), &table.key[..]), ("t", &[1, 0][..]));
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|it| (it.name.as_str(), it.kind, it.nullable))
        .collect();
    let expected = [
        ("b", ColumnType::Long, false),
        ("a", ColumnType::Date, false),
        ("at", ColumnType::Timestamp, true),
    ];
    assert_eq!(columns, expected);
}

#[test]
fn plain_records_have_columns_and_other_schemas_have_none() {
    let flat = r#"{"type":"record","name":"User","fields":[
        {"name":"name","type":"string"},
        {"name":"age","type":["int","null"]},
        {"name":"score","type":["null","int","string"]},
        {"name":"home","type":{"type":"record","name":"Home","fields":[]}}]}"#;
    let fields = columns_of_record(flat).unwrap();
    let unusable = fields.unusable.iter();
    let unusable: Vec<_> = unusable
        .map(|it| (it.name.as_str(), it.kind.as_str()))
        .collect();
    assert_eq!(
        unusable,
        [
            ("score", "a union of null, int, string"),
            ("home", "a record (Home)")
        ]
    );
    let columns: Vec<_> = fields
        .columns
        .iter()
        .map(|it| (it.name.as_str(), it.kind, it.nullable))
        .collect();
    assert_eq!(
        columns,
        [
            ("name", ColumnType::Text, false),
            ("age", ColumnType::Int, true)
        ]
    );
    for (value, key) in [("\"string\"", "{}"), ("{", "{}"), (flat, "\"string\"")] {
        assert_eq!(table_of(value, key).unwrap_err().kind(), Kind::Data);
    }
    assert_eq!(
        columns_of_record("\"string\"").unwrap_err().kind(),
        Kind::Data
    );
}
