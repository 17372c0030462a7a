//! Preview of a start (`tidemill plan`): which views would be kept, filled again or deleted.
//!
//! Nothing is changed. Input: the plan, the journal, the newest checkpoint, the sink's frontiers,
//! and what the topics hold. Output: the fate of each view, and how much of each topic would be
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_ir::{Envelope, Epoch, Job, Rel, RelOp, Source, state_of};
use tidemill_log::health::Health;
use tidemill_log::log::Log;
use tidemill_log::{Kind, Result};
use tidemill_sinks::{Sink, claims};
use tidemill_state::checkpoint;
use tidemill_state::checkpoint::Manifest;
use tidemill_state::journal::Journal;

use crate::config::Config;
use crate::runtime::host::tables;

/// What a start does with a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// State and table are kept.
    Kept,
    /// The view is new: no table was filled by it yet.
    New,
    /// The view was altered since its table was filled: the table is dropped and filled again.
    Altered,
    /// The view's table no longer exists: the table is created and filled again.
    Gone,
    /// The view is no longer defined: its state is deleted, its table stays in the sink.
    Dropped,
}

/// How much of a topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether the topic is read from its beginning, because something must be filled that the
    /// checkpoint does not contain.
    pub from_beginning: bool,
    /// The number of records to read until everything that the topic holds now is in the views.
    pub records: u64,
}

/// What a start would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The checkpoint that the start would resume from: its epoch, and its size in bytes.
    pub checkpoint: Option<(Epoch, u64)>,
    /// Each served view, and each view that is no longer defined, by name.
    pub views: Vec<(String, Fate)>,
    /// Each topic that is read; `None` for a topic that does not exist yet.
    pub topics: Vec<(String, Option<Reading>)>,
}

/// Finds out what a start of the job would do.
///
/// # Errors
/// `Retry` when a service is away. `Data` when another job fills a table, or when the journal or a
/// checkpoint is damaged or of a later format.
pub fn preview(config: &Config) -> Result<Preview> {
    let store = tidemill_state::store::open(&config.state)?;
    let standing = Journal::read(&*store, &config.name)?;
    let manifest = checkpoint::newest(&*store, &standing.checkpoints)?;
    let sink = open(config)?;
    claims::check(&*sink, &config.name, &tables(&config.plan), false)?;
    let filled = sink.frontiers(&config.name)?;
    let mut views = Vec::new();
    for view in config
        .plan
        .views
        .iter()
        .filter(|view| view.output.is_some())
    {
        let fate = match filled.get(&view.name) {
            None => Fate::New,
            Some(frontier) if frontier.fingerprint != view.fingerprint => Fate::Altered,
            Some(_) if !sink.is_there(&view.name)? => Fate::Gone,
            Some(_) => Fate::Kept,
        };
        views.push((view.name.clone(), fate));
    }
    let known: BTreeSet<&str> = config.plan.views.iter().map(|v| v.name.as_str()).collect();
    let gone = filled
        .into_keys()
        .filter(|name| !known.contains(name.as_str()));
    views.extend(gone.map(|name| (name, Fate::Dropped)));
    let log = tidemill_log::log::open(&config.log)?;
    let again = read_again(&config.plan, &views, manifest.as_ref());
    let topics = config.plan.sources.iter().enumerate();
    let topics = topics.map(|(index, source)| {
        let again = again.contains(&index);
        let reading = reading(&*log, source, manifest.as_ref().filter(|_| !again))?;
        Ok((source.topic.clone(), reading))
    });
    Ok(Preview {
        topics: topics.collect::<Result<_>>()?,
        checkpoint: manifest.map(|manifest| (manifest.epoch, manifest.bytes())),
        views,
    })
}

/// The sinks of a job, as one.
fn open(config: &Config) -> Result<Arc<dyn Sink>> {
    let health = Health::default();
    tidemill_sinks::open_all(&config.sink, &config.sinks, &config.plan, &health)
}

/// Checks that the tables of the job's views were filled by no other job, and that the job's
/// journal is the one with which they were filled.
///
/// # Errors
/// `Data` when another job or another journal filled a table, or the journal is damaged. `Retry`
/// when a service is away.
pub fn check_journal(config: &Config) -> Result<()> {
    // In this order: a running job moves the frontiers only to epochs that the journal already
    // holds.
    let sink = open(config)?;
    let tables = tables(&config.plan);
    claims::check(&*sink, &config.name, &tables, false)?;
    let filled = sink.frontiers(&config.name)?;
    let store = tidemill_state::store::open(&config.state)?;
    let standing = Journal::read(&*store, &config.name)?;
    let through = |table: &tidemill_sinks::Table| {
        let frontier = filled.get(&table.name);
        // A table whose view was altered is filled again.
        let frontier = frontier.filter(|it| it.fingerprint == table.fingerprint);
        frontier.and_then(|frontier| frontier.epoch)
    };
    let served: Vec<Option<Epoch>> = tables.iter().map(through).collect();
    let last = standing.bindings.last().map(|binding| binding.epoch);
    crate::epoch::resume::check_filled(last, &tables, &served)
}

/// The sources that feed state or a view that the checkpoint does not contain.
fn read_again(
    plan: &Job,
    views: &[(String, Fate)],
    manifest: Option<&Manifest>,
) -> BTreeSet<usize> {
    let Some(manifest) = manifest else {
        return (0..plan.sources.len()).collect();
    };
    let keyed = plan.sources.iter().enumerate().filter(|(_, source)| {
        let site = format!("{}/0", state_of(source));
        source.envelope != Envelope::Append && !manifest.sites.contains_key(&site)
    });
    let mut again: BTreeSet<usize> = keyed.map(|(index, _)| index).collect();
    let fates: BTreeMap<&str, Fate> = views.iter().map(|(n, f)| (n.as_str(), *f)).collect();
    for view in &plan.views {
        let named = format!("{}/{:016x}/", view.name, view.fingerprint);
        let kept = match fates.get(view.name.as_str()) {
            Some(fate) => *fate == Fate::Kept,
            None => manifest.sites.keys().any(|site| site.starts_with(&named)),
        };
        if !kept {
            let sources = appended(&view.rel, plan);
            again.extend(sources);
        }
    }
    again
}

/// The append topics that a relation reads, directly or through views.
fn appended(rel: &Rel, plan: &Job) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    rel.visit(&mut |rel| match rel.op {
        RelOp::Source { source } => {
            let known = plan.sources.get(source);
            if known.is_some_and(|source| source.envelope == Envelope::Append) {
                found.insert(source);
            }
        }
        RelOp::View { view } => {
            let view = plan.views.get(view);
            found.extend(view.map_or_else(BTreeSet::new, |view| appended(&view.rel, plan)));
        }
        _ => {}
    });
    found
}

/// How much of a source's topic is read after a checkpoint; `None` if the topic does not exist yet.
fn reading(log: &dyn Log, source: &Source, from: Option<&Manifest>) -> Result<Option<Reading>> {
    let ranges = match log.ranges(&source.topic) {
        Err(error) if error.kind() == Kind::Retry => return Ok(None),
        ranges => ranges?,
    };
    let ends = from.and_then(|manifest| manifest.ends.get(&source.topic));
    let records = ranges.iter().map(|range| {
        let next = ends.and_then(|ends| ends.get(&range.partition));
        u64::try_from(range.high - next.copied().unwrap_or(range.low)).unwrap_or(0)
    });
    Ok(Some(Reading {
        from_beginning: from.is_none(),
        records: records.sum(),
    }))
}
