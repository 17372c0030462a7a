//! The commands of the command line, a module each.

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod dataflow;
pub(crate) mod dead_letters;
pub(crate) mod ingest;
pub(crate) mod plan;
pub(crate) mod removal;
pub(crate) mod run;
pub(crate) mod verify;
