//! The host: starts timely's workers in this process and runs a job on them until it is stopped.
//!
//! It also evaluates a job through the epochs that are already bound, without changing anything
//! ([`evaluate`]), for `verify`.
//!
//! Processes of timely share fate. After a worker failed, the job does not continue in this
//! process, and [`run`] returns while its threads still hold their capabilities. The caller must
//! then end the process.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tidemill_ir::{Epoch, Format, Job, Source};
use tidemill_log::backoff::{retry, retry_unless};
use tidemill_log::health::engines;
use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use tidemill_log::{Error, Kind, Result, lock};
use tidemill_sinks::{Frontier, Sink, Table, claims};
use tidemill_state::checkpoint::Manifest;
use tidemill_state::checkpoint::writer::{Leading as Committing, Writer, Writing};
use tidemill_state::failure::Failure;
use tidemill_state::journal::{Claim, Journal, Standing, topic_facts};
use tidemill_state::store::Store;
use tidemill_state::store::reporting::Reporting;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Hooks, WorkerGuards};
use timely::worker::Worker;
use timely::{CommunicationConfig, WorkerConfig};

use crate::config::{Config, Connect, Sockets, Workers};
use crate::context::Context;
use crate::epoch::binder::Binder;
use crate::epoch::catch_up::CatchUp;
use crate::epoch::checkpoints::Checkpoints;
use crate::epoch::control::{Control, Told, control};
use crate::epoch::messages::{Added, Command, Held, Start};
use crate::epoch::resume;
use crate::operator;
use crate::runtime::filled_anew;
use crate::runtime::frontier_writer::{Advance, Frontiers, Leading, advance};
use crate::runtime::retyped_sources::Retyped;
use crate::runtime::source_streams::{Services, source_stream};
use crate::source::{registry_watch, topic_watch};
use crate::stats::operators::Meter;
use crate::stats::{Stats, ViewStats};

/// How long a stop waits for the epochs in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stop waits if a worker does not even notice the stop, because the sink is blocked.
const BLOCKED_PATIENCE: Duration = Duration::from_secs(70);
/// Longest time until the thread that started the workers notices a stop.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// Longest time that a worker sleeps if nothing wakes it.
const PARK_MAX: Duration = Duration::from_millis(100);
/// Time between two log lines about the progress of an evaluation.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What the workers of a process share.
struct Shared {
    /// The job's configuration, with its plan.
    config: Config,
    /// The statistics of this process.
    stats: Arc<Stats>,
    /// Set from outside to stop the job.
    stop: Arc<AtomicBool>,
    /// The first error, which ends the job.
    failure: Failure,
    /// The log.
    log: Arc<dyn Log>,
    /// The schema registry, if a source needs one.
    registry: Option<Arc<dyn Registry>>,
    /// The sink.
    sink: Arc<dyn Sink>,
    /// The state store.
    store: Arc<dyn Store>,
    /// The checkpoint writer of this process.
    writer: Writer,
    /// Whether this is an evaluation, which writes only to its own sink.
    evaluates: bool,
    /// The journal, in the process of worker 0 until worker 0 takes it; `None` in an evaluation.
    journal: Mutex<Option<Arc<Journal>>>,
    /// The sink tables of all views.
    tables: Vec<Table>,
    /// What worker 0 sends to all workers; only in its process.
    start: Mutex<Option<Start>>,
    /// Partitions that are added while the job runs; only in the process of worker 0.
    added: Mutex<Option<Receiver<Added>>>,
    /// Set when this process has received the start; in the process of worker 0 from the beginning.
    started: AtomicBool,
    /// Set when this process has prepared the sink.
    prepared: OnceLock<()>,
}

/// Runs the job until `stop` is set or an error ends it. On `stop`, the epochs in flight are
/// completed first. Blocks the calling thread.
///
/// `connect` connects this process with the others of [`Workers::Cluster`]. It is called when the
/// process is ready to run.
///
/// # Errors
/// The error that ended the job. The process must then end, because its worker threads may still
/// exist, parked. `Fence`: another generation took over. `Data`: the state, a topic or a table is
/// not what the job needs. `Retry`: a stop was held up by a service that is away.
pub fn run(
    config: Config,
    connect: Option<Connect<'_>>,
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    name_views(&stats, &config);
    let sink = tidemill_sinks::open_all(&config.sink, &config.sinks, &config.plan, &stats.health)?;
    let shared = Shared::open(config, stats, stop, sink)?;
    if shared.config.workers.process() == 0 {
        let Some(start) = shared.prepare_start()? else {
            return Ok(());
        };
        shared
            .stats
            .replaying
            .store(!start.bindings.is_empty(), Ordering::Relaxed);
        *shared.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }
    let sockets = match connect {
        None => None,
        Some(connect) => match connect()? {
            None => return Ok(()),
            connected => connected,
        },
    };
    execute(Arc::new(shared), sockets)
}

