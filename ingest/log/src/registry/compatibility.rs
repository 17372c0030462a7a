//! Schema compatibility by Avro's schema resolution: BACKWARD, as registries call it.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use crate::{Error, Kind, Result};

/// Whether a reader with the schema `reader` can read every record that was written with `writer`.
/// The inner error says why not.
///
/// # Errors
/// `Data` when one of the two is not an Avro schema.
pub(crate) fn can_read(writer: &str, reader: &str) -> Result<std::result::Result<(), String>> {
    let (writer, reader) = (parse(writer)?, parse(reader)?);
    Ok(match SchemaCompatibility::can_read(&writer, &reader) {
        Ok(Compatibility::Full) => Ok(()),
        // Partial: readable only as long as no value uses a removed branch of a union. Like
        // Confluent's registry, refuse that: every value that may have been written must be
        // readable.
        Ok(Compatibility::Partial) => {
            Err("a field's type was changed, or it may no longer be null".to_owned())
        }
        Err(error) => Err(error.to_string()),
    })
}

/// Parses a schema.
fn parse(schema: &str) -> Result<Schema> {
    Schema::parse_str(schema)
        .map_err(|error| Error::with_source(Kind::Data, "not an Avro schema", error))
}
