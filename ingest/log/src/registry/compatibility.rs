//! Whether records of one schema are readable with another: Avro's rules, which registries call
//! BACKWARD.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use crate::{Error, Kind, Result};

/// Whether a reader with the schema `reader` can read every record that `writer` wrote; the inner
/// error says why not.
///
/// # Errors
/// Of kind `Data` when one of the two is no Avro schema.
pub(crate) fn can_read(writer: &str, reader: &str) -> Result<std::result::Result<(), String>> {
    let (writer, reader) = (parse(writer)?, parse(reader)?);
    Ok(match SchemaCompatibility::can_read(&writer, &reader) {
        Ok(Compatibility::Full) => Ok(()),
        // Readable only while no value uses a branch of a union that is gone, as Confluent sees it
        // too: every value that may have been written has to be readable.
        Ok(Compatibility::Partial) => {
            Err("a field's type was changed, or it may no longer be null".to_owned())
        }
        Err(error) => Err(error.to_string()),
    })
}

fn parse(schema: &str) -> Result<Schema> {
    Schema::parse_str(schema)
        .map_err(|error| Error::with_source(Kind::Data, "not an Avro schema", error))
}
