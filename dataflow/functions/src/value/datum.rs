//! `Datum`: one value of a row, between Arrow's columns and the functions.
//!
//! [`read`] takes a value from a column; a [`Column`] collects the results.
//!
//! ```text
//! Arrow columns ─► read ─► Datum ─► body of an entry ─► Datum ─► Column ─► Arrow column
//! ```
//!
//! Texts and bytes are borrowed from the column on the way in, and owned on the way out.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float32Builder, Float64Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder,
    LargeStringBuilder, ListArray, ListBuilder, StringBuilder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};

use tidemill_ir::json::Document;

use super::decimal::Num;

/// A value: null, or a value of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Datum<'a> {
    /// The null of any type.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `integer`, and `smallint`, which is stored as an integer.
    Int(i32),
    /// `bigint`.
    Long(i64),
    /// `real`.
    Real(f32),
    /// `double precision`.
    Double(f64),
    /// `numeric`.
    Numeric(Num),
    /// `text`, `varchar` and `uuid`.
    Text(Cow<'a, str>),
    /// `bytea`.
    Bytes(Cow<'a, [u8]>),
    /// `json`, as it is written.
    Json(Cow<'a, str>),
    /// `jsonb`, as it is written by [`tidemill_ir::json`].
    Jsonb(Cow<'a, str>),
    /// `text[]` of one dimension.
    Texts(Vec<Option<Cow<'a, str>>>),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970, of a timestamp or a timestamptz.
    Stamp(i64),
    /// `interval`.
    Span(Span),
}

/// An interval, in PostgreSQL's three parts. They are not converted into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Months; twelve of them are a year.
    pub(crate) months: i32,
    /// Days.
    pub(crate) days: i32,
    /// Microseconds.
    pub(crate) micros: i64,
}

impl Datum<'_> {
    /// The same value, without borrowing.
    pub(crate) fn owned(&self) -> Datum<'static> {
        match self {
            Datum::Null => Datum::Null,
            Datum::Bool(value) => Datum::Bool(*value),
            Datum::Int(value) => Datum::Int(*value),
            Datum::Long(value) => Datum::Long(*value),
            Datum::Real(value) => Datum::Real(*value),
            Datum::Double(value) => Datum::Double(*value),
            Datum::Numeric(value) => Datum::Numeric(*value),
            Datum::Text(value) => Datum::Text(Cow::Owned(value.to_string())),
            Datum::Bytes(value) => Datum::Bytes(Cow::Owned(value.to_vec())),
            Datum::Json(value) => Datum::Json(Cow::Owned(value.to_string())),
            Datum::Jsonb(value) => Datum::Jsonb(Cow::Owned(value.to_string())),
            Datum::Texts(values) => {
                let owned = |value: &Cow<'_, str>| Cow::Owned(value.to_string());
                Datum::Texts(values.iter().map(|v| v.as_ref().map(owned)).collect())
            }
            Datum::Date(value) => Datum::Date(*value),
            Datum::Stamp(value) => Datum::Stamp(*value),
            Datum::Span(value) => Datum::Span(*value),
        }
    }

    /// A value of `jsonb`.
    pub(crate) fn jsonb(document: &Document) -> Datum<'static> {
        Datum::Jsonb(Cow::Owned(document.to_string()))
    }

    /// A text value.
    pub(crate) fn text(text: impl Into<String>) -> Datum<'static> {
        Datum::Text(Cow::Owned(text.into()))
    }
}

