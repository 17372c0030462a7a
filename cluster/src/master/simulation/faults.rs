//! What goes wrong in the simulation, and how it ends.

use super::children::{Step, exit};
use super::world::{Next, World};
use crate::master::commands::Command;
use crate::master::state::Event;
use crate::protocol::ProcessKey;

/// Something that ends later.
#[derive(Clone)]
pub(super) enum Fault {
    /// A worker is to be started.
    WorkerAway,
    /// A master is to be started.
    MasterAway,
    /// A child that says nothing is killed by its worker.
    ChildFrozen(String, ProcessKey),
}

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let wait = self.between(200, 8000);
        self.after(wait, Next::Fault);
        let which = self.between(0, 99);
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
            // Another master beside the one that runs: it does not know of that one's end.
            80..86 => self.start_master()?,
            86..90 if !self.is_calm => self.master_freezes(),
            90..95 if !self.is_calm => self.worker_freezes(),
            95..100 if !self.is_calm => self.worker_is_cut(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn heal(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::WorkerAway => self.start_worker(),
            Fault::MasterAway if self.master().is_none() => self.start_master()?,
            Fault::MasterAway => {}
            Fault::ChildFrozen(worker, key) => {
                let mut end = exit(None, vec![], "frozen", 0);
                end.frozen = true;
                let step = Step::End(Box::new(end));
                self.after(0, Next::Child(worker, key, step));
            }
        }
        Ok(())
    }

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

    fn child_fails(&mut self) {
        let Some((worker, key)) = self.any_child() else {
            return;
        };
        let codes = [Some(0), Some(1), Some(1), Some(2), Some(3), Some(101), None];
        let code = codes[self.between(0, 6) as usize];
        // Often the same.
        let said = format!("failure {}", self.between(0, 1));
        let exit = exit(code, vec![], &said, 0);
        self.after(0, Next::Child(worker, key, Step::End(Box::new(exit))));
    }

    fn child_freezes(&mut self) {
        let Some((id, key)) = self.any_child() else {
            return;
        };
        if let Some(child) = self.worker(&id).and_then(|it| it.children.get_mut(&key)) {
            child.frozen = true;
            self.after(8000, Next::Heal(Fault::ChildFrozen(id, key)));
        }
    }

    fn any_worker(&mut self) -> Option<usize> {
        let last = self.workers.len().checked_sub(1)?;
        Some(self.between(0, last as u64) as usize)
    }

    /// Its children go with it: nobody holds their stdin any more.
    fn worker_dies(&mut self) {
        let Some(at) = self.any_worker() else { return };
        let worker = self.workers.remove(at);
        self.connection_ends(&worker.id);
        for (key, child) in worker.children.iter().filter(|(_, child)| child.runs()) {
            if child.is_live() {
                self.peers_lose(key);
            }
        }
        let wait = self.between(100, 15_000);
        self.after(wait, Next::Heal(Fault::WorkerAway));
    }

    fn connection_ends(&mut self, worker: &str) {
        let seen = self.chance(0.8);
        if let Some(master) = self.master().filter(|_| seen) {
            let (worker, poll) = (worker.to_owned(), 0);
            let wait = self.between(0, 50);
            self.after(wait, Next::ToMaster(master, Event::Cut { worker, poll }));
        }
    }

    fn master_dies(&mut self) {
        if let Some(master) = self.master() {
            self.masters[master].alive = false;
        }
        let wait = self.between(10, 12_000);
        self.after(wait, Next::Heal(Fault::MasterAway));
    }

    fn master_freezes(&mut self) {
        let wait = self.between(500, 20_000);
        if let Some(master) = self.master() {
            self.masters[master].frozen_until = self.now + wait;
        }
    }

    fn worker_freezes(&mut self) {
        let (wait, now) = (self.between(500, 20_000), self.now);
        if let Some(at) = self.any_worker() {
            self.workers[at].frozen_until = now + wait;
        }
    }

    fn worker_is_cut(&mut self) {
        let (wait, now) = (self.between(500, 20_000), self.now);
        if let Some(at) = self.any_worker() {
            self.workers[at].cut_until = now + wait;
            let id = self.workers[at].id.clone();
            self.connection_ends(&id);
        }
    }

    /// From here on nothing fails any more; what failed heals.
    pub(super) fn faults_cease(&mut self) {
        self.faulty = false;
        (self.store_away_until, self.journals_away_until) = (0, 0);
        for worker in &mut self.workers {
            (worker.frozen_until, worker.cut_until) = (0, 0);
        }
        for master in &mut self.masters {
            master.frozen_until = 0;
        }
        // Enough for all jobs, in any division.
        for _ in 0..3 {
            self.start_worker();
            if let Some(worker) = self.workers.last_mut() {
                worker.slots = 18;
            }
        }
    }

    /// Waits until one master knows all workers, and tells it what each job shall be.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let soon = self.now + 15_000;
        self.run_until(soon, |_| false)?;
        if self.master().is_none() {
            self.start_master()?;
        }
        let soon = self.now + 5_000;
        self.run_until(soon, |_| false)?;
        for name in ["one", "two", "three"] {
            let workers = self.between(1, 6) as usize;
            let spec = self.spec(name, workers);
            self.command(Command::Submit(spec))?;
            // Also one that gave up, or runs with fewer workers.
            self.command(Command::Restart(name.to_owned()))?;
            let runs = self.chance(0.7);
            if !runs {
                self.command(Command::Stop(name.to_owned()))?;
            }
            self.wanted.insert(name.to_owned(), runs);
        }
        Ok(())
    }
}
