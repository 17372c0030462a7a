//! Simulated workers and their children, which follow the protocol.
//!
//! A worker follows the newest assignment: it kills children that are not in it, and starts
//! assigned processes when the killed ones are gone. A child starts, listens, connects, becomes
//! live, drains, is fenced by its journal, loses its peers, and fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_protocol::{
    Assignment, Exit, JobSpec, Part, Phase, ProcessAssignment, ProcessKey, ProcessReport, Report,
};

use super::world::{Next, World};

/// A simulated worker process.
pub(super) struct Worker {
    /// The id, which is also the name.
    pub(super) id: String,
    /// Slots that the worker offers.
    pub(super) slots: usize,
    pub(super) children: BTreeMap<ProcessKey, Child>,
    /// The worker neither receives nor sends anything before this time.
    pub(super) frozen_until: u64,
    /// The connection to masters is cut until this time.
    pub(super) cut_until: u64,
    /// The number of the worker's newest long poll.
    pub(super) poll: u64,
    /// The assignment that the worker follows.
    orders: Option<Arc<Assignment>>,
    /// The number of the last report.
    sequence: u64,
}

/// A simulated child, until no assignment names it.
pub(super) struct Child {
    /// What was assigned.
    pub(super) order: ProcessAssignment,
    /// How far the child is.
    pub(super) phase: Phase,
    /// The child was killed and has not ended yet.
    killed: bool,
    /// Whether the addresses of the others arrived.
    knows_peers: bool,
    /// Whether the child was told to drain.
    drains: bool,
    /// The child is frozen: nothing happens in it any more.
    pub(super) frozen: bool,
}

/// What happens to a child next.
#[derive(Clone)]
pub(super) enum Step {
    /// The child listens, or is live if it is alone.
    Ready,
    /// The child connects to the others; `since` is when it began.
    Connect(u64),
    /// The child ends in this way.
    End(Box<Exit>),
}

/// The fate of every process once it is live.
#[derive(Clone, Copy)]
pub(super) struct Doom {
    pub(super) lives: u64,
    pub(super) code: i32,
    /// Whether each failure has another message.
    pub(super) varies: bool,
}

/// The journal of a job's dataflow.
pub(super) fn journal(spec: &JobSpec) -> String {
    format!("{}/{}", spec.connections["state"], spec.name)
}

/// The address at which a process listens.
pub(super) fn address(worker: &str, key: &ProcessKey) -> String {
    format!("{worker}/{}/{}", key.generation, key.index)
}

impl Child {
    pub(super) fn runs(&self) -> bool {
        !matches!(self.phase, Phase::Exited(_))
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }
}

pub(super) fn exit(code: Option<i32>, unreachable: Vec<usize>, said: &str, at_ms: u64) -> Exit {
    Exit {
        code,
        signal: code.is_none().then_some(9),
        frozen: false,
        unreachable,
        at_ms,
        tail: vec![format!("error: {said}")],
    }
}

impl World {
    pub(super) fn start_worker(&mut self) {
        self.workers_made += 1;
        let id = format!("w{}", self.workers_made);
        let slots = self.between(1, 4) as usize;
        self.workers.push(Worker {
            id: id.clone(),
            slots,
            children: BTreeMap::new(),
            frozen_until: 0,
            cut_until: 0,
            poll: 0,
            orders: None,
            sequence: 0,
        });
        let wait = self.between(0, 1000);
        self.after(wait, Next::Report(id));
    }

