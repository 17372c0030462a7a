//! Health of the services that a process depends on: up, down or unknown, since when, and the last
//! error.
//!
//! In flow reports: stages report what they met ([`Health::note`]), probes report what they found
//! ([`Health::asks`], then [`Health::up`] or [`Health::down`]). Out flow [`Dependency`] snapshots,
//! for status, readiness and metrics.
//!
//! Invariants:
//! 1. A dependency is down while the last report of any reporter says so: a probe that gets through
//!    does not hide a stage that does not.
//! 2. A question that gets no answer in its time counts as down before it returns: a frozen service
//!    accepts connections and answers nothing.
//! 3. What nobody has reported of is unknown, never up.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Result;

pub mod engines;

/// How long a probe waits for an answer before the service counts as down.
pub const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// The reporter that looks for services while nobody uses them.
pub const PROBE: &str = "probe";

/// What a dependency is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// What records are fetched from.
    Api,
    /// The database that records land in and changes are captured from.
    Database,
    /// The replication slot.
    Slot,
    /// The log: Kafka.
    Log,
    /// The schema registry.
    Registry,
    /// The store of the journal and the checkpoints.
    State,
    /// The sink that serves the views: Cassandra.
    Views,
}

impl Role {
    /// As status, metrics and JSON name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Database => "database",
            Self::Slot => "slot",
            Self::Log => "log",
            Self::Registry => "registry",
            Self::State => "state",
            Self::Views => "views",
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a dependency can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It answered last.
    Up,
    /// Nobody has heard of it yet.
    Unknown,
    /// It did not answer, or refused.
    Down,
}

impl Condition {
    /// As status and JSON name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Down => "down",
        }
    }
}

/// A dependency as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What it is used for.
    pub role: Role,
    /// What it is: `Kafka`, `PostgreSQL`, …
    pub engine: String,
    /// Where it is, without passwords.
    pub place: String,
    /// Whether it can be used.
    pub condition: Condition,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// The last error, which stays when it is up again; none when there was none.
    pub error: Option<String>,
}

/// The health of one process's dependencies. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Role, Watched>>>);

#[derive(Debug)]
struct Watched {
    engine: String,
    place: String,
    condition: Condition,
    since_ms: u64,
    error: Option<String>,
    /// The last word of each reporter: whether the service got an answer through, or the error.
    reports: BTreeMap<&'static str, std::result::Result<(), String>>,
    /// Questions under way by reporter: since when, and how long an answer may take.
    asked: BTreeMap<&'static str, (Instant, Duration)>,
}

impl Health {
    /// A service that this process uses; only declared ones are kept track of. False when it is
    /// declared already.
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

    /// `reporter` got through.
    pub fn up(&self, role: Role, reporter: &'static str) {
        self.report(role, reporter, Ok(()));
    }

    /// `reporter` did not get through, and why.
    pub fn down(&self, role: Role, reporter: &'static str, why: &dyn Display) {
        self.report(role, reporter, Err(why.to_string()));
    }

    /// Reports the outcome of a call: an error that passes, or a refusal, says that the service
    /// cannot be used; another one is of the call, and the service gave it.
    pub fn note<T>(&self, role: Role, reporter: &'static str, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.up(role, reporter),
            Err(error) if error.may_pass() => self.down(role, reporter, error),
            Err(_) => {}
        }
    }

    /// What `reporter` said last says nothing any more.
    pub fn forget(&self, role: Role, reporter: &'static str) {
        if let Some(watched) = self.lock().get_mut(&role) {
            watched.reports.remove(reporter);
            watched.settle(now_ms());
        }
    }

    /// `reporter` asks now; its next report is the answer. Without one in `wait` the service counts
    /// as down.
    pub fn asks(&self, role: Role, reporter: &'static str, wait: Duration) {
        if let Some(watched) = self.lock().get_mut(&role) {
            watched.asked.insert(reporter, (Instant::now(), wait));
        }
    }

    fn report(&self, role: Role, reporter: &'static str, said: std::result::Result<(), String>) {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(&role) else {
            return;
        };
        // An answer that did not come was not there from when it was asked for.
        let asked = watched.asked.remove(reporter);
        let waited = asked.filter(|_| said.is_err()).map(|(at, _)| at.elapsed());
        if let Err(why) = &said {
            watched.error = Some(why.clone());
        }
        watched.reports.insert(reporter, said);
        watched.settle(now_ms().saturating_sub(millis(waited.unwrap_or_default())));
    }

    /// All dependencies as they are now.
    pub fn list(&self) -> Vec<Dependency> {
        let mut all = self.lock();
        let now = now_ms();
        let shown = all.iter_mut();
        let mut shown: Vec<_> = shown.map(|(role, it)| it.shown(*role, now)).collect();
        let database = shown.iter().find(|it| it.role == Role::Database).cloned();
        if let Some(database) = database.filter(|it| it.condition == Condition::Down)
            && let Some(slot) = shown.iter_mut().find(|it| it.role == Role::Slot)
        {
            // The database alone can tell.
            (slot.condition, slot.since_ms) = (Condition::Unknown, database.since_ms);
        }
        shown
    }

    /// Those that are down now.
    pub fn downs(&self) -> Vec<Dependency> {
        let mut all = self.list();
        all.retain(|it| it.condition == Condition::Down);
        all
    }

    /// Whether a declared dependency is down now.
    pub fn is_down(&self, role: Role) -> bool {
        self.downs().iter().any(|it| it.role == role)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Role, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Takes the reports together.
    fn settle(&mut self, now: u64) {
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

    fn shown(&mut self, role: Role, now: u64) -> Dependency {
        let asked = self.asked.values();
        let overdue = asked.filter(|(at, wait)| at.elapsed() >= *wait);
        if let Some(waited) = overdue.map(|(at, _)| at.elapsed()).max() {
            let error = format!("no answer for {} s", waited.as_secs());
            // The stage that meets it as well says more.
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
    /// For people: what is waited for, since when, and why.
    pub fn told(&self, now_ms: u64) -> String {
        let seconds = now_ms.saturating_sub(self.since_ms) / 1000;
        let why = self.error.as_deref().unwrap_or("no answer");
        let (engine, role, condition) = (&self.engine, self.role, self.condition.name());
        format!("{engine} ({role}) is {condition} since {seconds} s: {why}")
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, by the machine's clock.
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
        // What is wrong with a record is not the service's.
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
