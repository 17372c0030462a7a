//! The command `run`: ingest and dataflow of a pipeline in one process, with a live display.
//!
//! ```text
//! thread tidemill-ingest ─► topics ─► thread tidemill-dataflow ─► views
//!          │                                   │
//!          └─counters─► main thread ◄─counters─┘
//!                      (the display)  ◄─lag, top rows─ thread tidemill-watch
//! ```
//!
//! A stop ends the ingest first. Then the views take everything that it published.

mod center;
mod log;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidemill_config::args::RunArgs;
use tidemill_config::connections::Connections;
use tidemill_config::lease::Lease;
use tidemill_config::pipeline::{Folder, Views};
use tidemill_config::{lease, probe};
use tidemill_dataflow::job;
use tidemill_dataflow::job::Workers;
use tidemill_ingest::config::Pipeline;
use tidemill_ingest::stats;
use tidemill_inspect::Inspected;
use tidemill_ir::Job;
use tidemill_log::health::Health;
use tidemill_logs::logging;
use tidemill_logs::logging::Origin;
use tidemill_protocol::{exit, output, redact};
use tidemill_web::api::alerts::Alerting;
use tidemill_web::api::audit::Audit;
use tidemill_web::readable::{Later, Readable};

use self::center::Center;
use self::log::RunLog;
use crate::command::ingest::Api;
use crate::command::{alerts, dataflow, ingest};
use crate::terminal::display::{Display, TICK};
use crate::terminal::table::grouped;
use crate::terminal::views;
use crate::terminal::views::Served;
use crate::terminal::watch::{Seen, Until, Watch, Watched};

/// Records of lag from which the display says that the views are catching up.
const CATCHING_UP_MIN: u64 = 1_000;

/// How long the views wait for the ingest to end when both are to end.
const INGEST_ENDS_MAX: Duration = Duration::from_secs(10);
/// How often that is checked.
const JOIN_LOOK: Duration = Duration::from_millis(20);

/// How long planning waits for the ingest to open its capture, and how often it checks.
const OPENING: Duration = Duration::from_secs(10);
const OPENING_LOOK: Duration = Duration::from_millis(20);

/// How often views that wait for new columns are compiled again.
const COLUMNS_LOOK: Duration = Duration::from_millis(200);

/// The thread of the ingest or of the dataflow.
struct Stage {
    /// `ingest` or `dataflow`.
    name: &'static str,
    /// Ends with the stage's result.
    thread: JoinHandle<anyhow::Result<()>>,
}

/// The result of showing a run.
struct Shown {
    /// The display, which shows the last moment after both stages have ended.
    display: Display,
    /// The compiled plan; `None` if the run ended before the schemas were known.
    plan: Option<Job>,
    /// Whether `--until` was reached.
    reached: bool,
}

/// What the threads of a run share.
struct River {
    name: String,
    /// The text of the pipeline's `alerts.toml`.
    alerts: Option<String>,
    /// The services of all stages.
    connections: Connections,
    /// The condition of `--until`.
    until: Option<Until>,
    /// Stops the ingest and the display.
    stop: Arc<AtomicBool>,
    /// Stops the dataflow. Set after `stop`, when the ingest has published everything.
    stop_views: Arc<AtomicBool>,
    /// The counters of the ingest.
    ingest_stats: Arc<stats::Stats>,
    /// The counters of the dataflow.
    job_stats: Arc<job::Stats>,
    /// What the dataflow waits for before it can start.
    awaited: Arc<Mutex<Option<String>>>,
}