    pub(super) fn worker(&mut self, id: &str) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|it| it.id == id)
    }

    /// Sends a report. Called once a second, and by `report_now`.
    pub(super) fn report(&mut self, id: &str) {
        if self.worker(id).is_some() {
            self.after(1000, Next::Report(id.to_owned()));
            self.report_now(id);
        }
    }

    pub(super) fn report_now(&mut self, id: &str) {
        let now = self.now;
        let Some(worker) = self.worker(id) else {
            return;
        };
        if now < worker.frozen_until.max(worker.cut_until) {
            return;
        }
        worker.sequence += 1;
        let children = worker.children.iter().map(|(key, child)| ProcessReport {
            key: key.clone(),
            phase: child.phase.clone(),
            beat: None,
        });
        let report = Report {
            worker: id.to_owned(),
            sequence: worker.sequence,
            name: id.to_owned(),
            http: String::new(),
            slots: worker.slots,
            version: String::new(),
            processes: children.collect(),
        };
        self.send_report(&report);
    }

    /// An assignment reaches a worker.
    pub(super) fn follow(&mut self, id: &str, orders: &Arc<Assignment>) -> Result<(), String> {
        let now = self.now;
        let Some(worker) = self.worker(id) else {
            return Ok(());
        };
        if now < worker.cut_until {
            return Ok(());
        }
        if now < worker.frozen_until {
            let wait = worker.frozen_until - now;
            let later = Next::ToWorker(id.to_owned(), Arc::clone(orders));
            self.after(wait, later);
            return Ok(());
        }
        let before = worker.orders.as_ref().map(|it| (it.master, it.version));
        if before.is_some_and(|before| before >= (orders.master, orders.version)) {
            return Ok(());
        }
        worker.orders = Some(Arc::clone(orders));
        self.reconcile(id)
    }

    /// Makes the children equal to the assignment.
    fn reconcile(&mut self, id: &str) -> Result<(), String> {
        let now = self.now;
        let Some(worker) = self.worker(id) else {
            return Ok(());
        };
        let Some(orders) = worker.orders.clone() else {
            return Ok(());
        };
        let named = |key: &ProcessKey| orders.processes.iter().any(|order| order.key == *key);
        let before = worker.children.len();
        worker
            .children
            .retain(|key, child| child.runs() || named(key));
        let mut changed = worker.children.len() != before;
        let mut next = Vec::new();
        for (key, child) in &mut worker.children {
            if !named(key) && !child.killed {
                child.killed = true;
                next.push((
                    key.clone(),
                    Step::End(Box::new(exit(None, vec![], "killed", 0))),
                ));
            }
        }
        for order in &orders.processes {
            if let Some(child) = worker.children.get_mut(&order.key) {
                if order.peers.is_some() && !child.knows_peers && child.runs() {
                    child.knows_peers = true;
                    next.push((order.key.clone(), Step::Connect(0)));
                }
                if order.drain && !child.drains && child.runs() {
                    child.drains = true;
                    next.push((
                        order.key.clone(),
                        Step::End(Box::new(exit(Some(0), vec![], "", 0))),
                    ));
                }
            }
        }
        let mut started = Vec::new();
        for order in &orders.processes {
            let another = |(key, child): (&ProcessKey, &Child)| {
                let same = (&key.job, key.part) == (&order.key.job, order.key.part);
                same && key.generation != order.key.generation && child.runs()
            };
            let waits = worker.children.iter().any(another);
            if !waits && !worker.children.contains_key(&order.key) {
                worker.children.insert(order.key.clone(), Child::new(order));
                started.push(order.key.clone());
                changed = true;
            }
        }
        for key in started {
            self.seen.start(&key, now)?;
            next.push((key, Step::Ready));
        }
        for (key, step) in next {
            let (least, most) = match &step {
                Step::Ready => (20, 2000),
                Step::Connect(_) => (10, 200),
                // A process that hangs in the kernel does not end at once.
                Step::End(exit) if exit.code.is_none() && self.chance(0.3) => (100, 15_000),
                Step::End(exit) if exit.code.is_none() => (1, 100),
                Step::End(_) => (50, 3000),
            };
            let wait = self.between(least, most);
            self.after(wait, Next::Child(id.to_owned(), key, step));
        }
        if changed {
            self.report_now(id);
        }
        Ok(())
    }

    pub(super) fn step_child(
        &mut self,
        id: &str,
        key: &ProcessKey,
        step: Step,
    ) -> Result<(), String> {
        let now = self.now;
        let others = self.others(key);
        let worker = self.workers.iter_mut().find(|it| it.id == id);
        let child = worker.and_then(|it| it.children.get_mut(key));
        let Some(child) = child.filter(|it| it.runs()) else {
            return Ok(());
        };
        let fence = self.journals.get(&journal(&child.order.spec));
        let fence = fence.copied().unwrap_or(0);
        let fenced = key.part == Part::Dataflow && fence != key.generation;
        let ends = matches!(&step, Step::End(exit) if exit.code.is_none());
        if child.frozen && !ends {
            return Ok(());
        }
        let mut again = None;
        match step {
            Step::Ready if child.order.processes > 1 => {
                let address = address(id, key);
                child.phase = Phase::Listening { address };
                if child.knows_peers {
                    again = Some(Step::Connect(now));
                }
            }
            Step::Ready | Step::Connect(_) if fenced => {
                let said = format!("generation {fence} took over");
                again = Some(Step::End(Box::new(exit(Some(1), vec![], &said, now))));
            }
            Step::Ready => child.phase = Phase::Live,
            Step::Connect(_) if child.phase == Phase::Started || child.is_live() => {
                return Ok(());
            }
            Step::Connect(since) => {
                let since = if since == 0 { now } else { since };
                match others.iter().position(|ready| !ready) {
                    None => child.phase = Phase::Live,
                    Some(at) if now > since + 30_000 => {
                        let peer = if at < key.index { at } else { at + 1 };
                        let lost = exit(Some(3), vec![peer], "lost", now);
                        again = Some(Step::End(Box::new(lost)));
                    }
                    Some(_) => again = Some(Step::Connect(since)),
                }
            }
            Step::End(mut exit) => {
                exit.at_ms = now;
                child.phase = Phase::Exited(*exit);
                self.peers_lose(key);
            }
        }
        if let Some(step) = again {
            self.after(100, Next::Child(id.to_owned(), key.clone(), step));
        }
        if let Some(doom) = self.doom {
            self.fulfil(doom, id, key);
        }
        self.report_now(id);
        self.reconcile(id)
    }

    fn fulfil(&mut self, doom: Doom, id: &str, key: &ProcessKey) {
        let child = self.worker(id).and_then(|it| it.children.get(key));
        if child.is_some_and(Child::is_live) {
            let said = match doom.varies {
                true => format!("failure of {}", key.generation),
                false => "failure".to_owned(),
            };
            self.harm(key);
            let end = Step::End(Box::new(exit(Some(doom.code), vec![], &said, 0)));
            self.after(doom.lives, Next::Child(id.to_owned(), key.clone(), end));
        }
    }

    /// Whether each of the other processes of a generation can be reached.
    fn others(&self, key: &ProcessKey) -> Vec<bool> {
        let all = self.workers.iter().flat_map(|it| &it.children);
        let mine = all.filter(|(it, _)| {
            it.job == key.job && it.part == key.part && it.generation == key.generation
        });
        let mine: BTreeMap<usize, &Child> = mine.map(|(it, child)| (it.index, child)).collect();
        let processes = mine.get(&key.index).map_or(0, |it| it.order.processes);
        let others = (0..processes).filter(|index| *index != key.index);
        let ready = |child: &&Child| child.runs() && !child.frozen && child.knows_peers;
        others
            .map(|index| mine.get(&index).is_some_and(ready))
            .collect()
    }

    /// The other processes of the generation notice that a child has ended.
    pub(super) fn peers_lose(&mut self, key: &ProcessKey) {
        let mut losers = Vec::new();
        for worker in &self.workers {
            for (other, child) in &worker.children {
                let is_peer = other.job == key.job
                    && other.part == key.part
                    && other.generation == key.generation
                    && other.index != key.index;
                // A process that drains waits for no peer.
                if is_peer && child.is_live() && !child.drains {
                    losers.push((worker.id.clone(), other.clone()));
                }
            }
        }
        for (worker, other) in losers {
            let wait = self.between(5, 1000);
            let lost = exit(Some(3), vec![key.index], "lost a peer", 0);
            self.after(wait, Next::Child(worker, other, Step::End(Box::new(lost))));
        }
    }

    /// A newer generation was minted, and the processes of older ones notice it.
    pub(super) fn fence(&mut self, of: &str, generation: u64) {
        let mut fenced = Vec::new();
        for worker in &self.workers {
            for (key, child) in &worker.children {
                let old = key.part == Part::Dataflow && key.generation < generation;
                if old && journal(&child.order.spec) == of && child.is_live() {
                    fenced.push((worker.id.clone(), key.clone()));
                }
            }
        }
        for (worker, key) in fenced {
            let wait = self.between(0, 5000);
            let said = format!("generation {generation} took over");
            let exit = exit(Some(1), vec![], &said, 0);
            self.after(wait, Next::Child(worker, key, Step::End(Box::new(exit))));
        }
    }
}

impl Child {
    fn new(order: &ProcessAssignment) -> Self {
        Self {
            order: order.clone(),
            phase: Phase::Started,
            killed: false,
            knows_peers: order.peers.is_some(),
            drains: order.drain,
            frozen: false,
        }
    }
}
