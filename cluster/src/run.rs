//! `run`: the whole river in one process, shown while it flows.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tidemill_dataflow::job::{self, Workers};
use tidemill_dataflow::plan::ir::Job;
use tidemill_ingest::config::Pipeline;
use tidemill_ingest::stats;

use crate::cli::RunArgs;
use crate::connections::Connections;
use crate::display::{Display, TICK};
use crate::ingest::{self, Api};
use crate::pipeline::{Folder, Views};
use crate::table::grouped;
use crate::views::Served;
use crate::watch::{Seen, Until, Watch, Watched};
use crate::{dataflow, exit, logging, output};

/// Records behind the log from which the display speaks of catching up.
const CATCHING_UP_MIN: u64 = 1_000;

/// A stage's thread.
struct Stage {
    name: &'static str,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// What the threads of a run share.
struct River {
    name: String,
    connections: Connections,
    until: Option<Until>,
    stop: Arc<AtomicBool>,
    ingest_stats: Arc<stats::Stats>,
    job_stats: Arc<job::Stats>,
    /// What the dataflow waits for before it can start.
    awaited: Arc<Mutex<Option<String>>>,
}

/// Runs a pipeline until it is stopped or `--until` is reached.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    logging::start(&args.log, "warn", &folder.name, 0)?;
    exit::exit_on_panic();
    let (pipeline, views) = (folder.ingest()?, folder.views()?);
    let api = Api::choose(&pipeline, &args.fetch)?;
    introduce(&folder.name, &connections, &api);
    let river = River {
        until: match args.until {
            Some(records) => Some(until(records, &pipeline, &connections)?),
            None => None,
        },
        name: folder.name,
        connections,
        stop: exit::stop_on_signal()?,
        ingest_stats: Arc::default(),
        job_stats: Arc::default(),
        awaited: Arc::default(),
    };
    let options = ingest::options(
        &river.name,
        pipeline,
        &river.connections,
        &args.fetch,
        &api,
        args.until,
    );
    let (stats, stop) = (Arc::clone(&river.ingest_stats), Arc::clone(&river.stop));
    let (planned, plan) = mpsc::channel();
    let stages = [
        stage("ingest", move || {
            Ok(tidemill_ingest::run::run(options, stats, stop)?)
        })?,
        river.dataflow(views, usize::from(args.workers), planned)?,
    ];
    let reached = river.show(args.no_live, &stages, &plan);
    // Whatever ended the show ends the stages.
    river.stop.store(true, Relaxed);
    let joined = join(stages);
    let reached = reached?;
    joined?;
    if let Some(plan) = reached {
        let served = Served::open(&river.connections.sink, &plan)?;
        let rows = |name: &str| {
            let views = river
                .job_stats
                .views
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            views
                .get(name)
                .and_then(|view| u64::try_from(view.rows).ok())
        };
        served
            .printed(&rows)?
            .iter()
            .for_each(|line| output::line(line));
    }
    output::line("\nstopped; the same command goes on from here");
    Ok(())
}

fn introduce(name: &str, connections: &Connections, api: &Api) {
    let described = connections.described();
    let embedded = described
        .iter()
        .all(|(_, url)| url.starts_with("sqlite://"));
    if embedded {
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

fn until(records: u64, pipeline: &Pipeline, connections: &Connections) -> anyhow::Result<Until> {
    let Some(feed) = &pipeline.feed else {
        let why = "--until counts the records that land, and this pipeline fetches none";
        return Err(exit::Usage(why.to_owned()).into());
    };
    let land = feed.land.clone();
    let topic = format!("{}{}", pipeline.publish.topic_prefix, land.table);
    Ok(Until {
        records,
        database: connections.database.clone(),
        land,
        topic,
    })
}

fn stage(
    name: &'static str,
    body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Stage> {
    let thread = thread::Builder::new()
        .name(format!("tidemill-{name}"))
        .spawn(body)?;
    Ok(Stage { name, thread })
}

/// Waits for the stages; the first error is the command's, others are printed.
fn join(stages: [Stage; 2]) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for Stage { name, thread } in stages {
        // A panic has ended the process already, through the hook.
        if let Ok(Err(error)) = thread.join() {
            errors.push(error.context(format!("{name} ended")));
        }
    }
    let first = (!errors.is_empty()).then(|| errors.remove(0));
    errors.iter().for_each(output::error);
    first.map_or(Ok(()), Err)
}

impl River {
    /// The stage that plans the job as soon as its schemas are there, hands the plan over, and
    /// runs it.
    fn dataflow(
        &self,
        views: Views,
        workers: usize,
        planned: Sender<Job>,
    ) -> anyhow::Result<Stage> {
        let (name, connections) = (self.name.clone(), self.connections.clone());
        let (stop, stats) = (Arc::clone(&self.stop), Arc::clone(&self.job_stats));
        let awaited = Arc::clone(&self.awaited);
        let set = move |what: Option<&str>| {
            let text = what.map(|what| format!("waiting: {what}"));
            *awaited.lock().unwrap_or_else(PoisonError::into_inner) = text;
        };
        stage("dataflow", move || {
            let waiting = |what: &str| set(Some(what));
            let plan = dataflow::plan_when_ready(&views, &connections, &stop, &waiting)?;
            set(None);
            let Some(plan) = plan else {
                return Ok(());
            };
            // Nobody receives it only when the show has ended, and then the job ends at once.
            let _ = planned.send(plan.clone());
            let config = dataflow::config(&name, plan, &connections, Workers::Threads(workers));
            Ok(job::run(config, stats, stop)?)
        })
    }

    /// Shows the river until it is stopped, a stage ends, or `--until` is reached, which then
    /// gives the plan whose views are to be printed.
    fn show(
        &self,
        no_live: bool,
        stages: &[Stage; 2],
        planned: &Receiver<Job>,
    ) -> anyhow::Result<Option<Job>> {
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
            if seen.reached {
                break watch.map(|(plan, _)| plan);
            }
            if self.stop.load(Relaxed) || stages.iter().any(|stage| stage.thread.is_finished()) {
                break None;
            }
            display.tick(self.phase(&seen), seen.top);
            thread::sleep(TICK);
        };
        display.finish();
        Ok(reached)
    }

    fn watched(&self, plan: &Job) -> Watched {
        Watched {
            plan: plan.clone(),
            log: self.connections.log.clone(),
            sink: self.connections.sink.clone(),
            until: self.until.clone(),
            ingest_stats: Arc::clone(&self.ingest_stats),
            job_stats: Arc::clone(&self.job_stats),
        }
    }

    /// A long phase in words.
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
            None
        }
    }
}
