//! Checkpoints: the state of a job at one epoch, in the object store.
//!
//! The state is that of the *leading* stateful operators, those whose input does not come out of
//! other state: everything below them is computed anew from them. Each of their arrangements is a
//! *site*. What flows in are the changes of a site since the checkpoint before, added up; they are
//! written as one more *run* of the site ([`writer`]), so a checkpoint costs what changed. Runs are
//! merged in the background ([`merge`]). A run is cut into 256 shards by key, in files of bounded
//! size ([`part`]); a restart reads the shards of all runs with any number of workers ([`read`]).
//!
//! Invariants:
//! 1. A checkpoint exists when the journal says so: its parts, then its manifest, then the
//!    journal's entry become durable, in this order. Whoever was overtaken by a newer generation
//!    cannot write the entry.
//! 2. It is written only when the sink has everything through its epoch: a restart from it writes
//!    nothing at or below that epoch again.
//! 3. Parts are never changed, and deleted only when neither of the last two checkpoints names
//!    them. So a damaged checkpoint leaves the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::journal::{Binding, Checkpointed, Offsets, Places};
use crate::store::Store;
use crate::{Epoch, Error, Kind, Result};

mod change;
mod merge;
mod part;
mod read;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use change::SHARDS;
pub(crate) use change::{Change, Changes, Entry, Latest, Sum};
use part::{Part, damaged};
pub(crate) use read::Reader;

/// The format of manifests and of the parts that they name; changes with their layout and with how
/// rows or changes are encoded. Since 2 rows have their positions in the source; what 1 wrote is
/// read as rows without, also from parts that a newer manifest names.
const FORMAT: u32 = 2;
/// The oldest format that is read.
const FORMAT_MIN: u32 = 1;
/// Parts that are verified at a time; each is in memory meanwhile.
const VERIFIED_MAX: usize = 4;

/// The state of one site: the sum of its runs, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) sum: Sum,
    pub(crate) runs: Vec<Run>,
}

/// What one checkpoint, or one merge, wrote of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) parts: Vec<Part>,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The epoch whose end it holds the state of.
    pub(crate) epoch: Epoch,
    /// Where each partition ends at that epoch.
    pub(crate) ends: Offsets,
    /// The newest change of each partition there; a version before kept none.
    #[serde(default)]
    pub(crate) places: Places,
    /// State by site. A site without any state has no runs.
    pub(crate) sites: BTreeMap<String, State>,
}

impl Manifest {
    /// The state at the end of `at`, which says how far each partition was read by then.
    pub(crate) fn new(at: Binding, sites: BTreeMap<String, State>) -> Self {
        Self {
            format: FORMAT,
            epoch: at.epoch,
            ends: at.ends,
            places: at.places,
            sites,
        }
    }

    /// The epoch, and how far each partition was read at its end: an epoch like those that were
    /// bound after it.
    pub(crate) fn at(&self) -> Binding {
        Binding {
            epoch: self.epoch,
            ends: self.ends.clone(),
            places: self.places.clone(),
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

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts().map(|(_, part)| part.bytes).sum()
    }

    /// Entries of all parts.
    pub(crate) fn entries(&self) -> u64 {
        self.parts().map(|(_, part)| part.entries).sum()
    }

    /// As an object: the checksum of the rest on a line, then JSON.
    fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::with_source(Kind::Bug, "a manifest makes no JSON", error))?;
        Ok(format!("{:016x}\n{json}", xxh3_64(json.as_bytes())).into_bytes())
    }

    /// Reads a manifest; the inner error says how it is damaged. One of another format is an error
    /// and no damage: going on without it would throw away what another version can read.
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
                Ok(serde_json::from_value(manifest).map_err(unreadable))
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

    /// Reads every part through, so that damage is found before anything is built on it.
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

/// The newest checkpoint that is whole. A damaged one is logged, and the one before is taken; when
/// none is left, the topics are read from their beginning. One of another format is refused.
pub(crate) fn newest(store: &dyn Store, checkpoints: &[Checkpointed]) -> Result<Option<Manifest>> {
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

/// The folder of a job's checkpoints.
fn folder(job: &str) -> String {
    format!("{job}/checkpoint")
}
