//! `tidemill verify`: compares the sink's tables with what the views should contain, and repairs
//! them.
//!
//! Input: the sink's tables, the newest usable checkpoint, the journal's epochs and the topics.
//! What the views should contain is computed from the last three alone, by the same dataflow.
//! Output: the rows that differ, and with a repair their corrected writes. The job may run
//! meanwhile; nothing of it is taken over or changed.
//!
//! ```text
//! one round: frontiers ─► tables ─► journal ─► evaluate to the journal's last epoch ─► compare
//! ```
//!
//! Because of this order, whatever was in a table was bound before the journal was read, and
//! nothing at or below the table's frontier was missing.
//!
//! 1. A key is right if its row is what it was at the table's frontier or in any bound epoch after
//!    it, because such epochs are on their way to the table. Therefore a change that happens
//!    meanwhile is not reported, and a reported difference is certain.
//! 2. For this the evaluation must begin at or below the frontier. If all checkpoints are newer,
//!    because reading the tables took long, the round only finds the keys that may differ. Another
//!    round compares those keys alone, which is fast.
//! 3. A repair writes the row of the last bound epoch and loses to every later epoch. It is
//!    followed by another round, whose differences are those that are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_ir::Epoch;
use tidemill_log::health::Health;
use tidemill_log::log::Log;
use tidemill_log::{Error, Kind, Result, lock};
use tidemill_sinks::{Sink, Table};
use tidemill_state::checkpoint;
use tidemill_state::checkpoint::Manifest;
use tidemill_state::journal::{Journal, Standing};
use tidemill_state::store::Store;

use crate::config::Config;
use crate::epoch::messages::{Held, Start};
use crate::epoch::resume;
use crate::runtime::host;
use crate::stats::Stats;

mod compare;
mod expected;

pub use compare::{Cell, Difference, Differences, What};

use compare::{Differing, Found, repairs};
use expected::{Expected, Keyed, Only};

/// Most rounds until the differences are certain.
const ROUNDS_MAX: usize = 5;
/// Most attempts to repair the differences.
const REPAIRS_MAX: usize = 5;

/// What to verify, and whether to repair.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether to compute the views from the topics' beginning instead of a checkpoint.
    pub from_log: bool,
    /// Whether to repair the rows that differ.
    pub repair: bool,
    /// How many differences of each view are described.
    pub limit: usize,
}

/// The result for one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The view's name.
    pub view: String,
    /// The names of its primary key's columns.
    pub key: Vec<String>,
    /// The epoch that the whole table had reached.
    pub epoch: Epoch,
    /// The number of rows that the table should contain.
    pub rows: u64,
    /// The number of keys in error in all sources that the named views read. Their rows are in no
    /// view.
    pub keys_in_error: u64,
    /// The number of the view's rows that no table can hold because of their values. They are dead
    /// letters and no differences.
    pub unfit: u64,
    /// The differences before a repair.
    pub found: Differences,
    /// The differences after the repair; `None` without a repair.
    pub left: Option<Differences>,
}

impl Verified {
    /// The differences that exist now.
    pub fn remaining(&self) -> &Differences {
        self.left.as_ref().unwrap_or(&self.found)
    }
}

