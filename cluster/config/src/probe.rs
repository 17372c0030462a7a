//! Health probes: asks the services that a process uses whether they answer, with their own
//! protocols.
//!
//! In: connections. Out: reports to the process's [`Health`], to which the stages report too, and a
//! log line whenever a service goes down or comes up again. Each service is asked on a thread of
//! its own, so a frozen service delays no other probe.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tidemill_ingest::probe::FileProbe;
use tidemill_ingest::stats;
use tidemill_log::health::{ANSWER_WAIT, Condition, Dependency, Health, PROBE, Role, now_ms};
use tidemill_log::log::dead_letter;
use tidemill_log::{Kind, Result, log, registry};
use tidemill_protocol::redact;

use crate::connections::Connections;

/// Time between two probes of a service.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// After so many failed probes of Kafka in a row the next one has a new client. A client that lost
/// its broker while the broker was frozen was seen to find none for a minute after others had it
/// again, and Kafka was said to be down although records were published.
const REOPENED_AFTER: u32 = 3;
/// The same for services whose answers cost something: APIs and S3.
const PROBE_SELDOM: Duration = Duration::from_secs(10);
/// How often the health is checked for changes to log.
const LOOK: Duration = Duration::from_secs(1);
/// A subject that does not exist: every working registry says so.
const NO_SUBJECT: &str = "tidemill-check-value";
/// A folder that does not exist: every working store returns an empty list.
const NO_FOLDER: &str = "tidemill-check";

/// Starts the probes of an ingest. `api` is the URL that it fetches from, if any.
pub fn ingest(connections: &Connections, name: &str, api: Option<&str>, stats: &Arc<stats::Stats>) {
    let mut probes = Probes::new(&stats.health);
    if let Some(api) = api {
        probes.api(api);
    }
    probes.database(&connections.database, name, stats);
    probes.log(&connections.log, name);
    probes.registry(&connections.registry);
    probes.start();
}

/// Starts the probes of a dataflow.
pub fn dataflow(connections: &Connections, name: &str, health: &Health) {
    let mut probes = Probes::new(health);
    probes.log(&connections.log, name);
    probes.registry(&connections.registry);
    probes.state(&connections.state);
    probes.views(Role::Views, &connections.sink);
    for (name, url) in &connections.sinks {
        probes.views(Role::of_sink(name), url);
    }
    probes.start();
}

/// The probes of one process, before they are started.
struct Probes {
    health: Health,
    files: Vec<(Role, Embedded)>,
    /// Whether no probes ran before in this process: then changes are to be logged.
    first: bool,
}

impl Probes {
    fn new(health: &Health) -> Self {
        Self {
            health: health.clone(),
            files: Vec::new(),
            first: health.list().is_empty(),
        }
    }

    /// Declares a dependency. Returns true if the service is to be asked, and false if it is
    /// watched already or is a file.
    fn declare(&mut self, role: Role, url: &str) -> bool {
        let place = redact::place(url);
        if !self.health.declare(role, engine(role, url), &place) {
            return false;
        }
        for scheme in ["sqlite://", "file://"] {
            if let Some(path) = url.strip_prefix(scheme) {
                self.files.push((role, Embedded::new(path)));
                return false;
            }
        }
        true
    }

    /// Probes the API by a TCP connection only.
    fn api(&mut self, url: &str) {
        if !self.declare(Role::Api, url) {
            return;
        }
        let Some(at) = reqwest::Url::parse(url).ok().and_then(|url| {
            let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
            Some((host, url.port_or_known_default()?))
        }) else {
            return;
        };
        self.ask(Role::Api, PROBE_SELDOM, move || {
            let reached = at.to_socket_addrs().and_then(|addresses| {
                let mut last = None;
                for address in addresses {
                    match TcpStream::connect_timeout(&address, ANSWER_WAIT) {
                        Ok(_) => return Ok(()),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| std::io::Error::other("it has no address")))
            });
            reached.map_err(|error| {
                let what = format!("cannot connect to {}:{}: {error}", at.0, at.1);
                tidemill_log::Error::with_source(Kind::Retry, what, error)
            })
        });
    }

    /// Probes the database and its replication slot, or looks at the changes in the SQLite file.
    fn database(&mut self, url: &str, name: &str, stats: &Arc<stats::Stats>) {
        if !self.declare(Role::Database, url) {
            if let Some(file) = url.strip_prefix("sqlite://") {
                changes(file, name, stats);
            }
            return;
        }
        let Ok(mut probe) = tidemill_ingest::probe::Probe::new(url, name) else {
            return;
        };
        self.health.declare(Role::Slot, "PostgreSQL", probe.slot());
        let stats = Arc::clone(stats);
        spawn("probe-database", move || {
            loop {
                probe.look(&stats);
                thread::sleep(PROBE_EVERY);
            }
        });
    }

    /// Probes Kafka with the topic of the dead letters.
    fn log(&mut self, url: &str, name: &str) {
        if !self.declare(Role::Log, url) {
            return;
        }
        let (url, topic) = (url.to_owned(), dead_letter::topic_of(name));
        let (mut opened, mut failed) = (None, 0);
        self.ask(Role::Log, PROBE_EVERY, move || {
            let log = match &opened {
                Some(log) => log,
                None => opened.insert(log::open(&url)?),
            };
            let outcome = log.probe(&topic, ANSWER_WAIT);
            failed = if outcome.is_ok() { 0 } else { failed + 1 };
            if failed >= REOPENED_AFTER {
                (opened, failed) = (None, 0);
            }
            outcome
        });
    }

