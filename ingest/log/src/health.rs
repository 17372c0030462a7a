//! Health of the services that a process depends on: up, down or unknown, since when, and the last
//! error.
//!
//! In: reports. Stages report the outcome of their calls ([`Health::note`]); probes report what
//! they found ([`Health::asks`], then [`Health::up`] or [`Health::down`]). Out: snapshots
//! ([`Dependency`]) for status, readiness and metrics.
//!
//! Invariants:
//! 1. A service is down while the last report of any reporter says so: a probe that succeeds does
//!    not hide a stage that fails.
//! 2. A request without an answer in its time counts as down before the request returns: a frozen
//!    service accepts connections and answers nothing.
//! 3. A service without any report is unknown, never up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Result;

pub mod engines;
pub mod lag;

/// Timeout of a probe: without an answer in this time the service counts as down.
pub const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// The reporter that probes services, also while no stage uses them.
pub const PROBE: &str = "probe";

/// What a service is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The HTTP API from which records are fetched.
    Api,
    /// The database in which records land and whose changes are captured.
    Database,
    /// The replication slot of the capture in PostgreSQL.
    Slot,
    /// The log: Kafka.
    Log,
    /// The schema registry.
    Registry,
    /// The state store: journal and checkpoints.
    State,
    /// The sink that serves the views: Cassandra.
    Views,
    /// A sink that views name, by its name; made by [`Role::of_sink`].
    Sink(&'static str),
}

/// The names of roles of sinks. A process has few, and they live as long as the process.
static SINKS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Role {
    /// The role of a sink that views name. Its name in status and metrics is `sink_NAME`.
    ///
    /// ```
    /// use tidemill_log::health::Role;
    ///
    /// assert_eq!(Role::of_sink("warehouse"), Role::of_sink("warehouse"));
    /// assert_eq!(Role::of_sink("warehouse").name(), "sink_warehouse");
    /// ```
    pub fn of_sink(name: &str) -> Self {
        let name = format!("sink_{name}");
        let mut known = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name.as_str()) {
            return Self::Sink(known);
        }
        let name: &'static str = Box::leak(name.into_boxed_str());
        known.insert(name);
        Self::Sink(name)
    }

    /// The name in status, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Database => "database",
            Self::Slot => "slot",
            Self::Log => "log",
            Self::Registry => "registry",
            Self::State => "state",
            Self::Views => "views",
            Self::Sink(name) => name,
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a service can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The last report of every reporter is a success.
    Up,
    /// No report yet.
    Unknown,
    /// The last report of some reporter is a failure.
    Down,
}

impl Condition {
    /// The name in status and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Down => "down",
        }
    }
}

/// A snapshot of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What the service is used for.
    pub role: Role,
    /// The product: `Kafka`, `PostgreSQL`, ….
    pub engine: String,
    /// Its address, without passwords.
    pub place: String,
    /// Whether it can be used.
    pub condition: Condition,
    /// Since when it is in this condition, in milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// The last error, which is kept when the service is up again; `None` if there was none.
    pub error: Option<String>,
}

/// The health of the services of one process. Cheap to clone; clones share their state.
///
/// ```
/// use tidemill_log::health::{Condition, Health, PROBE, Role};
/// use tidemill_log::{Error, Kind};
///
/// let health = Health::default();
/// health.declare(Role::Log, "Kafka", "a:9092");
/// health.up(Role::Log, PROBE);
/// let failed: tidemill_log::Result<()> = Err(Error::new(Kind::Retry, "no leader"));
/// health.note(Role::Log, "append", &failed);
/// let log = health.list().remove(0);
/// assert_eq!(log.condition, Condition::Down);
/// assert_eq!(log.error.as_deref(), Some("no leader"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Role, Watched>>>);

/// The state of one declared service.
#[derive(Debug)]
struct Watched {
    engine: String,
    place: String,
    condition: Condition,
    since_ms: u64,
    error: Option<String>,
    /// The last report by reporter: a success, or the error.
    reports: BTreeMap<&'static str, std::result::Result<(), String>>,
    /// Pending requests by reporter: when they were sent, and their timeout.
    asked: BTreeMap<&'static str, (Instant, Duration)>,
}

