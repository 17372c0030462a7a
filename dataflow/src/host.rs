//! The host: starts timely workers in this process and runs a job on them until it is stopped.
//!
//! Timely processes share fate: after a worker failed, nothing of the job goes on in this process,
//! and [`run`] returns while its threads still hold their capabilities. The caller must then end
//! the process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use timely::CommunicationConfig;
use timely::worker::Worker;

use crate::advance::{Advance, Frontiers, Leading, advance};
use crate::failure::Failure;
use crate::held;
use crate::job::{Config, Stats, ViewStats, Workers};
use crate::journal::Journal;
use crate::plan::ir::{Envelope, Job, Source};
use crate::render::chunk::{Chunk, ChunkStream};
use crate::render::{self, Context, upsert};
use crate::row::{RowCodec, nullable};
use crate::sink::{Frontier, Sink, Table};
use crate::source::Partitions;
use crate::source::gather::{KeyedRows, Rows};
use crate::source::operator::{Place, operator};
use crate::store::Store;
use crate::time::binder::Binder;
use crate::time::{Control, Held, Start, control};
use crate::{Epoch, Error, Kind, Result};

/// How long a stop waits for the epochs in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Longest a worker sleeps when nothing wakes it.
const PARK_MAX: Duration = Duration::from_millis(100);

/// What the workers of a process share.
struct Shared {
    config: Config,
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    failure: Failure,
    log: Arc<dyn Log>,
    registry: Option<Arc<dyn Registry>>,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    tables: Vec<Table>,
    /// What worker 0 tells the others, and the journal; there in its process only.
    start: Mutex<Option<(Start, Arc<Journal>)>>,
    /// Set when this process's workers run: all processes are connected.
    working: AtomicBool,
    /// Set when this process has prepared the sink.
    prepared: OnceLock<()>,
}

