//! The simulated cluster: its processes, and the queue of what happens next.
//!
//! Time is a number of milliseconds that jumps from one event to the next, so hours pass in a
//! moment. All randomness comes from the seed: the same seed gives the same run, event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_protocol::{Assignment, JobSpec, Part, ProcessKey};

use super::causes::Causes;
use super::checks::Seen;
use super::children::{Doom, Step, Worker, journal};
use super::clients::Clients;
use super::faults::Fault;
use crate::machine::State;
use crate::machine::component::Stage;
use crate::machine::durable::{Author, Durable};
use crate::machine::event::{Event, Minted, Unminted};

/// How often a master receives the time, in ms.
const TICK: u64 = 100;
/// How often a master checks for a newer one, in ms.
const LOOK: u64 = 1000;
/// Documents that the simulated store keeps.
const KEPT: usize = 5;
/// Limit of steps for one seed. More steps mean that something goes round in circles.
const STEPS_LIMIT: usize = 400_000;

/// A simulated master process.
pub(super) struct Process {
    /// The state machine under test, the real one.
    pub(super) state: State,
    /// Whether the process has not died.
    pub(super) alive: bool,
    /// The master does nothing before this time.
    pub(super) frozen_until: u64,
    /// The versions of the assignments that were sent.
    pub(super) sent: BTreeMap<String, u64>,
}

/// What happens at a point in time.
#[derive(Clone)]
pub(super) enum Next {
    /// A master receives the time.
    Tick(usize),
    /// A master looks for a newer master in the store.
    Look(usize),
    /// An event reaches a master.
    ToMaster(usize, Event),
    /// An assignment reaches a worker.
    ToWorker(String, Arc<Assignment>),
    /// A worker sends its regular report.
    Report(String),
    /// A master asks the store to write a document.
    Put(usize, u64, Box<Durable>),
    /// A master asks a journal for a generation.
    Mint(usize, Arc<JobSpec>),
    /// Something happens in a child.
    Child(String, ProcessKey, Step),
    /// A client thinks of a command.
    Client,
    /// A fault is injected.
    Fault,
    /// A fault ends.
    Heal(Fault),
    /// A person tends the cluster.
    Tend,
}

/// Which faults are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Messages arrive soon and in order, and nobody freezes; children, workers and masters fail.
    Calm,
    /// Masters fail and freeze, and messages get lost. No process of a job and no worker fails.
    Masters,
    /// All faults.
    Storm,
}

