//! The configuration of a job: its plan, its workers, its services and its limits.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Result;
use crate::exchange::Engine;
use crate::plan::ir::Job;

/// How many workers, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// This many worker threads in this process alone.
    Threads(usize),
    /// This process is one of several, which [`Sockets`] connect.
    Cluster {
        /// Worker threads in each process.
        threads: usize,
        /// Which of them this process is, from 0.
        process: usize,
        /// How many there are.
        processes: usize,
    },
}

impl Workers {
    /// Worker threads of this process.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self {
            Workers::Threads(threads) | Workers::Cluster { threads, .. } => *threads,
        }
    }

    /// Processes of the job.
    #[must_use]
    pub fn processes(&self) -> usize {
        match self {
            Workers::Threads(_) => 1,
            Workers::Cluster { processes, .. } => *processes,
        }
    }

    /// This process's index among them.
    #[must_use]
    pub fn process(&self) -> usize {
        match self {
            Workers::Threads(_) => 0,
            Workers::Cluster { process, .. } => *process,
        }
    }
}

/// One connection with each other process of a job, by its index; none at the own one. Nobody else
/// reads or writes them, and whoever is at the other end is the process of that index.
#[derive(Debug)]
pub enum Sockets {
    /// The processes themselves at the other ends.
    Tcp(Vec<Option<TcpStream>>),
    /// Somebody of this process at the other ends, who carries what goes through them.
    Unix(Vec<Option<UnixStream>>),
}

/// Waits for the other processes of a job; none when the job was stopped meanwhile.
pub type Connect<'a> = Box<dyn FnOnce() -> Result<Option<Sockets>> + 'a>;

/// Limits of a job; every queue has one (invariant 7).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Least time between two epochs.
    pub epoch_interval_min: Duration,
    /// Epochs released and not yet durable in the sink.
    pub epochs_in_flight_max: usize,
    /// Bytes of the records of those epochs, less those of the last one.
    pub bytes_in_flight_max: usize,
    /// Decoded rows of a source that one worker holds back waiting for their epoch.
    pub rows_waiting_max: usize,
    /// Bytes of the records that those rows came in.
    pub bytes_waiting_max: usize,
    /// Time between a checkpoint and the next, while there is anything new.
    pub checkpoint_interval: Duration,
    /// How often topics are looked at for partitions that were added, and for being others.
    pub topics_look_every: Duration,
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
        }
    }
}

/// What a job needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The job's name: names its journal and its frontier rows.
    pub name: String,
    /// What to keep up to date.
    pub plan: Job,
    /// Log URL, see [`tidemill_log::log::open`].
    pub log: String,
    /// Registry URL, see [`tidemill_log::registry::open`]; only for Avro.
    pub registry: Option<String>,
    /// Where journal and checkpoints are kept, see [`crate::store::open`].
    pub state: String,
    /// Sink URL, see [`crate::sink::open`].
    pub sink: String,
    /// Topic of the dead letters.
    pub dead_letters: String,
    /// How many workers, and where.
    pub workers: Workers,
    /// How rows cross to other processes; see [`Engine::permitted`].
    pub codec: Engine,
    /// The generation that was minted for this run ([`crate::journal::mint`]); without one the
    /// job takes the next itself.
    pub generation: Option<u64>,
    /// Whether tables that another job filled are taken from it, and filled anew; else they are
    /// refused.
    pub take_over: bool,
    /// Limits.
    pub limits: Limits,
}
