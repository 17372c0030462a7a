//! The checkpoint writer: a thread in each process that makes checkpoints durable.
//!
//! Input: the changes of each site of this process's workers. In the process of worker 0 also the
//! request to commit an epoch's checkpoint, which comes when all processes have written their parts
//! and the sink is durable through the epoch. Output: parts, manifests and the journal's entries.
//! Afterwards the thread deletes old parts, truncates the journal and merges runs, all beside the
//! dataflow.
//!
//! ```text
//! seal (each site and worker) ──► parts ──► written() ──► Report to worker 0
//! commit (worker 0's process) ──► manifest ──► journal ──► committed() ──► delete, truncate, merge
//! ```
//!
//! Limits: one checkpoint is under way at a time, so at most one message per site and worker waits.
//! While the store is away or full, the changes wait in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidemill_ir::Epoch;
use tidemill_log::backoff::retry;
use tidemill_log::{Result, failpoint};
use xxhash_rust::xxh3::xxh3_64;

use super::change::{Block, SHARDS, Sum, add_up};
use super::merge::Parts;
use super::{Manifest, Run, State, folder, merge};
use crate::failure::Failure;
use crate::journal::{Binding, Checkpointed, Journal};
use crate::store::Store;

/// The changes of one site on one worker through an epoch, handed over for the epoch's checkpoint.
pub struct Sealed {
    /// The marked epoch.
    pub epoch: Epoch,
    /// The site's name; see `site.rs`.
    pub site: Arc<str>,
    /// How the changes add up.
    pub sum: Sum,
    /// One block per shard, or none at all; not completely added up.
    pub blocks: Vec<Block>,
    /// The number of such messages that make up this process's checkpoint.
    pub of: usize,
}

/// The parts that one process wrote for an epoch's checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// The epoch.
    pub epoch: Epoch,
    /// One run per site, with how its entries add up.
    sites: BTreeMap<String, (Sum, Run)>,
}

/// A checkpoint whose parts are all durable; only its manifest and journal entry are missing.
pub struct Commit {
    /// The epoch, with end offsets and source positions at its end.
    pub at: Binding,
    /// What each process wrote.
    pub written: Vec<Written>,
}

/// The number of checkpoints that are kept: if one is damaged, the other is usable.
const KEPT: usize = 2;

/// A message to the thread.
enum Task {
    /// Makes this process the one that commits.
    Lead(Leading),
    /// The changes of one site and worker.
    Sealed(Sealed),
    /// Commits a checkpoint.
    Commit(Commit),
}

/// A handle by which workers reach the thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    /// The queue of the thread.
    tasks: Sender<Task>,
    /// What the thread reports.
    shared: Arc<Shared>,
}

/// What the thread tells the workers.
#[derive(Default)]
struct Shared {
    /// What was written and not fetched yet.
    written: Mutex<Vec<Written>>,
    /// The epoch of the last committed checkpoint; 0 before the first.
    committed: AtomicU64,
    /// Bytes that the last checkpoint wrote, and bytes of all parts that it needs.
    sizes: Mutex<(u64, u64)>,
}

impl Shared {
    /// Reports the parts of an epoch.
    fn push(&self, written: Written) {
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(written);
    }
}

/// What the thread works with.
pub struct Writing {
    /// The job's name.
    pub job: String,
    /// This process's index among the job's.
    pub process: usize,
    /// The state store.
    pub store: Arc<dyn Store>,
}

/// What only the process of worker 0 has: the right to commit checkpoints.
pub struct Leading {
    /// The open journal.
    pub journal: Arc<Journal>,
    /// The generation of this run; it is part of the names of merged parts.
    pub generation: u64,
    /// The checkpoints that the journal names, oldest first.
    pub checkpoints: Vec<Checkpointed>,
    /// The checkpoint that this run was restored from.
    pub restored: Option<Manifest>,
}

impl Leading {
    /// The checkpoints that are usable at the start of this run.
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
            // A manifest that cannot be read is useless. Its objects are deleted with the next
            // checkpoint.
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
    /// When the system cannot create a thread.
    pub fn start(writing: Writing, failure: &Failure) -> Result<Self> {
        let (tasks, queue) = channel();
        let shared = Arc::new(Shared::default());
        let writer = Self {
            tasks,
            shared: Arc::clone(&shared),
        };
        failure.spawn("checkpoint", move || writing.run(&queue, &shared))?;
        Ok(writer)
    }

    /// Makes this process the one that commits. Must be called before anything is sealed.
    pub fn lead(&self, leading: Leading) {
        self.send(Task::Lead(leading));
    }

