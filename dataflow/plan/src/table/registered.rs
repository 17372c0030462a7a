//! The columns of an Avro table, as the schema registry describes them now.
//!
//! | envelope | columns | key |
//! |---|---|---|
//! | debezium | the fields of `after` | the fields of the key's schema |
//! | upsert | the fields of the value | the fields of the key's schema, if there is one |
//! | append | the fields of the value | none |
//!
//! The newest versions count. The decoder reads records of older versions by Avro's schema
//! resolution.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use tidemill_ir::{Envelope, KeySchema, types};
use tidemill_log::registry::Registry;
use tidemill_log::schema::{
    Column, Fields, SourceType, Unusable, columns_of_envelope, columns_of_record, key_of,
};
use tidemill_log::{Error, Kind, Result};

/// What the registry says about a topic.
pub(crate) struct Registered {
    /// The subject of the value's schema.
    pub(crate) subject: String,
    /// The value's Avro schema, as registered.
    pub(crate) avro: String,
    /// The newest version of the value's subject.
    pub(crate) newest: u32,
    /// The table's columns.
    pub(crate) schema: SchemaRef,
    /// For each column: the source's type, if values of it travel as text.
    pub(crate) source_types: Vec<Option<SourceType>>,
    /// The key's schema, if keys have one.
    pub(crate) key_schema: Option<KeySchema>,
    /// The names of the record key's columns; empty if keys have no schema.
    pub(crate) key: Vec<String>,
    /// The fields that cannot be columns.
    pub(crate) unusable: Vec<Unusable>,
}

/// Asks the registry for the subjects `TOPIC-value` and `TOPIC-key`.
///
/// # Errors
/// `Retry` when the registry is away, or a subject does not exist yet (the topic's first record
/// registers it). `Data` when no registry is given, or a schema cannot describe a table.
pub(crate) fn fetch(
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
    let registered = avro.ok_or_else(|| missing(&subject))?;
    let (avro, newest) = (registered.schema, registered.version);
    let key = registry.latest(&key_subject)?;
    let key_schema = key.as_ref().map(|key| KeySchema {
        schema: key.schema.clone(),
        version: key.version,
    });
    let whole = |error: tidemill_log::Error| {
        let what = format!("table `{table}`, subject `{subject}`: {error}");
        Error::with_source(Kind::Data, what, error)
    };
    let (fields, key) = match envelope {
        Envelope::Debezium => {
            let key = key.ok_or_else(|| missing(&key_subject))?;
            let fields = columns_of_envelope(&avro).map_err(whole)?;
            let key = key_of(&key.schema).map_err(whole)?;
            (fields, key)
        }
        Envelope::Append | Envelope::Upsert => {
            let fields = columns_of_record(&avro).map_err(whole)?;
            let key = match (envelope, key) {
                (Envelope::Upsert, Some(key)) => key_of(&key.schema).unwrap_or_default(),
                _ => Vec::new(),
            };
            (fields, key)
        }
    };
    let Fields { columns, unusable } = fields;
    let key = key_columns(key, &columns, &unusable, envelope).map_err(whole)?;
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
        newest,
        key_schema,
        unusable,
    })
}

/// The key's columns, if all of them are columns of the row. If one of them cannot be a column, the
/// others are not unique together, so no key is known.
///
/// # Errors
/// `Data` when a key column of a Debezium topic is missing in `after`: key and value do not belong
/// together.
fn key_columns(
    key: Vec<String>,
    columns: &[Column],
    unusable: &[Unusable],
    envelope: Envelope,
) -> tidemill_log::Result<Vec<String>> {
    let is_column = |name: &&String| columns.iter().any(|column| column.name == **name);
    let Some(other) = key.iter().find(|name| !is_column(name)) else {
        return Ok(key);
    };
    if envelope == Envelope::Debezium && unusable.iter().all(|field| field.name != *other) {
        let what = format!("avro schema: key column `{other}` is not a column of `after`");
        return Err(tidemill_log::Error::new(Kind::Data, what));
    }
    Ok(Vec::new())
}
