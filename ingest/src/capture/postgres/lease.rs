//! The right to capture with a slot: an advisory lock, held by the session that progress is kept
//! on.
//!
//! A server and a slot's name flow in; the session flows out, to whoever holds the lock.
//!
//! Invariants:
//! 1. At most one process holds the lease of a slot: the server gives its lock to one session.
//! 2. A process that stands still, or whose machine is gone, loses it within [`LEASE`]: the server
//!    ends a session that says nothing for so long. A thread here speaks every [`RENEW`], so one
//!    that moves keeps the lease, whatever its other threads wait for. No clocks are compared.
//! 3. What is written on the session is written by the holder of the lock: one that lost it has no
//!    session any more. Each write is one statement, so none waits for a process that stands still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

use super::{catalog, progress, sql_error};
use crate::capture::Holder;
use crate::capture::mark::Place;
use crate::database::{LEASE, RENEW};
use crate::server::{CONNECT_WAIT, Server};
use crate::{Error, Kind, Result};

/// How long the end of a session that still reads the slot is waited for.
const EVICT_WAIT: Duration = Duration::from_secs(5);

/// A held lease; given back when it is dropped.
pub(in crate::capture) struct Lease {
    slot: String,
    session: Arc<Mutex<Client>>,
    renewing: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease of a slot; an error of kind `Fence` when another process has it.
    pub(super) fn take(server: &Server, slot: &str) -> Result<Self> {
        let mut client = server.connect()?;
        progress::check_server(&mut client)?;
        Self::lock(client, slot)
    }

    /// The same for whoever does not capture, from any server.
    pub(in crate::capture) fn hold(server: &Server, slot: &str) -> Result<Self> {
        Self::lock(server.connect()?, slot)
    }

    fn lock(mut client: Client, slot: &str) -> Result<Self> {
        let failed = |error| sql_error(format!("locking slot `{slot}`"), error);
        // Before the lock, so that no session holds it without an end.
        client
            .batch_execute(&format!(
                "SET idle_session_timeout = {};
                 SET application_name = {}",
                LEASE.as_millis(),
                catalog::quote(&own_name())
            ))
            .map_err(failed)?;
        // What asks for progress to be written down names the slot.
        client
            .batch_execute(&format!("LISTEN {slot}"))
            .map_err(failed)?;
        let locked: bool = client
            .query_one(
                "SELECT pg_try_advisory_lock(hashtext('tidemill'), hashtext($1))",
                &[&slot],
            )
            .map_err(failed)?
            .get(0);
        if !locked {
            let what =
                format!("another process captures with slot `{slot}`; waiting for it to end");
            return Err(Error::new(Kind::Fence, what));
        }
        let session = Arc::new(Mutex::new(client));
        let renewed = Arc::downgrade(&session);
        let renewing = std::thread::Builder::new()
            .name("tidemill-lease".into())
            .spawn(move || renew(&renewed))
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for the lease", error))?;
        Ok(Self {
            slot: slot.to_owned(),
            session,
            renewing,
        })
    }

