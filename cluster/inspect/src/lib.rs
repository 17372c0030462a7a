//! What only the processes of a job can see (`tidemill-inspect`): topics and their messages,
//! schemas, the replication slot, the rows of views, and dead letters.
//!
//! In: requests over HTTP. Out: JSON, read from the job's own services at the time of the request.
//! The process has the connections of its job; a master that passes requests on has none of them.
//!
//! Everything that is asked for belongs to the job: its topics, its subjects, its views. Services
//! are connected to at the first request that needs them. A request is bounded in records, bytes
//! and time, and [`REQUESTS_MAX`](routes::REQUESTS_MAX) of them run at a time.
//!
//! | route below `/api/v1/jobs/{job}` | answer |
//! |---|---|
//! | `GET /topics`, `/topics/{topic}` | [`topics`]: partitions, offsets, sizes, rates |
//! | `GET /topics/{topic}/messages` | [`messages`]: records, decoded |
//! | `GET /schemas`, `/schemas/{subject}` … | [`schemas`]: versions, differences, readers |
//! | `GET /capture` | [`capture`]: slot, retained WAL, snapshot |
//! | `GET /plan` | [`plan`]: sources, views, their operators |
//! | `GET /runs` | [`runs`]: the pages of the ingest's ledger |
//! | `POST /fetching/{request}` | [`runs::requests`]: pause, resume, fetch now, backfill |
//! | `GET /views/{view}/rows` | [`rows`]: rows of the view's table |
//! | `POST /views/{view}/verify`, `GET /verification` | [`verified`]: is a table right? |
//! | `GET /dead-letters`, `/dead-letters/{number}` | [`letters`]: grouped reasons, one letter |
//! | `POST /dead-letters/replay` | [`letters::replay`]: letters put back |

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tidemill_config::connections::Connections;
use tidemill_config::disk::{self, Disk};
use tidemill_config::pipeline::Folder;
use tidemill_dataflow::job;
use tidemill_ingest::stats;
use tidemill_ir::Job;
use tidemill_log::Result;
use tidemill_log::health::Health;
use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use tidemill_sinks::Sink;

mod capture;
mod decoded;
pub mod letters;
mod messages;
mod plan;
mod refusal;
mod routes;
mod rows;
mod runs;
mod schemas;
mod topics;
mod verified;

pub use refusal::Refusal;
pub use routes::{PATHS, is_of_ingest, routes};

/// One job, as a process of it can see it.
pub struct Inspected {
    /// The job's name, which a request must name in its path.
    name: String,
    /// The pipeline.
    folder: Folder,
    /// The services of the pipeline.
    connections: Connections,
    /// The counters of the dataflow, if it runs in this process.
    dataflow: Option<Arc<job::Stats>>,
    /// The counters of the ingest, if it runs in this process.
    ingest: Option<Arc<stats::Stats>>,
    /// The clients, each once it was needed.
    opened: Mutex<Opened>,
    /// The slot at earlier requests.
    slot: Mutex<capture::Seen>,
    /// The sizes of the records of topics at earlier requests.
    sizes: Mutex<topics::Sizes>,
    /// The newest verification of a view.
    verification: verified::Kept,
}

/// An [`Inspected`] that is set once the process knows its connections.
///
/// Until then requests are answered with "the process starts".
pub type Later = Arc<OnceLock<Inspected>>;

/// Clients that were opened, and the plan.
#[derive(Default)]
struct Opened {
    log: Option<Arc<dyn Log>>,
    registry: Option<Arc<dyn Registry>>,
    sink: Option<Arc<dyn Sink>>,
    plan: Option<Arc<Job>>,
}

impl fmt::Debug for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected")
            .field("name", &self.name)
            .finish()
    }
}

impl Inspected {
    /// The job `name` of a pipeline, with the counters of what runs in this process. Connects to
    /// nothing yet.
    pub fn new(
        name: &str,
        folder: &Folder,
        connections: &Connections,
        dataflow: Option<&Arc<job::Stats>>,
        ingest: Option<&Arc<stats::Stats>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            folder: folder.clone(),
            connections: connections.clone(),
            dataflow: dataflow.cloned(),
            ingest: ingest.cloned(),
            opened: Mutex::default(),
            slot: Mutex::default(),
            sizes: Mutex::default(),
            verification: verified::Kept::default(),
        }
    }

    /// The fullest disk of those that hold the job's state and embedded files.
    pub fn disk(&self) -> Option<Disk> {
        disk::fullest(&self.connections)
    }

    /// The log.
    fn log(&self) -> Result<Arc<dyn Log>> {
        let open = || tidemill_log::log::open(&self.connections.log);
        once(&mut locked(&self.opened).log, open)
    }

    /// The schema registry.
    fn registry(&self) -> Result<Arc<dyn Registry>> {
        let open = || tidemill_log::registry::open(&self.connections.registry);
        once(&mut locked(&self.opened).registry, open)
    }

    /// The sinks that serve the views of the plan.
    fn sink(&self, plan: &Job) -> Result<Arc<dyn Sink>> {
        let Connections { sink, sinks, .. } = &self.connections;
        let open = || tidemill_sinks::open_all(sink, sinks, plan, &Health::default());
        once(&mut locked(&self.opened).sink, open)
    }

    /// The plan of the job; `None` for a pipeline without views.
    fn plan(&self) -> std::result::Result<Option<Arc<Job>>, Refusal> {
        if let Some(plan) = &locked(&self.opened).plan {
            return Ok(Some(Arc::clone(plan)));
        }
        let Some(views) = self.folder.views_if_any()? else {
            return Ok(None);
        };
        let registry = self.registry()?;
        let plan = Arc::new(views.compile(Some(registry.as_ref()))?);
        locked(&self.opened).plan = Some(Arc::clone(&plan));
        Ok(Some(plan))
    }
}

/// The client in `kept`, which is opened if it is the first time.
fn once<T: ?Sized>(
    kept: &mut Option<Arc<T>>,
    open: impl FnOnce() -> Result<Arc<T>>,
) -> Result<Arc<T>> {
    match kept {
        Some(client) => Ok(Arc::clone(client)),
        none => Ok(Arc::clone(none.insert(open()?))),
    }
}

/// The value of a mutex, also after a panic of another thread: the values here are whole at any
/// time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
