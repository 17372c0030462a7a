//! Protocol of a cluster: the messages between workers, the master, child processes and clients.
//!
//! ```text
//! tidemill worker ──POST …/report: Report─────────────► tidemill master
//!                 ◄─────────────────────Assignment─────   (also by long poll: GET …/orders)
//! tidemill worker ──stdin: a line of ToChild──────────► tidemill dataflow, tidemill ingest
//!                 ◄────────stdout: a line of FromChild─
//! tidemill status ──GET /api/v1/status────────────────► tidemill master: Status
//! ```
//!
//! All messages are JSON: over HTTP between workers, clients and the master, and as lines on a
//! child's stdin and stdout. This module contains only data. The modules `master`, `worker` and
//! `assignment` send and receive the messages.
//!
//! Reports and assignments carry whole states and not events: a report contains everything that a
//! worker has, and an assignment everything that it shall have (desired state). Therefore a message
//! that is lost, late, duplicated or overtaken does no harm.

pub mod api;
pub mod exit;
pub mod output;
pub mod redact;
mod state;
pub mod token;
pub mod urls;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use state::JobState;

/// Identifies a worker process from its start to its end. A worker that is started again has
/// another id.
pub type WorkerId = String;

/// The kind of a component: ingest or dataflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// One process, which takes no slot.
    Ingest,
    /// One or more processes, which fail together.
    Dataflow,
}

impl Part {
    /// The word in commands and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dataflow => "dataflow",
        }
    }
}

/// Identifies one process of a job in one generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The job's name.
    pub job: String,
    /// The component.
    pub part: Part,
    /// The journal's generation for a dataflow; the master's count for an ingest. Strictly
    /// increasing for each component of a job.
    pub generation: u64,
    /// 0 up to, and not including, [`ProcessAssignment::processes`].
    pub index: usize,
}

/// The definition of a job, as submitted. Contains no secret: passwords are in the environment and
/// files of the workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The pipeline's name.
    pub name: String,
    /// The files of the pipeline's folder, by name relative to it.
    pub files: BTreeMap<String, String>,
    /// Connections by the name of their flag (`kafka`, `cassandra`, …), without passwords.
    pub connections: BTreeMap<String, String>,
    /// Worker threads of the dataflow over all processes.
    pub workers: usize,
    /// Whether to wait when slots are missing. Otherwise the job runs with fewer workers.
    pub wait_for_slots: bool,
    /// Whether the cluster also runs the ingest.
    pub ingest: bool,
    /// Further flags of the ingest and of the dataflow, by name (`api`, `every`,
    /// `checkpoint-every`).
    pub flags: BTreeMap<String, String>,
}

/// Worker to master, once a second and at each change: everything that the worker has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The id of the worker that reports.
    pub worker: WorkerId,
    /// Rises with each report of a worker. The master drops a report that a newer one overtook.
    pub sequence: u64,
    /// The worker's name for people: `--name`, by default `HOST-PID`.
    pub name: String,
    /// The URL of the worker's own HTTP server, for logs and metrics.
    pub http: String,
    /// Worker threads that the worker offers.
    pub slots: usize,
    /// The worker's version of Tidemill.
    pub version: String,
    /// All children, also those that ended and are still assigned.
    pub processes: Vec<ProcessReport>,
}

/// One child of a worker. A child that ended is reported until no assignment names it any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// The process.
    pub key: ProcessKey,
    /// How far the process is.
    pub phase: Phase,
    /// The newest heartbeat of the child.
    pub beat: Option<Heartbeat>,
}

/// The progress of a child: Started, Listening (not if it is alone), Live, Exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The process was started, and has reported neither of the following.
    Started,
    /// The child listens at `address` (`host:port`) for the other processes, and waits for their
    /// addresses.
    Listening {
        /// The address, as `host:port`.
        address: String,
    },
    /// The component runs in this child, connected to all other processes.
    Live,
    /// The process ended.
    Exited(Exit),
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; `None` when a signal ended the child. The module `exit` lists the codes.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the worker killed the child because it sent nothing for too long.
    pub frozen: bool,
    /// Indices of processes that the child could not reach or lost.
    pub unreachable: Vec<usize>,
    /// When the child ended, in ms since 1970-01-01T00:00:00Z by the worker's clock.
    pub at_ms: u64,
    /// The last lines of the child's log.
    pub tail: Vec<String>,
}

/// Master to worker: everything that the worker shall run. The worker kills children that are not
/// in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The master's generation. A worker drops an assignment of an older master than it already
    /// heard.
    pub master: u64,
    /// Rises whenever this worker's assignment changes. A worker's long poll waits for a version
    /// above its own.
    pub version: u64,
    /// The children that the worker shall have.
    pub processes: Vec<ProcessAssignment>,
}

