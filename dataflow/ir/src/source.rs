//! The sources of a job: topics, and how their records become rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

/// How the records of a topic become the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// Every record is one more row.
    Append,
    /// A record replaces the row of its key. A null value deletes the row.
    Upsert,
    /// Debezium's change events. The `after` image replaces the row of the record's key.
    Debezium,
}

/// The encoding of a record's value (and of an Avro key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per record.
    Json(Spelling),
    /// Confluent's wire format, with the schema that the table's columns were planned with. For
    /// [`Envelope::Debezium`] this is the schema of the whole envelope.
    Avro {
        /// The Avro schema of values, as JSON.
        schema: String,
        /// The newest version of the values' subject when the table was planned. The job ends when
        /// a later version lacks a column in use.
        newest: u32,
        /// The schema of keys when the table was planned, if keys have one.
        key: Option<KeySchema>,
    },
}

/// The schema of a topic's keys when a table was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySchema {
    /// The Avro schema, as JSON.
    pub schema: String,
    /// Its version in its subject.
    pub version: u32,
}

/// How JSON records write values of types that JSON does not have. `None` where the table says
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Timestamps that are written as numbers.
    pub timestamps: Option<TimestampUnit>,
    /// Decimals that are written as strings.
    pub decimals: Option<Digits>,
    /// Bytes.
    pub binary: Option<Binary>,
    /// Columns for which a record has no field.
    pub missing: Option<Missing>,
}

/// The unit of a number that is a timestamp, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// No unit: timestamps are ISO 8601 texts.
    Iso,
}

/// How a decimal is written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// As decimal digits.
    Text,
    /// As the base64 of the unscaled two's complement number, with the column's scale.
    Base64,
}

/// How bytes are written in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// As base64, standard or URL-safe.
    Base64,
    /// As hexadecimal digits.
    Hex,
    /// As the UTF-8 text that they are.
    Text,
}

/// The value of a column for which a record has no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// NULL.
    Null,
    /// None: the record is refused.
    Refuse,
}

/// A table that is fed by a topic.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table's name in SQL.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The encoding of values.
    pub format: Format,
    /// How records become rows.
    pub envelope: Envelope,
    /// Debezium's placeholder for a large value that a change left unchanged, besides the default
    /// one.
    pub unavailable: Option<Arc<[u8]>>,
    /// The columns that any view uses, in the order of the table: exactly what decoders produce.
    /// The field names are the table's column names. May be empty (`count(*)` alone).
    pub schema: SchemaRef,
    /// The names of the columns that make up the record key, if the registry or a `PRIMARY KEY`
    /// names them; otherwise empty. Together they are unique.
    pub key: Vec<String>,
}
