//! What the processes of a cluster say to each other: worker to master, master to worker, worker
//! to the child that runs its part of a job, and what everybody may ask the master.
//!
//! Flows in and out as JSON: over HTTP between a worker, a client and the master, as lines on the
//! child's stdin and stdout. Only data; who says what when is in `master` and `worker`.
//!
//! Both directions tell a state, not an event: a report says all that a worker has, orders say all
//! that it shall have. So a message that is lost, late, doubled or overtaken does no harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names a worker from its start to its end: a worker that is started again is another one.
pub(crate) type WorkerId = String;

/// Which half of a pipeline a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// One process that takes no slot.
    Ingest,
    /// One or more processes that share their fate.
    Dataflow,
}

impl Part {
    /// As the commands and the logs have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dataflow => "dataflow",
        }
    }
}

/// One process of a job in one generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ProcessKey {
    pub(crate) job: String,
    pub(crate) part: Part,
    /// Of the dataflow it is the journal's generation. Strictly increasing for a job's part.
    pub(crate) generation: u64,
    /// From 0, below [`ProcessAssignment::processes`].
    pub(crate) index: usize,
}

/// A job as it was submitted. Holds no secret: those are in the workers' environments and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    /// The pipeline's name.
    pub(crate) name: String,
    /// The files of the pipeline's folder, by name relative to it.
    pub(crate) files: BTreeMap<String, String>,
    /// Connections by the name of their flag (`kafka`, `cassandra`, …), without passwords.
    pub(crate) connections: BTreeMap<String, String>,
    /// Worker threads of the dataflow over all processes.
    pub(crate) workers: usize,
    /// With too few slots wait for more, rather than run with fewer workers.
    pub(crate) wait_for_slots: bool,
    /// Whether the cluster also runs the ingest.
    pub(crate) ingest: bool,
    /// Further flags of the ingest and of the dataflow, by name (`api`, `every`,
    /// `checkpoint-every`).
    pub(crate) flags: BTreeMap<String, String>,
}

/// All that a worker has, told once a second and whenever it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) worker: WorkerId,
    /// Rises with each report of one worker: an overtaken one is dropped.
    pub(crate) sequence: u64,
    /// What people call it: its `--name`, by default `HOST-PID`.
    pub(crate) name: String,
    /// Where its own HTTP server answers: logs and metrics.
    pub(crate) http: String,
    /// Worker threads that it offers.
    pub(crate) slots: usize,
    pub(crate) version: String,
    pub(crate) processes: Vec<ProcessReport>,
}

/// One child of a worker. One that ended is told until no order names it any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessReport {
    pub(crate) key: ProcessKey,
    pub(crate) phase: Phase,
    /// What it said last of itself.
    pub(crate) beat: Option<Heartbeat>,
}

/// How far a child is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Started, and not heard of yet.
    Started,
    /// Other processes of the job reach it here; it waits for their addresses.
    Listening { address: String },
    /// Its part runs: it is connected with all others.
    Live,
    /// It ended.
    Exited(Exit),
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The exit code; none when a signal ended it. See `exit` for what each means.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The worker killed it since it said nothing for too long.
    pub(crate) frozen: bool,
    /// Indices of processes that it could not reach or lost.
    pub(crate) unreachable: Vec<usize>,
    /// When, in milliseconds since 1970-01-01T00:00:00Z by the worker's clock.
    pub(crate) at_ms: u64,
    /// The last lines of its log.
    pub(crate) tail: Vec<String>,
}

/// All that a worker shall have. A child that is not in it is to be killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The master's generation: orders of an older master than was heard already are dropped.
    pub(crate) master: u64,
    /// Rises whenever the orders of this worker change; a worker waits for one above its own.
    pub(crate) version: u64,
    pub(crate) processes: Vec<ProcessAssignment>,
}

/// One child that a worker shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessAssignment {
    pub(crate) key: ProcessKey,
    pub(crate) spec: JobSpec,
    /// Worker threads of each process.
    pub(crate) threads: usize,
    /// Processes of the part.
    pub(crate) processes: usize,
    /// What they know each other by: hexadecimal digits, new in each generation.
    pub(crate) secret: String,
    /// Where all of them listen, by index; none until all do.
    pub(crate) peers: Option<Vec<String>>,
    /// It shall complete its epochs, take a checkpoint and end.
    pub(crate) drain: bool,
}

