//! Reads columns from Avro schemas: of Tidemill's and Debezium's envelopes, and of plain records.
//!
//! A field whose type no column can have (an array, a map, a nested record, a union of several
//! types) is returned apart, with its type. Such a field is an error only when a view reads it.

use super::arena::{Meaning, Node, Record, Schema};
use super::{Column, ColumnType, TableSchema};
use crate::{Error, Kind, Result};

/// Largest precision of a decimal column. Kafka Connect writes 64 when it does not know the
/// precision; a value with more digits than the column is refused for its row alone.
const DIGITS_MAX: u8 = 38;

/// A field that cannot be a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The name of its column.
    pub name: String,
    /// A description of its type for messages: "an array".
    pub kind: String,
}

/// The fields of a record as columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Fields that can be columns, in their order.
    pub columns: Vec<Column>,
    /// Fields that cannot be columns.
    pub unusable: Vec<Unusable>,
}

/// The table whose changes are written under the value schema and key schema of a Debezium
/// envelope. The columns are those of `after`; the key has the order of the key schema.
///
/// # Errors
/// `Data` when a text is not an Avro schema, the value schema is not an envelope, or a column of
/// the key is not in `after`.
pub fn table_of(value_schema_json: &str, key_schema_json: &str) -> Result<TableSchema> {
    let envelope = parse(value_schema_json)?;
    let after = row_of(&envelope)?;
    let columns = fields_of(&envelope, after).columns;
    let key = key_of(key_schema_json)?
        .iter()
        .map(|name| {
            columns
                .iter()
                .position(|column| column.name == *name)
                .ok_or_else(|| wrong(&format!("key column `{name}` is not a column of `after`")))
        })
        .collect::<Result<Vec<usize>>>()?;
    let (namespace, name) = match &after.table {
        Some((namespace, name)) => (namespace.clone(), name.clone()),
        None => (String::new(), topic_part(&envelope)),
    };
    Ok(TableSchema {
        namespace,
        name,
        columns,
        key,
    })
}

/// The columns of the rows in a Debezium envelope.
///
/// # Errors
/// `Data` when the text is not an Avro schema, or not one of an envelope.
pub fn columns_of_envelope(schema_json: &str) -> Result<Fields> {
    let envelope = parse(schema_json)?;
    Ok(fields_of(&envelope, row_of(&envelope)?))
}

/// The columns of a record that is not an envelope.
///
/// ```
/// use tidemill_log::schema::{ColumnType, columns_of_record};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let schema = r#"{"type": "record", "name": "User", "fields": [
///     {"name": "id", "type": "long"},
///     {"name": "tags", "type": {"type": "array", "items": "string"}}]}"#;
/// let fields = columns_of_record(schema)?;
/// assert_eq!(fields.columns[0].kind, ColumnType::Long);
/// assert_eq!(fields.unusable[0].kind, "an array");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Data` when the text is not an Avro schema, or not one of a record.
pub fn columns_of_record(schema_json: &str) -> Result<Fields> {
    let schema = parse(schema_json)?;
    match schema.node(schema.root) {
        Node::Record(record) => Ok(fields_of(&schema, record)),
        _ => Err(wrong("the schema is not a record, so it has no columns")),
    }
}

/// The column names in a key schema, in their order.
///
/// # Errors
/// `Data` when the text is not an Avro schema, or not one of a record with fields.
pub fn key_of(key_schema_json: &str) -> Result<Vec<String>> {
    let schema = parse(key_schema_json)?;
    let fields = match schema.node(schema.root) {
        Node::Record(record) => record.fields.as_slice(),
        _ => &[],
    };
    if fields.is_empty() {
        return Err(wrong(
            "the key schema names no column: the key must be a record",
        ));
    }
    let names = fields.iter().map(|field| field.column().to_owned());
    Ok(names.collect())
}

/// An error of a schema.
fn wrong(what: &str) -> Error {
    Error::new(Kind::Data, format!("avro schema: {what}"))
}

/// Parses a schema.
fn parse(schema: &str) -> Result<Schema> {
    Schema::parse(schema).map_err(|error| wrong(&error))
}

