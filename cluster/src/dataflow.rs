//! `dataflow`, and what `run` shares with it: a job planned as soon as its tables' schemas are
//! known, and run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tidemill_dataflow::Kind;
use tidemill_dataflow::job::{self, Config, Limits, Stats, Workers};
use tidemill_dataflow::plan::ir::Job;
use tidemill_log::dead_letter::topic_of;
use tidemill_log::registry;

use crate::cli::{DataflowArgs, StateArgs};
use crate::connections::Connections;
use crate::observe::{self, Process};
use crate::pipeline::{Folder, Views};
use crate::protocol::Part;
use crate::{exit, hosts, logging};

/// Time between two questions for a schema that is not there yet.
const AWAIT: Duration = Duration::from_millis(200);

/// Runs the dataflow of a pipeline, alone or as one process of several.
pub(crate) fn run(args: &DataflowArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let workers = args.hosts.workers()?;
    logging::start(&args.log, "info", &folder.name, args.hosts.process)?;
    exit::exit_on_panic();
    hosts::check_own_port(&workers)?;
    let stop = exit::stop_on_signal()?;
    let views = folder.views()?;
    for (stage, url) in connections.described() {
        tracing::info!(stage, url, "connection");
    }
    let stats = Arc::new(Stats::default());
    observe::process(&args.http, || Process {
        job: folder.name.clone(),
        part: Some(Part::Dataflow),
        generation: None,
        index: args.hosts.process,
        dataflow: Some(Arc::clone(&stats)),
        ingest: None,
    })?;
    let awaited = |what: &str| {
        tracing::info!("waiting: {what}");
        stats.say(format!("waiting: {what}"));
    };
    let Some(plan) = plan_when_ready(&views, &connections, &stop, &awaited)? else {
        return Ok(());
    };
    tracing::info!(views = plan.views.len(), ?workers, "starting");
    let config = config(&folder.name, plan, &connections, workers, &args.state);
    job::run(config, Arc::clone(&stats), stop)?;
    let (records, dead_letters) = (&stats.records, &stats.dead_letters);
    let (records, dead_letters) = (records.load(Relaxed), dead_letters.load(Relaxed));
    tracing::info!(records, dead_letters, "stopped");
    Ok(())
}

/// The plan, as soon as the registry knows all tables; none when stopped before. `awaited` is told
/// what is waited for, each time that changes.
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
            Err(error) => return Err(error.into()),
        }
        thread::sleep(AWAIT);
    }
    Ok(None)
}

/// The job's configuration on these connections.
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
        dead_letters: topic_of(name),
        workers,
        limits: Limits {
            checkpoint_interval: state.checkpoint_every,
            ..Limits::default()
        },
    }
}
