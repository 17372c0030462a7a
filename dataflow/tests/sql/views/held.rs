//! What a view holds, column by column in a form that can be compared with an answer's text.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};

/// A value, null or in the form of its type.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    /// Exactly this: numbers as decimal digits, instants as microseconds, dates as days.
    Exact(String),
    Float(f64),
}

/// Relative difference of doubles where PostgreSQL computes in decimals or another order.
const TOLERANCE: f64 = 1e-12;

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Exact(a), Value::Exact(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => {
                a == b
                    || (a.is_nan() && b.is_nan())
                    || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
            }
            _ => false,
        }
    }
}

impl Value {
    /// A value that makes part of a key: equal values are equal text.
    pub(crate) fn key(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Exact(text) => format!("={text}"),
            // Adding zero makes one zero of two.
            Value::Float(value) => format!("~{:?}", value + 0.0),
        }
    }
}

/// All rows of a batch.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Vec<Value>> {
    let columns = batch.columns();
    let row = |row| columns.iter().map(|column| value(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

fn value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let exact = match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => {
            return Value::Float(column.as_primitive::<Float32Type>().value(row).into());
        }
        DataType::Float64 => return Value::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => column
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
            .to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        other => panic!("a column of {other} is not compared"),
    };
    Value::Exact(exact)
}

/// A value of an answer, given as text in the form that [`cast`] asks for.
pub(crate) fn read(text: Option<&str>, kind: &DataType) -> Value {
    match (text, kind) {
        (None, _) => Value::Null,
        (Some(text), DataType::Float32 | DataType::Float64) => Value::Float(text.parse().unwrap()),
        (Some(text), _) => Value::Exact(text.to_owned()),
    }
}

/// SQL of PostgreSQL that gives `column` as text in the form of the view's type.
pub(crate) fn cast(column: &str, kind: &DataType) -> String {
    let column = format!("\"{column}\"");
    match kind {
        DataType::Float32 | DataType::Float64 => format!("{column}::float8::text"),
        DataType::Date32 => format!("({column}::date - DATE '1970-01-01')::text"),
        DataType::Timestamp(..) => {
            format!("trunc(extract(epoch FROM {column}) * 1000000)::bigint::text")
        }
        DataType::Decimal128(_, scale) => format!("round({column}::numeric, {scale})::text"),
        _ => format!("{column}::text"),
    }
}
