//! Faults that the simulation injects, and how they end.
//!
//! In: the seed's random numbers. Out: events in the queue of the world. A fault is drawn every 0.2
//! to 8 s of simulated time; which faults there are depends on the [`Weather`]. Every fault heals
//! by itself, so that in the end the cluster must run again.

use tidemill_protocol::ProcessKey;

use super::causes::SILENCE_OVERLOOKED;
use super::children::{Step, exit};
use super::world::{Next, Weather, World};
use crate::machine::event::Event;

/// A fault that ends later.
#[derive(Clone)]
pub(super) enum Fault {
    /// A worker is to be started.
    WorkerAway,
    /// A master is to be started.
    MasterAway,
    /// A frozen child is killed by its worker.
    ChildFrozen(String, ProcessKey),
    /// A worker's connection works again.
    Connected(String),
}

impl World {
    /// Injects one random fault, and schedules the next one.
    ///
    /// # Errors
    /// A violation, when a new master finds the store in a state that cannot be.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let wait = self.between(200, 8000);
        self.after(wait, Next::Fault);
        let which = self.between(0, 109);
        if self.weather == Weather::Masters && which < 50 {
            return self.master_fails(which);
        }
        match which {
            0..30 => self.child_fails(),
            30..40 => self.child_freezes(),
            40..50 => self.worker_dies(),
            50..65 => self.master_dies(),
            65..70 => {
                let wait = self.between(100, 5000);
                self.journals_away_until = self.now + wait;
            }
            70..75 => {
                let wait = self.between(100, 5000);
                self.store_away_until = self.now + wait;
            }
            75..80 if self.workers.len() < 6 => self.start_worker(),
            // Starts another master beside the one that runs, which does not know about it.
            80..86 => self.start_master()?,
            86..90 if self.weather != Weather::Calm => self.master_freezes(),
            90..95 if self.weather != Weather::Calm => self.worker_freezes(),
            95..100 if self.weather == Weather::Storm => self.worker_is_cut(),
            100.. => self.connection_blinks(),
            _ => {}
        }
        Ok(())
    }

    /// Ends a fault: the process is started again, or its worker kills it.
    pub(super) fn heal(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::WorkerAway => self.start_worker(),
            Fault::MasterAway if self.master().is_none() => self.start_master()?,
            Fault::MasterAway => {}
            Fault::Connected(id) => self.connected(&id),
            Fault::ChildFrozen(worker, key) => {
                let mut end = exit(None, vec![], "frozen", 0);
                end.frozen = true;
                let step = Step::End(Box::new(end));
                self.after(0, Next::Child(worker, key, step));
            }
        }
        Ok(())
    }

    /// A random child that runs.
    fn any_child(&mut self) -> Option<(String, ProcessKey)> {
        let all = self.workers.iter().flat_map(|worker| {
            let running = worker.children.iter().filter(|(_, child)| child.runs());
            running.map(|(key, _)| (worker.id.clone(), key.clone()))
        });
        let all: Vec<_> = all.collect();
        let last = all.len().checked_sub(1)?;
        let at = self.between(0, last as u64) as usize;
        all.into_iter().nth(at)
    }

    /// A child ends with a random exit code, or by a signal.
    fn child_fails(&mut self) {
        let Some((worker, key)) = self.any_child() else {
            return;
        };
        let codes = [Some(0), Some(1), Some(1), Some(2), Some(3), Some(101), None];
        let code = codes[self.between(0, 6) as usize];
        // Often the same message, so that repetitions are counted.
        let said = format!("failure {}", self.between(0, 1));
        self.harm(&key);
        let exit = exit(code, vec![], &said, 0);
        self.after(0, Next::Child(worker, key, Step::End(Box::new(exit))));
    }

    /// A child does nothing any more, until its worker kills it after 8 s.
    fn child_freezes(&mut self) {
        let Some((id, key)) = self.any_child() else {
            return;
        };
        if let Some(child) = self.worker(&id).and_then(|it| it.children.get_mut(&key)) {
            child.frozen = true;
            self.harm(&key);
            self.after(8000, Next::Heal(Fault::ChildFrozen(id, key)));
        }
    }

    /// The index of a random worker.
    fn any_worker(&mut self) -> Option<usize> {
        let last = self.workers.len().checked_sub(1)?;
        Some(self.between(0, last as u64) as usize)
    }

    /// A worker dies, and its children with it, because their stdin ends.
    fn worker_dies(&mut self) {
        let Some(at) = self.any_worker() else { return };
        let worker = self.workers.remove(at);
        self.harm_worker(&worker.id, u64::MAX);
        self.connection_ends(&worker.id, worker.poll);
        for (key, child) in worker.children.iter().filter(|(_, child)| child.runs()) {
            if child.is_live() {
                self.peers_lose(key);
            }
        }
        let wait = self.between(100, 15_000);
        self.after(wait, Next::Heal(Fault::WorkerAway));
    }

    /// The master notices most broken connections, and misses some.
    fn connection_ends(&mut self, worker: &str, poll: u64) {
        let seen = self.chance(0.8);
        if let Some(master) = self.master().filter(|_| seen) {
            let worker = worker.to_owned();
            let wait = self.between(0, 50);
            self.after(wait, Next::ToMaster(master, Event::Cut { worker, poll }));
        }
    }

    /// Nothing else does.
    fn master_fails(&mut self, which: u64) -> Result<(), String> {
        match which {
            0..30 => self.master_dies(),
            30..40 => self.master_freezes(),
            _ => self.start_master()?,
        }
        Ok(())
    }

    /// The newest master ends, and another one starts later.
    fn master_dies(&mut self) {
        if let Some(master) = self.master() {
            self.masters[master].alive = false;
        }
        let wait = self.between(10, 12_000);
        self.after(wait, Next::Heal(Fault::MasterAway));
    }

    /// The newest master does nothing for up to 20 s, and then goes on with what it knew.
    fn master_freezes(&mut self) {
        let wait = self.between(500, 20_000);
        if let Some(master) = self.master() {
            self.masters[master].frozen_until = self.now + wait;
        }
    }

    /// A worker neither sends nor receives anything for a while.
    fn worker_freezes(&mut self) {
        let most = match self.weather {
            Weather::Masters => SILENCE_OVERLOOKED,
            _ => 20_000,
        };
        let (wait, now) = (self.between(500, most), self.now);
        if let Some(at) = self.any_worker() {
            self.workers[at].frozen_until = now + wait;
            if wait > SILENCE_OVERLOOKED {
                let id = self.workers[at].id.clone();
                self.harm_worker(&id, now + wait);
            }
        }
    }

    /// A worker runs on without a connection to any master.
    fn worker_is_cut(&mut self) {
        let (wait, now) = (self.between(500, 20_000), self.now);
        if let Some(at) = self.any_worker() {
            self.workers[at].cut_until = now + wait;
            let (id, poll) = (self.workers[at].id.clone(), self.workers[at].poll);
            self.harm_worker(&id, now + wait);
            self.connection_ends(&id, poll);
        }
    }

    /// The connection breaks and is back before the worker counts as gone.
    fn connection_blinks(&mut self) {
        let (away, seen) = (self.between(10, 700), self.between(0, 900));
        let (Some(at), Some(master)) = (self.any_worker(), self.master()) else {
            return;
        };
        let worker = &mut self.workers[at];
        if !self.masters[master].state.orders.contains_key(&worker.id) {
            return;
        }
        worker.cut_until = worker.cut_until.max(self.now + away);
        let (worker, poll) = (worker.id.clone(), worker.poll);
        let id = worker.clone();
        self.after(seen, Next::ToMaster(master, Event::Cut { worker, poll }));
        self.after(away, Next::Heal(Fault::Connected(id)));
    }

    /// The worker polls again and reports at once.
    fn connected(&mut self, id: &str) {
        let Some(worker) = self.worker(id) else {
            return;
        };
        worker.poll += 1;
        let poll = worker.poll;
        if let Some(master) = self.master() {
            let worker = id.to_owned();
            let wait = self.between(0, 20);
            self.after(wait, Next::ToMaster(master, Event::Waits { worker, poll }));
        }
        self.report_now(id);
    }

    /// From now on nothing fails any more, and every fault heals.
    pub(super) fn faults_cease(&mut self) {
        self.faulty = false;
        (self.store_away_until, self.journals_away_until) = (0, 0);
        for worker in &mut self.workers {
            (worker.frozen_until, worker.cut_until) = (0, 0);
        }
        for master in &mut self.masters {
            master.frozen_until = 0;
        }
    }

    /// The master dies soon, and another one starts soon after.
    pub(super) fn one_more_master(&mut self) -> Result<(), String> {
        let soon = self.now + self.between(1, 3000);
        self.run_until(soon, |_| false)?;
        self.master_dies();
        Ok(())
    }
}
