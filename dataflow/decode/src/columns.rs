//! Column builders: the Arrow builders of one source, and the cells that decoders fill them with.
//!
//! Input: one slice of [`DecodedValue`]s per row, already of the columns' kinds. Output: a
//! `RecordBatch`.
//!
//! Invariant: a row is checked completely before its first cell is appended. Therefore all builders
//! always have the same length, and a refused row leaves nothing behind.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float32Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use smallvec::SmallVec;
use tidemill_log::{Error, Kind, Result};

use super::contract::Refused;

/// A decoded value, borrowed from the record where possible.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DecodedValue<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer, a date in days since 1970, or a timestamp in µs since 1970; in the column's
    /// range.
    Int(i64),
    /// A floating-point number. `Float32` columns are exact too, because widening loses nothing.
    Float(f64),
    /// The unscaled value of a decimal, at the column's scale.
    Decimal(i128),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A value that the column refuses; only in rows for [`Columns::append_rest`].
    Unfit,
}

/// The cells of a row. Rows with up to six columns need no allocation.
pub(super) type Cells<'a> = SmallVec<[DecodedValue<'a>; 6]>;

/// The Arrow builder of one column.
enum Builder {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Decimal(Decimal128Builder),
}

/// The first and the last day of the years 1 to 9999, in days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// A day in µs.
const DAY: i64 = 86_400_000_000;

/// The builders of all columns of a source.
pub(super) struct Columns {
    /// The columns' names and types.
    schema: SchemaRef,
    /// One per column.
    builders: Vec<Builder>,
    /// Whether each column may be null.
    nullable: Vec<bool>,
    /// The number of rows appended.
    rows: usize,
}

/// An `Int32` value that came as an `i64`. Decoders check ranges, so this is exact.
fn narrow(value: i64) -> Option<i32> {
    i32::try_from(value).ok()
}

impl Builder {
    /// A builder of a type; `None` for types that records cannot hold.
    fn new(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.clone()))
            }
            DataType::Decimal128(_, _) => {
                Self::Decimal(Decimal128Builder::new().with_data_type(kind.clone()))
            }
            _ => return None,
        })
    }

    /// Whether the cell still fits Arrow's 32-bit offsets.
    fn has_room(&self, cell: &DecodedValue<'_>) -> bool {
        const MOST: usize = i32::MAX as usize;
        match (self, cell) {
            (Self::Text(builder), DecodedValue::Text(text)) => {
                builder.values_slice().len() + text.len() <= MOST
            }
            (Self::Bytes(builder), DecodedValue::Text(text)) => {
                builder.values_slice().len() + text.len() <= MOST
            }
            (Self::Bytes(builder), DecodedValue::Bytes(bytes)) => {
                builder.values_slice().len() + bytes.len() <= MOST
            }
            _ => true,
        }
    }

    /// Whether a date or timestamp is in the years that all sinks and functions support.
    fn is_in_years(&self, cell: &DecodedValue<'_>) -> bool {
        match (self, cell) {
            (Self::Date(_), DecodedValue::Int(days)) => DAYS.contains(days),
            (Self::Timestamp(_), DecodedValue::Int(at)) => DAYS.contains(&at.div_euclid(DAY)),
            _ => true,
        }
    }

    /// Appends a cell. Decoders make cells of the column's kind. Any other cell becomes null, so
    /// that all builders keep the same length.
    fn append(&mut self, cell: &DecodedValue<'_>) {
        match (self, cell) {
            (Self::Bool(builder), DecodedValue::Bool(value)) => builder.append_value(*value),
            (Self::Int32(builder), DecodedValue::Int(value)) => {
                builder.append_option(narrow(*value))
            }
            (Self::Int64(builder), DecodedValue::Int(value)) => builder.append_value(*value),
            (Self::Float32(builder), DecodedValue::Float(value)) => {
                builder.append_value(*value as f32)
            }
            (Self::Float64(builder), DecodedValue::Float(value)) => builder.append_value(*value),
            (Self::Text(builder), DecodedValue::Text(text)) => builder.append_value(text),
            (Self::Bytes(builder), DecodedValue::Bytes(bytes)) => builder.append_value(bytes),
            (Self::Bytes(builder), DecodedValue::Text(text)) => {
                builder.append_value(text.as_bytes())
            }
            (Self::Date(builder), DecodedValue::Int(value)) => {
                builder.append_option(narrow(*value))
            }
            (Self::Timestamp(builder), DecodedValue::Int(value)) => builder.append_value(*value),
            (Self::Decimal(builder), DecodedValue::Decimal(value)) => builder.append_value(*value),
            (builder, _) => builder.append_null(),
        }
    }

    /// Appends a null.
    fn append_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
        }
    }

    /// Appends the value of a column that is not nullable, where nobody reads it.
    fn append_zero(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_value(false),
            Self::Int32(builder) => builder.append_value(0),
            Self::Int64(builder) => builder.append_value(0),
            Self::Float32(builder) => builder.append_value(0.0),
            Self::Float64(builder) => builder.append_value(0.0),
            Self::Text(builder) => builder.append_value(""),
            Self::Bytes(builder) => builder.append_value([]),
            Self::Date(builder) => builder.append_value(0),
            Self::Timestamp(builder) => builder.append_value(0),
            Self::Decimal(builder) => builder.append_value(0),
        }
    }

    /// The column, leaving the builder empty.
    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => ArrayBuilder::finish(builder),
            Self::Bytes(builder) => ArrayBuilder::finish(builder),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
        }
    }
}

