//! Commands of users: submit, stop, restart, rescale and remove a job; drain a worker.
//!
//! In: the command. Out: a changed durable state, and a sentence for the user. The user receives
//! the sentence when the change is durable. Commands start and end no process: the state machines
//! of the components react to the changed state.

use std::sync::Arc;

use tidemill_protocol::{JobSpec, Part};

use super::durable::{Job, Record};
use super::event::{Command, Refusal};
use super::times::WORKER_REMEMBERED_MAX;
use crate::machine::State;

/// Limit of jobs of one master.
pub(crate) const JOBS_MAX: usize = 100;
/// Limit of worker threads of one job.
pub(crate) const JOB_WORKERS_MAX: usize = 1024;

type Answer = Result<String, Refusal>;

impl State {
    /// Applies a command to the durable state.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the value is out of range, there is no such job, or the command does not fit
    /// the job's state.
    pub(crate) fn command(&mut self, command: Command) -> Answer {
        match command {
            Command::Submit(spec) => self.submit(spec),
            Command::Stop(name) => self.job(&name).map(|job| stop(&name, job)),
            Command::Restart(name) => self.job(&name).map(|job| restart(&name, job)),
            Command::Rescale(name, workers) => {
                check_workers(workers)?;
                self.job(&name).map(|job| rescale(&name, job, workers))
            }
            Command::Remove(name) => self.remove(&name),
            Command::Drain(worker) => self.drain(&worker),
            Command::Undrain(worker) => self.undrain(&worker),
        }
    }

    /// The job of this name.
    fn job(&mut self, name: &str) -> Result<&mut Job, Refusal> {
        self.durable.jobs.get_mut(name).ok_or_else(|| {
            Refusal::NoSuchJob(format!("no job `{name}`; `tidemill status` lists all"))
        })
    }

    /// Adds a job, or replaces the definition of a job that exists. An equal definition of a job
    /// that runs changes nothing; of one that was stopped or failed, it starts the job.
    fn submit(&mut self, spec: Arc<JobSpec>) -> Answer {
        check_workers(spec.workers)?;
        let name = spec.name.clone();
        let jobs = self.durable.jobs.len();
        let Some(job) = self.durable.jobs.get_mut(&name) else {
            if jobs >= JOBS_MAX {
                let why = format!("{jobs} jobs are the most; remove one with `tidemill remove`");
                return Err(Refusal::Conflict(why));
            }
            let job = Job {
                spec,
                runs: true,
                dataflow: Record::default(),
                ingest: Record::default(),
            };
            self.durable.jobs.insert(name.clone(), job);
            return Ok(format!("job `{name}` is submitted"));
        };
        if job.spec != spec {
            replace_spec(job, spec);
            let had = [&job.dataflow, &job.ingest]
                .iter()
                .any(|it| it.run.is_some());
            anew(job);
            let how = if had {
                "drains and starts again"
            } else {
                "starts"
            };
            return Ok(format!("job `{name}` was changed: it {how}"));
        }
        let failed = [&job.dataflow, &job.ingest]
            .iter()
            .any(|it| it.failed.is_some());
        if job.runs && !failed {
            return Ok(format!(
                "job `{name}` runs already, exactly as it was submitted"
            ));
        }
        anew(job);
        Ok(format!("job `{name}` was there, and starts again"))
    }

    /// Places nothing on a worker any more, and lets each component with a process there drain and
    /// begin a generation elsewhere. Budgets of restarts stay as they are: nothing failed.
    fn drain(&mut self, worker: &str) -> Answer {
        let name = self.worker(worker)?;
        if !self.durable.drained.insert(worker.to_owned()) {
            return Ok(format!("worker {name} is drained already"));
        }
        let mut moved = 0;
        for job in self.durable.jobs.values_mut() {
            for record in [&mut job.dataflow, &mut job.ingest] {
                let run = record.run.as_ref();
                if run.is_some_and(|run| run.workers.iter().any(|(id, _)| id == worker)) {
                    record.revision += 1;
                    moved += 1;
                }
            }
        }
        Ok(match moved {
            0 => format!("worker {name} gets no processes any more; it has none"),
            _ => format!("worker {name} drains: its processes move to other workers"),
        })
    }

    /// Lets a drained worker get processes again. Nothing moves to it before the next generation.
    fn undrain(&mut self, worker: &str) -> Answer {
        let name = self.worker(worker)?;
        Ok(match self.durable.drained.remove(worker) {
            true => format!("worker {name} gets processes again, at the next start of a job"),
            false => format!("worker {name} was not drained"),
        })
    }