/// A line from a worker to its child. End of file means that the worker is gone: the child ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToChild {
    /// The first line of all.
    Begin {
        key: ProcessKey,
        threads: usize,
        processes: usize,
        secret: String,
        /// Where it shall listen for the others: an address of this machine without a port.
        host: String,
    },
    /// Where all processes listen, by index. Not told to an ingest, nor to a process that is alone.
    Peers { addresses: Vec<String> },
    /// Complete the epochs in flight, take a checkpoint and end.
    Drain,
}

/// A line from a child to its worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FromChild {
    /// `host:port` where it listens for the others. Not told when it is alone.
    Listening { address: String },
    /// Its part runs.
    Live,
    /// Twice a second from the first line on, also before it is live: it is not frozen.
    #[serde(rename = "beat")]
    Heartbeat(Box<Heartbeat>),
    /// Processes that it could not reach or lost; it ends now.
    Unreachable { indices: Vec<usize> },
}

/// What a process says of itself. All times and epochs in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heartbeat {
    /// Where its HTTP server answers.
    pub(crate) http: String,
    /// What it does or waits for, in words, when it is not simply running.
    pub(crate) doing: Option<String>,
    /// Records read from the log, or published to it by an ingest.
    pub(crate) records: u64,
    /// Bytes of those records.
    pub(crate) bytes: u64,
    pub(crate) dead_letters: u64,
    /// Keys whose newest change could not be published or decoded: their rows are in no view.
    pub(crate) keys_in_error: u64,
    /// The last epoch that is bound, 0 before the first (process 0).
    pub(crate) bound: u64,
    /// The last epoch that every view shows, 0 before the first (process 0).
    pub(crate) durable: u64,
    /// The epoch of the last checkpoint, 0 without one (process 0).
    pub(crate) checkpointed: u64,
    /// Records in the log that are not in every view yet, by topic and partition (process 0).
    pub(crate) behind: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Since when the oldest change waits that is known of and is not in every view, or, of an
    /// ingest, not in the log; or since when nobody can tell. None when nothing waits.
    pub(crate) waits_since_ms: Option<u64>,
    /// Whether it could be asked what waits: of the log, or of an ingest the database.
    pub(crate) lag_known: bool,
    /// The services that the process uses.
    pub(crate) dependencies: Vec<DependencyStatus>,
    /// What an ingest noticed of captured tables last, newest last.
    pub(crate) noticed: Vec<NoticedStatus>,
    /// Commit to readable over the last seconds (process 0).
    pub(crate) freshness_p50_ms: Option<u64>,
    pub(crate) freshness_p99_ms: Option<u64>,
    /// Rows of each view in this process's workers, at the last moments: each moment is the epoch
    /// that all that was counted is before.
    pub(crate) rows: BTreeMap<u64, BTreeMap<String, i64>>,
    /// Operators of this process's workers, those that took most time first, at most
    /// [`OPERATORS_TOLD_MAX`].
    pub(crate) operators: Vec<OperatorHeartbeat>,
}

/// A change of a captured table that was noticed in the catalog, as no stream tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NoticedStatus {
    pub(crate) at_ms: u64,
    /// Which table, what was noticed, and what is done about it.
    pub(crate) what: String,
}

/// How many operators a beat tells of.
pub(crate) const OPERATORS_TOLD_MAX: usize = 50;

/// What one operator of a view did and holds, over this process's workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OperatorHeartbeat {
    pub(crate) name: String,
    /// Time spent in it since the start, in microseconds.
    pub(crate) busy_us: u64,
    /// Rows of its arrangements; none when it has none.
    pub(crate) rows: Option<i64>,
    /// Bytes of its arrangements, about.
    pub(crate) bytes: Option<i64>,
}

/// A service that a process uses, or all processes of a job together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DependencyStatus {
    /// What it is used for: `api`, `database`, `slot`, `log`, `registry`, `state` or `views`.
    pub(crate) dependency: String,
    /// What it is: `Kafka`, `PostgreSQL`, …
    pub(crate) engine: String,
    /// Where it is.
    pub(crate) at: String,
    /// `up`, `down`, or `unknown` while nobody has heard of it.
    pub(crate) state: String,
    /// Since when.
    pub(crate) since_ms: u64,
    /// The last error, also when it is up again.
    pub(crate) error: Option<String>,
}

