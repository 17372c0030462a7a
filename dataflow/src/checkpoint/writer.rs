//! The thread that makes checkpoints durable, one in each process.
//!
//! In flow the added-up changes of each site of this process's workers, and, in worker 0's process,
//! the word that an epoch's checkpoint may be committed: all processes have written theirs and the
//! sink has the epoch. Out flow parts, manifests and the journal's entries. Afterwards old parts
//! are deleted, the journal is truncated and runs are merged, all beside the dataflow.
//!
//! Limits: one checkpoint is under way at a time, so at most one message a site and worker waits.
//! While the store is away or full the changes wait in memory, added up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidemill_log::failpoint;
use xxhash_rust::xxh3::xxh3_64;

use super::change::{Block, SHARDS, Sum, add_up};
use super::merge::{self, Parts};
use super::{Manifest, Run, State, folder};
use crate::failure::{Failure, patiently};
use crate::journal::{Binding, Checkpointed, Journal};
use crate::store::Store;
use crate::{Epoch, Result};

/// The changes of one site on one worker through an epoch.
pub(crate) struct Sealed {
    pub(crate) epoch: Epoch,
    pub(crate) site: Arc<str>,
    pub(crate) sum: Sum,
    /// A block a shard, or none; not added up.
    pub(crate) blocks: Vec<Block>,
    /// So many of these make a process's checkpoint.
    pub(crate) of: usize,
}

/// What one process wrote for an epoch's checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) epoch: Epoch,
    sites: BTreeMap<String, (Sum, Run)>,
}

/// An epoch's checkpoint, complete but for its manifest.
pub(crate) struct Commit {
    /// The epoch, and how far each partition was read at its end.
    pub(crate) at: Binding,
    pub(crate) written: Vec<Written>,
}

/// Checkpoints that are kept: one that was damaged leaves another.
const KEPT: usize = 2;

enum Task {
    Lead(Leading),
    Sealed(Sealed),
    Commit(Commit),
}

/// How workers reach the thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer {
    tasks: Sender<Task>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    written: Mutex<Vec<Written>>,
    committed: AtomicU64,
    /// Bytes that the last one wrote, and of all that it needs.
    sizes: Mutex<(u64, u64)>,
}

impl Shared {
    fn push(&self, written: Written) {
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(written);
    }
}

/// What the thread works with.
pub(crate) struct Writing {
    pub(crate) job: String,
    /// This process's index among the job's.
    pub(crate) process: usize,
    pub(crate) store: Arc<dyn Store>,
}

/// What only worker 0's process has.
pub(crate) struct Leading {
    pub(crate) journal: Arc<Journal>,
    pub(crate) generation: u64,
    /// What the journal says there is.
    pub(crate) checkpoints: Vec<Checkpointed>,
    /// The checkpoint that this run began with.
    pub(crate) restored: Option<Manifest>,
}

impl Leading {
    fn live(&mut self, store: &dyn Store) -> Live {
        let Some(restored) = self.restored.take() else {
            return Live::default();
        };
        let sites = restored.sites.clone();
        let mut kept = VecDeque::new();
        for entry in &self.checkpoints {
            if entry.epoch == restored.epoch {
                kept.push_back((entry.manifest.clone(), restored));
                break;
            }
            // One that cannot be read is of no use; it goes with the next checkpoint's entry.
            kept.extend(
                Manifest::read(store, &entry.manifest)
                    .and_then(|manifest| manifest)
                    .map(|m| (entry.manifest.clone(), m)),
            );
        }
        Live { sites, kept }
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(writing: Writing, failure: &Failure) -> Result<Self> {
        let (tasks, queue) = channel();
        let shared = Arc::new(Shared::default());
        let writer = Self {
            tasks,
            shared: Arc::clone(&shared),
        };
        failure.spawn("checkpoint", move || writing.run(&queue, &shared))?;
        Ok(writer)
    }

    /// Makes this the process that commits; before anything is sealed.
    pub(crate) fn lead(&self, leading: Leading) {
        self.send(Task::Lead(leading));
    }

    /// Hands over a site's changes.
    pub(crate) fn seal(&self, sealed: Sealed) {
        self.send(Task::Sealed(sealed));
    }

    /// Says that this process has no state at an epoch.
    pub(crate) fn nothing(&self, epoch: Epoch) {
        let sites = BTreeMap::new();
        self.shared.push(Written { epoch, sites });
    }

    /// Asks for the manifest and the journal's entry.
    pub(crate) fn commit(&self, commit: Commit) {
        self.send(Task::Commit(commit));
    }

    fn send(&self, task: Task) {
        // Fails only when the thread ended, which left its error for the job to end with.
        if self.tasks.send(task).is_err() {
            tracing::debug!("the checkpoints' thread has ended");
        }
    }

    /// What this process wrote since the last call.
    pub(crate) fn written(&self) -> Vec<Written> {
        let mut written = self
            .shared
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut written)
    }