    /// The session that holds the lock. Nobody renews the lease while this is borrowed, so only for
    /// as long as the server is asked something.
    pub(in crate::capture) fn session(&self) -> MutexGuard<'_, Client> {
        lock(&self.session)
    }

    /// Up to which LSN progress was asked for since this was called last, if it was.
    pub(super) fn asked(&self) -> Option<u64> {
        let mut session = self.session();
        let mut notifications = session.notifications();
        let mut all = notifications.iter();
        let mut asked = None;
        // A session that is lost is noticed elsewhere.
        while let Ok(Some(notification)) = all.next() {
            match notification.payload().parse() {
                Ok(Place::Lsn(lsn)) => asked = asked.max(Some(lsn)),
                _ => tracing::debug!(payload = notification.payload(), "not an LSN"),
            }
        }
        asked
    }

    /// Asks the server whether the session that took the lock is still there, and so has it.
    pub(super) fn check(&self) -> Result<()> {
        self.session().is_valid(CONNECT_WAIT).map_err(|error| {
            let what = format!("slot `{}` may be another process's now", self.slot);
            Error::with_source(Kind::Retry, what, error)
        })
    }

    /// Whether it is known already that the session is gone, or that nobody renews it.
    pub(super) fn is_lost(&self) -> bool {
        self.renewing.is_finished()
    }

    /// A refusal is for a person, unless it is told to a process that lost the lease: another one
    /// works on the slot meanwhile.
    pub(super) fn judge<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if error.kind() == Kind::Data => Err(match self.check() {
                Ok(()) => error,
                Err(lost) => lost,
            }),
            other => other,
        }
    }

    /// Ends the session that still reads the slot: it is of a process that lost the lease, or one
    /// of ours whose end the server did not see yet.
    pub(in crate::capture) fn evict(&self) -> Result<()> {
        let slot = &self.slot;
        let deadline = Instant::now() + EVICT_WAIT;
        let mut told = None;
        loop {
            let evicted = self.session().query_opt(
                "SELECT active_pid, pg_terminate_backend(active_pid) FROM pg_replication_slots
                 WHERE slot_name = $1 AND active_pid IS NOT NULL",
                &[slot],
            );
            let evicted = evicted.map_err(|error| {
                // Another role's session cannot be ended, only waited for.
                let error = sql_error(format!("slot `{slot}` is still read"), error);
                Error::with_source(Kind::Retry, error.to_string(), error)
            })?;
            let Some(pid) = evicted.map(|row| row.get::<_, i32>(0)) else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                let what = format!("slot `{slot}` is still read by the server's process {pid}");
                return Err(Error::new(Kind::Retry, what));
            }
            if told.replace(pid) != Some(pid) {
                tracing::warn!(slot, pid, "ending the session that still reads the slot");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What begins the name of a session that holds a lease.
const NAMED: &str = "tidemill capture, ";
/// Bytes of a session's name that PostgreSQL keeps.
const NAME_BYTES_MAX: usize = 63;

/// The name of this process's session.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut name = format!("{NAMED}process {} on {}", std::process::id(), host.trim());
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

/// Who holds the lease of a slot.
pub(in crate::capture) fn holder(server: &Server, slot: &str) -> Result<Option<Holder>> {
    let failed = |error| sql_error(format!("asking who captures with slot `{slot}`"), error);
    // Of other roles' sessions the server may tell nothing but their numbers.
    let row = server
        .connect()?
        .query_opt(
            "SELECT it.pid, it.application_name, coalesce(it.client_addr::text, 'this machine'),
                    (extract(epoch FROM it.backend_start) * 1000)::bigint,
                    coalesce(it.state_change::text, '')
             FROM pg_locks AS lock JOIN pg_stat_activity AS it USING (pid)
             WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 2
               AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND lock.classid::bigint = hashtext('tidemill')::bigint & 4294967295
               AND lock.objid::bigint = hashtext($1)::bigint & 4294967295",
            &[&slot],
        )
        .map_err(failed)?;
    Ok(row.map(|row| {
        let (pid, address): (i32, String) = (row.get(0), row.get(2));
        let name: Option<String> = row.get(1);
        let name = name.and_then(|name| name.strip_prefix(NAMED).map(str::to_owned));
        Holder {
            who: name.unwrap_or_else(|| {
                format!("a process that PostgreSQL serves as its process {pid}, from {address}")
            }),
            since_ms: row.get::<_, Option<i64>>(3).unwrap_or(0).unsigned_abs(),
            sign: format!("{pid} {}", row.get::<_, String>(4)),
        }
    }))
}

fn lock(session: &Mutex<Client>) -> MutexGuard<'_, Client> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Speaks on the session until the lease is given back or lost.
fn renew(session: &Weak<Mutex<Client>>) {
    loop {
        std::thread::sleep(RENEW);
        let Some(session) = session.upgrade() else {
            return;
        };
        if let Err(error) = lock(&session).is_valid(CONNECT_WAIT) {
            tracing::warn!(%error, "the lease of the slot is lost");
            return;
        }
    }
}
