//! What a job keeps across restarts (`tidemill-state`): objects in a store, the journal of epochs,
//! checkpoints, and the values that operators keep in them.
//!
//! ```text
//! value ─► checkpoint ─► store (a directory, S3, SQLite)
//!             journal ──────┘
//! ```
//!
//! Nothing here knows an operator, and nothing runs a dataflow.

pub mod checkpoint;
pub mod failure;
pub mod journal;
pub mod store;
pub mod value;
