//! Values of columns on their way to PostgreSQL and back, in the binary format of the protocol.
//!
//! A batch of rows becomes one array parameter for each column, which `unnest` makes rows of again.
//! Numerics cross as text; all other types have the server's own representation.

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array,
    Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use bytes::{BufMut, BytesMut};
use postgres::Row;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tidemill_log::{Error, Kind, Result};

use super::super::contract::Table;
use super::super::convert::convert;
use super::super::existing::unsupported;
use super::table::pg_type;

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
pub(super) const DAYS_TO_2000: i32 = 10_957;
/// The same in µs.
pub(super) const MICROS_TO_2000: i64 = DAYS_TO_2000 as i64 * 86_400_000_000;

/// A date as PostgreSQL sends it: days since 2000-01-01.
#[derive(Debug)]
struct Days(i32);

/// An instant, with or without a zone, as PostgreSQL sends it: µs since 2000-01-01.
#[derive(Debug)]
struct Micros(i64);

type Failed = Box<dyn StdError + Sync + Send>;

impl ToSql for Days {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Failed> {
        out.put_i32(self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::DATE
    }

    to_sql_checked!();
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Failed> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMP || *kind == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Days {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Failed> {
        Ok(Self(i32::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::DATE
    }
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Failed> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMP || *kind == Type::TIMESTAMPTZ
    }
}

/// The values of one column, for `unnest`.
pub(super) type Parameter = Box<dyn ToSql + Sync>;

/// The given columns of rows, as parameters.
///
/// # Errors
/// `Data` when a value does not fit its column.
pub(super) fn parameters(
    table: &Table,
    rows: &RecordBatch,
    columns: &[usize],
) -> Result<Vec<Parameter>> {
    let parameter = |column: &usize| {
        let field = table.schema.field(*column);
        let (_, stored) = pg_type(field.data_type())?;
        let array = convert(&table.name, field.name(), rows.column(*column), &stored)?;
        values(&array)
    };
    columns.iter().map(parameter).collect()
}

/// The values of an array, as a parameter.
fn values(array: &ArrayRef) -> Result<Parameter> {
    use DataType as D;
    Ok(match array.data_type() {
        D::Boolean => Box::new(array.as_boolean().iter().collect::<Vec<_>>()),
        D::Int32 => Box::new(array.as_primitive::<Int32Type>().iter().collect::<Vec<_>>()),
        D::Int64 => Box::new(array.as_primitive::<Int64Type>().iter().collect::<Vec<_>>()),
        D::Float32 => Box::new(
            array
                .as_primitive::<Float32Type>()
                .iter()
                .collect::<Vec<_>>(),
        ),
        D::Float64 => Box::new(
            array
                .as_primitive::<Float64Type>()
                .iter()
                .collect::<Vec<_>>(),
        ),
        D::Utf8 => {
            let texts = array.as_string::<i32>().iter();
            Box::new(
                texts
                    .map(|text| text.map(str::to_owned))
                    .collect::<Vec<_>>(),
            )
        }
        D::Binary => {
            let all = array.as_binary::<i32>().iter();
            Box::new(
                all.map(|bytes| bytes.map(<[u8]>::to_vec))
                    .collect::<Vec<_>>(),
            )
        }
        D::Date32 => {
            let days = array.as_primitive::<Date32Type>().iter();
            let days = days.map(|day| day.map(|day| Days(day.wrapping_sub(DAYS_TO_2000))));
            Box::new(days.collect::<Vec<_>>())
        }
        D::Timestamp(TimeUnit::Microsecond, None) => {
            let instants = array.as_primitive::<TimestampMicrosecondType>().iter();
            let micros = |at: i64| Micros(at.wrapping_sub(MICROS_TO_2000));
            Box::new(instants.map(|at| at.map(micros)).collect::<Vec<_>>())
        }
        D::Decimal128(..) => {
            let numbers = array.as_primitive::<Decimal128Type>();
            let text = |row| (!numbers.is_null(row)).then(|| numbers.value_as_string(row));
            Box::new((0..numbers.len()).map(text).collect::<Vec<_>>())
        }
        other => return Err(unsupported(other)),
    })
}

/// A value as it was read.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer; a date as days since 2000, an instant as µs since 2000.
    Int(i64),
    /// A float of either size.
    Float(f64),
    /// A text; also a numeric.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// The value at a column of a row, by the type of the view's column.
    ///
    /// # Errors
    /// `Data` when the table's column has another type.
    pub(super) fn read(table: &Table, column: usize, row: &Row) -> Result<Self> {
        use DataType as D;
        let field = table.schema.field(column);
        let (_, stored) = pg_type(field.data_type())?;
        let value = match &stored {
            D::Boolean => got(row, column, Self::Bool),
            D::Int32 => got(row, column, |number: i32| Self::Int(number.into())),
            D::Int64 => got(row, column, Self::Int),
            D::Float32 => got(row, column, |number: f32| Self::Float(number.into())),
            D::Float64 => got(row, column, Self::Float),
            D::Binary => got(row, column, Self::Bytes),
            D::Date32 => got(row, column, |Days(days)| Self::Int(days.into())),
            D::Timestamp(..) => got(row, column, |Micros(micros)| Self::Int(micros)),
            _ => got(row, column, Self::Text),
        };
        value.map_err(|error| {
            let (name, field) = (&table.name, field.name());
            let what = format!("table `{name}`, column `{field}` cannot be read: {error}");
            Error::with_source(Kind::Data, what, error)
        })
    }

    /// The value as text, for messages.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// The value at a column, made by `of`; null without one.
fn got<'a, T: FromSql<'a>>(
    row: &'a Row,
    column: usize,
    of: impl FnOnce(T) -> Value,
) -> std::result::Result<Value, postgres::Error> {
    let value: Option<T> = row.try_get(column)?;
    Ok(value.map_or(Value::Null, of))
}

/// The type in which the values of a column are read: numerics as text.
///
/// # Errors
/// `Data` when the sink has no such type.
pub(super) fn read_as(kind: &DataType) -> Result<DataType> {
    Ok(match pg_type(kind)?.1 {
        DataType::Decimal128(..) => DataType::Utf8,
        stored => stored,
    })
}

/// Values as an array of the type that they are read in, or what is wrong with one of them.
pub(super) fn array_of(
    stored: &DataType,
    values: Vec<Value>,
) -> std::result::Result<ArrayRef, String> {
    use DataType as D;
    fn all<T>(
        values: Vec<Value>,
        of: impl Fn(Value) -> std::result::Result<T, String>,
    ) -> std::result::Result<Vec<Option<T>>, String> {
        let values = values.into_iter().map(|value| match value {
            Value::Null => Ok(None),
            value => of(value).map(Some),
        });
        values.collect()
    }
    let int = |value| match value {
        Value::Int(number) => Ok(number),
        other => Err(format!("holds {}", other.text())),
    };
    let float = |value| match value {
        Value::Float(number) => Ok(number),
        other => Err(format!("holds {}", other.text())),
    };
    let text = |value: Value| match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("holds {}", other.text())),
    };
    let small = |value| Ok(i32::try_from(int(value)?).unwrap_or_default());
    Ok(match stored {
        D::Boolean => Arc::new(BooleanArray::from(all(values, |value| match value {
            Value::Bool(value) => Ok(value),
            other => Err(format!("holds {}", other.text())),
        })?)),
        D::Int32 => Arc::new(Int32Array::from(all(values, small)?)),
        D::Int64 => Arc::new(Int64Array::from(all(values, int)?)),
        D::Float32 => Arc::new(Float32Array::from(all(values, |it| Ok(float(it)? as f32))?)),
        D::Float64 => Arc::new(Float64Array::from(all(values, float)?)),
        D::Utf8 => Arc::new(StringArray::from(all(values, text)?)),
        D::Binary => {
            let bytes = all(values, |value| match value {
                Value::Bytes(bytes) => Ok(bytes),
                other => Err(format!("holds {}", other.text())),
            })?;
            Arc::new(BinaryArray::from_iter(bytes))
        }
        D::Date32 => Arc::new(Date32Array::from(all(values, |value| {
            let days = small(value)?.checked_add(DAYS_TO_2000);
            // PostgreSQL's infinities are the ends of the range.
            let days = days.filter(|days| *days != i32::MIN + DAYS_TO_2000);
            days.ok_or_else(|| "holds an infinite date".to_owned())
        })?)),
        D::Timestamp(..) => Arc::new(TimestampMicrosecondArray::from(all(values, |value| {
            let micros = int(value)?;
            let infinite = [i64::MIN, i64::MAX].contains(&micros);
            let micros = micros.checked_add(MICROS_TO_2000).filter(|_| !infinite);
            micros.ok_or_else(|| "holds an infinite instant".to_owned())
        })?)),
        other => return Err(format!("has the type {other}")),
    })
}
