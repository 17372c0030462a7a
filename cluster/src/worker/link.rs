//! The worker's connection to the master: one thread sends reports, another one long-polls for the
//! assignment.
//!
//! In: the newest report. Out: assignments, as events. A master that does not answer is tried again
//! once a second and logged once. Nothing else in the worker waits for the master.
//!
//! Invariants:
//! 1. Only the newest report is kept: it says everything that the ones before said.
//! 2. While the master answers, a long poll is open at almost all times. When this process dies,
//!    its connection breaks, and the master notices at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tidemill_protocol::api::{CLUSTER, Failure, Master};
use tidemill_protocol::{Assignment, Report, WorkerId};

use super::event::Event;

/// Pause after a failed request.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the long-polling thread checks whether the master answers again.
const LOOK: Duration = Duration::from_millis(100);

/// State shared by the worker's thread and the two threads of the connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The HTTP client of the master.
    master: Master,
    /// The worker's id.
    id: WorkerId,
    /// The report to be sent next.
    next: Mutex<Option<Report>>,
    /// The newest report, sent or not, for the worker's own HTTP server.
    told: Mutex<Option<Report>>,
    /// Wakes the reporting thread.
    changed: Condvar,
    /// Whether the master accepted the last report.
    answers: AtomicBool,
    /// The version of the assignment that the worker follows.
    version: AtomicU64,
}

impl Link {
    /// Starts both threads, which end with the process.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
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

    /// Whether the master accepted the last report.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Relaxed)
    }

    /// The newest report, sent or not.
    pub(super) fn told(&self) -> Option<Report> {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues a report, in place of an older one that was not sent yet.
    pub(super) fn report(&self, report: Report) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(report.clone());
        drop(told);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.changed.notify_one();
    }

    /// Sets the version of the assignment that the worker follows; the next long poll asks for a
    /// newer one.
    pub(super) fn follows(&self, version: u64) {
        self.version.store(version, Relaxed);
    }

    /// Sends the last report of a worker that ends, without a second attempt.
    pub(super) fn leave(&self, report: &Report) {
        if let Err(failure) = self.send(report) {
            tracing::warn!("the master does not hear that this worker leaves: {failure}");
        }
    }

    /// Sends one report; the answer is the worker's assignment.
    fn send(&self, report: &Report) -> Result<Assignment, Failure> {
        let path = format!("{CLUSTER}/workers/{}/report", self.id);
        self.master.post(&path, report)
    }

    /// The reporting thread.
    ///
    /// It ends when the worker's thread is gone.
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

    /// The long-polling thread.
    ///
    /// While the master does not accept reports, nothing is asked.
    fn ask_on(&self, events: &SyncSender<Event>) {
        let path = format!("{CLUSTER}/workers/{}/orders", self.id);
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
