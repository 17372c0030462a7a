//! Columns from Avro schemas: of our envelopes, of Debezium's own, and of plain records.
//!
//! Fields of types that no column can have (arrays, maps, nested records, times of day, unions of
//! several types) are left out, so that a view over the others works; a view that names one of
//! them is told that there is no such column.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::avro::{COLUMN, JSON, MICRO_TIMESTAMP, SOURCE_SCHEMA, SOURCE_TABLE, SOURCE_TYPE};
use super::{Column, ColumnType, SourceType, TableSchema};
use crate::{Error, Kind, Result};

/// Kafka Connect's own dates and timestamps, where a converter leaves the logical type out.
const CONNECT_DATE: &str = "org.apache.kafka.connect.data.Date";
const CONNECT_TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";

/// The table whose changes are written under a Debezium envelope's value and key schema. Columns
/// are those of `after`; the key is in the order of the key schema.
pub fn table_of(value_schema_json: &str, key_schema_json: &str) -> Result<TableSchema> {
    let envelope = parse(value_schema_json)?;
    let mut names = HashMap::new();
    named_records(&envelope, "", &mut names);
    let after = fields(&envelope)
        .find(|field| text(field, "name") == Some("after"))
        .and_then(|field| row_record(field.get("type")?, namespace_of(&envelope, ""), &names))
        .ok_or_else(|| {
            wrong("not a Debezium envelope: it has no field `after` of type null or record")
        })?;
    let columns = columns_of(after);
    let key_schema = parse(key_schema_json)?;
    let key = columns_of(&key_schema)
        .iter()
        .map(|part| {
            columns
                .iter()
                .position(|column| column.name == part.name)
                .ok_or_else(|| {
                    wrong(&format!(
                        "key column `{}` is not a column of `after`",
                        part.name
                    ))
                })
        })
        .collect::<Result<Vec<usize>>>()?;
    if key.is_empty() {
        return Err(wrong(
            "the key schema names no column: the key must be a record",
        ));
    }
    let fallback = || {
        namespace_of(&envelope, "")
            .rsplit('.')
            .next()
            .unwrap_or_default()
    };
    Ok(TableSchema {
        namespace: text(after, SOURCE_SCHEMA).unwrap_or_default().to_owned(),
        name: text(after, SOURCE_TABLE)
            .unwrap_or_else(fallback)
            .to_owned(),
        columns,
        key,
    })
}

/// The columns of a plain record, one that is no envelope.
pub fn columns_of_record(schema_json: &str) -> Result<Vec<Column>> {
    let schema = parse(schema_json)?;
    match text(&schema, "type") {
        Some("record") => Ok(columns_of(&schema)),
        _ => Err(wrong("the schema is not a record, so it has no columns")),
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Data, format!("avro schema: {what}"))
}

fn parse(schema: &str) -> Result<Json> {
    serde_json::from_str(schema)
        .map_err(|error| Error::with_source(Kind::Data, "avro schema: not JSON", error))
}

fn text<'a>(schema: &'a Json, attribute: &str) -> Option<&'a str> {
    schema.get(attribute)?.as_str()
}

fn fields(record: &Json) -> impl Iterator<Item = &Json> {
    record
        .get("fields")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
}

