//! Row encoding: rows as comparable bytes, for keys, state and the exchange between workers.
//!
//! A [`Row`] is Arrow's row format: bytes that compare as the values do. Equal rows are equal
//! bytes, and a trace sorted by bytes is sorted by value. Only a [`RowCodec`] of the same fields
//! can decode a row. Floats that are equal in SQL are one value: -0.0 is encoded as 0.0, and every
//! NaN as one NaN, which sorts above all numbers, as in PostgreSQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, new_null_array};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::{Float32Type, Float64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_row::{RowConverter, RowParser, Rows, SortField};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use tidemill_log::{Error, Kind, Result};

/// A row of some columns in Arrow's row format.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Row(pub Box<[u8]>);

impl Row {
    /// A row of these encoded bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash of the bytes, which decides the row's owner and shard. Stable across releases and
    /// machines, because checkpoints depend on it.
    pub fn shard(&self) -> u64 {
        shard(&self.0)
    }

    /// The index of the worker, below `peers`, that owns the row. Each worker owns one range of
    /// hashes. The shards of a checkpoint are ranges of hashes too, so a worker restores its own
    /// rows.
    #[must_use]
    pub fn owner(&self, peers: usize) -> u64 {
        ((u128::from(self.shard()) * peers as u128) >> 64) as u64
    }
}

/// The stable hash of a key's bytes (XXH3-64; its specification fixes the output).
pub fn shard(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Row({} bytes, {:016x})", self.0.len(), self.shard())
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Row;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row's bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Row, E> {
                Ok(Row::new(bytes))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> std::result::Result<Row, E> {
                Ok(Row(bytes.into_boxed_slice()))
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Row, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Row(bytes.into_boxed_slice()))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// The order in which encoded rows sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest value first, nulls last.
    Ascending,
    /// Greatest value first, nulls last.
    Descending,
}

/// Encodes columns as rows, and decodes them.
///
/// Encoded rows sort by their bytes as their values do, so a sorted arrangement of rows needs no
/// columns. The encoding is Arrow's row format (<https://docs.rs/arrow-row>).
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, Int64Array};
/// use arrow::datatypes::{DataType, Field, Int64Type, Schema};
/// use tidemill_ir::row::RowCodec;
///
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
/// let codec = RowCodec::new(schema).unwrap();
/// let column: ArrayRef = Arc::new(Int64Array::from(vec![7, -3]));
/// let encoded = codec.encode(&[column], 2).unwrap();
/// let mut rows = [encoded.row(0), encoded.row(1)];
/// rows.sort();
/// let batch = codec.decode(rows.iter()).unwrap();
/// assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[-3, 7]);
/// ```
pub struct RowCodec {
    /// Arrow's converter of columns to rows of comparable bytes.
    converter: RowConverter,
    /// Reads rows from bytes.
    parser: RowParser,
    /// The columns.
    schema: SchemaRef,
}

impl RowCodec {
    /// A codec for rows of `schema`, sorted ascending.
    ///
    /// # Errors
    /// As [`RowCodec::sorted`].
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Self::ordered(schema, Order::Ascending)
    }

    /// A codec for rows that sort in `order`.
    ///
    /// # Errors
    /// As [`RowCodec::sorted`].
    pub fn ordered(schema: SchemaRef, order: Order) -> Result<Self> {
        let options = SortOptions {
            descending: order == Order::Descending,
            nulls_first: false,
        };
        Self::sorted(schema, std::iter::repeat(options))
    }

    /// A codec for rows that sort by each column with the column's option.
    ///
    /// # Errors
    /// `Data` when a column has a type that Arrow's row format does not support.
    pub fn sorted(
        schema: SchemaRef,
        options: impl IntoIterator<Item = SortOptions>,
    ) -> Result<Self> {
        let fields = schema.fields().iter().zip(options);
        let fields = fields
            .map(|(f, options)| SortField::new_with_options(f.data_type().clone(), options))
            .collect();
        let converter = RowConverter::new(fields).map_err(|error| {
            Error::with_source(Kind::Data, format!("cannot keep rows of {schema:?}"), error)
        })?;
        let parser = converter.parser();
        Ok(Self {
            converter,
            parser,
            schema: nullable(&schema),
        })
    }

    /// The schema of decoded batches. All fields are nullable.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes columns; `count` is the number of rows, for rows without columns.
    ///
    /// # Errors
    /// `Bug` when the columns are not those of the schema.
    pub fn encode(&self, columns: &[ArrayRef], count: usize) -> Result<Encoded> {
        if columns.is_empty() {
            return Ok(Encoded::Empty(count));
        }
        let columns: Vec<ArrayRef> = columns.iter().map(comparable).collect();
        self.converter
            .convert_columns(&columns)
            .map(Encoded::Rows)
            .map_err(bug)
    }

    /// Decodes rows into a batch.
    ///
    /// # Errors
    /// `Bug` when the rows were encoded by another codec.
    pub fn decode<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Result<RecordBatch> {
        self.decode_bytes(rows.map(Row::bytes))
    }

    /// Decodes rows; a missing row becomes a row with null in all columns.
    ///
    /// # Errors
    /// As [`RowCodec::decode`].
    pub fn decode_or_null<'a>(
        &self,
        rows: impl Iterator<Item = Option<&'a Row>> + Clone,
    ) -> Result<RecordBatch> {
        let known = self.decode(rows.clone().flatten())?;
        let mut next = 0;
        let places = rows.map(|row| match row {
            Some(_) => {
                next += 1;
                (0, next - 1)
            }
            None => (1, 0),
        });
        let places: Vec<(usize, usize)> = places.collect();
        let columns = known.columns().iter().map(|column| {
            let null = new_null_array(column.data_type(), 1);
            interleave(&[column.as_ref(), null.as_ref()], &places)
        });
        let columns = columns.collect::<std::result::Result<_, _>>();
        batch(&self.schema, columns.map_err(bug)?, places.len())
    }

    /// Decodes the bytes of rows into a batch.
    ///
    /// # Errors
    /// As [`RowCodec::decode`].
    pub fn decode_bytes<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        if self.schema.fields().is_empty() {
            return batch(&self.schema, Vec::new(), rows.count());
        }
        let parsed: Vec<_> = rows.map(|row| self.parser.parse(row)).collect();
        let count = parsed.len();
        let columns = self.converter.convert_rows(parsed).map_err(bug)?;
        batch(&self.schema, columns, count)
    }
}

