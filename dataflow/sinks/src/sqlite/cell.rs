//! Cell conversion between Arrow columns and SQLite values.
//!
//! Invariant: nothing is copied when rows are written; the cells borrow Arrow's buffers.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, Float64Array, Int64Array,
    PrimitiveArray, StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use rusqlite::types::{ToSqlOutput, Type, Value, ValueRef};
use tidemill_log::{Error, Kind, Result};

use super::super::contract::{Table, Unfit};

/// Days from 1970-01-01 to the last day of the year 9999.
const LAST_DAY: i32 = 2_932_896;
/// Microseconds from 1970-01-01 to the last one of the year 9999.
const LAST_US: i64 = (LAST_DAY as i64 + 1) * 86_400_000_000 - 1;

/// Finds dates and timestamps after the year 9999. Their text could not be read back, and would be
/// in no order with the others.
pub(super) fn beyond_years(table: &Table, rows: &RecordBatch, unfit: &mut Vec<Unfit>) {
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        let beyond = match column.data_type() {
            DataType::Date32 => after(column.as_primitive::<Date32Type>(), LAST_DAY),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                after(column.as_primitive::<TimestampMicrosecondType>(), LAST_US)
            }
            _ => continue,
        };
        let name = field.name();
        unfit.extend(beyond.into_iter().map(|row| Unfit {
            row,
            reason: format!("column `{name}` holds a time after the year 9999"),
        }));
    }
}

/// The rows with a value after `last`.
fn after<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, last: T::Native) -> Vec<usize> {
    let values = column.iter().enumerate();
    let later = values.filter(|(_, value)| value.is_some_and(|value| value > last));
    later.map(|(row, _)| row).collect()
}

/// A column in one of the types that SQLite stores.
pub(super) enum Cells {
    /// `INTEGER`: integers, booleans, dates and timestamps.
    Integer(Int64Array),
    /// `REAL`.
    Real(Float64Array),
    /// `TEXT`.
    Text(StringArray),
    /// `BLOB`.
    Blob(BinaryArray),
}

impl Cells {
    /// A column that was cast to a storage type; see `sqlite_type`.
    ///
    /// # Errors
    /// `Bug` for any other type.
    pub(super) fn new(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Self::Real(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Blob(array.as_binary::<i32>().clone()),
            other => return Err(Error::new(Kind::Bug, format!("{other} cells for SQLite"))),
        })
    }

    /// The value of a row of the batch.
    pub(super) fn at(&self, row: usize) -> ToSqlOutput<'_> {
        let value = match self {
            Self::Integer(a) if a.is_valid(row) => ValueRef::Integer(a.value(row)),
            // SQLite would store null for a NaN.
            Self::Real(a) if a.is_valid(row) && a.value(row).is_nan() => ValueRef::Text(b"NaN"),
            Self::Real(a) if a.is_valid(row) => ValueRef::Real(a.value(row)),
            Self::Text(a) if a.is_valid(row) => ValueRef::Text(a.value(row).as_bytes()),
            Self::Blob(a) if a.is_valid(row) => ValueRef::Blob(a.value(row)),
            _ => ValueRef::Null,
        };
        ToSqlOutput::Borrowed(value)
    }
}

/// The stored values of a column as an array of the storage type; the error describes a wrong
/// value.
pub(super) fn array_of(
    stored: &DataType,
    values: Vec<Value>,
) -> std::result::Result<ArrayRef, String> {
    Ok(match stored {
        DataType::Int64 => Arc::new(collect::<Int64Array, _>(values, |v| match v {
            Value::Integer(i) => Some(*i),
            _ => None,
        })?),
        DataType::Float64 => Arc::new(collect::<Float64Array, _>(values, |v| match v {
            Value::Real(f) => Some(*f),
            Value::Integer(i) => Some(*i as f64),
            Value::Text(t) if t == "NaN" => Some(f64::NAN),
            _ => None,
        })?),
        DataType::Utf8 => Arc::new(collect::<StringArray, _>(values, |v| match v {
            Value::Text(t) => Some(t.clone()),
            _ => None,
        })?),
        _ => Arc::new(collect_blobs(values)?),
    })
}

/// Values as an array; the error says what kind of value does not fit.
fn collect<A, T>(
    values: Vec<Value>,
    read: impl Fn(&Value) -> Option<T>,
) -> std::result::Result<A, String>
where
    A: FromIterator<Option<T>>,
{
    values
        .iter()
        .map(|value| match (value, read(value)) {
            (Value::Null, _) => Ok(None),
            (_, Some(v)) => Ok(Some(v)),
            (other, None) => Err(format!("holds {}", name_of(other))),
        })
        .collect()
}

/// Blobs as an array.
fn collect_blobs(values: Vec<Value>) -> std::result::Result<BinaryArray, String> {
    let blobs: Vec<Option<Vec<u8>>> = collect(values, |v| match v {
        Value::Blob(b) => Some(b.clone()),
        _ => None,
    })?;
    Ok(blobs.iter().map(Option::as_deref).collect())
}

/// What a stored value is, for messages.
fn name_of(value: &Value) -> &'static str {
    match value.data_type() {
        Type::Null => "null",
        Type::Integer => "an integer",
        Type::Real => "a real",
        Type::Text => "a text",
        Type::Blob => "a blob",
    }
}
