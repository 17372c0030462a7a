//! Change events, Avro schemas, the schema registry and the log: the interface between ingest and
//! dataflow.
//!
//! A row change that ingest captured from a database ([`envelope::event::Change`]) is encoded as a
//! Debezium-style Avro envelope ([`envelope`]) under a schema that a schema registry keeps
//! ([`registry::Registry`]). Ingest appends the encoded record to a replayable, partitioned log
//! ([`log::Log`]); the dataflow reads the record back.
//!
//! ```text
//! ingest                                                                dataflow
//! event::Change ─► envelope::Encoder ─► log::Producer ─► topic ─► log::Reader ─► decode
//!                       │ register                                      │ by_id
//!                       └──────────► registry::Registry ◄───────────────┘
//! ```
//!
//! Ingest and dataflow do not know each other: they share this crate alone. Each trait has two
//! engines, a networked one (Kafka, Confluent's REST API) and an embedded one (SQLite). The URL
//! chooses the engine, and both engines of a trait pass one conformance suite (`tests/`).
//!
//! The rest of the crate is what both sides need besides: [`log::dead_letter`] (input that a stage
//! cannot use), [`error`], [`health`] (state of the services), [`health::lag`] (what waits),
//! [`address`] (URLs with settings), [`address::tls`] (certificates), [`sqlite`] (the embedded
//! file) and [`failpoint`] (crash tests).

pub mod address;
pub mod backoff;
pub mod envelope;
pub mod error;
pub mod failpoint;
pub mod health;
pub mod io;
pub mod log;
pub mod registry;
pub mod schema;
pub mod sqlite;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::{Error, Kind, Result};

/// Locks a mutex. Poisoning is ignored: a thread that panics while it holds a lock ends the
/// process, or it left the value whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
