//! The journal: which offsets belong to which epoch, durable before a row of the epoch is released
//! (invariant 3).
//!
//! Engines: [`directory`] (`object_store`, put-if-absent objects in a directory) and [`sqlite`]
//! (the embedded file).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Result};

/// End offsets (one past the last record) by topic and partition.
pub type Offsets = BTreeMap<String, BTreeMap<u32, i64>>;

/// One epoch: every record below `ends` that no earlier epoch holds belongs to it. Partitions that
/// did not move since the epoch before are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch, in milliseconds; strictly increasing.
    pub epoch: Epoch,
    /// Where each moved partition ends.
    pub ends: Offsets,
}

/// Where bindings are kept. Written by worker 0's process only; read by all at start.
pub trait Journal: Send + Sync {
    /// All bindings, in epoch order.
    fn read(&self) -> Result<Vec<Binding>>;
    /// Appends a binding durably. An error of kind `Fence` when a binding of the same number is
    /// there already: another process writes this journal, and this one must stop.
    fn append(&self, binding: &Binding) -> Result<()>;
    /// Merges all bindings at or below `epoch` into one at the greatest of their epochs (they were
    /// all served: the sink's frontier is at or above it).
    fn collapse(&self, epoch: Epoch) -> Result<()>;
}

/// Opens the journal of `job` that `url` names: `file://DIRECTORY` or `sqlite://FILE`.
pub fn open(url: &str, job: &str) -> Result<Arc<dyn Journal>> {
    let _ = job;
    Err(crate::Error::new(
        crate::Kind::Bug,
        format!("`{url}`: no engine yet"),
    ))
}
