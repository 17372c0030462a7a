//! The command `dataflow`, and the parts that `run` shares with it: compile the job as soon as the
//! schemas of its tables are known, then run it.
//!
//! One process of several is started by hand with the list of all processes, or by a worker
//! (`--orders`, see [`tidemill_protocol::Assignment`]). It connects to the others over the mesh
//! ([`tidemill_mesh`]) before it runs.
//!
//! ```text
//! by hand:  flags ─► lease (process 0) ─► HTTP ─► mesh ─► plan ─► job
//! ordered:  Begin ─► heartbeats ─► mesh: Listening ─► Peers ─► Live ─► plan ─► job
//! ```

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tidemill_config::args::{DataflowArgs, StateArgs};
use tidemill_config::connections::Connections;
use tidemill_config::lease::Lease;
use tidemill_config::pipeline::{Folder, Views};
use tidemill_config::{lease, probe};
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job;
use tidemill_dataflow::job::{Config, Connect, Limits, Stats, Workers};
use tidemill_inspect::Inspected;
use tidemill_ir::Job;
use tidemill_log::log::dead_letter::topic_of;
use tidemill_log::{Kind, registry};
use tidemill_logs::logging;
use tidemill_logs::logging::Origin;
use tidemill_mesh::{CONNECTED_MAX, Identity, Mesh};
use tidemill_protocol::exit::PeerLost;
use tidemill_protocol::{FromChild, Part, ProcessKey, exit};
use tidemill_web::readable::{Later, Readable};
use tidemill_web::{self, Shown};

use crate::child;

/// Time between two attempts to compile while a schema is missing.
const AWAIT: Duration = Duration::from_millis(200);

/// Runs the dataflow of a pipeline, alone or as one process of several.
///
/// # Errors
///
/// * [`exit::Usage`] (exit code 2): a flag or a connection is wrong.
/// * [`PeerLost`] (exit code 3): another process of the job cannot be reached, or the worker is
///   gone.
/// * [`exit::Held`] (exit code 5): another process runs the dataflow (only process 0 checks).
/// * The pipeline or a service is wrong, or the job failed (exit code 1).
pub(crate) fn run(args: &DataflowArgs) -> anyhow::Result<()> {
    if args.orders {
        return run_ordered(args);
    }
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let hosts = args.hosts.resolve()?;
    let origin = Origin {
        job: Some(&folder.name),
        part: "dataflow",
        process: args.hosts.process,
        generation: None,
    };
    logging::start(&args.log, "info", &origin)?;
    exit::exit_on_panic();
    let listener = hosts.listen()?;
    let stop = exit::stop_on_signal()?;
    let views = folder.views()?;
    let mut one = Process {
        name: folder.name.clone(),
        views,
        connections,
        workers: hosts.workers.clone(),
        generation: None,
        state: args.state.clone(),
        codec: args.codec,
        mesh: None,
        stats: Arc::default(),
        stop,
        take_over: args.take_over,
        lease: None,
    };
    if args.hosts.process == 0 {
        let place = lease::LeaseKey::dataflow(&one.name, &one.connections.state)?;
        if !args.take_over {
            place.free(
                "stop that one first, or start this one with --take-over: then that one ends",
            )?;
        }
        one.lease = Some(place.take()?);
    }
    let alone = ProcessKey {
        job: one.name.clone(),
        part: Part::Dataflow,
        generation: 0,
        index: args.hosts.process,
    };
    let answers = Answers::default();
    tidemill_web::process(&args.http, || shown(alone, &one.stats, &answers))?;
    answers.begin(&one.name, &folder, &one.connections, &one.stats)?;
    if let Some(listener) = listener {
        let credentials = args.mesh.credentials(None)?;
        permit(args.codec, credentials.authenticated)?;
        if !credentials.authenticated && !hosts.are_loopback() {
            tracing::warn!(
                "whoever reaches these addresses can pass for a process of this job: give all of \
                 them the same TIDEMILL_MESH_SECRET, or certificates"
            );
        }
        let mesh = Mesh::listen(listener, one.identity(), credentials)?;
        mesh.connect(&hosts.addresses);
        one.mesh = Some(mesh);
    } else {
        permit(args.codec, true)?;
    }
    one.say_connections();
    one.work()
}