    /// The name of a worker that is there.
    fn worker(&self, id: &str) -> Result<String, Refusal> {
        let mut workers = self.roster.present();
        let found = workers.find(|worker| worker.report.worker == id);
        let why = || Refusal::NoSuchJob(format!("no worker `{id}` is there"));
        found
            .map(|worker| worker.report.name.clone())
            .ok_or_else(why)
    }

    /// Forgets drained workers that have been gone for so long that the roster has none of them.
    pub(super) fn forget_drained(&mut self) {
        if self.now < self.started + WORKER_REMEMBERED_MAX {
            return;
        }
        let known: Vec<&str> = self.roster.known().collect();
        self.durable
            .drained
            .retain(|worker| known.contains(&worker.as_str()));
    }

    /// Forgets a job that has no processes and is not wanted to run, or that gave up. Tables,
    /// journal and checkpoints stay.
    fn remove(&mut self, name: &str) -> Answer {
        let job = self.job(name)?;
        let rests = |it: &Record| it.run.is_none() && !it.minting;
        if !(rests(&job.dataflow) && rests(&job.ingest)) {
            let why = format!("job `{name}` has processes; `tidemill stop {name}` first");
            return Err(Refusal::Conflict(why));
        }
        let gave_up =
            job.dataflow.failed.is_some() && (job.ingest.failed.is_some() || !job.spec.ingest);
        if job.runs && !gave_up {
            let why = format!("job `{name}` shall run; `tidemill stop {name}` first");
            return Err(Refusal::Conflict(why));
        }
        self.durable.jobs.remove(name);
        Ok(format!(
            "job `{name}` is removed; its tables, journal and checkpoints are left as they are"
        ))
    }
}

/// Refuses a number of worker threads outside 1 to [`JOB_WORKERS_MAX`].
fn check_workers(workers: usize) -> Result<(), Refusal> {
    if (1..=JOB_WORKERS_MAX).contains(&workers) {
        return Ok(());
    }
    let why = format!("workers: {workers}, expected 1 to {JOB_WORKERS_MAX}");
    Err(Refusal::Bad(why))
}

/// Replaces the job's definition. Generations that run keep the definition with which they were
/// started, until they end.
fn replace_spec(job: &mut Job, spec: Arc<JobSpec>) {
    for record in [&mut job.dataflow, &mut job.ingest] {
        if let Some(run) = &mut record.run {
            run.spec.get_or_insert_with(|| Arc::clone(&job.spec));
        }
    }
    job.spec = spec;
}

/// Lets both components start again: a raised revision makes the running generation drain, and the
/// budget of restarts is reset.
fn anew(job: &mut Job) {
    job.runs = true;
    for record in [&mut job.dataflow, &mut job.ingest] {
        record.revision += 1;
        begin_budget(record);
    }
}

/// Resets what counts failures, so that a component that gave up is tried again.
fn begin_budget(record: &mut Record) {
    record.failed = None;
    record.repeated = None;
    (record.restarts, record.in_a_row) = (0, 0);
}

/// Marks the job as not wanted. [`Job::wants`] decides when each component drains.
fn stop(name: &str, job: &mut Job) -> String {
    let ran = job.runs;
    job.runs = false;
    for record in [&mut job.dataflow, &mut job.ingest] {
        record.failed = None;
    }
    let processes = [&job.dataflow, &job.ingest]
        .iter()
        .any(|it| it.run.is_some());
    match (ran, processes) {
        (_, true) => format!("job `{name}` drains and stops"),
        (true, false) => format!("job `{name}` is stopped"),
        (false, false) => format!("job `{name}` was stopped already"),
    }
}

/// Lets the job run again, with a new generation of both components.
fn restart(name: &str, job: &mut Job) -> String {
    let processes = [&job.dataflow, &job.ingest]
        .iter()
        .any(|it| it.run.is_some());
    anew(job);
    let how = if processes {
        "drains and starts again"
    } else {
        "starts"
    };
    format!("job `{name}` {how}")
}

/// Changes the number of worker threads. Only the dataflow gets a new generation; the ingest keeps
/// running.
fn rescale(name: &str, job: &mut Job, workers: usize) -> String {
    let size = job
        .dataflow
        .run
        .as_ref()
        .map(|run| run.threads * run.workers.len());
    if job.spec.workers == workers && size == Some(workers) {
        return format!("job `{name}` runs with {workers} workers already");
    }
    let mut spec = JobSpec::clone(&job.spec);
    spec.workers = workers;
    replace_spec(job, Arc::new(spec));
    if !job.wants(Part::Dataflow) {
        return format!("job `{name}` is stopped; it will start with {workers} workers");
    }
    job.dataflow.revision += 1;
    begin_budget(&mut job.dataflow);
    match size {
        Some(_) => format!("job `{name}` drains and starts again with {workers} workers"),
        None => format!("job `{name}` starts with {workers} workers"),
    }
}
