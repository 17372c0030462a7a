//! Record decoding: bytes of a topic's records to Arrow columns, only the columns that are used.
//!
//! A [`Decoder`] takes records one by one and returns a batch on request. A record that cannot be
//! decoded is refused alone and at once; the rows around it are not affected.
//!
//! | module | contents |
//! |---|---|
//! | `contract` | the trait [`Decoder`] |
//! | `avro` | Confluent's wire format: schemas by id, compiled decoding programs |
//! | `json`, `scan` | JSON objects and Debezium's JSON; a scanner that builds nothing |
//! | `json_value`, `wire`, `text` | values as cells |
//! | `duplicates` | duplicates by source position |
//! | `columns` | cells to Arrow columns |

mod avro;
mod columns;
mod contract;
mod duplicates;
mod json;
mod kept;
mod text;
mod wire;

use tidemill_ir::{Format, Source};
use tidemill_log::Result;

pub use self::contract::{Decoder, Effect, Refused, Rest};
pub use json::key::bare as bare_key;
pub use tidemill_state::value::source_position::SourcePosition;

/// The decoder of a source. The registry resolves the writer schemas of Avro records. While it is
/// away, [`Decoder::push`] blocks.
///
/// # Errors
/// `Data` when the source is Avro and no registry is given, or a column's type cannot be decoded.
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
