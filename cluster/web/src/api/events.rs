//! Events of a job: what differs from one sample of its status to the next. States, generations,
//! checkpoints, recoveries, failures, and services that went down or came back.
//!
//! The list is bounded. Checkpoints, which come regularly, have a limit of their own, so that they
//! do not displace the rest.

use std::collections::VecDeque;

use serde::Serialize;
use tidemill_protocol::{JobState, JobStatus};

/// Limit of events that are no checkpoints.
pub(crate) const EVENTS_KEPT_MAX: usize = 200;
/// Limit of checkpoints.
pub(crate) const CHECKPOINTS_KEPT_MAX: usize = 100;
/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// When, in ms since 1970: as it was told, else when a sample first showed it.
    pub(crate) at_ms: u64,
    /// `state`, `generation`, `checkpoint`, `recovered`, `failure` or `service`.
    pub(crate) kind: &'static str,
    /// One line.
    pub(crate) what: String,
    /// Whether something went wrong.
    pub(crate) bad: bool,
    /// How long it took, in ms, where that is known.
    pub(crate) took_ms: Option<u64>,
}

/// The events of one job, and what the last sample said.
#[derive(Debug, Default)]
pub(crate) struct Events {
    others: VecDeque<Event>,
    checkpoints: VecDeque<Event>,
    last: Option<JobStatus>,
    /// Since when the views are not served.
    away_since_ms: Option<u64>,
}

impl Events {
    /// Compares a sample with the one before.
    pub(crate) fn add(&mut self, job: &JobStatus, at_ms: u64) {
        let last = self.last.replace(brief(job));
        let is_new = last.is_none();
        let last = last.unwrap_or_default();
        if is_new || last.state != job.state {
            self.state(job, at_ms);
        }
        if last.generation != job.generation && job.generation > 0 {
            let what = format!("generation {} begins", job.generation);
            self.push(plain(at_ms, "generation", what));
        }
        if job.checkpointed > last.checkpointed {
            let what = format!("complete, of epoch {}", job.checkpointed);
            // The first sample does not know when it was taken.
            self.checkpoints.push_back(plain(at_ms, "checkpoint", what));
            while self.checkpoints.len() > CHECKPOINTS_KEPT_MAX {
                self.checkpoints.pop_front();
            }
        }
        let newer = job.failures.iter().rev();
        for failure in newer.filter(|it| !last.failures.contains(it)) {
            let (process, what) = (&failure.process, &failure.what);
            self.push(Event {
                bad: true,
                ..plain(
                    failure.at_ms,
                    "failure",
                    format!("generation {} ended: {process} {what}", failure.generation),
                )
            });
        }
        if !is_new {
            self.services(&last, job);
        }
    }

    /// The job is in another state; after a time away, that is a recovery.
    fn state(&mut self, job: &JobStatus, at_ms: u64) {
        let why = job.why.as_ref().map(|why| format!(": {why}"));
        let what = format!("{}{}", job.state, why.unwrap_or_default());
        self.push(Event {
            bad: matches!(job.state, JobState::Failed | JobState::Degraded),
            ..plain(at_ms, "state", what)
        });
        if !job.state.is_live() {
            self.away_since_ms.get_or_insert(at_ms);
        } else if let Some(since) = self.away_since_ms.take() {
            self.push(Event {
                took_ms: Some(at_ms.saturating_sub(since)),
                ..plain(at_ms, "recovered", "the views are served again".to_owned())
            });
        }
    }

    /// Services that went down or came back.
    fn services(&mut self, last: &JobStatus, job: &JobStatus) {
        for now in &job.dependencies {
            let mut before = last.dependencies.iter();
            let before = before.find(|it| it.dependency == now.dependency);
            if before.is_none_or(|before| before.state == now.state || now.state == "unknown") {
                continue;
            }
            let what = format!("{} ({}) is {}", now.engine, now.dependency, now.state);
            self.push(Event {
                bad: now.is_down(),
                ..plain(now.since_ms, "service", what)
            });
        }
    }

    /// Adds an event that is no checkpoint.
    fn push(&mut self, event: Event) {
        self.others.push_back(event);
        while self.others.len() > EVENTS_KEPT_MAX {
            self.others.pop_front();
        }
    }

    /// All events by time, the newest last.
    pub(crate) fn list(&self) -> Vec<Event> {
        let mut all: Vec<Event> = self
            .others
            .iter()
            .chain(&self.checkpoints)
            .cloned()
            .collect();
        all.sort_by_key(|event| event.at_ms);
        all
    }
}

/// An event in which nothing went wrong.
fn plain(at_ms: u64, kind: &'static str, what: String) -> Event {
    Event {
        at_ms,
        kind,
        what,
        bad: false,
        took_ms: None,
    }
}

/// What the next sample is compared with.
fn brief(job: &JobStatus) -> JobStatus {
    JobStatus {
        state: job.state,
        generation: job.generation,
        checkpointed: job.checkpointed,
        failures: job.failures.clone(),
        dependencies: job.dependencies.clone(),
        ..JobStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use tidemill_protocol::Failure;

    use super::*;

    #[test]
    fn a_crash_is_told_with_its_cause_and_its_recovery() {
        let mut events = Events::default();
        let running = JobStatus {
            state: JobState::Running,
            generation: 1,
            ..JobStatus::default()
        };
        events.add(&running, 1_000);
        let failure = Failure {
            generation: 1,
            at_ms: 1_900,
            process: "process 0 on node1".to_owned(),
            what: "killed by signal 9".to_owned(),
            tail: Vec::new(),
        };
        let mut next = JobStatus {
            state: JobState::Restarting,
            failures: vec![failure],
            ..running.clone()
        };
        events.add(&next, 2_000);
        next.generation = 2;
        next.state = JobState::Running;
        next.checkpointed = 9;
        events.add(&next, 4_500);
        events.add(&next, 5_000);
        let list = events.list();
        let kinds: Vec<_> = list.iter().map(|it| (it.at_ms, it.kind, it.bad)).collect();
        let expected = [
            (1_000, "state", false),
            (1_000, "generation", false),
            (1_900, "failure", true),
            (2_000, "state", false),
            (4_500, "state", false),
            (4_500, "recovered", false),
            (4_500, "generation", false),
            (4_500, "checkpoint", false),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(list[5].took_ms, Some(2_500));
        assert!(
            list[2]
                .what
                .contains("process 0 on node1 killed by signal 9")
        );
    }

    #[test]
    fn the_list_is_bounded() {
        let mut events = Events::default();
        for at in 0..1_000 {
            let job = JobStatus {
                state: JobState::ALL[usize::try_from(at % 8).unwrap()],
                checkpointed: at,
                ..JobStatus::default()
            };
            events.add(&job, at);
        }
        assert_eq!(events.others.len(), EVENTS_KEPT_MAX);
        assert_eq!(events.checkpoints.len(), CHECKPOINTS_KEPT_MAX);
    }
}
