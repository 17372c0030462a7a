//! The master as a pure state machine: an event and the time in, actions out. No clock, no disk, no
//! network: the simulation runs it as it is.
//!
//! 1. A change of what is durable is written down ([`Action::Write`]) before anything that follows
//!    from it: orders are made of what is written, and other actions wait until it is.
//! 2. What the orders of a worker are is a function of the state (`orders`), and so is what people
//!    see (`status`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::anti_affinity::Apart;
use super::assignments;
use super::component::{Half, Here, Stage};
use super::durable::{Author, Durable};
use super::event::{Action, Event};
use super::placement::Free;
use super::roster::Roster;
use super::times::AWAY_MIN;
use crate::protocol::{Assignment, Part, Phase, ProcessKey, Report, WorkerId};

/// Rounds in which what one job leaves may be taken by another, for one event.
const ROUNDS_MAX: usize = 4;

/// Everything that the master knows.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) started: u64,
    pub(crate) now: u64,
    pub(crate) durable: Durable,
    /// What of it is written down.
    pub(crate) written: Durable,
    /// The document that is being written, and its number.
    writing: Option<(u64, Durable)>,
    /// The last number.
    number: u64,
    /// What waits for that document, and for the one after it.
    held: Vec<Action>,
    held_longer: Vec<Action>,
    pub(crate) roster: Roster,
    pub(crate) halves: BTreeMap<(String, Part), Half>,
    pub(crate) orders: BTreeMap<WorkerId, Arc<Assignment>>,
    version: u64,
    apart: Apart,
}

impl State {
    /// A master that took over with `durable`, which is written down.
    pub(crate) fn new(durable: Durable, now: u64) -> Self {
        let halves = durable.records().map(|(job, part, record)| {
            let half = Half::adopt(record, now);
            ((job.to_owned(), part), half)
        });
        Self {
            started: now,
            now,
            halves: halves.collect(),
            number: durable.by.number,
            // Above those of every master before.
            version: durable.by.generation << 32,
            written: durable.clone(),
            durable,
            writing: None,
            held: Vec::new(),
            held_longer: Vec::new(),
            roster: Roster::new(now),
            orders: BTreeMap::new(),
            apart: Apart::default(),
        }
    }

    pub(crate) fn author(&self) -> &Author {
        &self.durable.by
    }

    /// The number of the last document that is written or being written.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Takes an event in.
    pub(crate) fn next(&mut self, event: Event, now: u64) -> Vec<Action> {
        let away = now.saturating_sub(self.now);
        self.now = now.max(self.now);
        if away >= AWAY_MIN {
            self.roster.forgive(away);
        }
        self.roster.settle(self.now);
        let mut actions = Vec::new();
        let mut held = Vec::new();
        let mut is_new = false;
        let is_tick = matches!(event, Event::Tick);
        match event {
            Event::Tick => {}
            Event::Report(report) => is_new = self.hear(report),
            Event::Waits { worker, poll } => self.roster.waits(&worker, poll),
            Event::Cut { worker, poll } => self.roster.cut(&worker, poll, self.now),
            Event::Minted { job, minted } => {
                if let Some(half) = self.halves.get_mut(&(job, Part::Dataflow)) {
                    half.minted = Some(minted);
                }
            }
            Event::Wrote(number) => {
                if let Some((_, document)) = self.writing.take_if(|(it, _)| *it == number) {
                    self.written = document;
                    actions.append(&mut self.held);
                    is_new = true;
                }
            }
            Event::Command { request, command } => {
                let answer = self.command(command);
                held.push(Action::Reply { request, answer });
            }
        }
        is_new |= self.step(&mut held);
        if is_tick {
            self.sample();
        }
        if is_new {
            self.refresh_orders();
        }
        self.held_longer.append(&mut held);
        self.write(&mut actions);
        actions
    }

    /// Takes a report in; true when the worker is a new one.
    fn hear(&mut self, report: Report) -> bool {
        let worker = report.worker.clone();
        if !self.roster.takes(&worker) {
            return false;
        }
        let is_new = !self.orders.contains_key(&worker);
        self.roster.hear(report, self.now);
        is_new
    }

