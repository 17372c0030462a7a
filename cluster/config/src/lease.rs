//! Lease of a pipeline: which process runs it now. A second process that was started by mistake is
//! refused, and the first one is not disturbed.
//!
//! In: the store or the database that the process is about to use. Out: a heartbeat there while the
//! process runs, or the name of the process that already has one.
//!
//! ```text
//! first    put ── put ── put ── put ──►            an object NAME/running/PART, every 2 s
//! second      get ── get: it changed               refused: the first process is alive
//!
//! first    put ── put ── killed on another machine
//! second              get ── get ── … 8 s … ── get the object did not change for 8 s: free
//! second   put ── put ── put ──►                   it takes the lease
//!
//! first    put ── put ── frozen ················· wakes up, reads another heartbeat, stops its own
//! second                  put (--take-over) ── put ── put ──►
//! ```
//!
//! Invariants:
//! 1. Clocks of two machines are never compared. A heartbeat that changes is alive; one that does
//!    not change for `LEASE` is dead. For a process of the same machine, the process table
//!    answers at once.
//! 2. The lease protects users from a mistake, and nothing else. Writes of a process that was taken
//!    over are refused by the journal's generation and by PostgreSQL's lock (fencing).
//! 3. A process deletes only its own heartbeat, and stops to renew when another process's heartbeat
//!    is in its place.
//!
//! The capture from PostgreSQL needs no object: the advisory lock of its session is the lease, and
//! the server observes the session's heartbeat.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidemill_ingest::capture;
use tidemill_protocol::exit::Held;
use tidemill_protocol::output;
use tidemill_state::store;
use tidemill_state::store::Store;

/// How long a heartbeat may stay unchanged until its process counts as dead.
const LEASE: Duration = Duration::from_secs(8);
/// Time between two heartbeats.
const RENEW: Duration = Duration::from_secs(2);
/// Time between two reads of another process's heartbeat.
const LOOK: Duration = Duration::from_millis(250);
/// How long the traces of a process that has just ended may still change.
const ENDS_MAX: Duration = Duration::from_secs(1);
/// How much later than [`LEASE`] PostgreSQL has certainly ended a silent session.
const SERVER_GRACE: Duration = Duration::from_secs(2);

/// Which component of a pipeline a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Dataflow,
    Ingest,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Component::Dataflow => "dataflow",
            Component::Ingest => "ingest",
        }
    }
}

/// The place of one component's lease.
pub struct LeaseKey {
    pipeline: String,
    component: Component,
    keeper: Keeper,
}

/// What keeps the lease.
enum Keeper {
    /// Heartbeats as objects in a store.
    Store(Arc<dyn Store>),
    /// The lock of the capture's session, at this database's URL.
    Server(String),
}

/// The heartbeat of a process: the content of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Heartbeat {
    /// Host name and process id, for messages.
    host: String,
    process: u32,
    /// When the process took the lease, in ms since 1970.
    since_ms: u64,
    /// The boot of the kernel, the PID namespace, and the start of the process in ticks since the
    /// boot. Together they tell this process from another one with the same id.
    boot: String,
    table: String,
    began: String,
    /// Counts the heartbeats, so that the object changes.
    beat: u64,
}

/// The process that holds the lease.
struct Holder {
    /// The process, as in `process 12 on host a`.
    who: String,
    /// Since when it runs, in ms since 1970; 0 if unknown.
    since_ms: u64,
    /// A text that changes as long as the process lives.
    sign: String,
    /// Whether the process lives, if that can be told at once.
    lives: Option<bool>,
}

/// A held lease. Dropping it ends the heartbeat and deletes it.
pub struct Lease {
    /// Dropping this sender ends the thread.
    ending: Option<Sender<()>>,
    renewing: Option<thread::JoinHandle<()>>,
}

impl LeaseKey {
    /// The lease of a dataflow, in the store at `state`.
    ///
    /// # Errors
    /// The URL names no store.
    pub fn dataflow(pipeline: &str, state: &str) -> anyhow::Result<Self> {
        Ok(Self {
            pipeline: pipeline.to_owned(),
            component: Component::Dataflow,
            keeper: Keeper::Store(store::open(state)?),
        })
    }

    /// The lease of an ingest, in its database.
    ///
    /// # Errors
    /// The embedded file cannot be opened.
    pub fn ingest(pipeline: &str, database: &str) -> anyhow::Result<Self> {
        let keeper = match database.starts_with("sqlite://") {
            true => Keeper::Store(store::open(database)?),
            false => Keeper::Server(database.to_owned()),
        };
        Ok(Self {
            pipeline: pipeline.to_owned(),
            component: Component::Ingest,
            keeper,
        })
    }