/// Replays the epochs of `start` into `sink` and ends. No journal is opened, so no epoch is bound,
/// no checkpoint is written, no process is fenced, and no dead letter is written. Returns what was
/// counted. After an error, worker threads may still exist, parked.
///
/// # Errors
/// A service cannot be opened, or the first error that ended a worker.
pub(crate) fn evaluate(config: Config, start: Start, sink: Arc<dyn Sink>) -> Result<Arc<Stats>> {
    let stats = Arc::<Stats>::default();
    name_views(&stats, &config);
    let mut shared = Shared::open(config, Arc::clone(&stats), Arc::default(), sink)?;
    shared.evaluates = true;
    *shared.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    execute(Arc::new(shared), None)?;
    Ok(stats)
}

/// Registers all views in the statistics, with zero rows.
fn name_views(stats: &Stats, config: &Config) {
    let views = config.plan.views.iter();
    let names = views.map(|view| (view.name.clone(), ViewStats::default()));
    lock(&stats.views).extend(names);
    let names = config.plan.views.iter().map(|view| view.name.as_str());
    lock(&stats.row_counts).begin(names);
}

/// Starts the workers of this process.
fn start(
    shared: &Arc<Shared>,
    sockets: Option<Sockets>,
) -> std::result::Result<WorkerGuards<std::result::Result<(), String>>, String> {
    let (builders, others) = allocators(&shared.config.workers, sockets)?;
    let shared = Arc::clone(shared);
    let work = move |worker: &mut Worker| work(worker, &shared);
    timely::execute::execute_from(builders, others, WorkerConfig::default(), work)
}

/// The channels between this process's workers and all others, and the threads that serve them.
fn allocators(
    workers: &Workers,
    sockets: Option<Sockets>,
) -> std::result::Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>), String> {
    let threads = workers.threads();
    let (process, processes) = (workers.process(), workers.processes());
    if processes == 1 {
        let alone = match threads {
            1 => CommunicationConfig::Thread,
            threads => CommunicationConfig::Process(threads),
        };
        return alone.try_build();
    }
    let hooks = Hooks::default();
    let within =
        ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let (builders, threads) = match sockets {
        Some(Sockets::Tcp(sockets)) if are_all(&sockets, process, processes) => {
            initialize_networking_from_sockets(within, sockets, process, threads, hooks)
        }
        Some(Sockets::Unix(sockets)) if are_all(&sockets, process, processes) => {
            initialize_networking_from_sockets(within, sockets, process, threads, hooks)
        }
        other => {
            return Err(format!(
                "{other:?} do not connect process {process} of {processes}"
            ));
        }
    }
    .map_err(|error| format!("the connections with the other processes: {error}"))?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    Ok((builders, Box::new(threads)))
}

/// Whether there is a socket for each other process.
fn are_all<S>(sockets: &[Option<S>], process: usize, processes: usize) -> bool {
    let mut each = sockets.iter().enumerate();
    sockets.len() == processes && each.all(|(index, one)| one.is_some() == (index != process))
}