    /// Hands over a site's changes for the marked epoch.
    pub fn seal(&self, sealed: Sealed) {
        self.send(Task::Sealed(sealed));
    }

    /// Records that this process has no state at an epoch, so that its part of the checkpoint is
    /// empty.
    pub fn nothing(&self, epoch: Epoch) {
        let sites = BTreeMap::new();
        self.shared.push(Written { epoch, sites });
    }

    /// Asks the thread for the manifest and the journal's entry of a checkpoint.
    pub fn commit(&self, commit: Commit) {
        self.send(Task::Commit(commit));
    }

    /// Sends a task. If the thread has ended, its error has ended the job already.
    fn send(&self, task: Task) {
        // Sending fails only when the thread has ended; the thread's error then ends the job.
        if self.tasks.send(task).is_err() {
            tracing::debug!("the checkpoints' thread has ended");
        }
    }

    /// Takes what this process wrote since the last call.
    pub fn written(&self) -> Vec<Written> {
        let mut written = self
            .shared
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut written)
    }

    /// The epoch of the last checkpoint that this run committed; 0 before the first.
    pub fn committed(&self) -> Epoch {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// Bytes that the last committed checkpoint wrote, and bytes of all parts that it needs.
    pub fn sizes(&self) -> (u64, u64) {
        *self
            .shared
            .sizes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    /// The thread's loop. It ends without an error when all handles are dropped.
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

    /// The name of an object of an epoch's checkpoint.
    fn object(&self, epoch: Epoch, name: &str) -> String {
        format!("{}/{epoch:020}/{name}", folder(&self.job))
    }

    /// Writes one run for each site that changed. Retries while the store is away or full.
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
                retry("write a checkpoint", || parts.roll(false))?;
            }
            let run = retry("write a checkpoint", || parts.finish())?;
            written.insert(site, (sum, run));
        }
        Ok(Written {
            epoch,
            sites: written,
        })
    }

    /// Commits a checkpoint: manifest, journal entry, then deletion and truncation. Returns the
    /// bytes that were written for it, and the bytes of all parts that it needs.
    ///
    /// # Errors
    /// `Fence` when a newer generation took over. Errors that pass are retried.
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
        retry("write a checkpoint", || {
            self.store.put(&name, bytes.clone())
        })?;
        failpoint::hit(failpoint::CHECKPOINT_AFTER_MANIFEST);
        let entry = Checkpointed {
            epoch,
            manifest: name,
        };
        retry("write the journal", || leading.journal.checkpoint(&entry))?;
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
        retry("delete an old checkpoint", || {
            let point = failpoint::CHECKPOINT_BETWEEN_DELETES;
            self.store.delete_all(&gone, point)
        })?;
        if live.kept.len() == KEPT
            && let Some((_, oldest)) = live.kept.front()
        {
            retry("truncate the journal", || {
                leading.journal.truncate(oldest.epoch)
            })?;
        }
        Ok(sizes)
    }

    /// Merges the runs of each site that are due. The next checkpoint's manifest names the result;
    /// until then the merged runs stay in the store.
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
            let run = retry("merge a checkpoint", || {
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

    /// Deletes the objects that earlier generations left unfinished, or did not get to delete.
    fn clear(&self, live: &Live, leading: &Leading) -> Result<()> {
        let manifests = leading
            .checkpoints
            .iter()
            .map(|entry| entry.manifest.as_str());
        let kept: BTreeSet<&str> = live.names().chain(manifests).collect();
        let objects = retry("list the checkpoints", || {
            self.store.list(&folder(&self.job))
        })?;
        let objects = objects.into_iter().map(|(name, _)| name);
        let gone: Vec<_> = objects
            .filter(|name| !kept.contains(name.as_str()))
            .collect();
        retry("delete an old checkpoint", || {
            let point = failpoint::CHECKPOINT_IN_CLEARING;
            self.store.delete_all(&gone, point)
        })
    }
}

/// The checkpoints that exist, and the state that the next one builds on.
#[derive(Default)]
struct Live {
    /// The newest state by site, with runs that were merged since the last checkpoint.
    sites: BTreeMap<String, State>,
    /// The last two checkpoints, the older first, each with the name of its manifest.
    kept: VecDeque<(String, Manifest)>,
}

impl Live {
    /// The names of all parts that the kept checkpoints need.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().flat_map(|(_, manifest)| manifest.names())
    }

    /// Takes in a checkpoint that is committed. Returns the names of objects that no kept
    /// checkpoint needs any more.
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