/// The namespace that names inside `schema` belong to.
fn namespace_of<'a>(schema: &'a Json, outer: &'a str) -> &'a str {
    match text(schema, "name").and_then(|name| name.rsplit_once('.')) {
        Some((namespace, _)) => namespace,
        None => text(schema, "namespace").unwrap_or(outer),
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// Collects every record of the document by its full name.
fn named_records<'a>(schema: &'a Json, outer: &'a str, into: &mut HashMap<String, &'a Json>) {
    if let Some(branches) = schema.as_array() {
        for branch in branches {
            named_records(branch, outer, into);
        }
        return;
    }
    if text(schema, "type") == Some("record") {
        let namespace = namespace_of(schema, outer);
        if let Some(name) = text(schema, "name") {
            into.insert(full_name(name, namespace), schema);
        }
        for inner in fields(schema).filter_map(|field| field.get("type")) {
            named_records(inner, namespace, into);
        }
    }
    for inner in ["type", "items", "values"]
        .iter()
        .filter_map(|it| schema.get(it))
    {
        if !inner.is_string() {
            named_records(inner, outer, into);
        }
    }
}

/// The record in a type that is null or a record, spelt out or by name.
fn row_record<'a>(
    kind: &'a Json,
    namespace: &str,
    names: &HashMap<String, &'a Json>,
) -> Option<&'a Json> {
    let mut branches = match kind {
        Json::Array(branches) => branches.iter(),
        single => std::slice::from_ref(single).iter(),
    };
    branches.find_map(|branch| match branch {
        Json::String(name) => names.get(&full_name(name, namespace)).copied(),
        record => (text(record, "type") == Some("record")).then_some(record),
    })
}

fn columns_of(record: &Json) -> Vec<Column> {
    fields(record)
        .filter_map(|field| {
            let name = text(field, COLUMN).or_else(|| text(field, "name"))?;
            let (kind, nullable) = column_type(field.get("type")?)?;
            Some(Column {
                name: name.to_owned(),
                kind,
                nullable,
            })
        })
        .collect()
}

/// The column type of an Avro type and whether it may be null; none when no column can be that.
fn column_type(kind: &Json) -> Option<(ColumnType, bool)> {
    let Some(branches) = kind.as_array() else {
        return Some((single_type(kind)?, false));
    };
    let is_null = |it: &&Json| it.as_str() == Some("null");
    let mut values = branches.iter().filter(|it| !is_null(it));
    match (values.next(), values.next()) {
        (Some(value), None) => Some((single_type(value)?, branches.iter().any(|it| is_null(&it)))),
        _ => None,
    }
}

fn single_type(kind: &Json) -> Option<ColumnType> {
    let base = match kind {
        Json::String(name) => name,
        Json::Object(of) => match of.get("type")? {
            Json::String(name) => name,
            nested => return single_type(nested),
        },
        _ => return None,
    };
    let logical = text(kind, "logicalType").unwrap_or_default();
    let connect = text(kind, "connect.name").unwrap_or_default();
    Some(match (base.as_str(), logical, connect) {
        ("boolean", ..) => ColumnType::Bool,
        ("int", "date", _) | ("int", "", "io.debezium.time.Date" | CONNECT_DATE) => {
            ColumnType::Date
        }
        ("int" | "long", "time-millis" | "time-micros", _) => return None,
        ("int", ..) => ColumnType::Int,
        (
            "long",
            "timestamp-micros" | "",
            MICRO_TIMESTAMP | "io.debezium.time.Timestamp" | "io.debezium.time.NanoTimestamp",
        )
        | ("long", "local-timestamp-millis" | "local-timestamp-micros", _) => ColumnType::Timestamp,
        ("long", "", CONNECT_TIMESTAMP) | ("string", "", "io.debezium.time.ZonedTimestamp") => {
            ColumnType::Timestamptz
        }
        ("long", "timestamp-millis" | "timestamp-micros", _) => ColumnType::Timestamptz,
        ("long", ..) => ColumnType::Long,
        ("float", ..) => ColumnType::Float,
        ("double", ..) => ColumnType::Double,
        ("string", "uuid", _) | ("string", "", "io.debezium.data.Uuid") => ColumnType::Uuid,
        ("string", "", JSON) => ColumnType::Json,
        ("string", ..) => match text(kind, SOURCE_TYPE) {
            Some(name) => ColumnType::Source(SourceType::named(name)),
            None => ColumnType::Text,
        },
        ("bytes", "decimal", _) => ColumnType::Decimal {
            precision: whole(kind, "precision")?.try_into().ok()?,
            scale: whole(kind, "scale").unwrap_or(0).try_into().ok()?,
        },
        ("bytes", ..) => ColumnType::Bytes,
        _ => return None,
    })
}

fn whole(kind: &Json, attribute: &str) -> Option<i64> {
    kind.get(attribute)?.as_i64()
}