/// Runs a pipeline until SIGTERM, Ctrl-C or `--until`.
///
/// # Errors
///
/// * [`exit::Usage`] (exit code 2): a flag or a connection is wrong.
/// * [`exit::Held`] (exit code 5): another process runs the pipeline.
/// * The pipeline is wrong, or the ingest or the dataflow ended with an error (exit code 1).
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let origin = Origin {
        job: Some(&folder.name),
        part: "run",
        process: 0,
        generation: None,
    };
    let log = RunLog::of(&args.log);
    logging::start(&log.args, "warn", &origin)?;
    exit::exit_on_panic();
    let (mut pipeline, views) = (folder.ingest()?, folder.views()?);
    let api = Api::choose(&mut pipeline, &args.fetch)?;
    let _leases = leases(&folder.name, &connections, args.take_over)?;
    // Both components use the same services, so they share one health record.
    let health = Health::default();
    let job_stats = Arc::new(job::Stats::with(health.clone()));
    let ingest_stats = Arc::new(stats::Stats::with(health));
    let readable = Readable::new(&folder.name, &folder, &connections, &job_stats)?;
    let (name, counts) = (&folder.name, (Some(&job_stats), Some(&ingest_stats)));
    let inspected = Inspected::new(name, &folder, &connections, counts.0, counts.1);
    let river = River {
        until: match args.until {
            Some(records) => Some(until(records, &pipeline, &connections)?),
            None => None,
        },
        alerts: alerts::text_of(&folder)?,
        name: folder.name,
        connections,
        stop: exit::stop_on_signal()?,
        stop_views: Arc::default(),
        ingest_stats,
        job_stats,
        awaited: Arc::default(),
    };
    river.serve(args, (readable, inspected), log.folder())?;
    introduce(&river.name, &river.connections, &api);
    let options = ingest::options(
        &river.name,
        pipeline,
        &river.connections,
        &args.fetch,
        &api,
        args.until,
    );
    let (stats, stop) = (Arc::clone(&river.ingest_stats), Arc::clone(&river.stop));
    river.probe(ingest::api_of(&options).as_deref());
    let (planned, plan) = mpsc::channel();
    let stages = [
        stage("ingest", move || {
            Ok(tidemill_ingest::run::run(options, stats, stop)?)
        })?,
        river.dataflow(views, args, planned)?,
    ];
    let shown = river.show(args.no_live, &stages, &plan);
    // Whatever ended the display also ends both stages.
    river.stop.store(true, Relaxed);
    let joined = join(stages, &river.stop_views);
    let mut shown = shown?;
    // Only now has everything arrived that was on its way.
    shown.display.finish();
    joined?;
    if let Some(plan) = &shown.plan {
        if shown.reached {
            river.print_views(plan)?;
        }
        output::line(&farewell(&river.connections, plan));
    }
    Ok(())
}

/// Takes the leases of both components.
///
/// # Errors
///
/// [`exit::Held`] if another process holds one, unless it is to be taken over.
fn leases(name: &str, connections: &Connections, take_over: bool) -> anyhow::Result<[Lease; 2]> {
    let places = [
        lease::LeaseKey::dataflow(name, &connections.state)?,
        lease::LeaseKey::ingest(name, &connections.database)?,
    ];
    if !take_over {
        let instead = "stop that one first, or start this one with --take-over: then that one ends";
        places.iter().try_for_each(|place| place.free(instead))?;
    }
    let [dataflow, ingest] = places;
    Ok([dataflow.take()?, ingest.take()?])
}

/// Tells the user how to continue and how to look at the views.
fn farewell(connections: &Connections, plan: &Job) -> String {
    let mut text = "\nstopped; the same command goes on from here".to_owned();
    let Some(view) = views::typical(plan) else {
        return text;
    };
    let sink = redact::place(&connections.sink);
    if let Some(file) = sink.strip_prefix("sqlite://") {
        text += &format!("\nlook at a view:  sqlite3 -box {file} 'SELECT * FROM {view}'");
        if is_embedded(connections) {
            text += &format!("\nbegin anew:      rm {file}*");
        }
    } else if let Some((hosts, keyspace)) = sink
        .strip_prefix("cassandra://")
        .and_then(|rest| rest.split_once('/'))
    {
        let host = hosts.split(',').next().unwrap_or_default();
        let host = host
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .replace(':', " ");
        text += &format!("\nlook at a view:  cqlsh {host} -e 'SELECT * FROM {keyspace}.{view}'");
    }
    text
}

/// Whether all stages use the one SQLite file.
fn is_embedded(connections: &Connections) -> bool {
    let mut described = connections.described().into_iter();
    described.all(|(_, url)| url.starts_with("sqlite://"))
}

/// Prints the pipeline's connections and its API.
fn introduce(name: &str, connections: &Connections, api: &Api) {
    let described = connections.described();
    if is_embedded(connections) {
        let file = connections.data.display();
        output::line(&format!(
            "{name}: everything is in {file} (look inside: sqlite3 {file})"
        ));
    } else {
        let stages: Vec<String> = described
            .iter()
            .map(|(stage, url)| format!("{stage} {url}"))
            .collect();
        output::line(&format!("{name}: {}", stages.join(", ")));
    }
    output::line(&api.said);
}

