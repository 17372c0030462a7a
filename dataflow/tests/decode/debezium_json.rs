//! Debezium's change events as Kafka Connect's JSON converter writes them, with its schema and
//! without.
//!
//! The records are typed in from Debezium 3's reference (connectors/postgresql, "Data type
//! mappings" and "Data change events"; transformations/event-flattening; connectors/postgresql,
//! "Toasted values"), and the values that they stand for were worked out apart from this code
//! with Python: `int.from_bytes(base64.b64decode(…), signed=True)`, `datetime.fromtimestamp`.

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_decode::{Effect, open};
use tidemill_ir::{Binary, Digits, Envelope, Format, Missing, Spelling, TimestampUnit};

use crate::{batch, micros, source};

/// 2024-05-06 07:08:09.123456 in microseconds, and its day.
const MICROS: i64 = 1_714_979_289_123_456;
const DAYS: i64 = 19_849;

fn decimal() -> DataType {
    DataType::Decimal128(10, 2)
}

/// The one cell of a record's row as text, or why there is none.
fn cell(
    record: &str,
    envelope: Envelope,
    spelling: Spelling,
    kind: &DataType,
) -> Result<String, String> {
    let source = source(Format::Json(spelling), envelope, &[("v", kind.clone())]);
    let mut decoder = open(&source, None).unwrap();
    match decoder.push(record.as_bytes()) {
        Ok(Effect::Row) => {}
        Ok(effect) => return Ok(format!("{effect:?}")),
        Err(refused) => return Err(refused.0),
    }
    let rows = batch(&mut decoder);
    let options = FormatOptions::default().with_null("NULL");
    let shown = ArrayFormatter::try_new(rows.column(0), &options).unwrap();
    Ok(shown.value(0).to_string())
}

/// An event that holds a value, with the schema of its field where there is one.
fn event(value: &str, field: Option<&str>) -> String {
    let payload = format!(
        r#"{{"before":null,"after":{{"v":{value}}},"source":{{"version":"3.0.0.Final","connector":
            "postgresql","name":"s","ts_ms":1714979289000,"snapshot":"false","db":"d","sequence":
            "[\"1\",\"2\"]","schema":"public","table":"t","txId":1,"lsn":2,"xmin":null}},
            "transaction":null,"op":"c","ts_ms":1714979289500}}"#
    );
    let Some(field) = field else { return payload };
    let row = |name: &str| {
        format!(
            r#"{{"type":"struct","fields":[{{{field},"optional":true,"field":"v"}}],"optional":true,
                "name":"s.public.t.Value","field":"{name}"}}"#
        )
    };
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{},{},{{"type":"string","optional":false,
            "field":"op"}}],"optional":false,"name":"s.public.t.Envelope","version":2}},
            "payload":{payload}}}"#,
        row("before"),
        row("after")
    )
}

