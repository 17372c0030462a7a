//! State machine of one component of a job (its dataflow or its ingest), with one file per state.
//!
//! In: what the workers reported, the desired state of the job, and the time. Out: the next state,
//! changes of the durable record, and requests for new generations. Each state decides from the
//! current situation and not from single events, so it does not matter how often and in which order
//! a state is asked.
//!
//! ```text
//! Stopped ─wanted─► Waiting ─slots─► Minting ─minted─► Starting ─all listen─► Connecting
//!    ▲               ▲   │                             ▲   │                    │
//!    │ not           │   └────────── ingest ───────────┘   │ all live           │ all live
//!    │ wanted        │ wanted                              ▼                    │
//!    │               │               Draining ◄─must go─ Running ◄──────────────┘
//!    │               │                  │ all drained      │
//!    └───────────────┴── Ending ◄───────┴──────────────────┘ a process failed
//!                    ▲     │
//!  the pause is over │     │ it failed
//!                    │     ▼
//!                  BackingOff, or Failed: exit code 2, the same error 3 times, or more than
//!                                         20 failures in a row
//! ```
//!
//! From Starting, Connecting and Draining a failed process or a timeout also leads to Ending.
//! A command of a user leads from Failed to Waiting or Stopped. An error of the journal leads from
//! Minting to BackingOff or Failed. A new master enters in Starting or Ending if a generation is
//! written down, else in Failed or Stopped.
//!
//! 1. Before a generation is assigned to workers, its number is minted and its placement is written
//!    down.
//! 2. Before a generation is removed from the assignments, its end is written down. Therefore a
//!    generation is assigned only once.
//! 3. The next generation begins only when each process of the one before has ended, or its worker
//!    is gone, or the process was killed and did not end for `ENDING_MAX`.

mod backing_off;
mod connecting;
mod draining;
mod ending;
mod failed;
mod minting;
mod running;
mod starting;
mod stopped;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidemill_protocol::{JobSpec, Part, Phase, ProcessKey};

use super::durable::{Record, Run};
use super::event::{Action, Minted, Unminted};
use super::placement::Free;
use super::root_cause;
use super::root_cause::Ended;
use super::roster::{Found, Roster};
use super::times::{RATE_OVER, ROOT_CAUSE_AWAITED_MAX};
use crate::machine::placement::anti_affinity::AntiAffinity;

pub(crate) use self::backing_off::BackingOff;
pub(crate) use self::connecting::Connecting;
pub(crate) use self::draining::Draining;
pub(crate) use self::ending::{Ending, FAILURES_KEPT_MAX};
pub(crate) use self::minting::Minting;
pub(crate) use self::running::Running;
pub(crate) use self::starting::Starting;
pub(crate) use self::waiting::Waiting;

/// Limit of states that one event may lead through. More would be a circle.
const STEPS_MAX: usize = 8;

/// The state of a component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Not wanted, and no processes.
    Stopped,
    /// Given up after failures. [`Record::failed`] says why.
    Failed,
    /// Wanted, and waiting for slots or workers.
    Waiting(Waiting),
    /// Waiting for the journal's next generation.
    Minting(Minting),
    /// Assigned; the processes start.
    Starting(Starting),
    /// All processes know each other's addresses and connect.
    Connecting(Connecting),
    /// All processes are live.
    Running(Running),
    /// The processes complete their epochs and end.
    Draining(Draining),
    /// The processes are killed, and their ends awaited.
    Ending(Ending),
    /// A pause after a failure.
    BackingOff(BackingOff),
}

