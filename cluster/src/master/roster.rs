//! The workers: what each told last, and whether it is still there.
//!
//! In: reports, and connections that begin and end. Out: who is there, and what a process is up to.
//! A worker is gone when it says nothing for long, or when its connection ended and it did not come
//! back. One that is gone may come back; it then finds what it shall have in its orders.

use std::collections::BTreeMap;

use super::times::{WORKER_CUT_MAX, WORKER_REMEMBERED_MAX, WORKER_SILENT_MAX};
use crate::protocol::{ProcessKey, ProcessReport, Report, WorkerId};

/// Workers that the master keeps in mind, also those that are gone.
pub(crate) const WORKERS_MAX: usize = 1000;
/// Lines of a log's end that are kept of a process that ended.
const TAIL_LINES_MAX: usize = 20;
/// Characters of such a line.
const TAIL_CHARS_MAX: usize = 400;

/// Everybody who reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    workers: BTreeMap<WorkerId, Worker>,
    /// When the master started: who has not reported since may yet.
    started: u64,
}

/// A worker.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) report: Report,
    /// When that came.
    pub(crate) heard: u64,
    /// Its newest wait for orders.
    poll: u64,
    /// When that ended without an answer.
    cut: Option<u64>,
    gone: bool,
}

/// What the master knows of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'a> {
    /// Its worker is gone.
    WorkerGone,
    /// Its worker has not reported since the master started.
    NotHeard,
    /// Its worker, heard at `heard`, does not have it.
    Absent {
        heard: u64,
    },
    Reported(&'a ProcessReport),
}

impl Roster {
    pub(crate) fn new(started: u64) -> Self {
        let workers = BTreeMap::new();
        Self { workers, started }
    }

    /// Whether there is room for a worker, or it is known.
    pub(crate) fn takes(&self, worker: &str) -> bool {
        self.workers.len() < WORKERS_MAX || self.workers.contains_key(worker)
    }

    /// Takes a report in; false when a newer one came before.
    pub(crate) fn hear(&mut self, mut report: Report, now: u64) -> bool {
        for process in &mut report.processes {
            if let crate::protocol::Phase::Exited(exit) = &mut process.phase {
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

    /// A worker waits for orders.
    pub(crate) fn waits(&mut self, worker: &str, poll: u64) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.poll = worker.poll.max(poll);
            worker.cut = None;
        }
    }

    /// Its wait ended without an answer.
    pub(crate) fn cut(&mut self, worker: &str, poll: u64, now: u64) {
        if let Some(worker) = self.workers.get_mut(worker)
            && worker.poll == poll
        {
            worker.cut = Some(now);
        }
    }

    /// The master itself was away for so long: nobody is gone for that.
    pub(crate) fn forgive(&mut self, away: u64) {
        self.started += away;
        for worker in self.workers.values_mut() {
            worker.heard += away;
            worker.cut = worker.cut.map(|cut| cut + away);
        }
    }

    /// Sees who is gone by now.
    pub(crate) fn settle(&mut self, now: u64) {
        for worker in self.workers.values_mut() {
            let silent = now >= worker.heard + WORKER_SILENT_MAX;
            let cut = worker.cut.is_some_and(|cut| now >= cut + WORKER_CUT_MAX);
            worker.gone |= silent || cut;
        }
        self.workers
            .retain(|_, worker| !worker.gone || now < worker.heard + WORKER_REMEMBERED_MAX);
    }

    /// Those that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(|worker| !worker.gone)
    }

    /// All that are remembered, also those that are gone.
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

fn shorten(tail: &mut Vec<String>) {
    tail.drain(..tail.len().saturating_sub(TAIL_LINES_MAX));
    for line in tail {
        if let Some((at, _)) = line.char_indices().nth(TAIL_CHARS_MAX) {
            line.truncate(at);
        }
    }
}
