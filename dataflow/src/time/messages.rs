//! What workers and worker 0 tell one another: how far topics were read, where to begin, which
//! epochs are bound.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_log::log::PartitionRange;

use super::commits::Commits;
use crate::Epoch;
use crate::checkpoint::Manifest;
use crate::checkpoint::writer::Written;
use crate::journal::{Binding, Offsets};
use crate::value::source_position::SourcePosition;

/// How far one worker has read one topic.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) topic: String,
    pub(crate) ends: BTreeMap<u32, i64>,
    /// The newest change of each of these partitions there, where their records have places.
    pub(crate) places: BTreeMap<u32, SourcePosition>,
    /// The schemas of its records that no run knew before, by their ids; see
    /// [`super::resume::schemas`].
    pub(crate) schemas: BTreeMap<u32, i64>,
    /// When the records since the last report were committed.
    pub(crate) commits: Commits,
    /// Bytes of the records read since the last report.
    pub(crate) bytes: usize,
    /// What this worker's process wrote for a checkpoint.
    pub(crate) written: Vec<Written>,
    /// This worker's process wants the job to stop.
    pub(crate) stop: bool,
    /// The topic has these partitions since a moment ago.
    pub(crate) added: Vec<Held>,
}

/// What all workers need to know before they read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Partitions of each topic, with the offsets they hold.
    pub(crate) partitions: BTreeMap<String, Vec<Held>>,
    /// The checkpoint that state is restored from.
    pub(crate) checkpoint: Option<Manifest>,
    /// Epochs of earlier runs after the checkpoint, in order.
    pub(crate) bindings: Vec<Binding>,
    /// The last epoch of earlier runs.
    pub(crate) replayed: Option<Epoch>,
    /// Where partitions begin that no earlier run has seen, to be bound with the first epoch; see
    /// [`super::resume`].
    pub(crate) begins: Offsets,
    /// For each sink table the epoch through which it is complete.
    pub(crate) served: Vec<Option<Epoch>>,
}

impl Start {
    /// The epoch through which a sink table is complete.
    pub(crate) fn served(&self, table: usize) -> Option<Epoch> {
        self.served.get(table).copied().flatten()
    }
}

/// A partition and the offsets it holds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) partition: u32,
    /// The first offset.
    pub(crate) low: i64,
    /// One past the last.
    pub(crate) high: i64,
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
    pub(crate) topic: String,
    pub(crate) partitions: Vec<Held>,
}

/// What worker 0 tells every worker, in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Once, first.
    Start(Start),
    /// Partitions were added to a topic; where they begin is bound with the next epoch.
    Added(Added),
    /// An epoch is bound.
    Bind {
        /// Which.
        binding: Binding,
        /// A checkpoint is taken at its end.
        checkpoint: bool,
        /// See [`super::lap`].
        settled: Epoch,
    },
    /// Once, last: release nothing more.
    Stop,
}