impl Health {
    /// Declares a service that this process uses. Reports about other services are ignored. False
    /// when the role is declared already.
    pub fn declare(&self, role: Role, engine: &str, place: &str) -> bool {
        let watched = Watched {
            engine: engine.to_owned(),
            place: place.to_owned(),
            condition: Condition::Unknown,
            since_ms: now_ms(),
            error: None,
            reports: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        let mut all = self.lock();
        let new = !all.contains_key(&role);
        all.entry(role).or_insert(watched);
        new
    }

    /// `reporter` reached the service.
    pub fn up(&self, role: Role, reporter: &'static str) {
        self.report(role, reporter, Ok(()));
    }

    /// `reporter` did not reach the service, for the reason `why`.
    pub fn down(&self, role: Role, reporter: &'static str, why: &dyn Display) {
        self.report(role, reporter, Err(why.to_string()));
    }

    /// Reports the outcome of a call. An error that passes and a refusal mean that the service
    /// cannot be used. Any other error is about the call itself: the service answered, and nothing
    /// is reported.
    pub fn note<T>(&self, role: Role, reporter: &'static str, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.up(role, reporter),
            Err(error) if error.may_pass() => self.down(role, reporter, error),
            Err(_) => {}
        }
    }

    /// Discards the last report of `reporter`, which has stopped.
    pub fn forget(&self, role: Role, reporter: &'static str) {
        if let Some(watched) = self.lock().get_mut(&role) {
            watched.reports.remove(reporter);
            watched.recompute(now_ms());
        }
    }

    /// `reporter` sends a request now; its next report is the answer. Without an answer within
    /// `wait` the service counts as down.
    pub fn asks(&self, role: Role, reporter: &'static str, wait: Duration) {
        if let Some(watched) = self.lock().get_mut(&role) {
            watched.asked.insert(reporter, (Instant::now(), wait));
        }
    }

    /// Stores a report and recomputes the condition.
    fn report(&self, role: Role, reporter: &'static str, said: std::result::Result<(), String>) {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(&role) else {
            return;
        };
        // A request that failed at its timeout: the service was down since the request was sent.
        let asked = watched.asked.remove(reporter);
        let waited = asked.filter(|_| said.is_err()).map(|(at, _)| at.elapsed());
        if let Err(why) = &said {
            watched.error = Some(why.clone());
        }
        watched.reports.insert(reporter, said);
        watched.recompute(now_ms().saturating_sub(millis(waited.unwrap_or_default())));
    }

    /// Snapshots of all services, in the order of their roles. A slot is unknown while its database
    /// is down.
    pub fn list(&self) -> Vec<Dependency> {
        let mut all = self.lock();
        let now = now_ms();
        let shown = all.iter_mut();
        let mut shown: Vec<_> = shown.map(|(role, it)| it.snapshot(*role, now)).collect();
        let database = shown.iter().find(|it| it.role == Role::Database).cloned();
        if let Some(database) = database.filter(|it| it.condition == Condition::Down)
            && let Some(slot) = shown.iter_mut().find(|it| it.role == Role::Slot)
        {
            // Only the database knows the state of its slot.
            (slot.condition, slot.since_ms) = (Condition::Unknown, database.since_ms);
        }
        shown
    }

    /// Snapshots of the services that are down.
    pub fn downs(&self) -> Vec<Dependency> {
        let mut all = self.list();
        all.retain(|it| it.condition == Condition::Down);
        all
    }

    /// Whether the service of a role is declared and down.
    pub fn is_down(&self, role: Role) -> bool {
        self.downs().iter().any(|it| it.role == role)
    }

    /// Locks the state, also after a panic of another thread: it is consistent at every moment.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Role, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Recomputes the condition from the last reports. `now` is when a new condition began, in ms.
    fn recompute(&mut self, now: u64) {
        let mut condition = Condition::Unknown;
        let mut why = None;
        for said in self.reports.values() {
            match said {
                Ok(()) if condition == Condition::Unknown => condition = Condition::Up,
                Ok(()) => {}
                Err(error) => {
                    condition = Condition::Down;
                    why = Some(error);
                }
            }
        }
        if let Some(why) = why {
            self.error = Some(why.clone());
        }
        if condition != self.condition {
            (self.condition, self.since_ms) = (condition, now);
        }
    }

    /// A snapshot, with overdue requests taken into account.
    fn snapshot(&mut self, role: Role, now: u64) -> Dependency {
        let asked = self.asked.values();
        let overdue = asked.filter(|(at, wait)| at.elapsed() >= *wait);
        if let Some(waited) = overdue.map(|(at, _)| at.elapsed()).max() {
            let error = format!("no answer for {} s", waited.as_secs());
            // A stage that reported the failure has the better error.
            if self.condition != Condition::Down || self.error.is_none() {
                let since = now.saturating_sub(millis(waited));
                (self.condition, self.since_ms) = (Condition::Down, since);
            }
            if self.reports.values().all(std::result::Result::is_ok) {
                self.error = Some(error);
            }
        }
        Dependency {
            role,
            engine: self.engine.clone(),
            place: self.place.clone(),
            condition: self.condition,
            since_ms: self.since_ms,
            error: self.error.clone(),
        }
    }
}

