//! Type mapping between source column types, Arrow types and view columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use tidemill_log::schema::ColumnType;

/// The type of `timestamptz`: an instant in µs.
pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The Arrow type of a column that capture or a registry describes.
pub fn of_column(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
        ColumnType::Text | ColumnType::Source(_) | ColumnType::Uuid | ColumnType::Json => {
            DataType::Utf8
        }
        ColumnType::Bytes => DataType::Binary,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::Timestamptz => instant(),
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
    }
}

/// The key of a field's metadata with what a cast or a JSON table's column demands besides the type
/// that the value is stored in: `smallint`, `uuid`, `json`, `numeric` without a scale, `varchar 5`.
pub const ASKED: &str = "asked";

/// The type in which a view's column of a computed type is stored; `None` if a view cannot hold it.
///
/// ```
/// use arrow::datatypes::DataType;
/// use tidemill_ir::types::of_view;
///
/// assert_eq!(of_view(&DataType::Int32), Some(DataType::Int32));
/// ```
pub fn of_view(computed: &DataType) -> Option<DataType> {
    Some(match computed {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..) => computed.clone(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => instant(),
        DataType::Dictionary(_, values) => of_view(values)?,
        _ => return None,
    })
}

/// The type of `jsonb` while a view is computed: a text that
/// [`Document`](crate::json::Document) writes. No source and no other function has this type.
pub const JSONB: DataType = DataType::LargeUtf8;

/// The type of `json` while a view is computed: a text as it was written.
pub const JSON: DataType = DataType::Utf8View;

/// Whether values of a type are JSON documents.
pub fn is_document(kind: &DataType) -> bool {
    *kind == JSON || *kind == JSONB
}

/// The type of arrays of texts while a view is computed.
pub fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// Whether a union of columns of these types has a type of the same kind.
pub fn alike(one: &DataType, other: &DataType) -> bool {
    if [one, other].into_iter().any(is_document) {
        return one == other;
    }
    let kinds: [fn(&DataType) -> bool; 3] = [
        DataType::is_numeric,
        DataType::is_string,
        DataType::is_temporal,
    ];
    let common = kinds.iter().any(|kind| kind(one) && kind(other));
    common || of_view(one) == of_view(other)
}

/// The SQL name of a type, for messages.
///
/// ```
/// use arrow::datatypes::DataType;
///
/// assert_eq!(tidemill_ir::types::name(&DataType::Decimal128(12, 2)), "numeric(12,2)");
/// ```
pub fn name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "text".into(),
        DataType::LargeUtf8 => "jsonb".into(),
        DataType::Utf8View => "json".into(),
        DataType::List(_) => "text[]".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Interval(_) => "interval".into(),
        other => other.to_string().to_lowercase(),
    }
}