/// Runs one process of a job as the child of a worker. The first line on stdin says how many
/// processes there are and which one this is; a later line has the addresses of all.
///
/// # Errors
/// As for [`run`]. Processes that cannot be reached are told to the worker first, because the
/// master uses them to find the process that failed.
fn run_ordered(args: &DataflowArgs) -> anyhow::Result<()> {
    let stop = exit::stop_on_signal()?;
    let (begin, orders) = child::begin(Part::Dataflow, &stop)?;
    let (stats, answers) = (Arc::default(), Answers::default());
    child::beat(&begin.host, shown(begin.key.clone(), &stats, &answers))?;
    let folder = Folder::open(&args.pipeline)?;
    let connections = Connections::resolve(&args.connections, folder.path())?;
    logging::start(&args.log, "info", &Origin::of(&begin.key))?;
    answers.begin(&begin.key.job, &folder, &connections, &stats)?;
    let ProcessKey {
        job,
        generation,
        index,
        ..
    } = begin.key;
    exit::exit_on_panic();
    exit::on_peer_lost(child::tell_lost);
    let (threads, processes) = (begin.threads, begin.processes);
    let workers = match processes {
        1 => Workers::Threads(threads),
        _ => Workers::Cluster {
            threads,
            process: index,
            processes,
        },
    };
    let mut one = Process {
        name: job,
        views: folder.views()?,
        connections,
        workers,
        generation: Some(generation),
        state: args.state.clone(),
        codec: args.codec,
        mesh: None,
        stats,
        stop,
        take_over: false,
        lease: None,
    };
    if index == 0 {
        // Processes of earlier generations were fenced by the journal's generation, so nothing is
        // checked here.
        one.lease = Some(lease::LeaseKey::dataflow(&one.name, &one.connections.state)?.take()?);
    }
    one.say_connections();
    if processes > 1 {
        let listener = TcpListener::bind((begin.host.as_str(), 0));
        let listener =
            listener.with_context(|| format!("the mesh cannot listen on {}", begin.host))?;
        let credentials = args.mesh.credentials(Some(&begin.secret))?;
        permit(args.codec, credentials.authenticated)?;
        let mesh = Mesh::listen(listener, one.identity(), credentials)?;
        let address = at(&begin.host, mesh.port());
        child::tell(FromChild::Listening { address });
        one.stats.say("waiting for all processes of the job");
        let Some(addresses) = orders.peers(&one.stop)? else {
            return Ok(());
        };
        mesh.connect(&addresses);
        match mesh.formed(CONNECTED_MAX, &one.stop) {
            Ok(true) => one.mesh = Some(mesh),
            Ok(false) => return Ok(()),
            Err(lost) => {
                let indices = lost.indices.clone();
                child::tell_at_last(FromChild::Unreachable { indices });
                return Err(PeerLost(lost.to_string()).into());
            }
        }
    }
    child::tell(FromChild::Live);
    one.work()
}

/// Refuses a codec that trusts the other processes if the mesh is not authenticated.
///
/// # Errors
/// [`exit::Usage`]: the codec needs a secret or certificates.
fn permit(codec: Engine, authenticated: bool) -> anyhow::Result<()> {
    let permitted = codec.permitted(authenticated);
    permitted.map_err(|error| exit::Usage(error.to_string()).into())
}

/// What the HTTP server and the heartbeat show of this process.
///
/// The counters are shared, so the server always shows the current values.
fn shown(key: ProcessKey, stats: &Arc<Stats>, answers: &Answers) -> Shown {
    Shown {
        dataflow: Some(Arc::clone(stats)),
        readable: Arc::clone(&answers.readable),
        inspected: Arc::clone(&answers.inspected),
        ..Shown::of(key)
    }
}

/// What the HTTP server can answer once the connections are known.
#[derive(Default)]
struct Answers {
    /// Whether everything that was committed is in the views.
    readable: Later,
    /// What the job's services hold.
    inspected: tidemill_inspect::Later,
}

impl Answers {
    /// From now on questions are answered.
    ///
    /// # Errors
    /// The pipeline's `ingest.toml` cannot be read.
    fn begin(
        &self,
        name: &str,
        folder: &Folder,
        connections: &Connections,
        stats: &Arc<Stats>,
    ) -> anyhow::Result<()> {
        let readable = Readable::new(name, folder, connections, stats)?;
        let inspected = Inspected::new(name, folder, connections, Some(stats), None);
        // Nobody else sets the values.
        let _ = self.readable.set(readable);
        let _ = self.inspected.set(inspected);
        Ok(())
    }
}