/// The column with -0.0 replaced by 0.0 and every NaN by one NaN, so that equal floats are equal
/// bits.
pub fn comparable(column: &ArrayRef) -> ArrayRef {
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
        return Arc::new(floats.unary::<_, Float64Type>(one));
    }
    if let Some(floats) = column.as_primitive_opt::<Float32Type>() {
        let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
        return Arc::new(floats.unary::<_, Float32Type>(one));
    }
    Arc::clone(column)
}

/// The encoded rows of one batch.
pub enum Encoded {
    /// This many rows without columns.
    Empty(usize),
    /// Rows in Arrow's row format.
    Rows(Rows),
}

impl Encoded {
    /// The number of rows.
    pub fn num_rows(&self) -> usize {
        match self {
            Encoded::Empty(count) => *count,
            Encoded::Rows(rows) => rows.num_rows(),
        }
    }

    /// The bytes of row `index`, which must be below `num_rows`.
    pub fn bytes(&self, index: usize) -> &[u8] {
        match self {
            Encoded::Empty(_) => &[],
            Encoded::Rows(rows) => rows.row(index).data(),
        }
    }

    /// Row `index`, copied.
    pub fn row(&self, index: usize) -> Row {
        Row::new(self.bytes(index))
    }
}

/// A batch of `count` rows, which may have no columns.
///
/// # Errors
/// `Bug` when the columns do not fit the schema.
pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(bug)
}

/// The schema with every field nullable, because planners' proofs about nulls are not relied on.
pub fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

/// The `Bug` error of an Arrow operation whose types were checked before.
pub fn bug(error: arrow::error::ArrowError) -> Error {
    Error::with_source(Kind::Bug, "columns do not fit their schema", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn rows_come_back_and_sort_by_value() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let codec = RowCodec::new(Arc::clone(&schema)).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("b"), Some("a"), None])),
            Arc::new(Int64Array::from(vec![Some(-1), None, Some(7)])),
        ];
        let encoded = codec.encode(&columns, 3).unwrap();
        let rows: Vec<Row> = (0..3).map(|i| encoded.row(i)).collect();
        assert!(rows[1] < rows[0] && rows[0] < rows[2], "a, b, null");
        let back = codec.decode(rows.iter()).unwrap();
        assert_eq!(back.columns(), &columns[..]);
    }

    #[test]
    fn equal_floats_are_equal_bytes() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("f", DataType::Float64, true)]));
        let codec = RowCodec::new(schema).unwrap();
        let floats = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY];
        let column: ArrayRef = Arc::new(Float64Array::from(floats.to_vec()));
        let rows = codec.encode(&[column], floats.len()).unwrap();
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
        assert!(rows.row(4) < rows.row(3), "NaN is above all numbers");
    }

    #[test]
    fn a_row_survives_the_wire() {
        let row = Row::new(&[0, 255, 3]);
        let wire = serde_json::to_vec(&row).unwrap();
        assert_eq!(serde_json::from_slice::<Row>(&wire).unwrap(), row);
    }

    #[test]
    fn no_columns_still_count() {
        let codec = RowCodec::new(Arc::new(Schema::empty())).unwrap();
        let encoded = codec.encode(&[], 4).unwrap();
        assert_eq!(encoded.num_rows(), 4);
        let rows = [encoded.row(0), encoded.row(1)];
        assert_eq!(codec.decode(rows.iter()).unwrap().num_rows(), 2);
    }
}
