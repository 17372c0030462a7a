//! The two contestants, each in a process of its own: a hand-written program, and a job of the one
//! view.
//!
//! Each prints its answer as a line of JSON when it is complete, and waits until its stdin is
//! closed, so that its CPU time can be read while it is alive.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rdkafka::Message;
use serde::{Deserialize, Serialize};
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::{Config, Limits, Stats, TimeSource, Workers, run};
use tidemill_log::log;

use super::events::Kind;
use super::{by_hand, topics};
use crate::baseline::consumer;

/// Time between two looks at the job. It is part of our wall time.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The queries.
const VIEWS: &str = include_str!("../../../examples/nexmark/views.sql");

/// Flags of the hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// The query, such as q5
    pub(super) query: String,
    /// Events in the topics
    pub(super) events: u64,
    /// kafka://HOST:PORT
    pub(super) kafka: String,
    /// Worker threads of a job; the hand-written program without it
    #[arg(long)]
    pub(super) workers: Option<usize>,
    /// A folder for the job's state
    #[arg(long, default_value = ".")]
    pub(super) state: PathBuf,
}

/// What a contestant found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Events read.
    pub(super) events: u64,
    /// Rows of the query's answer.
    pub(super) rows: u64,
}

/// Runs a contestant to its end.
///
/// # Errors
/// Kafka does not answer, the query does not exist, or an event is not what it must be.
pub(crate) fn peer(args: &PeerArgs) -> anyhow::Result<()> {
    let answer = match args.workers {
        Some(workers) => job(args, workers)?,
        None => hand_written(args)?,
    };
    println!("{}", serde_json::to_string(&answer)?);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Reads the topics with the query's program.
fn hand_written(args: &PeerArgs) -> anyhow::Result<Answer> {
    let program = by_hand::program(&args.query);
    let mut program = program.with_context(|| format!("{} has no program", args.query))?;
    let brokers = args.kafka.trim_start_matches("kafka://");
    let tables = program.tables().iter();
    let kinds: HashMap<String, Kind> = tables
        .map(|kind| (topics::name(*kind, args.events), *kind))
        .collect();
    let names: Vec<String> = kinds.keys().cloned().collect();
    let (consumer, events) = consumer(brokers, &names)?;
    let mut read = 0;
    while read < events {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message?;
        let kind = kinds.get(message.topic()).context("another topic")?;
        program.take(*kind, message.payload().context("no value")?)?;
        read += 1;
    }
    Ok(Answer {
        events,
        rows: program.rows(),
    })
}

/// Runs a job of the one view until all events are in it. Its rows are dropped by the sink.
fn job(args: &PeerArgs, workers: usize) -> anyhow::Result<Answer> {
    let config = config(args, workers)?;
    let log = log::open(&args.kafka)?;
    let mut ends = Vec::new();
    for source in &config.plan.sources {
        ends.push((source.topic.clone(), log.ranges(&source.topic)?));
    }
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let (counted, stopped) = (Arc::clone(&stats), Arc::clone(&stop));
    let running = std::thread::spawn(move || run(config, None, counted, stopped));
    let complete = || {
        let durable = tidemill_log::lock(&stats.durable_ends);
        ends.iter().all(|(topic, ranges)| {
            let reached = durable.get(topic);
            let mut filled = ranges.iter().filter(|range| range.high > range.low);
            filled.all(|range| {
                let end = reached.and_then(|ends| ends.get(&range.partition));
                end.is_some_and(|end| *end >= range.high)
            })
        })
    };
    while !complete() {
        if running.is_finished() {
            let ended = running.join();
            bail!("the job ended: {ended:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let views = tidemill_log::lock(&stats.views);
    let view = views.get(&args.query).context("no such view")?;
    let letters = stats.dead_letters.load(Ordering::Relaxed);
    if letters > 0 || view.conflicts > 0 {
        bail!("{letters} dead letters, {} rows withheld", view.conflicts);
    }
    Ok(Answer {
        events: stats.records.load(Ordering::Relaxed),
        rows: view.rows.unsigned_abs(),
    })
}

/// The configuration of the job, with all defaults.
fn config(args: &PeerArgs, workers: usize) -> anyhow::Result<Config> {
    let sql = pipeline(&args.query, args.events)?;
    Ok(Config {
        name: "nexmark".into(),
        plan: tidemill_plan::compile(&sql, "views.sql", None)?,
        log: args.kafka.clone(),
        registry: None,
        state: format!("file://{}", absolute(&args.state)?.display()),
        sink: "blackhole://".into(),
        sinks: BTreeMap::new(),
        dead_letters: "bench_nexmark_dead_letters".into(),
        workers: Workers::Threads(workers),
        codec: Engine::default(),
        generation: None,
        take_over: false,
        limits: Limits::default(),
        time: TimeSource::System,
    })
}

/// The path from the root on.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// The tables of the example over the benchmark's topics, to which events are only added, and the
/// one view.
fn pipeline(query: &str, events: u64) -> anyhow::Result<String> {
    let head = format!("CREATE MATERIALIZED VIEW {query} ");
    let view = VIEWS.split(";\n").find(|it| it.contains(&head));
    let view = view.with_context(|| format!("examples/nexmark has no {query}"))?;
    let mut sql = String::new();
    for kind in Kind::ALL {
        let head = format!("CREATE TABLE {} (", kind.table());
        let table = VIEWS.split(";\n").find(|it| it.contains(&head));
        let table = table.with_context(|| format!("examples/nexmark has no {}", kind.table()))?;
        let topic = topics::name(kind, events);
        let table = table.replace(",\n    PRIMARY KEY (id)", "").replace(
            "WITH (format = 'json', envelope = 'upsert')",
            &format!("WITH (topic = '{topic}', format = 'json', envelope = 'append')"),
        );
        sql.push_str(&table);
        sql.push_str(";\n");
    }
    sql.push_str(view);
    sql.push_str(";\n");
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_with_a_program_is_a_view_over_topics_of_its_own() {
        for query in by_hand::QUERIES {
            assert!(by_hand::program(query).is_some());
            let sql = pipeline(query, 1000).unwrap();
            let job = tidemill_plan::compile(&sql, "views.sql", None).unwrap();
            let read: Vec<&str> = job.sources.iter().map(|it| &*it.topic).collect();
            let program = by_hand::program(query).unwrap();
            let named = program
                .tables()
                .iter()
                .map(|kind| topics::name(*kind, 1000));
            let mut named: Vec<String> = named.collect();
            named.sort();
            let mut read: Vec<String> = read.iter().map(|it| (*it).to_owned()).collect();
            read.sort();
            assert_eq!(read, named, "{query}");
        }
    }
}
