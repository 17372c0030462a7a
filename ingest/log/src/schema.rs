//! A table's columns, and their Avro form.
//!
//! [`value_schema`] and [`key_schema`] say under which Avro schemas a table's changes are written;
//! [`table_of`] and [`columns_of_record`] read columns back from schemas, ours and others';
//! [`fingerprint()`] tells one from another;
//! [`arena`] is how a schema is held by whoever reads records written with it.

pub mod arena;
mod avro;
mod fingerprint;
mod read;
mod source_type;

pub use avro::{key_schema, value_schema};
pub use fingerprint::fingerprint;
pub use read::{Fields, Unusable, columns_of_envelope, columns_of_record, key_of, table_of};
pub use source_type::{Comparison, SourceType};

use serde::Deserialize;

/// A column type that can travel from a source table to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Avro `boolean`.
    Bool,
    /// 16 and 32 bit integers; Avro `int`.
    Int,
    /// 64 bit integers; Avro `long`.
    Long,
    /// Avro `float`.
    Float,
    /// Avro `double`.
    Double,
    /// Avro `string`.
    Text,
    /// Any other type of the source; Avro `string` with the attribute `source.type`.
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
    /// Avro `long` with logical type `timestamp-micros`; without time zone.
    Timestamp,
    /// Avro `long` with logical type `timestamp-micros`; an instant.
    Timestamptz,
    /// Avro `bytes` with logical type `decimal`.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: i8,
    },
}

impl ColumnType {
    /// The source's type, where the column travels as the text that the source writes of it.
    pub fn source_type(self) -> Option<SourceType> {
        match self {
            ColumnType::Source(kind) => Some(kind),
            ColumnType::Uuid => Some(SourceType::named("uuid")),
            ColumnType::Json => Some(SourceType::named("json")),
            _ => None,
        }
    }
}

/// The type's name in SQL.
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

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name as the database has it.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// A table as its capture sees it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The database schema (`public`; `main` in SQLite).
    pub namespace: String,
    /// The table.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Indexes of the primary key's columns, in key order. Never empty: capture refuses a table
    /// without a primary key.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// Whether the column with this index is part of the primary key.
    pub fn in_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }
}