    /// Waits until it is certain that no other process holds the lease: at most `LEASE`, and for
    /// PostgreSQL `SERVER_GRACE` more.
    ///
    /// # Errors
    /// [`Held`] if another process holds the lease; `instead` tells the user what to do. If the
    /// store or the database does not answer, there is nothing to protect yet, and no error.
    pub fn free(&self, instead: &str) -> anyhow::Result<()> {
        let mut first: Option<(Holder, Instant)> = None;
        loop {
            let Some(now) = self.holder() else {
                return Ok(());
            };
            if now.lives == Some(false) {
                return Ok(());
            }
            let held = |now: &Holder| Held {
                pipeline: self.pipeline.clone(),
                component: self.component.name(),
                who: now.who.clone(),
                since: since(now.since_ms),
                instead: instead.to_owned(),
            };
            let Some((seen, at)) = &first else {
                if now.lives == Some(true) {
                    return Err(held(&now).into());
                }
                self.say_waiting(&now);
                first = Some((now, Instant::now()));
                continue;
            };
            // The traces of a process that is just ending may still change.
            if seen.sign != now.sign && at.elapsed() >= ENDS_MAX {
                return Err(held(&now).into());
            }
            match &self.keeper {
                Keeper::Store(_) if at.elapsed() >= LEASE => return Ok(()),
                Keeper::Server(_) if at.elapsed() >= LEASE + SERVER_GRACE => {
                    return Err(held(&now).into());
                }
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Tells the user why the command waits.
    fn say_waiting(&self, holder: &Holder) {
        output::log(&format!(
            "the {} of `{}` was last run by {}, since {}; waiting for at most {} s to see whether \
             it is still there\n",
            self.component.name(),
            self.pipeline,
            holder.who,
            since(holder.since_ms),
            LEASE.as_secs()
        ));
    }

    /// Takes the lease, also from another process.
    ///
    /// # Errors
    /// The thread for the heartbeat cannot be started.
    pub fn take(&self) -> anyhow::Result<Lease> {
        let Keeper::Store(store) = &self.keeper else {
            // The capture takes the lock when it begins.
            return Ok(Lease {
                ending: None,
                renewing: None,
            });
        };
        let (store, name) = (Arc::clone(store), self.object());
        let (ending, ended) = mpsc::channel::<()>();
        let mut mine = Heartbeat::mine();
        put(&*store, &name, &mine);
        let renewing = thread::Builder::new()
            .name("tidemill-lease".to_owned())
            .spawn(move || {
                while ended.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
                    if is_anothers(&*store, &name, &mine) {
                        return;
                    }
                    mine.beat += 1;
                    put(&*store, &name, &mine);
                }
                if !is_anothers(&*store, &name, &mine)
                    && let Err(error) = store.delete(&name)
                {
                    tracing::debug!(%error, "the heartbeat is left behind");
                }
            })?;
        Ok(Lease {
            ending: Some(ending),
            renewing: Some(renewing),
        })
    }

    /// The object with this component's heartbeat.
    fn object(&self) -> String {
        object(&self.pipeline, self.component)
    }

    /// The holder of the lease; `None` if there is none, or if it cannot be found out.
    fn holder(&self) -> Option<Holder> {
        let found = match &self.keeper {
            Keeper::Store(store) => stored(&**store, &self.object()),
            Keeper::Server(url) => capturing(url, &self.pipeline),
        };
        found.unwrap_or_else(|error| {
            tracing::debug!(%error, "nobody can tell who runs the pipeline");
            None
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ending = None;
        if let Some(renewing) = self.renewing.take() {
            // The thread only waits for the store. A panic of it would have ended the process.
            let _ended = renewing.join();
        }
    }
}

/// The object with the heartbeat.
fn object(pipeline: &str, component: Component) -> String {
    format!("{pipeline}/running/{}", component.name())
}

/// The holder by an object in a store.
fn stored(store: &dyn Store, name: &str) -> tidemill_ingest::Result<Option<Holder>> {
    let Some(bytes) = store.get(name)? else {
        return Ok(None);
    };
    // An object that cannot be read is of another version. Then only its changes tell whether its
    // process lives.
    let sign = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(match serde_json::from_slice::<Heartbeat>(&bytes) {
        Ok(heartbeat) => Holder {
            who: format!("process {} on {}", heartbeat.process, heartbeat.host),
            since_ms: heartbeat.since_ms,
            lives: heartbeat.lives(),
            sign,
        },
        Err(_) => Holder {
            who: "a process of another version of tidemill".to_owned(),
            since_ms: 0,
            lives: None,
            sign,
        },
    }))
}

/// The holder by the lock in PostgreSQL.
fn capturing(url: &str, pipeline: &str) -> tidemill_ingest::Result<Option<Holder>> {
    let holder = capture::holder(url, pipeline)?;
    Ok(holder.map(|holder| Holder {
        who: holder.who,
        since_ms: holder.since_ms,
        sign: holder.sign,
        lives: None,
    }))
}

/// Writes a heartbeat. A store that does not answer misses one heartbeat.
fn put(store: &dyn Store, name: &str, heartbeat: &Heartbeat) {
    let Ok(bytes) = serde_json::to_vec(heartbeat) else {
        return;
    };
    if let Err(error) = store.put(name, bytes) {
        tracing::debug!(%error, "no heartbeat");
    }
}

/// Whether the object is the heartbeat of another process.
fn is_anothers(store: &dyn Store, name: &str, mine: &Heartbeat) -> bool {
    let there = store.get(name).ok().flatten();
    let there = there.and_then(|bytes| serde_json::from_slice::<Heartbeat>(&bytes).ok());
    there.is_some_and(|there| !there.is_of(mine))
}

impl Heartbeat {
    /// The first heartbeat of this process.
    fn mine() -> Self {
        let process = std::process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            process,
            since_ms: now_ms(),
            boot: read("/proc/sys/kernel/random/boot_id"),
            table: process_table(),
            began: began(process).unwrap_or_default(),
            beat: 0,
        }
    }

    /// Whether both are of the same process.
    fn is_of(&self, other: &Self) -> bool {
        let who = |it: &Self| (it.host.clone(), it.process, it.since_ms, it.boot.clone());
        who(self) == who(other)
    }

    /// Whether the process lives; `None` if it is not of this machine and PID namespace.
    fn lives(&self) -> Option<bool> {
        let here = !self.boot.is_empty()
            && self.boot == read("/proc/sys/kernel/random/boot_id")
            && !self.table.is_empty()
            && self.table == process_table();
        here.then(|| began(self.process).is_some_and(|began| began == self.began))
    }
}

/// The trimmed text of a file; empty if it cannot be read.
fn read(file: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().to_owned()
}

/// The PID namespace of this process: containers have their own.
fn process_table() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid");
    link.map_or_else(|_| String::new(), |link| link.display().to_string())
}

/// When a process began, in ticks since the boot; `None` if it is dead.
fn began(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    let stat = stat.ok()?;
    // The process's name is in parentheses and may contain anything. The state is the first field
    // after it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let dead = matches!(fields.first(), Some(&"Z" | &"X"));
    fields.get(19).filter(|_| !dead).map(|it| (*it).to_owned())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A time as text.
fn since(ms: u64) -> String {
    let at = i64::try_from(ms).ok().filter(|ms| *ms > 0);
    let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or("a time that is not known".to_owned(), |at| {
        at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> LeaseKey {
        LeaseKey::dataflow("users", &format!("file://{}", folder.display())).unwrap()
    }

    #[test]
    fn a_lease_is_held_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        place.free("stop it").unwrap();
        let lease = place.take().unwrap();
        let said = place.free("stop it").unwrap_err().to_string();
        let who = format!("process {} on ", std::process::id());
        assert!(said.contains(&who), "{said}");
        drop(lease);
        place.free("stop it").unwrap();
        assert!(place.holder().is_none());
    }

    #[test]
    fn the_dead_of_this_machine_hold_nothing_and_those_of_another_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let Keeper::Store(store) = &place.keeper else {
            panic!("a folder is a store");
        };
        let mut dead = Heartbeat::mine();
        dead.began = "1".to_owned();
        put(&**store, &place.object(), &dead);
        let began = Instant::now();
        place.free("").unwrap();
        assert!(began.elapsed() < LEASE / 2);
        dead.boot = "another machine".to_owned();
        put(&**store, &place.object(), &dead);
        let began = Instant::now();
        place.free("").unwrap();
        assert!(began.elapsed() >= LEASE);
    }

    #[test]
    fn whoever_was_overtaken_leaves_the_other_ones_heartbeat() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let lease = place.take().unwrap();
        let Keeper::Store(store) = &place.keeper else {
            panic!("a folder is a store");
        };
        let mut other = Heartbeat::mine();
        other.host = "elsewhere".to_owned();
        put(&**store, &place.object(), &other);
        drop(lease);
        assert_eq!(
            place.holder().unwrap().who,
            format!("process {} on elsewhere", other.process)
        );
    }
}
