//! Messages of the control dataflow: [`Report`] from a worker to worker 0, [`Command`] from worker
//! 0 to all workers.
//!
//! Messages cross processes, so they are serializable. A worker's reports of one topic arrive in
//! the order in which the worker sent them, and so do the commands of worker 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_ir::Epoch;
use tidemill_log::log::PartitionRange;
use tidemill_state::checkpoint::Manifest;
use tidemill_state::checkpoint::writer::Written;
use tidemill_state::journal::{Binding, Facts};
use tidemill_state::value::source_position::SourcePosition;

use super::commits::Commits;

/// What one worker read of one topic since its last report, or another message to worker 0.
///
/// Fields that a report does not use keep their default values.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The topic; empty in a report about checkpoints or a stop.
    pub(crate) topic: String,
    /// The end offset (one past the last record read) of each partition that moved.
    pub(crate) ends: BTreeMap<u32, i64>,
    /// The source position of the newest change below `ends`, by partition. A partition whose
    /// records carry no source position is absent.
    pub(crate) positions: BTreeMap<u32, SourcePosition>,
    /// Schemas that the worker met and that no earlier run had noted: a fingerprint by schema id;
    /// see [`super::resume::schemas`].
    pub(crate) schemas: BTreeMap<u32, i64>,
    /// Commit times (ms) of the records since the last report.
    pub(crate) commits: Commits,
    /// Bytes of the records read since the last report.
    pub(crate) bytes: usize,
    /// The parts that this worker's process wrote for a checkpoint.
    pub(crate) written: Vec<Written>,
    /// Whether the worker's process was told to stop the job.
    pub(crate) stop: bool,
    /// Partitions that the topic gained while the job runs.
    pub(crate) added: Vec<Held>,
}

/// What every worker must know before it reads: where to resume, and what to replay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The partitions of each topic, with the offsets that they held when the job started.
    pub(crate) partitions: BTreeMap<String, Vec<Held>>,
    /// The checkpoint that state is restored from; `None` when the topics are read from the
    /// beginning.
    pub(crate) checkpoint: Option<Manifest>,
    /// The bindings of earlier runs after the checkpoint, by increasing epoch. They are replayed.
    pub(crate) bindings: Vec<Binding>,
    /// The last epoch that an earlier run bound; `None` on the first run.
    pub(crate) replayed: Option<Epoch>,
    /// What the first epoch of this run binds in addition: what was learned of the topics at this
    /// start, such as the start offsets of partitions that no earlier run has read; see
    /// [`super::resume`].
    pub(crate) facts: Facts,
    /// For each sink table, in the order of the plan: the frontier through which the table is
    /// complete.
    pub(crate) served: Vec<Option<Epoch>>,
    /// The generation of this run; 0 for an evaluation, which writes nothing.
    pub(crate) generation: u64,
}

impl Start {
    /// The epoch through which a sink table is complete; `None` when the table has no frontier.
    pub(crate) fn served(&self, table: usize) -> Option<Epoch> {
        self.served.get(table).copied().flatten()
    }
}

/// A partition and the range of offsets that the log holds of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that the log still holds.
    pub low: i64,
    /// One past the last offset.
    pub high: i64,
}

impl From<PartitionRange> for Held {
    fn from(range: PartitionRange) -> Self {
        Self {
            partition: range.partition,
            low: range.low,
            high: range.high,
        }
    }
}

/// Partitions that were added to a topic while the job runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Added {
    /// The topic.
    pub(crate) topic: String,
    /// The new partitions, with the offsets that they held when they were found.
    pub(crate) partitions: Vec<Held>,
}

/// A message from worker 0 to every worker. All workers receive the same commands in the same
/// order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The first command, sent once.
    Start(Start),
    /// Partitions were added to a topic. Their start offsets are bound with the next epoch.
    Added(Added),
    /// An epoch is bound: its binding is durable, and its rows may be released.
    Bind {
        /// The epoch and its end offsets.
        binding: Binding,
        /// Whether a checkpoint is taken at the end of this epoch.
        checkpoint: bool,
        /// The epoch through which all partitions have been read completely; see [`super::lap`].
        settled: Epoch,
    },
    /// The last command, sent once: no source releases another row.
    Stop,
}
