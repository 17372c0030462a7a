//! Decoding: bytes of a topic's records to Arrow columns, only the columns that are used.
//!
//! A [`Decoder`] takes records one by one and gives a batch when asked. A record it cannot decode
//! is refused alone and at once: the rows around it are unharmed.

mod avro;
mod columns;
mod connect;
mod contract;
mod declared_type;
mod duplicates;
mod json;
mod json_key;
mod json_value;
mod kept;
mod scan;
mod text;
mod wire;

pub use self::contract::{Decoder, Effect, Refused};
pub(crate) use self::json_key::bare as bare_key;
use crate::Result;
use crate::plan::ir::{Format, Source};
pub use crate::value::source_position::SourcePosition;

/// The decoder for a source. `registry` resolves the writer schemas of Avro records; while it is
/// away, [`Decoder::push`] waits.
pub fn open(
    source: &Source,
    registry: Option<std::sync::Arc<dyn tidemill_log::registry::Registry>>,
) -> Result<Box<dyn Decoder>> {
    Ok(match &source.format {
        Format::Json(spelling) => Box::new(json::Json::new(source, *spelling)?),
        Format::Avro {
            schema,
            newest,
            key,
        } => {
            let planned = (schema.as_str(), *newest);
            Box::new(avro::Avro::new(source, planned, key.as_ref(), registry)?)
        }
    })
}
