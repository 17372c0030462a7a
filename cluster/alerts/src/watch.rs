//! What fires: the rules of one job, evaluated over its status.
//!
//! ```text
//!          beyond the limit            for long enough
//!  quiet ───────────────────► pending ────────────────► firing
//!    ▲                           │                         │
//!    └────────── within ◄────────┴──────────◄──────────────┘
//! ```
//!
//! A value that nobody knows changes no state. A measure of what is new counts what a counter rose
//! by within its window. A counter that is lower than before began again with a new process, so all
//! of it is new.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tidemill_protocol::JobStatus;

use crate::{Rule, Rules};

/// Limit of changes that are kept per job.
const CHANGES_KEPT_MAX: usize = 500;
/// Counters are kept at this distance, in ms, so that a window holds a bounded number of them.
const COUNTER_EVERY_MS: u64 = 5_000;

/// The state of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "since_ms")]
pub enum State {
    /// The value is within the limit, or was never known.
    Quiet,
    /// The value is beyond the limit since this time, in ms since 1970.
    Pending(u64),
    /// The rule fires since this time, in ms since 1970.
    Firing(u64),
}

/// A rule that began to fire, or was resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// The rule's name.
    pub rule: String,
    /// `true` when it began to fire.
    pub firing: bool,
    /// The value at that time.
    pub value: f64,
}

/// The rules of one job, with what they found.
#[derive(Debug)]
pub struct Alerts {
    rules: Vec<Watched>,
    /// The newest last.
    changes: VecDeque<Change>,
}

/// A rule with its state.
#[derive(Debug)]
pub struct Watched {
    /// The rule.
    pub rule: Rule,
    /// The state.
    pub state: State,
    /// The newest value; `None` while nobody knows it.
    pub value: Option<f64>,
    counter: Counter,
}

impl Alerts {
    /// Rules that found nothing yet.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let watched = |rule: &Rule| Watched {
            rule: rule.clone(),
            state: State::Quiet,
            value: None,
            counter: Counter::default(),
        };
        Self {
            rules: rules.rules.iter().map(watched).collect(),
            changes: VecDeque::new(),
        }
    }

    /// What outlives the process.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let rule = |it: &Watched| SavedRule {
            name: it.rule.name.clone(),
            when: it.rule.when.text(),
            state: it.state,
            counter: it.counter.clone(),
        };
        Saved {
            rules: self.rules.iter().map(rule).collect(),
            changes: self.changes.clone(),
        }
    }

    /// Goes on where another process ended. A rule whose condition is another one now begins anew,
    /// and so does a counter that nobody has looked at for longer than its window.
    pub fn restore(&mut self, saved: Saved, now: u64) {
        for watched in &mut self.rules {
            let when = &watched.rule.when;
            let same = |it: &&SavedRule| it.name == watched.rule.name && it.when == when.text();
            let Some(found) = saved.rules.iter().find(same) else {
                continue;
            };
            watched.state = found.state;
            let window = when.measure.window();
            let window = window.map_or(0, |window| window.as_millis() as u64);
            if found.counter.is_within(window, now) {
                watched.counter = found.counter.clone();
            }
        }
        self.changes = saved.changes;
        let over = self.changes.len().saturating_sub(CHANGES_KEPT_MAX);
        self.changes.drain(..over);
    }

    /// Evaluates all rules over a status of `now` (ms since 1970). Returns what changed.
    pub fn look(&mut self, job: &JobStatus, now: u64) -> Vec<Change> {
        let changes: Vec<Change> = self
            .rules
            .iter_mut()
            .filter_map(|watched| watched.look(job, now))
            .collect();
        self.changes.extend(changes.iter().cloned());
        let over = self.changes.len().saturating_sub(CHANGES_KEPT_MAX);
        self.changes.drain(..over);
        changes
    }

    /// The rules with their states, in the order of the file.
    pub fn rules(&self) -> impl Iterator<Item = &Watched> {
        self.rules.iter()
    }

    /// What fired and was resolved, the newest last.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }
}

/// The states of the rules of one job, as they are kept in a store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    rules: Vec<SavedRule>,
    changes: VecDeque<Change>,
}

