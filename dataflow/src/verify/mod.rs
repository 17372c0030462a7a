//! Comparing what the sink holds with what the views should hold, and repairing it.
//!
//! In flow the sink's tables, the newest usable checkpoint, the journal's epochs and the topics;
//! what the views should hold is computed from the latter three alone, by the same dataflow. Out
//! flow the rows that differ, and with a repair their writes. The job may run meanwhile: nothing of
//! it is taken over or changed.
//!
//! A *round* reads the tables' frontiers, then the tables, then the journal, and then evaluates
//! through the journal's last epoch. So whatever was in a table was bound before the journal was
//! read, and nothing at or below its frontier was missing.
//!
//! 1. A key is right when it holds what it was at the table's frontier or in any bound epoch after
//!    it: such epochs are on their way to the table. So a change that takes place meanwhile is no
//!    difference, and a difference is one for certain.
//! 2. This asks for a beginning at or below the frontier. When all checkpoints are newer, since
//!    reading the tables took long, the round only tells which keys may differ, and another one
//!    looks at those alone, which is quick.
//! 3. A repair writes the row of the last bound epoch and loses to every later epoch. It is
//!    followed by another round: what that finds is what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_log::log::Log;

use crate::checkpoint::{self, Manifest};
use crate::config::Config;
use crate::journal::{Journal, Standing};
use crate::sink::{Sink, Table};
use crate::stats::Stats;
use crate::store::Store;
use crate::sync::lock;
use crate::time::messages::{Held, Start};
use crate::time::resume;
use crate::{Epoch, Error, Kind, Result, host};

mod compare;
mod expected;

pub use compare::{Cell, Difference, Differences, What};

use compare::{Differing, Found, repairs};
use expected::{Expected, Keyed, Only};

/// Rounds until the keys that may differ are told apart.
const ROUNDS_MAX: usize = 5;
/// How often is written what differs.
const REPAIRS_MAX: usize = 5;

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compute the views from the topics' beginning instead of a checkpoint.
    pub from_log: bool,
    /// Write what differs as it should be.
    pub repair: bool,
    /// How many differences of each view are described.
    pub limit: usize,
}

/// What became of one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The view.
    pub view: String,
    /// Its primary key.
    pub key: Vec<String>,
    /// The epoch that all of its table had reached.
    pub epoch: Epoch,
    /// Rows that it should hold.
    pub rows: u64,
    /// Keys of all tables that the named views read whose newest change could not be published or
    /// decoded: their rows are in no view.
    pub keys_in_error: u64,
    /// Rows of the view that no table can hold for what they hold; they are dead letters, and no
    /// difference.
    pub unfit: u64,
    /// How the table differed.
    pub found: Differences,
    /// How it differs after the repair; none when none was asked for.
    pub left: Option<Differences>,
}

impl Verified {
    /// How it differs now.
    pub fn remaining(&self) -> &Differences {
        self.left.as_ref().unwrap_or(&self.found)
    }
}