impl Dependency {
    /// One line for people: which service, its condition, since when, and the error.
    pub fn told(&self, now_ms: u64) -> String {
        let seconds = now_ms.saturating_sub(self.since_ms) / 1000;
        let why = self.error.as_deref().unwrap_or("no answer");
        let (engine, role, condition) = (&self.engine, self.role, self.condition.name());
        format!("{engine} ({role}) is {condition} since {seconds} s: {why}")
    }
}

/// A duration in whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970-01-01 UTC, by the clock of the machine.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Kind};

    fn of(health: &Health) -> (Condition, Option<String>) {
        let all = health.list();
        (all[0].condition, all[0].error.clone())
    }

    #[test]
    fn a_probe_that_gets_through_does_not_hide_a_stage_that_does_not() {
        let health = Health::default();
        health.up(Role::Log, PROBE);
        assert!(health.list().is_empty(), "it was not declared");
        health.declare(Role::Log, "Kafka", "a:9092");
        assert_eq!(of(&health).0, Condition::Unknown);
        health.up(Role::Log, PROBE);
        assert_eq!(of(&health), (Condition::Up, None));
        let refused: Result<()> = Err(Error::new(Kind::Retry, "no leader"));
        health.note(Role::Log, "append", &refused);
        health.up(Role::Log, PROBE);
        assert_eq!(of(&health), (Condition::Down, Some("no leader".to_owned())));
        assert!(health.is_down(Role::Log) && !health.is_down(Role::Views));
        // An error of a record says nothing about the service.
        let wrong: Result<()> = Err(Error::new(Kind::Data, "too large"));
        health.note(Role::Log, "append", &wrong);
        assert_eq!(of(&health).0, Condition::Down);
        health.note(Role::Log, "append", &Ok(()));
        let rights = Error::new(Kind::Data, "no right").refused_if(true);
        health.note::<()>(Role::Log, "append", &Err(rights));
        assert!(health.is_down(Role::Log));
        let refused: Result<()> = Err(Error::new(Kind::Retry, "no leader"));
        health.note(Role::Log, "append", &refused);
        health.note(Role::Log, "append", &Ok(()));
        assert_eq!(of(&health), (Condition::Up, Some("no leader".to_owned())));
    }

    #[test]
    fn a_question_without_an_answer_is_down_until_it_is_answered() {
        let health = Health::default();
        health.declare(Role::Views, "Cassandra", "a:9042");
        health.up(Role::Views, PROBE);
        health.asks(Role::Views, PROBE, ANSWER_WAIT);
        assert_eq!(of(&health).0, Condition::Up);
        let long_ago = Instant::now() - ANSWER_WAIT * 2;
        let mut all = health.lock();
        let asked = &mut all.get_mut(&Role::Views).unwrap().asked;
        asked.insert(PROBE, (long_ago, ANSWER_WAIT));
        drop(all);
        let down = health.downs().remove(0);
        assert_eq!(down.error.as_deref(), Some("no answer for 6 s"));
        let told = down.told(down.since_ms + 7_500);
        assert_eq!(
            told,
            "Cassandra (views) is down since 7 s: no answer for 6 s"
        );
        health.up(Role::Views, PROBE);
        assert_eq!(of(&health).0, Condition::Up);
    }
}