/// One child that a worker shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessAssignment {
    /// The process.
    pub key: ProcessKey,
    /// The definition with which the generation was started.
    pub spec: JobSpec,
    /// Worker threads in each process of the generation.
    pub threads: usize,
    /// The number of processes of the generation.
    pub processes: usize,
    /// The secret of the generation's mesh: hexadecimal digits, new in each generation.
    pub secret: String,
    /// The addresses of all processes by index; `None` until all listen.
    pub peers: Option<Vec<String>>,
    /// Whether the child shall complete its epochs, take a checkpoint and end.
    pub drain: bool,
}

/// Worker to child, one line on stdin. End of file means that the worker is gone, and the child
/// ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToChild {
    /// The first line: who the child is.
    Begin {
        /// The process.
        key: ProcessKey,
        /// Worker threads in each process.
        threads: usize,
        /// The number of processes of the generation.
        processes: usize,
        /// The secret of the generation's mesh.
        secret: String,
        /// The address of this machine, without a port, at which the child shall listen for other
        /// processes.
        host: String,
    },
    /// The addresses of all processes by index. Not sent to an ingest or to a process that is
    /// alone.
    Peers {
        /// The addresses, each as `host:port`.
        addresses: Vec<String>,
    },
    /// Complete the epochs in flight, take a checkpoint and end.
    Drain,
}

/// Child to worker, one line on stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromChild {
    /// `host:port` at which the child listens for other processes. Not sent by a process that is
    /// alone.
    Listening {
        /// The address, as `host:port`.
        address: String,
    },
    /// The component runs.
    Live,
    /// Sent twice a second from the first line on, also before the child is live, to show that the
    /// child is not frozen.
    #[serde(rename = "beat")]
    Heartbeat(Box<Heartbeat>),
    /// The processes that the child could not reach or lost. The child ends now.
    Unreachable {
        /// The indices of these processes.
        indices: Vec<usize>,
    },
}

/// What a process tells of itself with each heartbeat. All times and epochs are in ms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// The URL of the process's HTTP server; empty while there is none.
    pub http: String,
    /// What the process does or waits for, in words, unless it simply runs.
    pub doing: Option<String>,
    /// Records read from the log, or published to the log by an ingest, since the start.
    pub records: u64,
    /// Bytes of those records.
    pub bytes: u64,
    /// Dead letters since the start.
    pub dead_letters: u64,
    /// Keys in error: keys whose newest change could not be published or decoded. Their rows are in
    /// no view.
    pub keys_in_error: u64,
    /// The newest epoch that is bound, 0 before the first (process 0 only).
    pub bound: u64,
    /// The newest epoch that every view shows, 0 before the first (process 0 only).
    pub durable: u64,
    /// The epoch of the newest checkpoint, 0 without one (process 0 only).
    pub checkpointed: u64,
    /// Records in the log that are not in every view yet, by topic and partition (process 0 only).
    pub behind: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Since when the oldest known change waits that is not in every view or, for an ingest, not in
    /// the log; or since when nobody can tell. `None` when nothing waits.
    pub waits_since_ms: Option<u64>,
    /// Whether the log, or for an ingest the database, could be asked what waits.
    pub lag_known: bool,
    /// The services that the process uses.
    pub dependencies: Vec<DependencyStatus>,
    /// What an ingest last noticed of captured tables in the catalog, newest last.
    pub noticed: Vec<NoticedStatus>,
    /// Bytes of WAL that PostgreSQL keeps for the slot of an ingest; `None` when nobody knows.
    #[serde(default)]
    pub wal_kept: Option<u64>,
    /// Since when the fetching of an ingest is paused; `None` while it is not.
    #[serde(default)]
    pub paused_ms: Option<u64>,
    /// Free bytes of the fullest disk that holds state or embedded files of the job; `None` when
    /// nobody knows, or everything is elsewhere.
    #[serde(default)]
    pub disk_free: Option<u64>,
    /// Bytes of the whole disk.
    #[serde(default)]
    pub disk_size: Option<u64>,
    /// The median time from commit to readable over the last seconds (process 0 only).
    pub freshness_p50_ms: Option<u64>,
    /// The 99th percentile of the same.
    pub freshness_p99_ms: Option<u64>,
    /// The 99.9th percentile of the same.
    pub freshness_p999_ms: Option<u64>,
    /// Rows that were written to the sink, since the start.
    #[serde(default)]
    pub sink_rows: u64,
    /// Writes to the sink that have begun and are not durable yet.
    #[serde(default)]
    pub sink_pending: u64,
    /// The median time until a write to the sink is durable, over the last seconds, in ms.
    #[serde(default)]
    pub sink_p50_ms: Option<u64>,
    /// The 99th percentile of the same.
    #[serde(default)]
    pub sink_p99_ms: Option<u64>,
    /// Rows of each view that this process's workers keep, at the last few epochs. The count at an
    /// epoch contains everything before that epoch.
    pub rows: BTreeMap<u64, BTreeMap<String, i64>>,
    /// The operators of this process's workers, the most expensive first, at most
    /// [`OPERATORS_TOLD_MAX`].
    pub operators: Vec<OperatorHeartbeat>,
}

