//! Avro of every type as another's client writes it (fastavro), planned and decoded, against what
//! that client reads back from the same bytes.

use std::process::Command;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use serde_json::{Value, json};
use tidemill_decode::{Effect, open};
use tidemill_plan::compile;

use crate::{Memory, batch};

fn float(value: f64) -> Value {
    json!({"float": value.to_bits().to_string()})
}

/// What a column's first row holds, tagged as the script tags it.
fn told(array: &dyn Array) -> Value {
    if array.is_null(0) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => json!({"bool": array.as_boolean().value(0)}),
        DataType::Int32 => json!({"int": array.as_primitive::<Int32Type>().value(0)}),
        DataType::Int64 => json!({"int": array.as_primitive::<Int64Type>().value(0)}),
        DataType::Date32 => json!({"int": array.as_primitive::<Date32Type>().value(0)}),
        DataType::Timestamp(_, _) => {
            json!({"int": array.as_primitive::<TimestampMicrosecondType>().value(0)})
        }
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(0))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(0)),
        DataType::Utf8 => json!({"text": array.as_string::<i32>().value(0)}),
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().value(0);
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"hex": digits})
        }
        DataType::Decimal128(_, _) => {
            let value = array.as_primitive::<Decimal128Type>().value(0);
            json!({"unscaled": value.to_string()})
        }
        other => panic!("{other}"),
    }
}

#[test]
fn what_fastavro_writes_is_read_as_fastavro_reads_it() {
    let Ok(python) = std::env::var("TIDEMILL_TEST_PYTHON") else {
        // Past libtest, which hides what a passing test prints.
        let line = b"left out: what fastavro writes needs TIDEMILL_TEST_PYTHON (run ./test)\n";
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    };
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../services/python/avro_matrix.py"
    );
    let output = Command::new(python).arg(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let sql = "CREATE TABLE t WITH (envelope = 'append'); \
               CREATE VIEW x AS SELECT v, \"end\" FROM t";
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let registry = Memory::with(&[(1, &case["schema"].to_string())]);
        let job = compile(sql, "views.sql", Some(registry.as_ref()));
        let job = job.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut decoder = open(&job.sources[0], Some(registry)).unwrap();
        let digits = case["record"].as_str().unwrap();
        let body = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        let record: Vec<u8> = [0, 0, 0, 0, 1].into_iter().chain(body).collect();
        assert_eq!(decoder.push(&record), Ok(Effect::Row), "{name}");
        let rows = batch(&mut decoder);
        assert_eq!(told(rows.column(0)), case["expected"], "{name}");
        assert_eq!(told(rows.column(1)), json!({"text": "z"}), "{name}");
    }
    assert!(lines.lines().count() > 120, "{}", lines.lines().count());
}
