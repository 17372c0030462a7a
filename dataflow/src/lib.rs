//! SQL views, maintained incrementally by timely and differential dataflow (`tidemill-dataflow`).
//!
//! ```text
//! log ─► decode ─► source ─► (bind epoch: journal) ─► plan's operators: render ─► sink
//!        Arrow      reads      time::binder          exchange between workers     tables, frontier
//!                                                      └─► checkpoint ─► store
//! ```
//!
//! Records of a log's topics are decoded ([`decode`]) into Arrow batches, bound to epochs
//! ([`journal`]), taken through the plan's operators ([`plan`], `render`), and written to the
//! sink epoch by epoch ([`sink`]). A [`job`] runs all of this.
//!
//! A module uses only the modules above it in the table of `ARCHITECTURE.md`; a test compares the
//! table with the imports.

mod checkpoint;
mod chunk;
mod config;
mod context;
pub mod decode;
pub mod exchange;
mod failure;
mod frontier_writer;
mod host;
pub mod job;
pub mod journal;
mod operators;
pub mod plan;
pub mod preview;
mod render;
mod retyped_sources;
mod row;
mod row_counts;
pub mod sink;
mod site;
mod source;
mod stats;
pub mod store;
mod time;
mod value;
pub mod verify;

pub use tidemill_log::{Error, Kind, Result};

/// A timestamp of the job: ms since 1970-01-01T00:00:00Z, strictly increasing. At one epoch, all
/// views show the same prefix of the input.
pub type Epoch = u64;
