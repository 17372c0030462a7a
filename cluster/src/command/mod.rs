//! The commands of the command line, a module each.
//!
//! | module | commands |
//! |---|---|
//! | [`run`] | `run`: ingest and dataflow in one process, with a live display |
//! | [`ingest`], [`dataflow`] | one component; also as the child of a worker |
//! | [`check`], [`plan`] | `check`, `explain` and `plan`: look, and change nothing |
//! | [`verify`] | `verify`: compare the tables of views with what they should hold |
//! | [`dead_letters`] | `dead-letters list`, `show`, `replay` |
//! | [`removal`] | `reset` and `drop` |
//! | [`client`] | what talks to a master: `submit`, `status`, `logs`, … |
//!
//! A command is a function from its flags to a result. It opens what it needs and starts its own
//! logging.

pub(crate) mod alerts;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod dataflow;
pub(crate) mod dead_letters;
pub(crate) mod ingest;
pub(crate) mod plan;
pub(crate) mod removal;
pub(crate) mod run;
pub(crate) mod verify;
