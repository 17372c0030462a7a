//! The lease of a replication slot: an advisory lock on the session that records the progress.
//!
//! In: a server and the name of a slot. Out: the session, for the process that holds the lock.
//!
//! ```text
//! process A: lock ─► heartbeat every 2 s ─► … frozen ──────────────┐ wakes up: session gone, stops
//! server:                                     8 s idle: ends the session, releases the lock
//! process B: lock? refused (Fence), retries … ──────────────────► lock ─► evict A's reader ─► slot
//! ```
//!
//! Invariants:
//! 1. At most one process holds the lease of a slot, because the server grants the lock to one
//!    session.
//! 2. A process that is frozen, or whose machine is lost, loses the lease within [`LEASE`]: the
//!    server ends a session that is idle for so long. A thread sends a heartbeat every [`RENEW`],
//!    so a running process keeps the lease, whatever its other threads wait for. No clocks are
//!    compared.
//! 3. Only the holder of the lock writes on the session, because a process that lost the lock has
//!    no session. Each write is a single statement, so none waits for a frozen process.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use tidemill_log::lock;

use super::{catalog, progress, sql_error};
use crate::capture::Holder;
use crate::capture::mark::CommitPosition;
use crate::database::{LEASE, RENEW};
use crate::{Error, Kind, Result};
use tidemill_postgres::{CONNECT_WAIT, Server};

/// How long to wait for the end of a session that still reads the slot.
const EVICT_WAIT: Duration = Duration::from_secs(5);

/// A held lease; released when it is dropped.
pub(in crate::capture) struct Lease {
    /// The slot.
    slot: String,
    /// The session that holds the lock. The heartbeat thread has a weak reference.
    session: Arc<Mutex<Client>>,
    /// The heartbeat thread, which ends when the session is lost.
    renewing: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease of a slot of a server that can be captured.
    ///
    /// # Errors
    /// `Fence` when another process holds it; `Data` when the server's settings do not allow
    /// capture; `Retry` when it cannot be reached.
    pub(super) fn take(server: &Server, slot: &str) -> Result<Self> {
        let mut client = server.connect()?;
        progress::check_server(&mut client)?;
        Self::lock(client, slot)
    }

    /// Takes the lease without a capture, on any server.
    pub(in crate::capture) fn hold(server: &Server, slot: &str) -> Result<Self> {
        Self::lock(server.connect()?, slot)
    }

    /// Takes the lock on a session and starts the heartbeat.
    fn lock(mut client: Client, slot: &str) -> Result<Self> {
        let failed = |error| sql_error(format!("locking slot `{slot}`"), error);
        // Before the lock, so that no session holds it without the timeout.
        client
            .batch_execute(&format!(
                "SET idle_session_timeout = {};
                 SET application_name = {}",
                LEASE.as_millis(),
                catalog::quote(&own_name())
            ))
            .map_err(failed)?;
        // Requests to record the progress are notifications on the channel of the slot's name.
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

    /// The session that holds the lock. The heartbeat waits while it is borrowed, so borrow it only
    /// for a query.
    pub(in crate::capture) fn session(&self) -> MutexGuard<'_, Client> {
        lock(&self.session)
    }

    /// The largest LSN through which progress was requested since the last call, if any.
    pub(super) fn asked(&self) -> Option<u64> {
        let mut session = self.session();
        let mut notifications = session.notifications();
        let mut all = notifications.iter();
        let mut asked = None;
        // A lost session is noticed elsewhere.
        while let Ok(Some(notification)) = all.next() {
            match notification.payload().parse() {
                Ok(CommitPosition::Lsn(lsn)) => asked = asked.max(Some(lsn)),
                _ => tracing::debug!(payload = notification.payload(), "not an LSN"),
            }
        }
        asked
    }

    /// Asks the server whether the session, and so the lock, still exists.
    ///
    /// # Errors
    /// `Retry` when it does not, or the server does not answer.
    pub(super) fn check(&self) -> Result<()> {
        self.session().is_valid(CONNECT_WAIT).map_err(|error| {
            let what = format!("another process may capture with slot `{}` now", self.slot);
            Error::with_source(Kind::Retry, what, error)
        })
    }

    /// Whether the heartbeat has found the session lost.
    pub(super) fn is_lost(&self) -> bool {
        self.renewing.is_finished()
    }

    /// Decides about an error of kind `Data`: if the lease is lost, the cause may be another
    /// process that works on the slot, and the error becomes one of kind `Retry`.
    pub(super) fn retry_if_lost<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if error.kind() == Kind::Data => Err(match self.check() {
                Ok(()) => error,
                Err(lost) => lost,
            }),
            other => other,
        }
    }

    /// Ends the session that still reads the slot: that of a process that lost the lease, or one of
    /// ours whose end the server has not noticed.
    ///
    /// # Errors
    /// `Retry` when the session does not end within 5 s, or belongs to a role that may not be
    /// ended.
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
                // The session of another role cannot be ended; wait for its end.
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

/// Prefix of the application name of a session that holds a lease.
const NAMED: &str = "tidemill capture, ";
/// Longest application name, in bytes; PostgreSQL truncates longer ones (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// The application name of this process's session.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut name = format!("{NAMED}process {} on {}", std::process::id(), host.trim());
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

/// The process that holds the lease of a slot, from `pg_locks` and `pg_stat_activity`.
pub(in crate::capture) fn holder(server: &Server, slot: &str) -> Result<Option<Holder>> {
    let failed = |error| sql_error(format!("asking who captures with slot `{slot}`"), error);
    // Of sessions of other roles the server may show the process id only.
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

/// The heartbeat: sends a query on the session every [`RENEW`], until the lease is dropped or lost.
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