/// Compares the tables of the named views (of all served views if none is named), and repairs them
/// if asked to.
///
/// # Errors
/// `Data` when a view is unknown, not served, not filled or altered since, or when the checkpoint,
/// the journal or a topic no longer holds what is needed. `Retry` when a service is away. After an
/// error of the evaluation, its worker threads may still exist, parked, so the process should end.
pub fn verify(config: &Config, views: &[String], options: &Options) -> Result<Vec<Verified>> {
    let look = Look::open(config, views, options.from_log)?;
    let epochs = look.frontiers()?;
    if options.repair {
        // Creates a table that somebody dropped; otherwise changes nothing.
        look.sink.prepare(&config.name, &look.tables())?;
    }
    let all = look.tables.iter().map(|_| None).collect();
    let found = look.settle(all)?;
    let left = options.repair.then(|| look.repair(&found)).transpose()?;
    let verified = look.tables.iter().enumerate().map(|(index, keyed)| {
        let described = |differing: Option<&Differing>| match differing {
            Some(differing) => Differences::new(keyed, differing, options.limit),
            None => Ok(Differences::default()),
        };
        let left = left.as_ref().map(|left| left.get(index));
        Ok(Verified {
            view: keyed.table.name.clone(),
            key: keyed.table.key_names().map(str::to_owned).collect(),
            epoch: epochs.get(index).copied().unwrap_or_default(),
            rows: found.counts.get(index).copied().unwrap_or_default(),
            keys_in_error: found.keys_in_error,
            unfit: found.unfit.get(index).copied().unwrap_or_default(),
            found: described(found.differing.get(index))?,
            left: left.map(described).transpose()?,
        })
    });
    verified.collect()
}

/// What is compared.
struct Look {
    /// The job, with the plan reduced to the named views.
    config: Config,
    /// Whether checkpoints are ignored.
    from_log: bool,
    /// The real sink.
    sink: Arc<dyn Sink>,
    /// The state store.
    store: Arc<dyn Store>,
    /// The log.
    log: Arc<dyn Log>,
    /// The tables of the named views.
    tables: Vec<Arc<Keyed>>,
}

/// The result of one round.
struct Round {
    /// The last bound epoch.
    through: Epoch,
    /// Whether the differences are certain.
    certain: bool,
    /// The number of keys in error in the sources.
    keys_in_error: u64,
    /// The number of rows of each view.
    counts: Vec<u64>,
    /// For each view: the number of rows that no table can hold.
    unfit: Vec<u64>,
    /// For each view: the rows that differ.
    differing: Vec<Differing>,
}

impl Round {
    /// Whether no row differs.
    fn is_right(&self) -> bool {
        self.differing.iter().all(Differing::is_empty)
    }

    /// The keys that differ, for the next round.
    fn only(&self) -> Vec<Only> {
        let only = self.differing.iter().map(|differing| {
            let keys = differing.iter();
            Some(
                keys.filter_map(|(key, wrong)| Some((key.clone(), wrong.any()?.clone())))
                    .collect(),
            )
        });
        only.collect()
    }
}

impl Look {
    /// Opens the services, and reduces the plan to the named views.
    fn open(config: &Config, views: &[String], from_log: bool) -> Result<Self> {
        let mut config = config.clone();
        config.plan = config.plan.serving(views)?;
        // Sources only replay bound epochs; they need not read further.
        config.limits.rows_waiting_max = 0;
        let tables = host::tables(&config.plan).into_iter();
        let tables = tables.map(|table| Ok(Arc::new(Keyed::new(table)?)));
        Ok(Self {
            sink: tidemill_sinks::open_all(
                &config.sink,
                &config.sinks,
                &config.plan,
                &Health::default(),
            )?,
            store: tidemill_state::store::open(&config.state)?,
            log: tidemill_log::log::open(&config.log)?,
            tables: tables.collect::<Result<_>>()?,
            from_log,
            config,
        })
    }

    /// The definitions of the tables.
    fn tables(&self) -> Vec<Table> {
        self.tables
            .iter()
            .map(|keyed| keyed.table.clone())
            .collect()
    }