    /// The epoch of the last checkpoint that this run committed, 0 when none was.
    pub(crate) fn committed(&self) -> Epoch {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// Bytes that were written for that one, and bytes of all that it needs.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        *self
            .shared
            .sizes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn run(self, tasks: &Receiver<Task>, shared: &Shared) -> Result<()> {
        let mut sealed = Vec::new();
        let mut leads = None;
        while let Ok(task) = tasks.recv() {
            match task {
                Task::Lead(mut leading) => {
                    let live = leading.live(&*self.store);
                    self.clear(&live, &leading)?;
                    leads = Some((leading, live));
                }
                Task::Sealed(one) => {
                    let (epoch, of) = (one.epoch, one.of);
                    sealed.push(one);
                    if sealed.len() == of {
                        let written = self.write(epoch, std::mem::take(&mut sealed))?;
                        shared.push(written);
                    }
                }
                Task::Commit(commit) => {
                    let epoch = commit.at.epoch;
                    let Some((leading, live)) = &mut leads else {
                        continue; // only worker 0's process is asked
                    };
                    let sizes = self.commit(commit, leading, live)?;
                    *shared.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
                    shared.committed.store(epoch, Ordering::Release);
                    self.merge(leading, live)?;
                }
            }
        }
        Ok(())
    }

    fn object(&self, epoch: Epoch, name: &str) -> String {
        format!("{}/{epoch:020}/{name}", folder(&self.job))
    }

    /// Writes one run of each site that changed.
    fn write(&self, epoch: Epoch, sealed: Vec<Sealed>) -> Result<Written> {
        let mut sites: BTreeMap<String, (Sum, Vec<Vec<Block>>)> = BTreeMap::new();
        for one in sealed {
            let site = sites.entry(one.site.to_string());
            let (_, workers) = site.or_insert_with(|| (one.sum, Vec::new()));
            workers.push(one.blocks);
        }
        let mut written = BTreeMap::new();
        for (site, (sum, mut workers)) in sites {
            let hash = xxh3_64(site.as_bytes());
            let name = |n| self.object(epoch, &format!("{hash:016x}-{}-{n}", self.process));
            let mut parts = Parts::new(&*self.store, sum, name);
            for shard in 0..SHARDS {
                let blocks = workers
                    .iter_mut()
                    .filter_map(|blocks| blocks.get_mut(shard));
                let blocks: Vec<Block> = blocks.map(std::mem::take).collect();
                let encoded = blocks.iter().map(|block| block.bytes.as_slice());
                parts.block(shard).append(add_up(sum, encoded, false)?);
                patiently("write a checkpoint", || parts.roll(false))?;
            }
            let run = patiently("write a checkpoint", || parts.finish())?;
            written.insert(site, (sum, run));
        }
        Ok(Written {
            epoch,
            sites: written,
        })
    }

    /// Commits a checkpoint. Bytes that were written for it, and of all that it needs.
    fn commit(&self, commit: Commit, leading: &Leading, live: &mut Live) -> Result<(u64, u64)> {
        let began = Instant::now();
        let written: u64 = commit
            .written
            .iter()
            .flat_map(|w| w.sites.values())
            .map(|(_, run)| run.bytes())
            .sum();
        let mut sites = BTreeMap::new();
        for (site, (sum, run)) in commit.written.into_iter().flat_map(|written| written.sites) {
            let known = || {
                live.sites.remove(&site).unwrap_or(State {
                    sum,
                    runs: Vec::new(),
                })
            };
            let state: &mut State = sites.entry(site.clone()).or_insert_with(known);
            if !run.parts.is_empty() {
                state.runs.push(run);
            }
        }
        let manifest = Manifest::new(commit.at, sites);
        let epoch = manifest.epoch;
        let name = self.object(epoch, "manifest");
        let bytes = manifest.encode()?;
        failpoint::hit(failpoint::CHECKPOINT_BEFORE_MANIFEST);
        patiently("write a checkpoint", || {
            self.store.put(&name, bytes.clone())
        })?;
        failpoint::hit(failpoint::CHECKPOINT_AFTER_MANIFEST);
        let entry = Checkpointed {
            epoch,
            manifest: name,
        };
        patiently("write the journal", || leading.journal.checkpoint(&entry))?;
        tracing::debug!(
            epoch = manifest.epoch,
            written,
            bytes = manifest.bytes(),
            entries = manifest.entries(),
            ms = began.elapsed().as_millis(),
            "checkpoint"
        );
        let sizes = (written, manifest.bytes());
        let gone = live.commit(entry.manifest, manifest);
        patiently("delete an old checkpoint", || {
            let point = failpoint::CHECKPOINT_BETWEEN_DELETES;
            self.store.delete_all(&gone, point)
        })?;
        if live.kept.len() == KEPT
            && let Some((_, oldest)) = live.kept.front()
        {
            patiently("truncate the journal", || {
                leading.journal.truncate(oldest.epoch)
            })?;
        }
        Ok(sizes)
    }

    /// Merges what is due. What comes out is named by the next manifest.
    fn merge(&self, leading: &Leading, live: &mut Live) -> Result<()> {
        let Some(epoch) = live.kept.back().map(|(_, manifest)| manifest.epoch) else {
            return Ok(());
        };
        for (site, state) in &mut live.sites {
            let Some(first) = merge::due(&state.runs) else {
                continue;
            };
            let hash = xxh3_64(site.as_bytes());
            let generation = leading.generation;
            let name = |n| self.object(epoch, &format!("{hash:016x}-merged-{generation}-{n}"));
            failpoint::hit(failpoint::CHECKPOINT_BEFORE_MERGE);
            let run = patiently("merge a checkpoint", || {
                merge::merge(&self.store, state, first, name)
            })?;
            failpoint::hit(failpoint::CHECKPOINT_AFTER_MERGE);
            state.runs.truncate(first);
            if !run.parts.is_empty() {
                state.runs.push(run);
            }
        }
        Ok(())
    }

    /// Deletes what earlier generations left unfinished or did not come to delete.
    fn clear(&self, live: &Live, leading: &Leading) -> Result<()> {
        let manifests = leading
            .checkpoints
            .iter()
            .map(|entry| entry.manifest.as_str());
        let kept: BTreeSet<&str> = live.names().chain(manifests).collect();
        let objects = patiently("list the checkpoints", || {
            self.store.list(&folder(&self.job))
        })?;
        let objects = objects.into_iter().map(|(name, _)| name);
        let gone: Vec<_> = objects
            .filter(|name| !kept.contains(name.as_str()))
            .collect();
        patiently("delete an old checkpoint", || {
            let point = failpoint::CHECKPOINT_IN_CLEARING;
            self.store.delete_all(&gone, point)
        })
    }
}

/// The checkpoints there are, and what the next one builds on.
#[derive(Default)]
struct Live {
    sites: BTreeMap<String, State>,
    /// The last two checkpoints, the older first, each with the name of its manifest.
    kept: VecDeque<(String, Manifest)>,
}

impl Live {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().flat_map(|(_, manifest)| manifest.names())
    }

    /// Takes a checkpoint that is committed. The objects that no checkpoint needs any more.
    fn commit(&mut self, name: String, manifest: Manifest) -> Vec<String> {
        self.sites.clone_from(&manifest.sites);
        self.kept.push_back((name, manifest));
        let mut gone = Vec::new();
        while self.kept.len() > KEPT
            && let Some((name, old)) = self.kept.pop_front()
        {
            let needed: BTreeSet<&str> = self.names().collect();
            let parts = old
                .names()
                .into_iter()
                .filter(|part| !needed.contains(part));
            gone.extend(parts.map(str::to_owned));
            gone.push(name);
        }
        gone
    }
}
