//! Checkpoints: the state of a job at one epoch, in the state store.
//!
//! A checkpoint contains the state of the *leading* stateful operators: those whose input does not
//! come from other state. All state below them is computed again from theirs. Each arrangement of a
//! leading operator is a *site*. Input: the changes of a site since the previous checkpoint. They
//! are written as one more *run* of the site ([`writer`]), so the cost of a checkpoint depends on
//! what changed and not on the size of the state. Runs are merged in the background (`merge`). A
//! run is cut into 256 shards by key, in files (*parts*) of bounded size (`part`). A restart
//! reads the shards of all runs with any number of workers (`read`).
//!
//! ```text
//!            every process                        process of worker 0
//!            -------------                        -------------------
//! epoch c:   operators seal their changes
//!            writer: parts of c  ── durable ──►   all processes have written, the sink has c
//!                                           1. manifest of c           (names all parts)
//!                                           2. journal: checkpoint c   (c now counts)
//!                                           3. delete what only older checkpoints need
//!                                           4. truncate the journal through the older one
//!                                           5. merge runs; the next manifest names the result
//! ```
//!
//! A crash before step 2 leaves objects that the next start deletes.
//!
//! Invariants:
//! 1. A checkpoint exists if the journal names it. Its parts, then its manifest, then the journal's
//!    entry become durable, in this order. A process that was fenced by a newer generation cannot
//!    write the entry.
//! 2. A checkpoint is committed only after the sink is durable through its epoch. Therefore a
//!    restart from it writes nothing at or below that epoch again.
//! 3. Parts are never changed. A part is deleted only when neither of the last two checkpoints
//!    names it. Therefore the previous checkpoint is usable if the last one is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::journal::{Binding, Checkpointed, Facts, Offsets, Positions, topic_facts};
use crate::store::Store;

mod change;
mod merge;
mod part;
mod read;
pub mod writer;

#[cfg(test)]
mod tests;

use change::SHARDS;
pub use change::{Change, Changes, Entry, Latest, Sum};
use part::{Part, damaged};
pub use read::Reader;

/// The format version of manifests and parts. It changes with their layout and with the encoding of
/// rows or changes. In format 2 rows have source positions. Format 1 is read as rows without source
/// positions, also from parts of format 1 that a manifest of a later format names. In format 3 a
/// manifest has facts about topics; before, they were among its offsets. Parts are as in format 2.
const FORMAT: u32 = 3;
/// The first format in which facts about topics are apart from offsets.
const FACTS_FROM: u32 = 3;
/// The format version of parts.
const PART_FORMAT: u32 = 2;
/// The oldest format that this version reads.
const FORMAT_MIN: u32 = 1;
/// The number of parts that are verified at the same time. Each is in memory meanwhile.
const VERIFIED_MAX: usize = 4;

/// The state of one site: the sum of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How the entries add up.
    pub(crate) sum: Sum,
    /// The runs, oldest first.
    pub(crate) runs: Vec<Run>,
}

/// The entries of a site that one checkpoint, or one merge, wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The run's parts, by ascending shards. A shard is never split between two parts.
    pub(crate) parts: Vec<Part>,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// The manifest of a checkpoint: names every object that the checkpoint needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version that the manifest was written in.
    format: u32,
    /// The checkpoint holds the state at the end of this epoch.
    pub epoch: Epoch,
    /// The end offset of each partition at the end of this epoch.
    pub ends: Offsets,
    /// The source position of the newest change of each partition there. Empty in manifests of
    /// versions that kept none.
    #[serde(default, alias = "places")]
    pub positions: Positions,
    /// What was learned of the topics through this epoch.
    #[serde(default)]
    pub facts: Facts,
    /// State by site. A site without state has no runs.
    pub sites: BTreeMap<String, State>,
}

impl Manifest {
    /// The manifest of the state at the end of `at`.
    pub(crate) fn new(at: Binding, sites: BTreeMap<String, State>) -> Self {
        Self {
            format: FORMAT,
            epoch: at.epoch,
            ends: at.ends,
            positions: at.positions,
            facts: at.facts,
            sites,
        }
    }

    /// The manifest with its facts apart from its offsets, among which earlier formats kept them.
    fn with_facts(mut self) -> Self {
        if self.format < FACTS_FROM {
            self.facts = topic_facts::split(&mut self.ends);
        }
        self
    }

