//! Ingest: fetches an HTTP API on a schedule, lands the records in a database, captures the changes
//! of the database, and publishes them to the log.
//!
//! ```text
//! HTTP API ─► fetch ─► land ─► tables ─► capture ─► publish ─► topics
//!               ▲        │                  │           │
//!            schedule ◄──┘                  └ refused ──┴─► NAME.dead-letters
//! ```
//!
//! The ledger ([`schedule`]) says which page of the API is due. A page ([`fetch`]) becomes rows
//! ([`land`]) in one transaction with its entry in the ledger. [`capture`] reads every committed
//! row change out of the database, and [`publish`] appends it to the log as a Debezium-style Avro
//! envelope. Either half works alone: a pipeline may capture tables that others write.
//!
//! A module uses only those before it in this list: stats, json, config, database, schedule, fetch,
//! land, capture, publish, probe, run. The built-in HTTP API for examples and tests is a crate of
//! its own, `tidemill-randomuser`.

pub mod capture;
pub mod config;
pub mod database;
pub mod fetch;
pub mod json;
pub mod land;
pub mod probe;
pub mod publish;
pub mod run;
pub mod schedule;
pub mod stats;

pub use tidemill_log::{Error, Kind, Result};