impl Saved {
    /// Whether the rules are in the same states, whatever their counters.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let states = |it: &Self| -> Vec<(String, State)> {
            let rules = it.rules.iter();
            rules.map(|rule| (rule.name.clone(), rule.state)).collect()
        };
        states(self) == states(other) && self.changes == other.changes
    }
}

/// The state of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedRule {
    name: String,
    /// The condition, so that another one of the same name is not taken for this one.
    when: String,
    #[serde(flatten)]
    state: State,
    counter: Counter,
}

impl Watched {
    /// Evaluates the rule.
    fn look(&mut self, job: &JobStatus, now: u64) -> Option<Change> {
        let measure = self.rule.when.measure;
        let found = measure.of(job);
        self.value = match measure.window() {
            Some(window) => found.map(|it| self.counter.rose(it, now, window.as_millis() as u64)),
            None => found,
        };
        let value = self.value?;
        let (holds, lasting) = (self.rule.when.holds(value), self.rule.lasting);
        let long_enough = |since: u64| u128::from(now.saturating_sub(since)) >= lasting.as_millis();
        let before = self.state;
        self.state = match (holds, before) {
            (false, _) => State::Quiet,
            (true, State::Quiet) if lasting.is_zero() => State::Firing(now),
            (true, State::Quiet) => State::Pending(now),
            (true, State::Pending(since)) if long_enough(since) => State::Firing(now),
            (true, same) => same,
        };
        let firing = |state: State| matches!(state, State::Firing(_));
        (firing(before) != firing(self.state)).then(|| Change {
            at_ms: now,
            rule: self.rule.name.clone(),
            firing: firing(self.state),
            value,
        })
    }
}

/// How much a counter rose within a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    /// The counter when it was last seen.
    last: Option<f64>,
    /// Everything that it rose by since it was first seen.
    total: f64,
    /// Times, with the total at each; the oldest is the last one before the window.
    seen: VecDeque<(u64, f64)>,
}

impl Counter {
    /// Whether somebody looked at the counter within the last `window` ms.
    fn is_within(&self, window: u64, now: u64) -> bool {
        self.seen
            .back()
            .is_some_and(|(at, _)| now.saturating_sub(*at) <= window)
    }

