//! The columns that an Avro schema describes.
//!
//! In flows the schema's JSON, out flow columns, or the field and type that no column can hold.

use serde_json::Value;
use tidemill_log::schema::{Column, ColumnType};

use super::ir::Envelope;

/// The columns of a record; with [`Envelope::Debezium`] those of its `after` field.
pub(super) fn columns_of_record(schema: &str, envelope: Envelope) -> Result<Vec<Column>, String> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|error| format!("is no JSON: {error}"))?;
    let mut row = &schema;
    if envelope == Envelope::Debezium {
        // The row's record is defined where it is used first, in `before`.
        let images = fields(&schema)?.iter().filter(|field| {
            let name = field.get("name").and_then(Value::as_str);
            matches!(name, Some("before" | "after"))
        });
        let record = |field: &'_ Value| field.get("type").and_then(is_record).is_some();
        let image = images.into_iter().find(|field| record(field));
        row = image
            .and_then(|field| is_record(field.get("type")?))
            .ok_or("is no Debezium envelope: it has no record in `before` or `after`")?;
    }
    fields(row)?.iter().map(column).collect()
}

fn fields(record: &Value) -> Result<&Vec<Value>, String> {
    let fields = record.get("fields").and_then(Value::as_array);
    fields.ok_or_else(|| "is no record".to_owned())
}

/// The record in a type, which may be a union of it and null.
fn is_record(kind: &Value) -> Option<&Value> {
    match kind {
        Value::Array(branches) => branches.iter().find_map(is_record),
        kind => (kind.get("type")? == "record").then_some(kind),
    }
}

fn column(field: &Value) -> Result<Column, String> {
    let name = field.get("name").and_then(Value::as_str);
    let name = name.ok_or("has a field without a name")?;
    let kind = field.get("type").unwrap_or(&Value::Null);
    let (kind, nullable) = match kind {
        Value::Array(branches) => {
            let mut rest = branches.iter().filter(|branch| *branch != "null");
            let nullable = branches.iter().any(|branch| branch == "null");
            match (rest.next(), rest.next()) {
                (Some(only), None) => (only, nullable),
                _ => {
                    return Err(format!(
                        "has field `{name}`, a union, which no column can hold"
                    ));
                }
            }
        }
        kind => (kind, false),
    };
    let found = column_type(kind);
    let kind = found
        .ok_or_else(|| format!("has field `{name}` of type {kind}, which no column can hold"))?;
    Ok(Column {
        name: name.to_owned(),
        kind,
        nullable,
    })
}

fn column_type(kind: &Value) -> Option<ColumnType> {
    let text = |name: &str| kind.get(name).and_then(Value::as_str);
    let base = kind.as_str().or_else(|| text("type"))?;
    let logical = text("logicalType").unwrap_or_default();
    Some(match (base, logical) {
        ("bytes", "decimal") => ColumnType::Decimal {
            precision: kind.get("precision")?.as_u64()?.try_into().ok()?,
            scale: kind
                .get("scale")
                .map_or(Some(0), Value::as_i64)?
                .try_into()
                .ok()?,
        },
        ("int", "date") => ColumnType::Date,
        ("long", "timestamp-micros" | "timestamp-millis") => ColumnType::Timestamptz,
        ("long", "local-timestamp-micros" | "local-timestamp-millis") => ColumnType::Timestamp,
        ("string", "uuid") => ColumnType::Uuid,
        ("string", _) if text("connect.name") == Some("io.debezium.data.Json") => ColumnType::Json,
        ("string" | "enum", _) => ColumnType::Text,
        ("boolean", _) => ColumnType::Bool,
        ("int", "") => ColumnType::Int,
        ("long", "") => ColumnType::Long,
        ("float", _) => ColumnType::Float,
        ("double", _) => ColumnType::Double,
        ("bytes", _) => ColumnType::Bytes,
        _ => return None,
    })
}
