//! The worker's way to the master: reports go out, orders come in, on a thread each.
//!
//! Flows in: the newest report. Flows out: orders, as events. A master that is away is tried again
//! once a second and spoken of once; nothing else of the worker waits for it.
//!
//! Invariants:
//! 1. Only the newest report is kept: it says all that the ones before said.
//! 2. There is always one question for orders under way while the master answers, so the end of its
//!    connection tells the master at once that this process is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::event::Event;
use crate::api::{Failure, Master};
use crate::protocol::{Assignment, Report, WorkerId};

/// Time between two tries while the master is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Time between two looks whether the master answers again.
const LOOK: Duration = Duration::from_millis(100);

/// The state that the threads share.
#[derive(Debug)]
pub(super) struct Link {
    master: Master,
    id: WorkerId,
    next: Mutex<Option<Report>>,
    /// The newest report, sent or not.
    told: Mutex<Option<Report>>,
    changed: Condvar,
    /// The master took the last report.
    answers: AtomicBool,
    /// The version of the orders that were followed last.
    version: AtomicU64,
}

impl Link {
    /// Starts both threads; they end with the process.
    pub(super) fn start(
        master: Master,
        id: WorkerId,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Arc<Self>> {
        let link = Arc::new(Self {
            master,
            id,
            next: Mutex::default(),
            told: Mutex::default(),
            changed: Condvar::new(),
            answers: AtomicBool::new(false),
            version: AtomicU64::new(0),
        });
        let (reporter, told) = (Arc::clone(&link), events.clone());
        thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || reporter.report_on(&told))?;
        let (asker, told) = (Arc::clone(&link), events.clone());
        thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || asker.ask_on(&told))?;
        Ok(link)
    }

    /// Whether the master took the last report.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Relaxed)
    }

    /// The newest report.
    pub(super) fn told(&self) -> Option<Report> {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a report in place of the one that waits.
    pub(super) fn report(&self, report: Report) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(report.clone());
        drop(told);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.changed.notify_one();
    }

    /// Says which orders are followed.
    pub(super) fn follows(&self, version: u64) {
        self.version.store(version, Relaxed);
    }

    /// Tells the last report of all, once.
    pub(super) fn leave(&self, report: &Report) {
        if let Err(failure) = self.send(report) {
            tracing::warn!("the master does not hear that this worker leaves: {failure}");
        }
    }

    fn send(&self, report: &Report) -> Result<Assignment, Failure> {
        let path = format!("/v1/workers/{}/report", self.id);
        self.master.post(&path, report)
    }

    fn report_on(&self, events: &SyncSender<Event>) {
        let mut said = false;
        let mut ever = false;
        loop {
            let report = {
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(report) = next.take() {
                        break report;
                    }
                    let waited = self.changed.wait(next);
                    next = waited.unwrap_or_else(PoisonError::into_inner);
                }
            };
            let answer = self.send(&report);
            self.answers.store(answer.is_ok(), Relaxed);
            let failure = match answer {
                Ok(orders) => {
                    if said || !ever {
                        tracing::info!("the master at {} answers", self.master.url());
                    }
                    (said, ever) = (false, true);
                    if events.send(Event::Assignment(orders)).is_err() {
                        return;
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            if !said {
                tracing::warn!("{failure}; going on, and trying again");
                said = true;
            }
            if !failure.passes()
                && !ever
                && events.send(Event::Refused(failure.to_string())).is_err()
            {
                return;
            }
            thread::sleep(AGAIN);
        }
    }

    fn ask_on(&self, events: &SyncSender<Event>) {
        let path = format!("/v1/workers/{}/orders", self.id);
        loop {
            if !self.answers() {
                thread::sleep(LOOK);
                continue;
            }
            let after = self.version.load(Relaxed).to_string();
            match self.master.get(&path, &[("after", after)]) {
                Ok(orders) => {
                    if events.send(Event::Assignment(orders)).is_err() {
                        return;
                    }
                }
                Err(failure) => {
                    tracing::debug!("no orders: {failure}");
                    thread::sleep(AGAIN);
                }
            }
        }
    }
}
