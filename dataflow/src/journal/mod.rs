//! The journal: which offsets belong to which epoch, durable before a row of the epoch is released
//! (invariant 3).
//!
//! Engines: `directory` (`object_store`, put-if-absent objects in a directory) and `sqlite`
//! (the embedded file).

mod directory;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Error, Kind, Result};

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

/// Opens the journal of `job` that `url` names: `file://DIRECTORY` or `sqlite://FILE`. Whatever
/// another process appends from then on fences this one's next append.
pub fn open(url: &str, job: &str) -> Result<Arc<dyn Journal>> {
    if job.is_empty() || job.contains(['/', '\\']) || job.starts_with('.') {
        return Err(Error::new(
            Kind::Data,
            format!("job name `{job}`: expected a name without slashes or a leading dot"),
        ));
    }
    match url.split_once("://") {
        Some(("file", path)) if !path.is_empty() => {
            Ok(Arc::new(directory::Directory::open(path, job)?))
        }
        Some(("sqlite", path)) if !path.is_empty() => {
            Ok(Arc::new(sqlite::Sqlite::open(path, job)?))
        }
        _ => Err(Error::new(
            Kind::Data,
            format!("journal `{url}`: expected file://DIRECTORY or sqlite://FILE"),
        )),
    }
}

/// One binding for many, in epoch order: each partition's last end, at the last epoch.
fn merge(bindings: impl IntoIterator<Item = Binding>) -> Binding {
    let mut merged = Binding {
        epoch: 0,
        ends: Offsets::new(),
    };
    for binding in bindings {
        merged.epoch = binding.epoch;
        for (topic, ends) in binding.ends {
            merged.ends.entry(topic).or_default().extend(ends);
        }
    }
    merged
}

fn check_order(last: Epoch, binding: &Binding) -> Result<()> {
    if binding.epoch > last {
        return Ok(());
    }
    Err(Error::new(
        Kind::Bug,
        format!(
            "journal: epoch {} follows {last}: epochs must increase",
            binding.epoch
        ),
    ))
}

fn fenced(object: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Fence,
        format!("journal `{object}`: another process writes this journal; this one must stop"),
    )
}