/// A type as Connect's schema says it.
fn typed(kind: &str, name: &str) -> String {
    format!(r#""type":"{kind}","name":"{name}","version":1"#)
}

#[test]
fn the_schema_in_a_record_says_what_its_values_are() {
    let connect = |name: &str| format!("org.apache.kafka.connect.data.{name}");
    let time = |name: &str| format!("io.debezium.time.{name}");
    let data = |name: &str| format!("io.debezium.data.{name}");
    let price = format!(
        r#"{},"parameters":{{"scale":"2","connect.decimal.precision":"10"}}"#,
        typed("bytes", &connect("Decimal"))
    );
    let bits = format!(
        r#"{},"parameters":{{"length":"10"}}"#,
        typed("bytes", &data("Bits"))
    );
    let moment = "2024-05-06T07:08:09.123456";
    let cases: Vec<(String, String, DataType, Result<&str, &str>)> = vec![
        (
            typed("int64", &time("MicroTimestamp")),
            MICROS.to_string(),
            micros(),
            Ok(moment),
        ),
        (
            typed("int64", &time("Timestamp")),
            (MICROS / 1000).to_string(),
            micros(),
            Ok("2024-05-06T07:08:09.123"),
        ),
        (
            typed("int64", &time("NanoTimestamp")),
            format!("{MICROS}000"),
            micros(),
            Ok(moment),
        ),
        (
            typed("string", &time("ZonedTimestamp")),
            format!("\"{moment}Z\""),
            micros(),
            Ok(moment),
        ),
        (
            typed("int64", &connect("Timestamp")),
            (MICROS / 1000).to_string(),
            micros(),
            Ok("2024-05-06T07:08:09.123"),
        ),
        (
            typed("int64", &time("MicroTimestamp")),
            "-1".into(),
            micros(),
            Ok("1969-12-31T23:59:59.999999"),
        ),
        (
            r#""type":"int32""#.into(),
            DAYS.to_string(),
            DataType::Date32,
            Err("expected a date"),
        ),
        // What stands for PostgreSQL's infinity.
        (
            typed("int64", &time("MicroTimestamp")),
            "9223372036825200000".into(),
            micros(),
            Err("expected a timestamp"),
        ),
        (
            typed("int32", &time("Date")),
            DAYS.to_string(),
            DataType::Date32,
            Ok("2024-05-06"),
        ),
        (
            typed("int32", &connect("Date")),
            "-1".into(),
            DataType::Date32,
            Ok("1969-12-31"),
        ),
        (
            typed("int32", &time("Date")),
            DAYS.to_string(),
            DataType::Utf8,
            Err("found 19849, expected a string"),
        ),
        (
            typed("int32", &time("Time")),
            "25689500".into(),
            DataType::Utf8,
            Ok("07:08:09.5"),
        ),
        (
            typed("int64", &time("MicroTime")),
            "25689123456".into(),
            DataType::Utf8,
            Ok("07:08:09.123456"),
        ),
        (
            typed("int32", &time("Year")),
            "2024".into(),
            DataType::Int32,
            Ok("2024"),
        ),
        (
            typed("int64", &time("MicroDuration")),
            "5".into(),
            DataType::Int64,
            Ok("5"),
        ),
        (
            typed("string", &time("Interval")),
            r#""P1Y2M3DT4H5M6.78S""#.into(),
            DataType::Utf8,
            Ok("P1Y2M3DT4H5M6.78S"),
        ),
        (price.clone(), r#""BOI=""#.into(), decimal(), Ok("12.50")),
        (price.clone(), r#""/w==""#.into(), decimal(), Ok("-0.01")),
        (price.clone(), "12.50".into(), decimal(), Ok("12.50")),
        (
            price.clone(),
            r#""BOI=""#.into(),
            DataType::Decimal128(10, 1),
            Ok("12.5"),
        ),
        (
            price,
            r#""BOM=""#.into(),
            DataType::Decimal128(10, 1),
            Err("at most 10 digits"),
        ),
        (
            typed("struct", &data("VariableScaleDecimal")),
            r#"{"scale":3,"value":"MNQ="}"#.into(),
            decimal(),
            Ok("12.50"),
        ),
        (
            r#""type":"string""#.into(),
            r#""1234""#.into(),
            decimal(),
            Ok("1234.00"),
        ),
        (
            r#""type":"double""#.into(),
            "0.1".into(),
            decimal(),
            Ok("0.10"),
        ),
        (
            r#""type":"double""#.into(),
            r#""NaN""#.into(),
            DataType::Float64,
            Ok("NaN"),
        ),
        (
            r#""type":"bytes""#.into(),
            r#""AP8=""#.into(),
            DataType::Binary,
            Ok("00ff"),
        ),
        (
            r#""type":"string""#.into(),
            r#""00ff""#.into(),
            DataType::Binary,
            Err("binary = 'hex'"),
        ),
        (bits, r#""AQI=""#.into(), DataType::Utf8, Ok("1000000001")),
        (
            typed("string", &data("Json")),
            r#""{\"a\": 1}""#.into(),
            DataType::Utf8,
            Ok("{\"a\": 1}"),
        ),
        (
            typed("string", &data("Uuid")),
            r#""09e2-x""#.into(),
            DataType::Utf8,
            Ok("09e2-x"),
        ),
        (
            typed("string", &data("Enum")),
            r#""NEW""#.into(),
            DataType::Utf8,
            Ok("NEW"),
        ),
        (
            typed("string", &data("Xml")),
            r#""<a/>""#.into(),
            DataType::Utf8,
            Ok("<a/>"),
        ),
        (
            typed("struct", &data("geometry.Point")),
            r#"{"x":1,"y":2}"#.into(),
            DataType::Utf8,
            Err("expected a string"),
        ),
        (
            r#""type":"array","items":{"type":"string"}"#.into(),
            r#"["a"]"#.into(),
            DataType::Utf8,
            Err("expected a string"),
        ),
        (
            r#""type":"int64""#.into(),
            MICROS.to_string(),
            micros(),
            Err("unit is not said"),
        ),
        (
            r#""type":"int64""#.into(),
            "9223372036854775807".into(),
            DataType::Int64,
            Ok("9223372036854775807"),
        ),
        (
            r#""type":"string""#.into(),
            "null".into(),
            DataType::Utf8,
            Ok("NULL"),
        ),
    ];
    let spelling = Spelling::default();
    for (field, value, kind, expected) in &cases {
        let record = event(value, Some(field));
        let found = cell(&record, Envelope::Debezium, spelling, kind);
        agree(&format!("{field} {value} as {kind}"), &found, expected);
        // Flattened, in the same wrapper.
        let flat = format!(
            r#"{{"schema":{{"type":"struct","fields":[{{{field},"optional":true,"field":"v"}}],
                "optional":false}},"payload":{{"v":{value}}}}}"#
        );
        let found = cell(&flat, Envelope::Upsert, spelling, kind);
        if !value.contains("NaN") && *kind != DataType::Utf8 {
            agree(
                &format!("flat: {field} {value} as {kind}"),
                &found,
                expected,
            );
        }
    }
}