/// One component of a job: what the master keeps in memory only, and may lose.
#[derive(Debug, Clone)]
/// The current state.
pub(crate) struct Component {
    pub(crate) stage: Stage,
    /// How processes of the current generation ended, by index.
    pub(crate) ended: BTreeMap<usize, Ended>,
    /// When all processes of the generation were first seen live, in ms.
    pub(crate) live_since: Option<u64>,
    /// The result of the last request to the journal, until it is used.
    pub(crate) minted: Option<Result<Minted, Unminted>>,
    /// The addresses at which the processes listen, by index, once all listen.
    pub(crate) peers: Option<Vec<String>>,
    /// Whether the processes were told to drain.
    pub(crate) drains: bool,
    /// Samples for the rate: time in ms and records so far, oldest first.
    pub(crate) told: VecDeque<(u64, u64)>,
}

/// What a state sees of the master, and may change.
pub(crate) struct Here<'a> {
    /// The current time, in ms.
    pub(crate) now: u64,
    /// When the master started, in ms.
    pub(crate) started: u64,
    /// The job's name.
    pub(crate) job: &'a str,
    pub(crate) part: Part,
    /// The job's current definition.
    pub(crate) spec: &'a Arc<JobSpec>,
    /// Desired state: whether the component shall run.
    pub(crate) wanted: bool,
    /// The component's durable record.
    pub(crate) record: &'a mut Record,
    /// The counter of ingest generations over all jobs.
    pub(crate) ingests: &'a mut u64,
    /// The workers and what they reported.
    pub(crate) roster: &'a Roster,
    /// The free slots of each present worker. Empty while the component has processes.
    pub(crate) free: Vec<Free>,
    /// Pairs of workers that must not be placed together.
    pub(crate) apart: &'a mut AntiAffinity,
    /// Whether no assignment contains the current generation, because the written state does not
    /// have it yet, or has it as ending.
    pub(crate) unordered: bool,
    /// Actions that wait until the current change is durable.
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Component {
    /// The component as a new master finds it in the durable record.
    pub(crate) fn adopt(record: &Record, now: u64) -> Self {
        let stage = match &record.run {
            Some(run) if run.ending => Stage::Ending(Ending::adopted(now)),
            Some(_) => Stage::Starting(Starting { since: now }),
            None if record.failed.is_some() => Stage::Failed,
            None => Stage::Stopped,
        };
        Self {
            stage,
            ended: BTreeMap::new(),
            live_since: None,
            minted: None,
            peers: None,
            drains: false,
            told: VecDeque::new(),
        }
    }

    /// Goes from state to state until no transition follows from the current situation. Returns
    /// true when the state changed.
    pub(crate) fn step(&mut self, here: &mut Here<'_>) -> bool {
        let before = self.stage.clone();
        for _ in 0..STEPS_MAX {
            self.note(here);
            let Some(next) = self.next(here) else {
                break;
            };
            if here.record.run.is_none() {
                self.ended.clear();
                (self.live_since, self.peers, self.drains) = (None, None, false);
            }
            match &next {
                Stage::Connecting(it) => self.peers.clone_from(&it.peers),
                Stage::Draining(_) => self.drains = true,
                _ => {}
            }
            self.stage = next;
        }
        self.stage != before
    }

    /// The next state, or `None` to stay.
    fn next(&mut self, here: &mut Here<'_>) -> Option<Stage> {
        match self.stage.clone() {
            Stage::Stopped => stopped::next(here),
            Stage::Failed => failed::next(here),
            Stage::Waiting(it) => it.next(here),
            Stage::Minting(it) => it.next(self, here),
            Stage::Starting(it) => it.next(self, here),
            Stage::Connecting(it) => it.next(self, here),
            Stage::Running(it) => it.next(self, here),
            Stage::Draining(it) => it.next(self, here),
            Stage::Ending(it) => it.next(self, here),
            Stage::BackingOff(it) => it.next(here),
        }
    }

    /// Records how processes ended. Workers forget an ended process when it leaves their
    /// assignment.
    fn note(&mut self, here: &Here<'_>) {
        let Some(run) = &here.record.run else { return };
        let was_there = matches!(
            self.stage,
            Stage::Connecting(_) | Stage::Running(_) | Stage::Draining(_)
        );
        let (at, ours) = (here.now, here.unordered);
        for index in 0..run.workers.len() {
            if self.ended.contains_key(&index) {
                continue;
            }
            let end = match here.find(run, index) {
                Found::WorkerGone => Ended::WorkerGone { at },
                Found::Absent { .. } if was_there => Ended::Vanished { at },
                Found::Reported(it) => match &it.phase {
                    Phase::Exited(exit) => Ended::Exited {
                        exit: exit.clone(),
                        at,
                        ours,
                    },
                    _ => continue,
                },
                _ => continue,
            };
            self.ended.insert(index, end);
        }
    }

    /// Whether the generation cannot continue: a process ended for a reason of its own, or, when
    /// processes only lost others, `ROOT_CAUSE_AWAITED_MAX` passed.
    fn is_broken(&self, now: u64) -> bool {
        let ends = || self.ended.values();
        let first = ends().map(Ended::at).min();
        root_cause::is_known(ends()) || first.is_some_and(|at| now >= at + ROOT_CAUSE_AWAITED_MAX)
    }

    /// Adds a sample for the rate, at most one per second. A counter that went down begins anew.
    pub(crate) fn sample(&mut self, now: u64, records: u64) {
        let last = self.told.back();
        if last.is_some_and(|(_, told)| *told > records) {
            self.told.clear();
        } else if last.is_some_and(|(at, _)| now < at + 1000) {
            return;
        }
        self.told.push_back((now, records));
        while self
            .told
            .front()
            .is_some_and(|(at, _)| *at + RATE_OVER < now)
        {
            self.told.pop_front();
        }
    }

    /// Records per second over the last `RATE_OVER` ms.
    pub(crate) fn rate(&self) -> f64 {
        match (self.told.front(), self.told.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after - before) as f64 * 1000.0 / (to - from) as f64
            }
            _ => 0.0,
        }
    }
}

