//! Writes Avro schemas: Debezium's envelope and the key of a table.
//!
//! Invariants:
//! 1. Key columns have their plain type. Every other column is a union of null and its type with
//!    the default null, whatever its table says. So columns may be added, be dropped and change
//!    their NOT NULL, and a reader with the new schema still reads all older records (compatibility
//!    BACKWARD). A `before` of which the source knows only the key can be written too.
//! 2. A change of a column's type or of the key is for the registry to refuse.
//! 3. The same table and topic give the same text.

use serde_json::{Value as Json, json};

use super::{Column, ColumnType, TableSchema};

/// Attribute of a field: the name of its column, where Avro does not allow it as a field name.
pub(super) const COLUMN: &str = "column";
/// Attribute of the record `Value`: the database schema of the source table.
pub(super) const SOURCE_SCHEMA: &str = "source.schema";
/// Attribute of a string: the name of the source type.
pub(super) const SOURCE_TYPE: &str = "source.type";
/// Attribute of the record `Value`: the name of the source table.
pub(super) const SOURCE_TABLE: &str = "source.table";
/// `connect.name` of a string that holds a JSON document.
pub(super) const JSON: &str = "io.debezium.data.Json";
/// `connect.name` of a `timestamp-micros` without a time zone.
pub(super) const MICRO_TIMESTAMP: &str = "io.debezium.time.MicroTimestamp";

/// The schema of the values of a topic: the record `{topic}.Envelope`, as Debezium has it.
pub fn value_schema(table: &TableSchema, topic: &str) -> String {
    let fields: Vec<Json> = table
        .columns
        .iter()
        .zip(field_names(&table.columns))
        .enumerate()
        .map(|(index, (column, name))| field(column, &name, !table.in_key(index)))
        .collect();
    let row = json!({
        "type": "record", "name": "Value", "fields": fields,
        SOURCE_SCHEMA: table.namespace, SOURCE_TABLE: table.name,
    });
    json!({
        "type": "record", "name": "Envelope", "namespace": namespace(topic),
        "fields": [
            {"name": "before", "type": ["null", row], "default": null},
            {"name": "after", "type": ["null", "Value"], "default": null},
            {"name": "source", "type": source()},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": null},
        ],
    })
    .to_string()
}

/// The schema of the keys of a topic: the columns of the primary key in the order of the key.
///
/// A source type is published as plain text here. The value schema names the type, and the key
/// schema stays the same as long as it can.
pub fn key_schema(table: &TableSchema, topic: &str) -> String {
    let names = field_names(&table.columns);
    let key = |&index: &usize| {
        let mut column = table.columns.get(index)?.clone();
        if let ColumnType::Source(_) = column.kind {
            column.kind = ColumnType::Text;
        }
        Some(field(&column, names.get(index)?, false))
    };
    let fields: Vec<Json> = table.key.iter().filter_map(key).collect();
    json!({
        "type": "record", "name": "Key", "namespace": namespace(topic), "fields": fields,
    })
    .to_string()
}

/// The record `source` of the envelope: where a change was read. `ts_ms` and `ts_us` are the commit
/// time in milliseconds and microseconds.
fn source() -> Json {
    json!({
        "type": "record", "name": "Source", "namespace": "tidemill",
        "fields": [
            {"name": "version", "type": "string"},
            {"name": "connector", "type": "string"},
            {"name": "name", "type": "string"},
            {"name": "ts_ms", "type": "long"},
            {"name": "ts_us", "type": ["null", "long"], "default": null},
            {"name": "snapshot", "type": ["null", "string"], "default": null},
            {"name": "db", "type": "string"},
            {"name": "schema", "type": "string"},
            {"name": "table", "type": "string"},
            {"name": "txId", "type": ["null", "long"], "default": null},
            {"name": "lsn", "type": ["null", "long"], "default": null},
            {"name": "sequence", "type": ["null", "string"], "default": null},
        ],
    })
}

/// The Avro field of a column.
fn field(column: &Column, name: &str, nullable: bool) -> Json {
    let kind = column_type(column.kind);
    let mut field = if nullable {
        json!({"name": name, "type": ["null", kind], "default": null})
    } else {
        json!({"name": name, "type": kind})
    };
    if name != column.name
        && let Some(field) = field.as_object_mut()
    {
        field.insert(COLUMN.to_owned(), column.name.clone().into());
    }
    field
}

/// The Avro type of a column type.
fn column_type(kind: ColumnType) -> Json {
    match kind {
        ColumnType::Bool => json!("boolean"),
        ColumnType::Int => json!("int"),
        ColumnType::Long => json!("long"),
        ColumnType::Float => json!("float"),
        ColumnType::Double => json!("double"),
        ColumnType::Text => json!("string"),
        ColumnType::Source(kind) => json!({"type": "string", SOURCE_TYPE: kind.name()}),
        ColumnType::Uuid => json!({"type": "string", "logicalType": "uuid"}),
        ColumnType::Json => json!({"type": "string", "connect.name": JSON}),
        ColumnType::Bytes => json!("bytes"),
        ColumnType::Date => json!({"type": "int", "logicalType": "date"}),
        ColumnType::Timestamp => json!({
            "type": "long", "logicalType": "timestamp-micros", "connect.name": MICRO_TIMESTAMP,
        }),
        ColumnType::Timestamptz => json!({"type": "long", "logicalType": "timestamp-micros"}),
        ColumnType::Decimal { precision, scale } => {
            let (precision, scale) = avro_decimal(precision, scale);
            json!({
                "type": "bytes", "logicalType": "decimal",
                "precision": precision, "scale": scale,
            })
        }
    }
}

/// Precision and scale as Avro allows them. PostgreSQL also has negative scales, whose values are
/// written multiplied, and scales above the precision.
fn avro_decimal(precision: u8, scale: i8) -> (u32, u32) {
    let shift = u32::from(scale.unsigned_abs());
    if scale < 0 {
        (u32::from(precision) + shift, 0)
    } else {
        (u32::from(precision).max(shift).max(1), shift)
    }
}

/// The field names of columns: what Avro allows, made unique by `_2`, `_3`, ….
fn field_names(columns: &[Column]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let name = legal(&column.name);
        let mut unique = name.clone();
        let mut number = 1;
        while names.contains(&unique) {
            number += 1;
            unique = format!("{name}_{number}");
        }
        names.push(unique);
    }
    names
}

/// The topic as an Avro namespace; the dots stay.
fn namespace(topic: &str) -> String {
    topic.split('.').map(legal).collect::<Vec<_>>().join(".")
}

/// The name with `_` in place of each character that Avro does not allow. A name matches
/// `[A-Za-z_][A-Za-z0-9_]*` in Avro.
fn legal(name: &str) -> String {
    let mut legal = String::with_capacity(name.len());
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        legal.push('_');
    }
    let allowed = |it: char| {
        if it.is_ascii_alphanumeric() || it == '_' {
            it
        } else {
            '_'
        }
    };
    legal.extend(name.chars().map(allowed));
    legal
}