    /// Probes the registry.
    fn registry(&mut self, url: &str) {
        if !self.declare(Role::Registry, url) {
            return;
        }
        let url = url.to_owned();
        let mut opened = None;
        self.ask(Role::Registry, PROBE_EVERY, move || {
            let registry = match &opened {
                Some(registry) => registry,
                None => opened.insert(registry::open(&url)?),
            };
            registry.versions(NO_SUBJECT).map(drop)
        });
    }

    /// Probes the state store.
    fn state(&mut self, url: &str) {
        if !self.declare(Role::State, url) {
            return;
        }
        let url = url.to_owned();
        let mut opened = None;
        self.ask(Role::State, PROBE_SELDOM, move || {
            let store = match &opened {
                Some(store) => store,
                None => opened.insert(tidemill_state::store::open(&url)?),
            };
            store.list(NO_FOLDER).map(drop)
        });
    }

    /// Probes a sink.
    fn views(&mut self, role: Role, url: &str) {
        if !self.declare(role, url) {
            return;
        }
        let url = url.to_owned();
        let mut opened = None;
        self.ask(role, PROBE_EVERY, move || {
            let probe = match &mut opened {
                Some(probe) => probe,
                None => opened.insert(tidemill_sinks::Probe::new(&url, ANSWER_WAIT)?),
            };
            probe.ask()
        });
    }

    /// Starts a thread that asks a service again and again. A refusal counts as down too.
    fn ask(
        &self,
        role: Role,
        every: Duration,
        mut question: impl FnMut() -> Result<()> + Send + 'static,
    ) {
        let health = self.health.clone();
        spawn(&format!("probe-{role}"), move || {
            loop {
                health.asks(role, PROBE, ANSWER_WAIT);
                match question() {
                    Ok(()) => health.up(role, PROBE),
                    Err(error) => health.down(role, PROBE, &error),
                }
                thread::sleep(every);
            }
        });
    }

    /// Starts the probe of the files, and the thread that logs changes.
    fn start(mut self) {
        if !self.files.is_empty() {
            let health = self.health.clone();
            spawn("probe-files", move || {
                loop {
                    for (role, file) in &mut self.files {
                        file.look(*role, &health);
                    }
                    thread::sleep(PROBE_EVERY);
                }
            });
        }
        if self.first {
            let health = self.health;
            spawn("health", move || log_changes(&health));
        }
    }
}

/// Starts a thread that counts the changes that wait in a captured SQLite file.
fn changes(file: &str, name: &str, stats: &Arc<stats::Stats>) {
    let (mut probe, stats) = (FileProbe::new(file, name), Arc::clone(stats));
    spawn("probe-changes", move || {
        loop {
            probe.look(&stats);
            thread::sleep(PROBE_EVERY);
        }
    });
}

/// The kind of a service, by its URL.
fn engine(role: Role, url: &str) -> &'static str {
    match url.split("://").next().unwrap_or_default() {
        "sqlite" => "SQLite",
        "file" => "directory",
        "s3" => "S3",
        "kafka" => "Kafka",
        "cassandra" => "Cassandra",
        "postgres" | "postgresql" => "PostgreSQL",
        _ if role == Role::Registry => "schema registry",
        _ => "HTTP API",
    }
}

/// The file or directory of an embedded engine.
struct Embedded {
    path: PathBuf,
    /// The inode that was seen first.
    inode: Option<u64>,
}

impl Embedded {
    fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            inode: None,
        }
    }

    /// A file that was deleted or replaced is down: a process that has it open still writes to it,
    /// but nobody can read that.
    fn look(&mut self, role: Role, health: &Health) {
        let inode = std::fs::metadata(&self.path).map(|found| found.ino());
        let path = self.path.display();
        match (inode, self.inode) {
            (Ok(now), None) => {
                self.inode = Some(now);
                health.up(role, PROBE);
            }
            (Ok(now), Some(before)) if now == before => health.up(role, PROBE),
            (Ok(_), Some(_)) => health.down(role, PROBE, &format!("{path} was replaced")),
            (Err(error), Some(_)) => health.down(role, PROBE, &format!("{path}: {error}")),
            // The file was not created yet.
            (Err(_), None) => {}
        }
    }
}

/// Logs each service that goes down or comes up again.
fn log_changes(health: &Health) {
    let mut last: Vec<Dependency> = Vec::new();
    loop {
        let now = health.list();
        for it in &now {
            let before = last.iter().find(|before| before.role == it.role);
            let was_down = before.is_some_and(|it| it.condition == Condition::Down);
            let (engine, role, place) = (&it.engine, it.role, &it.place);
            let why = redact::text(it.error.as_deref().unwrap_or_default());
            match it.condition {
                Condition::Down if !was_down => {
                    let what = "is down: this process waits for it";
                    tracing::warn!(%role, place, %why, "{engine} {what}");
                }
                Condition::Up if was_down => {
                    let since = before.map_or(0, |it| it.since_ms);
                    let down_ms = now_ms().saturating_sub(since);
                    tracing::info!(%role, place, down_ms, "{engine} is up again");
                }
                _ => {}
            }
        }
        last = now;
        thread::sleep(LOOK);
    }
}

/// Starts a thread. If that fails, the services stay `unknown`.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start the thread `{name}`: its services stay unknown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedded_file_that_is_deleted_or_replaced_is_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let health = Health::default();
        health.declare(Role::Log, "SQLite", "a");
        let mut file = Embedded::new(path.to_str().unwrap());
        let mut look = || {
            file.look(Role::Log, &health);
            health.list().remove(0).condition
        };
        assert_eq!(look(), Condition::Unknown);
        std::fs::write(&path, "1").unwrap();
        assert_eq!(look(), Condition::Up);
        let other = folder.path().join("other");
        std::fs::write(&other, "2").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(look(), Condition::Down);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(), Condition::Down);
    }
}