/// The value of `column` at `row`. Null for a column of a type that no function takes.
///
/// `row` must be less than the column's length. Arrow's intervals have nanoseconds, which are cut
/// to microseconds.
pub(crate) fn read(column: &ArrayRef, row: usize) -> Datum<'_> {
    if column.is_null(row) {
        return Datum::Null;
    }
    match column.data_type() {
        DataType::Boolean => Datum::Bool(column.as_boolean().value(row)),
        DataType::Int32 => Datum::Int(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => Datum::Long(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => Datum::Real(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Datum::Double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => Datum::Numeric(Num {
            digits: column.as_primitive::<Decimal128Type>().value(row),
            scale: i32::from(*scale),
        }),
        DataType::Utf8 => Datum::Text(Cow::Borrowed(column.as_string::<i32>().value(row))),
        DataType::Utf8View => Datum::Json(Cow::Borrowed(column.as_string_view().value(row))),
        DataType::LargeUtf8 => Datum::Jsonb(Cow::Borrowed(column.as_string::<i64>().value(row))),
        DataType::List(_) => texts(column.as_list::<i32>(), row),
        DataType::Binary => Datum::Bytes(Cow::Borrowed(column.as_binary::<i32>().value(row))),
        DataType::Date32 => Datum::Date(column.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => {
            Datum::Stamp(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Interval(_) => {
            let span = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Datum::Span(Span {
                months: span.months,
                days: span.days,
                micros: span.nanoseconds / 1000,
            })
        }
        _ => Datum::Null,
    }
}

/// The elements of an array of texts. (A slice of the column's values would not live long enough
/// to borrow from.)
fn texts(column: &ListArray, row: usize) -> Datum<'_> {
    let Some(values) = column.values().as_string_opt::<i32>() else {
        return Datum::Null;
    };
    let offset = |at: usize| column.value_offsets().get(at).copied().unwrap_or(0);
    let value = |at: i32| {
        let at = usize::try_from(at).ok()?;
        (!values.is_null(at)).then(|| Cow::Borrowed(values.value(at)))
    };
    Datum::Texts((offset(row)..offset(row + 1)).map(value).collect())
}

/// Builds a column of one type from values, in the order of the rows.
pub(crate) struct Column {
    /// Knows the type, and holds the values so far.
    builder: Builder,
}

/// Arrow's builder for the type of the column.
enum Builder {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    /// With the precision and scale of the column.
    Numeric(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Json(StringViewBuilder),
    Jsonb(LargeStringBuilder),
    Texts(ListBuilder<StringBuilder>),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Stamp(TimestampMicrosecondBuilder),
    Span(IntervalMonthDayNanoBuilder),
}

impl Column {
    /// An empty column; None for a type that no function returns.
    pub(crate) fn new(kind: &DataType) -> Option<Self> {
        let builder = match kind {
            DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
            DataType::Int32 => Builder::Int(Int32Builder::new()),
            DataType::Int64 => Builder::Long(Int64Builder::new()),
            DataType::Float32 => Builder::Real(Float32Builder::new()),
            DataType::Float64 => Builder::Double(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => Builder::Numeric(
                Decimal128Builder::new().with_data_type(kind.clone()),
                *precision,
                *scale,
            ),
            DataType::Utf8 => Builder::Text(StringBuilder::new()),
            DataType::Utf8View => Builder::Json(StringViewBuilder::new()),
            DataType::LargeUtf8 => Builder::Jsonb(LargeStringBuilder::new()),
            DataType::List(_) => Builder::Texts(ListBuilder::new(StringBuilder::new())),
            DataType::Binary => Builder::Bytes(BinaryBuilder::new()),
            DataType::Date32 => Builder::Date(Date32Builder::new()),
            DataType::Timestamp(..) => {
                Builder::Stamp(TimestampMicrosecondBuilder::new().with_data_type(kind.clone()))
            }
            DataType::Interval(_) => Builder::Span(IntervalMonthDayNanoBuilder::new()),
            _ => return None,
        };
        Some(Self { builder })
    }

    /// Appends a value of the column's type, or null.
    ///
    /// # Errors
    /// A numeric does not fit the column's precision and scale, an interval does not fit Arrow's
    /// nanoseconds, or the value has another type.
    pub(crate) fn push(&mut self, value: Datum<'_>) -> Result<(), String> {
        match (&mut self.builder, value) {
            (Builder::Bool(to), Datum::Bool(value)) => to.append_value(value),
            (Builder::Int(to), Datum::Int(value)) => to.append_value(value),
            (Builder::Long(to), Datum::Long(value)) => to.append_value(value),
            (Builder::Real(to), Datum::Real(value)) => to.append_value(value),
            (Builder::Double(to), Datum::Double(value)) => to.append_value(value),
            (Builder::Numeric(to, precision, scale), Datum::Numeric(value)) => {
                to.append_value(value.fitted(*precision, i32::from(*scale))?);
            }
            (Builder::Text(to), Datum::Text(value)) => to.append_value(value),
            (Builder::Json(to), Datum::Json(value)) => to.append_value(value),
            (Builder::Jsonb(to), Datum::Jsonb(value)) => to.append_value(value),
            (Builder::Texts(to), Datum::Texts(values)) => to.append_value(values),
            (Builder::Bytes(to), Datum::Bytes(value)) => to.append_value(value),
            (Builder::Date(to), Datum::Date(value)) => to.append_value(value),
            (Builder::Stamp(to), Datum::Stamp(value)) => to.append_value(value),
            (Builder::Span(to), Datum::Span(value)) => {
                let nanos = value
                    .micros
                    .checked_mul(1000)
                    .ok_or("interval out of range")?;
                to.append_value(IntervalMonthDayNano::new(value.months, value.days, nanos));
            }
            (builder, Datum::Null) => builder.null(),
            (_, other) => return Err(format!("a value of another type than planned: {other:?}")),
        }
        Ok(())
    }

    /// The column.
    ///
    /// The column has one value for each call of [`Self::push`] that succeeded.
    pub(crate) fn finish(mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Bool(b) => Arc::new(b.finish()),
            Builder::Int(b) => Arc::new(b.finish()),
            Builder::Long(b) => Arc::new(b.finish()),
            Builder::Real(b) => Arc::new(b.finish()),
            Builder::Double(b) => Arc::new(b.finish()),
            Builder::Numeric(b, ..) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Json(b) => Arc::new(b.finish()),
            Builder::Jsonb(b) => Arc::new(b.finish()),
            Builder::Texts(b) => Arc::new(b.finish()),
            Builder::Bytes(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Stamp(b) => Arc::new(b.finish()),
            Builder::Span(b) => Arc::new(b.finish()),
        }
    }
}

impl Builder {
    /// Appends null.
    fn null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int(b) => b.append_null(),
            Self::Long(b) => b.append_null(),
            Self::Real(b) => b.append_null(),
            Self::Double(b) => b.append_null(),
            Self::Numeric(b, ..) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Json(b) => b.append_null(),
            Self::Jsonb(b) => b.append_null(),
            Self::Texts(b) => b.append_null(),
            Self::Bytes(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Stamp(b) => b.append_null(),
            Self::Span(b) => b.append_null(),
        }
    }
}
