//! The simulated network between masters and workers: messages on their way.
//!
//! A message is lost, delayed, or delivered twice, unless the weather is calm. The order of two
//! messages is not kept. Answers to clients are delivered at once.
//!
//! Checked on the way: a component is not ended without draining unless something of it had ended,
//! and is said to run only when all its processes are live.

use std::sync::Arc;

use tidemill_protocol::{Part, ProcessKey, Report};

use super::causes::MINT_WAY;
use super::children::Child;
use super::world::{Next, Process, Weather, World};
use crate::machine::component::Stage;
use crate::machine::event::{Action, Event};

impl World {
    /// The delays of a message, one for each time that it arrives: none, one or two.
    ///
    /// In milliseconds. An empty list is a lost message.
    fn ways(&mut self) -> Vec<u64> {
        let soon = self.between(0, 20);
        if !self.faulty || self.weather == Weather::Calm {
            return vec![soon];
        }
        let late = self.between(20, 3000);
        match self.between(0, 99) {
            0..10 => vec![],
            10..20 => vec![late],
            20..30 => vec![soon, late],
            _ => vec![soon],
        }
    }

    /// Passes an event to a master, and begins to carry out its actions.
    ///
    /// A dead master drops the event.
    ///
    /// # Errors
    /// A violation of the invariants, in words.
    pub(super) fn tell_master(&mut self, master: usize, event: Event) -> Result<(), String> {
        let process = &mut self.masters[master];
        if !process.alive {
            return Ok(());
        }
        if self.now < process.frozen_until {
            // The event still waits when a frozen master continues. The ticks of its clock do not.
            if !matches!(event, Event::Tick) {
                let wait = process.frozen_until - self.now;
                self.after(wait, Next::ToMaster(master, event));
            }
            return Ok(());
        }
        let ran = running(process);
        let actions = process.state.next(event, self.now);
        let begun = running(process).into_iter().filter(|it| !ran.contains(it));
        let begun: Vec<_> = begun.collect();
        for (job, part) in ran {
            // Nothing of it had ended: it was asked to go.
            let component = process.state.components.get(&(job.clone(), part));
            if component
                .is_some_and(|it| matches!(it.stage, Stage::Ending(_)) && it.ended.is_empty())
            {
                return Err(format!("{job} {part:?} is ended and was not drained"));
            }
        }
        for (job, part) in begun {
            let run = self.masters[master].state.durable.jobs[&job].record(part);
            let generation = run.generation;
            let mut all = self.workers.iter().flat_map(|it| &it.children);
            let is_late = |(key, child): (&ProcessKey, &Child)| {
                let is_of_it = key.job == job && key.part == part && key.generation == generation;
                is_of_it && child.runs() && !child.is_live()
            };
            if all.any(is_late) {
                return Err(format!(
                    "{job} {part:?} is said to run, and not all are live"
                ));
            }
        }
        for action in actions {
            match action {
                Action::Write { number, document } => {
                    let wait = self.between(0, 30);
                    self.after(wait, Next::Put(master, number, Box::new(document)));
                }
                Action::Mint { spec, .. } => {
                    let wait = self.between(0, MINT_WAY);
                    self.after(wait, Next::Mint(master, spec));
                }
                Action::Reply { request, answer } => self.answered(master, request, answer)?,
            }
        }
        self.push_orders(master)
    }

    /// Sends new assignments to the workers whose long polls wait for them.
    fn push_orders(&mut self, master: usize) -> Result<(), String> {
        let process = &mut self.masters[master];
        let mut new = Vec::new();
        for (worker, orders) in &process.state.orders {
            let sent = process.sent.entry(worker.clone()).or_default();
            if *sent < orders.version {
                *sent = orders.version;
                new.push((worker.clone(), Arc::clone(orders)));
            }
        }
        for (worker, orders) in new {
            let slots = self.slots_of(&worker);
            self.seen.orders(&worker, slots, &orders)?;
            for way in self.ways() {
                self.after(way, Next::ToWorker(worker.clone(), Arc::clone(&orders)));
            }
        }
        Ok(())
    }

    /// The slots of a worker, for the check that no assignment exceeds them.
    fn slots_of(&self, worker: &str) -> usize {
        // One that died had as many as any has at most.
        let found = self.workers.iter().find(|it| it.id == worker);
        found.map_or(usize::MAX, |it| it.slots)
    }

    /// Answers a report with the worker's assignment.
    pub(super) fn answer_report(&mut self, master: usize, worker: &str) {
        let process = &self.masters[master];
        if !process.alive || self.now < process.frozen_until {
            return;
        }
        if let Some(orders) = process.state.orders.get(worker).cloned() {
            for way in self.ways() {
                self.after(way, Next::ToWorker(worker.to_owned(), Arc::clone(&orders)));
            }
        }
    }

    /// A worker sends a report to the newest master that it knows, or sometimes to another one
    /// while two run.
    pub(super) fn send_report(&mut self, report: &Report) {
        let alive: Vec<usize> = (0..self.masters.len())
            .filter(|master| self.masters[*master].alive)
            .collect();
        let Some(last) = alive.len().checked_sub(1) else {
            return;
        };
        let back = usize::from(last > 0 && self.chance(0.1));
        let master = alive[last - back];
        for way in self.ways() {
            let event = Event::Report(report.clone());
            self.after(way, Next::ToMaster(master, event));
        }
    }
}

/// The generations that run, as far as a master knows.
fn running(process: &Process) -> Vec<(String, Part)> {
    let components = process.state.components.iter();
    let running = components.filter(|(_, component)| matches!(component.stage, Stage::Running(_)));
    running.map(|(of, _)| of.clone()).collect()
}