    /// Takes a value in and says what the counter rose by within the window.
    fn rose(&mut self, value: f64, now: u64, window: u64) -> f64 {
        let rise = match self.last {
            None => 0.0,
            Some(last) if value >= last => value - last,
            Some(_) => value,
        };
        self.last = Some(value);
        self.total += rise;
        let is_due = |(at, _): &(u64, f64)| now.saturating_sub(*at) >= COUNTER_EVERY_MS;
        if self.seen.back().is_none_or(is_due) {
            self.seen.push_back((now, self.total - rise));
        }
        let from = now.saturating_sub(window);
        while self.seen.get(1).is_some_and(|(at, _)| *at <= from) {
            self.seen.pop_front();
        }
        self.total - self.seen.front().map_or(self.total, |(_, total)| *total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(lag_ms: Option<u64>, dead_letters: u64) -> JobStatus {
        let job = serde_json::json!({
            "name": "users", "state": "running", "why": null, "generation": 1, "restarts": 0,
            "workers_wanted": 1, "workers": 1, "epoch": 0, "lag_ms": lag_ms, "behind": null,
            "behind_by_topic": {}, "dependencies": [], "freshness_p50_ms": null,
            "freshness_p99_ms": null, "freshness_p999_ms": null, "records": 0,
            "records_per_second": 0.0, "dead_letters": dead_letters, "checkpointed": 0,
            "ingest": null, "views": {}, "operators": [], "processes": [], "failures": [],
        });
        serde_json::from_value(job).unwrap()
    }

    fn alerts(when: &str, lasting: &str) -> Alerts {
        let text = format!("[[rule]]\nname = 'r'\nwhen = '{when}'\nfor = '{lasting}'");
        Alerts::new(&Rules::parse(&text).unwrap())
    }

    fn firing(alerts: &mut Alerts, job: &JobStatus, now: u64) -> Vec<bool> {
        let changes = alerts.look(job, now);
        changes.iter().map(|change| change.firing).collect()
    }

    #[test]
    fn a_rule_fires_after_its_time_and_is_resolved_at_once() {
        let mut alerts = alerts("lag > 5s", "10s");
        assert!(firing(&mut alerts, &job(Some(6_000), 0), 1_000).is_empty());
        // An interruption starts the time again.
        assert!(firing(&mut alerts, &job(Some(1_000), 0), 9_000).is_empty());
        assert!(firing(&mut alerts, &job(Some(6_000), 0), 10_000).is_empty());
        assert!(firing(&mut alerts, &job(Some(6_000), 0), 19_999).is_empty());
        assert_eq!(firing(&mut alerts, &job(Some(6_000), 0), 20_000), [true]);
        assert!(firing(&mut alerts, &job(Some(7_000), 0), 21_000).is_empty());
        assert_eq!(firing(&mut alerts, &job(Some(5_000), 0), 22_000), [false]);
        assert_eq!(alerts.changes().count(), 2);
    }

    #[test]
    fn a_value_that_nobody_knows_resolves_nothing() {
        let mut alerts = alerts("lag > 5s", "0s");
        assert!(firing(&mut alerts, &job(None, 0), 1_000).is_empty());
        assert_eq!(firing(&mut alerts, &job(Some(6_000), 0), 2_000), [true]);
        assert!(firing(&mut alerts, &job(None, 0), 3_000).is_empty());
        let states: Vec<State> = alerts.rules().map(|it| it.state).collect();
        assert_eq!(states, [State::Firing(2_000)]);
    }

    #[test]
    fn a_new_process_goes_on_and_says_nothing_again() {
        let mut first = alerts("lag > 5s", "0s");
        assert_eq!(firing(&mut first, &job(Some(6_000), 0), 1_000), [true]);
        let text = serde_json::to_string(&first.saved()).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        assert_eq!(saved, first.saved());
        let mut next = alerts("lag > 5s", "0s");
        next.restore(saved.clone(), 9_000);
        assert!(firing(&mut next, &job(Some(6_000), 0), 9_000).is_empty());
        assert_eq!(firing(&mut next, &job(Some(1_000), 0), 10_000), [false]);
        assert_eq!(next.changes().count(), 2);
        // Another condition begins anew.
        let mut other = alerts("lag > 4s", "0s");
        other.restore(saved, 9_000);
        assert_eq!(firing(&mut other, &job(Some(6_000), 0), 9_000), [true]);
    }

    #[test]
    fn what_a_counter_rose_by_is_new_also_for_the_next_process() {
        let mut first = alerts("new_dead_letters > 0", "0s");
        let minute = 60_000;
        assert!(firing(&mut first, &job(None, 7), minute).is_empty());
        assert_eq!(firing(&mut first, &job(None, 9), 2 * minute), [true]);
        let mut next = alerts("new_dead_letters > 0", "0s");
        next.restore(first.saved(), 3 * minute);
        assert!(firing(&mut next, &job(None, 9), 3 * minute).is_empty());
        assert_eq!(next.rules().next().unwrap().value, Some(2.0));
        // After a long time what a counter says is not new.
        let mut late = alerts("new_dead_letters > 0", "0s");
        late.restore(first.saved(), 60 * minute);
        assert_eq!(firing(&mut late, &job(None, 99), 60 * minute), [false]);
    }

    #[test]
    fn a_counter_counts_what_is_new_within_its_window_also_after_it_began_again() {
        let mut alerts = alerts("new_dead_letters > 0", "0s");
        let minute = 60_000;
        // Letters that were there before are not new.
        assert!(firing(&mut alerts, &job(None, 7), 0).is_empty());
        assert!(firing(&mut alerts, &job(None, 7), minute).is_empty());
        assert_eq!(firing(&mut alerts, &job(None, 9), 2 * minute), [true]);
        let value = |alerts: &Alerts| alerts.rules().next().unwrap().value;
        assert_eq!(value(&alerts), Some(2.0));
        assert!(firing(&mut alerts, &job(None, 1), 3 * minute).is_empty());
        assert_eq!(value(&alerts), Some(3.0));
        for at in 4..=20 {
            firing(&mut alerts, &job(None, 1), at * minute);
        }
        assert_eq!(value(&alerts), Some(0.0));
        assert_eq!(alerts.changes().count(), 2);
    }
}