/// Compares the tables of the views that are named, all served ones when none is, and repairs them
/// if asked to. After an error of an evaluation its worker threads may still be there, standing
/// still: a process does well to end then.
///
/// # Errors
/// When a view is unknown, not served, not filled or altered since; when a service is away, or what
/// the views are computed from is damaged or not there any more.
pub fn verify(config: &Config, views: &[String], options: &Options) -> Result<Vec<Verified>> {
    let look = Look::open(config, views, options.from_log)?;
    let epochs = look.frontiers()?;
    if options.repair {
        // Makes a table again that somebody dropped, and otherwise nothing.
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

/// What is looked at.
struct Look {
    config: Config,
    from_log: bool,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    log: Arc<dyn Log>,
    tables: Vec<Arc<Keyed>>,
}

/// What a round found.
struct Round {
    /// The last epoch that was bound.
    through: Epoch,
    /// Whether what differs does so for certain.
    certain: bool,
    /// Keys of the sources whose newest change could not be used.
    keys_in_error: u64,
    /// Rows of each view.
    counts: Vec<u64>,
    /// Of each view those that no table can hold.
    unfit: Vec<u64>,
    differing: Vec<Differing>,
}

impl Round {
    fn is_right(&self) -> bool {
        self.differing.iter().all(Differing::is_empty)
    }

    /// The keys that differ.
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
    fn open(config: &Config, views: &[String], from_log: bool) -> Result<Self> {
        let mut config = config.clone();
        config.plan = config.plan.serving(views)?;
        // Sources replay; they need not read on.
        config.limits.rows_waiting_max = 0;
        let tables = host::tables(&config.plan).into_iter();
        let tables = tables.map(|table| Ok(Arc::new(Keyed::new(table)?)));
        Ok(Self {
            sink: crate::sink::open(&config.sink)?,
            store: crate::store::open(&config.state)?,
            log: tidemill_log::log::open(&config.log)?,
            tables: tables.collect::<Result<_>>()?,
            from_log,
            config,
        })
    }

    fn tables(&self) -> Vec<Table> {
        self.tables
            .iter()
            .map(|keyed| keyed.table.clone())
            .collect()
    }

    /// The epoch that all of each table has reached.
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

    /// Goes on until what differs does so for certain.
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

    /// One look at everything. None when the checkpoint went away meanwhile.
    fn round(&self, only: Vec<Only>) -> Result<Option<Round>> {
        let frontiers = self.frontiers()?;
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
        tracing::debug!(
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
        let expected = expected.take();
        let differing = found.iter().zip(&expected);
        Ok(Some(Round {
            through: through.unwrap_or_default(),
            certain: begun <= least,
            keys_in_error: stats.keys_in_error(),
            counts: expected.iter().map(expected::Rows::count).collect(),
            unfit: self.unfit(&stats),
            differing: differing.map(|(found, rows)| found.compare(rows)).collect(),
        }))
    }

    /// Rows of each view that no table can hold, as an evaluation counted them.
    fn unfit(&self, stats: &Stats) -> Vec<u64> {
        let views = lock(&stats.views);
        let unfit = self.tables.iter().map(|keyed| {
            let view = views.get(&keyed.table.name);
            view.map_or(0, |view| u64::try_from(view.unfit).unwrap_or(0))
        });
        unfit.collect()
    }

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

    /// Whether there are other checkpoints than there were.
    fn moved_on(&self, standing: &Standing) -> Result<bool> {
        let now = Journal::read(&*self.store, &self.config.name)?;
        Ok(now.checkpoints != standing.checkpoints)
    }

    /// The newest checkpoint at or below `least`, else the newest of all. None within when there is
    /// none to begin with, none at all when the newest went away meanwhile.
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

    /// What the workers are told: the epochs that are bound, and nothing after them.
    fn start(&self, standing: &Standing, checkpoint: Option<Manifest>) -> Result<Start> {
        let (mut partitions, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for source in &self.config.plan.sources {
            let topic = &source.topic;
            let ranges = self.log.ranges(topic)?.into_iter();
            partitions.insert(topic.clone(), ranges.map(Held::from).collect());
            let described = self.log.describe(topic)?;
            ids.extend(described.map(|described| (topic.clone(), described.id)));
        }
        // Every epoch counts, also those that the tables have.
        let served = vec![None; self.tables.len()];
        let bindings = standing.bindings.clone();
        resume::start(checkpoint, bindings, partitions, &ids, served)
    }

    /// Writes what differs until nothing does, or what does cannot be helped. What is left.
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
                    for refused in self.sink.repair(writes, over_newer)? {
                        let reason = refused.reason;
                        tracing::warn!(view, reason, "a row is refused by the view's table");
                    }
                }
            }
            let next = self.settle(wrong.only())?;
            // What is still wrong was written later than the last epoch. While the job goes on,
            // its next epoch is later than that; when it does not, nothing of it can be lost.
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