    /// The epoch, end offsets, source positions and facts, in the form of a binding. It stands for
    /// all bindings through the checkpoint.
    pub fn at(&self) -> Binding {
        Binding {
            epoch: self.epoch,
            ends: self.ends.clone(),
            positions: self.positions.clone(),
            facts: self.facts.clone(),
        }
    }

    fn parts(&self) -> impl Iterator<Item = (Sum, &Part)> {
        let runs = self.sites.values();
        let runs = runs.flat_map(|state| state.runs.iter().map(|run| (state.sum, run)));
        runs.flat_map(|(sum, run)| run.parts.iter().map(move |part| (sum, part)))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.parts().map(|(_, part)| part.name.as_str()).collect()
    }

    /// The size of all parts, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts().map(|(_, part)| part.bytes).sum()
    }

    /// The number of entries in all parts.
    pub fn entries(&self) -> u64 {
        self.parts().map(|(_, part)| part.entries).sum()
    }

    /// The manifest as an object: the checksum (XXH3-64, hex) of the JSON on a line, then the JSON.
    fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::with_source(Kind::Bug, "a manifest makes no JSON", error))?;
        Ok(format!("{:016x}\n{json}", xxh3_64(json.as_bytes())).into_bytes())
    }

    /// Reads a manifest. The inner error says how it is damaged. An unknown format is an outer
    /// error, because another version can read it: continuing without it would throw that state
    /// away.
    fn read(store: &dyn Store, name: &str) -> Result<Result<Self>> {
        let Some(bytes) = store.get(name)? else {
            return Ok(Err(damaged(name, "it is missing")));
        };
        let text = String::from_utf8_lossy(&bytes);
        let (checksum, json) = text.split_once('\n').unwrap_or_default();
        if checksum != format!("{:016x}", xxh3_64(json.as_bytes())) {
            return Ok(Err(damaged(name, "its checksum is wrong")));
        }
        let unreadable = |error: serde_json::Error| damaged(name, &error.to_string());
        let manifest: serde_json::Value = match serde_json::from_str(json) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Err(unreadable(error))),
        };
        match manifest.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if (u64::from(FORMAT_MIN)..=u64::from(FORMAT)).contains(&format) => {
                let read: std::result::Result<Self, _> = serde_json::from_value(manifest);
                Ok(read.map(Self::with_facts).map_err(unreadable))
            }
            format => {
                let what = format!(
                    "checkpoint `{name}` has format {}, this version of tidemill reads \
                     {FORMAT_MIN} to {FORMAT}: start it with the version that wrote it, or remove \
                     the checkpoints to read the topics from their beginning",
                    format.unwrap_or_default()
                );
                Err(Error::new(Kind::Data, what))
            }
        }
    }

    /// Reads every part and compares its checksums, so that damage is found before state is built
    /// on it.
    fn verify(&self, store: &dyn Store) -> Result<()> {
        let parts: Vec<_> = self.parts().collect();
        let next = AtomicUsize::new(0);
        let verify = || -> Result<()> {
            while let Some((sum, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                part::OpenPart::open(store, part, *sum)?.read(store, 0..SHARDS)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = (1..VERIFIED_MAX.min(parts.len())).map(|_| scope.spawn(verify));
            let threads: Vec<_> = threads.collect();
            let mine = verify();
            let others = threads.into_iter().map(|thread| {
                let gone =
                    |_| Error::new(Kind::Bug, "a thread that verified a checkpoint panicked");
                thread.join().map_err(gone)?
            });
            others.fold(mine, Result::and)
        })
    }
}

/// The newest checkpoint that is whole. A damaged checkpoint is logged, and the one before it is
/// tried. The result is `None` when no checkpoint is left; the topics are then read from their
/// beginning.
///
/// # Errors
/// Errors of the store other than `Data`. `Data` when a manifest has a format that this version
/// does not read.
pub fn newest(store: &dyn Store, checkpoints: &[Checkpointed]) -> Result<Option<Manifest>> {
    for checkpoint in checkpoints.iter().rev() {
        let manifest = Manifest::read(store, &checkpoint.manifest)?;
        match manifest.and_then(|manifest| manifest.verify(store).map(|()| manifest)) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error) if error.kind() == Kind::Data => {
                let epoch = checkpoint.epoch;
                tracing::error!(%error, epoch, "checkpoint cannot be used; trying the one before");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The folder of a job's checkpoints, `JOB/checkpoint`.
fn folder(job: &str) -> String {
    format!("{job}/checkpoint")
}