impl Columns {
    /// The builders of a schema.
    ///
    /// # Errors
    /// `Data` names a column of a type that no record can be decoded to.
    pub(super) fn new(source: &str, schema: &SchemaRef) -> Result<Self> {
        let builders = schema
            .fields()
            .iter()
            .map(|field| {
                Builder::new(field.data_type()).ok_or_else(|| {
                    let (name, kind) = (field.name(), field.data_type());
                    Error::new(
                        Kind::Data,
                        format!("`{source}`: column `{name}` is {kind}, which records cannot hold"),
                    )
                })
            })
            .collect::<Result<_>>()?;
        let nullable = schema.fields().iter().map(|f| f.is_nullable()).collect();
        Ok(Self {
            schema: Arc::clone(schema),
            builders,
            nullable,
            rows: 0,
        })
    }

    /// Appends a row with one cell per column, or nothing at all.
    ///
    /// # Errors
    /// A refusal that names the column: null in a column that is not nullable, a date or timestamp
    /// out of range, or more than 2 GiB of text in a batch.
    pub(super) fn append(
        &mut self,
        cells: &[DecodedValue<'_>],
    ) -> std::result::Result<(), Refused> {
        for (index, cell) in cells.iter().enumerate() {
            if let Some(why) = self.misfit(index, cell) {
                return Err(why);
            }
            if self.is_full(index, cell) {
                let name = self.schema.field(index).name();
                return Err(Refused(format!(
                    "field `{name}`: a batch takes at most 2 GiB of it"
                )));
            }
        }
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.append(cell);
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends a row without the cells that their columns refuse, and returns the indexes of these
    /// columns. They hold null, or zero if they are not nullable. `None` if the batch is full or no
    /// column refuses its cell; then nothing is appended.
    pub(super) fn append_rest(&mut self, cells: &[DecodedValue<'_>]) -> Option<Arc<[usize]>> {
        let each = || cells.iter().enumerate();
        let refused = each().filter(|(index, cell)| self.misfit(*index, cell).is_some());
        let refused: Arc<[usize]> = refused.map(|(index, _)| index).collect();
        if refused.is_empty() || each().any(|(index, cell)| self.is_full(index, cell)) {
            return None;
        }
        for (index, (builder, cell)) in self.builders.iter_mut().zip(cells).enumerate() {
            match refused.contains(&index) {
                false => builder.append(cell),
                true if self.nullable.get(index).copied().unwrap_or(true) => builder.append_null(),
                true => builder.append_zero(),
            }
        }
        self.rows += 1;
        Some(refused)
    }

    /// Why a column refuses a cell; `None` if it takes it.
    fn misfit(&self, index: usize, cell: &DecodedValue<'_>) -> Option<Refused> {
        let (field, builder) = (self.schema.fields().get(index)?, self.builders.get(index)?);
        let name = field.name();
        match cell {
            DecodedValue::Null if !self.nullable.get(index).copied().unwrap_or(true) => {
                Some(Refused(format!(
                    "field `{name}`: found nothing, expected a value (the column is not nullable)"
                )))
            }
            DecodedValue::Unfit => Some(Refused(format!("field `{name}`: its value does not fit"))),
            DecodedValue::Int(value) if !builder.is_in_years(cell) => {
                let (what, unit) = match builder {
                    Builder::Date(_) => ("a date", "days"),
                    _ => ("a timestamp", "microseconds"),
                };
                Some(Refused(format!(
                    "field `{name}`: found {value} {unit} since 1970, expected {what} of the years \
                     1 to 9999"
                )))
            }
            _ => None,
        }
    }

    /// Whether a cell is too large for what is left of its column in the batch.
    fn is_full(&self, index: usize, cell: &DecodedValue<'_>) -> bool {
        self.builders
            .get(index)
            .is_some_and(|it| !it.has_room(cell))
    }

    /// The number of rows appended since the last [`Columns::finish`].
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The batch of all rows since the last call.
    ///
    /// # Errors
    /// `Bug` when the columns do not fit their schema.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| Error::with_source(Kind::Bug, "decoded columns make no batch", error))
    }
}
