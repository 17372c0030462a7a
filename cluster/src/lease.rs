//! The lease of a pipeline: which process runs it now, so that a second one that was started by
//! mistake is refused and the first goes on.
//!
//! Flows in: the store or the database that the process is about to use. Flows out: a heartbeat
//! there for as long as the process runs, or the process that has one already.
//!
//! ```text
//! first    put ── put ── put ── put ──►            an object NAME/running/PART, every 2 s
//! second      get ── get: it changed               refused: the first is alive
//! second (the first is dead)
//!             get ── get ── … 8 s … ── get         the same object for 8 s: nobody is there
//! ```
//!
//! Invariants:
//! 1. No clocks of two machines are compared: a heartbeat that changes is alive, one that does not
//!    for [`LEASE`] is dead. On the same machine the process table tells at once.
//! 2. The heartbeat protects people from a mistake and nothing else: what an overtaken process
//!    still tries is refused by the journal's generation and by PostgreSQL's lock.
//! 3. A process removes only its own heartbeat, and stops when another one took its place.
//!
//! The capture from PostgreSQL needs no object: the advisory lock of its session is the lease, and
//! the server sees its heartbeat.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidemill_dataflow::store::{self, Store};
use tidemill_ingest::capture;

use crate::exit::Held;
use crate::output;

/// How long a heartbeat may stay the same until its process counts as dead.
const LEASE: Duration = Duration::from_secs(8);
/// Time between two heartbeats.
const RENEW: Duration = Duration::from_secs(2);
/// Time between two looks at another process's heartbeat.
const LOOK: Duration = Duration::from_millis(250);
/// A process that has ended may be seen for so long.
const ENDS_MAX: Duration = Duration::from_secs(1);
/// PostgreSQL ends a silent session after [`LEASE`]; this much later it has.
const SERVER_GRACE: Duration = Duration::from_secs(2);

/// Which half of a pipeline a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Dataflow,
    Ingest,
}

impl Half {
    fn name(self) -> &'static str {
        match self {
            Half::Dataflow => "dataflow",
            Half::Ingest => "ingest",
        }
    }
}

/// Where the lease of one half is kept.
pub(crate) struct Place {
    pipeline: String,
    half: Half,
    keeper: Keeper,
}

enum Keeper {
    /// Heartbeats of processes of this program, as objects.
    Store(Arc<dyn Store>),
    /// The lock of the capture's session, by the database's URL.
    Server(String),
}

/// A process's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Heartbeat {
    host: String,
    process: u32,
    since_ms: u64,
    /// Which kernel, which of its process tables, and when the process began there: what tells it
    /// from another one of its number.
    boot: String,
    table: String,
    began: String,
    /// Grows.
    beat: u64,
}

/// Whoever holds the lease now.
struct Holder {
    /// `process 12 on host a`.
    who: String,
    since_ms: u64,
    /// Changes as long as it lives.
    sign: String,
    /// Whether it lives, where that can be told at once.
    lives: Option<bool>,
}

/// A held lease; given back when it is dropped.
pub(crate) struct Lease {
    /// Closing it ends the thread.
    ending: Option<Sender<()>>,
    renewing: Option<thread::JoinHandle<()>>,
}

impl Place {
    /// The lease of the dataflow, in the store at `state`.
    ///
    /// # Errors
    /// When the URL names no store.
    pub(crate) fn dataflow(pipeline: &str, state: &str) -> anyhow::Result<Self> {
        Ok(Self {
            pipeline: pipeline.to_owned(),
            half: Half::Dataflow,
            keeper: Keeper::Store(store::open(state)?),
        })
    }

    /// The lease of the ingest, in its database.
    ///
    /// # Errors
    /// When the embedded file cannot be opened.
    pub(crate) fn ingest(pipeline: &str, database: &str) -> anyhow::Result<Self> {
        let keeper = match database.starts_with("sqlite://") {
            true => Keeper::Store(store::open(database)?),
            false => Keeper::Server(database.to_owned()),
        };
        Ok(Self {
            pipeline: pipeline.to_owned(),
            half: Half::Ingest,
            keeper,
        })
    }

