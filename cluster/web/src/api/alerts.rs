//! Alerts of all jobs: the rules of each pipeline, evaluated over the sampled status.
//!
//! In: the status, with the text of each job's `alerts.toml`. Out: the states of the rules, what
//! fired and was resolved, and messages to webhooks.
//!
//! ```text
//! look ─► what changed ─► log, webhooks ─► states of the job, in the store
//! ```
//!
//! The states are kept in the store, so a process that starts again goes on with them, and says
//! nothing again. Between the message and the store lies a moment: a process that dies in it says
//! that change twice, never not at all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidemill_alerts::watch::{Alerts, Change, Saved, State};
use tidemill_alerts::webhook::Sender;
use tidemill_alerts::{Rules, Unit};
use tidemill_protocol::{JobStatus, Status};

use super::history::JOBS_KEPT_MAX;
use super::stored::Stored;

/// How often the states are stored while nothing changes but counters, in ms.
const STORED_EVERY_MS: u64 = 60_000;
/// How often the store is asked for the states of a job before the job is evaluated without them.
const READS_MAX: u32 = 5;

/// The alerts of all jobs.
#[derive(Debug, Default)]
pub struct Alerting {
    jobs: Mutex<BTreeMap<String, OfJob>>,
    /// Where the states are kept; `None` for tests.
    stored: Option<Stored>,
}

/// The alerts of one job.
#[derive(Debug)]
struct OfJob {
    /// The text that the rules were read from.
    file: Option<String>,
    alerts: Alerts,
    /// Attempts to read the states that another process left; `None` once they are read.
    reads: Option<u32>,
    /// The states in the store, and when they were written, in ms.
    kept: (Saved, u64),
    webhooks: usize,
    sender: Option<Sender>,
    /// Why the rules or the webhooks of the file cannot be used.
    error: Option<String>,
}

/// The alerts of one job, as the pages show them.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The rules, in the order of the file.
    rules: Vec<ShownRule>,
    /// What fired and was resolved, the newest last.
    changes: Vec<Change>,
    /// How many webhooks the pipeline has.
    webhooks: usize,
    /// Messages that could not be sent.
    lost: u64,
    /// Whether the rules are those of a pipeline without `alerts.toml`.
    default_rules: bool,
    /// Why the rules or the webhooks of the file cannot be used.
    error: Option<String>,
}

/// A rule with its state.
#[derive(Debug, Serialize)]
struct ShownRule {
    name: String,
    /// The condition as in the file.
    when: String,
    /// The name of the measure.
    measure: &'static str,
    /// The limit, in seconds for a time.
    limit: f64,
    /// What is compared, for people.
    what: &'static str,
    /// How long the condition must hold, in ms.
    for_ms: u64,
    severity: &'static str,
    advice: String,
    /// The newest value; null while nobody knows it.
    value: Option<f64>,
    /// `seconds`, `bytes` or `count`.
    unit: &'static str,
    /// `quiet`, `pending` or `firing`.
    state: &'static str,
    /// Since when it is pending or firing, in ms since 1970.
    since_ms: Option<u64>,
}

impl Alerting {
    /// Alerts whose states are kept in a folder `alerts` below `folder` of the store at `url`.
    pub fn stored(url: &str, folder: &str) -> Self {
        Self {
            jobs: Mutex::default(),
            stored: Some(Stored::new(url, &format!("{folder}/alerts"))),
        }
    }

    /// Evaluates the rules of all jobs.
    pub(super) fn look(&self, status: &Status) {
        let kept = self.jobs.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.retain(|name, _| {
            let is_there = status.jobs.iter().any(|job| job.name == *name);
            if !is_there {
                self.forget(name);
            }
            is_there
        });
        let now = status.master.now_ms;
        for job in &status.jobs {
            let is_same = |of: &OfJob| of.file == job.alerts_file;
            if !kept.get(&job.name).is_some_and(is_same) {
                if kept.len() >= JOBS_KEPT_MAX && !kept.contains_key(&job.name) {
                    continue;
                }
                kept.insert(job.name.clone(), OfJob::new(job));
            }
            let Some(of) = kept.get_mut(&job.name) else {
                continue;
            };
            if self.restore(&job.name, of, now) {
                of.look(job, now);
                self.keep(&job.name, of, now);
            }
        }
    }

    /// Reads the states of a job, if that has not been done. False to try again later.
    fn restore(&self, job: &str, of: &mut OfJob, now: u64) -> bool {
        let (Some(stored), Some(reads)) = (&self.stored, of.reads) else {
            return true;
        };
        let read = stored
            .store()
            .and_then(|store| store.get(&stored.name(job)));
        match read {
            Ok(bytes) => {
                // States of a later version that cannot be read count as none.
                let saved = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                if let Some(saved) = saved {
                    of.alerts.restore(saved, now);
                }
                of.kept = (of.alerts.saved(), now);
                of.reads = None;
                true
            }
            Err(error) if reads < READS_MAX => {
                tracing::warn!(job, %error, "the states of alerts cannot be read");
                of.reads = Some(reads + 1);
                false
            }
            Err(_) => {
                of.reads = None;
                true
            }
        }
    }

