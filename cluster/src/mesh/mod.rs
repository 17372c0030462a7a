//! The mesh: one connection between each two processes of a job, and nobody else's.
//!
//! Flows in: where all processes listen, who this one is, and the secret that they share. Flow out:
//! connected sockets for timely, or which processes could not be reached. The process with the
//! higher index connects ([`reach`]), the one with the lower lets it in ([`listen`]); both prove
//! that they know the secret, and that they are of the same job, generation, program and size
//! ([`hello`]). The listener stays open as long as the process lives and refuses whoever else
//! comes, which is logged and disturbs nothing.
//!
//! Invariants:
//! 1. A socket that timely gets was proved by both sides in this meeting; all of it that follows
//!    the handshake is timely's.
//! 2. What is connected ends when the other machine is unreachable for some seconds ([`socket`]).
//! 3. Whatever strangers do, they hold [`listen::PENDING_MAX`] connections at most, each for
//!    [`HANDSHAKE_MAX`] at most, and no process out.

mod credentials;
mod handshake;
mod hello;
mod listen;
mod reach;
mod refusal;
mod roster;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::SockRef;
use tidemill_dataflow::job::Sockets;
use tokio::runtime::{Builder, Runtime};

pub(crate) use self::credentials::{Credentials, MeshArgs};
use self::hello::Secret;
pub(crate) use self::hello::{Identity, program};
use self::refusal::Refusals;
use self::roster::Roster;
use self::tls::Tls;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long processes that a master started may take to be connected.
pub(crate) const CONNECTED_MAX: Duration = Duration::from_secs(30);
/// Connections that the system accepts and that wait for their handshake to begin.
const BACKLOG: i32 = 1024;
/// Threads that carry a mesh over TLS.
const CARRIERS_MAX: usize = 4;
/// How long the last words over TLS may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(3);
/// Time between two words about who is waited for.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How soon it is seen that all are there, or a stop.
const LOOK: Duration = Duration::from_millis(10);

/// What listener and connectors share.
struct Shared {
    me: Identity,
    secret: Secret,
    tls: Option<Tls>,
    roster: Arc<Roster>,
    refusals: Refusals,
    /// Why each process was not reached, by index.
    troubles: Mutex<BTreeMap<usize, String>>,
}

impl Shared {
    fn trouble(&self, index: usize, why: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(index, why.to_owned());
    }

    /// Which processes are missing, and why as far as that is known.
    fn unreachable(&self, missing: Vec<usize>) -> Unreachable {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let each = missing.iter().map(|index| match troubles.get(index) {
            Some(why) if *index < self.me.process => format!("process {index} {why}"),
            _ => format!("process {index} did not connect"),
        });
        Unreachable {
            why: each.collect::<Vec<_>>().join("; "),
            indices: missing,
        }
    }
}

/// Processes of the job that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreachable {
    pub(crate) indices: Vec<usize>,
    why: String,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not all processes of the job can be reached: {}",
            self.why
        )
    }
}

impl std::error::Error for Unreachable {}

/// This process's part of the mesh.
pub(crate) struct Mesh {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Mesh {
    /// Lets the processes with higher indices in from now on.
    pub(crate) fn listen(
        listener: TcpListener,
        me: Identity,
        credentials: Credentials,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("where the mesh listens")?;
        // More than the standard library asks for.
        SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let threads = match credentials.tls {
            Some(_) => me.processes.saturating_sub(1).clamp(1, CARRIERS_MAX),
            None => 1,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("mesh")
            .enable_io()
            .enable_time()
            .build()
            .context("the mesh's threads")?;
        let shared = Arc::new(Shared {
            roster: Arc::new(Roster::new(me.process, me.processes)),
            me,
            secret: credentials.secret,
            tls: credentials.tls,
            refusals: Refusals::default(),
            troubles: Mutex::default(),
        });
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(entered);
        runtime.spawn(listen::listen(listener, Arc::clone(&shared)));
        Ok(Self {
            runtime: Some(runtime),
            shared,
            address,
        })
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connects with all others in the background, now that it is known where each listens.
    pub(crate) fn connect(&self, addresses: &[String]) {
        let Some(runtime) = &self.runtime else { return };
        let lower = addresses.iter().take(self.shared.me.process);
        for (index, address) in lower.enumerate() {
            runtime.spawn(reach::reach(
                index,
                address.clone(),
                Arc::clone(&self.shared),
            ));
        }
    }

    /// Waits until all processes are there; false when stopped before.
    pub(crate) fn formed(
        &self,
        patience: Duration,
        stop: &AtomicBool,
    ) -> Result<bool, Unreachable> {
        let all = |roster: &Roster| roster.missing().is_empty().then_some(());
        let deadline = Instant::now() + patience;
        self.wait(Some(deadline), stop, all)
            .map(|all| all.is_some())
    }

    /// The connections, when all processes are there; none when stopped before. One that ended
    /// until now is made again, as when a process was started anew.
    pub(crate) fn take(&self, stop: &AtomicBool) -> Option<Sockets> {
        // Without a deadline nobody is given up.
        self.wait(None, stop, Roster::take).unwrap_or_default()
    }

    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        stop: &AtomicBool,
        ready: impl Fn(&Roster) -> Option<T>,
    ) -> Result<Option<T>, Unreachable> {
        let roster = &self.shared.roster;
        let mut said: Option<Instant> = None;
        while !stop.load(Relaxed) {
            if let Some(ready) = ready(roster) {
                tracing::info!("all processes of the job are connected");
                return Ok(Some(ready));
            }
            let missing = roster.missing();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.shared.unreachable(missing));
            }
            if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                tracing::info!(?missing, "waiting for all processes of the job");
                said = Some(Instant::now());
            }
            std::thread::sleep(LOOK);
        }
        Ok(None)
    }

    /// Returns when what timely said last has been sent.
    pub(crate) fn drained(&self) {
        let deadline = Instant::now() + LAST_WORDS_MAX;
        let done = || self.shared.tls.as_ref().is_none_or(Tls::is_done);
        while !done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
