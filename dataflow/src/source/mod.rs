//! Sources: topics become rows of epochs.
//!
//! A worker reads the partitions that it owns ([`partitions`]), decodes their records
//! ([`record_batcher`]), and drops duplicates ([`newest_positions`]); its source operator
//! ([`operator`]) sends what an epoch holds once the epoch is bound. Threads beside the workers
//! watch the topics ([`topic_watch`]) and the registry ([`registry_watch`]).

mod newest_positions;
pub(crate) mod operator;
pub(crate) mod partitions;
pub(crate) mod record_batcher;
pub(crate) mod registry_watch;
pub(crate) mod topic_watch;