    fn write(&mut self, actions: &mut Vec<Action>) {
        if self.writing.is_some() {
            return;
        }
        if self.durable == self.written {
            actions.append(&mut self.held_longer);
            return;
        }
        self.number += 1;
        let (number, document) = (self.number, self.durable.clone());
        self.writing = Some((number, document.clone()));
        self.held = std::mem::take(&mut self.held_longer);
        actions.push(Action::Write { number, document });
    }

    /// Lets each half of each job go on; true when one is in another state.
    fn step(&mut self, held: &mut Vec<Action>) -> bool {
        let jobs = &self.durable.jobs;
        self.halves.retain(|(job, _), _| jobs.contains_key(job));
        let names: Vec<String> = jobs.keys().cloned().collect();
        let mut changed = false;
        for _ in 0..ROUNDS_MAX {
            let mut again = false;
            for name in &names {
                for part in [Part::Dataflow, Part::Ingest] {
                    again |= self.step_half(name, part, held);
                }
            }
            changed |= again;
            if !again {
                break;
            }
        }
        changed
    }

    fn step_half(&mut self, name: &str, part: Part, held: &mut Vec<Action>) -> bool {
        let free = self.free_for(name, part);
        let Some(job) = self.durable.jobs.get_mut(name) else {
            return false;
        };
        let wanted = job.wants(part);
        let spec = Arc::clone(&job.spec);
        let record = job.record_mut(part);
        let half = self.halves.entry((name.to_owned(), part));
        let half = half.or_insert_with(|| Half::adopt(record, self.now));
        let written = self.written.jobs.get(name);
        let written = written.and_then(|job| job.record(part).run.as_ref());
        let run = record.run.as_ref().map(|run| run.generation);
        let ordered = written.is_some_and(|it| !it.ending && Some(it.generation) == run);
        let mut here = Here {
            now: self.now,
            started: self.started,
            job: name,
            part,
            spec: &spec,
            wanted,
            record,
            ingests: &mut self.durable.ingests,
            roster: &self.roster,
            free,
            apart: &mut self.apart,
            unordered: !ordered,
            actions: held,
        };
        half.step(&mut here)
    }

    /// Slots that a half of a job without processes could have; none asked for while it has some.
    fn free_for(&self, name: &str, part: Part) -> Vec<Free> {
        let half = self.halves.get(&(name.to_owned(), part));
        let has_processes = half.is_some_and(|half| {
            matches!(
                half.stage,
                Stage::Starting(_) | Stage::Connecting(_) | Stage::Running(_) | Stage::Draining(_)
            )
        });
        if has_processes {
            return Vec::new();
        }
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        let mut current: BTreeSet<(&str, Part, u64)> = BTreeSet::new();
        for (job, other, record) in self.durable.records() {
            if (job, other) == (name, part) {
                continue;
            }
            if let Some(run) = &record.run {
                current.insert((job, other, run.generation));
                if other == Part::Dataflow {
                    for (worker, _) in &run.workers {
                        *taken.entry(worker).or_default() += run.threads;
                    }
                }
            }
        }
        let is_left_over = |key: &ProcessKey| {
            let of = (key.job.as_str(), key.part, key.generation);
            key.part == Part::Dataflow && !current.contains(&of)
        };
        let present = self.roster.present().map(|worker| {
            let report = &worker.report;
            // What is still there of before takes nobody knows how many slots, for a moment.
            let full = report.processes.iter().any(|process| {
                !matches!(process.phase, Phase::Exited(_)) && is_left_over(&process.key)
            });
            let taken = taken.get(report.worker.as_str()).copied().unwrap_or(0);
            Free {
                worker: report.worker.clone(),
                name: report.name.clone(),
                slots: if full {
                    0
                } else {
                    report.slots.saturating_sub(taken)
                },
            }
        });
        present.collect()
    }

    /// Gives a new version to those orders that are no longer what they were.
    fn refresh_orders(&mut self) {
        let known: Vec<WorkerId> = self.roster.known().map(str::to_owned).collect();
        self.orders.retain(|worker, _| known.contains(worker));
        for worker in known {
            let processes = assignments::of(&self.written, &self.halves, &worker);
            let before = self.orders.get(&worker);
            if before.is_none_or(|before| before.processes != processes) {
                self.version += 1;
                let orders = Assignment {
                    master: self.durable.by.generation,
                    version: self.version,
                    processes,
                };
                self.orders.insert(worker, Arc::new(orders));
            }
        }
    }
}
