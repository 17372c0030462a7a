//! One half of a job, as a state machine: a file a state.
//!
//! In: what the workers told, what the job shall be, the time. Out: the next state, changes of the
//! durable record, and generations to be minted. A state looks at what is the case, not at what
//! happened, so it does not matter how often and in which order it is asked.
//!
//! 1. A generation's number is minted, and where it is placed written down, before it is ordered.
//! 2. That it ends is written down before its orders are taken back, so it is ordered only once.
//! 3. The next one is not begun before each process of the one before has ended, or its worker is
//!    gone, or it was killed and did not end for long.

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

pub(crate) use self::backing_off::BackingOff;
pub(crate) use self::connecting::Connecting;
pub(crate) use self::draining::Draining;
pub(crate) use self::ending::{Ending, FAILURES_KEPT_MAX};
pub(crate) use self::minting::Minting;
pub(crate) use self::running::Running;
pub(crate) use self::starting::Starting;
pub(crate) use self::waiting::Waiting;
use super::anti_affinity::Apart;
use super::durable::{Record, Run};
use super::event::{Action, Minted, Unminted};
use super::placement::Free;
use super::root_cause::{self, Ended};
use super::roster::{Found, Roster};
use super::times::{CULPRIT_AWAITED_MAX, RATE_OVER};
use crate::protocol::{JobSpec, Part, Phase, ProcessKey};

/// States that one event may lead through: more would be a circle.
const STEPS_MAX: usize = 8;

/// Where a half of a job is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    Stopped,
    /// Given up; the record says why.
    Failed,
    Waiting(Waiting),
    Minting(Minting),
    Starting(Starting),
    Connecting(Connecting),
    Running(Running),
    Draining(Draining),
    Ending(Ending),
    BackingOff(BackingOff),
}

/// One half of a job: what the master knows beside the record, and may forget.
#[derive(Debug, Clone)]
pub(crate) struct Half {
    pub(crate) stage: Stage,
    /// How processes of the generation ended.
    pub(crate) ended: BTreeMap<usize, Ended>,
    /// Since when all of its processes are live.
    pub(crate) live_since: Option<u64>,
    /// What came of minting.
    pub(crate) minted: Option<Result<Minted, Unminted>>,
    /// Where its processes listen, by index, once all do.
    pub(crate) peers: Option<Vec<String>>,
    /// Its processes are to drain.
    pub(crate) drains: bool,
    /// Records that its processes had told, and when, oldest first.
    pub(crate) told: VecDeque<(u64, u64)>,
}

/// What a state sees.
pub(crate) struct Here<'a> {
    pub(crate) now: u64,
    /// When the master started.
    pub(crate) started: u64,
    pub(crate) job: &'a str,
    pub(crate) part: Part,
    pub(crate) spec: &'a Arc<JobSpec>,
    /// Whether this half shall run.
    pub(crate) wanted: bool,
    pub(crate) record: &'a mut Record,
    /// Of all jobs.
    pub(crate) ingests: &'a mut u64,
    pub(crate) roster: &'a Roster,
    /// What other halves leave free.
    pub(crate) free: Vec<Free>,
    pub(crate) apart: &'a mut Apart,
    /// Whether it is written down that no worker shall have the generation any more.
    pub(crate) unordered: bool,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Half {
    /// Where a master that has just started takes it up.
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

    /// Goes from state to state until nothing more follows from what is the case. True when the
    /// state is another one.
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

    /// Remembers how processes ended: their workers forget it when the orders are taken back.
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

    /// Whether the generation cannot go on. When all that is known is that some lost others, those
    /// get a moment to say why.
    fn is_broken(&self, now: u64) -> bool {
        let ends = || self.ended.values();
        let first = ends().map(Ended::at).min();
        root_cause::is_known(ends()) || first.is_some_and(|at| now >= at + CULPRIT_AWAITED_MAX)
    }

    /// Keeps what rates are computed from.
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

    /// Records a second.
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
    pub(crate) fn key(&self, run: &Run, index: usize) -> ProcessKey {
        ProcessKey {
            job: self.job.to_owned(),
            part: self.part,
            generation: run.generation,
            index,
        }
    }

    fn find(&self, run: &Run, index: usize) -> Found<'_> {
        let Some((worker, _)) = run.workers.get(index) else {
            return Found::WorkerGone;
        };
        self.roster.find(worker, &self.key(run, index), self.now)
    }

    /// How far each process is that was reported.
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

    fn are_live(&self) -> bool {
        let phases = self.phases();
        phases
            .iter()
            .all(|phase| matches!(phase, Some(Phase::Live)))
    }

    /// Whether the generation is to make room: for another one, or for none.
    fn must_go(&self) -> bool {
        let run = self.record.run.as_ref();
        !self.wanted || run.is_none_or(|run| run.revision != self.record.revision)
    }

    /// The generation is over.
    fn end(&mut self, why: ending::Why) -> Option<Stage> {
        if let Some(run) = &mut self.record.run {
            run.ending = true;
        }
        Some(Stage::Ending(Ending::new(self.now, why)))
    }

    /// The state without a generation.
    fn rest(&self) -> Stage {
        match (&self.record.failed, self.wanted) {
            (Some(_), _) => Stage::Failed,
            (None, true) => Stage::Waiting(Waiting::default()),
            (None, false) => Stage::Stopped,
        }
    }
}
