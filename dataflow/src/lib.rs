//! SQL views, maintained incrementally by timely and differential dataflow (`tidemill-dataflow`).
//!
//! ```text
//! log ─► decode ─► source ─► (bind epoch: journal) ─► operators of the plan ─► sink
//!        Arrow     reads     epoch::binder            exchange between workers  tables, frontier
//!                                                      └─► checkpoint ─► store
//! ```
//!
//! Records of a log's topics are decoded (`tidemill-decode`) into Arrow batches, bound to epochs
//! (the journal of `tidemill-state`), taken through the operators of a plan (`tidemill-ir`), and
//! written to a sink epoch by epoch (`tidemill-sinks`). A [`job`] runs all of this.
//!
//! A module uses only the modules above it in the table of `ARCHITECTURE.md`; a test compares the
//! table with the imports.

mod chunk;
mod config;
mod context;
mod epoch;
pub mod exchange;
pub mod job;
mod operator;
pub mod runtime;
mod source;
mod stats;
pub mod verify;
