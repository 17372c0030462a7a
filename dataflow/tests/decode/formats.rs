//! docs/formats.md against the code: what each Avro type becomes.

use arrow::datatypes::{DataType, TimeUnit};
use tidemill_plan::compile;

use crate::Memory;

const PAGE: &str = include_str!("../../../docs/formats.md");

fn name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "text".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        other => format!("{other}"),
    }
}

#[test]
fn the_page_of_formats_says_what_the_code_does() {
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `") && line.ends_with(" |"));
    let mut tried = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [avro, column] = cells[..] else { continue };
        let avro = avro.trim_matches('`');
        let schema = format!(
            r#"{{"type":"record","name":"T","namespace":"t","fields":[
                {{"name":"other","type":"int"}},{{"name":"v","type":{avro}}}]}}"#
        );
        let registry = Memory::with(&[(1, &schema)]);
        let sql = |what: &str| {
            format!(
                "CREATE TABLE t WITH (envelope = 'append'); CREATE VIEW x AS SELECT {what} FROM t"
            )
        };
        let planned = compile(&sql("v"), "views.sql", Some(registry.as_ref()));
        match (planned, column.strip_prefix("none: ")) {
            (Ok(job), None) => {
                assert_eq!(
                    name(job.sources[0].schema.field(0).data_type()),
                    column,
                    "{avro}"
                );
            }
            (Err(error), Some(kind)) => {
                let expected = format!("column `v` of `t` is {kind}, which a view cannot read");
                assert!(error.to_string().ends_with(&expected), "{avro}: {error}");
                let beside = compile(&sql("other"), "views.sql", Some(registry.as_ref()));
                assert!(beside.is_ok(), "{avro}: {:?}", beside.err());
            }
            (Ok(_), Some(_)) => panic!("{avro} can be read"),
            (Err(error), None) => panic!("{avro}: {error}"),
        }
        tried += 1;
    }
    assert!(tried > 40, "{tried} types on the page");
}