    /// The epoch that each whole table has reached.
    ///
    /// # Errors
    /// `Data` when a view was altered or is not filled yet.
    fn frontiers(&self) -> Result<Vec<Epoch>> {
        let job = &self.config.name;
        let known = self.sink.frontiers(job)?;
        if known.is_empty() {
            let what = format!(
                "job `{job}` has filled no view there: run the pipeline first, or give the \
                 connections and the --name that it runs with"
            );
            return Err(Error::new(Kind::Data, what));
        }
        let frontier = |keyed: &Arc<Keyed>| {
            let table = &keyed.table;
            let wrong = |why: &str| {
                let what = format!("view `{}` {why}", table.name);
                Err(Error::new(Kind::Data, what))
            };
            match known.get(&table.name) {
                Some(found) if found.fingerprint != table.fingerprint => wrong(
                    "was altered since its table was filled: start the pipeline, which makes and \
                     fills it anew",
                ),
                Some(found) if found.epoch.is_some() => Ok(found.epoch.unwrap_or_default()),
                _ => wrong("was not filled yet: run the pipeline until it is"),
            }
        };
        self.tables.iter().map(frontier).collect()
    }

    /// Repeats rounds until the differences are certain.
    ///
    /// # Errors
    /// `Data` when the job replaced its checkpoints faster than they could be read.
    fn settle(&self, mut only: Vec<Only>) -> Result<Round> {
        let mut counts = None;
        for _ in 0..ROUNDS_MAX {
            let Some(mut round) = self.round(only.clone())? else {
                continue;
            };
            round.counts = counts.get_or_insert(round.counts).clone();
            if round.certain || round.is_right() {
                return Ok(round);
            }
            only = round.only();
        }
        let what = format!(
            "the job's checkpoints were replaced {ROUNDS_MAX} times before they could be read: run \
             the job with a longer --checkpoint-every, stop it meanwhile, or verify with --from-log"
        );
        Err(Error::new(Kind::Data, what))
    }

    /// One round. `None` when the checkpoint was deleted in the meantime.
    fn round(&self, only: Vec<Only>) -> Result<Option<Round>> {
        let frontiers = self.frontiers()?;
        tracing::info!(tables = self.tables.len(), "reading the tables");
        let found = self.tables.iter().zip(&only);
        let found = found.map(|(keyed, only)| self.found(keyed, only));
        let found = found.collect::<Result<Vec<_>>>()?;
        let standing = Journal::read(&*self.store, &self.config.name)?;
        let through = standing.bindings.last().map(|binding| binding.epoch);
        let reached: Vec<_> = frontiers.iter().copied().map(Some).collect();
        resume::check_filled(through, &self.tables(), &reached)?;
        let least = frontiers.iter().min().copied().unwrap_or_default();
        let Some(checkpoint) = self.checkpoint(&standing, least)? else {
            return Ok(None);
        };
        let restored = checkpoint.is_some();
        let start = self.start(&standing, checkpoint)?;
        let first = start.bindings.first().map(|binding| binding.epoch);
        let begun = start.checkpoint.as_ref().map(|it| it.epoch).or(first);
        let begun = begun.unwrap_or_default();
        let (epoch, epochs) = (begun, start.bindings.len());
        tracing::info!(
            epoch,
            restored,
            epochs,
            "computing what the views should hold"
        );
        let tables = self.tables.iter().zip(frontiers).zip(only);
        let tables =
            tables.map(|((keyed, reached), only)| (Arc::clone(keyed), reached.max(begun), only));
        let expected = Arc::new(Expected::new(Arc::clone(&self.sink), tables));
        let evaluated = host::evaluate(self.config.clone(), start, Arc::clone(&expected) as _);
        let stats = match evaluated {
            Err(_) if restored && self.moved_on(&standing)? => return Ok(None),
            evaluated => evaluated?,
        };
        tracing::info!("comparing");
        let expected = expected.take();
        let differing = found.iter().zip(&expected);
        Ok(Some(Round {
            through: through.unwrap_or_default(),
            certain: begun <= least,
            keys_in_error: stats.keys_in_error(),
            counts: expected.iter().map(expected::ExpectedRows::count).collect(),
            unfit: self.unfit(&stats),
            differing: differing.map(|(found, rows)| found.compare(rows)).collect(),
        }))
    }

