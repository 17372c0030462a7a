//! Ingest: fetch an API on a schedule, land it in a database, capture the database's changes,
//! publish them to the log.
//!
//! What flows through here: pages of an HTTP API ([`fetch`]), asked for when the ledger says so
//! ([`schedule`]), land as rows ([`land`]); [`capture`] reads every committed row change back out
//! of the database and [`publish`] appends it to the log as a Debezium-style Avro envelope.
//! Inside, a module uses only those above it in this list: json, config, server, database,
//! schedule, fetch, land, letters, capture, publish, run; [`randomuser`], the built-in API, uses
//! none of them.

pub mod capture;
pub mod config;
mod database;
pub mod fetch;
pub mod json;
pub mod land;
mod letters;
pub mod publish;
pub mod randomuser;
pub mod run;
pub mod schedule;
pub mod server;
pub mod stats;

pub use tidemill_log::{Error, Kind, Result};