    /// Waits until it is known that no other process holds the lease: at most [`LEASE`].
    ///
    /// # Errors
    /// [`Held`] when one does; `instead` says what to do about it. When the store or the database
    /// is away nobody can tell: then there is nothing to protect from, and no error.
    pub(crate) fn free(&self, instead: &str) -> anyhow::Result<()> {
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
                half: self.half.name(),
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
            // A session that is just ending may still move.
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

    fn say_waiting(&self, holder: &Holder) {
        output::log(&format!(
            "the {} of `{}` was last run by {}, since {}; waiting for at most {} s to see whether \
             it is still there\n",
            self.half.name(),
            self.pipeline,
            holder.who,
            since(holder.since_ms),
            LEASE.as_secs()
        ));
    }

    /// Takes the lease, whoever has it.
    ///
    /// # Errors
    /// When there is no thread for the heartbeats.
    pub(crate) fn take(&self) -> anyhow::Result<Lease> {
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

    fn object(&self) -> String {
        object(&self.pipeline, self.half)
    }

    /// Whoever holds it; none when nobody does, or nobody can tell.
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
            // It only waits for the store; a panic of it has ended the process.
            let _ended = renewing.join();
        }
    }
}

/// The heartbeat's object.
fn object(pipeline: &str, half: Half) -> String {
    format!("{pipeline}/running/{}", half.name())
}

fn stored(store: &dyn Store, name: &str) -> tidemill_ingest::Result<Option<Holder>> {
    let Some(bytes) = store.get(name)? else {
        return Ok(None);
    };
    // What cannot be read is of a version that nobody knows: what it does decides.
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

fn capturing(url: &str, pipeline: &str) -> tidemill_ingest::Result<Option<Holder>> {
    let holder = capture::holder(url, pipeline)?;
    Ok(holder.map(|holder| Holder {
        who: holder.who,
        since_ms: holder.since_ms,
        sign: holder.sign,
        lives: None,
    }))
}

fn put(store: &dyn Store, name: &str, heartbeat: &Heartbeat) {
    let Ok(bytes) = serde_json::to_vec(heartbeat) else {
        return;
    };
    if let Err(error) = store.put(name, bytes) {
        tracing::debug!(%error, "no heartbeat");
    }
}

/// Whether another process's heartbeat is there.
fn is_anothers(store: &dyn Store, name: &str, mine: &Heartbeat) -> bool {
    let there = store.get(name).ok().flatten();
    let there = there.and_then(|bytes| serde_json::from_slice::<Heartbeat>(&bytes).ok());
    there.is_some_and(|there| !there.is_of(mine))
}

impl Heartbeat {
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

    fn is_of(&self, other: &Self) -> bool {
        let who = |it: &Self| (it.host.clone(), it.process, it.since_ms, it.boot.clone());
        who(self) == who(other)
    }

    /// Whether its process lives, if it is one of this machine.
    fn lives(&self) -> Option<bool> {
        let here = !self.boot.is_empty()
            && self.boot == read("/proc/sys/kernel/random/boot_id")
            && !self.table.is_empty()
            && self.table == process_table();
        here.then(|| began(self.process).is_some_and(|began| began == self.began))
    }
}

fn read(file: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().to_owned()
}

/// Which table of processes this one is in: containers have their own.
fn process_table() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid");
    link.map_or_else(|_| String::new(), |link| link.display().to_string())
}

/// When a process began, in ticks since the boot; none when it is dead.
fn began(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    let stat = stat.ok()?;
    // The name, in parentheses, may hold anything; the state is the first field behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let dead = matches!(fields.first(), Some(&"Z" | &"X"));
    fields.get(19).filter(|_| !dead).map(|it| (*it).to_owned())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

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

    fn place(folder: &Path) -> Place {
        Place::dataflow("users", &format!("file://{}", folder.display())).unwrap()
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
