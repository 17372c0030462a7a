//! Configuration of a job: its plan, its workers, its services and its limits.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidemill_ir::Job;
use tidemill_log::Result;

use crate::exchange::Engine;

/// The number of workers of a job, and the processes that they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// This many worker threads, in this process alone.
    Threads(usize),
    /// This process is one of several, which are connected by [`Sockets`].
    Cluster {
        /// Worker threads in each process.
        threads: usize,
        /// The index of this process, from 0.
        process: usize,
        /// The number of processes.
        processes: usize,
    },
}

impl Workers {
    /// The number of worker threads of this process.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self {
            Workers::Threads(threads) | Workers::Cluster { threads, .. } => *threads,
        }
    }

    /// The number of processes of the job.
    #[must_use]
    pub fn processes(&self) -> usize {
        match self {
            Workers::Threads(_) => 1,
            Workers::Cluster { processes, .. } => *processes,
        }
    }

    /// The index of this process, from 0.
    #[must_use]
    pub fn process(&self) -> usize {
        match self {
            Workers::Threads(_) => 0,
            Workers::Cluster { process, .. } => *process,
        }
    }
}

/// One connection with each other process of a job, by the process's index; `None` at the own
/// index. Only timely reads and writes the connections. The process at the other end has been
/// authenticated.
#[derive(Debug)]
pub enum Sockets {
    /// Direct connections with the other processes.
    Tcp(Vec<Option<TcpStream>>),
    /// Connections with threads of this process, which carry the bytes to the other processes
    /// (TLS).
    Unix(Vec<Option<UnixStream>>),
}

/// Blocks until all processes of the job are connected; `None` if the job was stopped in the
/// meantime.
pub type Connect<'a> = Box<dyn FnOnce() -> Result<Option<Sockets>> + 'a>;

/// The limits of a job. Every queue has a limit (architecture invariant 7).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Shortest time between two epochs. Default: 5 ms.
    pub epoch_interval_min: Duration,
    /// Most epochs that are released and not yet durable in the sink. Default: 64.
    pub epochs_in_flight_max: usize,
    /// No epoch is bound while the records of the epochs in flight have this many bytes or more.
    /// The last epoch may exceed it. Default: 64 MiB.
    pub bytes_in_flight_max: usize,
    /// Most decoded rows of a source that one worker holds back until their epoch is bound.
    /// Default: 200,000.
    pub rows_waiting_max: usize,
    /// Most bytes of the records that those rows came from. Default: 32 MiB.
    pub bytes_waiting_max: usize,
    /// Time between two checkpoints, as long as there is anything new. Default: 10 s.
    pub checkpoint_interval: Duration,
    /// How often topics are checked for added partitions, and for having been recreated. Default: 5
    /// s.
    pub topics_look_every: Duration,
    /// Most iterations of a recursion. Rows of a later iteration become dead letters. Default:
    /// 10,000.
    pub iterations_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            epoch_interval_min: Duration::from_millis(5),
            epochs_in_flight_max: 64,
            bytes_in_flight_max: 64 << 20,
            rows_waiting_max: 200_000,
            bytes_waiting_max: 32 << 20,
            checkpoint_interval: Duration::from_secs(10),
            topics_look_every: Duration::from_secs(5),
            iterations_max: 10_000,
        }
    }
}

/// What a job needs to run. The same in all processes of the job, except the process's index.
#[derive(Debug, Clone)]
pub struct Config {
    /// The job's name. The journal, the checkpoints and the frontier rows are stored under it.
    pub name: String,
    /// The views to maintain, and their sources.
    pub plan: Job,
    /// The log's URL; see [`tidemill_log::log::open`].
    pub log: String,
    /// The registry's URL; see [`tidemill_log::registry::open`]. Only Avro needs it.
    pub registry: Option<String>,
    /// The state store's URL, for the journal and the checkpoints; see
    /// [`tidemill_state::store::open`].
    pub state: String,
    /// The URL of the sink of views that name none; see [`tidemill_sinks::open`].
    pub sink: String,
    /// The URLs of the sinks that views name, by name; see [`tidemill_sinks::open_all`].
    pub sinks: BTreeMap<String, String>,
    /// The topic of the dead letters.
    pub dead_letters: String,
    /// The number of workers, and the processes that they are in.
    pub workers: Workers,
    /// The codec of rows between processes; see [`Engine::permitted`].
    pub codec: Engine,
    /// The generation that was minted for this run ([`tidemill_state::journal::mint`]). Without one
    /// the job takes the next generation itself.
    pub generation: Option<u64>,
    /// Whether a table that another job filled is taken over and filled again. If not, such a table
    /// ends the start with an error.
    pub take_over: bool,
    /// The limits.
    pub limits: Limits,
}