/// A change of a captured table that an ingest noticed in the catalog, because no change stream
/// reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoticedStatus {
    /// When, in ms.
    pub at_ms: u64,
    /// The table, what was noticed, and what the ingest does about it.
    pub what: String,
}

/// Limit of operators in a heartbeat.
pub const OPERATORS_TOLD_MAX: usize = 50;

/// Cost and state of one operator of a view, over the workers of one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorHeartbeat {
    /// The operator's name.
    pub name: String,
    /// Time spent in the operator since the start, in µs.
    pub busy_us: u64,
    /// Rows in the operator's arrangements; `None` when it has none.
    pub rows: Option<i64>,
    /// Approximate bytes of the operator's arrangements.
    pub bytes: Option<i64>,
    /// Time spent in the operator by each worker thread of one process, in µs; empty in the sums
    /// over several processes.
    pub threads_us: Vec<u64>,
}

/// The state of a service, as one process or all processes of a job see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DependencyStatus {
    /// The use of the service: `api`, `database`, `slot`, `log`, `registry`, `state` or `views`.
    pub dependency: String,
    /// The kind of the service: `Kafka`, `PostgreSQL`, …
    pub engine: String,
    /// The address of the service.
    pub at: String,
    /// `up`, `down`, or `unknown` while no process has reported about it.
    pub state: String,
    /// When the current state began, in ms.
    pub since_ms: u64,
    /// The last error, kept also after the service is up again.
    pub error: Option<String>,
}

impl DependencyStatus {
    /// Whether the service is down.
    pub fn is_down(&self) -> bool {
        self.state == "down"
    }

    /// One line for people: the service, its state, since when, and why.
    pub fn told(&self, now_ms: u64) -> String {
        let seconds = now_ms.saturating_sub(self.since_ms) / 1000;
        let (engine, dependency, state) = (&self.engine, &self.dependency, &self.state);
        let why = self.error.as_deref().unwrap_or("no answer");
        format!("{engine} ({dependency}) is {state} since {seconds} s: {why}")
    }
}

/// The status of a cluster: `GET /api/v1/status`, `tidemill status --json`, and the control
/// center.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The master that answers.
    pub master: MasterStatus,
    /// The workers that are present.
    pub workers: Vec<WorkerStatus>,
    /// All jobs, by name.
    pub jobs: Vec<JobStatus>,
}

/// The status of the master.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MasterStatus {
    /// Counts masters; not the generation of a job.
    pub generation: u64,
    /// The version of Tidemill.
    pub version: String,
    /// When the master started, and its current time, in ms.
    pub started_ms: u64,
    /// The current time, in ms since 1970.
    pub now_ms: u64,
}

/// The status of a worker that is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// The worker's id.
    pub id: WorkerId,
    /// The name.
    pub name: String,
    /// The URL of the worker's HTTP server.
    pub http: String,
    /// Slots offered, and in use by dataflows.
    pub slots: usize,
    /// Slots in use by dataflows.
    pub slots_used: usize,
    /// Time since the worker's last report, in ms.
    pub silent_ms: u64,
    /// The version of Tidemill.
    pub version: String,
    /// Whether somebody drained the worker: it gets no processes any more.
    pub drained: bool,
}

