//! The state machine of the master: an event and the time in, actions out.
//!
//! The state machine is pure: it uses no clock, disk or network, so the simulation runs the real
//! one.
//!
//! ```text
//! event ─► take it in ─► step every component ─► refresh assignments ─► write, if changed
//!                                                                          │
//! actions held back  ◄──────────────  Event::Wrote(number)  ◄──────────────┘
//! ```
//!
//! 1. A change of the durable state is written down ([`Action::Write`]) before anything that
//!    follows from it: assignments are made from the written state, and other actions wait for the
//!    write.
//! 2. One document is written at a time. Changes during a write go into the next document.
//! 3. The assignment of a worker is a function of the state (`assignments`), and so is what users
//!    see (`status`).

pub(crate) mod assignments;
pub(crate) mod commands;
pub(crate) mod component;
pub(crate) mod durable;
pub(crate) mod event;
pub(crate) mod placement;
pub(crate) mod root_cause;
pub(crate) mod roster;
#[cfg(test)]
pub(crate) mod simulation;
pub(crate) mod status;
pub(crate) mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use component::{Component, Here, Stage};
use durable::{Author, Durable};
use event::{Action, Event};
use placement::Free;
use placement::anti_affinity::AntiAffinity;
use roster::Roster;
use tidemill_protocol::{Assignment, Part, Phase, ProcessKey, Report, WorkerId};
use times::AWAY_MIN;

/// Rounds over all components for one event, so that a component can take what another one leaves.
const ROUNDS_MAX: usize = 4;

/// Everything that the master knows. Only `durable` survives the master.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// When the master started, in ms.
    pub(crate) started: u64,
    /// The time of the last event, in ms. Never goes back.
    pub(crate) now: u64,
    /// The desired durable state, ahead of `written` while a document is being written.
    pub(crate) durable: Durable,
    /// The durable state that is written down.
    pub(crate) written: Durable,
    /// The document that is being written, and its number.
    writing: Option<(u64, Durable)>,
    /// The number of the last document.
    number: u64,
    /// Actions that wait for the document being written.
    held: Vec<Action>,
    /// Actions that wait for the document after it.
    held_longer: Vec<Action>,
    /// The workers.
    pub(crate) roster: Roster,
    /// The state machine of each component.
    pub(crate) components: BTreeMap<(String, Part), Component>,
    /// The assignment of each worker.
    pub(crate) orders: BTreeMap<WorkerId, Arc<Assignment>>,
    /// The version of the newest assignment, over all workers.
    version: u64,
    /// Pairs of workers that are not placed together.
    apart: AntiAffinity,
}

impl State {
    /// The state of a master that took over with `durable`, which is already written down.
    pub(crate) fn new(durable: Durable, now: u64) -> Self {
        let components = durable.records().map(|(job, part, record)| {
            let component = Component::adopt(record, now);
            ((job.to_owned(), part), component)
        });
        Self {
            started: now,
            now,
            components: components.collect(),
            number: durable.by.number,
            // Above the versions of every master before: 2³² versions for each generation of
            // masters.
            version: durable.by.generation << 32,
            written: durable.clone(),
            durable,
            writing: None,
            held: Vec::new(),
            held_longer: Vec::new(),
            roster: Roster::new(now),
            orders: BTreeMap::new(),
            apart: AntiAffinity::default(),
        }
    }

    /// The identity of this master.
    pub(crate) fn author(&self) -> &Author {
        &self.durable.by
    }

    /// The number of the last document that is written or being written.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Takes in one event at `now` ms, and returns the actions that may be carried out at once.
    pub(crate) fn next(&mut self, event: Event, now: u64) -> Vec<Action> {
        let away = now.saturating_sub(self.now);
        self.now = now.max(self.now);
        if away >= AWAY_MIN {
            self.roster.forgive(away);
        }
        self.roster.settle(self.now);
        self.forget_drained();
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
                if let Some(component) = self.components.get_mut(&(job, Part::Dataflow)) {
                    component.minted = Some(minted);
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

    /// Takes in a report. Returns true when the worker has no assignment yet.
    fn hear(&mut self, report: Report) -> bool {
        let worker = report.worker.clone();
        if !self.roster.takes(&worker) {
            return false;
        }
        let is_new = !self.orders.contains_key(&worker);
        self.roster.hear(report, self.now);
        is_new
    }

    /// Begins to write the next document, unless one is being written. Without a change, the held
    /// actions are free at once.
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

    /// Steps the state machine of each component. Returns true when one changed its state.
    fn step(&mut self, held: &mut Vec<Action>) -> bool {
        let jobs = &self.durable.jobs;
        self.components.retain(|(job, _), _| jobs.contains_key(job));
        let names: Vec<String> = jobs.keys().cloned().collect();
        let mut changed = false;
        for _ in 0..ROUNDS_MAX {
            let mut again = false;
            for name in &names {
                for part in [Part::Dataflow, Part::Ingest] {
                    again |= self.step_component(name, part, held);
                }
            }
            changed |= again;
            if !again {
                break;
            }
        }
        changed
    }

    /// Steps one component with its view of the state, [`Here`].
    fn step_component(&mut self, name: &str, part: Part, held: &mut Vec<Action>) -> bool {
        let free = self.free_for(name, part);
        let Some(job) = self.durable.jobs.get_mut(name) else {
            return false;
        };
        let wanted = job.wants(part);
        let spec = Arc::clone(&job.spec);
        let record = job.record_mut(part);
        let component = self.components.entry((name.to_owned(), part));
        let component = component.or_insert_with(|| Component::adopt(record, self.now));
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
        component.step(&mut here)
    }

    /// Free slots of the present workers that are not drained, for a component without processes.
    /// Empty while the component has processes, because it then places nothing.
    fn free_for(&self, name: &str, part: Part) -> Vec<Free> {
        let component = self.components.get(&(name.to_owned(), part));
        let has_processes = component.is_some_and(|component| {
            matches!(
                component.stage,
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
        let drained = &self.durable.drained;
        let present = self.roster.present();
        let present = present.filter(|worker| !drained.contains(&worker.report.worker));
        let present = present.map(|worker| {
            let report = &worker.report;
            // A process of an earlier generation still runs and takes an unknown number of slots:
            // nothing is placed on its worker until it ended.
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

    /// Makes a new version of each assignment whose processes changed.
    fn refresh_orders(&mut self) {
        let known: Vec<WorkerId> = self.roster.known().map(str::to_owned).collect();
        self.orders.retain(|worker, _| known.contains(worker));
        for worker in known {
            let processes = assignments::of(&self.written, &self.components, &worker);
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