impl Here<'_> {
    /// The key of process `index`.
    pub(crate) fn key(&self, run: &Run, index: usize) -> ProcessKey {
        ProcessKey {
            job: self.job.to_owned(),
            part: self.part,
            generation: run.generation,
            index,
        }
    }

    /// What the roster knows of process `index`.
    fn find(&self, run: &Run, index: usize) -> Found<'_> {
        let Some((worker, _)) = run.workers.get(index) else {
            return Found::WorkerGone;
        };
        self.roster.find(worker, &self.key(run, index), self.now)
    }

    /// The reported phase of each process, by index; `None` for one that was not reported.
    fn phases(&self) -> Vec<Option<&Phase>> {
        let Some(run) = &self.record.run else {
            return Vec::new();
        };
        let all = 0..run.workers.len();
        all.map(|index| match self.find(run, index) {
            Found::Reported(it) => Some(&it.phase),
            _ => None,
        })
        .collect()
    }

    /// Whether every process reported that it is live.
    fn are_live(&self) -> bool {
        let phases = self.phases();
        phases
            .iter()
            .all(|phase| matches!(phase, Some(Phase::Live)))
    }

    /// Whether the generation must drain: the component is not wanted, or its revision was raised.
    fn must_go(&self) -> bool {
        let run = self.record.run.as_ref();
        !self.wanted || run.is_none_or(|run| run.revision != self.record.revision)
    }

    /// Marks the generation as ending and goes to the state Ending.
    fn end(&mut self, why: ending::Why) -> Option<Stage> {
        if let Some(run) = &mut self.record.run {
            run.ending = true;
        }
        Some(Stage::Ending(Ending::new(self.now, why)))
    }

    /// The state of a component without a generation: Failed, Waiting or Stopped.
    fn rest(&self) -> Stage {
        match (&self.record.failed, self.wanted) {
            (Some(_), _) => Stage::Failed,
            (None, true) => Stage::Waiting(Waiting::default()),
            (None, false) => Stage::Stopped,
        }
    }
}
