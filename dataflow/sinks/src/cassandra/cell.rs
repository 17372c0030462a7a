//! Cell conversion between Arrow columns and CQL values.
//!
//! Invariant: when rows are written, only the bytes of the request frame are copied.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMillisecondType,
};
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::{CellOverflowError, CellWriter, RowWriter};
use scylla::value::{CqlDate, CqlTimestamp, CqlValue};
use tidemill_log::{Error, Kind, Result};

/// A column in one of the types that CQL values are made from.
pub(super) enum Cells {
    /// `boolean`.
    Boolean(BooleanArray),
    /// `int`.
    Int(Int32Array),
    /// `bigint`.
    BigInt(Int64Array),
    /// `float`.
    Float(Float32Array),
    /// `double`.
    Double(Float64Array),
    /// `text`.
    Text(StringArray),
    /// `blob`.
    Blob(BinaryArray),
    /// `date`: days since 1970.
    Date(Date32Array),
    /// `timestamp`: ms since 1970.
    Timestamp(TimestampMillisecondArray),
    /// The unscaled digits, and the scale.
    Decimal(Decimal128Array, i32),
}

impl Cells {
    /// A column that was cast to a storage type; see `cql_type`.
    ///
    /// # Errors
    /// `Bug` for any other type.
    pub(super) fn new(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Self::BigInt(array.as_primitive::<Int64Type>().clone()),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Blob(array.as_binary::<i32>().clone()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                Self::Timestamp(array.as_primitive::<TimestampMillisecondType>().clone())
            }
            DataType::Decimal128(_, scale) => Self::Decimal(
                array.as_primitive::<Decimal128Type>().clone(),
                i32::from(*scale),
            ),
            other => return Err(Error::new(Kind::Bug, format!("{other} cells for CQL"))),
        })
    }

    /// The Arrow array of the column.
    fn array(&self) -> &dyn Array {
        match self {
            Self::Boolean(a) => a,
            Self::Int(a) => a,
            Self::BigInt(a) => a,
            Self::Float(a) => a,
            Self::Double(a) => a,
            Self::Text(a) => a,
            Self::Blob(a) => a,
            Self::Date(a) => a,
            Self::Timestamp(a) => a,
            Self::Decimal(a, _) => a,
        }
    }

    /// Whether the value of a row is null.
    fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    /// Writes the value of a row, which must not be null.
    fn write(&self, row: usize, to: CellWriter<'_>) -> std::result::Result<(), CellOverflowError> {
        match self {
            Self::Boolean(a) => to.set_value(&[u8::from(a.value(row))]),
            Self::Int(a) => to.set_value(&a.value(row).to_be_bytes()),
            Self::BigInt(a) => to.set_value(&a.value(row).to_be_bytes()),
            Self::Float(a) => to.set_value(&a.value(row).to_be_bytes()),
            Self::Double(a) => to.set_value(&a.value(row).to_be_bytes()),
            Self::Text(a) => to.set_value(a.value(row).as_bytes()),
            Self::Blob(a) => to.set_value(a.value(row)),
            // CQL counts days from 2^31 days before 1970-01-01.
            Self::Date(a) => to.set_value(&(a.value(row) as u32 ^ (1 << 31)).to_be_bytes()),
            Self::Timestamp(a) => to.set_value(&a.value(row).to_be_bytes()),
            Self::Decimal(a, scale) => {
                let mut bytes = [0; 20];
                let unscaled = a.value(row).to_be_bytes();
                let shortest = shortest(&unscaled);
                let (head, tail) = bytes.split_at_mut(4);
                head.copy_from_slice(&scale.to_be_bytes());
                let tail = tail.split_at_mut(shortest.len()).0;
                tail.copy_from_slice(shortest);
                let length = 4 + shortest.len();
                to.set_value(bytes.split_at(length).0)
            }
        }?;
        Ok(())
    }
}

/// The shortest two's complement form, big-endian. Equal numbers have equal bytes, as keys require.
fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [sign @ (0x00 | 0xff), rest @ ..] = bytes
        && rest.first().is_some_and(|next| (next ^ sign) & 0x80 == 0)
    {
        bytes = rest;
    }
    bytes
}

/// The values of an INSERT: all columns of one row.
pub(super) struct Upsert<'a> {
    /// The columns of the batch.
    pub(super) cells: &'a [Cells],
    /// The columns of the rows that are replaced; `None` for a key column.
    pub(super) replaced: &'a [Option<ArrayRef>],
    /// The row's index in the batch.
    pub(super) row: usize,
}

