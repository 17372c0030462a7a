//! Invariants that must hold after every step of the simulation.
//!
//! 1. An assigned generation was minted for its job, and a written document names it.
//! 2. A process belongs to one worker, is started at most once, and is not assigned again after it
//!    was removed from the assignment.
//! 3. No worker is assigned, and none runs, more threads than it has slots.
//! 4. The processes of a job's dataflow that are not fenced are of one generation, with equal
//!    parameters.
//! 5. While every worker is in reach, two generations of a component never run at the same time.
//! 6. The assignment of a process does not change, except for the peers (which are where the others
//!    listen) and a drain.
//! 7. A job that waits for its slots never runs with fewer workers.
//!
//! The invariants in `causes` and `clients` hold too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_protocol::{Assignment, Part, ProcessAssignment, ProcessKey};

use super::children::{address, journal};
use super::world::{Weather, World};
use crate::machine::durable::Durable;

/// What was observed so far.
#[derive(Default)]
pub(super) struct Seen {
    /// The generations that journals minted.
    pub(super) minted: BTreeSet<(String, u64)>,
    /// The greatest written generation of each component.
    written: BTreeMap<(String, Part), u64>,
    /// The worker and the assignment of each process.
    placed: BTreeMap<ProcessKey, (String, ProcessAssignment)>,
    /// By worker: the newest assignment's master and version.
    newest: BTreeMap<String, (u64, u64)>,
    ordered: BTreeMap<String, BTreeSet<ProcessKey>>,
    taken_back: BTreeSet<ProcessKey>,
    /// When each process was started, in ms.
    pub(super) started: BTreeMap<ProcessKey, u64>,
}

impl Seen {
    /// A document is durable.
    pub(super) fn document(&mut self, durable: &Durable) {
        for (job, part, record) in durable.records() {
            let generation = record.run.as_ref().map_or(0, |run| run.generation);
            let most = self.written.entry((job.to_owned(), part)).or_default();
            *most = generation.max(*most);
        }
    }

    /// Whether a document had a generation of this component that is not older.
    pub(super) fn was_written(&self, job: &str, part: Part, generation: u64) -> bool {
        let most = self.written.get(&(job.to_owned(), part));
        most.is_some_and(|most| *most >= generation)
    }

    /// Checks an assignment that a master sends to a worker.
    pub(super) fn orders(
        &mut self,
        worker: &str,
        slots: usize,
        orders: &Arc<Assignment>,
    ) -> Result<(), String> {
        let number = (orders.master, orders.version);
        let newest = self.newest.entry(worker.to_owned()).or_default();
        if number <= *newest {
            return Ok(());
        }
        if newest.0 < number.0 && number.1 <= newest.1 {
            return Err(format!("{worker}: version {} after {newest:?}", number.1));
        }
        *newest = number;
        let mut threads = 0;
        let mut keys = BTreeSet::new();
        for order in &orders.processes {
            let key = &order.key;
            let of = (key.job.clone(), key.part);
            if self
                .written
                .get(&of)
                .is_none_or(|most| *most < key.generation)
            {
                return Err(format!("{key:?} is ordered, and no document names it"));
            }
            if key.part == Part::Dataflow {
                threads += order.threads;
                if !self
                    .minted
                    .contains(&(journal(&order.spec), key.generation))
                {
                    return Err(format!("{key:?} is ordered and was not minted"));
                }
            }
            if self.taken_back.contains(key) {
                return Err(format!("{key:?} is ordered again"));
            }
            self.check_order(worker, order)?;
            keys.insert(key.clone());
        }
        if threads > slots {
            return Err(format!(
                "{worker} has {slots} slots and is ordered {threads} threads"
            ));
        }
        let before = self.ordered.insert(worker.to_owned(), keys.clone());
        let before = before.unwrap_or_default();
        self.taken_back.extend(before.difference(&keys).cloned());
        Ok(())
    }

    fn check_order(&mut self, worker: &str, order: &ProcessAssignment) -> Result<(), String> {
        let key = &order.key;
        let bare = ProcessAssignment {
            peers: None,
            drain: false,
            ..order.clone()
        };
        let before = self.placed.entry(key.clone());
        let before = before.or_insert_with(|| (worker.to_owned(), bare.clone()));
        if *before != (worker.to_owned(), bare) {
            return Err(format!(
                "{before:?} was ordered, and then {order:?} to {worker}"
            ));
        }
        let (size, wanted) = (order.threads * order.processes, order.spec.workers);
        let exact = order.spec.wait_for_slots;
        if key.part == Part::Dataflow && (size > wanted || exact && size != wanted) {
            return Err(format!("{key:?}: {size} workers, and {wanted} are wanted"));
        }
        let peers = order.peers.iter().flatten().enumerate();
        for (index, peer) in peers {
            let key = ProcessKey {
                index,
                ..key.clone()
            };
            let there = self
                .placed
                .get(&key)
                .map(|(worker, _)| address(worker, &key));
            if there.as_ref() != Some(peer) {
                return Err(format!("{key:?} listens at {there:?}, and {peer} is told"));
            }
        }
        let peers = order.peers.as_ref().map_or(order.processes, Vec::len);
        if peers != order.processes {
            return Err(format!("{key:?} has {} and {peers} peers", order.processes));
        }
        Ok(())
    }

    /// A worker starts a process.
    pub(super) fn start(&mut self, key: &ProcessKey, now: u64) -> Result<(), String> {
        match self.started.insert(key.clone(), now) {
            None => Ok(()),
            Some(_) => Err(format!("{key:?} is started twice")),
        }
    }
}

impl World {
    /// What holds between events.
    pub(super) fn check(&self) -> Result<(), String> {
        type Alike = (u64, usize, usize, String);
        let mut free_to_write: BTreeMap<String, BTreeSet<Alike>> = BTreeMap::new();
        let mut running: BTreeMap<(&str, Part), BTreeSet<u64>> = BTreeMap::new();
        for worker in &self.workers {
            let mut threads = 0;
            for (key, child) in worker.children.iter().filter(|(_, child)| child.runs()) {
                let part = (key.job.as_str(), key.part);
                running.entry(part).or_default().insert(key.generation);
                if key.part == Part::Ingest {
                    continue;
                }
                let order = &child.order;
                threads += order.threads;
                let journal = journal(&order.spec);
                let fence = self.journals.get(&journal).copied().unwrap_or(0);
                if child.is_live() && key.generation >= fence {
                    let of = (key.generation, order.threads, order.processes);
                    let alike = (of.0, of.1, of.2, order.secret.clone());
                    free_to_write.entry(journal).or_default().insert(alike);
                }
            }
            if threads > worker.slots {
                let (id, slots) = (&worker.id, worker.slots);
                return Err(format!("{id} has {slots} slots and runs {threads} threads"));
            }
        }
        if let Some((job, all)) = free_to_write.iter().find(|(_, all)| all.len() > 1) {
            return Err(format!(
                "{job}: more than one generation may write: {all:?}"
            ));
        }
        let two = running.iter().find(|(_, all)| all.len() > 1);
        if let Some((component, all)) = two.filter(|_| self.weather != Weather::Storm) {
            return Err(format!(
                "{component:?} runs in several generations: {all:?}"
            ));
        }
        Ok(())
    }
}