/// Runs the job until `stop` is set or something ends it. On `stop` the epochs in flight are
/// completed first. Blocks the calling thread. After an error the process must end: worker
/// threads may still be there, standing still.
pub fn run(config: Config, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut views = stats.views.lock().unwrap_or_else(PoisonError::into_inner);
    let names = config
        .plan
        .views
        .iter()
        .map(|view| (view.name.clone(), ViewStats::default()));
    views.extend(names);
    drop(views);
    let shared = Arc::new(Shared::open(config, stats, stop)?);
    let timely = shared.timely();
    let leads = match &shared.config.workers {
        Workers::Threads(_) => true,
        Workers::Cluster { process, .. } => *process == 0,
    };
    if leads {
        let Some((start, journal)) = shared.prepare_start()? else {
            return Ok(());
        };
        shared
            .stats
            .replaying
            .store(!start.bindings.is_empty(), Ordering::Relaxed);
        *shared.start.lock().unwrap_or_else(PoisonError::into_inner) = Some((start, journal));
    }
    if let Workers::Cluster { addresses, .. } = &shared.config.workers {
        tracing::info!(?addresses, "waiting for all processes of the job");
    }
    let failure = shared.failure.clone();
    let ended = Arc::new(AtomicBool::new(false));
    let (working, over) = (Arc::clone(&shared), Arc::clone(&ended));
    failure.spawn("timely", move || {
        let failure = working.failure.clone();
        let guards = timely::execute(timely, move |worker| work(worker, &working));
        let results = guards.map(|guards| guards.join());
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
    loop {
        // Nothing was read yet: whoever waits for the other processes may just go.
        if shared.stop.load(Ordering::Relaxed) && !shared.working.load(Ordering::Acquire) {
            return Ok(());
        }
        let over = ended.load(Ordering::Acquire);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Shared {
    fn open(config: Config, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<Self> {
        let registry = config
            .registry
            .as_deref()
            .map(tidemill_log::registry::open)
            .transpose()?;
        Ok(Self {
            log: tidemill_log::log::open(&config.log)?,
            registry,
            sink: crate::sink::open(&config.sink)?,
            store: crate::store::open(&config.state)?,
            tables: tables(&config.plan),
            stats,
            stop,
            failure: Failure::default(),
            start: Mutex::new(None),
            working: AtomicBool::new(false),
            prepared: OnceLock::new(),
            config,
        })
    }

    fn timely(&self) -> timely::Config {
        let communication = match self.config.workers.clone() {
            Workers::Threads(1) => CommunicationConfig::Thread,
            Workers::Threads(threads) => CommunicationConfig::Process(threads),
            Workers::Cluster {
                threads,
                process,
                addresses,
            } => CommunicationConfig::Cluster {
                threads,
                process,
                addresses,
                report: false,
                zerocopy: false,
            },
        };
        timely::Config {
            communication,
            worker: timely::WorkerConfig::default(),
        }
    }

    /// Everything that worker 0 tells the others. None when the job was stopped meanwhile.
    fn prepare_start(&self) -> Result<Option<(Start, Arc<Journal>)>> {
        let frontiers = self.sink.prepare(&self.config.name, &self.tables)?;
        // The first call of this process cannot lose to another: it is before the workers start.
        self.prepared.get_or_init(|| ());
        let served = self.check_fingerprints(&frontiers)?;
        let (journal, mut standing) = Journal::open(Arc::clone(&self.store), &self.config.name)?;
        tracing::info!(standing.generation, "took the job over");
        // Epochs at or below the least frontier are in every table that has one: they will not be
        // written again, so they need not be told apart.
        if let Some(floor) = served.iter().flatten().min() {
            journal.truncate(*floor)?;
            standing.truncate(*floor);
        }
        let bindings = standing.bindings;
        let mut partitions = BTreeMap::new();
        for source in &self.config.plan.sources {
            let Some(held) = self.held(&source.topic)? else {
                return Ok(None);
            };
            partitions.insert(source.topic.clone(), held);
        }
        held::check_filled(&bindings, &self.tables, &served)?;
        let begins = held::check(&bindings, &partitions)?;
        let replayed = bindings.last().map(|binding| binding.epoch);
        let start = Start {
            partitions,
            bindings,
            replayed,
            begins,
            served,
        };
        Ok(Some((start, Arc::new(journal))))
    }

    fn check_fingerprints(&self, frontiers: &[Option<Frontier>]) -> Result<Vec<Option<Epoch>>> {
        let known = self.tables.iter().zip(frontiers);
        known
            .map(|(table, frontier)| match frontier {
                Some(frontier) if frontier.fingerprint != table.fingerprint => {
                    let what = format!(
                        "view `{0}` is defined otherwise than when its table was filled: give the \
                         view another name, or drop table `{0}` and its row in \
                         `tidemill_frontiers`",
                        table.name
                    );
                    Err(Error::new(Kind::Data, what))
                }
                Some(frontier) => Ok(frontier.epoch),
                None => Ok(None),
            })
            .collect()
    }

    /// A topic's partitions; waits for a topic that is not there yet. None when stopped meanwhile.
    fn held(&self, topic: &str) -> Result<Option<Vec<Held>>> {
        let mut said = false;
        while !self.stop.load(Ordering::Relaxed) {
            match self.log.ranges(topic) {
                Ok(ranges) => return Ok(Some(ranges.into_iter().map(Held::from).collect())),
                Err(error) if error.kind() == Kind::Retry => {
                    if !said {
                        tracing::info!(topic, %error, "waiting for the topic");
                        said = true;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn context(&self) -> Rc<Context> {
        Rc::new(Context {
            sink: Arc::clone(&self.sink),
            stats: Arc::clone(&self.stats),
            failure: self.failure.clone(),
            log: Arc::clone(&self.log),
            dead_letters: self.config.dead_letters.clone(),
            producer: RefCell::new(None),
            start: RefCell::new(None),
        })
    }

    /// What only worker 0 has.
    fn leading(&self) -> Result<Option<Leading>> {
        let start = self
            .start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((start, journal)) = start else {
            return Ok(None);
        };
        let binder = Binder::new(
            start,
            Arc::clone(&journal),
            self.config.limits.clone(),
            Arc::clone(&self.stats),
            &self.failure,
        )?;
        let advance = Advance::start(Frontiers {
            job: self.config.name.clone(),
            tables: (0..self.tables.len()).collect(),
            sink: Arc::clone(&self.sink),
            journal,
            failure: self.failure.clone(),
        })?;
        Ok(Some((
            Rc::new(RefCell::new(binder)),
            Rc::new(RefCell::new(advance)),
        )))
    }
}

/// The tables of the views that are served, in view order.
fn tables(plan: &Job) -> Vec<Table> {
    let served = plan
        .views
        .iter()
        .filter_map(|view| view.output.as_ref().map(|out| (view, out)));
    served
        .map(|(view, output)| Table {
            name: view.name.clone(),
            schema: nullable(&view.rel.schema),
            primary_key: output.primary_key.clone(),
            partition_columns: output.partition_columns,
            fingerprint: view.fingerprint,
        })
        .collect()
}

/// One worker's run: builds both dataflows, steps until they end.
fn work(worker: &mut Worker, shared: &Arc<Shared>) -> std::result::Result<(), String> {
    shared.working.store(true, Ordering::Release);
    let context = shared.context();
    let leading = match if worker.index() == 0 {
        shared.leading()
    } else {
        Ok(None)
    } {
        Ok(leading) => leading,
        Err(error) => context.fail(error),
    };
    let commands = Control::new(shared.config.plan.sources.len());
    worker.dataflow_named("control", |scope| {
        let binder = leading.as_ref().map(|(binder, _)| Rc::clone(binder));
        let (context, preparing) = (Rc::clone(&context), Arc::clone(shared));
        control(scope, &commands, binder, &shared.stop, move |start| {
            let prepared = match preparing.prepared.get() {
                Some(()) => Ok(()),
                None => preparing
                    .sink
                    .prepare(&preparing.config.name, &preparing.tables)
                    .map(|_| *preparing.prepared.get_or_init(|| ())),
            };
            if let Err(error) = prepared {
                context.fail(error);
            }
            *context.start.borrow_mut() = Some(Arc::new(start.clone()));
        });
    });
    worker.dataflow_named("views", |scope| {
        let plan = &shared.config.plan;
        let sources = plan.sources.iter().enumerate();
        let sources =
            sources.map(|(i, source)| source_stream(scope, i, source, shared, &commands, &context));
        let rendered = sources
            .collect::<Result<Vec<_>>>()
            .and_then(|sources| render::views(scope, sources, &plan.views, &context));
        match rendered {
            Ok(durable) => advance(durable, leading.clone()),
            Err(error) => context.fail(error),
        }
    });
    let mut stop_by: Option<Instant> = None;
    while worker.has_dataflows() {
        worker.step_or_park(Some(PARK_MAX));
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

/// Renders a source's rows.
fn source_stream<'scope>(
    scope: timely::dataflow::Scope<'scope, Epoch>,
    index: usize,
    source: &Source,
    shared: &Arc<Shared>,
    commands: &Rc<RefCell<Control>>,
    context: &Rc<Context>,
) -> Result<ChunkStream<'scope>> {
    let place = Place {
        index,
        topic: source.topic.clone(),
        rows_waiting_max: shared.config.limits.rows_waiting_max,
    };
    let (me, peers) = (scope.index(), scope.peers());
    let decoder = crate::decode::open(source, shared.registry.clone())?;
    let (log, topic) = (Arc::clone(&shared.log), source.topic.clone());
    let owned = move |start: &Start| -> Vec<(u32, i64)> {
        let held = start.partitions.get(&topic).into_iter().flatten();
        held.filter(|held| (held.partition as usize + index) % peers == me)
            .map(|held| (held.partition, held.low))
            .collect()
    };
    let topic = source.topic.clone();
    let reader = move |from: &[(u32, i64)]| {
        if from.is_empty() {
            Ok(None)
        } else {
            log.reader(&topic, from).map(Some)
        }
    };
    let topic = source.topic.clone();
    if source.envelope == Envelope::Append {
        let open = move |start: &Start| {
            let from = owned(start);
            Ok(Partitions::new(
                &topic,
                reader(&from)?,
                &from,
                Rows::new(decoder),
            ))
        };
        return Ok(operator(
            scope,
            place,
            commands,
            context,
            open,
            Chunk::insertions,
        ));
    }
    let codec = RowCodec::new(Arc::clone(&source.schema))?;
    let gather = KeyedRows::new(decoder, codec, source.envelope, &source.format, peers);
    let open = move |start: &Start| {
        let from = owned(start);
        Ok(Partitions::new(&topic, reader(&from)?, &from, gather))
    };
    let keyed = operator(scope, place, commands, context, open, |epoch, keyed| {
        (epoch, keyed)
    });
    upsert::upsert(keyed, context, &source.schema)
}