/// `host:port` with an IPv6 address in brackets.
///
/// The form that a mesh address has in messages and flags.
fn at(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// One process of a job.
struct Process {
    /// The job's name.
    name: String,
    /// The text of `views.sql`, which is compiled when the schemas are known.
    views: Views,
    /// The services.
    connections: Connections,
    /// Which process of how many this one is, and its threads.
    workers: Workers,
    /// The generation that a master gave; `None` without a master.
    generation: Option<u64>,
    /// The interval of checkpoints.
    state: StateArgs,
    /// How rows cross to other processes.
    codec: Engine,
    /// The mesh; `None` for a process that is alone.
    mesh: Option<Mesh>,
    /// The counters of this process.
    stats: Arc<Stats>,
    /// Set by a signal or by the worker: end cleanly.
    stop: Arc<AtomicBool>,
    /// Whether tables that another job filled are dropped and filled by this one.
    take_over: bool,
    /// The lease of the whole job; only process 0 holds it.
    lease: Option<Lease>,
}

impl Process {
    /// The identity for the mesh's handshake.
    ///
    /// Processes of another version, other views or another codec would not understand this one's
    /// rows, so they are part of the identity.
    fn identity(&self) -> Identity {
        Identity {
            job: self.name.clone(),
            generation: self.generation.unwrap_or_default(),
            program: tidemill_mesh::program(&[
                env!("CARGO_PKG_VERSION"),
                self.views.sql(),
                self.codec.name(),
            ]),
            process: self.workers.process(),
            processes: self.workers.processes(),
            threads: self.workers.threads(),
        }
    }

    /// Logs the connections, without secrets.
    fn say_connections(&self) {
        for (stage, url) in self.connections.described() {
            tracing::info!(stage, url, "connection");
        }
    }

    /// The plan; `None` when stopped before the schemas were known.
    fn plan(&self) -> anyhow::Result<Option<Job>> {
        let awaited = |what: &str| {
            tracing::info!("waiting: {what}");
            self.stats.say(format!("waiting: {what}"));
        };
        plan_when_ready(&self.views, &self.connections, &self.stop, &awaited)
    }

    /// Runs this process's worker threads as soon as there is a plan and all processes are
    /// connected.
    ///
    /// # Errors
    /// The SQL is wrong, or the job failed.
    fn work(mut self) -> anyhow::Result<()> {
        // The lease is released when this function returns.
        let _lease = self.lease.take();
        probe::dataflow(&self.connections, &self.name, &self.stats.health);
        let Some(plan) = self.plan()? else {
            return Ok(());
        };
        tracing::info!(views = plan.views.len(), workers = ?self.workers, "starting");
        self.stats.say("starting");
        let stats = Arc::clone(&self.stats);
        let config = Config {
            generation: self.generation,
            codec: self.codec,
            take_over: self.take_over,
            ..config(
                &self.name,
                plan,
                &self.connections,
                self.workers,
                &self.state,
            )
        };
        let stop = Arc::clone(&self.stop);
        let connect = self.mesh.as_ref().map(|mesh| -> Connect<'_> {
            let stop = &self.stop;
            Box::new(|| {
                self.stats.say("waiting for the job's other processes");
                let sockets = mesh.take(stop);
                self.stats.say("starting");
                Ok(sockets)
            })
        });
        job::run(config, connect, Arc::clone(&stats), stop)?;
        if let Some(mesh) = &self.mesh {
            mesh.drained();
        }
        let (records, dead_letters) = (&stats.records, &stats.dead_letters);
        let (records, dead_letters) = (records.load(Relaxed), dead_letters.load(Relaxed));
        tracing::info!(records, dead_letters, "stopped");
        Ok(())
    }
}

/// Compiles the plan as soon as the registry has the schemas of all tables. `None` when stopped
/// before. `awaited` is called with what is missing, whenever that changes.
///
/// # Errors
///
/// Any error of another kind than `Retry`, such as invalid SQL.
pub(crate) fn plan_when_ready(
    views: &Views,
    connections: &Connections,
    stop: &AtomicBool,
    awaited: &dyn Fn(&str),
) -> anyhow::Result<Option<Job>> {
    let mut said = String::new();
    let mut registry = None;
    while !stop.load(Relaxed) {
        let planned = match &registry {
            Some(known) => views.compile(Some(Arc::as_ref(known))),
            None => match registry::open(&connections.registry) {
                Ok(opened) => views.compile(Some(Arc::as_ref(registry.insert(opened)))),
                Err(error) => Err(error),
            },
        };
        match planned {
            Ok(plan) => return Ok(Some(plan)),
            Err(error) if error.kind() == Kind::Retry => {
                let what = error.to_string();
                if what != said {
                    awaited(&what);
                    said = what;
                }
            }
            Err(error) => return Err(views.explained(error, &connections.database).into()),
        }
        thread::sleep(AWAIT);
    }
    Ok(None)
}

/// The job's configuration for these connections.
pub(crate) fn config(
    name: &str,
    plan: Job,
    connections: &Connections,
    workers: Workers,
    state: &StateArgs,
) -> Config {
    Config {
        name: name.to_owned(),
        plan,
        log: connections.log.clone(),
        registry: Some(connections.registry.clone()),
        state: connections.state.clone(),
        sink: connections.sink.clone(),
        sinks: connections.sinks.clone(),
        dead_letters: topic_of(name),
        workers,
        codec: Engine::default(),
        generation: None,
        take_over: false,
        limits: Limits {
            checkpoint_interval: state.checkpoint_every,
            ..Limits::default()
        },
    }
}