/// Runs the workers of this process to their end, or until the first error.
fn execute(shared: Arc<Shared>, sockets: Option<Sockets>) -> Result<()> {
    let failure = shared.failure.clone();
    let ended = Arc::new(AtomicBool::new(false));
    let (working, over) = (Arc::clone(&shared), Arc::clone(&ended));
    failure.spawn("timely", move || {
        let failure = working.failure.clone();
        let results = start(&working, sockets).map(WorkerGuards::join);
        let problem = match results {
            Ok(results) => results.into_iter().find_map(std::result::Result::err),
            Err(error) => Some(error),
        };
        if let Some(problem) = problem {
            let what = format!("a worker ended: {problem}");
            failure.set(Error::new(Kind::Bug, what));
        }
        over.store(true, Ordering::Release);
        Ok(())
    })?;
    let mut blocked_by: Option<Instant> = None;
    let mut said = Instant::now();
    loop {
        if shared.evaluates && said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            let records = shared.stats.records.load(Ordering::Relaxed);
            tracing::info!(records, "computing what the views should hold");
        }
        if shared.stop.load(Ordering::Relaxed)
            && Instant::now() > *blocked_by.get_or_insert_with(|| Instant::now() + BLOCKED_PATIENCE)
        {
            let what = "stopped with epochs in flight, which a service that is away held up; the \
                        next start goes on with them";
            return Err(Error::new(Kind::Retry, what));
        }
        // Nothing was read yet, so a process that still waits for worker 0 may end at once.
        if shared.stop.load(Ordering::Relaxed) && !shared.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let over = ended.load(Ordering::Acquire);
        let wait = if over { Duration::ZERO } else { STOP_LOOK };
        if let Some(error) = failure.wait(wait) {
            return Err(error);
        }
        if over {
            return Ok(());
        }
    }
}

