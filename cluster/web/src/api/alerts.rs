//! Alerts of all jobs: the rules of each pipeline, evaluated over the sampled status.
//!
//! In: the status, with the text of each job's `alerts.toml`. Out: the states of the rules, what
//! fired and was resolved, and messages to webhooks. States are kept in memory: a master that
//! starts again evaluates from the beginning, and says again what still fires.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidemill_alerts::watch::{Alerts, Change, State};
use tidemill_alerts::webhook::Sender;
use tidemill_alerts::{Rules, Unit};
use tidemill_protocol::{JobStatus, Status};

use super::history::JOBS_KEPT_MAX;

/// The alerts of all jobs.
#[derive(Debug, Default)]
pub struct Alerting(Mutex<BTreeMap<String, OfJob>>);

/// The alerts of one job.
#[derive(Debug)]
struct OfJob {
    /// The text that the rules were read from.
    file: Option<String>,
    alerts: Alerts,
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
    /// Evaluates the rules of all jobs.
    pub(super) fn look(&self, status: &Status) {
        let kept = self.0.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.retain(|name, _| status.jobs.iter().any(|job| job.name == *name));
        for job in &status.jobs {
            let is_same = |of: &OfJob| of.file == job.alerts_file;
            if !kept.get(&job.name).is_some_and(is_same) {
                if kept.len() >= JOBS_KEPT_MAX && !kept.contains_key(&job.name) {
                    continue;
                }
                kept.insert(job.name.clone(), OfJob::new(job));
            }
            if let Some(of) = kept.get_mut(&job.name) {
                of.look(job, status.master.now_ms);
            }
        }
    }

    /// The alerts of a job; `None` if there is no such job.
    pub(super) fn of(&self, job: &str) -> Option<Shown> {
        let kept = self.0.lock();
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
