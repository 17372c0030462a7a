//! The mesh: authenticated connections between the processes of one job, one between each two.
//!
//! In: the addresses of all processes, the identity of this one, and the secret that they share.
//! Out: connected sockets for timely, or which processes could not be reached.
//!
//! * The process with the higher index connects (`reach`); the one with the lower index accepts
//!   (`listen`).
//! * Both prove that they know the secret, and that they belong to the same job, generation,
//!   program and size (`handshake`, `hello`).
//! * The listener stays open as long as the process lives. It refuses everybody else, which is
//!   logged and disturbs nothing (`refusal`).
//!
//! Invariants:
//! 1. Timely gets only sockets on which both sides completed the handshake. All bytes after the
//!    handshake are timely's.
//! 2. A connection ends when the other machine has not answered for some seconds (`socket`).
//! 3. Strangers hold at most `limits::PENDING_MAX` connections, each for at most
//!    `limits::HANDSHAKE_MAX`, and keep no process of the job out.
//!
//! ```text
//! listen() ─► port() ─► the master tells all addresses
//!   ─► connect(), in the background ─► formed() ─► take() ─► timely
//! ```
//!
//! Without a mesh of its own, timely would accept any connection on its port, and would not notice
//! a process of another generation.

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

use self::refusal::Refusals;
use self::roster::Roster;
use self::shared::Shared;
use self::tls::Tls;

pub use self::credentials::{Credentials, MeshArgs};
pub use self::hello::{Identity, program};
pub(crate) use self::shared::Unreachable;

/// Timeout of [`Mesh::formed`] for processes that a master started.
pub const CONNECTED_MAX: Duration = Duration::from_secs(30);
/// Backlog of the listening socket: connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Limit of threads that copy bytes between timely and TLS.
const CARRIERS_MAX: usize = 4;
/// How long [`Mesh::drained`] waits for the last bytes over TLS.
const LAST_WORDS_MAX: Duration = Duration::from_secs(3);
/// Time between two log lines about the processes that are missing.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often a waiting thread checks whether all processes are connected, or a stop was asked for.
const LOOK: Duration = Duration::from_millis(10);

impl std::error::Error for Unreachable {}

/// The mesh of this process. Dropping it ends the listener and all pending handshakes.
pub struct Mesh {
    /// The runtime of listener, connectors and TLS.
    runtime: Option<Runtime>,
    /// What the listener and the connectors share.
    shared: Arc<Shared>,
    /// The address of the listening socket.
    address: SocketAddr,
}

impl Mesh {
    /// Starts the listener: processes with higher indices can connect from now on.
    ///
    /// # Errors
    ///
    /// The socket cannot listen, or no thread can be started.
    pub fn listen(
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

    /// The port on which the mesh listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connects to all processes with lower indices in the background. `addresses` are `host:port`
    /// by index.
    pub fn connect(&self, addresses: &[String]) {
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

    /// Waits until all processes are connected. Returns false if `stop` was set before.
    ///
    /// # Errors
    ///
    /// `Unreachable` names the processes that are missing after `patience`.
    pub fn formed(&self, patience: Duration, stop: &AtomicBool) -> Result<bool, Unreachable> {
        let all = |roster: &Roster| roster.missing().is_empty().then_some(());
        let deadline = Instant::now() + patience;
        self.wait(Some(deadline), stop, all)
            .map(|all| all.is_some())
    }

    /// Waits until all processes are connected and hands the connections over. `None` if `stop` was
    /// set before. A connection that ended meanwhile, for example because a process was started
    /// again, is made again.
    pub fn take(&self, stop: &AtomicBool) -> Option<Sockets> {
        // Without a deadline this cannot fail.
        self.wait(None, stop, Roster::take).unwrap_or_default()
    }

    /// Polls `ready` until it returns a value, `stop` is set, or the deadline passes.
    ///
    /// # Errors
    /// [`Unreachable`] after the deadline.
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

    /// Waits until the last bytes of timely have been sent over TLS, for at most
    /// `LAST_WORDS_MAX`.
    ///
    /// Without TLS there is nothing to wait for, because timely writes to the sockets itself. The
    /// process would otherwise end while the copying tasks still hold bytes.
    pub fn drained(&self) {
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