impl SerializeRow for Upsert<'_> {
    fn serialize(
        &self,
        _context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> std::result::Result<(), SerializationError> {
        for (cells, replaced) in self.cells.iter().zip(self.replaced) {
            let cell = writer.make_cell_writer();
            if !cells.is_null(self.row) {
                cells
                    .write(self.row, cell)
                    .map_err(SerializationError::new)?;
            } else if replaced.as_ref().is_some_and(|r| r.is_valid(self.row)) {
                // The column had a value, which must be deleted.
                cell.set_null();
            } else {
                // The column had no value. A null would write a useless tombstone, so the value is
                // left unset.
                cell.set_unset();
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

/// The values of a DELETE: the key of one row.
pub(super) struct Delete<'a> {
    /// The key columns of the batch.
    pub(super) cells: &'a [Cells],
    /// The row's index in the batch.
    pub(super) row: usize,
}

impl SerializeRow for Delete<'_> {
    fn serialize(
        &self,
        _context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> std::result::Result<(), SerializationError> {
        for cells in self.cells {
            let cell = writer.make_cell_writer();
            cells
                .write(self.row, cell)
                .map_err(SerializationError::new)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

/// Values that were read, as an array of the storage type; the error describes a wrong value.
pub(super) fn array_of(
    stored: &DataType,
    values: Vec<Option<CqlValue>>,
) -> std::result::Result<ArrayRef, String> {
    use CqlValue as V;
    macro_rules! collect {
        ($array:ty, $($pattern:pat => $value:expr),+) => {
            Arc::new(values.into_iter().map(|value| match value {
                None => Ok(None),
                $(Some($pattern) => Ok(Some($value)),)+
                Some(other) => Err(format!("holds {other:?}")),
            }).collect::<std::result::Result<$array, String>>()?)
        };
    }
    Ok(match stored {
        DataType::Boolean => collect!(BooleanArray, V::Boolean(v) => v),
        DataType::Int32 => collect!(Int32Array, V::Int(v) => v),
        DataType::Int64 => collect!(Int64Array, V::BigInt(v) => v),
        DataType::Float32 => collect!(Float32Array, V::Float(v) => v),
        DataType::Float64 => collect!(Float64Array, V::Double(v) => v),
        DataType::Utf8 => collect!(StringArray, V::Text(v) => v, V::Empty => String::new()),
        DataType::Date32 => {
            collect!(Date32Array, V::Date(CqlDate(v)) => (v ^ (1 << 31)) as i32)
        }
        DataType::Timestamp(..) => {
            collect!(TimestampMillisecondArray, V::Timestamp(CqlTimestamp(v)) => v)
        }
        DataType::Decimal128(precision, scale) => {
            return decimals(values, *precision, *scale);
        }
        _ => {
            let mut blobs = Vec::with_capacity(values.len());
            for value in values {
                blobs.push(match value {
                    None => None,
                    Some(V::Blob(bytes)) => Some(bytes),
                    Some(V::Empty) => Some(Vec::new()),
                    Some(other) => return Err(format!("holds {other:?}")),
                });
            }
            Arc::new(BinaryArray::from_iter(blobs))
        }
    })
}

/// Decimals as an array; a value with another scale is an error.
fn decimals(
    values: Vec<Option<CqlValue>>,
    precision: u8,
    scale: i8,
) -> std::result::Result<ArrayRef, String> {
    let mut numbers = Vec::with_capacity(values.len());
    for value in values {
        let Some(value) = value else {
            numbers.push(None);
            continue;
        };
        let number = match &value {
            CqlValue::Decimal(d) => match d.as_signed_be_bytes_slice_and_exponent() {
                (bytes, s) if s == i32::from(scale) => widened(bytes),
                _ => None,
            },
            _ => None,
        };
        numbers.push(Some(number.ok_or_else(|| format!("holds {value:?}"))?));
    }
    let array = Decimal128Array::from(numbers)
        .with_precision_and_scale(precision, scale)
        .map_err(|e| e.to_string())?;
    Ok(Arc::new(array))
}

/// Sign-extends a big-endian two's complement number; `None` if it has more than 16 bytes.
pub(super) fn widened(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let start = wide.len().checked_sub(bytes.len())?;
    wide.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_short_and_come_back() {
        for number in [
            0,
            1,
            -1,
            127,
            128,
            -128,
            -129,
            255,
            256,
            i128::MAX,
            i128::MIN,
        ] {
            let bytes = number.to_be_bytes();
            assert_eq!(widened(shortest(&bytes)), Some(number));
        }
        assert_eq!(shortest(&0i128.to_be_bytes()), [0]);
        assert_eq!(shortest(&(-1i128).to_be_bytes()), [0xff]);
        assert_eq!(shortest(&128i128.to_be_bytes()), [0, 128]);
    }
}