    /// For each view: the rows that no table can hold, as the evaluation counted them.
    fn unfit(&self, stats: &Stats) -> Vec<u64> {
        let views = lock(&stats.views);
        let unfit = self.tables.iter().map(|keyed| {
            let view = views.get(&keyed.table.name);
            view.map_or(0, |view| u64::try_from(view.unfit).unwrap_or(0))
        });
        unfit.collect()
    }

    /// Reads one table.
    fn found(&self, keyed: &Keyed, only: &Only) -> Result<Found> {
        Found::read(&*self.sink, keyed, only).map_err(|error| {
            let what = format!(
                "view `{}`: its table cannot be read (if it was dropped, --repair makes and fills \
                 it anew)",
                keyed.table.name
            );
            Error::with_source(error.kind(), what, error)
        })
    }

    /// Whether the job has other checkpoints by now.
    fn moved_on(&self, standing: &Standing) -> Result<bool> {
        let now = Journal::read(&*self.store, &self.config.name)?;
        Ok(now.checkpoints != standing.checkpoints)
    }

    /// The newest checkpoint at or below `least`, or else the newest of all. The inner option is
    /// `None` when there is no checkpoint, the outer one when the checkpoint was deleted in the
    /// meantime.
    fn checkpoint(&self, standing: &Standing, least: Epoch) -> Result<Option<Option<Manifest>>> {
        if self.from_log {
            return Ok(Some(None));
        }
        let all = &standing.checkpoints;
        let usable = all.partition_point(|checkpoint| checkpoint.epoch <= least);
        let usable = all.get(..usable).filter(|usable| !usable.is_empty());
        let usable = usable.unwrap_or(all);
        let newest = checkpoint::newest(&*self.store, usable)?;
        let wanted = usable.last().map(|checkpoint| checkpoint.epoch);
        let is_it = newest.as_ref().map(|newest| newest.epoch) == wanted;
        if !is_it && self.moved_on(standing)? {
            return Ok(None);
        }
        Ok(Some(newest))
    }

    /// The start of the evaluation: replay what is bound, and nothing after it.
    fn start(&self, standing: &Standing, checkpoint: Option<Manifest>) -> Result<Start> {
        let (mut partitions, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for source in &self.config.plan.sources {
            let topic = &source.topic;
            let ranges = self.log.ranges(topic)?.into_iter();
            partitions.insert(topic.clone(), ranges.map(Held::from).collect());
            let described = self.log.describe(topic)?;
            ids.extend(described.map(|described| (topic.clone(), described.id)));
        }
        // Every epoch counts, also those that the tables already contain.
        let served = vec![None; self.tables.len()];
        let bindings = standing.bindings.clone();
        resume::start(checkpoint, bindings, partitions, &ids, served)
    }

    /// Repairs the differences until there is none, or until a repair does not help. Returns the
    /// differences that are left.
    fn repair(&self, found: &Round) -> Result<Vec<Differing>> {
        let (mut last, mut over_newer) = (None::<Round>, false);
        for _ in 0..REPAIRS_MAX {
            let wrong = last.as_ref().unwrap_or(found);
            if wrong.is_right() {
                break;
            }
            for (index, (keyed, differing)) in self.tables.iter().zip(&wrong.differing).enumerate()
            {
                if !differing.is_empty() {
                    let writes = repairs(keyed, index, wrong.through, differing)?;
                    let view = &keyed.table.name;
                    for refused in self.sink.read_back()?.repair(writes, over_newer)? {
                        let reason = refused.reason;
                        tracing::warn!(view, reason, "a row is refused by the view's table");
                    }
                }
            }
            let next = self.settle(wrong.only())?;
            // The rows that are still wrong were written with a later version than the last epoch.
            // If the job runs, its next epoch is later than that. If the job does not run,
            // overwriting loses none of its writes.
            let idle = next.through == wrong.through;
            let in_vain = over_newer && idle;
            over_newer = idle;
            last = Some(next);
            if in_vain {
                break;
            }
        }
        Ok(last.map(|last| last.differing).unwrap_or_default())
    }
}
