//! The dataflow cluster: SQL views kept up to date by timely and differential dataflow.
//!
//! What flows through here: records of a log's topics are decoded ([`decode`]) into Arrow batches,
//! bound to epochs ([`journal`]), taken through the plan's operators ([`plan`], [`render`]) and
//! written epoch by epoch to the sink ([`sink`]). Inside, a module uses only those above it in
//! this list: failure, plan, decode, store, journal, checkpoint, sink, source, exchange,
//! render, job.

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
mod sync;
mod time;
mod value;
pub mod verify;

pub use tidemill_log::{Error, Kind, Result};

/// A moment of the job: milliseconds since 1970-01-01T00:00:00Z, strictly increasing. All views
/// show the same prefix of the input at one epoch.
pub type Epoch = u64;
