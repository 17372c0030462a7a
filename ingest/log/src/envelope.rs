//! Change events as records of the log: Debezium's envelope in Avro, in Confluent's wire format.
//!
//! [`Encoder`] turns a [`Change`](crate::event::Change) into a [`Record`](crate::log::Record) and
//! registers the table's schemas; [`Decoder`] reads it back, for tools, tests and for a publisher
//! that wants to know how far a topic reaches. (The dataflow decodes in columns, elsewhere.)
//!
//! Invariants: the same change gives the same bytes, whenever it is encoded; the key holds the
//! primary key alone, so all changes of a row are in one partition, in order. An update that
//! changes the primary key must come as a delete and a create, which is what Debezium does.

mod decode;
mod encode;

pub use decode::{Decoder, Place};
pub use encode::Encoder;

/// `source.connector` of the records that are ours.
const CONNECTOR: &str = "tidemill";
