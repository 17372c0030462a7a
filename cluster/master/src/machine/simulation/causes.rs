//! Allowed causes for the end of a generation in the simulation: the faults that were injected into
//! it.
//!
//! A generation that ends without being asked to, or that is recorded as failed, must have been
//! harmed before: one of its processes failed or froze, one of its workers died or was out of reach
//! for longer than the master can overlook, or another master took its journal. Masters that die or
//! freeze, and messages that are lost, late or duplicated, harm no generation.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_protocol::{Part, ProcessKey};

use super::world::World;
use crate::machine::durable::{Durable, Run};

/// Time in ms for which a worker may be silent without harm. A worker reports every second, a
/// report may be lost or late, and the master waits for 8 s.
pub(super) const SILENCE_OVERLOOKED: u64 = 2_000;
/// Time in ms that a request of the master may take to reach a journal.
pub(super) const MINT_WAY: u64 = 100;
/// Time in ms after a worker's silence for which the silence may still be a cause.
const HELD_AGAINST: u64 = 12_000;

/// The faults that were injected.
#[derive(Default)]
pub(super) struct Causes {
    harmed: BTreeSet<(String, Part, u64)>,
    /// Generations of a job's dataflow below this one were fenced by a master that had been
    /// overtaken.
    fenced: BTreeMap<String, u64>,
    /// Processes on these workers are harmed until this time.
    workers: BTreeMap<String, u64>,
}

impl Causes {
    fn explain(&self, job: &str, part: Part, generation: u64) -> bool {
        let fenced = self.fenced.get(job).copied().unwrap_or(0);
        (part == Part::Dataflow && generation < fenced)
            || self.harmed.contains(&(job.to_owned(), part, generation))
    }

    fn explain_run(&self, run: &Run, now: u64) -> bool {
        let mut there = run.workers.iter();
        there.any(|(id, _)| self.workers.get(id).is_some_and(|until| now < *until))
    }
}

impl World {
    /// A fault was injected into a process.
    pub(super) fn harm(&mut self, key: &ProcessKey) {
        let of = (key.job.clone(), key.part, key.generation);
        self.causes.harmed.insert(of);
    }

    /// A worker is out of reach until this time.
    pub(super) fn harm_worker(&mut self, id: &str, until: u64) {
        let until = until.saturating_add(HELD_AGAINST);
        let before = self.causes.workers.entry(id.to_owned()).or_default();
        *before = until.max(*before);
        let known = self.masters.iter().map(|master| &master.state.durable);
        for durable in known.chain(self.documents.values()) {
            for (job, part, record) in durable.records() {
                if let Some(run) = &record.run
                    && run.workers.iter().any(|(there, _)| there == id)
                {
                    let of = (job.to_owned(), part, run.generation);
                    self.causes.harmed.insert(of);
                }
            }
        }
    }

    /// Checks a request to mint: the current master does not mint while another generation runs.
    pub(super) fn check_mint(
        &mut self,
        master: usize,
        job: &str,
        minted: u64,
    ) -> Result<(), String> {
        let process = &self.masters[master];
        let is_newest = master + 1 == self.masters.len() && process.alive;
        if !is_newest {
            let next = self.masters.get(master + 1);
            let overtaken = next.map_or(self.now, |next| next.state.started);
            // One that was stopped on its way to the journal cannot know.
            if overtaken.max(process.frozen_until) + 2 * MINT_WAY < self.now {
                return Err(format!(
                    "master {master} mints for {job}, and is none any more"
                ));
            }
            let fenced = self.causes.fenced.entry(job.to_owned()).or_default();
            *fenced = minted.max(*fenced);
            return Ok(());
        }
        let job_now = process.state.durable.jobs.get(job);
        match job_now.and_then(|job| job.dataflow.run.as_ref()) {
            Some(run) if run.generation < minted => Err(format!(
                "{job} runs in generation {}, and its master mints {minted}",
                run.generation
            )),
            _ => Ok(()),
        }
    }

    /// That a generation ends is written down before it is over. One that was not asked to end is
    /// told to have failed, and counted.
    fn check_told(&self, number: u64, document: &Durable) -> Result<(), String> {
        let Some((_, before)) = self.documents.range(..number).next_back() else {
            return Ok(());
        };
        for (name, part, was) in before.records() {
            let Some(job) = document.jobs.get(name) else {
                continue;
            };
            let Some(run) = &was.run else { continue };
            let is = job.record(part);
            let is_over = is
                .run
                .as_ref()
                .is_none_or(|it| it.generation != run.generation);
            if is_over && !run.ending {
                let generation = run.generation;
                return Err(format!(
                    "{name} {part:?} {generation} is over, and never was to end"
                ));
            }
            let asked = run.revision != is.revision || !job.wants(part);
            let told = is.failures.first().map(|it| it.generation);
            let is_told = told == Some(run.generation) && is.restarts == was.restarts + 1;
            if is_over && !asked && !is_told {
                let generation = run.generation;
                return Err(format!(
                    "that generation {generation} of {name} failed is not told"
                ));
            }
        }
        Ok(())
    }

    /// What a document says that ends, or failed, has a cause.
    pub(super) fn check_causes(&mut self, number: u64, document: &Durable) -> Result<(), String> {
        self.check_told(number, document)?;
        for (name, job) in &document.jobs {
            for part in [Part::Dataflow, Part::Ingest] {
                let record = job.record(part);
                if let Some(run) = &record.run {
                    let generation = run.generation;
                    if self.causes.explain_run(run, self.now) {
                        let of = (name.clone(), part, generation);
                        self.causes.harmed.insert(of);
                    }
                    let asked = run.revision != record.revision || !job.wants(part);
                    if run.ending && !asked && !self.causes.explain(name, part, generation) {
                        return Err(format!(
                            "generation {generation} of {name} {part:?} is ended, and nothing is \
                             wrong with it"
                        ));
                    }
                }
                // Before the generation was written down, it was not assigned to any worker.
                if let Some(failure) = record.failures.first()
                    && self.seen.was_written(name, part, failure.generation)
                    && !self.causes.explain(name, part, failure.generation)
                {
                    return Err(format!(
                        "{name} {part:?} is said to have failed, without a cause: {failure:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
