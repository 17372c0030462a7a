//! The seam between ingest and dataflow.
//!
//! What flows through here: a row change captured from a database ([`event::Change`]) is encoded
//! as a Debezium-style Avro envelope ([`envelope`]) under a schema kept in a registry
//! ([`registry::Registry`]) and appended to a replayable, partitioned log ([`log::Log`]).
//! Ingest writes it; dataflow reads it back. Both engines of every trait, the networked one and
//! the embedded SQLite one, are chosen by URL and pass one conformance suite.

pub mod address;
pub mod backoff;
pub mod dead_letter;
pub mod envelope;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod health;
pub mod log;
pub mod registry;
pub mod schema;
pub mod sqlite;
pub mod tls;
pub mod waits;

pub use error::{Error, Kind, Result};
