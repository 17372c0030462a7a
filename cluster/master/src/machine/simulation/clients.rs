//! Simulated clients: their commands, and what they know from the answers.
//!
//! In: commands at any time while faults happen, then those of a person who tends the cluster by
//! its status. Out: a violation when the state does not fit an answer that was given. A command
//! without an answer may or may not have been carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_protocol::{JobSpec, JobState};

use super::world::{Next, World};
use crate::machine::durable::Durable;
use crate::machine::event::{Command, Refusal};
use crate::machine::status;

/// The names of the jobs.
const JOBS: [&str; 3] = ["one", "two", MOVING];
/// This job sometimes moves to another journal. It is not removed meanwhile, because a new job of
/// the same name with another journal would have the same generations again.
const MOVING: &str = "three";
/// How often the person looks at the status, in ms.
const TEND: u64 = 5000;

/// Everything that the clients know.
#[derive(Default)]
pub(super) struct Clients {
    /// Commands without an answer so far, by master and request.
    asked: BTreeMap<(usize, u64), Command>,
    /// The number of the last request.
    requests: u64,
    /// The last command about each job.
    last_asked: BTreeMap<String, u64>,
    /// What is known of each job, by name.
    known: BTreeMap<String, Known>,
    /// Whether stopped jobs are being removed now, and how many were.
    tidies: bool,
    pub(super) removed: usize,
}

/// What is known of one job.
#[derive(Debug, Default)]
struct Known {
    /// Whether the job exists.
    there: Option<bool>,
    /// Whether the job is to run.
    runs: Option<bool>,
    /// How many workers were asked for last.
    workers: Option<usize>,
    /// The definition that was submitted last.
    spec: Option<Arc<JobSpec>>,
}

impl Known {
    /// What `command` changes is unknown until the command is answered.
    fn ask(&mut self, command: &Command) {
        match command {
            Command::Submit(_) => *self = Self::default(),
            Command::Stop(_) | Command::Restart(_) => self.runs = None,
            Command::Rescale(..) => self.workers = None,
            Command::Remove(_) => self.there = None,
            Command::Drain(_) | Command::Undrain(_) => {}
        }
    }

    /// An accepted command: what it asked for is so from now on.
    fn hear(&mut self, command: Command) {
        self.there = Some(true);
        match command {
            Command::Submit(spec) => {
                self.runs = Some(true);
                self.workers = Some(spec.workers);
                self.spec = Some(spec);
            }
            Command::Stop(_) => self.runs = Some(false),
            Command::Restart(_) => self.runs = Some(true),
            Command::Rescale(_, workers) => self.workers = Some(workers),
            Command::Remove(_) => {
                *self = Self {
                    there: Some(false),
                    ..Self::default()
                }
            }
        }
    }

    /// `None` fits everything: the answer is not known.
    fn fits(&self, durable: &Durable, name: &str) -> bool {
        let Some(job) = durable.jobs.get(name) else {
            return self.there != Some(true);
        };
        let same = |spec: &Arc<JobSpec>| {
            let workers = job.spec.workers;
            let spec = JobSpec::clone(spec);
            JobSpec { workers, ..spec } == *job.spec
        };
        self.there != Some(false)
            && self.runs.is_none_or(|runs| runs == job.runs)
            && self.workers.is_none_or(|it| it == job.spec.workers)
            && self.spec.as_ref().is_none_or(same)
    }
}

fn job_of(command: &Command) -> &str {
    match command {
        Command::Submit(spec) => &spec.name,
        Command::Stop(name)
        | Command::Restart(name)
        | Command::Rescale(name, _)
        | Command::Remove(name)
        | Command::Drain(name)
        | Command::Undrain(name) => name,
    }
}

impl World {
    /// A client sends a random command.
    pub(super) fn think(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let wait = self.between(500, 15_000);
        self.after(wait, Next::Client);
        let name = JOBS[self.between(0, 2) as usize];
        let workers = self.between(1, 6) as usize;
        let command = match self.between(0, 9) {
            0..5 => Command::Submit(self.spec(name, workers)),
            5 => Command::Stop(name.to_owned()),
            6 => Command::Restart(name.to_owned()),
            7 | 8 => Command::Rescale(name.to_owned(), workers),
            _ if name == MOVING => return Ok(()),
            _ => Command::Remove(name.to_owned()),
        };
        self.command(command)
    }

    pub(super) fn spec(&mut self, name: &str, workers: usize) -> Arc<JobSpec> {
        let version = self.between(0, 1).to_string();
        let state = u8::from(name == MOVING && self.chance(0.3));
        Arc::new(JobSpec {
            name: name.to_owned(),
            files: [("views.sql".to_owned(), version)].into(),
            connections: [("state".to_owned(), format!("s3://{state}"))].into(),
            workers,
            wait_for_slots: self.chance(0.3),
            ingest: self.chance(0.5),
            flags: [].into(),
        })
    }