/// The status of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// The name.
    pub name: String,
    /// The state of the whole job.
    pub state: JobState,
    /// The reason for the state, or what differs from what was asked for.
    pub why: Option<String>,
    /// The generation of the job's journal.
    pub generation: u64,
    /// Generations of the dataflow that failed since the job was last submitted or restarted by
    /// hand.
    pub restarts: u64,
    /// Worker threads that were asked for, and that run.
    pub workers_wanted: usize,
    /// Worker threads that run.
    pub workers: usize,
    /// The newest epoch that every view shows, 0 before the first.
    pub epoch: u64,
    /// Lag in ms: how long the oldest known change has waited, captured or not, or for how long
    /// nobody could tell. 0 when nothing waits; `None` when no process runs that would know.
    pub lag_ms: Option<u64>,
    /// Records in the log that are not in every view yet; `None` when nobody knows.
    pub behind: Option<u64>,
    /// The same by topic; empty when nobody knows.
    pub behind_by_topic: BTreeMap<String, u64>,
    /// The services that the job's processes use.
    pub dependencies: Vec<DependencyStatus>,
    /// Freshness in ms: the median and the 99th percentile of the time from commit to readable.
    pub freshness_p50_ms: Option<u64>,
    /// The 99th percentile of freshness, in ms.
    pub freshness_p99_ms: Option<u64>,
    /// The 99.9th percentile of freshness, in ms.
    pub freshness_p999_ms: Option<u64>,
    /// Records read from the log, and the current rate.
    pub records: u64,
    /// Records read from the log, per second.
    pub records_per_second: f64,
    /// Dead letters so far.
    pub dead_letters: u64,
    /// Keys in error: keys whose newest change could not be published or decoded. Their rows are in
    /// no view.
    #[serde(default)]
    pub keys_in_error: u64,
    /// The epoch of the newest checkpoint, 0 without one.
    pub checkpointed: u64,
    /// Rows that were written to the sink by the current processes.
    pub sink_rows: u64,
    /// Writes to the sink that have begun and are not durable yet.
    pub sink_pending: u64,
    /// The median time until a write to the sink is durable, over the last seconds, in ms.
    pub sink_p50_ms: Option<u64>,
    /// The 99th percentile of the same.
    pub sink_p99_ms: Option<u64>,
    /// Free bytes of the fullest disk that holds state or embedded files of the job; `None` when
    /// nobody knows.
    pub disk_free: Option<u64>,
    /// Bytes of that disk.
    pub disk_size: Option<u64>,
    /// The ingest; `None` for a job without one.
    pub ingest: Option<IngestStatus>,
    /// Rows of each view, all at one epoch; empty while the processes have no epoch in common.
    pub views: BTreeMap<String, i64>,
    /// The most expensive operators over all processes.
    pub operators: Vec<OperatorHeartbeat>,
    /// The processes that workers reported.
    pub processes: Vec<ProcessStatus>,
    /// Rules of the job that fire, as the server knows that evaluates them.
    pub alerts_firing: u64,
    /// The last failures of both components, newest first.
    pub failures: Vec<Failure>,
    /// The text of the pipeline's `alerts.toml`, for the process that evaluates its rules. It is
    /// not sent, because a webhook's URL may be in it.
    #[serde(skip)]
    pub alerts_file: Option<String>,
}

/// The status of a job's ingest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngestStatus {
    /// The state of the ingest alone.
    pub state: JobState,
    /// The reason for the state.
    pub why: Option<String>,
    /// Generations that failed since the job was last submitted or restarted by hand.
    pub restarts: u64,
    /// Records published to the log by the current process, and the current rate.
    pub published: u64,
    /// Records published per second.
    pub published_per_second: f64,
    /// What the ingest last noticed of captured tables, newest last.
    pub noticed: Vec<NoticedStatus>,
    /// Bytes of WAL that PostgreSQL keeps for the slot; `None` when nobody knows.
    #[serde(default)]
    pub wal_kept: Option<u64>,
    /// Since when fetching is paused, in ms; `None` while it is not.
    #[serde(default)]
    pub paused_ms: Option<u64>,
}

/// The status of one process of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The component.
    pub part: Part,
    /// Its index in the generation.
    pub index: usize,
    /// The name of the worker that runs the process.
    pub worker: String,
    /// How far the process is.
    pub phase: Phase,
    /// The URL of the process's HTTP server; empty while it has none.
    pub http: String,
    /// Records read from the log, or published to it, since the process started.
    #[serde(default)]
    pub records: u64,
    /// The operators of this process alone, the most expensive first.
    #[serde(default)]
    pub operators: Vec<OperatorHeartbeat>,
}

/// How a generation failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// The generation that failed.
    pub generation: u64,
    /// When the failed process ended, in ms by its worker's clock; the master's when no exit was
    /// reported.
    pub at_ms: u64,
    /// The root cause: the process that failed first, in words, as in `process 1 on node2`.
    pub process: String,
    /// What happened to that process: `killed by signal 9`, `ended with 101`, `its worker is gone`.
    pub what: String,
    /// The last lines of that process's log.
    pub tail: Vec<String>,
}
