//! What masters and workers say to each other in the simulation, on its way.

use std::sync::Arc;

use super::world::{Next, World};
use crate::master::commands::Command;
use crate::master::state::{Action, Event};
use crate::protocol::{JobSpec, Report};

/// Names of jobs.
const JOBS: [&str; 3] = ["one", "two", "three"];

impl World {
    /// How long a message takes, each time that it arrives: never, once or twice.
    fn ways(&mut self) -> Vec<u64> {
        let soon = self.between(0, 20);
        if !self.faulty || self.is_calm {
            return vec![soon];
        }
        let late = self.between(20, 4000);
        match self.between(0, 99) {
            0..10 => vec![],
            10..20 => vec![late],
            20..30 => vec![soon, late],
            _ => vec![soon],
        }
    }

    /// Lets a master take in an event, and begins what it wants done.
    pub(super) fn tell_master(&mut self, master: usize, event: Event) -> Result<(), String> {
        let process = &mut self.masters[master];
        if !process.alive {
            return Ok(());
        }
        if self.now < process.frozen_until {
            // It is still there when it goes on. Its clock's ticks are not.
            if !matches!(event, Event::Tick) {
                let wait = process.frozen_until - self.now;
                self.after(wait, Next::ToMaster(master, event));
            }
            return Ok(());
        }
        let actions = process.state.next(event, self.now);
        for action in actions {
            match action {
                Action::Write { number, document } => {
                    let wait = self.between(0, 30);
                    self.after(wait, Next::Put(master, number, Box::new(document)));
                }
                Action::Mint { job, attempt, .. } => {
                    let wait = self.between(0, 100);
                    self.after(wait, Next::Mint(master, job, attempt));
                }
                Action::Reply { request, answer } => self.answered(master, request, &answer),
            }
        }
        self.push_orders(master)
    }

    /// Orders that are new go to the workers that wait for them.
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

    fn slots_of(&self, worker: &str) -> usize {
        // One that died had as many as any has at most.
        let found = self.workers.iter().find(|it| it.id == worker);
        found.map_or(usize::MAX, |it| it.slots)
    }

    /// A report is answered with orders.
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

    /// A worker says what it has to the master that it knows: the newest, or while two run at the
    /// same time any of them.
    pub(super) fn send_report(&mut self, report: &Report) {
        let alive: Vec<usize> = (0..self.masters.len())
            .filter(|master| self.masters[*master].alive)
            .collect();
        let Some(last) = alive.len().checked_sub(1) else {
            return;
        };
        let any = self.between(0, last as u64) as usize;
        for way in self.ways() {
            let event = Event::Report(report.clone());
            self.after(way, Next::ToMaster(alive[any], event));
        }
    }

    /// A client asks for something, or nothing.
    pub(super) fn think(&mut self) {
        if !self.faulty {
            return;
        }
        let wait = self.between(500, 15_000);
        self.after(wait, Next::Client);
        let Some(master) = self.master() else { return };
        let name = JOBS[self.between(0, 2) as usize];
        let workers = self.between(1, 6) as usize;
        let command = match self.between(0, 9) {
            0..5 => Command::Submit(self.spec(name, workers)),
            5 => Command::Stop(name.to_owned()),
            6 => Command::Restart(name.to_owned()),
            7 | 8 => Command::Rescale(name.to_owned(), workers),
            _ => Command::Remove(name.to_owned()),
        };
        // It may be killed before it answers.
        let frozen = self.now < self.masters[master].frozen_until;
        if !frozen && let Err(why) = self.command(command) {
            panic!("{why}");
        }
    }

    pub(super) fn spec(&mut self, name: &str, workers: usize) -> Arc<JobSpec> {
        let version = self.between(0, 1).to_string();
        Arc::new(JobSpec {
            name: name.to_owned(),
            files: [("views.sql".to_owned(), version)].into(),
            connections: [].into(),
            workers,
            wait_for_slots: self.chance(0.3),
            ingest: self.chance(0.5),
            flags: [].into(),
        })
    }
}