/// The record `after` of an envelope.
fn row_of(envelope: &Schema) -> Result<&Record> {
    envelope.after().ok_or_else(|| {
        wrong("not a Debezium envelope: it has no field `after` of type null or record")
    })
}

/// The last part of the envelope's namespace, which Debezium names after the table.
fn topic_part(envelope: &Schema) -> String {
    let name = envelope.record(envelope.root).map(|it| it.name.as_str());
    let namespace = name.and_then(|name| Some(name.rsplit_once('.')?.0));
    let namespace = namespace.unwrap_or_default();
    let last = namespace.rsplit('.').next();
    last.unwrap_or_default().to_owned()
}

/// The fields of a record, sorted into columns and unusable ones.
fn fields_of(schema: &Schema, record: &Record) -> Fields {
    let mut fields = Fields::default();
    for field in &record.fields {
        let name = field.column().to_owned();
        match column_type(schema, field.node) {
            Ok((kind, nullable)) => fields.columns.push(Column {
                name,
                kind,
                nullable,
            }),
            Err(kind) => fields.unusable.push(Unusable { name, kind }),
        }
    }
    fields
}

/// The column type of an Avro type and whether it may be null; else a description of the type.
fn column_type(schema: &Schema, node: usize) -> std::result::Result<(ColumnType, bool), String> {
    let unusable = || schema.describe(node);
    let Node::Union(branches) = schema.node(node) else {
        return Ok((single_type(schema.node(node)).ok_or_else(unusable)?, false));
    };
    let is_null = |branch: &&usize| matches!(schema.node(**branch), Node::Null);
    let mut values = branches.iter().filter(|branch| !is_null(branch));
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let kind = single_type(schema.node(*value)).ok_or_else(|| schema.describe(*value))?;
            Ok((kind, branches.iter().any(|it| is_null(&it))))
        }
        _ => Err(unusable()),
    }
}

/// The column type of an Avro type that is not a union.
fn single_type(node: &Node) -> Option<ColumnType> {
    Some(match node {
        Node::Boolean => ColumnType::Bool,
        Node::Float => ColumnType::Float,
        Node::Double => ColumnType::Double,
        Node::Enum(_) => ColumnType::Text,
        Node::Int(meaning)
        | Node::Long(meaning)
        | Node::String(meaning)
        | Node::Bytes(meaning)
        | Node::Fixed(_, meaning) => match (meaning, node) {
            (Meaning::Days, _) => ColumnType::Date,
            (Meaning::Timestamp { zoned: false, .. }, _) => ColumnType::Timestamp,
            (Meaning::Timestamp { .. } | Meaning::ZonedTimestamp, _) => ColumnType::Timestamptz,
            (Meaning::Time(_) | Meaning::Bits(_), _) => ColumnType::Text,
            (Meaning::Decimal { precision, scale }, _) => decimal(*precision, *scale)?,
            (Meaning::Uuid, _) => ColumnType::Uuid,
            (Meaning::Json, _) => ColumnType::Json,
            (Meaning::Source(kind), _) => ColumnType::Source(*kind),
            (Meaning::Duration, _) => return None,
            (Meaning::Plain, Node::Int(_)) => ColumnType::Int,
            (Meaning::Plain, Node::Long(_)) => ColumnType::Long,
            (Meaning::Plain, Node::String(_)) => ColumnType::Text,
            (Meaning::Plain, _) => ColumnType::Bytes,
        },
        Node::Null | Node::Array(_) | Node::Map(_) | Node::Record(_) | Node::Union(_) => {
            return None;
        }
    })
}

/// The column type of a decimal; `None` for scales that no column can have.
fn decimal(precision: Option<u32>, scale: i64) -> Option<ColumnType> {
    let digits = u32::from(DIGITS_MAX);
    let precision = precision.unwrap_or(digits).clamp(1, digits);
    let precision = u8::try_from(precision).ok()?;
    let scale = i8::try_from(scale).ok()?;
    let fits = (0..=i64::from(DIGITS_MAX)).contains(&i64::from(scale));
    fits.then_some(ColumnType::Decimal {
        precision: precision.max(scale.unsigned_abs()),
        scale,
    })
}
