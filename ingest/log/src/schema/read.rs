//! Columns from Avro schemas: of our envelopes, of Debezium's own, and of plain records.
//!
//! A field of a type that no column can have (an array, a map, a nested record, a union of several
//! types) is told apart with its type: it hinders nothing until a view reads it.

use super::arena::{Meaning, Node, Record, Schema};
use super::{Column, ColumnType, TableSchema};
use crate::{Error, Kind, Result};

/// Most digits of a decimal column. Connect writes 64 where it knows none; what has more digits
/// than the column is refused row by row.
const DIGITS_MAX: u8 = 38;

/// A field that cannot be a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its column's name.
    pub name: String,
    /// Its type, for people: "an array".
    pub kind: String,
}

/// What a record's fields are as columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Those that can be columns, in order.
    pub columns: Vec<Column>,
    /// The others.
    pub unusable: Vec<Unusable>,
}

/// The table whose changes are written under a Debezium envelope's value and key schema. Columns
/// are those of `after`; the key is in the order of the key schema.
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
pub fn columns_of_envelope(schema_json: &str) -> Result<Fields> {
    let envelope = parse(schema_json)?;
    Ok(fields_of(&envelope, row_of(&envelope)?))
}

/// The columns of a plain record, one that is no envelope.
pub fn columns_of_record(schema_json: &str) -> Result<Fields> {
    let schema = parse(schema_json)?;
    match schema.node(schema.root) {
        Node::Record(record) => Ok(fields_of(&schema, record)),
        _ => Err(wrong("the schema is not a record, so it has no columns")),
    }
}

/// The names of the columns that a key's schema is made of. An error when it is no record.
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

fn wrong(what: &str) -> Error {
    Error::new(Kind::Data, format!("avro schema: {what}"))
}

fn parse(schema: &str) -> Result<Schema> {
    Schema::parse(schema).map_err(|error| wrong(&error))
}

fn row_of(envelope: &Schema) -> Result<&Record> {
    envelope.after().ok_or_else(|| {
        wrong("not a Debezium envelope: it has no field `after` of type null or record")
    })
}

/// The last part of the envelope's namespace, which Debezium names the table by.
fn topic_part(envelope: &Schema) -> String {
    let name = envelope.record(envelope.root).map(|it| it.name.as_str());
    let namespace = name.and_then(|name| Some(name.rsplit_once('.')?.0));
    let namespace = namespace.unwrap_or_default();
    let last = namespace.rsplit('.').next();
    last.unwrap_or_default().to_owned()
}

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

/// The column type of an Avro type and whether it may be null, or what it is when no column can be
/// that.
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

/// The column type of a type that is no union; none when no column can be that.
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
