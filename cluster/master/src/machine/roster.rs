//! The roster: the last report of each worker, and liveness of workers.
//!
//! In: reports, and long polls that begin and end. Out: which workers are present, and the state of
//! each process. A worker is gone when it has sent no report for [`WORKER_SILENT_MAX`] ms, or when
//! the connection of its long poll broke and the worker did not come back within [`WORKER_CUT_MAX`]
//! ms. A worker that is gone may come back. It then finds its current assignment.

use std::collections::BTreeMap;

use tidemill_protocol::{ProcessKey, ProcessReport, Report, WorkerId};

use super::times::{WORKER_CUT_MAX, WORKER_REMEMBERED_MAX, WORKER_SILENT_MAX};

/// Limit of workers in the roster, including those that are gone.
pub(crate) const WORKERS_MAX: usize = 1000;
/// Lines kept of the log of a process that ended.
const TAIL_LINES_MAX: usize = 20;
/// Characters kept of each of these lines.
const TAIL_CHARS_MAX: usize = 400;

/// All workers that reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    workers: BTreeMap<WorkerId, Worker>,
    /// When the master started, in ms. A worker that ran before counts as not heard yet, not as
    /// gone, for [`WORKER_SILENT_MAX`] ms.
    started: u64,
}

/// One worker.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    /// The newest report.
    pub(crate) report: Report,
    /// When the newest report came, in ms.
    pub(crate) heard: u64,
    /// The number of the worker's newest long poll.
    poll: u64,
    /// When that poll's connection broke, in ms.
    cut: Option<u64>,
    /// Whether the worker counts as gone.
    gone: bool,
}

/// What the master knows of one process. `Reported`: the process is in its worker's newest report.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'a> {
    /// The process's worker is gone.
    WorkerGone,
    /// The process's worker has not reported since the master started, and may still.
    NotHeard,
    /// The process's worker reported at `heard` (ms) and does not have the process.
    Absent {
        heard: u64,
    },
    Reported(&'a ProcessReport),
}

impl Roster {
    /// An empty roster of a master that started at `started` ms.
    pub(crate) fn new(started: u64) -> Self {
        let workers = BTreeMap::new();
        Self { workers, started }
    }

    /// Whether a worker may report: it is known, or there is room for one more.
    pub(crate) fn takes(&self, worker: &str) -> bool {
        self.workers.len() < WORKERS_MAX || self.workers.contains_key(worker)
    }

    /// Takes in a report. Returns false when a newer report of this worker came before.
    pub(crate) fn hear(&mut self, mut report: Report, now: u64) -> bool {
        for process in &mut report.processes {
            if let tidemill_protocol::Phase::Exited(exit) = &mut process.phase {
                shorten(&mut exit.tail);
            }
        }
        match self.workers.get_mut(&report.worker) {
            Some(known) if known.report.sequence >= report.sequence => false,
            Some(known) => {
                (known.report, known.heard) = (report, now);
                (known.cut, known.gone) = (None, false);
                true
            }
            None => {
                let worker = Worker {
                    heard: now,
                    poll: 0,
                    cut: None,
                    gone: false,
                    report,
                };
                let id = worker.report.worker.clone();
                self.workers.insert(id, worker);
                true
            }
        }
    }

    /// A worker began a long poll for its assignment.
    pub(crate) fn waits(&mut self, worker: &str, poll: u64) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.poll = worker.poll.max(poll);
            worker.cut = None;
        }
    }

    /// The connection of a worker's long poll broke. Ignored if a newer poll began meanwhile.
    pub(crate) fn cut(&mut self, worker: &str, poll: u64, now: u64) {
        if let Some(worker) = self.workers.get_mut(worker)
            && worker.poll == poll
        {
            worker.cut = Some(now);
        }
    }

    /// Moves all deadlines by `away` ms, because the master itself did not run for so long.
    pub(crate) fn forgive(&mut self, away: u64) {
        self.started += away;
        for worker in self.workers.values_mut() {
            worker.heard += away;
            worker.cut = worker.cut.map(|cut| cut + away);
        }
    }

    /// Marks workers that are gone by `now`, and forgets those that last reported
    /// [`WORKER_REMEMBERED_MAX`] ms ago or earlier.
    pub(crate) fn settle(&mut self, now: u64) {
        for worker in self.workers.values_mut() {
            let silent = now >= worker.heard + WORKER_SILENT_MAX;
            let cut = worker.cut.is_some_and(|cut| now >= cut + WORKER_CUT_MAX);
            worker.gone |= silent || cut;
        }
        self.workers
            .retain(|_, worker| !worker.gone || now < worker.heard + WORKER_REMEMBERED_MAX);
    }

    /// The workers that are not gone.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(|worker| !worker.gone)
    }

    /// The ids of all workers in the roster, including those that are gone.
    pub(crate) fn known(&self) -> impl Iterator<Item = &str> {
        self.workers.keys().map(String::as_str)
    }

    /// What is known of a process that was placed on `worker`.
    pub(crate) fn find(&self, worker: &str, key: &ProcessKey, now: u64) -> Found<'_> {
        match self.workers.get(worker) {
            None if now < self.started + WORKER_SILENT_MAX => Found::NotHeard,
            None => Found::WorkerGone,
            Some(worker) if worker.gone => Found::WorkerGone,
            Some(worker) => {
                let mut all = worker.report.processes.iter();
                let absent = Found::Absent {
                    heard: worker.heard,
                };
                all.find(|process| process.key == *key)
                    .map_or(absent, Found::Reported)
            }
        }
    }
}

/// Keeps the last lines of a log, and the begin of each.
fn shorten(tail: &mut Vec<String>) {
    tail.drain(..tail.len().saturating_sub(TAIL_LINES_MAX));
    for line in tail {
        if let Some((at, _)) = line.char_indices().nth(TAIL_CHARS_MAX) {
            line.truncate(at);
        }
    }
}
