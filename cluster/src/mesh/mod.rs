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
//! 3. Whatever strangers do, they hold [`limits::PENDING_MAX`] connections at most, each for
//!    [`limits::HANDSHAKE_MAX`] at most, and no process out.

mod credentials;
mod handshake;
mod hello;
mod limits;
mod listen;
mod reach;
mod refusal;
mod roster;
mod shared;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::SockRef;
use tidemill_dataflow::job::Sockets;
use tokio::runtime::{Builder, Runtime};

pub(crate) use self::credentials::{Credentials, MeshArgs};
pub(crate) use self::hello::{Identity, program};
use self::refusal::Refusals;
use self::roster::Roster;
use self::shared::Shared;
pub(crate) use self::shared::Unreachable;
use self::tls::Tls;

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