impl Shared {
    /// Connects the services that the configuration names. Starts no worker.
    fn open(
        config: Config,
        stats: Arc<Stats>,
        stop: Arc<AtomicBool>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self> {
        let registry = config
            .registry
            .as_deref()
            .map(tidemill_log::registry::open)
            .transpose()?;
        let failure = Failure::default();
        let health = stats.health.clone();
        let registry = registry.map(|registry| engines::registry(registry, &health));
        let store = Reporting::of(tidemill_state::store::open(&config.state)?, &health);
        let writing = Writing {
            job: config.name.clone(),
            process: config.workers.process(),
            store: Arc::clone(&store),
        };
        Ok(Self {
            log: engines::log(tidemill_log::log::open(&config.log)?, &health),
            registry,
            sink,
            evaluates: false,
            store,
            writer: Writer::start(writing, &failure)?,
            journal: Mutex::new(None),
            tables: tables(&config.plan),
            stats,
            stop,
            failure,
            start: Mutex::new(None),
            added: Mutex::new(None),
            started: AtomicBool::new(config.workers.process() == 0),
            prepared: OnceLock::new(),
            config,
        })
    }

    /// Retries while a service is away; `None` when the job was stopped in the meantime.
    fn awaited<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<Option<T>> {
        retry_unless(&self.stop, what, || {
            let outcome = attempt();
            if let Err(error) = &outcome {
                self.stats.say(format!("cannot {what} yet: {error}"));
            }
            outcome
        })
    }

    /// Opens the journal, as the claimed generation or as the next one, and finds the checkpoint to
    /// resume from.
    fn take_over(&self, claim: Option<&Claim>) -> Result<(Journal, Standing, Option<Manifest>)> {
        let store = Arc::clone(&self.store);
        let (journal, standing) = match claim {
            Some(claim) => Journal::open_minted(store, &self.config.name, claim)?,
            None => Journal::open(store, &self.config.name)?,
        };
        let began = Instant::now();
        let checkpoint = tidemill_state::checkpoint::newest(&*self.store, &standing.checkpoints)?;
        let verified_ms = began.elapsed().as_millis();
        if let Some(at) = &checkpoint {
            let (epoch, bytes, entries) = (at.epoch, at.bytes(), at.entries());
            self.stats.state_bytes.store(bytes, Ordering::Relaxed);
            tracing::info!(
                epoch,
                bytes,
                entries,
                verified_ms,
                "going on from a checkpoint"
            );
        }
        Ok((journal, standing, checkpoint))
    }

    /// Prepares what worker 0 sends to all workers. `None` when the job was stopped in the
    /// meantime.
    fn prepare_start(&self) -> Result<Option<Start>> {
        let prepared = self.awaited("prepare the views' tables", || {
            let (job, tables) = (&self.config.name, &self.tables);
            let lost = claims::check(&*self.sink, job, tables, self.config.take_over)?;
            filled_anew::drop_altered(&*self.sink, job, tables, &lost)?;
            let prepared = self.sink.prepare(job, tables)?;
            // Of two jobs that start at the same moment, at least one sees the other.
            claims::check(&*self.sink, job, tables, false)?;
            Ok(prepared)
        })?;
        let Some(frontiers) = prepared else {
            return Ok(None);
        };
        // The workers have not been started, so no other call of this process can have set it
        // before.
        self.prepared.get_or_init(|| ());
        let mut served = epochs(frontiers);
        let claim = self.config.generation.map(Claim::of);
        let opened = self.awaited("read the journal and the checkpoint", || {
            self.take_over(claim.as_ref())
        })?;
        let Some((journal, standing, mut checkpoint)) = opened else {
            return Ok(None);
        };
        let sources = &self.config.plan.sources;
        let retyped = Retyped::find(checkpoint.as_ref(), &standing.bindings, sources);
        if !retyped.sources.is_empty() {
            let Some(frontiers) = self.renew(&retyped, checkpoint.as_mut())? else {
                return Ok(None);
            };
            served = epochs(frontiers);
        }
        let through = checkpoint.as_ref().map(|checkpoint| checkpoint.epoch);
        let Some(served) = self.without_behind(served, through)? else {
            return Ok(None);
        };
        let journal = Arc::new(journal);
        let generation = standing.generation;
        self.stats.generation.store(generation, Ordering::Relaxed);
        self.writer.lead(Committing {
            journal: Arc::clone(&journal),
            generation,
            checkpoints: standing.checkpoints,
            restored: checkpoint.clone(),
        });
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal);
        let (mut partitions, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for source in &self.config.plan.sources {
            let Some(held) = self.held(&source.topic)? else {
                return Ok(None);
            };
            partitions.insert(source.topic.clone(), held);
            let asked = || self.log.describe(&source.topic);
            let Some(described) = self.awaited("ask about a topic", asked)? else {
                return Ok(None);
            };
            ids.extend(described.map(|described| (source.topic.clone(), described.id)));
        }
        let replayed = standing.bindings.last().map(|binding| binding.epoch);
        resume::check_filled(replayed, &self.tables, &served)?;
        let mut start = resume::start(checkpoint, standing.bindings, partitions, &ids, served)?;
        topic_facts::learn(&mut start.facts, &retyped.facts);
        start.generation = generation;
        self.watch_registry(&start)?;
        let watched = topic_watch::Watched::new(&start.partitions, ids);
        let every = self.config.limits.topics_look_every;
        let log = Arc::clone(&self.log);
        let told = (Arc::clone(&self.stats), Arc::clone(&self.stop));
        let added = watched.start(log, every, told, &self.failure)?;
        *self.added.lock().unwrap_or_else(PoisonError::into_inner) = Some(added);
        Ok(Some(start))
    }

    /// Drops the tables that end before the checkpoint. Returns the frontiers of all tables; `None`
    /// when the job was stopped in the meantime.
    fn without_behind(
        &self,
        served: Vec<Option<Epoch>>,
        checkpoint: Option<Epoch>,
    ) -> Result<Option<Vec<Option<Epoch>>>> {
        let dropped = self.awaited("make views anew", || {
            let (job, tables) = (&self.config.name, &self.tables);
            filled_anew::drop_behind(&*self.sink, job, tables, &served, checkpoint)
        })?;
        Ok(dropped.map(|frontiers| frontiers.map_or(served, epochs)))
    }

    /// Starts watching the schema ids of Avro topics.
    fn watch_registry(&self, start: &Start) -> Result<()> {
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        let sources = &self.config.plan.sources;
        let is_avro = |source: &&Source| matches!(source.format, Format::Avro { .. });
        let avro = sources.iter().filter(is_avro);
        let topics: BTreeSet<String> = avro.map(|source| source.topic.clone()).collect();
        for topic in &topics {
            let known = resume::schemas(start, topic).into_iter();
            let known = known.map(|(id, schema)| ((topic.clone(), id), schema));
            lock(&self.stats.schemas).extend(known);
        }
        let told = (Arc::clone(&self.stats), Arc::clone(&self.stop));
        registry_watch::start(Arc::clone(registry), topics, told, &self.failure)
    }

    /// What a worker does with a command before its sources receive the command.
    fn hear(&self, command: &Command, context: &Context, first_here: bool) {
        if let Command::Bind { binding, .. } = command {
            context.ticks.bound(binding.epoch);
        }
        match command {
            Command::Start(start) => {
                self.started.store(true, Ordering::Release);
                if let Err(error) = self.on_start(start, context) {
                    context.fail(error);
                }
            }
            Command::Bind {
                binding,
                checkpoint: true,
                settled,
            } => {
                context.settled.set(*settled);
                context.checkpoint.set(Some(binding.epoch));
                if context.sites.borrow().is_empty() && first_here {
                    context.writer.nothing(binding.epoch);
                }
            }
            Command::Bind { settled, .. } => context.settled.set(*settled),
            Command::Stop => context.ticks.stop(),
            Command::Added(_) => {}
        }
    }

    /// What a worker does when the start arrives.
    fn on_start(&self, start: &Start, context: &Context) -> Result<()> {
        if self.prepared.get().is_none() {
            retry("prepare the views' tables", || {
                self.sink.prepare(&self.config.name, &self.tables)
            })?;
            self.prepared.get_or_init(|| ());
        }
        self.sink.fence(start.generation);
        context.tell_start(start);
        context.ticks.started(start);
        for (index, source) in self.config.plan.sources.iter().enumerate() {
            if let Some(checkpoint) = &start.checkpoint
                && context.hydrates(index)
            {
                resume::check_whole(checkpoint, &source.topic, &start.partitions)?;
            }
        }
        Ok(())
    }

    /// Drops the tables and the state of all views that read a source with a retyped column.
    fn renew(
        &self,
        retyped: &Retyped,
        checkpoint: Option<&mut Manifest>,
    ) -> Result<Option<Vec<Option<Frontier>>>> {
        let (job, plan) = (&self.config.name, &self.config.plan);
        let reads = operator::sources(plan);
        if let Some(checkpoint) = checkpoint {
            retyped.forget(checkpoint, plan, &reads);
        }
        self.awaited("make views anew", || {
            let known = self.sink.frontiers(job)?;
            for (view, reads) in plan.views.iter().zip(&reads) {
                if retyped.concerns(reads) && known.contains_key(&view.name) {
                    tracing::warn!(
                        view = view.name,
                        "a column of a table that the view reads has another type: the view's \
                         table is made and filled anew"
                    );
                    self.sink.drop_view(job, &view.name)?;
                }
            }
            self.sink.prepare(job, &self.tables)
        })
    }

    /// A topic's partitions. Waits for a topic that does not exist yet; `None` when stopped
    /// meanwhile.
    fn held(&self, topic: &str) -> Result<Option<Vec<Held>>> {
        let mut said = false;
        while !self.stop.load(Ordering::Relaxed) {
            match self.log.ranges(topic) {
                Ok(ranges) => return Ok(Some(ranges.into_iter().map(Held::from).collect())),
                Err(error) if error.kind() == Kind::Retry => {
                    if !said {
                        tracing::info!(topic, %error, "waiting for the topic");
                        self.stats
                            .say(format!("waiting for the topic `{topic}`: {error}"));
                        said = true;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What the operators of one worker share.
    fn context(&self, meter: Meter) -> Rc<Context> {
        Rc::new(Context {
            sink: Arc::clone(&self.sink),
            stats: Arc::clone(&self.stats),
            failure: self.failure.clone(),
            log: Arc::clone(&self.log),
            dead_letters: (!self.evaluates).then(|| self.config.dead_letters.clone()),
            producer: RefCell::new(None),
            start: RefCell::new(None),
            told: Cell::new(None),
            waiting: RefCell::default(),
            store: Arc::clone(&self.store),
            sites: RefCell::default(),
            checkpoint: Cell::new(None),
            settled: Cell::new(0),
            ticks: Rc::default(),
            writer: self.writer.clone(),
            threads: self.config.workers.threads(),
            iterations_max: self.config.limits.iterations_max,
            meter,
            codec: self.config.codec,
            rendering: RefCell::new(Arc::from("")),
        })
    }

    /// What sources are read from.
    fn services(&self) -> Services<'_> {
        Services {
            log: &self.log,
            registry: self.registry.as_ref(),
            limits: &self.config.limits,
        }
    }

    /// The binder and the frontier writer, which only worker 0 has.
    fn leading(&self) -> Result<Option<Leading>> {
        let start = self
            .start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let journal = self
            .journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(start) = start.filter(|_| journal.is_some() || self.evaluates) else {
            return Ok(None);
        };
        let limits = self.config.limits.clone();
        let interval = limits.checkpoint_interval;
        let processes = self.config.workers.processes();
        let restored = start
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.epoch);
        self.stats.restored.store(restored, Ordering::Relaxed);
        let checkpoints = Checkpoints::new(interval, processes, self.writer.clone(), restored);
        let topics = start.partitions.keys().cloned().collect();
        let binder = Binder::new(
            start,
            journal,
            checkpoints,
            CatchUp::new(Arc::clone(&self.log), topics),
            (limits, self.config.time.clone()),
            Arc::clone(&self.stats),
            &self.failure,
        )?;
        let advance = Advance::start(Frontiers {
            job: self.config.name.clone(),
            tables: (0..self.tables.len()).collect(),
            sink: Arc::clone(&self.sink),
            failure: self.failure.clone(),
        })?;
        Ok(Some((
            Rc::new(RefCell::new(binder)),
            Rc::new(RefCell::new(advance)),
        )))
    }
}

/// The epoch through which each table is complete.
fn epochs(frontiers: Vec<Option<Frontier>>) -> Vec<Option<Epoch>> {
    let frontiers = frontiers.into_iter();
    let epochs = frontiers.map(|frontier| frontier.and_then(|frontier| frontier.epoch));
    epochs.collect()
}

/// The tables of the views that are served, in the order of the views.
pub(crate) fn tables(plan: &Job) -> Vec<Table> {
    let served = plan
        .views
        .iter()
        .filter_map(|view| view.output.as_ref().map(|out| (view, out)));
    served
        .map(|(view, output)| Table::of(view, output))
        .collect()
}

/// One worker: builds both dataflows, and steps until they have ended.
fn work(worker: &mut Worker, shared: &Arc<Shared>) -> std::result::Result<(), String> {
    let context = shared.context(Meter::listen(worker));
    let leading = match if worker.index() == 0 {
        shared.leading()
    } else {
        Ok(None)
    } {
        Ok(leading) => leading,
        Err(error) => context.fail(error),
    };
    let commands = Control::new(shared.config.plan.sources.len());
    let index = worker.index();
    let first = worker.peek_identifier();
    worker.dataflow_named("control", |scope| {
        let binder = leading.as_ref().map(|(binder, _)| Rc::clone(binder));
        let mut added = shared.added.lock().unwrap_or_else(PoisonError::into_inner);
        // Only worker 0 takes it.
        let added = binder.as_ref().and_then(|_| added.take());
        let ticks = Rc::clone(&context.ticks);
        let (context, preparing) = (Rc::clone(&context), Arc::clone(shared));
        let writer = shared.writer.clone();
        let first_here = index.is_multiple_of(shared.config.workers.threads());
        let on = move |command: &Command| preparing.hear(command, &context, first_here);
        let told = Told {
            added,
            writer,
            ticks,
        };
        control(scope, &commands, binder, told, &shared.stop, on);
    });
    let last = worker.peek_identifier();
    context.meter.name(first..last, "Binding epochs".to_owned());
    worker.dataflow_named("views", |scope| {
        let plan = &shared.config.plan;
        let sources = plan.sources.iter().enumerate();
        let sources = sources.map(|(i, source)| {
            let stream =
                || source_stream(scope, i, source, &shared.services(), &commands, &context);
            let name = format!("Source {}", source.name);
            context.meter.named(scope, name, stream)
        });
        let rendered = sources
            .collect::<Result<Vec<_>>>()
            .and_then(|sources| operator::views(scope, sources, plan, &context));
        match rendered {
            Ok(durable) => advance(durable, leading.clone(), Rc::clone(&context)),
            Err(error) => context.fail(error),
        }
    });
    let rest = last..worker.peek_identifier();
    context.meter.name(rest, "Following epochs".to_owned());
    let mut stop_by: Option<Instant> = None;
    while worker.has_dataflows() {
        worker.step_or_park(Some(PARK_MAX));
        context.meter.tell(index, &shared.stats.operators);
        if shared.stop.load(Ordering::Relaxed) {
            let by = *stop_by.get_or_insert_with(|| Instant::now() + STOP_PATIENCE);
            if Instant::now() >= by {
                return Err("the epochs in flight did not complete in time".to_owned());
            }
        }
    }
    if let Some((binder, advance)) = leading
        && !advance
            .borrow_mut()
            .finish(&mut binder.borrow_mut(), STOP_PATIENCE)
    {
        return Err("the sink's frontier could not be moved to the last epoch".to_owned());
    }
    Ok(())
}