    /// Sends a command to the newest master, if it can be reached.
    pub(super) fn command(&mut self, command: Command) -> Result<(), String> {
        let Some(master) = self.master() else {
            return Ok(());
        };
        if self.now < self.masters[master].frozen_until {
            return Ok(());
        }
        let clients = &mut self.clients;
        clients.requests += 1;
        let request = clients.requests;
        let job = job_of(&command).to_owned();
        clients.known.entry(job.clone()).or_default().ask(&command);
        clients.last_asked.insert(job, request);
        clients.asked.insert((master, request), command.clone());
        self.tell_master(
            master,
            crate::machine::event::Event::Command { request, command },
        )
    }

    /// A client receives an answer. From now on, every later master must know the result.
    pub(super) fn answered(
        &mut self,
        master: usize,
        request: u64,
        answer: Result<String, Refusal>,
    ) -> Result<(), String> {
        let clients = &mut self.clients;
        let Some(command) = clients.asked.remove(&(master, request)) else {
            return Ok(());
        };
        let job = job_of(&command).to_owned();
        if clients.last_asked.get(&job) != Some(&request) {
            return Ok(());
        }
        let tidies = clients.tidies && matches!(command, Command::Remove(_));
        match answer {
            Err(why) if tidies => {
                return Err(format!("{job} is stopped and cannot be removed: {why:?}"));
            }
            Err(_) => return Ok(()),
            Ok(_) => clients.known.entry(job).or_default().hear(command),
        }
        clients.removed += usize::from(tidies);
        self.check_answers()
    }

    /// Checks that a master which takes over now would know everything that was answered.
    pub(super) fn check_answers(&self) -> Result<(), String> {
        let Some(durable) = self.documents.values().next_back() else {
            return Ok(());
        };
        let known = &self.clients.known;
        match known.iter().find(|(name, it)| !it.fits(durable, name)) {
            None => Ok(()),
            Some((name, known)) => {
                let found = durable.jobs.get(name);
                let found = found.map(|it| (it.runs, &it.spec));
                Err(format!(
                    "clients were answered {known:?} of {name}, and durable is {found:?}"
                ))
            }
        }
    }

    /// The faults are over. A person submits jobs that are missing and adds the slots that are
    /// missing. Everything else is left alone.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        // By then masters that were overtaken have noticed it.
        let soon = self.now + 1100;
        self.run_until(soon, |_| false)?;
        if self.master().is_none() {
            self.start_master()?;
        }
        for name in JOBS {
            let master = self.master().unwrap_or(0);
            let is_there = self.masters[master].state.durable.jobs.contains_key(name);
            if !is_there && self.chance(0.6) {
                let workers = self.between(1, 6) as usize;
                let spec = self.spec(name, workers);
                self.command(Command::Submit(spec))?;
            }
        }
        let master = self.master().unwrap_or(0);
        let jobs = self.masters[master].state.durable.jobs.values();
        let needed: usize = jobs.map(|job| job.spec.workers).sum();
        let slots: usize = self.workers.iter().map(|it| it.slots).sum();
        let mut missing = needed.saturating_sub(slots);
        while missing > 0 || self.workers.is_empty() {
            self.start_worker();
            if let Some(worker) = self.workers.last_mut() {
                worker.slots = worker.slots.min(2);
                missing = missing.saturating_sub(worker.slots);
            }
        }
        self.after(TEND, Next::Tend);
        Ok(())
    }

    /// The person looks at the status, and restarts jobs that gave up or run with fewer workers
    /// than they should.
    pub(super) fn tend(&mut self) -> Result<(), String> {
        self.after(TEND, Next::Tend);
        let Some(master) = self.master() else {
            return Ok(());
        };
        for job in status::of(&self.masters[master].state).jobs {
            let ingest = job
                .ingest
                .is_some_and(|ingest| ingest.state == JobState::Failed);
            if job.state == JobState::Failed || ingest {
                self.command(Command::Restart(job.name))?;
            } else if job.state.is_live() && job.workers < job.workers_wanted {
                self.command(Command::Rescale(job.name, job.workers_wanted))?;
            }
        }
        Ok(())
    }

    /// The cluster is healthy. Some jobs get another desired state.
    pub(super) fn change_their_minds(&mut self) -> Result<(), String> {
        for name in JOBS {
            let master = self.master().unwrap_or(0);
            let Some(job) = self.masters[master].state.durable.jobs.get(name) else {
                continue;
            };
            let most = job.spec.workers as u64;
            let name = name.to_owned();
            let command = match self.between(0, 4) {
                0 => Command::Stop(name),
                1 => Command::Restart(name),
                2 => Command::Rescale(name, self.between(1, most) as usize),
                _ => continue,
            };
            self.command(command)?;
        }
        Ok(())
    }

    /// Removes stopped jobs. Returns how many.
    pub(super) fn tidy_up(&mut self) -> Result<usize, String> {
        let master = self.master().unwrap_or(0);
        let jobs = self.masters[master].state.durable.jobs.iter();
        let stopped = jobs.filter(|(_, job)| !job.runs);
        let stopped: Vec<String> = stopped.map(|(name, _)| name.clone()).collect();
        self.clients.tidies = true;
        for name in &stopped {
            self.command(Command::Remove(name.clone()))?;
        }
        Ok(stopped.len())
    }
}
