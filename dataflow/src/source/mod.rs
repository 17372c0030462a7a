//! Sources: read topics, decode records, drop duplicates, release rows by epoch.
//!
//! Each worker reads the partitions that it owns ([`partitions`]), decodes their records
//! ([`record_batcher`]), and drops duplicates ([`newest_positions`]). Its source operator
//! ([`operator`]) sends the rows of an epoch once the epoch is bound. Threads beside the workers
//! watch the topics ([`topic_watch`]) and the schema registry ([`registry_watch`]).
//!
//! ```text
//! log ─► partitions ─► record_batcher ─► micro-batches (Cut) ─► operator ─► rows of the epoch
//!        poll          decode, filter     wait for a binding     release
//!                      duplicates         that contains them
//! ```

mod newest_positions;
pub(crate) mod operator;
pub(crate) mod partitions;
pub(crate) mod record_batcher;
pub(crate) mod registry_watch;
pub(crate) mod topic_watch;