fn agree(what: &str, found: &Result<String, String>, expected: &Result<&str, &str>) {
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{what}"),
        (Err(why), Err(part)) => assert!(why.contains(part), "{what}: {why}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn without_a_schema_the_table_says_it_or_the_record_is_refused() {
    let said = Spelling::default();
    let times = |timestamps| Spelling {
        timestamps: Some(timestamps),
        ..said
    };
    let digits = |decimals| Spelling {
        decimals: Some(decimals),
        ..said
    };
    let binary = |binary| Spelling {
        binary: Some(binary),
        ..said
    };
    let micro = MICROS.to_string();
    let milli = (MICROS / 1000).to_string();
    let moment = "2024-05-06T07:08:09.123456";
    let iso = format!("\"{moment}Z\"");
    let placeholder = r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#;
    let cases: &[(&str, Spelling, DataType, Result<&str, &str>)] = &[
        (
            &micro,
            said,
            micros(),
            Err("timestamps = 'seconds', 'millis', 'micros' or 'nanos'"),
        ),
        (&milli, said, micros(), Err("unit is not said")),
        (&micro, times(TimestampUnit::Micros), micros(), Ok(moment)),
        (
            &milli,
            times(TimestampUnit::Millis),
            micros(),
            Ok("2024-05-06T07:08:09.123"),
        ),
        (
            "1714979289",
            times(TimestampUnit::Seconds),
            micros(),
            Ok("2024-05-06T07:08:09"),
        ),
        (
            "1714979289123456500",
            times(TimestampUnit::Nanos),
            micros(),
            Ok(moment),
        ),
        (
            &micro,
            times(TimestampUnit::Iso),
            micros(),
            Err("expected a timestamp"),
        ),
        (&iso, said, micros(), Ok(moment)),
        (
            r#""2024-05-06T09:08:09.1234565+02:00""#,
            said,
            micros(),
            Ok(moment),
        ),
        ("19849", said, DataType::Date32, Ok("2024-05-06")),
        (r#""2024-05-06Z""#, said, DataType::Date32, Ok("2024-05-06")),
        (r#""2024-05-06""#, said, DataType::Date32, Ok("2024-05-06")),
        ("12.50", said, decimal(), Ok("12.50")),
        (r#""12.50""#, said, decimal(), Ok("12.50")),
        (r#""-1234""#, said, decimal(), Ok("-1234.00")),
        (
            r#""1234""#,
            said,
            decimal(),
            Err("decimals = 'string' or 'base64'"),
        ),
        (
            r#""BOI=""#,
            said,
            decimal(),
            Err("decimals = 'string' or 'base64'"),
        ),
        (r#""BOI=""#, digits(Digits::Base64), decimal(), Ok("12.50")),
        (r#""1234""#, digits(Digits::Text), decimal(), Ok("1234.00")),
        (
            r#""NaN""#,
            digits(Digits::Text),
            decimal(),
            Err("a decimal of at most 10 digits"),
        ),
        (
            r#"{"scale":3,"value":"MNQ="}"#,
            said,
            decimal(),
            Ok("12.50"),
        ),
        (r#""AP8=""#, said, DataType::Binary, Ok("00ff")),
        (r#""_-8""#, said, DataType::Binary, Ok("ffef")),
        (
            r#""00ff""#,
            binary(Binary::Hex),
            DataType::Binary,
            Ok("00ff"),
        ),
        (
            r#""0xff""#,
            binary(Binary::Hex),
            DataType::Binary,
            Err("a string of bytes"),
        ),
        (r#""a b""#, said, DataType::Binary, Err("a string of bytes")),
        (
            placeholder,
            said,
            DataType::Binary,
            Err("REPLICA IDENTITY FULL"),
        ),
        (
            r#""__debezium_unavailable_value""#,
            said,
            DataType::Utf8,
            Err("REPLICA IDENTITY FULL"),
        ),
        (
            r#"["__debezium_unavailable_value"]"#,
            said,
            DataType::Utf8,
            Err("expected a string"),
        ),
        ("19849", said, DataType::Utf8, Err("expected a string")),
        ("true", said, DataType::Utf8, Err("expected a string")),
        (r#""-Infinity""#, said, DataType::Float64, Ok("-inf")),
    ];
    for (value, spelling, kind, expected) in cases {
        let found = cell(&event(value, None), Envelope::Debezium, *spelling, kind);
        agree(&format!("{value} as {kind}"), &found, expected);
    }
}

#[test]
fn a_column_that_an_image_lacks_is_refused_unless_the_table_says_null() {
    let record = r#"{"before":null,"after":{"w":1},"op":"c"}"#;
    let said = Spelling::default();
    let null = Spelling {
        missing: Some(Missing::Null),
        ..said
    };
    let refuse = Spelling {
        missing: Some(Missing::Refuse),
        ..said
    };
    let of = |record, envelope, spelling| cell(record, envelope, spelling, &DataType::Int32);
    let why = of(record, Envelope::Debezium, said).unwrap_err();
    assert!(
        why.contains("field `v`") && why.contains("missing = 'null'"),
        "{why}"
    );
    assert_eq!(of(record, Envelope::Debezium, null).as_deref(), Ok("NULL"));
    assert_eq!(
        of(r#"{"w":1}"#, Envelope::Append, said).as_deref(),
        Ok("NULL")
    );
    assert!(of(r#"{"w":1}"#, Envelope::Append, refuse).is_err());
    // An envelope that the table does not speak of would be a row of nulls.
    let why = of(record, Envelope::Append, said).unwrap_err();
    assert!(why.contains("envelope = 'debezium'"), "{why}");
}

#[test]
fn what_is_no_change_of_a_row_and_flattened_deletions() {
    let said = Spelling::default();
    let of = |record, envelope| cell(record, envelope, said, &DataType::Int32);
    let message = r#"{"op":"m","ts_ms":1,"source":{"lsn":2},"transaction":null,
        "message":{"prefix":"p","content":"Zg=="}}"#;
    let begin = r#"{"status":"BEGIN","id":"556:1","ts_ms":1,"event_count":null,
        "data_collections":null}"#;
    let end = r#"{"schema":{},"payload":{"status":"END","id":"556:1","ts_ms":1,"event_count":2,
        "data_collections":[{"data_collection":"s.t","event_count":1}]}}"#;
    for record in [message, begin, end] {
        assert_eq!(
            of(record, Envelope::Debezium).as_deref(),
            Ok("Nothing"),
            "{record}"
        );
    }
    let deleted = r#"{"v":1,"__op":"d","__deleted":"true"}"#;
    let kept = r#"{"v":1,"__op":"u","__deleted":"false"}"#;
    assert_eq!(of(deleted, Envelope::Upsert).as_deref(), Ok("Gone"));
    assert_eq!(of(kept, Envelope::Upsert).as_deref(), Ok("1"));
    let wrapped = format!(r#"{{"schema":null,"payload":{deleted}}}"#);
    assert_eq!(of(&wrapped, Envelope::Upsert).as_deref(), Ok("Gone"));
    // An append-only table takes what comes, and a column may be called `payload`.
    assert_eq!(of(deleted, Envelope::Append).as_deref(), Ok("1"));
    let more = r#"{"schema":{},"payload":{"v":2},"v":1}"#;
    assert_eq!(of(more, Envelope::Append).as_deref(), Ok("1"));
}

#[test]
fn numbers_in_plain_json_are_milliseconds_where_they_can_be_nothing_else() {
    let said = Spelling::default();
    let of = |value: i64| {
        let record = format!("{{\"v\":{value}}}");
        cell(&record, Envelope::Append, said, &micros())
    };
    assert_eq!(of(MICROS / 1000).as_deref(), Ok("2024-05-06T07:08:09.123"));
    for unsure in [0, 1_714_979_289, MICROS, MICROS * 1000] {
        let why = of(unsure).unwrap_err();
        assert!(why.contains("timestamps = 'seconds'"), "{why}");
    }
}
