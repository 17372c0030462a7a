//! The life of a job in one process: its start, its workers, its frontier and its end.

pub(crate) mod filled_anew;
pub(crate) mod frontier_writer;
pub(crate) mod host;
pub mod preview;
pub(crate) mod retyped_sources;
mod source_streams;
