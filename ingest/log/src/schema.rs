//! Table schemas and their Avro form: columns, column types, keys and fingerprints.
//!
//! [`value_schema`] and [`key_schema`] give the Avro schemas under which the changes of a table are
//! written. [`table_of`], [`columns_of_envelope`] and [`columns_of_record`] read columns back from
//! schemas, those of Tidemill and those of other writers. [`fingerprint()`] identifies a schema.
//! [`arena`] is the parsed form of a schema for readers.

pub mod arena;
mod avro;
mod fingerprint;
mod read;
mod source_type;
pub mod sql;

use serde::Deserialize;

pub use avro::{key_schema, value_schema};
pub use fingerprint::fingerprint;
pub use read::{Fields, Unusable, columns_of_envelope, columns_of_record, key_of, table_of};
pub use source_type::{Comparison, SourceType};

/// A type of a column that can be published and read by a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Avro `boolean`.
    Bool,
    /// 16-bit and 32-bit integers; Avro `int`.
    Int,
    /// 64-bit integers; Avro `long`.
    Long,
    /// Avro `float`.
    Float,
    /// Avro `double`.
    Double,
    /// Avro `string`.
    Text,
    /// Any other type of the source database, as text; Avro `string` with the attribute
    /// `source.type`.
    #[serde(skip)]
    Source(SourceType),
    /// Avro `string` with logical type `uuid`.
    Uuid,
    /// A JSON document; Avro `string` with `connect.name` `io.debezium.data.Json`.
    Json,
    /// Avro `bytes`.
    Bytes,
    /// Avro `int` with logical type `date`.
    Date,
    /// Date and time without a time zone; Avro `long` with logical type `timestamp-micros` and
    /// `connect.name` `io.debezium.time.MicroTimestamp`.
    Timestamp,
    /// An instant; Avro `long` with logical type `timestamp-micros`.
    Timestamptz,
    /// Avro `bytes` with logical type `decimal`. With negative scales (PostgreSQL) the values are
    /// written multiplied, as Avro has none.
    Decimal {
        /// Number of significant digits.
        precision: u8,
        /// Number of digits after the decimal point; negative for multiples of powers of ten.
        scale: i8,
    },
}

impl ColumnType {
    /// The type of the source database, for columns whose values are published as the source's
    /// text; `None` for all others.
    pub fn source_type(self) -> Option<SourceType> {
        match self {
            ColumnType::Source(kind) => Some(kind),
            ColumnType::Uuid => Some(SourceType::named("uuid")),
            ColumnType::Json => Some(SourceType::named("json")),
            _ => None,
        }
    }
}

/// The name of the type in SQL.
impl std::fmt::Display for ColumnType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ColumnType::Bool => "boolean",
            ColumnType::Int => "int",
            ColumnType::Long => "bigint",
            ColumnType::Float => "real",
            ColumnType::Double => "double precision",
            ColumnType::Text => "text",
            ColumnType::Source(kind) => kind.name(),
            ColumnType::Uuid => "uuid",
            ColumnType::Json => "json",
            ColumnType::Bytes => "bytea",
            ColumnType::Date => "date",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Timestamptz => "timestamptz",
            ColumnType::Decimal { precision, scale } => {
                return write!(f, "numeric({precision},{scale})");
            }
        })
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name as in the database.
    pub name: String,
    /// The type.
    pub kind: ColumnType,
    /// Whether the column may hold NULL.
    pub nullable: bool,
}

/// The schema of a table at one moment, as capture reads it from the catalog.
///
/// ```
/// use tidemill_log::schema::{Column, ColumnType, TableSchema, key_schema, table_of, value_schema};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let column = |name: &str, kind, nullable| Column { name: name.into(), kind, nullable };
/// let table = TableSchema {
///     namespace: "public".into(),
///     name: "users".into(),
///     columns: vec![
///         column("id", ColumnType::Long, false),
///         column("e-mail", ColumnType::Text, true),
///     ],
///     key: vec![0],
/// };
/// let (value, key) = (value_schema(&table, "users"), key_schema(&table, "users"));
/// assert!(key.contains(r#"{"name":"id","type":"long"}"#));
/// // The columns come back as they were, also names that Avro does not allow.
/// assert_eq!(table_of(&value, &key)?, table);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The schema of the database that holds the table: `public`, or `main` in SQLite.
    pub namespace: String,
    /// The name of the table.
    pub name: String,
    /// The columns in their order.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the primary key's columns, in the order of the key. Never empty:
    /// capture refuses a table without a primary key.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// Whether the column at `index` is part of the primary key.
    pub fn in_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }
}