/// The simulated world.
pub(super) struct World {
    /// The simulated time in ms.
    pub(super) now: u64,
    /// The only source of randomness.
    pub(super) rng: StdRng,
    /// When each event is due, and its number; events that are due together come in the order of
    /// their numbers.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// The events by number.
    events: BTreeMap<u64, Next>,
    /// The number of the last event.
    last: u64,
    /// All masters that ever ran, the newest last.
    pub(super) masters: Vec<Process>,
    /// The workers that are alive.
    pub(super) workers: Vec<Worker>,
    pub(super) workers_made: usize,
    /// The store: the documents by number.
    pub(super) documents: BTreeMap<u64, Durable>,
    /// The generation of each journal.
    pub(super) journals: BTreeMap<String, u64>,
    pub(super) seen: Seen,
    /// Whether faults are injected now.
    pub(super) faulty: bool,
    pub(super) weather: Weather,
    /// The store refuses writes before this time.
    pub(super) store_away_until: u64,
    /// No journal gives a generation before this time.
    pub(super) journals_away_until: u64,
    pub(super) clients: Clients,
    pub(super) causes: Causes,
    /// The fate of all processes, if it is the same.
    pub(super) doom: Option<Doom>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = match rng.random_range(0..10) {
            0..3 => Weather::Calm,
            3..6 => Weather::Masters,
            _ => Weather::Storm,
        };
        let mut world = Self::without_anybody(rng, weather);
        world.start_master().expect("the first master");
        for _ in 0..world.rng.random_range(1..=4) {
            world.start_worker();
        }
        world.after(500, Next::Client);
        world.after(1500, Next::Fault);
        world
    }

    /// One master, and one worker with `slots` slots, without faults.
    pub(super) fn quiet(slots: usize, doom: Doom) -> Self {
        let mut world = Self::without_anybody(StdRng::seed_from_u64(0), Weather::Calm);
        (world.faulty, world.doom) = (false, Some(doom));
        world.start_master().expect("the master");
        world.start_worker();
        world.workers[0].slots = slots;
        world
    }

    fn without_anybody(rng: StdRng, weather: Weather) -> Self {
        Self {
            now: 1000,
            rng,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            last: 0,
            masters: Vec::new(),
            workers: Vec::new(),
            workers_made: 0,
            documents: BTreeMap::new(),
            journals: BTreeMap::new(),
            seen: Seen::default(),
            faulty: true,
            weather,
            store_away_until: 0,
            journals_away_until: 0,
            clients: Clients::default(),
            causes: Causes::default(),
            doom: None,
        }
    }

    /// Schedules something `wait` ms from now.
    pub(super) fn after(&mut self, wait: u64, next: Next) {
        self.last += 1;
        self.queue.push(Reverse((self.now + wait, self.last)));
        self.events.insert(self.last, next);
    }

    /// A random number of ms within the bounds.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        self.rng.random_range(least..=most)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub(super) fn run_until(
        &mut self,
        deadline: u64,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        for step in 0..STEPS_LIMIT {
            let Some(Reverse((at, _))) = self.queue.peek() else {
                return Err("nothing happens any more".to_owned());
            };
            if *at > deadline || (step % 64 == 0 && is_done(self)) {
                return Ok(());
            }
            let Some(Reverse((at, number))) = self.queue.pop() else {
                continue;
            };
            self.now = at.max(self.now);
            if let Some(next) = self.events.remove(&number) {
                let at = self.now;
                self.happen(next)
                    .map_err(|why| format!("at {at} ms: {why}"))?;
                self.check().map_err(|why| format!("at {at} ms: {why}"))?;
            }
        }
        Err(format!("{STEPS_LIMIT} steps: {}", self.described()))
    }

    fn happen(&mut self, next: Next) -> Result<(), String> {
        match next {
            Next::Tick(master) => {
                if self.masters[master].alive {
                    self.after(TICK, Next::Tick(master));
                    self.tell_master(master, Event::Tick)?;
                }
            }
            Next::Look(master) => self.look(master),
            Next::ToMaster(master, event) => {
                let reporter = match &event {
                    Event::Report(report) => Some(report.worker.clone()),
                    _ => None,
                };
                self.tell_master(master, event)?;
                if let Some(worker) = reporter {
                    self.answer_report(master, &worker);
                }
            }
            Next::ToWorker(worker, orders) => self.follow(&worker, &orders)?,
            Next::Report(worker) => self.report(&worker),
            Next::Put(master, number, document) => self.put(master, number, &document)?,
            Next::Mint(master, spec) => self.mint(master, &spec)?,
            Next::Child(worker, key, step) => self.step_child(&worker, &key, step)?,
            Next::Client => self.think()?,
            Next::Tend => self.tend()?,
            Next::Fault => self.fault()?,
            Next::Heal(fault) => self.heal(fault)?,
        }
        Ok(())
    }

    /// Starts another master. The ones that run are not told.
    pub(super) fn start_master(&mut self) -> Result<(), String> {
        let (number, mut durable) = match self.documents.last_key_value() {
            Some((number, durable)) => (*number, durable.clone()),
            None => (0, Durable::default()),
        };
        self.check_answers()?;
        for worker in &mut self.workers {
            worker.poll = 0;
        }
        let master = self.masters.len();
        durable.by = Author {
            generation: durable.by.generation + 1,
            number: number + 1,
            random: master as u64,
            ..Author::default()
        };
        self.documents.insert(number + 1, durable.clone());
        self.masters.push(Process {
            state: State::new(durable, self.now),
            alive: true,
            frozen_until: 0,
            sent: BTreeMap::new(),
        });
        self.after(TICK, Next::Tick(master));
        self.after(LOOK, Next::Look(master));
        Ok(())
    }

    fn look(&mut self, master: usize) {
        let newest = self
            .documents
            .last_key_value()
            .map_or(0, |(number, _)| *number);
        let process = &mut self.masters[master];
        if process.alive && self.now >= process.frozen_until {
            process.alive &= newest <= process.state.number();
        }
        if self.masters[master].alive {
            self.after(LOOK, Next::Look(master));
        }
    }

    /// Puts a document as [`crate::state_log::StateLog`] does.
    fn put(&mut self, master: usize, number: u64, document: &Durable) -> Result<(), String> {
        if self.now < self.store_away_until {
            if self.masters[master].alive {
                let again = Next::Put(master, number, Box::new(document.clone()));
                self.after(300, again);
            }
            return Ok(());
        }
        let there = self
            .documents
            .entry(number)
            .or_insert_with(|| document.clone());
        let is_it = *there == *document;
        let newest = self
            .documents
            .last_key_value()
            .map_or(0, |(number, _)| *number);
        if !is_it || newest > number {
            self.masters[master].alive = false;
            return Ok(());
        }
        self.check_causes(number, document)?;
        self.seen.document(document);
        while self.documents.len() > KEPT {
            self.documents.pop_first();
        }
        let wait = self.between(0, 30);
        self.after(wait, Next::ToMaster(master, Event::Wrote(number)));
        Ok(())
    }

    fn mint(&mut self, master: usize, spec: &JobSpec) -> Result<(), String> {
        let job = spec.name.clone();
        let away = self.now < self.journals_away_until;
        let minted = match away {
            true => Err(Unminted {
                what: "the journal is away".to_owned(),
                may_mend: true,
            }),
            false => {
                let journal = journal(spec);
                let last = self.journals.entry(journal.clone()).or_default();
                *last += 1;
                let generation = *last;
                self.check_mint(master, &job, generation)?;
                self.fence(&journal, generation);
                self.seen.minted.insert((journal, generation));
                let secret = format!("{generation:x}");
                Ok(Minted { generation, secret })
            }
        };
        let wait = self.between(0, 50);
        let event = Event::Minted { job, minted };
        self.after(wait, Next::ToMaster(master, event));
        Ok(())
    }

    /// The newest master that runs.
    pub(super) fn master(&self) -> Option<usize> {
        self.masters.iter().rposition(|master| master.alive)
    }

    /// Whether everything is in its desired state in the end.
    pub(super) fn is_as_it_should_be(&self) -> bool {
        let Some(master) = self.master() else {
            return false;
        };
        let state = &self.masters[master].state;
        state.durable.jobs.iter().all(|(name, job)| {
            [Part::Dataflow, Part::Ingest].iter().all(|part| {
                let component = state.components.get(&(name.clone(), *part));
                let stage = component.map(|component| &component.stage);
                if !job.wants(*part) {
                    return stage == Some(&Stage::Stopped) && self.live(name, *part) == (0, 0);
                }
                let size = match part {
                    Part::Dataflow => job.spec.workers,
                    Part::Ingest => 1,
                };
                let generation = job.record(*part).generation;
                matches!(stage, Some(Stage::Running(_)))
                    && self.live(name, *part) == (generation, size)
            })
        })
    }

    /// The generation and the threads of a component's processes. The generation is 0 if there are
    /// none, and `u64::MAX` if the processes differ or one is not live.
    fn live(&self, job: &str, part: Part) -> (u64, usize) {
        let mut all = (0, 0);
        for worker in &self.workers {
            for (key, child) in &worker.children {
                if key.job == job && key.part == part && child.runs() {
                    let is_one = child.is_live() && [0, key.generation].contains(&all.0);
                    all.0 = if is_one { key.generation } else { u64::MAX };
                    all.1 += child.order.threads;
                }
            }
        }
        all
    }

    pub(super) fn described(&self) -> String {
        let Some(master) = self.master() else {
            return "no master".to_owned();
        };
        let state = &self.masters[master].state;
        let components = state.components.iter().map(|((job, part), component)| {
            let live = self.live(job, *part);
            format!("{job} {part:?} {:?} live {live:?}", component.stage)
        });
        let components: Vec<String> = components.collect();
        format!("at {} ms: {}", self.now, components.join("; "))
    }
}