/// What `--until` waits for.
///
/// # Errors
///
/// The pipeline fetches nothing ([`exit::Usage`]).
fn until(records: u64, pipeline: &Pipeline, connections: &Connections) -> anyhow::Result<Until> {
    let Some(feed) = &pipeline.feed else {
        let why = "--until counts the records that land, and this pipeline fetches none";
        return Err(exit::Usage(why.to_owned()).into());
    };
    let land = feed.land.clone();
    let topic = pipeline.publish.naming().topic_of("public", &land.table);
    Ok(Until {
        records,
        database: connections.database.clone(),
        land,
        topic,
    })
}

/// Starts the thread of a stage.
fn stage(
    name: &'static str,
    body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Stage> {
    let thread = thread::Builder::new()
        .name(format!("tidemill-{name}"))
        .spawn(body)?;
    Ok(Stage { name, thread })
}

/// Waits for both stages, first for the ingest, so that the views take everything that it
/// published.
///
/// # Errors
///
/// The first error of a stage. Further errors are printed.
fn join(stages: [Stage; 2], stop_views: &AtomicBool) -> anyhow::Result<()> {
    let by = Instant::now() + INGEST_ENDS_MAX;
    while !stages.iter().any(|stage| stage.thread.is_finished()) && Instant::now() < by {
        thread::sleep(JOIN_LOOK);
    }
    stop_views.store(true, Relaxed);
    let mut errors = Vec::new();
    for Stage { name, thread } in stages {
        // A panic would have ended the process through the hook.
        if let Ok(Err(error)) = thread.join() {
            errors.push(error.context(format!("{name} ended")));
        }
    }
    let first = (!errors.is_empty()).then(|| errors.remove(0));
    errors.iter().for_each(output::error);
    first.map_or(Ok(()), Err)
}

impl River {
    /// Serves HTTP, and says where.
    ///
    /// # Errors
    ///
    /// The address is invalid or in use.
    fn serve(
        &self,
        args: &RunArgs,
        (readable, inspected): (Readable, Inspected),
        logs: Option<PathBuf>,
    ) -> anyhow::Result<()> {
        let shown = tidemill_web::Shown {
            job: self.name.clone(),
            part: None,
            generation: None,
            index: 0,
            dataflow: Some(Arc::clone(&self.job_stats)),
            ingest: Some(Arc::clone(&self.ingest_stats)),
            readable: Later::new(readable.into()),
            inspected: tidemill_inspect::Later::new(inspected.into()),
        };
        let workers = usize::from(args.workers);
        let status = Center::new(shown.clone(), workers, self.alerts.clone()).source();
        let own = tidemill_web::Own {
            status,
            audit: Audit::new(&self.connections.state, &self.name),
            alerts: Alerting::stored(&self.connections.state, &self.name),
            logs,
        };
        let (at, is_whole) = tidemill_web::center(&args.http, shown, own)?;
        let metrics = format!("metrics: http://{at}/metrics");
        output::line(&match is_whole {
            true => format!("control center: http://{at}/ ({metrics})"),
            false => format!("{metrics} (beyond this machine the control center needs a token)"),
        });
        Ok(())
    }

    /// Starts the probes of all services.
    fn probe(&self, api: Option<&str>) {
        probe::ingest(&self.connections, &self.name, api, &self.ingest_stats);
        probe::dataflow(&self.connections, &self.name, &self.job_stats.health);
    }

    /// Starts the dataflow stage: it compiles the plan as soon as the schemas are known, sends the
    /// plan to the display, and runs the job.
    fn dataflow(
        &self,
        views: Views,
        args: &RunArgs,
        planned: Sender<Job>,
    ) -> anyhow::Result<Stage> {
        let (workers, state) = (usize::from(args.workers), args.state.clone());
        let (name, connections) = (self.name.clone(), self.connections.clone());
        let (stop, stats) = (Arc::clone(&self.stop_views), Arc::clone(&self.job_stats));
        let (awaited, shown) = (Arc::clone(&self.awaited), Arc::clone(&self.job_stats));
        let set = move |what: Option<&str>| {
            let text = what.map(|what| format!("waiting: {what}"));
            shown.say(text.clone().unwrap_or_else(|| "starting".to_owned()));
            *awaited.lock().unwrap_or_else(PoisonError::into_inner) = text;
        };
        let ingest = Arc::clone(&self.ingest_stats);
        let take_over = args.take_over;
        let opening = match args.fetch.resnapshot {
            true => Duration::MAX,
            false => OPENING,
        };
        stage("dataflow", move || {
            let waiting = |what: &str| set(Some(what));
            // A table that is captured again may have another schema afterwards.
            let since = Instant::now();
            while ingest.is_opening() && since.elapsed() < opening && !stop.load(Relaxed) {
                thread::sleep(OPENING_LOOK);
            }
            let plan = loop {
                let settled = ingest.is_settled();
                match dataflow::plan_when_ready(&views, &connections, &stop, &waiting) {
                    // The tables have new columns, which the ingest will register.
                    Err(error)
                        if !settled
                            && !stop.load(Relaxed)
                            && views.fit_the_database(&connections) =>
                    {
                        set(Some(&format!("{error:#}")));
                        thread::sleep(COLUMNS_LOOK);
                    }
                    plan => break plan?,
                }
            };
            set(None);
            let Some(plan) = plan else {
                return Ok(());
            };
            // The receiver is gone only when the display has ended, and then the job ends at once.
            let _ = planned.send(plan.clone());
            let workers = Workers::Threads(workers);
            let config = job::Config {
                take_over,
                ..dataflow::config(&name, plan, &connections, workers, &state)
            };
            Ok(job::run(config, None, stats, stop)?)
        })
    }

    /// Prints all views at the end of a run.
    fn print_views(&self, plan: &Job) -> anyhow::Result<()> {
        let served = Served::open(&self.connections, plan)?;
        let rows = |name: &str| {
            let views = self.job_stats.views.lock();
            let views = views.unwrap_or_else(PoisonError::into_inner);
            let view = views.get(name)?;
            u64::try_from(view.rows).ok()
        };
        let lines = served.printed(output::width(), &rows)?;
        lines.iter().for_each(|line| output::line(line));
        Ok(())
    }

    /// Shows the run until it is stopped, a stage ends, or `--until` is reached.
    fn show(
        &self,
        no_live: bool,
        stages: &[Stage; 2],
        planned: &Receiver<Job>,
    ) -> anyhow::Result<Shown> {
        let (ingest_stats, job_stats) =
            (Arc::clone(&self.ingest_stats), Arc::clone(&self.job_stats));
        let mut display = Display::new(&self.name, no_live, ingest_stats, job_stats);
        let mut watch: Option<(Job, Watch)> = None;
        let reached = loop {
            if let Ok(plan) = planned.try_recv() {
                let watched = self.watched(&plan);
                watch = Some((plan, Watch::start(watched, Arc::clone(&self.stop))?));
            }
            let seen = watch
                .as_ref()
                .map(|(_, watch)| watch.seen())
                .unwrap_or_default();
            let ended = stages.iter().any(|stage| stage.thread.is_finished());
            if seen.reached || ended || self.stop.load(Relaxed) {
                break seen.reached;
            }
            display.tick(self.phase(&seen), seen.top);
            thread::sleep(TICK);
        };
        let plan = watch.map(|(plan, _)| plan);
        Ok(Shown {
            display,
            plan,
            reached,
        })
    }

    /// What the watcher observes.
    fn watched(&self, plan: &Job) -> Watched {
        Watched {
            plan: plan.clone(),
            connections: self.connections.clone(),
            until: self.until.clone(),
            ingest_stats: Arc::clone(&self.ingest_stats),
            job_stats: Arc::clone(&self.job_stats),
        }
    }

    /// The current long phase in words, if there is one.
    fn phase(&self, seen: &Seen) -> Option<String> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = || {
            let done = grouped(seen.records.saturating_sub(seen.behind));
            format!("{done} of {} records", grouped(seen.records))
        };
        if awaited.is_some() {
            awaited.clone()
        } else if self.job_stats.replaying.load(Relaxed) {
            Some(format!("replaying an earlier run: {}", progress()))
        } else if seen.behind >= CATCHING_UP_MIN {
            Some(format!("catching up: {}", progress()))
        } else {
            seen.trouble.as_ref().map(|why| format!("waiting: {why}"))
        }
    }
}