    /// Stores the states of a job if they changed, and now and then if only counters did.
    fn keep(&self, job: &str, of: &mut OfJob, now: u64) {
        let Some(stored) = &self.stored else { return };
        let saved = of.alerts.saved();
        let (before, at) = &of.kept;
        let is_due = now.saturating_sub(*at) >= STORED_EVERY_MS;
        if saved.is_like(before) && (!is_due || saved == *before) {
            return;
        }
        let put = serde_json::to_vec(&saved)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(stored.store()?.put(&stored.name(job), bytes)?));
        match put {
            Ok(()) => of.kept = (saved, now),
            Err(error) => tracing::warn!(job, "the states of alerts cannot be stored: {error:#}"),
        }
    }

    /// Deletes the states of a job that was removed.
    fn forget(&self, job: &str) {
        let Some(stored) = &self.stored else { return };
        let gone = stored
            .store()
            .and_then(|store| store.delete(&stored.name(job)));
        if let Err(error) = gone {
            tracing::warn!(job, %error, "the states of alerts cannot be deleted");
        }
    }

    /// How many rules of a job fire.
    pub(super) fn firing(&self, job: &str) -> u64 {
        let kept = self.jobs.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        let rules = kept.get(job).map(|of| of.alerts.rules());
        let firing = rules.into_iter().flatten();
        let firing = firing.filter(|it| matches!(it.state, State::Firing(_)));
        firing.count() as u64
    }

    /// The alerts of a job; `None` if there is no such job.
    pub(super) fn of(&self, job: &str) -> Option<Shown> {
        let kept = self.jobs.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.get(job).map(OfJob::shown)
    }
}

impl OfJob {
    /// The alerts of a job whose rules were not read yet.
    fn new(job: &JobStatus) -> Self {
        let file = job.alerts_file.clone();
        let read = match &file {
            Some(text) => Rules::parse(text),
            None => Rules::default_rules(),
        };
        let empty = Rules {
            rules: Vec::new(),
            webhooks: Vec::new(),
        };
        let (rules, mut error) = match read {
            Ok(rules) => (rules, None),
            Err(error) => (empty, Some(error.to_string())),
        };
        let mut sender = None;
        if !rules.webhooks.is_empty() {
            let variable = |name: &str| std::env::var(name).ok();
            match Sender::start(&rules.webhooks, variable) {
                Ok(started) => sender = Some(started),
                Err(why) => error = Some(why),
            }
        }
        if let Some(error) = &error {
            tracing::error!(job = job.name, error, "alerts cannot be evaluated or sent");
        }
        Self {
            file,
            alerts: Alerts::new(&rules),
            reads: Some(1),
            kept: (Saved::default(), 0),
            webhooks: rules.webhooks.len(),
            sender,
            error,
        }
    }

    /// Evaluates the rules, and logs and sends what changed.
    fn look(&mut self, job: &JobStatus, now: u64) {
        for change in self.alerts.look(job, now) {
            let (rule, value) = (change.rule.as_str(), change.value);
            match change.firing {
                true => tracing::warn!(job = job.name, rule, value, "an alert fires"),
                false => tracing::info!(job = job.name, rule, value, "an alert is resolved"),
            }
            let mut rules = self.alerts.rules();
            let found = rules.find(|it| it.rule.name == change.rule);
            if let (Some(sender), Some(found)) = (&self.sender, found) {
                sender.send(&job.name, &found.rule, &change);
            }
        }
    }

    /// What the pages show.
    fn shown(&self) -> Shown {
        let rules = self.alerts.rules().map(|it| {
            let (state, since_ms) = match it.state {
                State::Quiet => ("quiet", None),
                State::Pending(since) => ("pending", Some(since)),
                State::Firing(since) => ("firing", Some(since)),
            };
            let measure = it.rule.when.measure;
            ShownRule {
                name: it.rule.name.clone(),
                when: it.rule.when.text(),
                measure: measure.name(),
                limit: it.rule.when.limit,
                what: measure.what(),
                for_ms: u64::try_from(it.rule.lasting.as_millis()).unwrap_or(u64::MAX),
                severity: it.rule.severity.name(),
                advice: it.rule.advice.clone(),
                value: it.value,
                unit: match measure.unit() {
                    Unit::Seconds => "seconds",
                    Unit::Bytes => "bytes",
                    Unit::Count => "count",
                },
                state,
                since_ms,
            }
        });
        Shown {
            rules: rules.collect(),
            changes: self.alerts.changes().cloned().collect(),
            webhooks: self.webhooks,
            lost: self.sender.as_ref().map_or(0, Sender::lost),
            default_rules: self.file.is_none(),
            error: self.error.clone(),
        }
    }
}