impl DependencyStatus {
    pub(crate) fn is_down(&self) -> bool {
        self.state == "down"
    }

    /// For people: what is waited for, since when, and why.
    pub(crate) fn told(&self, now_ms: u64) -> String {
        let seconds = now_ms.saturating_sub(self.since_ms) / 1000;
        let (engine, dependency, state) = (&self.engine, &self.dependency, &self.state);
        let why = self.error.as_deref().unwrap_or("no answer");
        format!("{engine} ({dependency}) is {state} since {seconds} s: {why}")
    }
}

/// Everything at a glance: `GET /v1/status`, `tidemill status --json`, and the status page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) master: MasterStatus,
    pub(crate) workers: Vec<WorkerStatus>,
    pub(crate) jobs: Vec<JobStatus>,
}

/// The master.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MasterStatus {
    pub(crate) generation: u64,
    pub(crate) version: String,
    pub(crate) started_ms: u64,
    pub(crate) now_ms: u64,
}

/// A worker of the roster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerStatus {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) http: String,
    pub(crate) slots: usize,
    pub(crate) slots_used: usize,
    /// Milliseconds since its last report.
    pub(crate) silent_ms: u64,
    pub(crate) version: String,
}

/// A job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JobStatus {
    pub(crate) name: String,
    /// `running`, `degraded`, `starting`, `waiting`, `draining`, `restarting`, `stopped` or
    /// `failed`. It runs when its views are live and everything that feeds them is up; it is
    /// degraded when they are live and something is not.
    pub(crate) state: String,
    /// Why it is in that state, or what is not as it was asked for.
    pub(crate) why: Option<String>,
    pub(crate) generation: u64,
    /// Generations that ended by themselves since it was last submitted or restarted by hand.
    pub(crate) restarts: u64,
    /// Workers asked for, and that run.
    pub(crate) workers_wanted: usize,
    pub(crate) workers: usize,
    /// The last epoch that every view shows, 0 before the first.
    pub(crate) epoch: u64,
    /// How long the oldest change that is known of has waited, captured or not, or how long nobody
    /// could tell; 0 when nothing waits, none when nothing runs that would know.
    pub(crate) lag_ms: Option<u64>,
    /// Records in the log that are not in every view yet; none when nobody knows.
    pub(crate) behind: Option<u64>,
    /// The services that its processes use.
    pub(crate) dependencies: Vec<DependencyStatus>,
    pub(crate) freshness_p50_ms: Option<u64>,
    pub(crate) freshness_p99_ms: Option<u64>,
    pub(crate) records: u64,
    pub(crate) records_per_second: f64,
    pub(crate) dead_letters: u64,
    /// Keys whose newest change could not be published or decoded: their rows are in no view.
    #[serde(default)]
    pub(crate) keys_in_error: u64,
    pub(crate) checkpointed: u64,
    pub(crate) ingest: Option<IngestStatus>,
    /// Rows of each view, all of one epoch; empty while the processes have none in common.
    pub(crate) views: BTreeMap<String, i64>,
    pub(crate) operators: Vec<OperatorHeartbeat>,
    pub(crate) processes: Vec<ProcessStatus>,
    /// How generations ended, newest first.
    pub(crate) failures: Vec<Failure>,
}

/// The ingest of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IngestStatus {
    pub(crate) state: String,
    pub(crate) why: Option<String>,
    pub(crate) restarts: u64,
    pub(crate) published: u64,
    pub(crate) published_per_second: f64,
    /// What it noticed of captured tables last, newest last.
    pub(crate) noticed: Vec<NoticedStatus>,
}

/// A process of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessStatus {
    pub(crate) part: Part,
    pub(crate) index: usize,
    /// The name of the worker that runs it.
    pub(crate) worker: String,
    pub(crate) phase: Phase,
    pub(crate) http: String,
}

/// How a generation ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    pub(crate) generation: u64,
    pub(crate) at_ms: u64,
    /// The process that failed first, in words: `process 1 on node2`.
    pub(crate) process: String,
    /// What happened to it: `killed by signal 9`, `ended with 101`, `its worker is gone`.
    pub(crate) what: String,
    /// The last lines of its log.
    pub(crate) tail: Vec<String>,
}
