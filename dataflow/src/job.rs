//! A job: one plan, run by the workers of one or more processes ([`crate::host`] runs it).

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Result;
use crate::exchange::Engine;
use crate::journal::Offsets;
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
    /// Limits.
    pub limits: Limits,
}

/// What a view holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// Rows.
    pub rows: i64,
    /// How often rows were withheld: another row had the same primary key, or theirs held null.
    pub conflicts: u64,
}

/// What the job did so far in this process, for the terminal and the metrics.
#[derive(Debug)]
pub struct Stats {
    /// Records read from the log.
    pub records: AtomicU64,
    /// Records put aside as dead letters.
    pub dead_letters: AtomicU64,
    /// The last epoch bound in the journal (worker 0's process).
    pub bound: AtomicU64,
    /// The last epoch durable in every view of the sink (worker 0's process).
    pub durable: AtomicU64,
    /// The offsets that epoch ends at (worker 0's process).
    pub durable_ends: Mutex<Offsets>,
    /// By view name, this process's workers together.
    pub views: Mutex<BTreeMap<String, ViewStats>>,
    /// Milliseconds from a record's timestamp (the source's commit) to its epoch being durable in
    /// every view (worker 0's process; one sample for each batch's oldest and newest record).
    pub freshness_ms: Mutex<Histogram<u64>>,
    /// The epoch of the checkpoint that this run began with, 0 without one (worker 0's process).
    pub restored: AtomicU64,
    /// The epoch of the last checkpoint, 0 without one (worker 0's process).
    pub checkpointed: AtomicU64,
    /// True while epochs of an earlier run are replayed.
    pub replaying: AtomicBool,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            durable_ends: Mutex::default(),
            views: Mutex::default(),
            // 1 ms to 1 hour, two significant digits; cannot fail for these constants.
            freshness_ms: Mutex::new(
                Histogram::new_with_bounds(1, 3_600_000, 2)
                    .unwrap_or_else(|_| unreachable!("constant bounds")),
            ),
            restored: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            replaying: AtomicBool::new(false),
        }
    }
}

pub use crate::host::run;
