//! An Avro table's columns as the registry has them now.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidemill_log::registry::Registry;
use tidemill_log::schema::{Column, SourceType, columns_of_record, table_of};

use super::ir::Envelope;
use super::types;
use crate::{Error, Kind, Result};

/// What the registry says about a topic.
pub(super) struct Registered {
    /// The subject of the value's schema.
    pub(super) subject: String,
    /// The value's Avro schema as registered.
    pub(super) avro: String,
    pub(super) schema: SchemaRef,
    /// For each column, the source's type where it travels as text.
    pub(super) source_types: Vec<Option<SourceType>>,
    /// Names of the record key's columns; empty when keys have no schema.
    pub(super) key: Vec<String>,
}

/// Asks the registry. A subject that is not there yet is of kind `Retry`: its first record
/// registers it.
pub(super) fn fetch(
    table: &str,
    topic: &str,
    envelope: Envelope,
    registry: Option<&dyn Registry>,
) -> Result<Registered> {
    let registry = registry.ok_or_else(|| {
        let what = format!(
            "table `{table}` is Avro, which needs a schema registry, and none is given (or say \
             format = 'json')"
        );
        Error::new(Kind::Data, what)
    })?;
    let subject = format!("{topic}-value");
    let key_subject = format!("{topic}-key");
    let missing = |subject: &str| {
        let what = format!(
            "table `{table}`: the schema registry has no subject `{subject}` yet; it is there \
             when the topic's first record is written"
        );
        Error::new(Kind::Retry, what)
    };
    let avro = registry.latest(&subject)?;
    let avro = avro.ok_or_else(|| missing(&subject))?.schema;
    let key = registry.latest(&key_subject)?;
    let whole = |error: tidemill_log::Error| {
        let what = format!("table `{table}`, subject `{subject}`: {error}");
        Error::with_source(Kind::Data, what, error)
    };
    let (key, columns): (Vec<String>, _) = match envelope {
        Envelope::Debezium => {
            let key = key.ok_or_else(|| missing(&key_subject))?;
            let described = table_of(&avro, &key.schema).map_err(whole)?;
            let key = described.key.iter();
            let key = key.filter_map(|index| Some(described.columns.get(*index)?.name.clone()));
            (key.collect(), described.columns)
        }
        Envelope::Append | Envelope::Upsert => {
            let columns = columns_of_record(&avro).map_err(whole)?;
            let key = match envelope {
                Envelope::Upsert => key_of_record(key, &columns),
                _ => Vec::new(),
            };
            (key, columns)
        }
    };
    let field = |column: &Column| {
        let kind = types::of_column(column.kind);
        Field::new(&column.name, kind, column.nullable)
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let source_types = columns.iter().map(|column| column.kind.source_type());
    Ok(Registered {
        source_types: source_types.collect(),
        subject,
        avro,
        schema: Arc::new(Schema::new(fields)),
        key,
    })
}

/// The key record's fields, when all of them are columns of the value too. A key that is no
/// record (a plain string, say) names no columns.
fn key_of_record(
    key: Option<tidemill_log::registry::Registered>,
    columns: &[Column],
) -> Vec<String> {
    let fields = key.and_then(|key| columns_of_record(&key.schema).ok());
    let names: Vec<String> = fields
        .into_iter()
        .flatten()
        .map(|column| column.name)
        .collect();
    let known = |name: &String| columns.iter().any(|column| column.name == *name);
    if names.iter().all(known) {
        names
    } else {
        Vec::new()
    }
}
